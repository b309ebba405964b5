//! Records that no honest peer sends.

use super::{Forger, heard, heard_through, listener};
use crate::record::format::{
    ALERT, APPLICATION_DATA, BODY_MAX, CHANGE_CIPHER_SPEC, HANDSHAKE, OVERHEAD, PLAINTEXT_MAX,
};
use crate::record::{Progress, Violation};
use rustls::AlertDescription;

fn refused(bytes: &[u8]) -> AlertDescription {
    heard(true, bytes).1.expect_err("the peer broke the protocol").alert.unwrap()
}

fn data(forger: &mut Forger) -> Vec<u8> {
    forger.record(APPLICATION_DATA, b"some data", 0)
}

#[test]
fn garbage_is_no_record() {
    for first in (0..=255).filter(|&kind| kind != APPLICATION_DATA) {
        assert_eq!(refused(&[first, 3, 3, 0, 40, 1, 2, 3]), AlertDescription::UnexpectedMessage);
    }
    let garbage = [&[APPLICATION_DATA, 3, 3, 0, 40][..], &[7; 40]].concat();
    assert_eq!(refused(&garbage), AlertDescription::BadRecordMac);
}

#[test]
fn every_bit_is_authenticated() {
    let record = data(&mut Forger::new());
    for bit in 0..record.len() * 8 {
        let mut record = record.clone();
        record[bit / 8] ^= 1 << (bit % 8);
        let (data, end) = heard(true, &record);
        assert!(data.is_empty() && end != Ok(Progress::End), "bit {bit}");
        // A longer length waits for what does not come.
        assert!(end.is_err() || bit / 8 == 3 || bit / 8 == 4, "bit {bit}");
    }
}

#[test]
fn a_cut_record_is_waited_for() {
    let record = data(&mut Forger::new());
    for length in 0..record.len() {
        assert_eq!(heard(true, &record[..length]), (vec![], Ok(Progress::Blocked)));
    }
}

#[test]
fn replayed_and_reordered_records_are_forged() {
    let mut forger = Forger::new();
    let (first, second) = (data(&mut forger), data(&mut forger));
    assert_eq!(refused(&[&first[..], &first].concat()), AlertDescription::BadRecordMac);
    assert_eq!(refused(&[&second[..], &first].concat()), AlertDescription::BadRecordMac);
    assert_eq!(refused(&second), AlertDescription::BadRecordMac);
}

#[test]
fn an_error_stays_and_comes_after_the_data_before_it() {
    let mut forger = Forger::new();
    let (record, after) = (data(&mut forger), data(&mut forger));
    let mut incoming = listener(true);
    let (data, end) = heard_through(&mut incoming, &[&record[..], &record].concat(), 1 << 16);
    assert_eq!(data, b"some data");
    assert_eq!(end, Err(Violation::forged()));
    assert_eq!(heard_through(&mut incoming, &after, 1 << 16), (vec![], end));
}

#[test]
fn lengths_have_limits() {
    let length = |body: usize| u16::try_from(body).unwrap().to_be_bytes();
    for body in [BODY_MAX + 1, 65_535] {
        let [high, low] = length(body);
        assert_eq!(refused(&[APPLICATION_DATA, 3, 3, high, low]), AlertDescription::RecordOverflow);
    }
    for body in [0, 1, 16] {
        let [high, low] = length(body);
        assert_eq!(refused(&[APPLICATION_DATA, 3, 3, high, low]), AlertDescription::BadRecordMac);
    }
    let fits = Forger::new().record(APPLICATION_DATA, &[1; PLAINTEXT_MAX], 239);
    assert_eq!(fits.len(), PLAINTEXT_MAX + 239 + OVERHEAD);
    assert_eq!(heard(true, &fits).0.len(), PLAINTEXT_MAX);
    let too_long = Forger::new().record(APPLICATION_DATA, &[1; PLAINTEXT_MAX + 1], 0);
    assert_eq!(refused(&too_long), AlertDescription::RecordOverflow);
}

#[test]
fn contents_have_known_types() {
    for kind in (0..=255).filter(|kind| ![ALERT, HANDSHAKE, APPLICATION_DATA].contains(kind)) {
        let record = Forger::new().record(kind, b"\x01\x01", 0);
        assert_eq!(refused(&record), AlertDescription::UnexpectedMessage, "type {kind}");
    }
    assert_eq!(refused(&Forger::new().record(0, &[], 0)), AlertDescription::UnexpectedMessage);
    assert_eq!(refused(&Forger::new().record(0, &[0; 100], 100)), AlertDescription::UnexpectedMessage);
    assert_eq!(refused(&[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]), AlertDescription::UnexpectedMessage);
    for kind in [ALERT, HANDSHAKE] {
        let empty = Forger::new().record(kind, &[], 5);
        assert_eq!(refused(&empty), AlertDescription::UnexpectedMessage, "type {kind}");
    }
}

#[test]
fn empty_records_are_few() {
    let mut forger = Forger::new();
    let mut empty = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|nth| forger.record(APPLICATION_DATA, &[], nth)).collect()
    };
    assert_eq!(heard(true, &empty(32)), (vec![], Ok(Progress::Blocked)));
    let mut forger = Forger::new();
    let mut wire = Vec::new();
    for _ in 0..4 {
        (0..32).for_each(|_| wire.extend(forger.record(APPLICATION_DATA, &[], 0)));
        wire.extend(forger.record(APPLICATION_DATA, &[1], 0));
    }
    assert_eq!(heard(true, &wire), (vec![1; 4], Ok(Progress::Blocked)));
    (0..33).for_each(|_| wire.extend(forger.record(APPLICATION_DATA, &[], 0)));
    assert_eq!(refused(&wire), AlertDescription::UnexpectedMessage);
    let mut forger = Forger::new();
    let warnings: Vec<u8> = (0..33).flat_map(|_| forger.record(ALERT, &[1, 90], 0)).collect();
    assert_eq!(refused(&warnings), AlertDescription::UnexpectedMessage);
}

#[test]
fn nothing_counts_after_the_end() {
    let mut forger = Forger::new();
    let before = data(&mut forger);
    let end = forger.record(ALERT, &[1, 0], 0);
    let after = data(&mut forger);
    for after in [&after[..], b"garbage without end"] {
        let wire = [&before[..], &end, after].concat();
        assert_eq!(heard(true, &wire), (b"some data".to_vec(), Ok(Progress::End)));
    }
}

#[test]
fn alerts_end_in_errors_of_their_name() {
    for level in [1, 2] {
        let alert = Forger::new().record(ALERT, &[level, 42], 3);
        let told = Violation::told(AlertDescription::BadCertificate);
        assert_eq!(heard(true, &alert), (vec![], Err(told)));
    }
    for malformed in [&[2][..], &[2, 42, 0], &[3, 0]] {
        let alert = Forger::new().record(ALERT, malformed, 0);
        assert_eq!(refused(&alert), AlertDescription::DecodeError);
    }
}
