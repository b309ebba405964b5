//! Serves what a receiver has to other receivers of the same job, on a port of its own, as a sender serves a source.
//!
//! Owns the sessions of one snapshot: when the sender begins anew, another share begins with it.

use super::ReplicaShelf;
use crate::discovery::{self, DiscoveryOptions};
use crate::error::RunError;
use crate::report::{Event, Reporter};
use crate::send::log::ManifestLog;
use crate::send::serve::{self, Happened, Serving};
use crate::send::shelf::Shelf;
use crate::send::{bind, offers};
use crate::shards::Shards;
use sealift_net::{Acceptor, AcceptorOptions, Cipher, Limiter, Listener, News, ServedJob, Transport};
use sealift_proto::keys::RoSecret;
use sealift_proto::limits::SWARM_PEERS_MAX;
use sealift_proto::manifest::{SegmentHash, SegmentSeq};
use sealift_proto::member::{Label, NodeId};
use sealift_proto::wire::Member;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// News of those who are served that may wait.
const HAPPENED_MAX: usize = 64;
/// Data connections that one of those who are served may have.
const CONNECTIONS_MAX: usize = 4;
/// How long those who are served may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Between two looks whether they have.
const GOODBYE_TICK: Duration = Duration::from_millis(10);

/// How a receiver takes part in a swarm.
#[derive(Clone, Debug)]
pub struct SwarmOptions {
    /// Whether it serves others, and fetches from them.
    pub share: bool,
    /// Where it serves them.
    pub bind: Option<SocketAddr>,
    /// Where it stands in the network.
    pub label: Label,
    /// When all is here, others are served until none of them has asked for anything for so long.
    pub stay: Duration,
}

impl SwarmOptions {
    /// Of a receiver that fetches from the sender alone, and serves nobody.
    #[must_use]
    pub fn none() -> Self {
        Self { share: false, bind: None, label: Label::default(), stay: Duration::ZERO }
    }
}

/// What a receiver that serves keeps from one snapshot to the next.
pub struct Swarm {
    /// How it takes part.
    pub options: SwarmOptions,
    /// Who it is.
    pub member: Member,
    listener: Arc<Listener>,
    transport: Transport,
    acceptor_options: AcceptorOptions,
}

impl Swarm {
    /// Listens for others.
    ///
    /// # Errors
    /// If that cannot be done where it was asked for.
    pub fn listen(options: SwarmOptions, transport: Transport) -> Result<Self, RunError> {
        let failed = |error| RunError::Failed(format!("no randomness for a name: {error}"));
        let acceptor_options = AcceptorOptions::new().map_err(failed)?;
        let bind = |address| bind(address, transport, &acceptor_options.gate);
        let listener = match options.bind {
            Some(_) => bind(options.bind)?,
            None => bind(None).or_else(|_| {
                // The port is taken: any other does.
                bind(Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))))
                    .or_else(|_| bind(Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))))
            })?,
        };
        let port = listener.local_addr().port();
        let member = Member { node: new_node().map_err(failed)?, port, label: options.label.clone() };
        Ok(Self { options, member, listener: Arc::new(listener), transport, acceptor_options })
    }
}

/// A name for this run.
///
/// # Errors
/// If there is no randomness.
pub fn new_node() -> io::Result<NodeId> {
    let mut node = [0; 16];
    getrandom::fill(&mut node).map_err(io::Error::other)?;
    Ok(NodeId(node))
}

/// See the module.
pub struct Share {
    serving: Arc<Serving>,
    shelf: Arc<ReplicaShelf>,
    log: Arc<ManifestLog>,
    next: SegmentSeq,
    goodbyes: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    /// Bytes that were served to those who have gone.
    served: Arc<AtomicU64>,
    /// Bytes served when it was looked last, and when they grew.
    activity: (u64, Instant),
    /// Says on the local network and to a tracker that this receiver serves, until it is dropped.
    _announced: JoinSet<()>,
    /// Where others were found in the same way.
    found: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Share {
    /// Begins to serve a snapshot, no faster than the limit.
    ///
    /// # Errors
    /// If there is no randomness, or no temporary file can be made.
    pub fn start(
        swarm: &Swarm,
        discovery: &DiscoveryOptions,
        ro: RoSecret,
        limiter: Arc<Limiter>,
        shards: &Arc<Shards>,
        reporter: &Arc<Reporter>,
        (shelf, snapshot): (Arc<ReplicaShelf>, SegmentSeq),
    ) -> Result<Self, RunError> {
        let failed = |error: io::Error| RunError::Failed(format!("cannot serve others: {error}"));
        let log = Arc::new(ManifestLog::of_another(snapshot).map_err(failed)?);
        let goodbyes = watch::Sender::new(false);
        let (happened, news) = mpsc::channel(HAPPENED_MAX);
        let found: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let announced = announce(swarm, discovery, &ro, Arc::clone(&found), reporter)?;
        let job = ServedJob { ro, cipher: Cipher::Aes256Gcm };
        let serving = Arc::new(Serving {
            acceptor: Acceptor::new(vec![job], swarm.acceptor_options.clone()),
            shelf: Shelf::Replica(Arc::clone(&shelf)),
            log: Arc::clone(&log),
            member: swarm.member.clone(),
            members: watch::Sender::new(()),
            finished: Mutex::default(),
            happened,
            limiter,
            connections_max: CONNECTIONS_MAX,
            ending: goodbyes.subscribe(),
            sessions: Mutex::default(),
            reporter: Arc::clone(reporter),
            unreadable: Mutex::default(),
        });
        let served = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(
            Arc::clone(&swarm.listener),
            Arc::clone(&serving),
            Arc::clone(shards),
            news,
            Arc::clone(&served),
        ));
        let activity = (0, Instant::now());
        let next = snapshot;
        let _announced = announced;
        Ok(Self { serving, shelf, log, next, goodbyes, accepting, served, activity, _announced, found })
    }

    /// What is served.
    pub fn shelf(&self) -> &Arc<ReplicaShelf> {
        &self.shelf
    }

    /// Where others were found since it was asked last.
    pub fn take_found(&self) -> Vec<SocketAddr> {
        std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next segment was verified.
    ///
    /// # Errors
    /// If it cannot be kept. Then no more of the manifest is served.
    pub fn add_segment(&mut self, segment: &[u8]) -> io::Result<()> {
        self.log.append(self.next, SegmentHash::NONE, segment)?;
        self.next.0 += 1;
        Ok(())
    }

    /// Bytes of content that were served.
    pub fn served_bytes(&self) -> u64 {
        let sessions = self.serving.sessions();
        let now: u64 = sessions.values().map(|serve| serve.sent_bytes.load(Ordering::Relaxed)).sum();
        now + self.served.load(Ordering::Relaxed)
    }

    /// How long nobody has been given anything, or come.
    pub fn idle_for(&mut self) -> Duration {
        let served = self.served_bytes();
        if served != self.activity.0 {
            self.activity = (served, Instant::now());
        }
        self.activity.1.elapsed()
    }

    /// Says goodbye to those who are served, and waits until they have gone, or a little.
    pub async fn end(self) {
        self.accepting.abort();
        self.goodbyes.send_replace(true);
        let gone = async {
            while !self.serving.sessions().is_empty() {
                tokio::time::sleep(GOODBYE_TICK).await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, gone).await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.accepting.abort();
        self.goodbyes.send_replace(true);
    }
}

/// Says that this receiver serves, and gathers where others do: no more addresses than are remembered at all.
fn announce(
    swarm: &Swarm,
    options: &DiscoveryOptions,
    ro: &RoSecret,
    found: Arc<Mutex<Vec<SocketAddr>>>,
    reporter: &Arc<Reporter>,
) -> Result<JoinSet<()>, RunError> {
    let listens = (swarm.listener.local_addr(), offers(swarm.transport));
    let mut discovery = discovery::start(options, ro, Some(listens))?;
    let reporter = Arc::clone(reporter);
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            match discovery.next().await {
                News::Found(candidate) => {
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    if found.len() < SWARM_PEERS_MAX {
                        found.push(candidate.address);
                    }
                }
                News::Trouble(message) => reporter.tell(&Event::Warning { message }),
            }
        }
    });
    Ok(task)
}

/// Passes those who come to the shards, and counts what those who go were given.
async fn accept(
    listener: Arc<Listener>,
    serving: Arc<Serving>,
    shards: Arc<Shards>,
    mut news: mpsc::Receiver<Happened>,
    served: Arc<AtomicU64>,
) {
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let serving = Arc::clone(&serving);
                if shards.spawn(move |io| serve::serve(io, serving, incoming)).await.is_err() {
                    return;
                }
            }
            happened = news.recv() => match happened {
                Some(Happened::Finished(_, _, bytes) | Happened::Lost(_, _, bytes)) => {
                    served.fetch_add(bytes, Ordering::Relaxed);
                }
                Some(Happened::Connected(..) | Happened::Refused(..)) => {}
                None => return,
            },
        }
    }
}
