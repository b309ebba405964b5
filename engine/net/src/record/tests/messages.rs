//! Messages within a session: new keys, tickets, and what has no place there.

use super::{Forger, heard, key, peer};
use crate::record::format::{APPLICATION_DATA, HANDSHAKE, HEADER_BYTES, OVERHEAD};
use crate::record::messages::KeyUpdate;
use crate::record::{Progress, Violation};
use rustls::AlertDescription;

const UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

fn refused(client: bool, bytes: &[u8]) -> AlertDescription {
    heard(client, bytes).1.expect_err("the peer broke the protocol").alert.unwrap()
}

#[test]
fn the_next_record_is_under_the_next_key() {
    let (mut forger, mut next) = (Forger::new(), Forger(key(1, 1)));
    let update = forger.record(HANDSHAKE, &UPDATE, 7);
    let wire = [&update[..], &next.record(APPLICATION_DATA, b"new", 0)].concat();
    assert_eq!(heard(false, &wire), (b"new".to_vec(), Ok(Progress::Blocked)));
    let wire = [&update[..], &forger.record(APPLICATION_DATA, b"old", 0)].concat();
    assert_eq!(refused(false, &wire), AlertDescription::BadRecordMac);
}

#[test]
fn a_message_may_be_cut_but_not_interrupted() {
    for at in 1..UPDATE.len() {
        let (begun, rest) = UPDATE.split_at(at);
        let (mut forger, mut next) = (Forger::new(), Forger(key(1, 1)));
        let begun = forger.record(HANDSHAKE, begun, 0);
        let whole = [&begun[..], &forger.record(HANDSHAKE, rest, 0)].concat();
        let wire = [&whole[..], &next.record(APPLICATION_DATA, b"new", 0)].concat();
        assert_eq!(heard(true, &wire), (b"new".to_vec(), Ok(Progress::Blocked)));
        let (mut forger, data) = (Forger::new(), b"interrupting");
        let begun = forger.record(HANDSHAKE, &UPDATE[..at], 0);
        let wire = [&begun[..], &forger.record(APPLICATION_DATA, data, 0)].concat();
        assert_eq!(refused(true, &wire), AlertDescription::UnexpectedMessage);
    }
}

#[test]
fn a_bad_key_update_is_refused() {
    for (message, alert) in [
        (&[24, 0, 0, 1, 2][..], AlertDescription::IllegalParameter),
        (&[24, 0, 0, 2, 0, 0], AlertDescription::DecodeError),
        (&[24, 0, 0, 0], AlertDescription::DecodeError),
        (&[24, 1, 0, 1, 0], AlertDescription::DecodeError),
        (&[24, 0, 0, 1, 0, 24], AlertDescription::UnexpectedMessage),
        (&[24, 0, 0, 1, 1, 24, 0, 0, 1, 1], AlertDescription::UnexpectedMessage),
    ] {
        assert_eq!(refused(true, &Forger::new().record(HANDSHAKE, message, 0)), alert, "{message:?}");
    }
}

#[test]
fn new_keys_without_data_are_few() {
    let updates = (0..33).flat_map(|nth| Forger(key(1, nth)).record(HANDSHAKE, &UPDATE, 0));
    let wire: Vec<u8> = updates.collect();
    assert_eq!(refused(true, &wire), AlertDescription::UnexpectedMessage);
}

#[test]
fn tickets_are_read_past_by_clients_alone() {
    let mut ticket = vec![4, 0, 0x9c, 0x40];
    ticket.resize(4 + 40_000, 0xee);
    let two = [&ticket[..], &ticket].concat();
    for parts in [1, 4, 10_000, 16_384] {
        let (mut forger, mut wire) = (Forger::new(), Vec::new());
        let some = if parts == 1 { &[4, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9][..] } else { &two[..] };
        for part in some.chunks(parts).take(30) {
            wire.extend(forger.record(HANDSHAKE, part, 0));
        }
        if some.len() <= 30 * parts {
            wire.extend(forger.record(APPLICATION_DATA, b"data", 0));
            assert_eq!(heard(true, &wire), (b"data".to_vec(), Ok(Progress::Blocked)));
        }
        assert_eq!(refused(false, &wire), AlertDescription::UnexpectedMessage);
    }
    let endless = Forger::new().record(HANDSHAKE, &[4, 1, 0, 0], 0);
    assert_eq!(refused(true, &endless), AlertDescription::DecodeError);
}

#[test]
fn no_other_message_has_a_place() {
    for kind in (0..=255).filter(|kind| ![4, 24].contains(kind)) {
        let message = Forger::new().record(HANDSHAKE, &[kind, 0, 0, 1, 0], 0);
        assert_eq!(refused(true, &message), AlertDescription::UnexpectedMessage, "message {kind}");
    }
}

#[test]
fn one_answer_comes_before_the_next_data() {
    let (_, mut outgoing) = peer(1, 2, 1 << 24);
    outgoing.peer_updates(KeyUpdate { answer: false }).unwrap();
    outgoing.write(b"x").unwrap();
    assert_eq!(outgoing.pending().len(), OVERHEAD + 1, "nobody asked");
    outgoing.took(OVERHEAD + 1);
    for _ in 0..3 {
        outgoing.peer_updates(KeyUpdate { answer: true }).unwrap();
    }
    assert!(outgoing.pending().is_empty(), "nor is there data");
    outgoing.write(b"x").unwrap();
    outgoing.write(b"y").unwrap();
    assert_eq!(outgoing.pending().len(), (OVERHEAD + 5) + 2 * (OVERHEAD + 1));
}

#[test]
fn a_worn_key_is_changed_in_time() {
    for limit in 1..20 {
        let (_, mut outgoing) = peer(1, 2, limit);
        let mut lengths = Vec::new();
        for _ in 0..100 {
            outgoing.write(b"data").unwrap();
            let mut pending = outgoing.pending();
            while let [_, _, _, high, low, rest @ ..] = pending {
                let body = usize::from(u16::from_be_bytes([*high, *low]));
                (lengths, pending) = ([&lengths[..], &[body]].concat(), &rest[body..]);
            }
            outgoing.took(outgoing.pending().len());
        }
        // Four bytes of data, or five of a new key.
        let update = OVERHEAD - HEADER_BYTES + 5;
        let longest = lengths.split(|&body| body == update).map(<[_]>::len).max().unwrap() as u64;
        let expected = limit.max(3) - 2;
        assert_eq!(longest, expected, "and a record is left for an alert");
    }
}

#[test]
fn the_end_is_said_once() {
    let (_, mut outgoing) = peer(1, 2, 1 << 24);
    outgoing.close();
    outgoing.close();
    outgoing.fail(&Violation::forged());
    assert_eq!(outgoing.pending().len(), OVERHEAD + 2);
    let (_, mut outgoing) = peer(1, 2, 1 << 24);
    outgoing.fail(&Violation::told(AlertDescription::AccessDenied));
    assert!(outgoing.pending().is_empty() && outgoing.ended().is_some(), "the peer knows");
    let (mut incoming, _) = peer(2, 1, 1 << 24);
    let (_, mut outgoing) = peer(1, 2, 1 << 24);
    outgoing.fail(&Violation::oversized());
    let (data, end) = super::heard_through(&mut incoming, outgoing.pending(), 100);
    assert_eq!(end, Err(Violation::told(AlertDescription::RecordOverflow)), "{data:?}");
}
