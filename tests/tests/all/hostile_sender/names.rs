//! Names that are not text, names that drive terminals, and modes that pass on privilege (A2, A7, A20).

use super::{honest, job};
use sealift_tests::hostile::forge::{TIME, record};
use sealift_tests::hostile::scene::assert_plain;
use sealift_tests::hostile::{DataSet, HostileSender, Scene, Talk};
use sealift_tests::process::Run;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

#[test]
fn a2_names_that_are_not_utf8_are_carried_as_they_are() {
    let names: [&[u8]; 6] =
        [b"\xff\xfe", b"d\x80", b"caf\xe9", b"a\nb\rc\td", b"\xf0\x28\x8c\x28", b"\xc0\xaf"];
    let (job, mut forger) = job();
    let mut set = DataSet::default();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    set.directory(b"dir\xff");
    expected.push(b"dir\xff".to_vec());
    for name in names {
        let path = [b"dir\xff/", name].concat();
        set.file(&path, name);
        expected.push(path);
    }
    set.symlink(b"link\x80", b"\xff\xff/nowhere");
    expected.push(b"link\x80".to_vec());
    let sender = honest(&job, set.segments(&mut forger), set);
    let scene = Scene::new();
    let outcome = scene.receive(sender.ticket()).finish().expect(0);
    assert_plain(&outcome);
    scene.assert_outside_untouched();
    let expected: Vec<&[u8]> = expected.iter().map(Vec::as_slice).collect();
    scene.assert_dest_holds(&expected);
    for name in names {
        let path = scene.dest().join(OsStr::from_bytes(b"dir\xff")).join(OsStr::from_bytes(name));
        assert_eq!(fs::read(path).expect("there"), name);
    }
    let target = fs::read_link(scene.dest().join(OsStr::from_bytes(b"link\x80"))).expect("a link");
    assert_eq!(target.as_os_str().as_bytes(), b"\xff\xff/nowhere");
}

fn privileged() -> DataSet {
    let mut set = DataSet::default();
    set.record(record::root(0o1777, TIME));
    set.entry(record::directory(0, b"sticky", 0o1777, TIME));
    set.entry(record::directory(1, b"group", 0o2755, TIME));
    set.file_with_mode("setuid", 0o4755, "small");
    set.file_with_mode("setgid", 0o2755, "small too");
    set.file_with_mode("all", 0o7755, "every one");
    set.file_with_mode("large", 0o4711, vec![1; 2 << 20]);
    set.file_with_mode("plain", 0o755, "harmless");
    set
}

#[test]
fn a7_bits_that_pass_on_privilege_are_dropped_and_reported_unless_they_are_asked_for() {
    for keep in [false, true] {
        let (job, mut forger) = job();
        let set = privileged();
        let sender = honest(&job, set.segments(&mut forger), set);
        let scene = Scene::new();
        let mut run = scene.receive(sender.ticket());
        if keep {
            run = run.arg("--keep-special-modes");
        }
        let outcome = run.finish().expect(0);
        assert_plain(&outcome);
        let mode = |name: &str| fs::symlink_metadata(scene.dest().join(name)).expect("there").mode() & 0o7777;
        let special = [
            ("", 0o1777),
            ("sticky", 0o1777),
            ("group", 0o2755),
            ("setuid", 0o4755),
            ("setgid", 0o2755),
            ("all", 0o7755),
            ("large", 0o4711),
        ];
        for (name, full) in special {
            let expected = if keep { full } else { full & 0o777 };
            assert_eq!(mode(name), expected, "{name} with keep={keep}");
        }
        assert_eq!(mode("plain"), 0o755);
        let warnings: Vec<&str> = outcome.messages("warning").collect();
        let expected = if keep { 0 } else { special.len() };
        assert_eq!(warnings.len(), expected, "one for each entry: {warnings:?}");
        for (name, _) in special.iter().skip(1).filter(|_| !keep) {
            assert!(warnings.iter().any(|warning| warning.starts_with(name)), "{name}: {warnings:?}");
        }
    }
}

#[test]
fn a7_a_file_that_is_there_already_loses_its_special_bits_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let (job, mut forger) = job();
    let set = privileged();
    let sender = honest(&job, set.segments(&mut forger), set);
    let scene = Scene::new();
    fs::create_dir(scene.dest()).expect("there is room");
    let old = scene.dest().join("setuid");
    fs::write(&old, "small").expect("there is room");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o4777)).expect("it is ours");
    let _ = scene.receive(sender.ticket()).finish().expect(0);
    assert_eq!(fs::metadata(&old).expect("there").mode() & 0o7777, 0o755);
}

/// Names that clear screens, forge lines, turn text round, or would be markup.
const NASTY: [&str; 8] = [
    "\x1b[2J\x1b[31mred",
    "line\r\nsealift: all is well",
    "tab\tbell\x07back\x08",
    "\u{202e}txt.exe",
    "\u{2066}isolated\u{2069}",
    "\u{9b}31mc1",
    "<img src=x onerror=alert(1)>",
    "\x7fdelete",
];

#[test]
fn a20_names_from_a_hostile_manifest_are_escaped_in_every_output() {
    let (job, forger) = job();
    let mut set = DataSet::default();
    for name in NASTY {
        // Reported: a mode is dropped, a problem, a file that is never right, one that vanished.
        set.file_with_mode(name, 0o4755, "right");
        set.record(record::problem(format!("{name} problem").as_bytes(), 1));
        let id = set.file(format!("{name} gone"), "gone");
        set.record(record::withdrawn(id, format!("{name} gone").as_bytes(), 3));
        set.file(format!("{name} refused"), "refused");
    }
    let mut records = set.records();
    records.pop();
    records.push(record::end(set.next_id() - NASTY.len() as u64));
    for json in [false, true] {
        let segments = forger.clone().segments(&records, 128 << 10);
        let set = set.clone();
        let control = async move |talk: &mut Talk| talk.serve_manifest(&segments).await;
        let data = async move |talk: &mut Talk| {
            talk.serve_blocks(&set, |_, _, right| match right {
                b"refused" => {
                    sealift_tests::hostile::Reply::Error(sealift_proto::wire::RangeProblem::Unreadable)
                }
                right => sealift_tests::hostile::Reply::Blocks(right.to_vec()),
            })
            .await
        };
        let sender = HostileSender::start(&job, control, data);
        let scene = Scene::new();
        let run = if json {
            scene.receive(sender.ticket())
        } else {
            Run::with(["receive", sender.ticket()]).arg(scene.dest())
        };
        let outcome = run.finish().expect(3);
        assert_plain(&outcome);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        for shown in ["x1b[2J", "x0d", "x0a", "x07", "u{202e}txt.exe", "u{2066}", "u{9b}31m", "x7fdelete"] {
            assert!(said.contains(shown), "{shown} is shown escaped: {said}");
        }
        if json {
            // Eight problems, and eight that the sender could not give.
            assert_eq!(outcome.problems().len(), 2 * NASTY.len(), "{outcome:#?}");
        }
    }
}

#[test]
fn a20_what_a_sender_says_in_closing_is_escaped() {
    for json in [false, true] {
        let (job, _) = job();
        let control = async |talk: &mut Talk| {
            let reason = "\x1b[2J\r\nsealift: Done.\u{202e}";
            talk.close(sealift_proto::wire::CloseCode::Internal, reason).await?;
            talk.hang_up().await
        };
        let sender = HostileSender::start(&job, control, async |talk: &mut Talk| talk.welcome().await);
        let scene = Scene::new();
        let run = if json {
            scene.receive(sender.ticket())
        } else {
            Run::with(["receive", sender.ticket()]).arg(scene.dest())
        };
        let outcome = run.finish().expect(1);
        assert_plain(&outcome);
        assert!(outcome.message().contains("x1b[2J"), "{}", outcome.message());
    }
}
