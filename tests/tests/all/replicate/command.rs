//! The command line as scripts see it: how each side ends, with which code, and what it says.

use super::Place;
use rustix::process::Signal;
use sealift_tests::ports::own_address;
use sealift_tests::process::{Outcome, Process, Receive, Run, Sender};
use sealift_tests::tree::{self, SpecialModes, assert_same, file, is_root, mixed, set_mode};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

#[test]
fn once_ends_after_the_first_receiver() {
    let place = Place::new();
    mixed(&place.src, 50, 20);
    let sender = Sender::start([&place.src], &["--once"]);
    let received = sender.receive(&place.dst, &[]).expect(0);
    let sent = sender.process.finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    for name in ["files", "bytes", "bytes_transferred", "failed"] {
        assert_eq!(sent.total(name), received.total(name), "{name}");
    }
}

#[test]
fn without_once_it_goes_on_until_it_is_told_to_stop() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = Place::new();
        mixed(&place.src, 50, 21);
        let sender = Sender::start([&place.src], &[]);
        for dest in ["a", "b"] {
            let dest = place.dir.path().join(dest);
            let _ = sender.receive(&dest, &[]).expect(0);
            assert_same(&place.src, &dest, SpecialModes::Dropped);
        }
        sender.process.signal(signal);
        let sent = sender.process.finish().expect(0);
        assert_eq!(sent.named("connected").count(), 2);
        assert_eq!(sent.total("failed"), 0);
    }
}

#[test]
fn json_is_one_object_a_line_and_done_comes_last() {
    let place = Place::new();
    mixed(&place.src, 50, 22);
    let (sent, received) = place.replicate(&[], &[]);
    for outcome in [&sent, &received] {
        let done = outcome.done();
        for name in ["files", "bytes", "bytes_transferred"] {
            assert!(done[name].as_u64().is_some_and(|number| number > 0), "{name}: {done}");
        }
        assert!(done["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{done}");
        for line in outcome.stdout.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert!(event["event"].is_string(), "{line}");
        }
        assert_eq!(outcome.stderr, "", "all that is to be said is an event");
    }
    // Of a failure too.
    let failed = Run::send([place.dir.path().join("missing")]).finish().expect(2);
    let last = failed.events.last().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&"error".into(), &2.into()));
    assert!(failed.message().contains("missing"), "the path is named: {failed:?}");
}

#[test]
fn people_get_text() {
    let place = Place::new();
    file(&place.src.join("f"), "x");
    let ticket_file = place.dir.path().join("ticket");
    let mut send: Vec<PathBuf> =
        ["send", "--bind", "127.0.0.1:0", "--once", "--ticket-file"].map(PathBuf::from).into();
    send.extend([ticket_file.clone(), place.src.clone()]);
    let sender = Run::with(send).start();
    // There are no events to hear: the file is there when the listener is, and a receiver tries again until then.
    let ticket = loop {
        match fs::read_to_string(&ticket_file) {
            Ok(ticket) => break ticket,
            Err(_) => std::thread::yield_now(),
        }
    };
    let receive = ["receive".as_ref(), ticket.trim_end().as_ref(), place.dst.as_os_str()];
    let received = Run::with(receive).finish().expect(0);
    let sent = sender.finish().expect(0);
    for outcome in [&sent, &received] {
        assert_eq!(outcome.stdout, "");
        assert!(outcome.stderr.contains("Done: 1 files"), "{outcome:?}");
    }
}

#[test]
fn two_paths_of_one_name_are_refused() {
    let place = Place::new();
    file(&place.src.join("a/same"), "1");
    file(&place.src.join("b/same"), "2");
    let refused = Run::send([place.src.join("a/same"), place.src.join("b/same")]).finish().expect(2);
    assert!(refused.message().contains("same"), "{refused:?}");
    assert_eq!(refused.named("ticket").count(), 0);
}

#[test]
fn words_that_make_no_sense_are_usage() {
    let place = Place::new();
    let receive = ["receive", "--connections=0", "x", "y"];
    for words in [&["nonsense"] as &[&str], &["send"], &["receive"], &receive, &["send", "--hash=md5", "."]] {
        let refused = Run::with(words).finish().expect(2);
        assert!(!refused.stderr.is_empty(), "{words:?}");
    }
    let refused = Run::send([&place.src]).io("magic").finish().expect(2);
    assert!(refused.message().contains("magic"), "{refused:?}");
    let _ = Run::with(["--help"]).finish().expect(0);
    assert!(Run::with(["--version"]).finish().expect(0).stdout.starts_with("sealift "));
}

#[test]
fn another_key_is_not_authorized() {
    let place = Place::new();
    file(&place.src.join("f"), "secret");
    let (one, other) = (Sender::start([&place.src], &[]), Sender::start([&place.src], &[]));
    let refused = Receive::run(one.ticket_via(other.address()), &place.dst, &["--retry-for=5"]).expect(4);
    assert!(refused.message().contains("not authorized"), "{refused:?}");
    tree::assert_tidy(&place.dst);
    assert!(!place.dst.join("f").exists());
    // And nobody noticed.
    let sent = other.stop().expect(0);
    assert_eq!(sent.named("connected").count(), 0);
}

#[test]
fn where_nobody_listens_is_unreachable() {
    let place = Place::new();
    let sender = Sender::start([&place.src], &[]);
    let address = own_address();
    let failed = Receive::run(sender.ticket_via(address), &place.dst, &["--retry-for=1"]).expect(5);
    assert!(failed.message().contains("unreachable"), "{failed:?}");
    tree::assert_tidy(&place.dst);
}

#[test]
fn a_port_that_is_taken_is_said() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("--bind={}", taken.local_addr().unwrap());
    let words = ["send".as_ref(), "--json".as_ref(), bind.as_ref(), place.src.as_os_str()];
    let failed = Run::with(words).finish().expect(1);
    assert!(failed.message().contains("--bind"), "{failed:?}");
}

/// Ends a sender that had problems, and checks that both sides named them.
fn partly(sender: Process, received: &Outcome, problems: &[&str]) {
    let sent = sender.finish().expect(3);
    for outcome in [&sent, received] {
        let mut told = outcome.problems();
        told.sort_unstable();
        assert_eq!(told, problems, "{outcome:?}");
    }
    assert_eq!(received.total("failed"), problems.len() as u64);
}

#[test]
fn fifos_and_sockets_are_named_and_all_else_is_sent() {
    let place = Place::new();
    mixed(&place.src, 50, 23);
    tree::fifo(&place.src.join("fifo"));
    let socket = UnixListener::bind(place.src.join("socket")).unwrap();
    let sender = Sender::start([&place.src], &["--once"]);
    let received = sender.receive(&place.dst, &[]).expect(3);
    partly(sender.process, &received, &["fifo", "socket"]);
    drop(socket);
    let mtime = fs::symlink_metadata(&place.dst).unwrap().modified().unwrap();
    assert_eq!(mtime, fs::symlink_metadata(&place.src).unwrap().modified().unwrap());
    for name in ["fifo", "socket"] {
        fs::remove_file(place.src.join(name)).unwrap();
    }
    fs::File::open(&place.src).unwrap().set_modified(mtime).unwrap();
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
}

#[test]
fn what_cannot_be_read_is_named_and_all_else_is_sent() {
    let place = Place::new();
    mixed(&place.src, 50, 24);
    for (name, content) in [("locked", "x".to_owned()), ("locked large", "x".repeat(2_000_000))] {
        file(&place.src.join(name), content);
        set_mode(&place.src.join(name), 0);
    }
    file(&place.src.join("locked dir/in it"), "x");
    set_mode(&place.src.join("locked dir"), 0);
    let mut send = Run::send([&place.src]).arg("--once");
    if is_root() {
        let Some(other) = OtherUser::new(&place) else { return };
        send = other.run(send);
    }
    let sender = Sender::of(send);
    let received = sender.receive(&place.dst, &[]).expect(3);
    partly(sender.process, &received, &["locked", "locked dir", "locked large"]);
    set_mode(&place.src.join("locked dir"), 0o755);
    assert!(place.dst.join("file 1").exists() || place.dst.read_dir().unwrap().count() > 10);
}

/// Runs the program as a user without rights. For tests that run as root.
pub(crate) struct OtherUser {
    program: PathBuf,
    state: PathBuf,
}

impl OtherUser {
    /// `None`, with a word why, where that cannot be done.
    pub(crate) fn new(place: &Place) -> Option<Self> {
        let works = std::process::Command::new("setpriv").args(UNPRIVILEGED).arg("true").status();
        if !works.is_ok_and(|status| status.success()) {
            println!("skipped: setpriv cannot change the user here");
            return None;
        }
        // A copy: where this workspace is, another user may not look.
        let program = place.dir.path().join("program");
        fs::copy(sealift_tests::process::program(), &program).unwrap();
        set_mode(place.dir.path(), 0o755);
        // What another user keeps is none of its business.
        let state = place.dir.path().join("state");
        Self::own_dir(&state);
        Some(Self { program, state })
    }

    pub(crate) fn run(&self, run: Run) -> Run {
        self.run_after(run, &[])
    }

    /// Through another program, while that still has all rights.
    pub(crate) fn run_after(&self, run: Run, first: &[&str]) -> Run {
        let setpriv = std::iter::once("setpriv").chain(UNPRIVILEGED);
        let run = run.state_dir(&self.state);
        run.program(&self.program).wrapped(first.iter().copied().chain(setpriv))
    }

    /// Makes a directory that belongs to that user.
    pub(crate) fn own_dir(path: &std::path::Path) {
        fs::create_dir_all(path).unwrap();
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

pub(crate) const NOBODY: u32 = 65_534;
const UNPRIVILEGED: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

#[test]
fn an_unprivileged_user_replicates_what_it_may_read() {
    if !is_root() {
        println!("skipped: every other test is this one");
        return;
    }
    let place = Place::new();
    mixed(&place.src, 200, 25);
    for mode in [0o444, 0o4755, 0o555] {
        file(&place.src.join(format!("{mode:o}")), "x".repeat(1_500_000));
        set_mode(&place.src.join(format!("{mode:o}")), mode);
    }
    file(&place.src.join("read only/f"), "x");
    set_mode(&place.src.join("read only"), 0o555);
    let Some(other) = OtherUser::new(&place) else { return };
    OtherUser::own_dir(&place.dst);
    let sender = Sender::start([&place.src], &[]);
    for _ in 0..2 {
        let received = other.run(Run::receive(&sender.ticket, &place.dst)).finish().expect(0);
        assert!(received.problems().is_empty());
        let told = tree::differences(&place.src, &place.dst, SpecialModes::Dropped);
        assert!(told.is_empty(), "{told:?}");
    }
    // What changes in a directory that allows no writing still arrives.
    file(&place.src.join("read only/f"), "changed");
    file(&place.src.join("read only/g"), "new");
    let sender = Sender::start([&place.src], &[]);
    let _ = other.run(Run::receive(&sender.ticket, &place.dst)).finish().expect(0);
    let told = tree::differences(&place.src, &place.dst, SpecialModes::Dropped);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_sender_that_stops_in_the_middle_is_unreachable() {
    let place = Place::new();
    tree::large_file(&place.src.join("large"), 100 << 20, 26);
    let mut sender = Sender::start([&place.src], &["--bwlimit=5M"]);
    let receiver = Run::receive(&sender.ticket, &place.dst).arg("--fsync=no").start();
    let _ = sender.process.wait_for("connected");
    let _ = sender.stop().expect(0);
    let failed = receiver.finish().expect(5);
    assert!(failed.message().contains("stopped"), "{failed:?}");
    assert!(!place.dst.join("large").exists());
}
