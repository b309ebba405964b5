//! Hazard B15: bits that flip in a replica at rest.

use super::{Home, KIB, MIB, damage, fill, number, verified, words};
use sealift_proto::block::{BlockIndex, BlockSize, Layout};
use sealift_tests::blockdev::{Caching, FileSystem, LoopDevice, Mount, Scratch};
use sealift_tests::process::faulty_program;
use sealift_tests::settings;
use sealift_tests::tree::{self, Random, data_ranges, file, flip_unseen};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// How many bits to flip: `SEALIFT_TEST_FLIPS`, or a few.
fn flips() -> u64 {
    settings::number("SEALIFT_TEST_FLIPS", 60)
}

/// The files of a tree that have content, each once, by the first of its names in the order of a walk.
fn files(root: &std::path::Path) -> Vec<PathBuf> {
    let in_order = |path: &PathBuf| -> Vec<Vec<u8>> {
        path.components().map(|part| part.as_os_str().as_bytes().to_vec()).collect()
    };
    let mut found: Vec<_> =
        tree::entries(root).into_iter().filter(|(_, entry)| entry.is_file() && entry.len() > 0).collect();
    found.sort_by_key(|(path, _)| in_order(path));
    let mut seen = BTreeSet::new();
    found.retain(|(_, entry)| seen.insert(entry.ino()));
    found.into_iter().map(|(path, _)| path).collect()
}

fn layout(bytes: u64) -> Layout {
    Layout::new(bytes, BlockSize::for_file(bytes)).unwrap()
}

/// Flips so many bits at random; the blocks that they are in, by path.
fn rot(home: &Home, count: u64, seed: u64, restore_time: bool) -> BTreeMap<String, BTreeSet<u64>> {
    let mut random = Random::new(seed);
    let files = files(&home.dst);
    let mut flipped = BTreeSet::new();
    let mut expected: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    while (flipped.len() as u64) < count {
        let path = &files[usize::try_from(random.below(files.len() as u64)).unwrap()];
        let bytes = fs::metadata(home.dst.join(path)).unwrap().len();
        let bit = random.below(8 * bytes);
        // Twice is not at all.
        if !flipped.insert((path.clone(), bit)) {
            continue;
        }
        let flip = if restore_time { tree::flip_unseen } else { tree::flip };
        flip(&home.dst.join(path), bit);
        let block = bit / 8 / layout(bytes).block_size().bytes();
        expected.entry(path.to_str().unwrap().to_owned()).or_default().insert(block);
    }
    expected
}

/// Bytes that a repair must fetch: those of the damaged blocks, but for blocks of nothing but a hole.
fn bytes_to_fetch(home: &Home, expected: &BTreeMap<String, BTreeSet<u64>>) -> (u64, u64) {
    let (mut damaged, mut fetched) = (0, 0);
    for (path, blocks) in expected {
        let at = home.src.join(path);
        let bytes = fs::metadata(&at).unwrap().len();
        let layout = layout(bytes);
        let data = if bytes > 32 * KIB { data_ranges(&at) } else { std::iter::once(0..bytes).collect() };
        for block in blocks {
            let block = BlockIndex(u32::try_from(*block).unwrap());
            let (start, length) = (layout.offset(block), layout.run_bytes(block, 1).unwrap());
            damaged += length;
            if data.iter().any(|range| range.start < start + length && start < range.end) {
                fetched += length;
            }
        }
    }
    (damaged, fetched)
}

fn bits_that_flip_are_found_and_only_they_are_repaired(restore_time: bool, hash: &str, io: &str) {
    let home = Home::new();
    fill(&home.src);
    let sender = home.send_with(&["--job", "j", "--hash", hash]);
    let received = home.receive(&sender.ticket, &[]).finish().expect(0);
    let clean = home.assert_clean();
    for name in ["files", "bytes"] {
        assert_eq!(verified(&clean, name), received.total(name), "{name}");
    }
    let per_round = 60;
    let rounds = flips().div_ceil(per_round);
    for round in 0..rounds {
        let count = per_round.min(flips() - round * per_round);
        let expected = rot(&home, count, 100 + round, restore_time);
        let found = home.verify(&[]).io(io).finish().expect(3);
        let told = damage(&found);
        let as_told: BTreeMap<String, BTreeSet<u64>> = told
            .iter()
            .map(|(path, damage)| (path.clone(), damage.blocks.iter().copied().collect()))
            .collect();
        assert_eq!(as_told, expected, "every damaged block and no other");
        let word = if restore_time { "corrupt" } else { "edited" };
        assert!(told.values().all(|damage| damage.what == word), "{told:#?}");
        let blocks: u64 = expected.values().map(|blocks| blocks.len() as u64).sum();
        let (bytes, to_fetch) = bytes_to_fetch(&home, &expected);
        assert_eq!(
            (verified(&found, "damaged"), verified(&found, "blocks_damaged")),
            (expected.len() as u64, blocks)
        );
        assert_eq!(verified(&found, "bytes_damaged"), bytes);
        assert_eq!(told.values().map(|damage| damage.bytes).sum::<u64>(), bytes);

        let args: &[&str] = if restore_time { &[] } else { &["--on-conflict=overwrite"] };
        let repaired =
            home.verify(&["--repair", "--from", &sender.ticket]).args(args).io(io).finish().expect(0);
        assert_eq!(number(&repaired, "done", "bytes_transferred"), to_fetch, "exactly those bytes");
        assert_eq!((number(&repaired, "repaired", "left"), repaired.problems().len()), (0, 0));
        assert_eq!(number(&repaired, "repaired", "repaired"), expected.len() as u64);
        home.assert_clean();
        home.assert_same();
    }
    println!("{} bits flipped in {rounds} rounds", flips());
    // Nothing is left that the next receive would see to.
    assert_eq!(home.receive(&sender.ticket, &[]).finish().expect(0).total("bytes_transferred"), 0);
}

#[test]
fn b15_silent_corruption_is_found_to_the_block_and_only_that_is_fetched() {
    bits_that_flip_are_found_and_only_they_are_repaired(true, "sha256", "uring");
}

#[test]
fn b15_edits_of_single_bits_are_found_to_the_block_and_repaired_where_that_is_allowed() {
    bits_that_flip_are_found_and_only_they_are_repaired(false, "blake3", "threads");
}

#[test]
fn b15_a_disk_that_rots_beneath_its_files_shows_in_no_inode() {
    let home = Home::new();
    let mounted = || -> Result<_, sealift_tests::blockdev::Unavailable> {
        let scratch = Scratch::new(80 * MIB)?;
        let image = scratch.path().join("image");
        FileSystem::Ext4.make(&image, 64 * MIB, &[])?;
        let device = LoopDevice::attach(&image, Caching::Cached)?;
        let mount = Mount::new(device.path(), &home.dst, "noatime")?;
        Ok((scratch, image, device, mount))
    };
    let (_scratch, image, device, mount) = match mounted() {
        Ok(mounted) => mounted,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    // Content that is found again in the image.
    let names = ["small", "medium", "large"];
    let contents: HashMap<&str, Vec<u8>> = [
        ("small", Random::new(1).bytes(8 * KIB)),
        ("medium", Random::new(2).bytes(200 * KIB)),
        ("large", Random::new(3).bytes(3 * MIB)),
    ]
    .into();
    for name in names {
        file(&home.src(name), &contents[name]);
    }
    let sender = home.send_job("j");
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    home.assert_clean();
    mount.unmount().unwrap();
    drop(device);
    let mut bytes = fs::read(&image).unwrap();
    for name in names {
        let content = &contents[name];
        // The third page of each, or the last one.
        let page = content.len().min(12 << 10) - (4 << 10);
        let needle = &content[page..page + 64];
        let places: Vec<usize> = bytes
            .chunks(4096)
            .enumerate()
            .filter(|(_, chunk)| chunk.starts_with(needle))
            .map(|(at, _)| at)
            .collect();
        assert_eq!(places.len(), 1, "{name} lies in the image once");
        bytes[places[0] * 4096 + 100] ^= 0x10;
    }
    fs::write(&image, bytes).unwrap();
    let device = LoopDevice::attach(&image, Caching::Cached).unwrap();
    let _mount = Mount::new(device.path(), &home.dst, "noatime").unwrap();

    // An ordinary receive believes the inodes.
    assert_eq!(home.receive(&sender.ticket, &[]).finish().expect(0).total("bytes_transferred"), 0);
    let found = home.verify(&[]).finish().expect(3);
    let told = damage(&found);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told.values().all(|damage| damage.what == "corrupt" && damage.blocks == [0]), "{told:#?}");
    let repaired = home.repair(&sender, &[]).expect(0);
    assert_eq!(number(&repaired, "done", "bytes_transferred"), (8 + 32 + 32) * KIB);
    home.assert_clean();
    for name in names {
        assert_eq!(fs::read(home.dst(name)).unwrap(), contents[name]);
    }
}

#[test]
fn b15_what_the_disk_cannot_read_is_named_to_the_block_and_repaired() {
    let home = Home::new();
    file(&home.src("file"), Random::new(5).bytes(300 * KIB));
    let sender = home.send_job("j");
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    // Read whole, as a run, and then block by block: the first block still fails. Without the index, whose reading
    // counts too.
    let found = home
        .verify(&["--ticket", &sender.ticket])
        .program(faulty_program())
        .io("threads")
        .state_dir(home.dir.path().join("other state"))
        .env("SEALIFT_FAULTS", "only=read;nth=1;until=3;error=EIO")
        .finish()
        .expect(3);
    assert_eq!(words(&found), super::pairs(&[("file", "unreadable")]));
    let event = found.named("damaged").next().unwrap();
    assert_eq!(
        (event["blocks"].as_array().unwrap().len(), &event["unreadable"][0]),
        (1, &0.into()),
        "{event}"
    );
    assert!(event["reason"].as_str().unwrap().contains("Input/output error"), "{event}");
    assert_eq!(event["bytes"], 32 * KIB);
}

#[test]
fn b15_what_somebody_edited_is_repaired_by_the_conflict_rule_alone() {
    let contents = |home: &Home| -> Vec<(String, Vec<u8>)> {
        let mut found: Vec<_> = fs::read_dir(&home.dst)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        found.sort();
        found
    };
    for rule in ["keep", "rename", "overwrite"] {
        let home = Home::new();
        for name in ["longer", "other", "shorter"] {
            file(&home.src(name), Random::new(7).bytes(100 * KIB));
        }
        let sender = home.send_job("j");
        let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
        file(&home.dst("longer"), [fs::read(home.src("longer")).unwrap(), b"more".to_vec()].concat());
        file(&home.dst("shorter"), &fs::read(home.src("shorter")).unwrap()[..40_000]);
        file(&home.dst("other"), Random::new(8).bytes(100 * KIB));
        let found = home.verify(&[]).finish().expect(3);
        assert_eq!(
            words(&found),
            super::pairs(&[("longer", "edited"), ("other", "edited"), ("shorter", "edited")])
        );
        let told = damage(&found);
        assert_eq!((&*told["longer"].blocks, &*told["shorter"].blocks), (&[][..], &[1, 2, 3][..]));
        assert_eq!(told["other"].blocks, [0, 1, 2, 3]);
        let edited = contents(&home);

        let outcome =
            home.repair(&sender, &["--on-conflict", rule]).expect(if rule == "keep" { 3 } else { 0 });
        let now = contents(&home);
        match rule {
            "keep" => {
                assert_eq!(now, edited);
                assert_eq!(outcome.problems().len(), 3);
                assert_eq!(number(&outcome, "repaired", "left"), 3);
            }
            "rename" => {
                assert_eq!(now.len(), 6);
                assert!(edited.iter().all(|(_, content)| now.iter().any(|(_, other)| other == content)));
                home.assert_clean();
            }
            _ => {
                assert_eq!(now.len(), 3);
                home.assert_clean();
                home.assert_same();
            }
        }
    }
}

#[test]
fn b15_a_source_that_has_moved_on_repairs_nothing_by_another_version() {
    let home = Home::new();
    for name in ["changed", "gone", "same"] {
        file(&home.src(name), Random::new(9).bytes(70 * KIB));
    }
    let _ = home.sync(&[]).expect(0);
    for name in ["changed", "gone", "same"] {
        flip_unseen(&home.dst(name), 5);
    }
    let corrupt = fs::read(home.dst("changed")).unwrap();
    file(&home.src("changed"), Random::new(10).bytes(70 * KIB));
    fs::remove_file(home.src("gone")).unwrap();
    let sender = home.send_job("j");
    let outcome = home.repair(&sender, &[]).expect(3);
    assert_eq!(outcome.problems(), ["changed", "gone"]);
    let reasons: Vec<&str> =
        outcome.named("problem").map(|event| event["reason"].as_str().unwrap()).collect();
    assert!(reasons[0].contains("another version") && !reasons[1].contains("another version"), "{reasons:?}");
    assert_eq!((number(&outcome, "repaired", "repaired"), number(&outcome, "repaired", "left")), (1, 2));
    assert_eq!(fs::read(home.dst("changed")).unwrap(), corrupt, "not touched");
    // The manifest is still the old one, though more was heard.
    let again = home.verify(&[]).finish().expect(3);
    assert_eq!(words(&again), super::pairs(&[("changed", "corrupt"), ("gone", "corrupt")]));
    // An ordinary receive heals what is left: the index vouches for it no more.
    let _ = home.receive(&sender.ticket, &["--delete"]).finish().expect(0);
    assert_eq!(fs::read(home.dst("changed")).unwrap(), fs::read(home.src("changed")).unwrap());
    home.assert_clean();
}

#[test]
fn b15_another_job_may_repair_what_is_the_same_there() {
    let home = Home::new();
    file(&home.src("f"), Random::new(9).bytes(200 * KIB));
    let _ = home.sync(&[]).expect(0);
    flip_unseen(&home.dst("f"), 500_000);
    let other = home.send();
    let repaired = home.repair(&other, &[]).expect(0);
    assert_eq!(number(&repaired, "done", "bytes_transferred"), 32 * KIB);
    home.assert_clean();
    home.assert_same();
}

#[test]
fn a_repair_without_its_source_says_so_and_leaves_a_replica_that_can_be_repaired() {
    let home = Home::new();
    fill(&home.src);
    let sender = home.send_job("j");
    let ticket = sender.ticket.clone();
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let _ = sender.stop().expect(0);
    for name in ["large", "links/b/large", "one byte"] {
        flip_unseen(&home.dst(name), 3);
    }
    let failed = home.verify(&["--repair", "--from", &ticket, "--retry-for", "0"]).finish().expect(5);
    assert_eq!(verified(&failed, "damaged"), 3);
    let sender = home.send_job("j");
    assert_eq!(sender.ticket.len(), ticket.len());
    let _ = home.repair(&sender, &[]).expect(0);
    home.assert_clean();
    home.assert_same();
}
