//! `--preserve`: what of the source's metadata is kept, and what becomes of the rest.

use super::{Home, MIB, bytes_read, version};
use sealift_tests::tree::{self, file, same_content, set_mode, set_mtime};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};

const THEN: i64 = 1_000_000_000;

fn replica(args: &[&str]) -> Home {
    let home = Home::new();
    file(&home.src("tiny"), "tiny");
    tree::large_file(&home.src("large"), 3 * MIB, 1);
    file(&home.src("dir/in it"), "in it");
    fs::hard_link(home.src("tiny"), home.src("dir/tiny too")).unwrap();
    fs::hard_link(home.src("large"), home.src("dir/large too")).unwrap();
    symlink("tiny", home.src("link")).unwrap();
    symlink("nowhere", home.src("dir/link")).unwrap();
    let sparse = fs::File::create(home.src("sparse")).unwrap();
    sparse.set_len(4 * MIB).unwrap();
    sparse.write_all_at(&[1; 100_000], MIB).unwrap();
    for (path, entry) in tree::entries(&home.src) {
        if !entry.is_symlink() {
            set_mode(&home.src.join(&path), if entry.is_dir() { 0o711 } else { 0o604 });
        }
    }
    for path in tree::entries(&home.src).into_keys() {
        set_mtime(&home.src.join(&path), THEN, 5);
    }
    let _ = home.replicate(args).expect(0);
    home
}

/// A second run finds nothing to do, and touches no file.
fn is_settled(home: &Home, args: &[&str]) {
    let versions = || {
        let files = tree::entries(&home.dst).into_iter().filter(|(_, entry)| !entry.is_dir());
        files.map(|(path, _)| (version(&home.dst.join(&path)), path)).collect::<Vec<_>>()
    };
    let before = versions();
    let (read, again) = bytes_read(home.receive(&home.send().ticket, args));
    assert_eq!(again.expect(0).total("bytes_transferred"), 0);
    assert!(read < 2 * MIB, "{read} bytes were read");
    assert_eq!(before, versions(), "{args:?}");
}

fn content_is_right(home: &Home) {
    for (path, entry) in tree::entries(&home.src) {
        if entry.is_file() {
            assert!(same_content(&home.src.join(&path), &home.dst.join(&path)), "{path:?}");
        }
    }
}

#[test]
fn the_usual_and_all_of_it_are_what_they_were() {
    for args in [&[][..], &["--preserve=default"], &["--preserve=mode,times,links,hardlinks,sparse"]] {
        let home = replica(args);
        home.assert_same();
        is_settled(&home, args);
    }
}

#[test]
fn none_keeps_content_and_directories() {
    let args = ["--preserve=none"];
    let home = replica(&args);
    content_is_right(&home);
    for (path, entry) in tree::entries(&home.dst) {
        assert!(!entry.is_symlink(), "{path:?}");
        assert!(entry.mtime() > THEN + 1, "{path:?} has the source's time");
        if entry.is_file() {
            assert_eq!((entry.mode() & 0o777, entry.nlink()), (0o644, 1), "{path:?}");
        } else {
            assert_eq!(entry.mode() & 0o777, 0o755, "{path:?}");
        }
    }
    is_settled(&home, &args);
}

#[test]
fn without_times_they_are_those_of_the_copy_and_stay() {
    let args = ["--preserve=mode,links,hardlinks,sparse"];
    let home = replica(&args);
    content_is_right(&home);
    for (path, entry) in tree::entries(&home.dst) {
        assert!(entry.mtime() > THEN + 1, "{path:?} has the source's time");
    }
    is_settled(&home, &args);
    // A time that is set here is nobody's business.
    set_mtime(&home.dst("tiny"), 7, 7);
    let _ = home.replicate(&args).expect(0);
    assert_eq!(fs::metadata(home.dst("tiny")).unwrap().mtime(), 7);
    // And once times are to be kept, they come.
    let received = home.replicate(&[]).expect(0);
    assert_eq!(received.total("bytes_transferred"), 0);
    home.assert_same();
}

#[test]
fn without_modes_they_are_those_of_new_files_and_stay() {
    let args = ["--preserve=times,links,hardlinks,sparse"];
    let home = replica(&args);
    content_is_right(&home);
    for (path, entry) in tree::entries(&home.dst) {
        if entry.is_file() {
            assert_eq!(entry.mode() & 0o777, 0o644, "{path:?}");
        }
    }
    is_settled(&home, &args);
    set_mode(&home.dst("tiny"), 0o600);
    set_mode(&home.dst("dir"), 0o700);
    let _ = home.replicate(&args).expect(0);
    assert_eq!(fs::metadata(home.dst("tiny")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(home.dst("dir")).unwrap().mode() & 0o777,
        0o700,
        "a mode that is not kept is left"
    );
    let _ = home.replicate(&[]).expect(0);
    home.assert_same();
}

#[test]
fn without_links_they_are_left_out_and_counted() {
    let args = ["--preserve=mode,times,hardlinks,sparse"];
    let home = replica(&args);
    assert!(fs::symlink_metadata(home.dst("link")).is_err());
    let again = home.replicate(&args).expect(0);
    assert!(again.warnings().contains("2 symbolic links were left out"), "{again:?}");
    is_settled(&home, &args);
    // Those that came before stay.
    let _ = home.replicate(&[]).expect(0);
    home.assert_same();
    let _ = home.replicate(&args).expect(0);
    home.assert_same();
}

#[test]
fn without_hard_links_each_name_is_a_file_of_its_own() {
    let args = ["--preserve=mode,times,links,sparse"];
    let home = replica(&args);
    content_is_right(&home);
    for name in ["tiny", "large", "dir/tiny too", "dir/large too"] {
        let entry = fs::metadata(home.dst(name)).unwrap();
        assert_eq!((entry.nlink(), entry.mtime(), entry.mode() & 0o777), (1, THEN, 0o604), "{name}");
    }
    is_settled(&home, &args);
    // From one to the other and back.
    let received = home.replicate(&[]).expect(0);
    assert_eq!(received.total("bytes_transferred"), 0);
    home.assert_same();
    let received = home.replicate(&args).expect(0);
    assert_eq!(received.total("bytes_transferred"), 0);
    assert_eq!(fs::metadata(home.dst("dir/large too")).unwrap().nlink(), 1);
    content_is_right(&home);
    // What the link was made of has another ctime since: it is hashed once more.
    let _ = home.replicate(&args).expect(0);
    is_settled(&home, &args);
    // A change reaches all of them.
    fs::write(home.src("tiny"), "changed").unwrap();
    let _ = home.replicate(&args).expect(0);
    content_is_right(&home);
}

#[test]
fn without_holes_the_space_is_there() {
    let args = ["--preserve=mode,times,links,hardlinks"];
    let home = replica(&args);
    content_is_right(&home);
    let entry = fs::metadata(home.dst("sparse")).unwrap();
    assert!(entry.blocks() * 512 >= 4 * MIB, "it takes {} blocks", entry.blocks());
    is_settled(&home, &args);
}

#[test]
fn words_that_mean_nothing_are_refused() {
    let home = Home::new();
    file(&home.src("f"), "x");
    let sender = home.send();
    for bad in ["--preserve=", "--preserve=modes", "--preserve=mode,,times", "--preserve=none,mode"] {
        let outcome = home.receive(&sender.ticket, &[bad]).finish();
        println!("{bad}: {:?} {}", outcome.code, outcome.message());
        assert!(bad == "--preserve=none,mode" || outcome.code == Some(2), "{bad}");
    }
}
