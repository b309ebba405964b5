//! Many hosts at bridges, each with a link of its own, limited both ways by the kernel's token bucket; bridges are joined
//! by slower links.

use super::namespace::{Counters, Namespace};
use crate::failure::{Outcome, failure};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The interface of each host.
const INTERFACE: &str = "eth0";
/// Hosts that one can have: so many addresses its network has, and interfaces its bridge.
pub const HOSTS_MAX: usize = 200;
/// Zones that one can have.
pub const ZONES_MAX: usize = 16;
/// What a bucket holds at least: a segment of the largest size.
const BURST_BYTES_MIN: u64 = 64 << 10;

/// What a network of hosts is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanSpec {
    /// How many hosts, at most [`HOSTS_MAX`].
    pub hosts: usize,
    /// Bits a second of each host's link, in each direction.
    pub rate: u64,
    /// How many bridges, at most [`ZONES_MAX`]. Hosts are at them in turn: host 0 at bridge 0, host 1 at bridge 1.
    pub zones: usize,
    /// Bits a second of the link from each other bridge to bridge 0, in each direction.
    pub between: u64,
    /// How long something may wait for a link.
    pub queue: Duration,
}

/// Hosts, each a namespace of its own, and one with the bridges.
#[derive(Debug)]
pub struct Lan {
    hosts: Vec<Namespace>,
    hub: Namespace,
    zones: usize,
}

impl Lan {
    /// A network in which nobody has sent anything.
    ///
    /// # Errors
    /// If this is not root, iproute2 is not installed, the kernel has no bridges or token buckets, or there are too many
    /// hosts or zones, or none.
    pub fn new(spec: LanSpec) -> Outcome<Self> {
        if !(1..=HOSTS_MAX).contains(&spec.hosts) || !(1..=ZONES_MAX).contains(&spec.zones) {
            return failure(format!("a network has 1 to {HOSTS_MAX} hosts and 1 to {ZONES_MAX} zones"));
        }
        let hub = Namespace::new("hub")?;
        for zone in 0..spec.zones {
            let bridge = bridge(zone);
            hub.ip(&["link", "add", &bridge, "type", "bridge"])?;
            hub.ip(&["link", "set", &bridge, "up"])?;
            if zone > 0 {
                let (central, remote) = (central_port(zone), format!("remote{zone}"));
                hub.ip(&["link", "add", &central, "type", "veth", "peer", "name", &remote])?;
                for (port, zone) in [(&central, 0), (&remote, zone)] {
                    plug(&hub, port, zone)?;
                    limit(&hub, port, spec.between, spec.queue)?;
                }
            }
        }
        let mut lan = Self { hosts: Vec::new(), hub, zones: spec.zones };
        for number in 0..spec.hosts {
            let host = Namespace::new(&format!("host{number}"))?;
            let port = format!("port{number}");
            let veth =
                ["link", "add", &port, "type", "veth", "peer", "name", INTERFACE, "netns", host.name()];
            lan.hub.ip(&veth)?;
            plug(&lan.hub, &port, lan.zone(number))?;
            limit(&lan.hub, &port, spec.rate, spec.queue)?;
            host.ip(&["address", "add", &format!("{}/24", lan.address(number)), "dev", INTERFACE])?;
            host.ip(&["link", "set", INTERFACE, "up"])?;
            limit(&host, INTERFACE, spec.rate, spec.queue)?;
            lan.hosts.push(host);
        }
        Ok(lan)
    }

    /// The hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> &[Namespace] {
        &self.hosts
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, u8::try_from(host + 1).unwrap_or(u8::MAX))
    }

    /// Which bridge a host is at.
    #[must_use]
    pub fn zone(&self, host: usize) -> usize {
        host % self.zones
    }

    /// What a host's interface has done. Bytes are those of frames, as the host hands them over: what the kernel sends as
    /// one large segment has the headers of one.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn host_counters(&self, host: usize) -> Outcome<Counters> {
        match self.hosts.get(host) {
            Some(host) => host.counters(INTERFACE),
            None => failure(format!("there is no host {host}")),
        }
    }

    /// What has gone from bridge 0 to all others (`sent_bytes`), and back (`received_bytes`).
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn between(&self) -> Outcome<Counters> {
        (1..self.zones).try_fold(Counters::default(), |sum, zone| {
            let one = self.hub.counters(&central_port(zone))?;
            Ok(Counters {
                sent_bytes: sum.sent_bytes + one.sent_bytes,
                received_bytes: sum.received_bytes + one.received_bytes,
                sent_dropped: sum.sent_dropped + one.sent_dropped,
            })
        })
    }
}

fn bridge(zone: usize) -> String {
    format!("bridge{zone}")
}

/// The port of bridge 0 that leads to another one.
fn central_port(zone: usize) -> String {
    format!("central{zone}")
}

fn plug(hub: &Namespace, port: &str, zone: usize) -> Outcome<()> {
    hub.ip(&["link", "set", port, "master", &bridge(zone)])?;
    hub.ip(&["link", "set", port, "up"]).map(drop)
}

fn limit(namespace: &Namespace, interface: &str, rate: u64, queue: Duration) -> Outcome<()> {
    // What 2 ms bring: timers are no finer on some kernels.
    let burst = (rate / 8 / 500).max(BURST_BYTES_MIN).to_string();
    let (rate, latency) = (format!("{rate}bit"), format!("{}us", queue.as_micros().max(1)));
    let words = ["root", "tbf", "rate", &rate, "burst", &burst, "latency", &latency];
    namespace.tc(&[&["qdisc", "add", "dev", interface], &words[..]].concat()).map(drop)
}
