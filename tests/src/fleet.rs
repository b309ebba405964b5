//! Many agents in one process: real TLS 1.3 with client certificates, the real channel, no disks and no data.
//!
//! For what a thousand of them are to the daemon. They enrol with a token as others do, say Hello, acknowledge documents,
//! and report each assignment twice a second with a sign of life beside it, until they are told to be done. They don't
//! replicate anything: a source names an address on which nobody listens.

mod member;
mod puppet;
mod upload;

pub use puppet::Puppet;
pub use upload::Upload;

use crate::control::Daemon;
use member::{Member, dial};
use rcgen::{CertificateParams, KeyPair};
use sealift_api::agent::enrolment_client::EnrolmentClient;
use sealift_api::agent::{EnrolRequest, HostFacts};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// The group of all of them but the first, which is `agent-0`.
pub const GROUP: &str = "fleet";
/// Handshakes at a time: the daemon lets half a hundred from one address.
const HANDSHAKES_MAX: usize = 16;
/// Enrolments at a time.
const ENROLMENTS_MAX: usize = 32;

/// The agents, enrolled and connected.
pub struct Fleet {
    runtime: Runtime,
    tasks: JoinSet<()>,
    told: watch::Sender<Order>,
    counts: Arc<Counts>,
}

/// What agents are to do with what is assigned to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Report how far it is, which is ever farther.
    GoOn,
    /// It is done.
    BeDone,
}

/// What they have said and heard, in all.
#[derive(Debug, Default)]
pub struct Counts {
    /// Who has a document.
    pub connected: AtomicU64,
    /// Reports of progress.
    pub progress: AtomicU64,
    /// Signs of life: reports with nothing in them.
    pub heartbeats: AtomicU64,
    /// Events told.
    pub events: AtomicU64,
    /// Events that the daemon says it keeps.
    pub events_kept: AtomicU64,
    /// Connections that ended.
    pub lost: AtomicU64,
    /// They are to end, and connections may.
    ending: AtomicBool,
}

impl Fleet {
    /// Enrols so many, and connects them.
    ///
    /// # Panics
    /// If any is refused.
    #[must_use]
    pub fn start(daemon: &Daemon, count: u32, every: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let token = |name: &str, uses: u32, group: Option<&str>| {
            let new = json!({ "name": name, "uses": uses, "approve": true, "group": group, "expires_in_seconds": 3600 });
            let made = daemon.api("POST", "enrolment-tokens", new);
            made["secret"].as_str().expect("a secret").to_owned()
        };
        let (first, others) = (token("first", 1, None), token("others", count - 1, Some(GROUP)));
        let token_of = |at: u32| if at == 0 { first.clone() } else { others.clone() };
        let wanted = (0..count).map(|at| (format!("agent-{at}"), token_of(at))).collect();
        let members = runtime.block_on(enrol(daemon, wanted));
        let counts = Arc::new(Counts::default());
        let (told, orders) = watch::channel(Order::GoOn);
        let mut tasks = JoinSet::new();
        let doors = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        for (at, member) in members.into_iter().enumerate() {
            let (doors, orders, counts) = (Arc::clone(&doors), orders.clone(), Arc::clone(&counts));
            // Spread over the interval, as those of different hosts are.
            let offset = every * u32::try_from(at).expect("few") / count;
            tasks.spawn_on(member.live(doors, orders, counts, every, offset), runtime.handle());
        }
        Self { runtime, tasks, told, counts }
    }

    /// What they have said and heard.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What is assigned to them is done.
    pub fn be_done(&self) {
        self.told.send_replace(Order::BeDone);
    }

    /// They go away.
    pub fn end(mut self) {
        self.counts.ending.store(true, Ordering::Relaxed);
        self.runtime.block_on(self.tasks.shutdown());
    }
}

/// Enrols all of them, over one connection.
async fn enrol(daemon: &Daemon, wanted: Vec<(String, String)>) -> Vec<Member> {
    let mut tls = (*daemon.tls()).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let channel = dial(daemon.agents, Arc::new(tls)).await.expect("the daemon can be reached");
    let turns = Arc::new(Semaphore::new(ENROLMENTS_MAX));
    let mut tasks = JoinSet::new();
    for (at, (name, token)) in wanted.into_iter().enumerate() {
        let (mut client, turns) = (EnrolmentClient::new(channel.clone()), Arc::clone(&turns));
        let (daemon, authority) = (daemon.agents, daemon.tls());
        tasks.spawn(async move {
            let _turn = turns.acquire().await.expect("it is never closed");
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.clone()]).expect("a name");
            let csr = params.serialize_request(&key).expect("a request").der().to_vec();
            let host = Some(HostFacts { hostname: name.clone(), cores: 1, ..HostFacts::default() });
            let reply = client.enrol(EnrolRequest { token, name, csr, host }).await;
            let reply = reply.expect("the daemon lets it in").into_inner();
            (at, Member::new(daemon, &authority, &key, reply))
        });
    }
    let mut members = tasks.join_all().await;
    members.sort_by_key(|(at, _)| *at);
    members.into_iter().map(|(_, member)| member).collect()
}
