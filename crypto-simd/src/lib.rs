//! Hashing and sealing of blocks at the speed of the CPU.
//!
//! - [`sha256`] hashes many independent messages at once: sixteen lanes of AVX-512, eight of AVX2, or two interleaved
//!   streams through x86's SHA extensions, whatever the messages' lengths; and the 64-byte pairs of a Merkle tree.
//! - [`blake3`] hashes blocks of a file as subtrees, whose values merge to the file's ordinary BLAKE3 hash.
//! - [`aead`] seals blocks with AES-GCM, in place or on their way from one buffer to another.
//!
//! ```
//! use crypto_simd::sha256;
//!
//! let files: Vec<Vec<u8>> = (0..100).map(|i| vec![7; 1000 * i]).collect();
//! let messages: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
//! let mut digests = vec![[0; 32]; messages.len()];
//! sha256::hash_many(&messages, &mut digests);
//!
//! assert_eq!(digests[42], sha256::hash(&files[42]));
//! ```
//!
//! The way to hash is chosen once, by what the CPU supports; the environment variable `CRYPTO_SIMD` forces another
//! ([`sha256::Backend::named`] lists them). Digests are the same whatever the way, and tests run them all.
//!
//! Owns nothing but algorithms: never does I/O, never is asynchronous, knows nothing of Sealift's formats. The only
//! intrinsics are below `sha256::arch`, the only threads rayon's, in [`sha256::par_hash_many`].

pub mod aead;
pub mod blake3;
pub mod sha256;

/// Bytes in a digest of either hash.
pub const DIGEST_BYTES: usize = 32;

/// A 256-bit digest.
pub type Digest = [u8; DIGEST_BYTES];
