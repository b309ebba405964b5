//! Events that the daemon has not been told yet, on the disk until it says that it has them (hazard C6).
//!
//! Owns their numbers and their bound: of too many the oldest are dropped, and a warning in their place says how many.
//! The file is a log that is written anew now and then:
//!
//! ```text
//! kind (1) | length (4, little-endian) | BLAKE3 of kind and payload, first 8 bytes | payload
//! kind 1: an Event of agent.proto      kind 2: kept up to this number (8)      kind 3: dropped in all (8)
//! ```
//!
//! What a crash left half-written at the end is cut off. Where logs are sealed, what an event says is on the disk in the log
//! alone: here there is when and of what it was, and an agent that was started anew tells no more of it.

use crypto_simd::blake3;
use prost::Message as _;
use sealift_api::agent::{Event, event::Severity};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Events kept.
pub(crate) const EVENTS_MAX: usize = 10_000;
/// Bytes of an event's message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;
/// What an event says that was on the disk without its text.
const SEALED: &str = "what happened is in this agent's log, which is sealed";
/// Records that are in the file beyond what is needed, before it is written anew.
const STALE_RECORDS_MAX: usize = 4096;
/// Bytes of a record's payload.
const PAYLOAD_BYTES_MAX: usize = 4096;

const HEADER_BYTES: usize = 13;
const KIND_EVENT: u8 = 1;
const KIND_KEPT: u8 = 2;
const KIND_DROPPED: u8 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: File,
    length: u64,
    records: usize,
    events: VecDeque<Event>,
    bound: usize,
    text: Text,
    kept: u64,
    dropped: u64,
}

/// Whether what events say may be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Plain,
    Withheld,
}

impl Spool {
    /// Takes up what an earlier agent left.
    pub(crate) fn open(path: &Path, text: Text) -> io::Result<Self> {
        Self::open_bounded(path, text, EVENTS_MAX)
    }

    fn open_bounded(path: &Path, text: Text, bound: usize) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        let path = path.to_owned();
        let events = VecDeque::new();
        let mut spool = Self { path, file, length: 0, records: 0, events, bound, text, kept: 0, dropped: 0 };
        let mut rest = content.as_slice();
        while let Some((kind, payload, after)) = record(rest) {
            spool.replay(kind, payload);
            spool.length += (rest.len() - after.len()) as u64;
            spool.records += 1;
            rest = after;
        }
        if !rest.is_empty() {
            spool.file.set_len(spool.length)?;
        }
        spool.file.seek(SeekFrom::Start(spool.length))?;
        Ok(spool)
    }

    fn replay(&mut self, kind: u8, payload: &[u8]) {
        let number = || payload.try_into().map(u64::from_le_bytes).unwrap_or_default();
        match kind {
            KIND_EVENT => {
                if let Ok(event) = Event::decode(payload) {
                    self.take(event);
                }
            }
            KIND_KEPT => self.forget(number()),
            KIND_DROPPED => self.dropped = number(),
            // Of a newer version.
            _ => {}
        }
    }

    /// Keeps an event, under the next number. Durable when this returns; on an error it is kept in memory alone.
    pub(crate) fn push(&mut self, mut event: Event) -> io::Result<()> {
        event.number = self.next_number();
        truncate(&mut event.message, MESSAGE_BYTES_MAX);
        let payload = self.encoded(&event);
        self.take(event);
        self.append(KIND_EVENT, &payload)
    }

    /// Whether what events say may be on the disk from now on. What is there already goes, if not.
    pub(crate) fn set_text(&mut self, text: Text) -> io::Result<()> {
        if std::mem::replace(&mut self.text, text) == Text::Plain && text == Text::Withheld {
            return self.rewrite();
        }
        Ok(())
    }

    fn encoded(&self, event: &Event) -> Vec<u8> {
        match self.text {
            Text::Plain => event.encode_to_vec(),
            Text::Withheld => Event { message: SEALED.to_owned(), ..event.clone() }.encode_to_vec(),
        }
    }

    /// The daemon has all up to this number.
    pub(crate) fn keep(&mut self, number: u64) -> io::Result<()> {
        let number = number.min(self.next_number() - 1);
        if number <= self.kept {
            return Ok(());
        }
        self.forget(number);
        self.append(KIND_KEPT, &number.to_le_bytes())
    }

    /// Events after this number, oldest first.
    pub(crate) fn after(&self, number: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().skip_while(move |event| event.number <= number)
    }

    /// What the daemon has.
    pub(crate) fn kept(&self) -> u64 {
        self.kept
    }

    fn next_number(&self) -> u64 {
        self.events.back().map_or(self.kept, |event| event.number) + 1
    }

    fn take(&mut self, event: Event) {
        self.events.push_back(event);
        if self.events.len() <= self.bound {
            return;
        }
        // The first may be the warning about those before, which counts as none.
        let first = self.events.pop_front();
        self.dropped += u64::from(first.is_some_and(|first| first.message != dropped_text(self.dropped)));
        if let Some(oldest) = self.events.front_mut() {
            self.dropped += 1;
            let (number, unix_millis) = (oldest.number, oldest.unix_millis);
            let message = dropped_text(self.dropped);
            *oldest = Event { number, unix_millis, message, ..Event::default() };
            oldest.set_severity(Severity::Warning);
        }
    }

    fn forget(&mut self, number: u64) {
        self.kept = self.kept.max(number);
        while self.events.front().is_some_and(|event| event.number <= number) {
            self.events.pop_front();
            // The daemon has been told of those that were dropped.
            self.dropped = 0;
        }
    }

    fn append(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        if self.records > self.events.len() + STALE_RECORDS_MAX {
            return self.rewrite();
        }
        let record = framed(kind, payload);
        let written = self.file.write_all(&record).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a record would hide those after it.
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += record.len() as u64;
        self.records += 1;
        Ok(())
    }

    /// Writes the file anew, with what is needed.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut content = framed(KIND_KEPT, &self.kept.to_le_bytes());
        content.extend(framed(KIND_DROPPED, &self.dropped.to_le_bytes()));
        for event in &self.events {
            content.extend(framed(KIND_EVENT, &self.encoded(event)));
        }
        crate::state::write_durably(&self.path, &content)?;
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        self.length = file.seek(SeekFrom::End(0))?;
        self.file = file;
        self.records = self.events.len() + 2;
        Ok(())
    }
}

fn dropped_text(dropped: u64) -> String {
    format!("{dropped} events before this one were dropped, since the daemon was away for long")
}

/// Cuts text to so many bytes, between characters.
pub(crate) fn truncate(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
    record.push(kind);
    record.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend(check(kind, payload));
    record.extend(payload);
    record
}

fn check(kind: u8, payload: &[u8]) -> [u8; 8] {
    let digest = blake3::hash(&[&[kind], payload].concat());
    std::array::from_fn(|at| digest[at])
}

/// The first record, and what comes after it; `None` if it is not whole.
fn record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length =
        usize::try_from(u32::from_le_bytes(*length)).ok().filter(|&length| length <= PAYLOAD_BYTES_MAX)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    (check(kind, payload) == *sum).then_some((kind, payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(text: &str) -> Event {
        Event { message: text.into(), ..Event::default() }
    }

    fn numbers(spool: &Spool) -> Vec<u64> {
        spool.after(0).map(|event| event.number).collect()
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        (dir, path)
    }

    #[test]
    fn c6_events_outlive_the_agent_until_the_daemon_has_them() {
        let (_dir, path) = file();
        let mut spool = Spool::open(&path, Text::Plain).unwrap();
        for text in ["a", "b", "c"] {
            spool.push(event(text)).unwrap();
        }
        spool.keep(2).unwrap();
        let mut spool = Spool::open(&path, Text::Plain).unwrap();
        assert_eq!((numbers(&spool), spool.kept()), (vec![3], 2));
        spool.keep(99).unwrap();
        let mut spool = Spool::open(&path, Text::Plain).unwrap();
        spool.push(event("d")).unwrap();
        assert_eq!(numbers(&spool), [4], "numbers go on");
    }

    #[test]
    fn what_is_withheld_is_told_and_not_on_the_disk() {
        let (_dir, path) = file();
        let mut spool = Spool::open(&path, Text::Plain).unwrap();
        spool.push(event("the first secret")).unwrap();
        spool.set_text(Text::Withheld).unwrap();
        spool.push(event("the second secret")).unwrap();
        let said = |spool: &Spool| spool.after(0).map(|event| event.message.clone()).collect::<Vec<_>>();
        assert_eq!(said(&spool), ["the first secret", "the second secret"]);
        let content = std::fs::read(&path).unwrap();
        assert!(!content.windows(6).any(|window| window == b"secret"));
        let mut spool = Spool::open(&path, Text::Withheld).unwrap();
        assert_eq!(said(&spool), [SEALED, SEALED]);
        spool.set_text(Text::Plain).unwrap();
        spool.push(event("no secret")).unwrap();
        assert_eq!(said(&Spool::open(&path, Text::Plain).unwrap()), [SEALED, SEALED, "no secret"]);
    }

    #[test]
    fn of_too_many_the_oldest_give_way_to_a_warning_that_counts_them() {
        let (_dir, path) = file();
        let mut spool = Spool::open_bounded(&path, Text::Plain, 3).unwrap();
        for at in 1..=7 {
            spool.push(event(&at.to_string())).unwrap();
            assert!(spool.events.len() <= 3);
        }
        for spool in [&spool, &Spool::open_bounded(&path, Text::Plain, 3).unwrap()] {
            assert_eq!(numbers(spool), [5, 6, 7]);
            let warning = spool.after(0).next().unwrap();
            assert!(warning.message.starts_with("5 events"), "{}", warning.message);
            assert_eq!(warning.severity(), Severity::Warning);
        }
        spool.rewrite().unwrap();
        let mut spool = Spool::open_bounded(&path, Text::Plain, 3).unwrap();
        spool.push(event("8")).unwrap();
        assert!(spool.after(0).next().unwrap().message.starts_with("6 events"));
        spool.keep(6).unwrap();
        assert_eq!(spool.dropped, 0);
    }

    #[test]
    fn the_file_stays_small() {
        let (_dir, path) = file();
        let mut spool = Spool::open(&path, Text::Plain).unwrap();
        // What many rounds leave behind, without the time that syncing each would take.
        spool.records = STALE_RECORDS_MAX + 2;
        spool.push(event("a")).unwrap();
        assert_eq!(spool.records, 3);
        spool.push(event("b")).unwrap();
        assert_eq!(numbers(&Spool::open(&path, Text::Plain).unwrap()), [1, 2]);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let (_dir, path) = file();
        let mut spool = Spool::open(&path, Text::Plain).unwrap();
        spool.push(event(&"ä".repeat(4000))).unwrap();
        assert_eq!(spool.events[0].message.len(), MESSAGE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn a_torn_or_damaged_file_gives_what_is_whole_before_it(at in 0usize..200, cut: bool) {
            let (_dir, path) = file();
            let mut spool = Spool::open(&path, Text::Plain).unwrap();
            for text in ["first", "second", "third"] {
                spool.push(event(text)).unwrap();
            }
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 }
            std::fs::write(&path, &bytes).unwrap();
            let mut spool = Spool::open(&path, Text::Plain).unwrap();
            let left = numbers(&spool);
            prop_assert!(left.len() < 3 && left.iter().zip(1..).all(|(left, right)| *left == right));
            spool.push(event("more")).unwrap();
            prop_assert_eq!(numbers(&Spool::open(&path, Text::Plain).unwrap()).len(), left.len() + 1);
        }
    }
}
