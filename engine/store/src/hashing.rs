//! Runs block hashes on all cores: a batch goes to rayon as a whole, with its buffer, and comes back with both.
//!
//! Never blocks the shard's thread, and never copies a block.

use crate::ring::pool::PoolBuf;
use sealift_proto::block::{BlockIndex, Layout};
use sealift_proto::digest::{BlockHash, BlockInput, HashAlgorithm, hash_blocks};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tokio::sync::oneshot;

/// One block within a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes, within what is filled.
    pub range: Range<usize>,
    /// Where it begins in its file.
    pub offset: u64,
    /// Whether it is its file's only block.
    pub only: bool,
}

/// Hashes the blocks of a run of one file, in order. `range` of the buffer must be exactly the run's bytes.
///
/// # Panics
/// If `range` is not within the filled part.
pub async fn hash_run(
    algorithm: HashAlgorithm,
    layout: Layout,
    first: BlockIndex,
    buf: PoolBuf,
    range: Range<usize>,
) -> (Vec<BlockHash>, PoolBuf) {
    on_rayon(buf, move |filled| {
        let blocks: Vec<_> = BlockInput::run(layout, first, &filled[range]).collect();
        hash_batch(algorithm, &blocks)
    })
    .await
}

/// Hashes blocks of any files that lie in one buffer, `pieces[i]` to `hashes[i]`.
///
/// # Panics
/// If a range is not within the filled part.
pub async fn hash_pieces(
    algorithm: HashAlgorithm,
    pieces: Vec<Piece>,
    buf: PoolBuf,
) -> (Vec<BlockHash>, PoolBuf) {
    on_rayon(buf, move |filled| {
        let blocks: Vec<_> = pieces
            .into_iter()
            .map(|piece| BlockInput { data: &filled[piece.range], offset: piece.offset, only: piece.only })
            .collect();
        hash_batch(algorithm, &blocks)
    })
    .await
}

fn hash_batch(algorithm: HashAlgorithm, blocks: &[BlockInput<'_>]) -> Vec<BlockHash> {
    let mut hashes = vec![BlockHash([0; 32]); blocks.len()];
    hash_blocks(algorithm, blocks, &mut hashes);
    hashes
}

async fn on_rayon(
    buf: PoolBuf,
    work: impl FnOnce(&[u8]) -> Vec<BlockHash> + Send + 'static,
) -> (Vec<BlockHash>, PoolBuf) {
    let (done, result) = oneshot::channel();
    rayon::spawn(move || {
        let _ = done.send(catch_unwind(AssertUnwindSafe(|| (work(buf.as_slice()), buf))));
    });
    match result.await.expect("rayon runs every job") {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::pool::{BufferPool, PoolConfig};
    use sealift_proto::block::BlockSize;

    fn filled(bytes: usize) -> PoolBuf {
        let pool = BufferPool::new(PoolConfig { slots: 1, ..PoolConfig::default() }).unwrap();
        let mut buf = pool.try_acquire(1).unwrap();
        buf.put_zeros(16);
        let pattern: Vec<u8> = (0..251).cycle().take(bytes).collect();
        buf.put_slice(&pattern);
        buf
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_run_and_its_pieces_hash_alike() {
        let layout = Layout::new(200_000, BlockSize::MIN).unwrap();
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Blake3] {
            let (run, buf) = block_on(hash_run(algorithm, layout, BlockIndex(1), filled(67_232), 16..67_248));
            assert_eq!(run.len(), 3);
            let pieces = (0..3_usize)
                .map(|i| Piece {
                    range: 16 + i * 32_768..(16 + (i + 1) * 32_768).min(67_248),
                    offset: (i as u64 + 1) * 32_768,
                    only: false,
                })
                .collect();
            let (again, buf) = block_on(hash_pieces(algorithm, pieces, buf));
            assert_eq!(run, again);
            let mut expected = [BlockHash([0; 32])];
            let data = &buf.as_slice()[16 + 65_536..];
            hash_blocks(algorithm, &[BlockInput { data, offset: 98_304, only: false }], &mut expected);
            assert_eq!(run[2], expected[0]);
        }
    }

    #[test]
    #[should_panic(expected = "range end")]
    fn a_piece_beyond_what_is_filled_is_a_bug_of_the_caller() {
        let piece = Piece { range: 0..100_000, offset: 0, only: true };
        block_on(hash_pieces(HashAlgorithm::Sha256, vec![piece], filled(100)));
    }
}
