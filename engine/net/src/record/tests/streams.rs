//! Streams of any writes come out as they went in, however they are cut, padded, and whatever their keys last.

use super::{Forger, heard, peer, put};
use crate::record::format::{APPLICATION_DATA, OVERHEAD, PLAINTEXT_MAX};
use crate::record::{Incoming, Outgoing, Progress};
use proptest::prelude::*;
use std::io::IoSlice;

fn payload(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// Reads all there is, into places of these sizes in turn.
fn read(
    incoming: &mut Incoming,
    own: &mut Outgoing,
    sizes: &mut impl Iterator<Item = usize>,
    to: &mut Vec<u8>,
) -> Progress {
    loop {
        let mut place = vec![0; sizes.next().unwrap()];
        match incoming.read(&mut place, |update| own.peer_updates(update)).unwrap() {
            Progress::Read(count) => to.extend_from_slice(&place[..count]),
            end => return end,
        }
    }
}

/// A write of one size after another, gathered or not; the wire cut to parts; places to read into.
type Course = (Vec<(usize, Option<usize>)>, Vec<usize>, Vec<usize>, u64);

fn course() -> impl Strategy<Value = Course> {
    let size = || prop_oneof![1..40_usize, 1..70_000_usize, Just(PLAINTEXT_MAX), Just(300_000)];
    let write = (size(), proptest::option::of(0..40_000_usize));
    let parts = proptest::collection::vec(prop_oneof![1..30_usize, 1..60_000_usize], 1..20);
    let places = proptest::collection::vec(size(), 1..20);
    (proptest::collection::vec(write, 1..12), parts, places, prop_oneof![3..40_u64, Just(1 << 24)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn what_is_written_is_read((writes, parts, places, limit) in course()) {
        let (mut incoming, mut own) = peer(2, 1, limit);
        let (_, mut outgoing) = peer(1, 2, limit);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let (mut parts, mut places) = (parts.into_iter().cycle(), places.into_iter().cycle());
        let mut carry = |outgoing: &mut Outgoing, received: &mut Vec<u8>| {
            let mut end = Progress::Blocked;
            while !outgoing.pending().is_empty() {
                let part = parts.next().unwrap().min(outgoing.pending().len());
                put(&mut incoming, &outgoing.pending()[..part]);
                outgoing.took(part);
                end = read(&mut incoming, &mut own, &mut places, received);
            }
            end
        };
        for (length, gathered) in writes {
            let bytes = payload(length);
            let mut written = 0;
            while written < length {
                let rest = &bytes[written..];
                let count = match gathered {
                    Some(at) => {
                        let (first, second) = rest.split_at(at.min(rest.len()));
                        let (second, third) = second.split_at(second.len() / 3);
                        let places = [first, &[], second, third].map(IoSlice::new);
                        outgoing.write_gathered(&places).unwrap()
                    }
                    None => outgoing.write(rest).unwrap(),
                };
                prop_assert!(count > 0);
                written += count;
                prop_assert_eq!(carry(&mut outgoing, &mut received), Progress::Blocked);
            }
            sent.extend_from_slice(&bytes);
        }
        outgoing.close();
        prop_assert_eq!(carry(&mut outgoing, &mut received), Progress::End);
        prop_assert!(sent == received);
    }

    #[test]
    fn padding_is_taken_away(
        records in proptest::collection::vec((0..=PLAINTEXT_MAX, 0..=300_usize), 1..8),
    ) {
        let (mut forger, mut wire, mut sent) = (Forger::new(), Vec::new(), Vec::new());
        for (length, padding) in records {
            // Padding comes out of the same limit.
            let content = vec![0; length.min(PLAINTEXT_MAX - padding)];
            wire.extend(forger.record(APPLICATION_DATA, &content, padding));
            sent.extend_from_slice(&content);
        }
        let (data, end) = heard(true, &wire);
        prop_assert!(data == sent);
        prop_assert_eq!(end, Ok(Progress::Blocked));
    }
}

#[test]
fn a_batch_is_sixteen_full_records() {
    let (_, mut outgoing) = peer(1, 2, 1 << 24);
    assert_eq!(outgoing.write(&payload(1 << 20)).unwrap(), 16 * PLAINTEXT_MAX);
    assert_eq!(outgoing.pending().len(), 16 * (PLAINTEXT_MAX + OVERHEAD));
}

#[test]
fn gathered_bytes_share_records() {
    let (_, mut outgoing) = peer(1, 2, 1 << 24);
    let run = payload(20_000);
    let places = [IoSlice::new(&[1; 16]), IoSlice::new(&run), IoSlice::new(&[2; 4])];
    assert_eq!(outgoing.write_gathered(&places).unwrap(), 20_020);
    assert_eq!(outgoing.pending().len(), 20_020 + 2 * OVERHEAD);
}
