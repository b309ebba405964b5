//! Records that the daemon has not got yet, on the disk until it says that it has them (hazard C6).
//!
//! A directory of segments, each a file that is only appended to; `docs/logs.md` has their layout. Owns the numbers of
//! records, which go up and are never used again, and the bound: of too much the oldest segment is dropped, and whoever
//! reads on finds a record in its place that counts what is missing. A segment is what is removed as a whole, and what a
//! batch is read from. What a crash left half-written is passed over. If the daemon has named a KEK, segments are sealed
//! (`sealing`): the data key is in memory alone, so that a new agent begins a new segment, and passes on what it cannot read.

mod sealing;
mod segment;
#[cfg(test)]
pub(super) mod tests;

use super::record::dropped_record;
use crate::state::make_directory;
use prost::Message as _;
use sealift_api::logs::Record;
pub(crate) use sealing::LogKek;
use sealing::Sealing;
use segment::{Head, RECORD_HEAD_BYTES, framed, scan};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of all segments, if nobody says otherwise.
pub(crate) const SPOOL_BYTES_DEFAULT: u64 = 64 << 20;
/// What somebody may say: room for a few writes, at least.
const SPOOL_BYTES_MIN: u64 = 64 << 10;
/// Bytes of a segment, before the next one is begun; of a small spool a fraction of it.
const SEGMENT_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    id: [u8; 16],
    segments: VecDeque<Segment>,
    /// The last of them, at its end.
    active: File,
    limits: Limits,
    acked: u64,
    cursor: Option<Cursor>,
    /// The active one may end in half a record, and how many numbers may be in that.
    torn: Option<u64>,
    damaged: bool,
    kek: Option<LogKek>,
    /// How the last one is sealed.
    sealing: Option<Sealing>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    spool_bytes: u64,
    segment_bytes: u64,
}

#[derive(Clone, Debug)]
struct Segment {
    first: u64,
    /// Numbers just before the first that are of no record.
    skipped: u64,
    records: u64,
    bytes: u64,
    /// Where records begin.
    head_bytes: u64,
    envelope: Option<Arc<[u8]>>,
}

impl Segment {
    /// The number after its last.
    fn end(&self) -> u64 {
        self.first + self.records
    }
}

/// Where the last reading ended: a record's number, and where it begins.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    segment: u64,
    number: u64,
    offset: u64,
}

/// Records that follow each other in one segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) first: u64,
    pub(crate) content: Content,
}

/// What a batch brings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Plain(Vec<Record>),
    Sealed { envelope: Arc<[u8]>, records: Vec<Vec<u8>> },
}

impl Batch {
    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Plain(records) => records.len(),
            Content::Sealed { records, .. } => records.len(),
        }
    }

    /// Those of one that is not sealed.
    #[cfg(test)]
    pub(crate) fn records(self) -> Vec<Record> {
        match self.content {
            Content::Plain(records) => records,
            Content::Sealed { .. } => panic!("it is sealed"),
        }
    }
}

impl Spool {
    /// Takes up what an earlier agent left.
    pub(crate) fn open(dir: &Path, bytes_max: u64, kek: Option<LogKek>) -> io::Result<Self> {
        let spool_bytes = bytes_max.max(SPOOL_BYTES_MIN);
        let limits = Limits { spool_bytes, segment_bytes: SEGMENT_BYTES.min(spool_bytes / 8) };
        Self::open_bounded(dir, limits, kek)
    }

    fn open_bounded(dir: &Path, limits: Limits, kek: Option<LogKek>) -> io::Result<Self> {
        make_directory(dir)?;
        let (mut segments, mut id, mut acked) = (VecDeque::<Segment>::new(), None, 0);
        // The number after all that may ever have been given; and whether the last segment ends as it should.
        let (mut next, mut whole) = (1, false);
        let mut damaged = false;
        for first in numbers(dir)? {
            let path = path_of(dir, first);
            let content = std::fs::read(&path)?;
            let length = content.len() as u64;
            let head = Head::parse(&content).filter(|head| head.first == first);
            let Some(head) = head.filter(|head| id.is_none_or(|id| id == head.spool)) else {
                // Of records in it nothing is known but that each had a head.
                next = next.max(first.saturating_add(length / RECORD_HEAD_BYTES));
                (whole, damaged) = (false, true);
                std::fs::remove_file(&path)?;
                continue;
            };
            let (records, bytes) = scan(&content, &head);
            whole = bytes == length;
            damaged |= !whole;
            let left = if whole { 0 } else { (length - bytes) / RECORD_HEAD_BYTES + 1 };
            next = next.max(first + records + left);
            (id, acked) = (Some(head.spool), acked.max(head.acked));
            let (skipped, head_bytes) = (head.skipped, head.len());
            segments.push_back(Segment {
                first,
                skipped,
                records,
                bytes,
                head_bytes,
                envelope: head.envelope,
            });
        }
        let id = match id {
            Some(id) => id,
            None => {
                let mut id = [0; 16];
                getrandom::fill(&mut id).map_err(io::Error::other)?;
                id
            }
        };
        let mut sealing = None;
        let active = match segments.back() {
            // The key of one that is sealed is gone, and one that is not does not do if it has to be.
            Some(last) if whole && last.end() == next && last.envelope.is_none() && kek.is_none() => {
                OpenOptions::new().append(true).open(path_of(dir, last.first))?
            }
            last => {
                // What it cannot be told from is not appended to.
                let mut skipped = next - last.map_or(1, Segment::end);
                if last.is_some_and(|last| last.first == next) {
                    skipped += without_empty(&mut segments);
                }
                let (made, active, with) = begin(dir, id, next, skipped, acked, kek.as_ref())?;
                segments.push_back(made);
                sealing = with;
                active
            }
        };
        Ok(Self {
            dir: dir.to_owned(),
            id,
            segments,
            active,
            limits,
            acked,
            cursor: None,
            torn: None,
            damaged,
            kek,
            sealing,
        })
    }

    /// Tells this spool from those that there may have been before.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Whether something was found, when it was opened, that is no record.
    pub(crate) fn was_damaged(&self) -> bool {
        self.damaged
    }

    fn last(&self) -> Segment {
        self.segments.back().cloned().expect("there is always one that is written to")
    }

    /// The number of the newest record.
    pub(crate) fn newest(&self) -> u64 {
        self.last().end() - 1
    }

    /// Keeps records, all or none. Durable when this returns.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if let Some(left) = self.torn {
            self.begin_segment_after(left)?;
            self.torn = None;
        }
        if !self.is_as_wished() || (self.last().records > 0 && self.last().bytes >= self.limits.segment_bytes)
        {
            self.begin_segment_after(0)?;
        }
        let begun = self.last();
        let mut written = Vec::new();
        for (number, record) in (begun.end()..).zip(records) {
            let record = Zeroizing::new(record.encode_to_vec());
            match &self.sealing {
                Some(sealing) => framed(number, &sealing.records.seal(number, &record), &mut written),
                None => framed(number, &record, &mut written),
            }
        }
        self.make_room(written.len() as u64)?;
        let done = self.active.write_all(&written).and_then(|()| self.active.sync_data());
        if let Err(error) = done {
            // Half a record would hide those after it. If this fails too, the next go into a new segment.
            if self.active.set_len(begun.bytes).and_then(|()| self.active.sync_data()).is_err() {
                self.torn = Some(written.len() as u64 / RECORD_HEAD_BYTES + 1);
            }
            return Err(error);
        }
        let last = self.segments.back_mut().expect("there is always one that is written to");
        last.records += records.len() as u64;
        last.bytes += written.len() as u64;
        Ok(())
    }

    fn begin_segment_after(&mut self, skipped: u64) -> io::Result<()> {
        let last = self.last();
        let first = last.end() + skipped;
        // One of the same name has nothing in it, and is replaced.
        let is_replaced = last.first == first;
        let skipped = if is_replaced { last.skipped } else { skipped };
        let (made, active, sealing) =
            begin(&self.dir, self.id, first, skipped, self.acked, self.kek.as_ref())?;
        if is_replaced {
            without_empty(&mut self.segments);
        }
        self.segments.push_back(made);
        (self.active, self.sealing) = (active, sealing);
        self.forget()
    }

    /// Has what is written from now on sealed to this KEK, or not sealed.
    pub(crate) fn seal_to(&mut self, kek: Option<LogKek>) {
        self.kek = kek;
    }

    /// Whether the last segment is sealed as it is to be.
    fn is_as_wished(&self) -> bool {
        self.sealing.as_ref().map(|sealing| sealing.to) == self.kek.as_ref().map(LogKek::id)
    }

    /// Drops the oldest segments, so that so much more is within the bound.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        let used: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let mut over = (used + more).saturating_sub(self.limits.spool_bytes);
        while over > 0 && self.segments.len() > 1 {
            over = over.saturating_sub(self.remove_first()?);
        }
        Ok(())
    }

    fn remove_first(&mut self) -> io::Result<u64> {
        let Some(first) = self.segments.front() else { return Ok(0) };
        let bytes = first.bytes;
        match std::fs::remove_file(path_of(&self.dir, first.first)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.segments.pop_front();
        Ok(bytes)
    }

    /// The daemon has all up to this number.
    pub(crate) fn acked(&mut self, number: u64) -> io::Result<()> {
        if number > self.newest() {
            // Of a spool that was put back to what it once was: those numbers are used.
            self.begin_segment_after(number - self.newest())?;
        }
        self.acked = self.acked.max(number);
        self.forget()
    }

    /// Removes what the daemon has, but for what is written to.
    fn forget(&mut self) -> io::Result<()> {
        while self.segments.len() > 1
            && self.segments.front().is_some_and(|first| first.end() <= self.acked + 1)
        {
            self.remove_first()?;
        }
        Ok(())
    }

    /// What comes after this number, as much as a batch may have; `None` if there is nothing.
    pub(crate) fn read(
        &mut self,
        after: u64,
        records_max: usize,
        bytes_max: usize,
    ) -> io::Result<Option<Batch>> {
        let after = after.max(self.acked);
        let Some(segment) =
            self.segments.iter().find(|segment| segment.records > 0 && segment.end() > after + 1).cloned()
        else {
            return Ok(None);
        };
        let start = segment.first.max(after + 1);
        let skipped = if start == segment.first { segment.skipped } else { 0 };
        let dropped = (start - after - 1).saturating_sub(skipped);
        if dropped > 0 {
            // In the place of the last that is missing.
            let content = Content::Plain(vec![dropped_record(dropped)]);
            return Ok(Some(Batch { first: start - 1, content }));
        }
        let mut file = File::open(path_of(&self.dir, segment.first))?;
        let mut at = match self.cursor {
            Some(cursor) if cursor.segment == segment.first && cursor.number == start => cursor,
            _ => Cursor { segment: segment.first, number: segment.first, offset: segment.head_bytes },
        };
        file.seek(SeekFrom::Start(at.offset))?;
        // No more than was written: what is beyond is not durable yet.
        let mut content = Vec::new();
        file.take(segment.bytes - at.offset).read_to_end(&mut content)?;
        let (mut rest, mut records, mut bytes) = (content.as_slice(), Vec::<&[u8]>::new(), 0);
        while at.number < segment.end() && records.len() < records_max {
            let Some((payload, after)) = segment::record(rest, at.number) else { break };
            if at.number >= start {
                bytes += payload.len();
                if bytes > bytes_max && !records.is_empty() {
                    break;
                }
                records.push(payload);
            }
            at.number += 1;
            at.offset += (rest.len() - after.len()) as u64;
            rest = after;
        }
        self.cursor = Some(at);
        if records.is_empty() {
            // Damaged since it was written: what follows is told as dropped.
            if let Some(damaged) = self.segments.iter_mut().find(|one| one.first == segment.first) {
                damaged.records = at.number - segment.first;
            }
            let error = format!("record {} of the logs is damaged", at.number);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let content = match &segment.envelope {
            // What is not understood has a number all the same.
            None => Content::Plain(
                records.into_iter().map(|payload| Record::decode(payload).unwrap_or_default()).collect(),
            ),
            Some(envelope) => {
                let records = records.into_iter().map(<[u8]>::to_vec).collect();
                Content::Sealed { envelope: Arc::clone(envelope), records }
            }
        };
        Ok(Some(Batch { first: start, content }))
    }
}

/// Begins a segment, sealed if there is a KEK.
fn begin(
    dir: &Path,
    spool: [u8; 16],
    first: u64,
    skipped: u64,
    acked: u64,
    kek: Option<&LogKek>,
) -> io::Result<(Segment, File, Option<Sealing>)> {
    let sealing = kek.map(|kek| Sealing::begin(kek, &spool)).transpose()?;
    let envelope = sealing.as_ref().map(|sealing| Arc::clone(&sealing.envelope));
    let head = Head { spool, first, skipped, acked, envelope };
    let file = create(dir, &head)?;
    let head_bytes = head.len();
    let made = Segment { first, skipped, records: 0, bytes: head_bytes, head_bytes, envelope: head.envelope };
    Ok((made, file, sealing))
}

/// Takes an empty segment at the end away, for one that takes its name; with what it skipped.
fn without_empty(segments: &mut VecDeque<Segment>) -> u64 {
    segments.pop_back_if(|last| last.records == 0).map_or(0, |last| last.skipped)
}

fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

/// Of all segments that there are, in order.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|name| name.len() == 20);
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()).filter(|&number| number > 0));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes a segment, durably.
fn create(dir: &Path, head: &Head) -> io::Result<File> {
    let path = path_of(dir, head.first);
    // One of the same name has no record: numbers are not used again.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&head.bytes())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}
