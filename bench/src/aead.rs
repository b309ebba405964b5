//! What sealing and opening cost: AES-GCM records of 16 KiB, in place and from buffer to buffer.

use crate::failure::{OrFailure as _, Outcome};
use crate::results::{Clock, Report};
use crate::turns::{Turns, TurnsArgs};
use aes_gcm::aead::{AeadInOut, KeyInit};
use clap::Args;
use crypto_simd::aead::{Nonce, SealingKey, Tag};
use std::hint::black_box;
use std::time::Duration;

/// Records in a row.
const RECORDS: usize = 64;

/// The command line of `aead`.
#[derive(Clone, Debug, Args)]
pub struct AeadArgs {
    /// The size of a record
    #[arg(long, value_name = "KIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub record_kib: u32,
    /// The least that one turn takes
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50)]
    pub turn_milliseconds: u64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub turns: TurnsArgs,
}

/// Runs the command. Whether every result counts.
pub fn run(args: &AeadArgs) -> Outcome<bool> {
    let mut report = Report::begin("aead", None);
    let small = aes_gcm::Aes128Gcm::new(&[3; 16].into());
    let large = aes_gcm::Aes256Gcm::new(&[3; 32].into());
    cipher("AES-128-GCM", &SealingKey::aes_128_gcm(&[3; 16]), &small, args, &mut report);
    cipher("AES-256-GCM", &SealingKey::aes_256_gcm(&[3; 32]), &large, args, &mut report);
    args.turns.output.write(&report)?;
    for problem in &report.problems {
        eprintln!("problem: {problem}");
    }
    Ok(report.problems.is_empty())
}

/// A nonce that is used again and again protects nothing: there is nothing here to protect.
const NONCE: Nonce = Nonce([1; 12]);

fn cipher<A>(name: &str, key: &SealingKey, peer: &A, args: &AeadArgs, report: &mut Report)
where
    A: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>,
{
    let size = args.record_kib as usize * 1024;
    let turn = Duration::from_millis(args.turn_milliseconds);
    let mut plaintext = vec![0; size * RECORDS];
    crate::data::fill_with_noise(&mut plaintext);
    let mut ciphertext = vec![0; plaintext.len()];
    let tags: Vec<Tag> = plaintext
        .chunks(size)
        .zip(ciphertext.chunks_mut(size))
        .map(|(from, to)| key.seal(NONCE, b"", from, to))
        .collect();
    let (mut between, mut in_place, mut others) = (plaintext.clone(), plaintext.clone(), plaintext.clone());
    let bytes = plaintext.len() as u64;
    let title = |verb: &str| format!("{verb}, {name}, records of {} KiB, one core", args.record_kib);

    let mut turns = Turns::new(title("seal"), Clock::Cpu, bytes, turn);
    turns.add("from buffer to buffer", || {
        for (from, to) in plaintext.chunks(size).zip(between.chunks_mut(size)) {
            black_box(key.seal(NONCE, b"", from, to));
        }
    });
    turns.add("in place", || {
        for record in in_place.chunks_mut(size) {
            black_box(key.seal_in_place(NONCE, b"", record));
        }
    });
    turns.add_watched("in place, aes-gcm", |watch| {
        watch.time(|| {
            others.chunks_mut(size).try_for_each(|record| {
                let tag = peer.encrypt_inout_detached(&NONCE.0.into(), b"", record.into());
                tag.map(|tag| _ = black_box(tag)).or_failure(|| "cannot seal".into())
            })
        })
    });
    turns.run(args.turns.rounds, report);

    let mut turns = Turns::new(title("open"), Clock::Cpu, bytes, turn);
    turns.add_watched("from buffer to buffer", |watch| {
        watch.time(|| {
            let records = ciphertext.chunks(size).zip(between.chunks_mut(size)).zip(&tags);
            for ((from, to), tag) in records {
                key.open(NONCE, b"", from, tag, to).or_failure(|| "cannot open".into())?;
            }
            Ok(())
        })
    });
    turns.add_watched("in place", |watch| {
        // What was opened must be sealed again before it can be opened again: not timed.
        in_place.copy_from_slice(&ciphertext);
        watch.time(|| {
            in_place.chunks_mut(size).zip(&tags).try_for_each(|(record, tag)| {
                key.open_in_place(NONCE, b"", record, tag).or_failure(|| "cannot open".into())
            })
        })
    });
    turns.add_watched("in place, aes-gcm", |watch| {
        others.copy_from_slice(&ciphertext);
        watch.time(|| {
            others.chunks_mut(size).zip(&tags).try_for_each(|(record, tag)| {
                peer.decrypt_inout_detached(&NONCE.0.into(), b"", record.into(), &tag.0.into())
                    .or_failure(|| "cannot open".into())
            })
        })
    });
    turns.run(args.turns.rounds, report);
}
