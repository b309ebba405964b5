//! Hazard A12 from run to run: a job's chain never goes back. And deletions by snapshots that no honest sender makes at
//! will, with a sender that signs with the job's own key.

use super::{Home, problem_of, version};
use crate::home::let_live;
use crate::relay::{Fate, Relay};
use sealift_proto::digest::HashAlgorithm;
use sealift_tests::hostile::{DataSet, Forger, HostileSender, Job, Seen, Talk};
use sealift_tests::ports::own_address;
use sealift_tests::process::{Outcome, Sender};
use sealift_tests::tree::{self, assert_tidy, file};
use std::fs;
use std::time::{Duration, Instant};

/// A job in our hands, and how far its chain is.
struct Chain {
    job: Job,
    forger: Forger,
}

impl Chain {
    fn new() -> Self {
        let job = Job::random();
        let forger = Forger::new(&job, HashAlgorithm::Sha256);
        Self { job, forger }
    }

    /// A snapshot of these records in one segment, which the chain goes on from.
    fn snapshot<R: AsRef<[u8]>>(&mut self, records: &[R]) -> Vec<u8> {
        let mut draft = self.forger.draft(records);
        draft.flags = 1;
        let segment = self.forger.sign(&draft);
        self.forger.follow(&segment);
        segment
    }

    /// A sender of these segments that is honest about the content.
    fn serve(&self, segments: Vec<Vec<u8>>, set: &DataSet) -> HostileSender {
        let set = set.clone();
        let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
        HostileSender::start(&self.job, control, async move |talk: &mut Talk| talk.serve_honestly(&set).await)
    }

    /// One run into the home's destination.
    fn run(&self, home: &Home, segments: Vec<Vec<u8>>, set: &DataSet, args: &[&str]) -> Outcome {
        let sender = self.serve(segments, set);
        home.receive(sender.ticket(), args).patience(Duration::from_secs(60)).finish()
    }
}

/// Files of these names and contents.
fn set(files: &[(&str, &str)]) -> DataSet {
    let mut set = DataSet::default();
    for (name, content) in files {
        set.file(name, *content);
    }
    set
}

/// A destination that has accepted three segments of a chain: a snapshot, what follows it, and another snapshot.
struct Accepted {
    home: Home,
    chain: Chain,
    /// The first snapshot: two segments.
    old: (DataSet, Vec<Vec<u8>>),
    /// The chain as it was before the last segment.
    before: Forger,
    last: (DataSet, Vec<u8>),
}

impl Accepted {
    fn new() -> Self {
        let home = Home::new();
        let mut chain = Chain::new();
        let old = set(&[("a", "old a"), ("b", "old b"), ("gone", "gone")]);
        let records = old.records();
        let segments = vec![chain.snapshot(&records[..1]), chain.forger.segment(&records[1..])];
        let _ = chain.run(&home, segments.clone(), &old, &[]).expect(0);
        assert_eq!(fs::read(home.dst("a")).unwrap(), b"old a");
        let before = chain.forger.clone();
        let new = set(&[("a", "new a"), ("b", "old b")]);
        let last = chain.snapshot(&new.records());
        let received = chain.run(&home, vec![last.clone()], &new, &["--delete"]).expect(0);
        assert_eq!(received.total("bytes_transferred"), 5);
        assert_eq!(fs::read(home.dst("a")).unwrap(), b"new a");
        assert!(!home.dst("gone").exists());
        Self { home, chain, old: (old, segments), before, last: (new, last) }
    }

    /// Lets a receiver meet these segments, and checks that it raises this alarm and changes nothing.
    fn refused(&self, segments: Vec<Vec<u8>>, set: &DataSet, alarm: &str) {
        let before = [version(&self.home.dst("a")), version(&self.home.dst("b"))];
        let refused = self.chain.run(&self.home, segments, set, &["--delete"]).expect(1);
        let message = refused.message();
        assert!(message.contains("cannot be trusted") && message.contains(alarm), "{message}");
        assert_eq!([version(&self.home.dst("a")), version(&self.home.dst("b"))], before, "{alarm}");
        assert_eq!(fs::read(self.home.dst("a")).unwrap(), b"new a");
        assert!(!self.home.dst("gone").exists());
        assert_tidy(&self.home.dst);
        // And the right one still is.
        let last = vec![self.last.1.clone()];
        let again = self.chain.run(&self.home, last, &self.last.0, &["--delete"]).expect(0);
        assert_eq!(again.total("bytes_transferred"), 0);
    }
}

#[test]
fn a12_an_older_state_is_refused_as_a_rollback() {
    // The sender just stops there, as one whose state was restored, so that it is waited for: 20 s.
    let accepted = Accepted::new();
    let began = Instant::now();
    accepted.refused(accepted.old.1.clone(), &accepted.old.0, "rollback");
    println!("after {:?}", began.elapsed());
}

#[test]
fn a12_an_accepted_number_with_other_content_is_refused_as_a_fork() {
    let accepted = Accepted::new();
    let other = set(&[("a", "other"), ("b", "other")]);
    let mut draft = accepted.before.draft(&other.records());
    draft.flags = 1;
    let fork = accepted.before.sign(&draft);
    accepted.refused(vec![fork.clone()], &other, "fork");
    // Not at the end of what was there before, either.
    let mut segments = accepted.old.1.clone();
    segments.push(fork);
    accepted.refused(segments, &other, "fork");
}

#[test]
fn a12_an_older_epoch_is_refused_as_a_rollback_whatever_its_number() {
    let accepted = Accepted::new();
    let other = set(&[("a", "other")]);
    for sequence in [0, 2, 3, 1000] {
        let mut draft = accepted.chain.forger.draft(&other.records());
        (draft.flags, draft.epoch, draft.sequence, draft.previous) = (1, 0, sequence, [0; 32]);
        let older = accepted.chain.forger.sign(&draft);
        accepted.refused(vec![older], &other, "rollback");
    }
}

#[test]
fn a12_a_newer_snapshot_is_accepted_wherever_it_begins() {
    for gap in [0, 1, 1000] {
        let mut accepted = Accepted::new();
        let newer = set(&[("a", "newer a"), ("c", "c")]);
        let mut draft = accepted.chain.forger.draft(&newer.records());
        draft.flags = 1;
        draft.sequence += gap;
        if gap > 0 {
            // A sender that was killed doesn't know which number it used last.
            draft.previous = [0; 32];
        }
        let segment = accepted.chain.forger.sign(&draft);
        accepted.chain.forger.follow(&segment);
        let home = &accepted.home;
        let _ = accepted.chain.run(home, vec![segment], &newer, &["--delete"]).expect(0);
        assert_eq!(fs::read(home.dst("a")).unwrap(), b"newer a");
        assert!(home.dst("c").exists() && !home.dst("b").exists());
        // What was accepted last is old now.
        let stale = accepted.last.1.clone();
        let sender = accepted.chain.serve(vec![stale], &accepted.last.0);
        let receiver = home.receive(sender.ticket(), &[]).start();
        sender.wait_for("a control connection", |seen| matches!(seen, Seen::Credit(_)));
        drop(receiver);
        assert_eq!(fs::read(home.dst("a")).unwrap(), b"newer a");
    }
}

#[test]
fn a12_the_mark_is_kept_even_if_the_run_was_not_finished() {
    let mut accepted = Accepted::new();
    // A newer snapshot whose content never comes.
    let newer = set(&[("a", "newer a"), ("d", "never comes")]);
    let segment = accepted.chain.snapshot(&newer.records());
    let served = segment.clone();
    let mute = HostileSender::start(
        &accepted.chain.job,
        async move |talk: &mut Talk| talk.serve_manifest(std::slice::from_ref(&served)).await,
        async |talk: &mut Talk| {
            talk.welcome().await?;
            talk.stare().await
        },
    );
    let receiver = accepted.home.receive(mute.ticket(), &[]).start();
    mute.wait_for("a data connection", |seen| {
        matches!(seen, Seen::Hello(hello) if matches!(hello.channel, sealift_proto::wire::Channel::Data { .. }))
    });
    receiver.signal(rustix::process::Signal::INT);
    let _ = receiver.finish().expect(1);
    drop(mute);
    let home = &accepted.home;
    let _ = accepted.chain.run(home, vec![segment], &newer, &[]).expect(0);
    assert_eq!(fs::read(home.dst("d")).unwrap(), b"never comes");
}

#[test]
fn a_sender_that_begins_anew_for_ever_is_given_up() {
    // Each session gives a snapshot, and then another that begins anew.
    let home = Home::new();
    let mut chain = Chain::new();
    let files = set(&[("a", "x")]);
    let segments: Vec<_> = (0..3).map(|_| chain.snapshot(&files.open_records()[..1])).collect();
    let sender = chain.serve(segments, &files);
    // It waits for half a minute in all.
    let outcome = home.receive(sender.ticket(), &["--retry-for=5"]).finish();
    let anew = outcome.messages("note").filter(|note| note.contains("anew")).count();
    println!("began anew {anew} times: {}", outcome.message());
    assert!(anew < 200, "{anew} times");
}

/// Files of a first snapshot, then a second in which one is announced and taken back.
fn taken_back(reason: u8) -> (Home, Outcome) {
    use sealift_tests::hostile::forge::record;
    let home = Home::new();
    let mut chain = Chain::new();
    let first = set(&[("stays", "stays"), ("troubled", "first version")]);
    let segment = chain.snapshot(&first.records());
    let _ = chain.run(&home, vec![segment], &first, &[]).expect(0);
    let mut second = set(&[("stays", "stays"), ("troubled", "second version")]);
    second.record(record::withdrawn(1, b"troubled", reason));
    let mut records = second.open_records().to_vec();
    records.push(record::end(1));
    let segment = chain.snapshot(&records);
    let received = chain.run(&home, vec![segment], &second, &["--delete"]);
    (home, received)
}

#[test]
fn b12_a_file_that_kept_changing_at_the_source_is_not_taken_for_gone() {
    let (home, received) = taken_back(2);
    let received = received.expect(3);
    assert!(problem_of(&received, "troubled").contains("source"), "{received:?}");
    assert_eq!(fs::read(home.dst("troubled")).unwrap(), b"first version");
}

#[test]
fn b3_a_file_that_the_source_could_not_read_any_more_is_not_taken_for_gone() {
    let (home, received) = taken_back(4);
    let received = received.expect(3);
    assert!(problem_of(&received, "troubled").contains("read"), "{received:?}");
    assert_eq!(fs::read(home.dst("troubled")).unwrap(), b"first version");
}

#[test]
fn a_file_that_vanished_at_the_source_is_gone() {
    let (home, received) = taken_back(3);
    let _ = received.expect(0);
    assert!(!home.dst("troubled").exists());
}

#[test]
fn a_sender_that_is_started_anew_in_the_middle_is_followed() {
    let home = Home::new();
    tree::mixed(&home.src, 300, 5);
    tree::large_file(&home.src("large"), 40 << 20, 6);
    file(&home.src("gone soon"), "x");
    let port = own_address();
    let start = || {
        let args = ["--job=j".to_owned(), format!("--bind={port}")];
        let run = sealift_tests::process::Run::with(["send", "--json"])
            .args(args)
            .arg(&home.src)
            .state_dir(&home.state);
        Sender::of(run)
    };
    let first = start();
    let first_ticket = first.ticket.clone();
    let relay =
        Relay::start(port, |piece| if piece.total_down > 20 << 20 { Fate::FreezeAll } else { Fate::Pass });
    let mut receiver = home.receive(&first.ticket_via(relay.address()), &["--delete"]).start();
    assert_eq!(relay.next_fate().1, Fate::FreezeAll);
    let_live(&mut receiver, 9);
    first.process.kill();
    fs::remove_file(home.src("gone soon")).unwrap();
    // Whichever comes first in a directory, the numbers of the second sender are not those of the first.
    for name in 0..100 {
        file(&home.src(&format!("new {name}")), "new");
    }
    let second = start();
    assert_eq!(first_ticket, second.ticket, "a ticket outlives its sender");
    relay.cut_all();
    relay.thaw();
    let received = receiver.finish().expect(0);
    home.assert_same();
    assert!(received.total("bytes_transferred") < 70 << 20, "{received:?}");
    assert_eq!(received.warnings().matches("lost").count(), 1, "{received:?}");
}
