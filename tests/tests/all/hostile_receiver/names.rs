//! What a source may hold that is no file, and names that drive terminals, told by a real sender (A6, A20).

use super::peer;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use sealift_tests::hostile::HostileReceiver;
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::process::{Run, Sender};
use sealift_tests::tree;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

#[test]
fn a6_fifos_and_sockets_of_a_source_are_reported_and_not_sent() {
    let dir = tempfile::tempdir().expect("there is room");
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("there is room");
    fs::write(source.join("file"), "content").expect("there is room");
    tree::fifo(&source.join("fifo"));
    let _socket = UnixListener::bind(source.join("socket")).expect("a socket");
    let sender = Sender::start([&source], &[]);
    let dest = dir.path().join("dest");
    let received = sender.receive(&dest, &[]).expect(3);
    assert_plain(&received);
    for outcome in [&received, &sender.stop().expect(3)] {
        let mut problems = outcome.problems();
        problems.sort_unstable();
        assert_eq!(problems, ["fifo", "socket"], "{outcome:#?}");
    }
    let there: Vec<_> = sealift_tests::tree::entries(&dest).into_keys().collect();
    assert_eq!(there, [std::path::Path::new(""), std::path::Path::new("file")]);
}

/// Names that clear screens, forge lines, turn text round, or would be markup; as bytes, the last no text at all.
const NASTY: [&[u8]; 7] = [
    b"\x1b[2J\x1b[31mred",
    b"line\r\nsealift: all is well",
    b"tab\tbell\x07back\x08",
    b"\xe2\x80\xaetxt.exe",
    b"\xe2\x81\xa6isolated",
    b"<img src=x onerror=alert(1)>",
    b"\xff\x9b\x7f",
];

fn nasty_source(source: &Path) {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir(source).expect("there is room");
    for name in NASTY {
        let path = source.join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, name).expect("there is room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("it is ours");
        tree::fifo(&source.join(std::ffi::OsStr::from_bytes(&[name, b" fifo"].concat())));
    }
}

#[test]
fn a20_names_of_a_source_are_escaped_by_both_sides_as_json() {
    let dir = tempfile::tempdir().expect("there is room");
    let source = dir.path().join("source");
    nasty_source(&source);
    let sender = Sender::start([&source], &[]);
    let received = sender.receive(dir.path().join("dest"), &[]).expect(3);
    assert_plain(&received);
    assert_eq!(received.problems().len(), NASTY.len());
    assert_eq!(received.named("warning").count(), NASTY.len());
    let sent = sender.stop().expect(3);
    assert_plain(&sent);
    assert_eq!(sent.problems().len(), NASTY.len());
}

/// Waits until a file has come into its directory, which is watched from before it is made.
fn wait_for_file(path: &Path, make: impl FnOnce()) {
    let watch = inotify::init(CreateFlags::CLOEXEC).expect("inotify");
    let parent = path.parent().expect("in a directory");
    inotify::add_watch(&watch, parent, WatchFlags::MOVED_TO).expect("it can be watched");
    make();
    let (seen, is_seen) = std::sync::mpsc::channel();
    let awaited = path.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while !awaited.exists() && rustix::io::read(&watch, &mut buffer).is_ok() {}
        // Nobody may wait any more.
        let _ = seen.send(());
    });
    is_seen.recv_timeout(Duration::from_secs(60)).expect("the file comes");
}

#[test]
fn a20_names_of_a_source_are_escaped_by_both_sides_for_people() {
    let dir = tempfile::tempdir().expect("there is room");
    let source = dir.path().join("source");
    nasty_source(&source);
    let tickets = dir.path().join("tickets");
    fs::create_dir(&tickets).expect("there is room");
    let ticket = tickets.join("ticket");
    let mut sender = None;
    wait_for_file(&ticket, || {
        let run = Run::with(["send", "--once", "--bind", "127.0.0.1:0", "--ticket-file"]).arg(&ticket);
        sender = Some(run.arg(&source).start());
    });
    let from = format!("@{}", ticket.display());
    let received = Run::with(["receive", &from]).arg(dir.path().join("dest")).finish().expect(3);
    assert_plain(&received);
    assert!(received.stderr.contains("x1b[2J"), "{}", received.stderr);
    let sent = sender.expect("started").finish().expect(3);
    assert_plain(&sent);
    assert!(sent.stderr.contains("u{202e}txt.exe"), "{}", sent.stderr);
}

#[test]
fn a20_what_a_receiver_says_in_closing_is_escaped() {
    let dir = tempfile::tempdir().expect("there is room");
    fs::write(dir.path().join("file"), "content").expect("there is room");
    let mut sender = Sender::start([dir.path()], &[]);
    peer(async {
        let receiver = HostileReceiver::new(&sender.ticket);
        let (mut control, _) = receiver.control().await;
        let reason = "\x1b[2J\r\n{\"event\":\"done\"}\u{202e}";
        control.close(sealift_proto::wire::CloseCode::Internal, reason).await.expect("it listens");
        control.hear_out().await;
    });
    sender.process.wait_for("disconnected");
    let outcome = sender.stop().expect(0);
    assert_plain(&outcome);
    assert_eq!(outcome.named("done").count(), 1, "{outcome:#?}");
}
