//! The manifest: a hash-chained, signed log of what a job holds. Layouts: `docs/manifest.md`.
//!
//! A writer turns [`Record`]s into signed segments with a [`SegmentWriter`]. A reader passes bytes through a
//! [`Catalog`], which checks signature, chain and sense, in this order, and only then lets the records out.

mod attributes;
mod catalog;
mod paths;
mod record;
pub mod sealed;
mod segment;
#[cfg(test)]
mod tests;

pub use attributes::{
    AccountName, Acl, AclEntry, AclWho, Attributes, AttributesError, Owner, Xattr, XattrName,
};
pub use catalog::{Catalog, ManifestError, Mark};
pub use record::{Hole, Metadata, Mode, Problem, Record, RecordError, WithdrawReason};
pub use segment::{Fill, SegmentError, SegmentHash, SegmentHeader, SegmentSeq, SegmentWriter, inspect};
