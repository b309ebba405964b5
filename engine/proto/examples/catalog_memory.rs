//! Says how much memory a reader's catalog takes for each entry, by what the kernel counts as resident (Linux only).
//!
//! `cargo run --release -p sealift-proto --example catalog_memory [ENTRIES]`

use sealift_proto::block::{BlockSize, FileId, Layout};
use sealift_proto::digest::{BlockHash, HashAlgorithm};
use sealift_proto::keys::RwSeed;
use sealift_proto::manifest::{Catalog, Fill, Metadata, Mode, Record, SegmentWriter};
use sealift_proto::path::SafePath;
use sealift_proto::time::Timestamp;
use std::time::{Duration, Instant};

// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Files in one directory.
const FANOUT: u64 = 100;

fn main() {
    let entries =
        std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number of entries"));
    // What buffers and the first use of everything cost is there already.
    drop(catalog_of(10 * FANOUT));
    let before_kib = resident_kib();
    let (catalog, took) = catalog_of(entries);
    let kib = resident_kib().saturating_sub(before_kib);
    assert_eq!(catalog.entries(), entries);
    #[allow(clippy::cast_precision_loss)]
    let each = (kib * 1024) as f64 / entries as f64;
    println!("{entries} entries: {kib} KiB more, {each:.1} bytes an entry; admitted in {took:.2?}");
}

/// A catalog that has admitted so many entries, directories with their files; and how long it took over that.
fn catalog_of(entries: u64) -> (Catalog, Duration) {
    let seed = || RwSeed::new(&[7; 32]);
    let mut catalog = Catalog::new(seed().verify_key(), None);
    let mut took = Duration::ZERO;
    let mut admit = |segment: &[u8]| {
        let begin = Instant::now();
        catalog.admit(segment).expect("valid");
        took += begin.elapsed();
    };
    let mut writer = SegmentWriter::new(seed(), HashAlgorithm::Blake3);
    let metadata = Metadata { mode: Mode::from_bits(0o644), mtime: Timestamp::clamped(1_700_000_000, 0) };
    let path = |text: String| SafePath::parse(text.as_bytes()).expect("safe");
    for number in 0..entries {
        let (id, directory) = (FileId(number), number / FANOUT);
        let record = if number.is_multiple_of(FANOUT) {
            Record::Directory { id, path: path(format!("directory-{directory}")), metadata }
        } else {
            let path = path(format!("directory-{directory}/file-{number}.data"));
            let layout = Layout::new(5, BlockSize::MIN).expect("small");
            Record::SmallFile { id, path, metadata, layout, hash: BlockHash([1; 32]) }
        };
        if writer.push(&record) == Fill::Full {
            admit(&writer.finish(0));
        }
    }
    writer.push(&Record::End { entries });
    admit(&writer.finish(0));
    assert!(catalog.ended());
    (catalog, took)
}

/// The second field of statm, in pages of 4 KiB.
fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).expect("a number of pages");
    pages * 4
}
