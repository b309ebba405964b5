//! A large file: what moves when it has changed a little, and how much memory that takes.

use super::Place;
use sealift_proto::block::BlockSize;
use sealift_tests::process::{PATIENCE, Run, Sender};
use sealift_tests::settings;
use sealift_tests::tree::{SpecialModes, assert_same, flip, flip_unseen, large_file, set_mtime};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;

/// Of each end.
const RESIDENT_BYTES_MAX: u64 = 256 << 20;

/// `SEALIFT_TEST_LARGE_BYTES`, or 256 MiB.
fn large_bytes() -> u64 {
    settings::number("SEALIFT_TEST_LARGE_BYTES", 256 << 20)
}

/// Replicates, checks the copy and both ends' memory, and returns the bytes that moved, as both ends count them.
fn bytes_moved(place: &Place) -> u64 {
    let patience = PATIENCE.max(std::time::Duration::from_secs(large_bytes() >> 23));
    let mut sender = Sender::of(Run::send([&place.src]).patience(patience));
    // What is edited here meanwhile is edited by the test.
    let receiver = Run::receive(&sender.ticket, &place.dst).arg("--on-conflict=overwrite").patience(patience);
    let received = receiver.finish().expect(0);
    let sender_peak = sender.process.peak_resident_bytes();
    let sent = sender.stop().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    println!("resident at most: sender {sender_peak}, receiver {}", received.peak_resident_bytes);
    for peak in [sender_peak, received.peak_resident_bytes] {
        assert!((1..RESIDENT_BYTES_MAX).contains(&peak), "resident: {peak} bytes");
    }
    assert_eq!(sent.total("bytes_transferred"), received.total("bytes_transferred"));
    received.total("bytes_transferred")
}

#[test]
fn of_a_large_file_only_changed_blocks_move() {
    let place = Place::new();
    let bytes = large_bytes();
    let block = BlockSize::for_file(bytes).bytes();
    let (src, dst) = (place.src.join("large"), place.dst.join("large"));
    large_file(&src, bytes, 8);

    assert_eq!(bytes_moved(&place), bytes, "at first all of it");
    assert_eq!(bytes_moved(&place), 0, "then nothing");
    flip(&src, 8 * (bytes / 3));
    assert_eq!(bytes_moved(&place), block, "one bit of the source: one block");

    // A local edit that neither size nor time shows.
    flip_unseen(&dst, 8 * (bytes / 2));
    assert_eq!(bytes_moved(&place), block, "one bit of the copy: one block");

    let file = OpenOptions::new().write(true).open(&src).unwrap();
    let more = 100_000;
    file.write_all_at(&vec![7; 100_000], bytes).unwrap();
    assert_eq!(bytes_moved(&place), more, "appended: what is new");
    file.set_len(bytes - 50_000).unwrap();
    assert!(bytes_moved(&place) <= block, "cut off: at most what has become the last block");
    file.write_all_at(&[9; 10], bytes - 50_000).unwrap();
    assert!(bytes_moved(&place) <= block, "appended within the last block");
}

#[test]
fn a_file_of_the_same_size_and_time_in_the_way_is_replaced() {
    let place = Place::new();
    let sizes = [1, 20_000, 32_768, 40_000, 1 << 20, (8 << 20) + 5];
    for (seed, bytes) in (100..).zip(sizes) {
        let name = bytes.to_string();
        large_file(&place.src.join(&name), bytes, seed);
        fs::create_dir_all(&place.dst).unwrap();
        large_file(&place.dst.join(&name), bytes, seed + 50);
        for dir in [&place.src, &place.dst] {
            set_mtime(&dir.join(&name), 1_000_000, 0);
        }
    }
    let moved = bytes_moved(&place);
    assert!(moved >= sizes.iter().sum::<u64>() - 1, "all of them, but for a lucky byte: {moved}");
}

#[test]
fn a_file_of_other_size_in_the_way_lends_its_blocks() {
    let place = Place::new();
    fs::create_dir_all(&place.dst).unwrap();
    let (src, dst) = (place.src.join("f"), place.dst.join("f"));
    // Longer than the source, by less and by more than a block, and shorter.
    for (source_bytes, copy_bytes) in [(5_000_000, 5_000_001), (5_000_000, 9_000_000), (5_000_000, 3_000_000)]
    {
        large_file(&src, source_bytes, 9);
        large_file(&dst, copy_bytes, 9);
        let wanted = source_bytes.saturating_sub(copy_bytes);
        let moved = bytes_moved(&place);
        assert!(moved <= wanted + 32_768, "{copy_bytes} to {source_bytes}: {moved}");
    }
    // Holes where the copy has data, and data where it has holes.
    for (from, to) in [(&src, &dst), (&dst, &src)] {
        large_file(from, 4 << 20, 10);
        fs::remove_file(to).unwrap();
        File::create(to).unwrap().set_len(4 << 20).unwrap();
        let moved = bytes_moved(&place);
        assert_eq!(moved, if from == &src { 4 << 20 } else { 0 });
    }
}
