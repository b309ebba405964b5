//! Power cuts, operations that fail, full disks, and syncs that lose what they were to keep (hazards B1, B2, B4, B9).

use super::super::blocks::{Backend, BlockFile};
use super::memory::{MemoryDisk, apply, batch_of_history, new_in_memory, open_in_memory, shown};
use super::*;
use redb::StorageBackend as _;
use std::sync::Arc;

/// What is on the disk after `batches`, by all that were acknowledged and perhaps one more.
fn one_of(index: &ReplicaIndex, acknowledged: &Content, in_progress: &Content) {
    let found = content(index).unwrap();
    assert!(
        found == *acknowledged || found == *in_progress,
        "neither what was acknowledged nor one batch more"
    );
}

#[test]
fn b9_a_power_cut_at_any_moment_leaves_the_last_acknowledged_batch_or_the_next() {
    let mut images = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let (index, disk) = new_in_memory();
        let (mut acknowledged, mut in_progress) = (Content::default(), Content::default());
        // Large batches make the file grow, and removing them makes it shrink.
        let rows = [1, 20, 300, 1500][random.index(4)];
        disk.memory().fails = Some((random.below(60 + rows), 5, true));
        let mut index = Some(index);
        for number in 1.. {
            let mut batch = batch_of_history(number * 1000 + seed, rows);
            if random.below(8) == 0 {
                batch.removed = in_progress.0.keys().cloned().collect();
                batch.placed.clear();
            }
            apply(&mut in_progress, &batch);
            if index.as_ref().expect("there").write(&batch).is_err() {
                break;
            }
            acknowledged = in_progress.clone();
            if random.below(6) == 0 {
                // A restart in between.
                drop(index.take());
                if matches!(disk.memory().fails, Some((0, ..))) {
                    break;
                }
                match Store::start(&shown(), PLAN, disk.clone()) {
                    Ok(store) => index = Some(ReplicaIndex { store: store.expect("sound") }),
                    Err(_) => break,
                }
            }
        }
        drop(index);
        for _ in 0..8 {
            let image = MemoryDisk::holding(disk.after_power_cut(&mut random));
            let index = open_in_memory(image.clone()).expect("not damaged");
            one_of(&index, &acknowledged, &in_progress);
            // It can be gone on with from there, and cut off again.
            let mut after = content(&index).unwrap();
            let batch = batch_of_history(seed, 50);
            index.write(&batch).unwrap();
            apply(&mut after, &batch);
            drop(index);
            let index = open_in_memory(MemoryDisk::holding(image.after_power_cut(&mut random)));
            one_of(&index.expect("not damaged"), &after, &after);
            images += 2;
        }
    }
    println!("{images} images");
}

#[test]
fn b9_a_head_says_no_length_that_a_power_cut_could_take_back() {
    let mut random = Random(1);
    for _ in 0..50 {
        let disk = MemoryDisk::holding(Vec::new());
        let blocks = Arc::new(BlockFile::create(disk.clone(), PLAN.purpose));
        let backend = Backend(blocks);
        backend.set_len(4 * 4096).unwrap();
        backend.sync_data().unwrap();
        backend.write(0, &[1; 320]).unwrap();
        backend.sync_data().unwrap();
        for _ in 0..4 {
            backend.set_len((1 + random.below(2000)) * 4096).unwrap();
            if random.below(2) == 0 {
                backend.write(0, &[2; 320]).unwrap();
            }
            if random.below(3) == 0 {
                backend.sync_data().unwrap();
            }
        }
        if random.below(2) == 0 {
            backend.close().unwrap();
        }
        let image = MemoryDisk::holding(disk.after_power_cut(&mut random));
        BlockFile::open(image, PLAN.purpose).expect("not damaged");
    }
}

#[test]
fn b1_each_failing_operation_is_reported_and_leaves_what_was_acknowledged() {
    const EIO: i32 = 5;
    let mut seen = 0;
    for nth in 0.. {
        let (index, disk) = new_in_memory();
        let mut acknowledged = Content::default();
        let batch = batch_of_history(1, 100);
        index.write(&batch).unwrap();
        apply(&mut acknowledged, &batch);
        disk.memory().fails = Some((nth, EIO, false));
        let batch = batch_of_history(2, 100);
        let mut in_progress = acknowledged.clone();
        apply(&mut in_progress, &batch);
        let result = index.write(&batch);
        if disk.memory().fails.is_some() {
            assert!(result.is_ok());
            break;
        }
        seen += 1;
        let error = result.expect_err("it failed");
        assert!(
            matches!(&error, IndexError::Io { source, .. } if source.raw_os_error() == Some(EIO)),
            "{error}"
        );
        // Nothing is believed from then on, although the disk works again.
        for _ in 0..2 {
            assert!(matches!(index.read(), Err(IndexError::Io { .. })));
            assert!(matches!(index.write(&batch), Err(IndexError::Io { .. })));
        }
        drop(index);
        one_of(&open_in_memory(disk).expect("not damaged"), &acknowledged, &in_progress);
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn b4_a_full_disk_is_said_and_gone_on_from_when_there_is_room() {
    const ENOSPC: i32 = 28;
    for nth in 0..200 {
        let (index, disk) = new_in_memory();
        let mut expected = Content::default();
        let batch = batch_of_history(1, 2000);
        disk.memory().fails = Some((nth, ENOSPC, true));
        let mut failures = 0;
        while let Err(error) = index.write(&batch) {
            assert!(matches!(error, IndexError::Full { .. }), "{error}");
            failures += 1;
            assert!(failures < 4, "there is room");
            if failures == 2 {
                disk.memory().fails = None;
            }
        }
        disk.memory().fails = None;
        apply(&mut expected, &batch);
        assert!(content(&index).unwrap() == expected);
        drop(index);
        one_of(&open_in_memory(disk).expect("not damaged"), &expected, &expected);
        if failures == 0 {
            return;
        }
    }
}

#[test]
fn b2_what_a_failed_sync_lost_is_not_taken_for_written() {
    let mut failed_syncs = 0;
    for nth in 0.. {
        // The disk goes on to read back what it has lost, and no sync ever tells again.
        let (index, disk) = new_in_memory();
        let first = placed(&[("a", file(1, 1))]);
        index.write(&first).unwrap();
        let syncs = disk.memory().syncs;
        disk.memory().fails = Some((nth, 28, false));
        let second = batch_of_history(1, 100);
        let failed = index.write(&second).is_err();
        if !failed && disk.memory().fails.is_some() {
            break;
        }
        let mut memory = disk.memory();
        failed_syncs += u64::from(failed && memory.syncs > syncs);
        memory.lens.clear();
        memory.sectors.clear();
        drop(memory);
        // Gone on with in the same process, then cut off: all of it is there.
        let third = placed(&[("c", file(3, 3))]);
        let mut expected = content(&index).unwrap();
        index.write(&third).unwrap();
        apply(&mut expected, &third);
        let image = MemoryDisk::holding(disk.memory().synced.clone());
        one_of(&open_in_memory(image).expect("not damaged"), &expected, &expected);
    }
    assert!(failed_syncs > 0);
}
