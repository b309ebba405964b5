//! The member's side of a tracker: says where this member is, asks who else is there, and keeps its entry alive.
//!
//! A request goes over TLS, to the tracker that was pinned and no other; heartbeats go over UDP while they are heard, and
//! requests in their place while they are not. The tracker sees where this member comes from, a tag that only members
//! know, and an entry that only they can open.

mod ask;
mod heartbeats;
mod pin;

use crate::discovery::{Core, Days, Goodbye, jittered};
use ask::{Asked, Connection};
use heartbeats::{Heartbeats, Lost};
use sealift_proto::discovery::Place;
use sealift_proto::discovery::tracker::{Answer, Request, Token, Verdict};
use sealift_proto::limits::TRACKER_ANSWER_ENTRIES_MAX;
use sealift_proto::ticket::Address;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// The usual port, of TCP and UDP.
pub const TRACKER_PORT: u16 = 3000;

/// From resolving the tracker's name to the last answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Between tries of a tracker that fails: the first, doubling.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest of them.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Whoever only looks for others asks again after about this, and then half as often each time, as long as the tracker
/// does not want it sooner: the one that is looked for may be about to come.
const ASK_FIRST: Duration = Duration::from_secs(1);
/// What a tracker may choose for the time to the next request: an entry has to be made anew while it is believed.
const AGAIN_S: std::ops::RangeInclusive<u16> = 1..=1800;
/// And between heartbeats.
const HEARTBEAT_S: std::ops::RangeInclusive<u16> = 1..=600;

/// A tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerSettings {
    /// Where it is.
    pub address: Address,
    /// SHA-256 of the certificate of its authority: by this it is known, and by nothing else.
    pub pin: [u8; 32],
}

/// Keeps in touch with a tracker, for as long as it is polled.
pub(crate) async fn run(core: Arc<Core>, settings: TrackerSettings) {
    let mut days = Days::new(&core, Place::Tracker);
    let mut standing = Standing::default();
    let mut retry = RETRY_FIRST;
    let mut patience = ASK_FIRST;
    let mut told = String::new();
    loop {
        let deadline = Instant::now() + ASK_TIMEOUT;
        let asked = timeout_at(deadline, ask(&core, &settings, &mut days, &mut standing)).await;
        let reason = match asked {
            Ok(Ok(mut due)) => {
                told.clear();
                retry = RETRY_FIRST;
                if core.member.listens.is_none() {
                    due.again = due.again.min(jittered(patience));
                    patience = (patience * 2).min(RETRY_MAX);
                }
                stay(&core, &mut standing, due).await;
                continue;
            }
            Ok(Err(Asked::TooOften(again))) => {
                // What is there already is to stay there.
                let due = Due { again: jittered(again), heartbeat: standing.heartbeat };
                stay(&core, &mut standing, due).await;
                continue;
            }
            Ok(Err(Asked::Failed(reason))) => reason,
            Err(_) => "it does not answer in time".to_owned(),
        };
        if told != reason {
            core.trouble(format!("the tracker at {} cannot be used: {reason}", settings.address));
            told = reason;
        }
        sleep(jittered(retry)).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// What is known of the tracker by now.
#[derive(Default)]
struct Standing {
    /// That of our entry there.
    token: Option<Token>,
    /// How often it wants to hear of that.
    heartbeat: Duration,
    /// Our address, as the tracker saw it.
    outside: Option<IpAddr>,
    at: Option<SocketAddr>,
}

/// Until when an answer holds.
struct Due {
    again: Duration,
    heartbeat: Duration,
}

/// Says where this member is and asks who else is there, on one connection.
async fn ask(
    core: &Core,
    settings: &TrackerSettings,
    days: &mut Days,
    standing: &mut Standing,
) -> Result<Due, Asked> {
    let mut connection = Connection::open(settings).await?;
    standing.at = Some(connection.peer());
    let nearby = connection.peer().ip().is_loopback();
    let wanted = u8::try_from(TRACKER_ANSWER_ENTRIES_MAX).expect("counted in a byte");
    let (today, other) = days.now(core);
    let mut request = Request { tag: today.tag(), token: standing.token.clone(), wanted, entry: None };
    let listens = core.member.listens.is_some();
    if listens {
        request.entry =
            Some(core.own_entry(today, standing.outside).map_err(|error| Asked::Failed(error.to_string()))?);
    }
    let mut answer = connection.ask(&request).await?;
    let seen = Some(answer.seen).filter(|seen| !seen.is_loopback() && Some(*seen) != standing.outside);
    if listens && seen.is_some_and(|seen| !(core.member.addresses)().contains(&seen)) {
        // Others find this member where the tracker does, if it says so itself.
        standing.outside = seen;
        standing.keep(&answer);
        request.token = answer.token.take();
        request.entry =
            Some(core.own_entry(today, standing.outside).map_err(|error| Asked::Failed(error.to_string()))?);
        answer = connection.ask(&request).await?;
    }
    for sealed in &answer.entries {
        core.take(Place::Tracker, today, sealed, nearby);
    }
    if let Some(other) = other {
        let request = Request { tag: other.tag(), token: None, wanted, entry: None };
        for sealed in &connection.ask(&request).await?.entries {
            core.take(Place::Tracker, other, sealed, nearby);
        }
    }
    connection.close().await;
    if answer.verdict == Verdict::Full {
        core.trouble(format!("the tracker at {} is full: this member is not in it", settings.address));
    }
    standing.keep(&answer);
    Ok(Due { again: seconds(answer.again_s, &AGAIN_S), heartbeat: standing.heartbeat })
}

impl Standing {
    fn keep(&mut self, answer: &Answer) {
        self.token.clone_from(&answer.token);
        self.heartbeat = seconds(answer.heartbeat_s, &HEARTBEAT_S);
    }
}

fn seconds(value: u16, range: &std::ops::RangeInclusive<u16>) -> Duration {
    Duration::from_secs(value.clamp(*range.start(), *range.end()).into())
}

/// Keeps the entry alive until it is time to ask again, or the tracker no longer hears.
async fn stay(core: &Core, standing: &mut Standing, due: Due) {
    let again_at = Instant::now() + due.again;
    let (Some(token), Some(at)) = (&standing.token, standing.at) else {
        return sleep_until(again_at).await;
    };
    let begun = Heartbeats::new(at, token.clone(), due.heartbeat);
    let ended = async {
        match begun {
            Ok(mut heartbeats) => {
                core.set_goodbyes(heartbeats.goodbye().into_iter().collect());
                heartbeats.run().await
            }
            // Without UDP the entry is kept by requests.
            Err(_) => {
                sleep(due.heartbeat * 2).await;
                Lost
            }
        }
    };
    tokio::select! {
        Lost = ended => {}
        () = sleep_until(again_at) => {}
    }
}

/// Binds a socket that sends to one address and hears from it alone.
fn socket_to(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let any: IpAddr = match at {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl Heartbeats {
    /// What is sent when this member goes.
    fn goodbye(&self) -> Option<Goodbye> {
        let (socket, datagram) = self.leaving().ok()?;
        Some(Goodbye { socket, datagram })
    }
}
