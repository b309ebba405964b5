//! What hashing costs: SHA-256 by every way this CPU has, beside other implementations, and BLAKE3.

use crate::failure::Outcome;
use crate::results::{Clock, Report};
use crate::turns::{Turns, TurnsArgs};
use crate::units::several;
use clap::Args;
use crypto_simd::sha256::Backend;
use crypto_simd::{Digest, blake3};
use rayon::prelude::*;
use sha2::Digest as _;
use std::hint::black_box;
use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How much is hashed in a row: at least so many bytes, and at least so many blocks on one core or on all.
const ONE_CORE: (usize, usize) = (2 * MIB, 32);
const ALL_CORES: (usize, usize) = (32 * MIB, 64);

/// The command line of `hash`.
#[derive(Clone, Debug, Args)]
pub struct HashArgs {
    /// Sizes of blocks
    #[arg(long, value_name = "KIB", value_delimiter = ',', default_values_t = [32, 256, 1024])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub block_kib: Vec<u32>,
    /// The least that one turn takes
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50)]
    pub turn_milliseconds: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub turns: TurnsArgs,
}

/// Runs the command. Whether every result counts.
pub fn run(args: &HashArgs) -> Outcome<bool> {
    let mut report = Report::begin("hash", None);
    let turn = Duration::from_millis(args.turn_milliseconds);
    println!("crypto-simd has {:?} here; Sealift uses {:?}", Backend::supported(), Backend::active());
    for kib in &args.block_kib {
        let size = *kib as usize * KIB;
        one_core(size, turn, args.turns.rounds, &mut report);
        all_cores(size, turn, args.turns.rounds, &mut report);
        args.turns.output.write(&report)?;
    }
    Ok(report.problems.is_empty())
}

fn one_core(size: usize, turn: Duration, rounds: u32, report: &mut Report) {
    let data = noise(size, ONE_CORE);
    let messages: Vec<&[u8]> = data.chunks(size).collect();
    let title = format!("hash, {} blocks of {} KiB, one core", messages.len(), size / KIB);
    let mut turns = Turns::new(title, Clock::Cpu, data.len() as u64, turn);
    let messages = &messages[..];
    let mut digests = vec![[0; 32]; messages.len()];
    let active = Backend::active();
    turns.add(&label(active), move || active.hash_many(messages, black_box(&mut digests)));
    turns.add("SHA-256 sha2", || {
        for message in messages {
            black_box(sha2::Sha256::digest(message));
        }
    });
    turns.add("SHA-256 aws-lc", || {
        for message in messages {
            black_box(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message));
        }
    });
    for backend in others() {
        let mut digests = vec![[0; 32]; messages.len()];
        turns.add(&label(backend), move || backend.hash_many(messages, black_box(&mut digests)));
    }
    turns.add("BLAKE3", || {
        for (block, message) in messages.iter().enumerate() {
            black_box(blake3::subtree(message, (block * size) as u64));
        }
    });
    turns.run(rounds, report);
}

fn all_cores(size: usize, turn: Duration, rounds: u32, report: &mut Report) {
    let data = noise(size, ALL_CORES);
    let messages: Vec<&[u8]> = data.chunks(size).collect();
    let threads = rayon::current_num_threads();
    let title = format!(
        "hash, {} blocks of {} KiB, {}",
        messages.len(),
        size / KIB,
        several(threads as u64, "thread")
    );
    let mut turns = Turns::new(title, Clock::Wall, data.len() as u64, turn);
    let messages = &messages[..];
    let mut digests = vec![[0; 32]; messages.len()];
    let active = Backend::active();
    turns.add(&label(active), move || active.par_hash_many(messages, black_box(&mut digests)));
    turns.add("SHA-256 sha2", || {
        let hash = |message: &&[u8]| -> Digest { sha2::Sha256::digest(message).into() };
        black_box(messages.par_iter().map(hash).collect::<Vec<_>>());
    });
    for backend in others() {
        let mut digests = vec![[0; 32]; messages.len()];
        turns.add(&label(backend), move || backend.par_hash_many(messages, black_box(&mut digests)));
    }
    turns.add("BLAKE3", || {
        let hash = |(block, message): (usize, &&[u8])| blake3::subtree(message, (block * size) as u64);
        black_box(messages.par_iter().enumerate().map(hash).collect::<Vec<_>>());
    });
    turns.run(rounds, report);
}

fn label(backend: Backend) -> String {
    format!("SHA-256 crypto-simd {}", backend.name())
}

/// Those that Sealift does not use on this CPU.
fn others() -> impl Iterator<Item = Backend> {
    Backend::supported().into_iter().filter(|backend| backend.name() != Backend::active().name())
}

fn noise(size: usize, (bytes, blocks): (usize, usize)) -> Vec<u8> {
    let mut data = vec![0; size * (bytes / size).max(blocks)];
    crate::data::fill_with_noise(&mut data);
    data
}
