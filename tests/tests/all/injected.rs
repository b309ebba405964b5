//! Faults inside the program (hazards B1, B2, B3, B4, B8, B10): a copy of it whose n-th operation on the disk fails, lies,
//! or is its last, by a plan in `SEALIFT_FAULTS`. It ends by itself, whatever is in place is whole, and the next run
//! makes all of it.
//!
//! `SEALIFT_TEST_FAULTS` says how many points each test tries, or `all`.
#![allow(clippy::unwrap_used)]

mod kill;
mod lies;
mod lost;
mod nth;
mod reads;
mod scene;
mod syncs;
mod writes;
