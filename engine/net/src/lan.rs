//! Discovery on the local network: datagrams to everybody on it, and what others send so.
//!
//! By IPv4 broadcast, and by IPv6 multicast on each link, each for itself: a host may have either.
//! Every process of a host shares the port. What comes in costs a look at its tag, and an opening if that is the job's;
//! there is a limit to how many are opened. Nothing is answered: a member that hears of another for the first time only
//! says a little sooner where it is itself.

use crate::discovery::{Core, Days, jittered};
use sealift_proto::discovery::lan::{DATAGRAM_BYTES, Datagram};
use sealift_proto::discovery::{NodeId, Place};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until};

/// The usual port.
pub const LAN_PORT: u16 = 3838;

/// Of all members on a link, by IPv6: transient (nobody assigned it), of the link alone.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x534c, 0x4431);

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
    /// The addresses to send to, by IPv4 alone; `None`: the broadcast address of each network that this host is on, and the
    /// group of members on each of its links, by IPv6.
    pub targets: Option<Vec<Ipv4Addr>>,
}

impl Default for LanSettings {
    fn default() -> Self {
        Self { port: LAN_PORT, targets: None }
    }
}

/// By what datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Broadcast,
    Multicast,
}

impl Family {
    /// Where to send to, now.
    fn targets(self, settings: &LanSettings) -> Vec<SocketAddr> {
        let interfaces = || if_addrs::get_if_addrs().unwrap_or_default().into_iter();
        let mut targets: Vec<SocketAddr> = match (self, &settings.targets) {
            (Self::Broadcast, Some(ips)) => {
                ips.iter().map(|ip| SocketAddr::from((*ip, settings.port))).collect()
            }
            (Self::Broadcast, None) => {
                let broadcast = |interface: if_addrs::Interface| match interface.addr {
                    if_addrs::IfAddr::V4(address) if !address.is_loopback() => address.broadcast,
                    _ => None,
                };
                interfaces().filter_map(broadcast).map(|ip| SocketAddr::from((ip, settings.port))).collect()
            }
            (Self::Multicast, Some(_)) => Vec::new(),
            (Self::Multicast, None) => {
                let link = |interface: if_addrs::Interface| match interface.addr {
                    if_addrs::IfAddr::V6(address) if !address.is_loopback() => interface.index,
                    _ => None,
                };
                let group = |link| SocketAddrV6::new(GROUP, settings.port, 0, link).into();
                interfaces().filter_map(link).map(group).collect()
            }
        };
        targets.sort();
        targets.dedup();
        targets.truncate(TARGETS_MAX);
        targets
    }

    fn bind(self, port: u16) -> io::Result<UdpSocket> {
        let (domain, any): (_, IpAddr) = match self {
            Self::Broadcast => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
            Self::Multicast => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        // What goes to everybody goes to every socket on the port, of whatever user.
        socket.set_reuse_address(true)?;
        match self {
            Self::Broadcast => socket.set_broadcast(true)?,
            Self::Multicast => {
                socket.set_only_v6(true)?;
                socket.set_multicast_hops_v6(1)?;
                // Nothing but what came by links that were joined.
                socket.set_multicast_all_v6(false)?;
            }
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((any, port)).into())?;
        UdpSocket::from_std(socket.into())
    }
}

/// Says and hears, for as long as it is polled.
pub(crate) async fn run(core: Arc<Core>, settings: LanSettings) {
    let by = |family| by(&core, &settings, family);
    tokio::join!(by(Family::Broadcast), by(Family::Multicast));
}

async fn by(core: &Core, settings: &LanSettings, family: Family) {
    if family == Family::Multicast && settings.targets.is_some() {
        return;
    }
    let mut told = false;
    loop {
        let error = match family.bind(settings.port) {
            Ok(socket) => talk(core, settings, &socket, family).await,
            Err(error) => error,
        };
        // A host without IPv6 is nothing to be told of.
        if family == Family::Broadcast && !std::mem::replace(&mut told, true) {
            core.trouble(format!("no discovery on the local network (UDP {}): {error}", settings.port));
        }
        sleep(AGAIN).await;
    }
}

/// What one socket carries, until it fails.
async fn talk(core: &Core, settings: &LanSettings, socket: &UdpSocket, family: Family) -> io::Error {
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
                if let Err(error) = say(core, settings, socket, family, &mut days).await {
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

async fn say(
    core: &Core,
    settings: &LanSettings,
    socket: &UdpSocket,
    family: Family,
    days: &mut Days,
) -> io::Result<()> {
    let (today, _) = days.now(core);
    let datagram = Datagram { tag: today.tag(), entry: core.own_entry(today, None)? }.encode();
    for target in family.targets(settings) {
        if let SocketAddr::V6(group) = target {
            // A link that is new is joined; of others this says that they were.
            let _ = socket.join_multicast_v6(group.ip(), group.scope_id());
        }
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
