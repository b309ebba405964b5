//! Segments: whose they are, and in which format (hazard A11).

use super::*;
use sha2::Digest as _;

#[test]
fn a11_refuses_signatures_that_are_wrong_truncated_or_of_another_key() {
    let segment = sealed(&mut writer(), &[small(0, "a")]);
    let refuse = |bytes: &[u8]| match catalog().admit(bytes).expect_err("refused") {
        ManifestError::Segment(error) => error,
        other => panic!("{other}"),
    };
    for at in [100, segment.len() - 1, segment.len() - 40] {
        let mut altered = segment.clone();
        altered[at] ^= 1;
        assert_eq!(refuse(&altered), SegmentError::BadSignature);
    }
    assert!(matches!(refuse(&segment[..segment.len() - 1]), SegmentError::Malformed(_)));
    assert!(matches!(refuse(&segment[..10]), SegmentError::Malformed(_)));
    let other = sealed(&mut SegmentWriter::new(seed(8), HashAlgorithm::Sha256), &[small(0, "a")]);
    assert_eq!(refuse(&other), SegmentError::WrongJob);

    // The read-only secret, and the session key made from it, sign nothing that a reader takes.
    let ro = seed(7).ro_secret();
    let mut message = b"sealift v1 manifest segment\0\0\0\0\0".to_vec();
    message.extend_from_slice(&segment[..segment.len() - 64]);
    for signature in [RwSeed::new(ro.as_bytes()).sign(&message), ro.session_key().sign(&message)] {
        assert_eq!(refuse(&[&message[32..], &signature].concat()), SegmentError::BadSignature);
    }
    // Another job's name under this job's signature, and this job's name under another job's signature.
    assert_eq!(refuse(&resigned(&segment, 8, &seed(8).verify_key().job_id().0)), SegmentError::WrongJob);
}

#[test]
fn inspect_checks_signature_and_job_and_no_records() {
    let nonsense = sealed(&mut writer(), &[Record::End { entries: 9 }]);
    let (header, hash) = inspect(&nonsense, &seed(7).verify_key()).expect("signed");
    assert_eq!((header.sequence, header.epoch, header.writer), (SegmentSeq(0), 1, 0));
    assert_eq!(hash.0, <[u8; 32]>::from(sha2::Sha256::digest(&nonsense)));
    assert_eq!(inspect(&nonsense, &seed(8).verify_key()), Err(SegmentError::WrongJob));
    let altered = resigned(&nonsense, 96, &[0]);
    assert!(inspect(&altered, &seed(7).verify_key()).is_ok());
    let mut altered = altered;
    altered[96] ^= 1;
    assert_eq!(inspect(&altered, &seed(7).verify_key()), Err(SegmentError::BadSignature));
}

#[test]
fn other_formats_are_refused_as_such() {
    let segment = sealed(&mut writer(), &[small(0, "a")]);
    for version in [0, 1, 3, u16::MAX] {
        let refusal = catalog().admit(&resigned(&segment, 4, &version.to_le_bytes()));
        assert_eq!(refusal, Err(SegmentError::Version(version).into()));
    }
}
