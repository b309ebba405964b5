//! What a child says on its standard output: one JSON object a line, as `sealift send --json` and `receive --json` tell
//! it.
//!
//! Owns the bound of a line and the reading of it. Unknown events and unknown fields say nothing; a sender's ticket, which
//! is a secret, is among the latter.

use serde::Deserialize;
use std::borrow::Cow;
use zeroize::Zeroizing;

/// Bytes of a line; longer ones are left out.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// A source listens.
    Listening(Vec<String>),
    /// A source has looked at everything.
    Scanned { files: u64, bytes: u64, problems: u64 },
    /// Of a source, somebody came or went; of a destination, it is connected.
    Peer(String),
    /// Somebody without the key came.
    Refused(String),
    /// See [`crate::report::Event::Progress`].
    Progress { files: u64, bytes: u64, bytes_known: u64, bytes_transferred: u64 },
    /// The disk is full.
    NoRoom(String),
    /// There is room again.
    Room,
    /// An entry is missing.
    Problem(String),
    /// Something was done otherwise.
    Warning(String),
    /// See [`crate::report::Event::Done`].
    Done { files: u64, bytes: u64, bytes_transferred: u64, failed: u64, deleted: u64 },
    /// The end, without success.
    Error(String),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
    #[serde(borrow, default)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    peer: Cow<'a, str>,
    #[serde(default)]
    entries: u64,
    #[serde(default)]
    files: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    bytes_known: u64,
    #[serde(default)]
    bytes_transferred: u64,
    #[serde(default)]
    problems: u64,
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    deleted: u64,
}

/// What a line says, if it is one that is known.
pub(crate) fn parse(line: &[u8]) -> Option<Told> {
    let said: Line<'_> = serde_json::from_slice(line).ok()?;
    let Line { files, bytes, bytes_known, bytes_transferred, failed, deleted, .. } = said;
    Some(match &*said.event {
        "ticket" => Told::Listening(said.addresses),
        "scanned" => Told::Scanned { files: said.entries, bytes, problems: said.problems },
        "connected" => Told::Peer(format!("connected with {}", said.peer)),
        "disconnected" => Told::Peer(format!("{}: {}", said.peer, said.reason)),
        "refused" => Told::Refused(format!("{} was turned away: {}", said.peer, said.reason)),
        "progress" => Told::Progress { files, bytes, bytes_known, bytes_transferred },
        "paused" => Told::NoRoom(said.reason.into_owned()),
        "resumed" => Told::Room,
        "problem" => Told::Problem(format!("{}: {}", said.path, said.reason)),
        "warning" => Told::Warning(said.message.into_owned()),
        "done" => Told::Done { files, bytes, bytes_transferred, failed, deleted },
        "error" => Told::Error(said.message.into_owned()),
        _ => return None,
    })
}

/// Cuts a stream into lines, of bounded memory, which is zeroized: a ticket may have been in it.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: Zeroizing<Vec<u8>>,
    overlong: bool,
}

impl Lines {
    pub(crate) fn new() -> Self {
        // At once, so that no copy is left where it grew.
        Self { begun: Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX)), overlong: false }
    }

    /// Takes more of the stream, and tells each line that is whole.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut told: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.add(&bytes[..end]);
            if !std::mem::take(&mut self.overlong) {
                told(&self.begun);
            }
            self.begun.clear();
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.overlong |= self.begun.len() + bytes.len() > LINE_BYTES_MAX;
        if !self.overlong {
            self.begun.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Event;
    use proptest::prelude::*;

    fn of(event: &Event<'_>) -> Option<Told> {
        parse(&serde_json::to_vec(event).unwrap())
    }

    #[test]
    fn what_the_reporter_tells_is_understood() {
        let ticket = Event::Ticket {
            ticket: Some("sealift1secret"),
            ticket_file: None,
            addresses: vec!["a:1".into()],
        };
        assert_eq!(of(&ticket), Some(Told::Listening(vec!["a:1".into()])));
        let progress = Event::Progress { files: 1, bytes: 2, bytes_known: 3, bytes_transferred: 4 };
        let told = Told::Progress { files: 1, bytes: 2, bytes_known: 3, bytes_transferred: 4 };
        assert_eq!(of(&progress), Some(told));
        let done =
            Event::Done { files: 1, bytes: 2, bytes_transferred: 3, seconds: 0.5, failed: 4, deleted: 0 };
        let told = Told::Done { files: 1, bytes: 2, bytes_transferred: 3, failed: 4, deleted: 0 };
        assert_eq!(of(&done), Some(told));
        let error = Event::Error { message: "it\n\"broke\"".into(), code: 1 };
        assert_eq!(of(&error), Some(Told::Error("it\n\"broke\"".into())));
        let problem = Event::Problem { path: "a".into(), reason: "b".into() };
        assert_eq!(of(&problem), Some(Told::Problem("a: b".into())));
        assert_eq!(of(&Event::Resumed), Some(Told::Room));
        assert_eq!(of(&Event::Note { message: "x".into() }), None);
    }

    #[test]
    fn what_is_unknown_or_no_event_says_nothing() {
        for line in ["", "{}", "[]", "hello", r#"{"event":"new_in_2030","x":{}}"#, r#"{"event":7}"#] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        let more = br#"{"event":"resumed","unheard":[1,2,{"of":null}]}"#;
        assert_eq!(parse(more), Some(Told::Room));
    }

    #[test]
    fn an_overlong_line_is_left_out_and_the_next_is_not() {
        let mut lines = Lines::new();
        let mut told = Vec::new();
        let long = vec![b'x'; LINE_BYTES_MAX];
        for part in [&long[..], b"x\nsecond\nthi", b"rd\n", &long, b"\n"] {
            lines.push(part, |line| told.push(line.len()));
            assert_eq!(lines.begun.capacity(), LINE_BYTES_MAX);
        }
        assert_eq!(told, [6, 5, LINE_BYTES_MAX]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_stream_is_cut(
            text in "[a-c\n]{0,100}", cuts in proptest::collection::vec(0usize..100, 0..8),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::new();
            let mut told = Vec::new();
            for part in cuts.windows(2) {
                lines.push(&text.as_bytes()[part[0]..part[1]], |line| told.push(line.to_vec()));
            }
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let expected: Vec<_> = match text.contains('\n') {
                true => whole.split('\n').map(|line| line.as_bytes().to_vec()).collect(),
                false => vec![],
            };
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn arbitrary_lines_never_panic(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&line);
        }
    }
}
