//! NIST's validation vectors for SHA-256, by every backend: short, long and Monte Carlo.

#![cfg(not(miri))] // Hours of interpretation; `sha256.rs` covers the same code there.

use crypto_simd::Digest;
use crypto_simd::sha256::Backend;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;

const SHORT: &str = include_str!("vectors/sha256/SHA256ShortMsg.rsp");
const LONG: &str = include_str!("vectors/sha256/SHA256LongMsg.rsp");
const MONTE: &str = include_str!("vectors/sha256/SHA256Monte.rsp");

/// The values of all lines `name = value`, in order.
fn values<'a>(file: &'a str, name: &str) -> Vec<&'a str> {
    file.lines()
        .filter_map(|line| line.split_once(" = "))
        .filter(|(n, _)| *n == name)
        .map(|(_, v)| v)
        .collect()
}

fn digests(file: &str) -> Vec<Digest> {
    values(file, "MD")
        .iter()
        .map(|md| HEX.decode(md.trim().as_bytes()).expect("hexadecimal").try_into().expect("256 bits"))
        .collect()
}

/// The messages of a file, and their digests.
fn messages(file: &str) -> (Vec<Vec<u8>>, Vec<Digest>) {
    let messages = values(file, "Len").into_iter().zip(values(file, "Msg")).map(|(bits, message)| {
        let bits: usize = bits.trim().parse().expect("a number");
        let mut message = HEX.decode(message.trim().as_bytes()).expect("hexadecimal");
        message.truncate(bits / 8);
        assert_eq!(message.len() * 8, bits);
        message
    });
    (messages.collect(), digests(file))
}

fn check(file: &str, count: usize) {
    let (messages, expected) = messages(file);
    assert_eq!((messages.len(), expected.len()), (count, count));
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    for backend in Backend::supported() {
        let mut digests = vec![[0; 32]; count];
        backend.hash_many(&messages, &mut digests);
        assert_eq!(digests, expected, "{backend:?}");
        for (message, expected) in messages.iter().zip(&expected) {
            assert_eq!(backend.hash(message), *expected, "{backend:?}, {} bytes", message.len());
        }
    }
}

#[test]
fn short_messages() {
    check(SHORT, 65);
}

#[test]
fn long_messages() {
    check(LONG, 64);
}

/// The chain of section 6.4 of the Secure Hash Algorithm Validation System: a hundred times a thousand hashes, each of
/// the last three. `step` hashes one message.
fn monte_carlo(step: impl Fn(&[u8]) -> Digest) {
    let seeds = values(MONTE, "Seed");
    let [seed] = seeds[..] else { panic!("one seed") };
    let mut seed: Digest = HEX.decode(seed.as_bytes()).expect("hexadecimal").try_into().expect("256 bits");
    let expected = digests(MONTE);
    assert_eq!(expected.len(), 100);
    for (count, expected) in expected.iter().enumerate() {
        let mut last = [seed; 3];
        for _ in 0..1_000 {
            last = [last[1], last[2], step(last.as_flattened())];
        }
        seed = last[2];
        assert_eq!(seed, *expected, "count {count}");
    }
}

#[test]
fn monte_carlo_of_single_messages() {
    for backend in Backend::supported() {
        monte_carlo(|message| backend.hash(message));
    }
}

#[test]
fn monte_carlo_in_a_full_batch() {
    for backend in Backend::supported() {
        monte_carlo(|message| {
            let mut digests = [[0; 32]; 16];
            backend.hash_many(&[message; 16], &mut digests);
            assert!(digests.iter().all(|digest| *digest == digests[0]), "lanes of {backend:?} differ");
            digests[0]
        });
    }
}
