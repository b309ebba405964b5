//! Ports for tests that run at the same time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Below what a system gives to whoever asks for any port (`ip_local_port_range`).
const FIRST: u16 = 10_000;
const EACH: u16 = 2_000;
const PROCESSES: u32 = 11;
/// How long a process that is just being started may hold what its parent has closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address of the loopback interface that nobody has and nobody is given by chance, neither for TCP nor UDP: it can be
/// given up and taken again, and until somebody listens there, nobody does.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn own_address() -> SocketAddr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let of_process = u16::try_from(std::process::id() % PROCESSES).expect("a small number");
    // Not by binding it: a process that is started meanwhile has a copy of the socket for a moment.
    let taken: String = ["tcp", "tcp6", "udp", "udp6"]
        .map(|kind| std::fs::read_to_string(format!("/proc/net/{kind}")).unwrap_or_default())
        .concat();
    let port = (0..EACH)
        .map(|_| FIRST + of_process * EACH + GIVEN.fetch_add(1, Ordering::Relaxed) % EACH)
        .find(|port| !taken.contains(&format!(":{port:04X} ")));
    (Ipv4Addr::LOCALHOST, port.expect("a port is free")).into()
}

/// Binds an address that this process may have had just now.
///
/// # Panics
/// If it cannot.
pub fn bind_again<S>(bind: impl Fn() -> io::Result<S>) -> S {
    let begun = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            bound => return bound.expect("nobody else has it"),
        }
    }
}
