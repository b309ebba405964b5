//! Who has said what, by tag: bounded in all, for each job and for each address.

use sealift_proto::discovery::tracker::{Beat, EntryId, HEARD_BYTES, Heartbeat, Request, Token, heard};
use sealift_proto::discovery::{DiscoveryTag, SealedEntry};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Entries in all: about 32 MiB.
const ENTRIES_MAX: usize = 65_536;
/// Entries of one job.
const ENTRIES_OF_TAG_MAX: usize = 4096;
/// Entries from one address: an eighth of all. Many members may be behind one.
const ENTRIES_OF_ADDRESS_MAX: usize = ENTRIES_MAX / 8;

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What members have said.
pub(super) struct Table {
    entries: HashMap<EntryId, Kept>,
    of_tag: HashMap<DiscoveryTag, Vec<EntryId>>,
    of_address: HashMap<IpAddr, usize>,
    forget_after: Duration,
}

struct Kept {
    token: Token,
    tag: DiscoveryTag,
    entry: SealedEntry,
    from: IpAddr,
    heard_at: Instant,
    /// Of the last heartbeat.
    counter: u64,
}

impl Table {
    pub(super) fn new(forget_after: Duration) -> Self {
        Self { entries: HashMap::new(), of_tag: HashMap::new(), of_address: HashMap::new(), forget_after }
    }

    /// Keeps an entry, in the place of the one whose token comes with it.
    pub(super) fn tell(
        &mut self,
        request: &Request,
        entry: SealedEntry,
        from: IpAddr,
        now: Instant,
    ) -> Result<Result<Token, Full>, getrandom::Error> {
        if let Some(token) = &request.token
            && self.entries.get(&token.id).is_some_and(|kept| kept.token.is(token))
        {
            self.remove(token.id);
        }
        let of_tag = self.of_tag.get(&request.tag).map_or(0, Vec::len);
        let of_address = self.of_address.get(&from).copied().unwrap_or(0);
        if self.entries.len() >= ENTRIES_MAX
            || of_tag >= ENTRIES_OF_TAG_MAX
            || of_address >= ENTRIES_OF_ADDRESS_MAX
        {
            return Ok(Err(Full));
        }
        let mut random = zeroize::Zeroizing::new([0; 48]);
        getrandom::fill(random.as_mut())?;
        let (id, key) = random.split_first_chunk().expect("48 bytes");
        let token = Token::new(*id, key.first_chunk().expect("32 of them"));
        let kept = Kept { token: token.clone(), tag: request.tag, entry, from, heard_at: now, counter: 0 };
        self.entries.insert(token.id, kept);
        self.of_tag.entry(request.tag).or_default().push(token.id);
        *self.of_address.entry(from).or_default() += 1;
        Ok(Ok(token))
    }

    /// Entries of a job, drawn from all of them but one.
    pub(super) fn others(
        &self,
        tag: DiscoveryTag,
        but: Option<EntryId>,
        wanted: usize,
    ) -> Result<Vec<SealedEntry>, getrandom::Error> {
        let Some(ids) = self.of_tag.get(&tag) else { return Ok(Vec::new()) };
        let mut ids: Vec<_> = ids.iter().copied().filter(|id| Some(*id) != but).collect();
        let wanted = wanted.min(ids.len());
        for at in 0..wanted {
            let mut random = [0; 8];
            getrandom::fill(&mut random)?;
            // Of so few the bias is nothing.
            let drawn = u64::from_le_bytes(random) % (ids.len() - at) as u64;
            ids.swap(at, at + usize::try_from(drawn).expect("below a length"));
        }
        Ok(ids[..wanted].iter().filter_map(|id| self.entries.get(id)).map(|kept| kept.entry).collect())
    }

    /// Takes a heartbeat, if it is of the entry's owner and no repetition. The answer to it.
    pub(super) fn beat(&mut self, heartbeat: &Heartbeat, now: Instant) -> Option<[u8; HEARD_BYTES]> {
        let kept = self.entries.get_mut(&heartbeat.id)?;
        if !heartbeat.is_of(&kept.token) || heartbeat.counter <= kept.counter {
            return None;
        }
        kept.counter = heartbeat.counter;
        kept.heard_at = now;
        let answer = heard(&kept.token, heartbeat.counter);
        if heartbeat.beat == Beat::Leave {
            self.remove(heartbeat.id);
        }
        Some(answer)
    }

    /// Forgets those of whom nothing was heard for too long.
    pub(super) fn forget(&mut self, now: Instant) {
        let silent = |kept: &Kept| now.saturating_duration_since(kept.heard_at) > self.forget_after;
        let gone: Vec<_> = self.entries.iter().filter(|(_, kept)| silent(kept)).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: EntryId) {
        let Some(kept) = self.entries.remove(&id) else { return };
        if let Some(ids) = self.of_tag.get_mut(&kept.tag) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.of_tag.remove(&kept.tag);
            }
        }
        if let Some(count) = self.of_address.get_mut(&kept.from) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&kept.from);
            }
        }
    }
}

#[cfg(test)]
mod tests;
