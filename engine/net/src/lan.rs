//! Discovery on the local network: datagrams to everybody on it, and what others send so.
//!
//! Every process of a host shares the port. What comes in costs a look at its tag, and an opening if that is the job's;
//! there is a limit to how many are opened. Nothing is answered: a member that hears of another for the first time only
//! says a little sooner where it is itself.

use crate::discovery::{Core, Days, jittered};
use sealift_proto::discovery::lan::{DATAGRAM_BYTES, Datagram};
use sealift_proto::discovery::{NodeId, Place};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until};

/// The usual port.
pub const LAN_PORT: u16 = 3838;

/// Between what a member says of itself; drawn from half of it to one and a half.
const INTERVAL: Duration = Duration::from_secs(30);
/// At the beginning it says so sooner: datagrams get lost.
const FIRST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// About when it says so again after hearing of a new member.
const SOON: Duration = Duration::from_millis(200);
/// Between two times, whatever is heard.
const GAP_MIN: Duration = Duration::from_secs(2);
/// Members that are remembered as not new.
const NODES_MAX: usize = 1024;
/// Datagrams under a tag of the job that are opened in a second.
const OPENED_PER_SECOND: u32 = 256;
/// Networks to which it is said.
const TARGETS_MAX: usize = 32;
/// After an error of the socket.
const AGAIN: Duration = Duration::from_secs(30);

/// How to use the local network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanSettings {
    /// The port on which members hear each other.
    pub port: u16,
    /// The addresses to send to; `None`: the broadcast address of each network that this host is on.
    pub targets: Option<Vec<Ipv4Addr>>,
}

impl Default for LanSettings {
    fn default() -> Self {
        Self { port: LAN_PORT, targets: None }
    }
}

impl LanSettings {
    fn targets(&self) -> Vec<SocketAddr> {
        let mut ips = self.targets.clone().unwrap_or_else(|| {
            let interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
            let broadcast = |interface: if_addrs::Interface| match interface.addr {
                if_addrs::IfAddr::V4(address) if !address.is_loopback() => address.broadcast,
                _ => None,
            };
            interfaces.filter_map(broadcast).collect()
        });
        ips.sort();
        ips.dedup();
        ips.truncate(TARGETS_MAX);
        ips.into_iter().map(|ip| SocketAddr::from((ip, self.port))).collect()
    }
}

/// Says and hears, for as long as it is polled.
pub(crate) async fn run(core: Arc<Core>, settings: LanSettings) {
    let mut told = false;
    loop {
        let error = match bind(settings.port) {
            Ok(socket) => talk(&core, &settings, &socket).await,
            Err(error) => error,
        };
        if !std::mem::replace(&mut told, true) {
            core.trouble(format!("no discovery on the local network (UDP {}): {error}", settings.port));
        }
        sleep(AGAIN).await;
    }
}

fn bind(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // What is broadcast goes to every socket on the port, of whatever user.
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    UdpSocket::from_std(socket.into())
}

/// What one socket carries, until it fails.
async fn talk(core: &Core, settings: &LanSettings, socket: &UdpSocket) -> io::Error {
    let mut days = Days::new(core, Place::Lan);
    let mut nodes = HashSet::new();
    let mut opened = Opened::new();
    let mut first = FIRST.into_iter();
    let mut said_at: Option<Instant> = None;
    let mut say_at = Instant::now();
    // One byte more than there may be, so that a longer one is seen to be longer.
    let mut buffer = [0; DATAGRAM_BYTES + 1];
    loop {
        tokio::select! {
            () = sleep_until(say_at) => {
                if let Err(error) = say(core, settings, socket, &mut days).await {
                    return error;
                }
                let now = Instant::now();
                said_at = Some(now);
                say_at = now + first.next().unwrap_or_else(|| jittered(INTERVAL));
            }
            received = socket.recv_from(&mut buffer) => {
                let (len, from) = match received {
                    Ok(received) => received,
                    // What an earlier datagram met somewhere.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                    Err(error) => return error,
                };
                let Some(node) = hear(core, &mut days, &mut opened, &buffer[..len], from) else { continue };
                if is_new(&mut nodes, node) {
                    let soon = Instant::now() + jittered(SOON);
                    say_at = say_at.min(said_at.map_or(soon, |said| soon.max(said + GAP_MIN)));
                }
            }
        }
    }
}

/// Whether a member was not heard of before. With too many, all are new again.
fn is_new(nodes: &mut HashSet<NodeId>, node: NodeId) -> bool {
    if nodes.len() >= NODES_MAX {
        nodes.clear();
    }
    nodes.insert(node)
}

async fn say(core: &Core, settings: &LanSettings, socket: &UdpSocket, days: &mut Days) -> io::Result<()> {
    let (today, _) = days.now(core);
    let datagram = Datagram { tag: today.tag(), entry: core.own_entry(today, None)? }.encode();
    for target in settings.targets() {
        // A network that is down now may be up the next time.
        let _ = socket.send_to(&datagram, target).await;
    }
    Ok(())
}

/// The member whose datagram it is, if it is another one's.
fn hear(core: &Core, days: &mut Days, opened: &mut Opened, bytes: &[u8], from: SocketAddr) -> Option<NodeId> {
    let datagram = Datagram::decode(bytes)?;
    let (today, other) = days.now(core);
    let keys = [Some(today), other].into_iter().flatten().find(|keys| keys.tag() == datagram.tag)?;
    if !opened.one_more(Instant::now()) {
        core.dropped.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    core.take(Place::Lan, keys, &datagram.entry, from.ip().is_loopback())
}

/// How many were opened in this second.
struct Opened {
    since: Instant,
    count: u32,
}

impl Opened {
    fn new() -> Self {
        Self { since: Instant::now(), count: 0 }
    }

    /// Whether one more may be.
    fn one_more(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= OPENED_PER_SECOND
    }
}
