//! Every bound of this crate: on what comes from outside, and on what it may cost.

/// Bytes of a file of a key. An RSA key of 8192 bits has 6.4 KiB; the rest is for text around it.
pub const PEM_BYTES_MAX: usize = 64 << 10;

/// Bits of the smallest RSA key that is taken.
pub const RSA_BITS_MIN: u32 = 2048;
/// Bits below which an RSA key is taken with a warning (NIST SP 800-57: 3072 bits are 128 bits of strength).
pub const RSA_BITS_STRONG: u32 = 3072;
/// Bits of the largest RSA key that is taken: unwrapping costs the cube of it.
pub const RSA_BITS_MAX: u32 = 8192;

/// Iterations of PBKDF2 that a file of a private key may ask for: some seconds.
pub const PBKDF2_ITERATIONS_MAX: u32 = 10_000_000;
/// Memory that scrypt may take for a file of a private key: 128 × N × r bytes.
pub const SCRYPT_BYTES_MAX: u64 = 128 << 20;
/// How often scrypt may fill that memory: its parameter p.
pub const SCRYPT_PASSES_MAX: u16 = 4;

/// KEKs that one data key is wrapped to.
pub const ENVELOPE_WRAPS_MAX: usize = 16;
/// Bytes of a wrapped data key: as many as the modulus.
pub const WRAPPED_BYTES_MIN: usize = RSA_BITS_MIN as usize / 8;
/// Bytes of a wrapped data key: as many as the modulus.
pub const WRAPPED_BYTES_MAX: usize = RSA_BITS_MAX as usize / 8;
/// Bytes of an envelope.
pub const ENVELOPE_BYTES_MAX: usize =
    crate::envelope::HEAD_BYTES + ENVELOPE_WRAPS_MAX * (crate::envelope::WRAP_HEAD_BYTES + WRAPPED_BYTES_MAX);

/// Bytes of a segment of a stream, its tag included: a header, a tag and a byte fit into the first.
pub const SEGMENT_BYTES_MIN: usize = crate::stream::HEADER_BYTES + crate::stream::TAG_BYTES + 1;
/// Bytes of a segment of a stream, its tag included: as much is held in memory to open one.
pub const SEGMENT_BYTES_MAX: usize = 16 << 20;
/// Segments of a stream: their number has 32 bits.
pub const SEGMENTS_MAX: u64 = 1 << 32;
/// Numbers of segments that are tried to tell a segment that was moved from one that was changed.
pub const MOVES_TRIED_MAX: u32 = 1024;

/// Bytes of the context and of the label of a sealed block, each.
pub const CONTEXT_BYTES_MAX: usize = u32::MAX as usize;

const _: () = assert!(RSA_BITS_MIN < RSA_BITS_STRONG && RSA_BITS_STRONG < RSA_BITS_MAX);
const _: () = assert!(WRAPPED_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(ENVELOPE_WRAPS_MAX <= u16::MAX as usize);
