//! Where a ticket may come from, and where it must never show.

use super::Place;
use sealift_tests::process::{Outcome, Receive, Run, Sender};
use sealift_tests::tree::{SpecialModes, assert_same, mixed};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Checks that no part of a ticket that is worth anything was said.
fn assert_silent_about(ticket: &str, outcome: &Outcome) {
    let said = format!("{}{}", outcome.stdout, outcome.stderr).to_ascii_lowercase();
    for part in ticket.as_bytes().windows(16) {
        let part = std::str::from_utf8(part).unwrap();
        assert!(!said.contains(part), "a part of the ticket was said: {part:?} in {said}");
    }
}

#[test]
fn a_ticket_comes_as_argument_file_input_or_variable() {
    let place = Place::new();
    mixed(&place.src, 20, 30);
    let sender = Sender::start([&place.src], &[]);
    let ticket = sender.ticket.clone();
    let path = place.dir.path().join("a ticket");
    let (front, back) = ticket.split_at(50);
    fs::write(&path, format!("  {front}\n{}\r\n", back.to_ascii_uppercase())).unwrap();
    let mut at = OsString::from("@");
    at.push(&path);

    let dest = |name: &str| place.dir.path().join(name);
    let by_variable = ["receive".into(), "--json".into(), dest("variable").into_os_string()];
    let forms = [
        ("argument", Run::receive(&ticket, dest("argument"))),
        ("file", Run::receive(&at, dest("file"))),
        ("input", Run::receive("-", dest("input")).stdin(format!("{ticket}\n"))),
        ("variable", Run::with(by_variable).env("SEALIFT_TICKET", &ticket)),
    ];
    for (name, run) in forms {
        let received = run.finish().expect(0);
        assert_same(&place.src, &dest(name), SpecialModes::Dropped);
        assert_silent_about(&ticket, &received);
    }
}

#[test]
fn a_mistyped_ticket_is_refused_and_not_repeated() {
    let place = Place::new();
    let sender = Sender::start([&place.src], &[]);
    let mut wrong = sender.ticket.clone();
    let at = wrong.len() / 2;
    let other = if &wrong[at..=at] == "a" { "b" } else { "a" };
    wrong.replace_range(at..=at, other);
    let cut = &sender.ticket[..sender.ticket.len() - 5];
    for ticket in
        [&wrong, cut, &format!("{}!", sender.ticket), &sender.ticket.replace("sealift1", "sealift2")]
    {
        let refused = Receive::run(ticket, &place.dst, &[]).expect(2);
        assert_silent_about(ticket, &refused);
        assert!(refused.message().contains("ticket"), "{refused:?}");
        let refused = Run::receive("-", &place.dst).stdin(ticket).finish().expect(2);
        assert_silent_about(ticket, &refused);
        assert!(!place.dst.exists(), "nothing was made");
    }
    // Forgotten or swapped.
    for words in [
        vec!["receive", &sender.ticket],
        vec!["receive", "dest", &sender.ticket],
        vec!["receive", "--", &sender.ticket],
    ] {
        let refused = Run::with(words).dir(place.dir.path()).finish().expect(2);
        assert_silent_about(&sender.ticket, &refused);
    }
    let refused = Run::receive("@/no/such/file", &place.dst).finish().expect(2);
    assert!(refused.message().contains("/no/such/file"), "{refused:?}");
    let endless = Run::receive("@/dev/zero", &place.dst).finish().expect(2);
    assert!(endless.message().contains("ticket"), "{endless:?}");
}

#[test]
fn a_ticket_file_is_private_and_the_ticket_shows_nowhere_else() {
    let place = Place::new();
    mixed(&place.src, 20, 31);
    let path = place.dir.path().join("ticket file");
    fs::write(&path, "an older ticket, for all to read").unwrap();
    let sender = Sender::of(Run::send([&place.src]).arg("--ticket-file").arg(&path));
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    let ticket = fs::read_to_string(&path).unwrap();
    let mut at = OsString::from("@");
    at.push(&path);
    let received = Run::receive(at, &place.dst).finish().expect(0);
    assert_same(&place.src, &place.dst, SpecialModes::Dropped);
    let sent = sender.stop().expect(0);
    for outcome in [&sent, &received] {
        assert_silent_about(ticket.trim_end(), outcome);
    }
    // Nothing was left beside it.
    let mut names: Vec<_> =
        place.dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dst", "src", "ticket file"]);
}
