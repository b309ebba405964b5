//! Throughput beside other implementations, which take turns in the same run.
//!
//! Every figure is the median over rounds; a ratio is taken within a round, so that what slows the machine for a
//! while slows both. On one core time is CPU time, on all cores it is what the clock says.
//!
//! `cargo bench -p crypto-simd -- [blocks|small|mixed|single|pairs|cores|crossover|aead|blake3]…`

mod race;

use aes_gcm::aead::{AeadInOut, KeyInit};
use crypto_simd::aead::{Nonce, SealingKey};
use crypto_simd::sha256::{Backend, PairHasher};
use crypto_simd::{Digest, blake3};
use race::{Clock, Race, noise};
use sha2::Digest as _;
use std::hint::black_box;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [usize; 5] = [4 * KIB, 16 * KIB, 32 * KIB, 256 * KIB, MIB];

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let sections: [(&str, fn()); 9] = [
        ("blocks", blocks),
        ("small", small),
        ("mixed", mixed),
        ("single", single),
        ("pairs", pairs),
        ("cores", cores),
        ("crossover", crossover),
        ("aead", aead),
        ("blake3", blake3_blocks),
    ];
    println!("backends: {:?}, active: {:?}", Backend::supported(), Backend::active());
    for (name, section) in sections {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            section();
        }
    }
}

fn sha2_each(messages: &[&[u8]]) {
    for message in messages {
        black_box(sha2::Sha256::digest(message));
    }
}

fn aws_lc_each(messages: &[&[u8]]) {
    for message in messages {
        black_box(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message));
    }
}

/// Adds every backend to a race.
fn add_backends<'a>(race: &mut Race<'a>, messages: &'a [&'a [u8]]) {
    for backend in Backend::supported() {
        let mut digests = vec![[0; 32]; messages.len()];
        race.add(backend.name(), move || backend.hash_many(messages, black_box(&mut digests)));
    }
}

/// P1 of the targets is 32 KiB.
fn blocks() {
    for size in SIZES {
        let count = (2 * MIB / size).max(32);
        let data = noise(size * count);
        let messages: Vec<&[u8]> = data.chunks(size).collect();
        let mut race =
            Race::new(format!("SHA-256, {count} blocks of {} KiB, one core", size / KIB), data.len());
        race.add("sha2", || sha2_each(&messages));
        race.add("aws-lc", || aws_lc_each(&messages));
        race.add_openssl(size);
        add_backends(&mut race, &messages);
        race.run(Clock::Cpu);
    }
}

/// Small files: batches of messages of a few blocks.
fn small() {
    for size in [20, 100, 300, KIB] {
        let data = noise(4096 * size);
        let messages: Vec<&[u8]> = data.chunks(size).collect();
        let mut race = Race::new(format!("SHA-256, 4096 messages of {size} bytes, one core"), data.len());
        race.add("sha2", || sha2_each(&messages));
        race.add("aws-lc", || aws_lc_each(&messages));
        add_backends(&mut race, &messages);
        race.run(Clock::Cpu);
    }
}

/// Batches of lengths drawn from 1 byte to 1 MiB.
fn mixed() {
    let draws = noise(8 * 1024);
    let draw = |i: usize| u64::from_le_bytes(draws[8 * i..8 * i + 8].try_into().expect("8 bytes")) >> 11;
    let uniform = (0..128).map(|i| 1 + usize::try_from(draw(i)).expect("64 bits") % MIB);
    // Each power of two as likely as the next, and uniform between them.
    let by_magnitude = (0..1024).map(|i| {
        let floor = 1 << (draw(i) % 20);
        floor + usize::try_from(draw(i) >> 20).expect("64 bits") % floor
    });
    for (name, lengths) in
        [("uniform", uniform.collect::<Vec<_>>()), ("uniform in magnitude", by_magnitude.collect())]
    {
        let data = noise(lengths.iter().sum());
        let mut rest = &data[..];
        let messages: Vec<&[u8]> =
            lengths.iter().map(|&length| rest.split_off(..length).expect("enough")).collect();
        let title = format!("SHA-256, {} messages of 1 B to 1 MiB, {name}, one core", lengths.len());
        let mut race = Race::new(title, data.len());
        race.add("sha2", || sha2_each(&messages));
        race.add("aws-lc", || aws_lc_each(&messages));
        add_backends(&mut race, &messages);
        race.run(Clock::Cpu);
    }
}

fn single() {
    for size in [1, 64, KIB, 32 * KIB, MIB] {
        let data = noise(size);
        let repeat = (MIB / size).min(4_000);
        let mut race = Race::new(format!("SHA-256, one message of {size} bytes at a time"), size * repeat);
        race.add("sha2", || (0..repeat).for_each(|_| sha2_each(&[black_box(&data)])));
        race.add("aws-lc", || (0..repeat).for_each(|_| aws_lc_each(&[black_box(&data)])));
        race.add("hash", || {
            (0..repeat).for_each(|_| _ = black_box(crypto_simd::sha256::hash(black_box(&data))));
        });
        race.add("hash_many", || {
            let mut digest = [[0; 32]];
            (0..repeat).for_each(|_| crypto_simd::sha256::hash_many(black_box(&[&data]), &mut digest));
        });
        race.run(Clock::Cpu);
    }
}

fn pairs() {
    let nodes = noise(64 * 4096);
    let (nodes, _) = nodes.as_chunks::<32>();
    let (pairs, _) = nodes.as_chunks::<2>();
    let prefix = [7; 64];
    let prefixed = sha2::Sha256::new_with_prefix(prefix);
    let mut race = Race::new("Merkle pairs behind a 64-byte prefix, one core".into(), 64 * pairs.len());
    race.add("sha2", || {
        for [left, right] in pairs {
            let mut hasher = prefixed.clone();
            hasher.update(left);
            hasher.update(right);
            black_box(hasher.finalize());
        }
    });
    for backend in Backend::supported() {
        let hasher = PairHasher::with_backend(&prefix, backend);
        let mut parents = vec![[0; 32]; pairs.len()];
        race.add(backend.name(), move || hasher.hash_many(pairs, black_box(&mut parents)));
    }
    race.run(Clock::Cpu);
}

/// All cores, against `sha2` on the same pool.
fn cores() {
    use rayon::prelude::*;
    for size in SIZES {
        let count = (32 * MIB / size).max(64);
        let data = noise(size * count);
        let messages: Vec<&[u8]> = data.chunks(size).collect();
        let title =
            format!("SHA-256, {count} blocks of {} KiB, {} cores", size / KIB, rayon::current_num_threads());
        let mut race = Race::new(title, data.len());
        race.add("sha2", || {
            let digests: Vec<Digest> =
                messages.par_iter().map(|message| sha2::Sha256::digest(message).into()).collect();
            black_box(digests);
        });
        for backend in Backend::supported() {
            let mut digests = vec![[0; 32]; count];
            let messages = &messages[..];
            race.add(backend.name(), move || backend.par_hash_many(messages, black_box(&mut digests)));
        }
        race.run(Clock::Wall);
    }
}

/// From how many messages on a kernel of many lanes beats one of few: its time does not depend on how many are busy.
fn crossover() {
    let data = noise(16 * 32 * KIB);
    let messages: Vec<&[u8]> = data.chunks(32 * KIB).collect();
    let meetings =
        [("avx512", 16, "shani"), ("avx512", 16, "portable"), ("avx2", 8, "portable"), ("avx2", 8, "shani")];
    for (wide, lanes, narrow) in meetings {
        let (Some(wide), Some(narrow)) = (Backend::named(wide), Backend::named(narrow)) else { continue };
        let title = format!("{wide:?} with all {lanes} lanes, as often as {narrow:?} with some");
        let mut race = Race::new(title, lanes * 32 * KIB);
        let mut digests = [[0; 32]; 16];
        let all = &messages[..lanes];
        race.add(wide.name(), move || wide.hash_many(all, &mut digests[..lanes]));
        for count in 1..=lanes {
            let some = &messages[..count];
            race.add(&count.to_string(), move || narrow.hash_many(some, &mut digests[..count]));
        }
        race.run(Clock::Cpu);
        println!("  the fewest lanes are the first number whose ratio is below 1");
    }
}

fn aead() {
    let size = 16 * KIB;
    let count = 64;
    let plaintext = noise(size * count);
    let mut ciphertext = plaintext.clone();
    let mut copied = plaintext.clone();
    let mut in_place = plaintext.clone();
    let mut peer = plaintext.clone();
    let nonce = Nonce([1; 12]);
    for (name, key) in [
        ("AES-128-GCM", SealingKey::aes_128_gcm(&[3; 16])),
        ("AES-256-GCM", SealingKey::aes_256_gcm(&[3; 32])),
    ] {
        let (small, large) =
            (aes_gcm::Aes128Gcm::new(&[3; 16].into()), aes_gcm::Aes256Gcm::new(&[3; 32].into()));
        let mut race = Race::new(format!("{name}, records of 16 KiB, one core"), plaintext.len());
        race.add("aes-gcm", || {
            for record in peer.chunks_mut(size) {
                let nonce = &nonce.0.into();
                let tag = if name.contains("128") {
                    small.encrypt_inout_detached(nonce, b"", record.into())
                } else {
                    large.encrypt_inout_detached(nonce, b"", record.into())
                };
                black_box(tag.expect("short"));
            }
        });
        race.add("in place", || {
            for record in in_place.chunks_mut(size) {
                black_box(key.seal_in_place(nonce, b"", record));
            }
        });
        race.add("between", || {
            for (from, to) in plaintext.chunks(size).zip(ciphertext.chunks_mut(size)) {
                black_box(key.seal(nonce, b"", from, to));
            }
        });
        race.add("copy first", || {
            for (from, to) in plaintext.chunks(size).zip(copied.chunks_mut(size)) {
                to.copy_from_slice(from);
                black_box(key.seal_in_place(nonce, b"", to));
            }
        });
        race.run(Clock::Cpu);
    }
}

fn blake3_blocks() {
    for size in [32 * KIB, MIB] {
        let data = noise(2 * MIB);
        let mut race = Race::new(format!("BLAKE3, blocks of {} KiB, one core", size / KIB), data.len());
        race.add("hash", || data.chunks(size).for_each(|block| _ = black_box(blake3::hash(block))));
        race.add("subtree", || {
            for (i, block) in data.chunks(size).enumerate() {
                black_box(blake3::subtree(block, (i * size) as u64));
            }
        });
        race.run(Clock::Cpu);
    }
}
