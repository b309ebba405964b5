//! Hazard B11: an index that is lost or damaged is made anew, and what it knew is known again.

use super::{Home, fill, number, pairs, words};
use sealift_tests::tree::{self, Random, file, flip_unseen};
use std::fs;
use std::os::unix::fs::symlink;

/// What becomes of an index.
fn damages(sound: &[u8]) -> Vec<(String, Option<Vec<u8>>)> {
    let mut random = Random::new(1);
    let mut cases = vec![
        ("deleted".to_owned(), None),
        ("empty".to_owned(), Some(Vec::new())),
        ("garbage".to_owned(), Some(random.bytes(100_000))),
        ("cut off".to_owned(), Some(sound[..sound.len() / 2].to_vec())),
    ];
    for round in 0..4 {
        let mut flipped = sound.to_vec();
        // Some in every page that is in use.
        for page in flipped.chunks_mut(4096).skip(round % 2).step_by(2) {
            let at = usize::try_from(random.below(page.len() as u64)).unwrap();
            page[at] ^= 1 << random.below(8);
        }
        cases.push((format!("bits flipped, {round}"), Some(flipped)));
    }
    cases
}

#[test]
fn b11_a_lost_index_is_made_anew_and_knows_what_was_ours() {
    let home = Home::new();
    fill(&home.src);
    let _ = home.sync(&[]).expect(0);
    file(&home.dst("not ours"), "stays");
    for (case, damaged) in damages(&fs::read(home.index()).unwrap()) {
        match damaged {
            Some(content) => fs::write(home.index(), content).unwrap(),
            None => fs::remove_file(home.index()).unwrap(),
        }
        let again = home.sync(&[]).expect(0);
        assert_eq!(again.total("bytes_transferred"), 0, "{case}");
        assert_eq!(words(&home.verify(&[]).finish().expect(0)), pairs(&[]), "{case}");
    }
    // Of each kind of entry one is gone at the source, in the very run that finds the index lost.
    for (round, (case, damaged)) in damages(&fs::read(home.index()).unwrap()).into_iter().enumerate() {
        let name = |what: &str| format!("{what} {round}");
        file(&home.src(&name("dir")).join("in it"), "x");
        tree::large_file(&home.src(&name("large")), 2_000_000, 5);
        fs::hard_link(home.src(&name("large")), home.src(&name("second name"))).unwrap();
        symlink("x", home.src(&name("link"))).unwrap();
        let _ = home.sync(&[]).expect(0);
        match damaged {
            Some(content) => fs::write(home.index(), content).unwrap(),
            None => fs::remove_file(home.index()).unwrap(),
        }
        fs::remove_dir_all(home.src(&name("dir"))).unwrap();
        for what in ["large", "second name", "link"] {
            fs::remove_file(home.src(&name(what))).unwrap();
        }
        let deleted = home.sync(&["--delete"]).expect(0);
        assert_eq!(deleted.total("bytes_transferred"), 0, "{case}");
        for what in ["dir", "large", "second name", "link"] {
            assert!(fs::symlink_metadata(home.dst(&name(what))).is_err(), "{case}: {what} is gone");
        }
        assert_eq!(fs::read_to_string(home.dst("not ours")).unwrap(), "stays", "{case}");
    }
}

#[test]
fn b11_an_index_whose_rebuilding_was_interrupted_is_rebuilt_again() {
    let home = Home::new();
    tree::small_files(&home.src, 3000, 3);
    tree::large_file(&home.src("z large"), 100 << 20, 4);
    let sender = home.send_job("j");
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    for _ in 0..3 {
        fs::remove_file(home.index()).unwrap();
        let mut receiver = home.receive(&sender.ticket, &[]).start();
        let _ = receiver.wait_until("it is made anew", |event| {
            event["message"].as_str().is_some_and(|message| message.contains("is made anew"))
        });
        receiver.kill();
    }
    fs::remove_file(home.src("z large")).unwrap();
    fs::remove_file(home.src("0/000000")).unwrap();
    let _ = sender.stop().expect(0);
    let deleted = home.sync(&["--delete"]).expect(0);
    assert_eq!(deleted.total("bytes_transferred"), 0);
    assert!(!home.dst("z large").exists() && !home.dst("0/000000").exists());
    home.assert_clean();
    home.assert_same();
}

#[test]
fn b11_a_first_receive_makes_nothing_anew() {
    let home = Home::new();
    file(&home.src("f"), "x");
    let first = home.sync(&[]).expect(0);
    let second = home.sync(&[]).expect(0);
    for outcome in [first, second] {
        let anew = |event: &&serde_json::Value| event["message"].as_str().unwrap().contains("made anew");
        assert_eq!(outcome.named("note").filter(anew).count(), 0);
        assert_eq!(outcome.warnings(), "");
    }
}

#[test]
fn b11_rebuild_gives_every_entry_that_is_right_a_row_and_names_the_others() {
    let home = Home::new();
    fill(&home.src);
    let received = home.sync(&[]).expect(0);
    let entries = tree::entries(&home.src).len() as u64 - 1;
    let rebuilt = home.rebuild().expect(0);
    assert_eq!(
        (number(&rebuilt, "rebuilt", "entries"), number(&rebuilt, "rebuilt", "left_out")),
        (entries, 0)
    );
    assert_eq!(number(&rebuilt, "rebuilt", "files"), received.total("files"));
    assert_eq!(rebuilt.warnings(), "");
    assert!(
        home.replica_state().join("index.redb.old").exists()
            && !home.replica_state().join("index.redb.rebuilt").exists()
    );
    home.assert_clean();
    // Without an index nothing vouches for the manifest, and that is said.
    for name in ["index.redb", "manifest"] {
        fs::remove_file(home.replica_state().join(name)).unwrap();
    }
    flip_unseen(&home.dst("large"), 8);
    fs::remove_file(home.dst("one byte")).unwrap();
    let rebuilt = home.rebuild().expect(3);
    assert_eq!(words(&rebuilt), pairs(&[("large", "corrupt"), ("one byte", "missing")]));
    assert_eq!(
        (number(&rebuilt, "rebuilt", "entries"), number(&rebuilt, "rebuilt", "left_out")),
        (entries - 2, 2)
    );
    assert!(rebuilt.warnings().contains("nothing vouches"), "{rebuilt:#?}");
    // What has no row is hashed, and no more than what is wrong is fetched.
    fs::remove_file(home.src("larger")).unwrap();
    let healed = home.sync(&["--delete"]).expect(0);
    assert_eq!(healed.total("bytes_transferred"), 32 * 1024 + 1);
    home.assert_clean();
    home.assert_same();
}
