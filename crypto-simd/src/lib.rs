//! Block hashing where the engine's cryptography meets the CPU.
//!
//! Owns: hashing many independent messages at once ([`sha256`]) and hashing the blocks of a file as
//! BLAKE3 subtrees ([`blake3`]). Never does I/O, never is asynchronous, knows nothing of Sealift's formats.

pub mod aead;
pub mod blake3;
pub mod sha256;

/// Bytes in a digest of either hash.
pub const DIGEST_BYTES: usize = 32;

/// A 256-bit digest.
pub type Digest = [u8; DIGEST_BYTES];
