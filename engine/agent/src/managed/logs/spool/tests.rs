//! The spool, torn and overflowing.

use super::*;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

const SMALL: Limits = Limits { spool_bytes: 4096, segment_bytes: 512 };

fn record(text: &str) -> Record {
    Record { message: text.into(), ..Record::default() }
}

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs");
    (dir, path)
}

/// All that is left after a number, as a daemon takes it.
fn rest(spool: &mut Spool, after: u64) -> Vec<(u64, String)> {
    let (mut found, mut after) = (Vec::new(), after);
    while let Some(batch) = spool.read(after, 3, 1000).unwrap() {
        let (first, records) = (batch.first, batch.records());
        assert!(!records.is_empty() && records.len() <= 3 && first > after);
        found.extend((first..).zip(records.into_iter().map(|record| record.message)));
        after = found.last().unwrap().0;
    }
    found
}

fn numbers_of(found: &[(u64, String)]) -> Vec<u64> {
    found.iter().map(|(number, _)| *number).collect()
}

#[test]
fn c6_records_outlive_the_agent_until_the_daemon_has_them() {
    let (_dir, path) = dir();
    let mut spool = Spool::open_bounded(&path, SMALL, None).unwrap();
    let id = spool.id();
    for number in 1..=40 {
        spool.append(&[record(&format!("{number} {}", "x".repeat(60)))]).unwrap();
    }
    let mut spool = Spool::open_bounded(&path, SMALL, None).unwrap();
    assert_eq!((spool.id(), spool.newest()), (id, 40));
    let found = rest(&mut spool, 0);
    assert!(found.iter().all(|(number, text)| text.starts_with(&format!("{number} "))));
    assert_eq!(numbers_of(&found), (1..=40).collect::<Vec<_>>());
    let files = || std::fs::read_dir(&path).unwrap().count();
    let before = files();
    spool.acked(25).unwrap();
    assert!(files() < before, "what the daemon has is removed");
    assert_eq!(numbers_of(&rest(&mut spool, 25)), (26..=40).collect::<Vec<_>>());
    spool.acked(40).unwrap();
    assert_eq!(files(), 1);
    let mut spool = Spool::open_bounded(&path, SMALL, None).unwrap();
    spool.append(&[record("more")]).unwrap();
    assert_eq!(rest(&mut spool, 40), [(41, "more".into())], "numbers go on");
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_spool_torn_or_damaged_at_any_byte_gives_what_is_whole_and_uses_no_number_again() {
    let (_dir, path) = dir();
    let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
    for batch in [["1", "2"], ["3", "4"]] {
        spool.append(&batch.map(record)).unwrap();
    }
    let file = path_of(&path, 1);
    let whole = std::fs::read(&file).unwrap();
    for at in 0..whole.len() {
        for cut in [true, false] {
            for name in numbers(&path).unwrap() {
                std::fs::remove_file(path_of(&path, name)).unwrap();
            }
            let mut torn = whole.clone();
            if cut {
                torn.truncate(at)
            } else {
                torn[at] ^= 0x20
            }
            std::fs::write(&file, &torn).unwrap();
            let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
            // Between records nothing is to be seen of a cut; a record has 15 bytes.
            let is_whole = cut && [56, 71, 86, 101].contains(&at);
            assert_eq!(spool.was_damaged(), !is_whole, "{at} {cut}");
            let before = numbers_of(&rest(&mut spool, 0));
            assert!(before.len() <= 4 && before.iter().zip(1..).all(|(a, b)| *a == b), "{before:?}");
            spool.append(&[record("new")]).unwrap();
            let mut again = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
            let after = rest(&mut again, 0);
            let (last, text) = after.last().unwrap();
            assert_eq!(text, "new");
            let reaches = before.len() as u64;
            let is_new_spool = again.id() != spool.id() || reaches == 0;
            // Records that were damaged keep their numbers.
            assert!(*last > reaches && (is_new_spool || cut || *last > 4), "{at} {cut} {after:?}");
            assert!(after.iter().all(|(_, text)| !text.contains("dropped")) || !cut, "{after:?}");
        }
    }
}

#[test]
fn of_too_much_the_oldest_is_dropped_and_counted() {
    let (_dir, path) = dir();
    let mut spool = Spool::open_bounded(&path, SMALL, None).unwrap();
    let used = || {
        let sizes = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        sizes.sum::<u64>()
    };
    for number in 1..=200u64 {
        spool.append(&[record(&format!("{number} {}", "x".repeat(80)))]).unwrap();
        assert!(used() <= SMALL.spool_bytes, "{}", used());
    }
    for mut spool in [spool, Spool::open_bounded(&path, SMALL, None).unwrap()] {
        let found = rest(&mut spool, 0);
        let (number, text) = &found[0];
        assert_eq!(*text, format!("{number} log records before this one were dropped: the spool was full"));
        let left: Vec<_> = (*number..=200).collect();
        assert_eq!(numbers_of(&found), left, "all that is missing is counted, and nothing else");
        // Some of what was dropped had come to the daemon.
        let found = rest(&mut spool, 100);
        assert!(found[0].1.starts_with(&format!("{} ", number - 100)), "{}", found[0].1);
    }
}

#[test]
fn a_count_that_was_told_is_told_once() {
    let (_dir, path) = dir();
    let mut spool = Spool::open_bounded(&path, SMALL, None).unwrap();
    let fill = |spool: &mut Spool| {
        for _ in 0..100 {
            spool.append(&[record(&"x".repeat(80))]).unwrap();
        }
    };
    fill(&mut spool);
    let told = spool.read(0, 9, 9999).unwrap().unwrap();
    spool.acked(told.first).unwrap();
    assert!(rest(&mut spool, told.first).iter().all(|(_, text)| !text.contains("dropped")));
    // The daemon's database is lost: that is no reason to call dropped what was delivered.
    assert!(rest(&mut spool, 0).iter().all(|(_, text)| !text.contains("dropped")));
    fill(&mut spool);
    let again = spool.read(told.first, 9, 9999).unwrap().unwrap();
    let expected = again.first - told.first;
    assert!(again.clone().records()[0].message.starts_with(&format!("{expected} ")), "{again:?}");
}

#[test]
fn batches_are_bounded_and_of_one_segment() {
    let (_dir, path) = dir();
    let mut spool = Spool::open_bounded(&path, SMALL, None).unwrap();
    spool.append(&vec![record(&"x".repeat(50)); 20]).unwrap();
    spool.append(&vec![record("y"); 20]).unwrap();
    let all = spool.read(0, 1000, 1 << 20).unwrap().unwrap();
    assert_eq!((all.first, all.len()), (1, 20));
    let few = spool.read(0, 1000, 120).unwrap().unwrap();
    assert_eq!(few.len(), 2);
    let one = spool.read(0, 1000, 1).unwrap().unwrap();
    assert_eq!(one.len(), 1, "one record is always small enough");
    assert_eq!(spool.read(40, 1000, 1000).unwrap(), None);
}

#[test]
fn a_daemon_that_has_more_than_was_given_is_believed() {
    let (_dir, path) = dir();
    let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
    spool.append(&[record("a")]).unwrap();
    spool.acked(100).unwrap();
    spool.append(&[record("b")]).unwrap();
    for mut spool in [spool, Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap()] {
        assert_eq!(rest(&mut spool, 100), [(101, "b".into())]);
    }
}

#[test]
fn what_is_damaged_while_the_agent_runs_does_not_hold_up_the_rest() {
    let (_dir, path) = dir();
    let mut spool = Spool::open_bounded(&path, SMALL, None).unwrap();
    for _ in 0..30 {
        spool.append(&[record(&"x".repeat(80))]).unwrap();
    }
    let file = path_of(&path, 1);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[80] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(spool.read(0, 100, 10_000).is_err());
    let found = rest(&mut spool, 0);
    assert!(found[0].1.contains("dropped"), "{found:?}");
    let left: BTreeSet<_> = numbers_of(&found).into_iter().collect();
    assert_eq!(left.last(), Some(&30));
}

fn kek(file: &str) -> (LogKek, sealift_envelope::PrivateKek) {
    let private = sealift_envelope::PrivateKek::from_pem(file, None).unwrap();
    let public = private.public();
    let said = sealift_api::agent::Kek {
        name: "logs".into(),
        version: 1,
        fingerprint: public.fingerprint().0.to_vec(),
        public_pem: public.to_pem(),
    };
    (LogKek::read(&said).unwrap(), private)
}

pub(in crate::managed::logs) fn kek_a() -> (LogKek, sealift_envelope::PrivateKek) {
    kek(include_str!("../../../../../../control/envelope/tests/keys/a.pem"))
}

fn kek_b() -> (LogKek, sealift_envelope::PrivateKek) {
    kek(include_str!("../../../../../../control/envelope/tests/keys/b.pem"))
}

/// As who has the private half reads it.
fn opened(batch: Batch, spool: [u8; 16], private: &sealift_envelope::PrivateKek) -> Vec<String> {
    use sealift_envelope::{Envelope, OwnerId, RecordSealer};
    let Content::Sealed { envelope, records } = batch.content else { panic!("{batch:?}") };
    let key = Envelope::decode(&envelope).unwrap().open_for(OwnerId(spool), private).unwrap();
    let sealer = RecordSealer::new(&key, &spool);
    let open = |(number, record): (u64, Vec<u8>)| {
        Record::decode(&sealer.open(number, &record).unwrap()[..]).unwrap().message
    };
    (batch.first..).zip(records).map(open).collect()
}

#[test]
fn what_is_sealed_is_nowhere_on_the_disk_and_outlives_the_agent() {
    let (_dir, path) = dir();
    let (kek, private) = kek_a();
    let canary = "a canary that nobody else may see";
    let mut spool = Spool::open_bounded(&path, SMALL, Some(kek.clone())).unwrap();
    let id = spool.id();
    spool.append(&[record(canary), record("2")]).unwrap();
    // The key of what another agent left is gone; it is passed on as it is.
    let mut spool = Spool::open_bounded(&path, SMALL, Some(kek)).unwrap();
    assert!(!spool.was_damaged());
    spool.append(&[record("3")]).unwrap();
    for name in numbers(&path).unwrap() {
        let content = std::fs::read(path_of(&path, name)).unwrap();
        assert!(!content.windows(8).any(|part| part == &canary.as_bytes()[..8]));
    }
    let first = spool.read(0, 10, 10_000).unwrap().unwrap();
    assert_eq!((first.first, opened(first.clone(), id, &private)), (1, vec![canary.to_owned(), "2".into()]));
    let second = spool.read(2, 10, 10_000).unwrap().unwrap();
    assert_eq!((second.first, opened(second.clone(), id, &private)), (3, vec!["3".to_owned()]));
    spool.acked(3).unwrap();
    assert_eq!(spool.read(3, 10, 10_000).unwrap(), None);
}

#[test]
fn another_kek_begins_another_segment_and_no_number_is_used_twice() {
    let (_dir, path) = dir();
    let ((a, private_a), (b, private_b)) = (kek_a(), kek_b());
    let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
    let id = spool.id();
    spool.append(&[record("plain")]).unwrap();
    spool.seal_to(Some(a.clone()));
    spool.append(&[record("to a")]).unwrap();
    spool.append(&[record("to a, too")]).unwrap();
    assert_eq!(numbers(&path).unwrap(), [1, 2], "the same segment");
    spool.seal_to(Some(a));
    spool.seal_to(Some(b));
    spool.append(&[record("to b")]).unwrap();
    spool.seal_to(None);
    spool.append(&[record("plain again")]).unwrap();
    assert_eq!(numbers(&path).unwrap(), [1, 2, 4, 5]);
    let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
    let mut read = |after| spool.read(after, 10, 10_000).unwrap().unwrap();
    assert_eq!(read(0).records()[0].message, "plain");
    assert_eq!(opened(read(1), id, &private_a), ["to a", "to a, too"]);
    assert_eq!(opened(read(3), id, &private_b), ["to b"]);
    assert_eq!(read(4).records()[0].message, "plain again");
}

#[test]
fn a_sealed_spool_torn_at_any_byte_gives_what_is_whole_and_uses_no_number_again() {
    let (_dir, path) = dir();
    let (kek, private) = kek_a();
    let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, Some(kek.clone())).unwrap();
    let id = spool.id();
    for batch in [["1", "2"], ["3", "4"]] {
        spool.append(&batch.map(record)).unwrap();
    }
    let file = path_of(&path, 1);
    let whole = std::fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(5) {
        for name in numbers(&path).unwrap() {
            std::fs::remove_file(path_of(&path, name)).unwrap();
        }
        std::fs::write(&file, &whole[..at]).unwrap();
        let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, Some(kek.clone())).unwrap();
        spool.append(&[record("new")]).unwrap();
        let (mut texts, mut after) = (Vec::new(), 0);
        while let Some(batch) = spool.read(after, 10, 10_000).unwrap() {
            after = batch.first + batch.len() as u64 - 1;
            match &batch.content {
                // Numbers that a torn end may have used, of which nothing is known any more.
                Content::Plain(records) => assert!(records[0].message.contains("dropped"), "{at}"),
                Content::Sealed { .. } => texts.extend(opened(batch, spool.id(), &private)),
            }
        }
        assert_eq!(texts.pop().as_deref(), Some("new"), "{at}");
        assert!(
            texts.iter().zip(["1", "2", "3", "4"]).all(|(text, number)| text == number),
            "{at} {texts:?}"
        );
        assert!(spool.id() != id || after > texts.len() as u64);
    }
}
