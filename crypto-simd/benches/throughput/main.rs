//! Throughput of hashing, beside other implementations in the same run.

use crypto_simd::sha256::Backend;
use sha2::Digest as _;
use std::time::Instant;

fn main() {
    let block = 32 << 10;
    let data: Vec<u8> = (0..64 * block).map(|i: usize| (i * 31 >> 3) as u8).collect();
    let messages: Vec<&[u8]> = data.chunks(block).collect();
    let mut digests = vec![[0; 32]; messages.len()];
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..4 {
            f()
        }
        start.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<Vec<f64>> = vec![];
    let backends = Backend::supported();
    for _ in 0..15 {
        let base = time(&mut || {
            for m in &messages {
                std::hint::black_box(sha2::Sha256::digest(m));
            }
        });
        let mut row = vec![4.0 * data.len() as f64 / base / 1e9];
        for b in &backends {
            row.push(base / time(&mut || b.hash_many(&messages, &mut digests)));
        }
        for b in &backends {
            row.push(
                base / time(&mut || {
                    for m in &messages {
                        std::hint::black_box(b.hash(m));
                    }
                }),
            );
        }
        ratios.push(row);
    }
    for i in 0..ratios[0].len() {
        let mut column: Vec<f64> = ratios.iter().map(|r| r[i]).collect();
        column.sort_by(f64::total_cmp);
        println!("{i} {:.2}", column[7]);
    }
    println!("{backends:?}");
}
