//! Two hosts and the link between them.

use super::link::LinkSpec;
use super::namespace::Namespace;
use super::packet::FLOWS;
use super::relay::{MTU, Relay};
use super::tally::{Delays, Tally};
use crate::failure::{OrFailure as _, Outcome, failure};
use std::net::Ipv4Addr;
use tun_rs::DeviceBuilder;

/// The interface of either host.
const INTERFACE: &str = "wan0";
/// Packets that an interface holds while the relay has no time for it.
const BACKLOG: u32 = 10_000;

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first.
    Near,
    /// The second.
    Far,
}

/// Two network namespaces, joined by a relay. Each host has an address for every flow, so that flows are counted apart.
#[derive(Debug)]
pub struct Path {
    // In this order: devices are closed before their namespaces are deleted.
    relay: Relay,
    near: Namespace,
    far: Namespace,
}

impl Path {
    /// A path of two links, from the near end to the far end and back. The same seed loses and reorders the same packets.
    ///
    /// # Errors
    /// If this is not root, iproute2 is not installed, or the kernel has no TUN devices.
    pub fn new(there: LinkSpec, back: LinkSpec, seed: u64) -> Outcome<Self> {
        let (near, far) = (Namespace::new("near")?, Namespace::new("far")?);
        let device = |namespace: &Namespace| {
            // Whoever opens it decides where it is.
            let made = namespace.inside(|| {
                let device = DeviceBuilder::new().name(INTERFACE).mtu(MTU).tx_queue_len(BACKLOG);
                device.enable(true).build_sync()
            });
            made?.or_failure(|| "cannot make a TUN device".into())
        };
        let devices = [device(&near)?, device(&far)?];
        let path = Self { relay: Relay::start(devices, [there, back], seed)?, near, far };
        for end in [End::Near, End::Far] {
            for flow in 0..FLOWS - 1 {
                let address = format!("{}/24", path.address(end, flow));
                path.host(end).ip(&["address", "add", &address, "dev", INTERFACE])?;
            }
        }
        Ok(path)
    }

    /// One of its hosts.
    #[must_use]
    pub fn host(&self, end: End) -> &Namespace {
        match end {
            End::Near => &self.near,
            End::Far => &self.far,
        }
    }

    /// The address of a host for a flow. There are [`FLOWS`] less one.
    #[must_use]
    pub fn address(&self, end: End, flow: usize) -> Ipv4Addr {
        let flow = u8::try_from(flow.min(FLOWS - 1)).unwrap_or(0);
        Ipv4Addr::new(10, 77, flow, if end == End::Near { 1 } else { 2 })
    }

    /// What became of everything so far, there and back.
    #[must_use]
    pub fn tallies(&self) -> [Tally; 2] {
        self.relay.tallies()
    }

    /// By how much packets arrived later than they should have, because this machine had no time for them.
    #[must_use]
    pub fn late(&self) -> Delays {
        self.relay.late()
    }

    /// That nothing happened to packets but what the links say.
    ///
    /// # Errors
    /// If the relay has ended or lost something: what is measured on it means nothing.
    pub fn check(&self) -> Outcome<()> {
        self.relay.check()?;
        for end in [End::Near, End::Far] {
            let dropped = self.host(end).counters(INTERFACE)?.sent_dropped;
            if dropped > 0 {
                return failure(format!("the relay was too slow for {dropped} packets"));
            }
        }
        Ok(())
    }
}
