//! Finds the members of a job, and tells them where this one is: by a tracker, on the local network, or both.
//!
//! What others say is opened with keys of the job; what does not open is counted and forgotten. Addresses of what opens
//! are given to be dialled: each once in a while, and not too many. That an address answers as a member is for the
//! handshake to find out. Ends, and says goodbye, when it is dropped.

use crate::lan::{self, LanSettings};
use crate::tag::Clock;
use crate::tracker::{self, TrackerSettings};
use sealift_proto::discovery::{
    Candidate, Candidates, DayKeys, DiscoveryKey, ENTRY_NONCE_BYTES, Entry, EntryFault, NodeId, Offers,
    Place, SealedEntry, day_of, days_around,
};
use std::fmt;
use std::future::pending;
use std::net::{IpAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// News that may wait; while they do, nothing more is given.
const NEWS_MAX: usize = 64;

/// By what members are looked for; without any of it nobody is.
#[derive(Clone, Debug, Default)]
pub struct DiscoverySettings {
    /// A tracker.
    pub tracker: Option<TrackerSettings>,
    /// The local network.
    pub lan: Option<LanSettings>,
}

/// The addresses that this host has now.
pub type OwnAddresses = Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>;

/// What is said of this member.
#[derive(Clone)]
pub struct Member {
    /// Its name: random, and new in each run.
    pub node: NodeId,
    /// Where it listens, and by what; `None` if it only looks for others.
    pub listens: Option<(u16, Offers)>,
    /// On which addresses. Asked for whenever something is said.
    pub addresses: OwnAddresses,
}

impl Member {
    /// A member of a random name.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new(listens: Option<(u16, Offers)>, addresses: OwnAddresses) -> std::io::Result<Self> {
        Ok(Self { node: NodeId(random()?), listens, addresses })
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("node", &self.node)
            .field("listens", &self.listens)
            .finish_non_exhaustive()
    }
}

/// What is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A member that may be dialled.
    Found(Candidate),
    /// Why members are not found, for people. It is tried again.
    Trouble(String),
}

/// What has come in so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryCounts {
    /// Entries of members, this one's own not among them.
    pub heard: u64,
    /// Entries under a tag of the job that nobody made who holds its key, or that make no sense.
    pub forged: u64,
    /// Authentic entries of another time: clocks that differ, or a replay.
    pub stale: u64,
    /// Datagrams that were not looked at, since too many came.
    pub dropped: u64,
}

/// A search that goes on until it is dropped.
#[derive(Debug)]
pub struct Discovery {
    news: mpsc::Receiver<News>,
    core: Arc<Core>,
    _tasks: JoinSet<()>,
}

impl Discovery {
    /// Begins.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O. The search belongs to that runtime.
    #[must_use]
    pub fn start(settings: DiscoverySettings, key: DiscoveryKey, member: Member) -> Self {
        Self::start_with(settings, key, member, Clock::system())
    }

    /// Begins, by another clock.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(settings: DiscoverySettings, key: DiscoveryKey, member: Member, clock: Clock) -> Self {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        let core = Arc::new(Core {
            candidates: Mutex::new(Candidates::new(member.node)),
            key,
            member,
            clock,
            begun: Instant::now(),
            changed: Notify::new(),
            tell,
            goodbyes: Mutex::default(),
            heard: AtomicU64::new(0),
            forged: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        if let Some(lan) = settings.lan {
            tasks.spawn(lan::run(Arc::clone(&core), lan));
        }
        if let Some(tracker) = settings.tracker {
            tasks.spawn(tracker::run(Arc::clone(&core), tracker));
        }
        tasks.spawn(give(Arc::clone(&core)));
        Self { news, core, _tasks: tasks }
    }

    /// What is found out next. Waits for ever if nothing is looked for. Cancel-safe.
    pub async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => pending().await,
        }
    }

    /// What has come in so far.
    #[must_use]
    pub fn counts(&self) -> DiscoveryCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Core { heard, forged, stale, dropped, .. } = &*self.core;
        DiscoveryCounts { heard: get(heard), forged: get(forged), stale: get(stale), dropped: get(dropped) }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        for goodbye in self.core.goodbyes().drain(..) {
            // Without an answer: if it is lost, the entry is forgotten a little later.
            let _ = goodbye.socket.send(&goodbye.datagram);
        }
    }
}

/// A datagram to be sent at the end. Its socket does not block.
pub(crate) struct Goodbye {
    pub(crate) socket: UdpSocket,
    pub(crate) datagram: Vec<u8>,
}

/// What the tasks of one search share.
pub(crate) struct Core {
    key: DiscoveryKey,
    pub(crate) member: Member,
    clock: Clock,
    begun: Instant,
    candidates: Mutex<Candidates>,
    changed: Notify,
    tell: mpsc::Sender<News>,
    goodbyes: Mutex<Vec<Goodbye>>,
    heard: AtomicU64,
    forged: AtomicU64,
    stale: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("member", &self.member).finish_non_exhaustive()
    }
}

impl Core {
    /// What is said at the end from now on.
    pub(crate) fn set_goodbyes(&self, goodbyes: Vec<Goodbye>) {
        *self.goodbyes() = goodbyes;
    }

    fn goodbyes(&self) -> MutexGuard<'_, Vec<Goodbye>> {
        self.goodbyes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn candidates(&self) -> MutexGuard<'_, Candidates> {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Where this member is, sealed for today. `outside` is an address of which others say that it is ours.
    pub(crate) fn own_entry(&self, keys: &DayKeys, outside: Option<IpAddr>) -> std::io::Result<SealedEntry> {
        let now_s = self.clock.now_s();
        let entry = match self.member.listens {
            Some((port, offers)) => {
                let mut ips: Vec<_> = outside.into_iter().collect();
                ips.extend((self.member.addresses)());
                Entry::listening(self.member.node, now_s, port, offers, &ips)
            }
            None => Entry::looking(self.member.node, now_s),
        };
        Ok(keys.seal(&entry, random::<ENTRY_NONCE_BYTES>()?))
    }

    /// Takes up what came under a tag of the job. `nearby`: it came from this host. The member, if it is another one.
    pub(crate) fn take(
        &self,
        place: Place,
        keys: &DayKeys,
        sealed: &SealedEntry,
        nearby: bool,
    ) -> Option<NodeId> {
        match keys.open(sealed, self.clock.now_s()) {
            Ok(entry) => {
                let another = self.candidates().hear(&entry, place, nearby, self.now_ms());
                if !another {
                    return None;
                }
                self.heard.fetch_add(1, Ordering::Relaxed);
                self.changed.notify_one();
                Some(entry.node)
            }
            Err(EntryFault::NotOfThisTime) => {
                self.stale.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(EntryFault::NotAuthentic | EntryFault::Malformed) => {
                self.forged.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Tells people, if they listen.
    pub(crate) fn trouble(&self, what: String) {
        let _ = self.tell.try_send(News::Trouble(what));
    }
}

/// The keys of the days that count now, made anew when they change.
pub(crate) struct Days {
    place: Place,
    days: RangeInclusive<u64>,
    keys: Vec<DayKeys>,
}

impl Days {
    pub(crate) fn new(core: &Core, place: Place) -> Self {
        let now_s = core.clock.now_s();
        Self { place, days: days_around(now_s), keys: core.key.days(place, now_s) }
    }

    /// The keys of today and of the other day, if two count.
    pub(crate) fn now(&mut self, core: &Core) -> (&DayKeys, Option<&DayKeys>) {
        let now_s = core.clock.now_s();
        if days_around(now_s) != self.days {
            *self = Self::new(core, self.place);
        }
        let today = usize::from(day_of(now_s) != *self.days.start());
        let other = self.keys.iter().enumerate().find(|(at, _)| *at != today);
        (&self.keys[today], other.map(|(_, keys)| keys))
    }
}

/// Gives candidates when it is time, one after another.
async fn give(core: Arc<Core>) {
    loop {
        let next_ms = core.candidates().next_ms();
        let due = next_ms.map(|ms| core.begun + Duration::from_millis(ms));
        let time = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = time => {}
            () = core.changed.notified() => continue,
        }
        let candidate = core.candidates().give(core.now_ms());
        if let Some(candidate) = candidate
            && core.tell.send(News::Found(candidate)).await.is_err()
        {
            return;
        }
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}

/// A time between half of `around` and one and a half of it, so that many members do nothing in step.
pub(crate) fn jittered(around: Duration) -> Duration {
    // Without randomness there is no jitter, and nothing worse.
    let random = random().map_or(u32::MAX / 2, u32::from_le_bytes);
    around / 2 + around.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
