//! Heartbeats: small datagrams by which a tracker knows that a member is still there, and their answers.

use super::socket_to;
use sealift_proto::discovery::tracker::{Beat, HEARD_BYTES, Heartbeat, Token, heard_counter};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

/// Heartbeats in a row without an answer after which the tracker is asked over TLS: it forgets after three.
const UNHEARD_MAX: u64 = 2;
/// How long the answer to one is waited for.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The tracker does not hear, or does not know the entry.
pub(super) struct Lost;

/// The heartbeats of one entry.
pub(super) struct Heartbeats {
    /// A second descriptor of the socket, for what is sent at the end.
    leaving: std::net::UdpSocket,
    socket: UdpSocket,
    token: Token,
    every: Duration,
    counter: u64,
}

impl Heartbeats {
    pub(super) fn new(at: SocketAddr, token: Token, every: Duration) -> io::Result<Self> {
        let socket = socket_to(at)?;
        let leaving = socket.try_clone()?;
        Ok(Self { leaving, socket: UdpSocket::from_std(socket)?, token, every, counter: 0 })
    }

    /// A socket and a datagram by which the tracker is told that the member goes.
    pub(super) fn leaving(&self) -> io::Result<(std::net::UdpSocket, Vec<u8>)> {
        let leave = Heartbeat::new(Beat::Leave, &self.token, u64::MAX);
        Ok((self.leaving.try_clone()?, leave.encode().to_vec()))
    }

    /// Until the tracker does not hear any more.
    pub(super) async fn run(&mut self) -> Lost {
        let mut ticks = interval_at(Instant::now() + self.every, self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unheard = 0;
        let mut buffer = [0; HEARD_BYTES + 1];
        let mut give_up_at = None;
        loop {
            let given_up = async {
                match give_up_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => {
                    self.counter += 1;
                    unheard += 1;
                    let heartbeat = Heartbeat::new(Beat::Alive, &self.token, self.counter);
                    // An error says that nobody listens there, perhaps since an earlier one.
                    let _ = self.socket.send(&heartbeat.encode()).await;
                    if unheard >= UNHEARD_MAX {
                        give_up_at.get_or_insert(Instant::now() + ANSWER_TIME.min(self.every / 2));
                    }
                }
                received = self.socket.recv(&mut buffer) => {
                    let Ok(len) = received else { continue };
                    // Late ones count: the entry lives.
                    if heard_counter(&buffer[..len], &self.token).is_some_and(|counter| counter <= self.counter) {
                        unheard = 0;
                        give_up_at = None;
                    }
                }
                () = given_up => return Lost,
            }
        }
    }
}
