//! Whose word a manifest is, whether it is whole, and whether it is the newest (hazard A12, at rest).

use super::{Home, MIB, damage, fill, verified};
use crate::home::let_live;
use crate::relay::{Fate, Relay};
use sealift_tests::process::Run;
use sealift_tests::tree::{self, Random, file, flip_unseen};
use std::fs;

/// Verifies with another host's state: nothing is known of any job.
fn elsewhere(home: &Home, args: &[&str]) -> sealift_tests::process::Outcome {
    home.verify(args).state_dir(home.dir.path().join("other host")).finish()
}

#[test]
fn a_manifest_is_vouched_for_by_the_index_or_a_ticket_or_said_not_to_be() {
    let home = Home::new();
    fill(&home.src);
    let sender = home.send_job("j");
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let other_job = home.send();
    home.assert_clean();
    let by_itself = elsewhere(&home, &[]).expect(0);
    assert!(by_itself.warnings().contains("nothing vouches for the manifest"), "{by_itself:#?}");
    let by_ticket = elsewhere(&home, &["--ticket", &sender.ticket]).expect(0);
    assert_eq!(by_ticket.warnings(), "");
    for refused in [
        elsewhere(&home, &["--ticket", &other_job.ticket]),
        home.verify(&["--ticket", &other_job.ticket]).finish(),
    ] {
        let refused = refused.expect(1);
        assert!(refused.message().contains("not of the ticket's job"), "{refused:#?}");
    }
    // What somebody else made and signed, in the place of what this host received.
    let forged = home.dir.path().join("forged");
    let _ = other_job.receive(&forged, &[]).expect(0);
    fs::copy(forged.join(".sealift/manifest"), home.dst(".sealift/manifest")).unwrap();
    let refused = home.verify(&[]).finish().expect(1);
    assert!(refused.message().contains("never received from"), "{refused:#?}");
    assert_eq!(refused.named("verified").count(), 0);
    assert!(home.rebuild().expect(1).message().contains("never received from"));
}

#[test]
fn b15_a_manifest_that_rots_is_found_and_the_next_receive_puts_a_whole_one_there() {
    let home = Home::new();
    fill(&home.src);
    let sender = home.send_job("j");
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    let manifest = home.dst(".sealift/manifest");
    let whole = fs::read(&manifest).unwrap();
    let mut random = Random::new(1);
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("cut off in a segment".into(), whole[..whole.len() - 10].to_vec()),
        ("without its segments".into(), whole[..8 + 4 + 32].to_vec()),
        ("garbage".into(), random.bytes(1000)),
    ];
    for _ in 0..20 {
        let mut flipped = whole.clone();
        let at = usize::try_from(random.below(flipped.len() as u64)).unwrap();
        flipped[at] ^= 1 << random.below(8);
        cases.push((format!("a bit of byte {at} flipped"), flipped));
    }
    for at in [0, 5, 8, 12, 20, 43, 44, 48] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        cases.push((format!("a bit of byte {at} flipped"), flipped));
    }
    for (case, content) in cases {
        fs::write(&manifest, content).unwrap();
        let refused = home.verify(&[]).finish().expect(1);
        let message = refused.message();
        let is_clear = [
            "damaged",
            "is not a manifest",
            "version that this program",
            "rolled back",
            "never received from",
        ];
        assert!(is_clear.iter().any(|word| message.contains(word)), "{case}: {message}");
        assert!(message.contains("manifest") && refused.named("verified").count() == 0, "{case}: {message}");
    }
    fs::remove_file(&manifest).unwrap();
    assert!(home.verify(&[]).finish().expect(1).message().contains("no manifest"));
    assert_eq!(home.receive(&sender.ticket, &[]).finish().expect(0).total("bytes_transferred"), 0);
    home.assert_clean();
}

#[test]
fn a12_an_old_state_that_is_put_back_is_a_rollback() {
    let home = Home::new();
    fill(&home.src);
    let _ = home.sync(&[]).expect(0);
    let backup = home.dir.path().join("backup");
    tree::copy(&home.dst, &backup);
    tree::large_file(&home.src("large"), 5 * MIB, 99);
    let _ = home.sync(&[]).expect(0);
    home.assert_clean();
    fs::remove_dir_all(&home.dst).unwrap();
    tree::copy(&backup, &home.dst);
    for refused in [home.verify(&[]).finish().expect(1), home.rebuild().expect(1)] {
        assert!(refused.message().contains("rolled back"), "{refused:#?}");
    }
    // Where nothing is remembered, it cannot be told.
    assert_eq!(verified(&elsewhere(&home, &[]).expect(0), "damaged"), 0);
    let _ = home.sync(&["--on-conflict=overwrite"]).expect(0);
    home.assert_clean();
    home.assert_same();
}

#[test]
fn after_an_interrupted_receive_what_is_newer_is_compared_with_the_index() {
    let home = Home::new();
    fill(&home.src);
    file(&home.src("a new version"), Random::new(1).bytes(40_000));
    file(&home.src("a new large one"), Random::new(2).bytes(3_000_000));
    // Looking through its old version takes longer than through all others, so that its new blocks are asked for last.
    tree::large_file(&home.src("z last"), 300 * MIB, 3);
    let _ = home.sync(&[]).expect(0);
    file(&home.src("a new version"), Random::new(4).bytes(40_000));
    file(&home.src("a new large one"), Random::new(5).bytes(3_100_000));
    tree::large_file(&home.src("z last"), 300 * MIB, 6);
    let sender = home.send_job("j");
    let relay = Relay::start(sender.address(), |piece| {
        if piece.total_down > 100 * MIB { Fate::FreezeAll } else { Fate::Pass }
    });
    let run = Run::receive(sender.ticket_via(relay.address()), &home.dst);
    let mut receiver = run.state_dir(&home.state).start();
    let is_new = |name: &str| fs::read(home.dst(name)).unwrap() == fs::read(home.src(name)).unwrap();
    let _ =
        receiver.wait_until("both are in place", |_| is_new("a new version") && is_new("a new large one"));
    // The index is told right after; and of what is staged once a second. What is staged is synced before.
    let_live(&mut receiver, 40);
    receiver.kill();
    let outcome = home.verify(&[]).finish().expect(0);
    assert_eq!(verified(&outcome, "damaged"), 0);
    let notes: Vec<&str> = outcome.messages("note").collect();
    assert!(notes.iter().any(|note| note.starts_with("More was heard of the source")), "{notes:?}");
    assert!(
        notes.iter().any(|note| note.starts_with("2 files are not of the manifest's version")),
        "{notes:?}"
    );
    // Such a file rots: which block cannot be told, and all that is right of it is kept all the same.
    flip_unseen(&home.dst("a new large one"), 8_000_000);
    let found = home.verify(&[]).finish().expect(3);
    let told = damage(&found);
    assert_eq!(told.len(), 1, "{told:#?}");
    let told = &told["a new large one"];
    assert_eq!((&*told.what, told.blocks.len(), told.bytes), ("corrupt", 0, 3_100_000));
    let repaired = home.repair(&sender, &[]).expect(0);
    assert_eq!(super::number(&repaired, "done", "bytes_transferred"), 32 * super::KIB);
    let _ = home.receive(&sender.ticket, &[]).finish().expect(0);
    home.assert_clean();
    home.assert_same();
}
