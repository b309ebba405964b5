//! Addresses of those who come, for limits.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one address: who has one of IPv6 has the 2⁶⁴ of its network.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) >> 64 << 64)),
    }
}
