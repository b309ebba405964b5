//! One stream through ARMv8's SHA-2 instructions, as `sha2` drives them.

use super::State;
use crate::sha256::rounds::PAIR_PADDING_BLOCK;

/// Adds `count` consecutive blocks to the state.
///
/// # Safety
/// The pointer is valid for reads of `64 * count` bytes.
pub(super) unsafe fn compress(state: &mut State<1>, blocks: &[*const u8; 1], count: usize) {
    // SAFETY: the caller vouches for `64 * count` bytes; an array of bytes needs no alignment.
    let blocks = unsafe { std::slice::from_raw_parts(blocks[0].cast::<[u8; 64]>(), count) };
    let mut words = state.lane(0);
    sha2::block_api::compress256(&mut words, blocks);
    state.set_lane(0, &words);
}

/// Adds one block and then the padding of a pair.
///
/// # Safety
/// The pointer is valid for reads of 64 bytes.
pub(super) unsafe fn compress_pairs(state: &mut State<1>, blocks: &[*const u8; 1]) {
    // SAFETY: the caller vouches for the first pointer, and the second has a block behind it.
    unsafe {
        compress(state, blocks, 1);
        compress(state, &[PAIR_PADDING_BLOCK.as_ptr()], 1);
    }
}
