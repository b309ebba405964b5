//! Envelopes, and what becomes of those that were changed.

use super::*;
use crate::limits::WRAPPED_BYTES_MAX;
use proptest::prelude::*;
use std::sync::OnceLock;

const OWNER: OwnerId = OwnerId([1; 16]);

/// Three KEKs: the first two are in the envelope.
fn keks() -> &'static [PrivateKek; 3] {
    static KEKS: OnceLock<[PrivateKek; 3]> = OnceLock::new();
    KEKS.get_or_init(|| {
        [
            include_str!("../../tests/keys/a.pem"),
            include_str!("../../tests/keys/c3072.pem"),
            include_str!("../../tests/keys/b.pem"),
        ]
        .map(|file| PrivateKek::from_pem(file, None).unwrap())
    })
}

fn key() -> DataKey {
    DataKey::from_bytes(&[7; 32])
}

fn envelope() -> Envelope {
    let [a, b, _] = keks();
    Envelope::seal(&key(), OWNER, &[(a.public(), KekVersion(1)), (b.public(), KekVersion(5))]).unwrap()
}

#[test]
fn each_kek_opens_it_and_others_do_not() {
    let [a, b, other] = keks();
    let envelope = Envelope::decode(&envelope().encode()).unwrap();
    for kek in [a, b] {
        assert_eq!(envelope.open(kek).unwrap().as_bytes(), key().as_bytes());
    }
    let error = envelope.open(other).unwrap_err();
    let this = other.public().fingerprint();
    assert_eq!(error, EnvelopeError::WrongKey { this, wrapped_to: envelope.keks() });
    let told = error.to_string();
    assert!(
        told.contains(&this.to_string()) && told.contains(&a.public().fingerprint().to_string()),
        "{told}"
    );
    assert!(told.contains("(version 5)"), "{told}");
}

#[test]
fn it_opens_for_its_owner_alone() {
    let [a, ..] = keks();
    let envelope = envelope();
    assert!(envelope.open_for(OWNER, a).is_ok());
    assert_eq!(envelope.open_for(OwnerId([2; 16]), a).err(), Some(EnvelopeError::OtherOwner));
    // Who writes another owner into it does not get further: the wrapped key is bound to the first.
    let mut bytes = envelope.encode();
    bytes[8..24].fill(2);
    let swapped = Envelope::decode(&bytes).unwrap();
    assert_eq!(swapped.open_for(OwnerId([2; 16]), a).err(), Some(EnvelopeError::Damaged));
}

#[test]
fn a_key_that_it_does_not_commit_to_is_refused() {
    let [a, ..] = keks();
    let other =
        Envelope::seal(&DataKey::from_bytes(&[8; 32]), OWNER, &[(a.public(), KekVersion(1))]).unwrap();
    let mixed = Envelope { commitment: envelope().commitment, ..other };
    assert_eq!(mixed.open(a).err(), Some(EnvelopeError::Commitment));
}

#[test]
fn wrapping_anew_keeps_the_key() {
    let [a, _, other] = keks();
    let envelope = envelope();
    let anew = envelope.rewrap(&envelope.open(a).unwrap(), &[(other.public(), KekVersion(2))]).unwrap();
    assert_eq!((anew.commitment(), anew.owner()), (envelope.commitment(), OWNER));
    assert_eq!(anew.open(other).unwrap().as_bytes(), key().as_bytes());
    assert!(matches!(anew.open(a), Err(EnvelopeError::WrongKey { .. })));
    let foreign = envelope.rewrap(&DataKey::from_bytes(&[8; 32]), &[(other.public(), KekVersion(2))]);
    assert_eq!(foreign, Err(SealError::OtherKey));
}

#[test]
fn it_is_wrapped_to_some_and_not_to_too_many() {
    let kek = (keks()[0].public(), KekVersion(1));
    assert_eq!(Envelope::seal(&key(), OWNER, &[]), Err(SealError::NoKek));
    assert_eq!(Envelope::seal(&key(), OWNER, &[kek; 2]), Err(SealError::Twice(kek.0.fingerprint())));
    assert_eq!(Envelope::seal(&key(), OWNER, &[kek; ENVELOPE_WRAPS_MAX + 1]), Err(SealError::TooMany));
}

#[test]
fn what_is_no_envelope_is_refused_for_its_reason() {
    let whole = envelope().encode();
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        Envelope::decode(&bytes).unwrap_err()
    };
    assert_eq!(changed(0, b"X"), EnvelopeError::NotAnEnvelope);
    assert_eq!(changed(4, &[2]), EnvelopeError::Version(2));
    assert_eq!(changed(6, &[2]), EnvelopeError::Algorithm(2));
    for count in [0, 17, 255] {
        assert!(matches!(changed(56, &[count]), EnvelopeError::Malformed(_)));
    }
    let first = HEAD_BYTES;
    assert!(matches!(changed(first + 36, &[255, 0]), EnvelopeError::Malformed(_)));
    let second = first + WRAP_HEAD_BYTES + 256;
    assert!(matches!(changed(second, &whole[first..first + 32]), EnvelopeError::Malformed(_)));
    assert_eq!(changed(second + 36, &[255, 3]), EnvelopeError::Truncated);
    for bytes in 4..whole.len() {
        assert_eq!(Envelope::decode(&whole[..bytes]), Err(EnvelopeError::Truncated));
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(matches!(Envelope::decode(&longer), Err(EnvelopeError::Malformed(_))));
    assert!(matches!(Envelope::decode(&vec![0; ENVELOPE_BYTES_MAX + 1]), Err(EnvelopeError::Malformed(_))));
}

#[test]
fn the_largest_is_as_large_as_is_said() {
    let wrap = |number: u8| Wrap {
        info: WrapInfo { fingerprint: Fingerprint([number; 32]), version: KekVersion(u32::MAX) },
        wrapped: WrappedKey::from_bytes(&[number; WRAPPED_BYTES_MAX]).unwrap(),
    };
    let wraps = (0..u8::try_from(ENVELOPE_WRAPS_MAX).unwrap()).map(wrap).collect();
    let largest = Envelope { owner: OWNER, commitment: key().commitment(), wraps };
    let bytes = largest.encode();
    assert_eq!(bytes.len(), ENVELOPE_BYTES_MAX);
    assert_eq!(Envelope::decode(&bytes), Ok(largest));
}

proptest! {
    #[test]
    fn bytes_that_are_read_are_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        if let Ok(envelope) = Envelope::decode(&bytes) {
            prop_assert_eq!(envelope.encode(), bytes);
        }
    }

    #[test]
    fn a_changed_bit_is_noticed(bit in any::<prop::sample::Index>()) {
        let mut bytes = envelope().encode();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(changed) = Envelope::decode(&bytes) {
            prop_assert_eq!(changed.encode(), bytes);
            // One of the two wraps may be untouched; then it opens, and to the right key.
            for kek in &keks()[..2] {
                prop_assert!(changed.open(kek).map_or(true, |opened| opened.as_bytes() == key().as_bytes()));
            }
            prop_assert!(keks()[..2].iter().any(|kek| changed.open_for(OWNER, kek).is_err()));
        }
    }
}
