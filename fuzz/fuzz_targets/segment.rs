//! Raw bytes as a segment. Nothing that was not signed may ever be admitted: not even what differs in one bit from what
//! was. (The other target, `records`, gets past the signature.)
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::keys::RwSeed;
use sealift_proto::manifest::{Catalog, Record, SegmentWriter};
use std::sync::OnceLock;

static GENUINE: OnceLock<Vec<u8>> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let seed = || RwSeed::new(&[7; 32]);
    let mut catalog = Catalog::new(seed().verify_key(), None);
    assert!(catalog.admit(input).is_err(), "nobody guesses a signature");

    // The same bytes laid over a genuine segment, at a place that they choose.
    let genuine = GENUINE.get_or_init(|| {
        let mut writer = SegmentWriter::new(seed(), HashAlgorithm::Sha256);
        writer.push(&Record::End { entries: 0 });
        writer.finish(0)
    });
    let Some((&at, patch)) = input.split_first() else { return };
    let mut segment = genuine.clone();
    let at = usize::from(at).min(segment.len());
    let end = segment.len().min(at + patch.len());
    for (byte, patch) in segment[at..end].iter_mut().zip(patch) {
        *byte ^= patch;
    }
    let altered = segment != *genuine;
    assert_eq!(catalog.admit(&segment).is_err(), altered);
});
