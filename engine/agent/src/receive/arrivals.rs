//! Segments between the wire and the transfer: kept beside the replica, and held back while they say less than what
//! was accepted before.
//!
//! All that is taken up goes into `.sealift/manifest.new`, which becomes `.sealift/manifest` when everything is in
//! place. A sender that runs on since the last run offers its snapshot from the beginning: nothing of it is taken up until
//! the newest segment of last time has come again, the same. So a peer that replays an old state gets nothing done.

use crate::error::RunError;
use sealift_proto::keys::VerifyKey;
use sealift_proto::limits::DEAD_PEER_TIMEOUT_MS;
use sealift_proto::manifest::{Mark, SegmentSeq, inspect};
use sealift_proto::wire::CloseCode;
use sealift_store::{ManifestSpool, Replica};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// See the module.
pub struct Arrivals {
    key: VerifyKey,
    spool: ManifestSpool,
    accepted: Option<Mark>,
    state: State,
    /// Segments in the spool that were taken up.
    taken: usize,
    next: SegmentSeq,
    last: Instant,
    /// Segments for which the disk has no room, and since when. No more are asked for meanwhile.
    without_room: VecDeque<Vec<u8>>,
    full_since: Option<Instant>,
}

enum State {
    /// Nothing has come.
    Empty,
    /// What was accepted before has not come again.
    Behind,
    /// What comes is new, or what follows.
    Current,
}

/// A sender that is behind what was accepted has so long to say more.
const BEHIND_MAX: Duration = Duration::from_millis(DEAD_PEER_TIMEOUT_MS);

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What is in the spool before the segments.
const PREFIX_ITEMS: usize = 1;

impl Arrivals {
    /// Nothing yet.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn new(replica: &Replica, key: VerifyKey, accepted: Option<Mark>) -> io::Result<Self> {
        let mut spool = replica.new_manifest()?;
        spool.append(key.as_bytes())?;
        let (state, last) = (State::Empty, Instant::now());
        let without_room = VecDeque::new();
        Ok(Self {
            key,
            spool,
            accepted,
            state,
            taken: 0,
            next: SegmentSeq(0),
            last,
            without_room,
            full_since: None,
        })
    }

    /// Takes a segment from the wire. It is checked here only as far as that decides whether it is held back.
    ///
    /// # Errors
    /// If it contradicts what was accepted before, or cannot be kept.
    pub fn push(&mut self, segment: &[u8]) -> Result<(), RunError> {
        self.last = Instant::now();
        let hostile = |what: String| RunError::Hostile { code: CloseCode::BadManifest, what };
        if let (State::Empty | State::Behind, Some(mark)) = (&self.state, self.accepted) {
            let (header, hash) = inspect(segment, &self.key).map_err(|error| hostile(error.to_string()))?;
            let sequence = header.sequence;
            if header.epoch < mark.epoch {
                return Err(hostile(format!(
                    "rollback: segment {sequence} is of an older epoch than was accepted"
                )));
            }
            let is_fork = header.epoch == mark.epoch && sequence == mark.sequence && hash != mark.hash;
            if is_fork {
                return Err(hostile(format!("fork: two different segments are numbered {sequence}")));
            }
            if let State::Behind = self.state
                && header.snapshot
            {
                return Err(if sequence >= self.next {
                    RunError::NewSnapshot
                } else {
                    hostile(format!("rollback: segment {sequence} was sent before"))
                });
            }
            let behind = header.epoch == mark.epoch && sequence <= mark.sequence;
            self.state = if behind && sequence < mark.sequence { State::Behind } else { State::Current };
            self.next = SegmentSeq(sequence.0.saturating_add(1));
        } else {
            self.state = State::Current;
        }
        self.keep(segment)
    }

    /// Puts a segment into the spool, or keeps it in memory while the disk is full: no more than were asked for.
    fn keep(&mut self, segment: &[u8]) -> Result<(), RunError> {
        if self.without_room.is_empty() {
            match self.spool.append(segment) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => self.full_since = Some(Instant::now()),
                Err(error) => return Err(self.not_kept(segment, &error)),
            }
        }
        self.without_room.push_back(segment.to_vec());
        Ok(())
    }

    /// Since when segments wait for room.
    pub fn full_since(&self) -> Option<Instant> {
        self.full_since
    }

    /// Tries again to keep what had no room. Whether there is room for all of it now.
    ///
    /// # Errors
    /// If it cannot be kept for another reason.
    pub fn make_room(&mut self) -> Result<bool, RunError> {
        while let Some(segment) = self.without_room.front() {
            match self.spool.append(segment) {
                Ok(()) => drop(self.without_room.pop_front()),
                Err(error) if is_full(&error) => return Ok(false),
                Err(error) => return Err(self.not_kept(segment, &error)),
            }
        }
        self.full_since = None;
        Ok(true)
    }

    fn not_kept(&self, segment: &[u8], error: &io::Error) -> RunError {
        match error.kind() {
            // Too short or too long for one, or one too many.
            io::ErrorKind::InvalidInput => {
                let what = match inspect(segment, &self.key) {
                    Err(error) => error.to_string(),
                    Ok(_) => "the manifest has more segments than a manifest may have".to_owned(),
                };
                RunError::Hostile { code: CloseCode::BadManifest, what }
            }
            _ => RunError::Failed(format!("cannot keep the manifest: {error}")),
        }
    }

    /// The next segment to be taken up, if it may be.
    ///
    /// # Errors
    /// If it cannot be read back.
    pub fn pop(&mut self) -> Result<Option<Vec<u8>>, RunError> {
        if !matches!(self.state, State::Current) {
            return Ok(None);
        }
        let segment = self
            .spool
            .segment(PREFIX_ITEMS + self.taken)
            .map_err(|error| RunError::Failed(format!("cannot read the manifest back: {error}")))?;
        self.taken += usize::from(segment.is_some());
        Ok(segment)
    }

    /// Segments that were not taken up.
    pub fn waiting(&self) -> usize {
        self.spool.len() - PREFIX_ITEMS - self.taken + self.without_room.len()
    }

    /// Whether what comes is held back.
    pub fn is_behind(&self) -> bool {
        matches!(self.state, State::Behind)
    }

    /// Finds out a sender that offers an older state than was accepted, and no more.
    ///
    /// # Errors
    /// If that is so.
    pub fn check(&self) -> Result<(), RunError> {
        match self.accepted {
            Some(mark) if self.is_behind() && self.last.elapsed() >= BEHIND_MAX => {
                let what = format!(
                    "rollback: it offers an older state than this destination has accepted (up to segment {})",
                    mark.sequence
                );
                Err(RunError::Hostile { code: CloseCode::BadManifest, what })
            }
            _ => Ok(()),
        }
    }

    /// What was not taken up comes again over the next connection.
    pub fn next_after_loss(&self, taken_up: SegmentSeq) -> SegmentSeq {
        match self.state {
            State::Current => {
                // What lies in the spool stays there.
                SegmentSeq(taken_up.0 + self.waiting() as u64)
            }
            State::Empty | State::Behind => self.next,
        }
    }

    /// Makes it the replica's manifest.
    ///
    /// # Errors
    /// If it is not on the disk.
    pub fn commit(self) -> io::Result<()> {
        self.spool.commit()
    }
}
