//! Envelopes: what is kept where others could read it is sealed under a fresh data key, and that key is wrapped to the
//! RSA keys (key-encryption keys, KEKs) of those who may read. `docs/envelope.md` has the formats.
//!
//! - [`DataKey`]: 32 bytes, in memory only; what is derived from it, and what commits to it.
//! - [`stream`]: content in segments, with random access, that shows truncation, order and extension.
//! - [`block`]: single blocks, sealed in place, equal content at an equal place to equal bytes.
//! - [`RecordSealer`]: log records, one by one.
//! - [`PublicKek`], [`PrivateKek`]: the two halves of a KEK, from the files that `openssl` writes.
//! - [`Envelope`]: a data key wrapped to one or several KEKs, as bytes.
//!
//! Pure: no files, no network, no clock; randomness is the operating system's. Third parties' types stay inside.
#![forbid(unsafe_code)]

pub mod block;
pub mod limits;
pub mod stream;

mod envelope;
mod key;
mod oaep;
mod pem;
mod private;
mod public;
mod record;

pub use block::{BlockSealer, NotAuthentic};
pub use envelope::{Envelope, EnvelopeError, OwnerId, SealError, WrapInfo};
pub use key::{Commitment, DataKey, NoRandomness};
pub use private::{CONVERT_COMMAND, PrivateKek, PrivateKeyError, UnwrapError};
pub use public::{
    Fingerprint, KekVersion, NotAFingerprint, PublicKek, PublicKeyError, WrapError, WrapLabel, WrappedKey,
};
pub use record::RecordSealer;
pub use stream::{Opener, Stream, StreamError};
