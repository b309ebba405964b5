//! A file that is here under another name is taken from there, not fetched: by sharing its blocks where the file system
//! can do that, otherwise by copying.

use super::{Home, MIB};
use sealift_tests::blockdev::{Caching, LoopDevice, Mount, Scratch, Unavailable, or_skip, run};
use sealift_tests::tree::{self, assert_tidy, file, flip, same_content};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// In one block and too small to be worth it, in one piece, and staged.
fn fill(home: &Home) {
    tree::large_file(&home.src("small"), 70 << 10, 1);
    tree::large_file(&home.src("medium"), 900_000, 2);
    tree::large_file(&home.src("large"), 20 * MIB + 5, 3);
    fs::create_dir(home.src("dir")).unwrap();
}

fn move_all(home: &Home) {
    for name in ["small", "medium", "large"] {
        fs::rename(home.src(name), home.src(&format!("dir/{name} moved"))).unwrap();
    }
}

#[test]
fn what_was_moved_at_the_source_is_not_fetched() {
    let home = Home::new();
    fill(&home);
    let _ = home.sync(&[]).expect(0);
    move_all(&home);
    let received = home.sync(&["--delete"]).expect(0);
    assert_eq!((received.total("bytes_transferred"), received.warnings().as_str()), (0, ""));
    home.assert_same();
    // By another job too: it is the replica that knows.
    fs::copy(home.src("dir/large moved"), home.src("large copied")).unwrap();
    fs::copy(home.src("dir/small moved"), home.src("small copied")).unwrap();
    let received = home.replicate(&["--verify=readback"]).expect(0);
    assert_eq!(received.total("bytes_transferred"), 0);
    home.assert_same();
}

#[test]
fn a_directory_that_was_renamed_is_not_fetched() {
    let home = Home::new();
    for number in 0..40 {
        tree::large_file(&home.src(&format!("{number}")), 70_000 * (number + 1), number);
    }
    let whole = home.dir.path().join("whole");
    fs::rename(&home.src, &whole).unwrap();
    fs::create_dir(&home.src).unwrap();
    fs::rename(&whole, home.src("before")).unwrap();
    let _ = home.sync(&[]).expect(0);
    fs::rename(home.src("before"), home.src("after")).unwrap();
    let received = home.sync(&["--delete", "--max-delete=100"]).expect(0);
    assert_eq!(received.total("bytes_transferred"), 0);
    home.assert_same();
}

#[test]
fn what_was_damaged_under_its_other_name_is_fetched() {
    for damage in ["flipped", "truncated", "removed", "a directory"] {
        let home = Home::new();
        fill(&home);
        let _ = home.replicate(&[]).expect(0);
        move_all(&home);
        for name in ["small", "medium", "large"] {
            let path = home.dst(name);
            match damage {
                "flipped" => flip(&path, 8 * 1000),
                "truncated" => fs::File::options().write(true).open(&path).unwrap().set_len(10_000).unwrap(),
                "removed" => fs::remove_file(&path).unwrap(),
                _ => {
                    fs::remove_file(&path).unwrap();
                    fs::create_dir(&path).unwrap();
                }
            }
        }
        let received = home.replicate(&[]).expect(0);
        for name in ["small", "medium", "large"] {
            let moved = format!("dir/{name} moved");
            assert!(same_content(&home.src(&moved), &home.dst(&moved)), "{moved}, {damage}");
        }
        assert!(received.total("bytes_transferred") > 0);
    }
}

#[test]
fn names_that_were_exchanged_are_right_in_the_end() {
    let home = Home::new();
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3)] {
        tree::large_file(&home.src(name), 3 * MIB, seed);
        tree::large_file(&home.src(&format!("medium {name}")), 300_000, seed);
    }
    let _ = home.sync(&[]).expect(0);
    for prefix in ["", "medium "] {
        let path = |name: &str| home.src(&format!("{prefix}{name}"));
        fs::rename(path("a"), path("x")).unwrap();
        fs::rename(path("b"), path("a")).unwrap();
        fs::rename(path("c"), path("b")).unwrap();
        fs::rename(path("x"), path("c")).unwrap();
    }
    let received = home.sync(&["--delete"]).expect(0);
    println!("{} bytes were fetched", received.total("bytes_transferred"));
    home.assert_same();
    assert!(home.conflicts("a").is_empty());
}

#[test]
fn a_file_that_moves_on_while_another_takes_its_name_is_right_in_the_end() {
    // Logs do that: a becomes b, and there is a new a.
    let home = Home::new();
    for (name, seed) in [("log.1", 1), ("log.2", 2), ("log", 3)] {
        tree::large_file(&home.src(name), 2 * MIB, seed);
    }
    let _ = home.sync(&[]).expect(0);
    fs::rename(home.src("log.2"), home.src("log.3")).unwrap();
    fs::rename(home.src("log.1"), home.src("log.2")).unwrap();
    fs::rename(home.src("log"), home.src("log.1")).unwrap();
    tree::large_file(&home.src("log"), 2 * MIB, 4);
    let _ = home.sync(&["--delete"]).expect(0);
    home.assert_same();
}

/// A file system of this kind, mounted, with a destination on it.
fn on(home: &Home, kind: &str, mkfs: &[&str]) -> Result<(Mount, LoopDevice, Scratch), Unavailable> {
    let scratch = Scratch::new(700 * MIB)?;
    let image = scratch.path().join("image");
    fs::File::create(&image).unwrap().set_len(320 * MIB).unwrap();
    let args = mkfs.iter().map(AsRef::as_ref).chain([image.as_os_str()]);
    run(&format!("mkfs.{kind}"), args)?;
    let device = LoopDevice::attach(&image, Caching::Direct)?;
    let mount = Mount::new(device.path(), &home.dst, "noatime")?;
    Ok((mount, device, scratch))
}

fn used_bytes(at: &Path) -> u64 {
    let state = rustix::fs::statvfs(at).unwrap();
    (state.f_blocks - state.f_bfree) * state.f_frsize
}

#[test]
fn blocks_are_shared_where_the_file_system_can_do_that() {
    for (kind, mkfs) in [("xfs", &["-q", "-f", "-m", "reflink=1"][..]), ("btrfs", &["-q", "-f"])] {
        let home = Home::new();
        let Some(_mounted) = or_skip(on(&home, kind, mkfs)) else { continue };
        fill(&home);
        let _ = home.replicate(&[]).expect(0);
        // Room for less than another copy.
        let before = used_bytes(&home.dst);
        fs::copy(home.src("large"), home.src("large copied")).unwrap();
        let received = home.replicate(&[]).expect(0);
        assert_eq!(received.total("bytes_transferred"), 0);
        home.assert_same();
        rustix::fs::syncfs(fs::File::open(&home.dst).unwrap()).unwrap();
        let more = used_bytes(&home.dst).saturating_sub(before);
        println!("{kind}: {more} bytes more");
        assert!(more < 10 * MIB, "{kind}: {more} bytes more");
        assert_ne!(
            fs::metadata(home.dst("large")).unwrap().ino(),
            fs::metadata(home.dst("large copied")).unwrap().ino()
        );
        // One that is written to leaves the other alone.
        flip(&home.dst("large copied"), 8 * 5);
        assert!(same_content(&home.src("large"), &home.dst("large")));
        // What was damaged under the other name is not shared.
        fs::copy(home.src("large"), home.src("large again")).unwrap();
        flip(&home.dst("large"), 8 * 77);
        file(&home.src("another"), "x");
        let _ = home.replicate(&["--on-conflict=overwrite"]).expect(0);
        for name in ["large", "large copied", "large again"] {
            assert!(same_content(&home.src(name), &home.dst(name)), "{kind}: {name}");
        }
        assert_tidy(&home.dst);
    }
}
