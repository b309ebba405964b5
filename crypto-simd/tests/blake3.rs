//! Blocks hashed as subtrees, against the ordinary hash of the whole.

#![cfg(not(miri))]

use crypto_simd::Digest;
use crypto_simd::blake3::{hash, merge, subtree};
use proptest::prelude::*;

/// The hash of `data` by way of blocks, as an engine that sees one block at a time computes it.
fn by_blocks(data: &[u8], block_bytes: usize) -> Digest {
    if data.len() <= block_bytes {
        return hash(data);
    }
    let blocks: Vec<Digest> = data
        .chunks(block_bytes)
        .enumerate()
        .map(|(i, block)| subtree(block, (i * block_bytes) as u64))
        .collect();
    merge(&blocks).expect("two or more blocks")
}

fn data(length: usize) -> Vec<u8> {
    // The input of BLAKE3's own test vectors.
    (0..251).cycle().take(length).collect()
}

fn whole(data: &[u8]) -> Digest {
    *blake3::hash(data).as_bytes()
}

#[test]
fn every_length_around_every_boundary_of_small_blocks() {
    let all = data(64 * 1024 + 1);
    for block_bytes in [1_024_usize, 2_048, 4_096, 16_384] {
        for blocks in 0..=64 * 1024 / block_bytes {
            for off in [-1_isize, 0, 1, 63, 64, 65, 1_023] {
                let Some(length) = (blocks * block_bytes).checked_add_signed(off) else { continue };
                if let Some(data) = all.get(..length) {
                    assert_eq!(
                        by_blocks(data, block_bytes),
                        whole(data),
                        "{length} in blocks of {block_bytes}"
                    );
                }
            }
        }
    }
}

#[test]
fn lengths_around_the_boundaries_of_large_blocks() {
    let all = data(5 * (1 << 20) + 1);
    for block_bytes in [32 << 10, 128 << 10, 1 << 20] {
        for length in (0..=5).flat_map(|blocks| [blocks << 20, (blocks << 20) + 1, (blocks << 20) + 777_777])
        {
            if let Some(data) = all.get(..length) {
                assert_eq!(by_blocks(data, block_bytes), whole(data), "{length} in blocks of {block_bytes}");
            }
        }
    }
}

#[test]
fn one_block_or_none_does_not_merge() {
    assert_eq!(merge(&[]), None);
    assert_eq!(merge(&[[0; 32]]), None);
}

#[test]
fn the_hash_is_that_of_the_specification() {
    // The first of BLAKE3's test vectors: the empty input.
    assert_eq!(hash(b"")[..4], [0xaf, 0x13, 0x49, 0xb9]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_length_and_block(length in 0..600_000_usize, block_log in 10..20_u32) {
        let data = data(length);
        prop_assert_eq!(by_blocks(&data, 1 << block_log), whole(&data));
    }
}
