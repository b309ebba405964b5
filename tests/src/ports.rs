//! Ports for tests that run at the same time.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what a system gives to whoever asks for any port (`ip_local_port_range`).
const FIRST: u16 = 10_000;
const EACH: u16 = 2_000;
const PROCESSES: u32 = 11;

/// An address of the loopback interface that nobody has and nobody is given by chance, neither for TCP nor UDP: it can be
/// given up and taken again, and until somebody listens there, nobody does.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn own_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let of_process = u16::try_from(std::process::id() % PROCESSES).expect("a small number");
    for _ in 0..EACH {
        let port = FIRST + of_process * EACH + GIVEN.fetch_add(1, Ordering::Relaxed) % EACH;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("every port is taken");
}
