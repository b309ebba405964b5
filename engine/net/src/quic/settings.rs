//! How QUIC is set up on either side: windows, limits, times, and what is switched off.
//!
//! Windows bound what is kept for a connection in memory; the controller decides how much of that is in flight.

use super::controller::Factory;
use super::tls::{Dialling, QUIC_V1, Serving};
use crate::accept::Jobs;
use quinn::{EndpointConfig, IdleTimeout, NoneTokenStore, TransportConfig, ValidationTokenConfig, VarInt};
use sealift_proto::limits::{DATA_CONNECTIONS_MAX, DEAD_PEER_TIMEOUT_MS, HANDSHAKES_MAX, PING_INTERVAL_MS};
use sealift_proto::rate::Rate;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// What a dialler has room for on a stream: as much as a receiver asks for ahead on a data connection.
const ANSWERS_WINDOW_BYTES: u32 = 16 << 20;
/// The same at a limited rate, so that what is on its way is a second's worth: at least this.
const ANSWERS_WINDOW_BYTES_MIN: u32 = 128 << 10;
/// What a listener has room for on a stream: requests are small.
const REQUESTS_WINDOW_BYTES: u32 = 256 << 10;
/// Streams of a connection: control, and data.
const STREAMS_MAX: u32 = 65;
const _: () = assert!(STREAMS_MAX as usize == DATA_CONNECTIONS_MAX + 1);
/// What is kept of a connection until it is acknowledged: at first, and at most. See [`send_window`].
const SEND_WINDOW_BYTES: u64 = 8 << 20;
const SEND_WINDOW_BYTES_MAX: u64 = 128 << 20;
/// Of a connection that has not been taken up yet, and of all these.
const INCOMING_BYTES_MAX: u64 = 32 << 10;
const INCOMING_TOTAL_BYTES_MAX: u64 = 4 << 20;
const _: () = assert!(INCOMING_TOTAL_BYTES_MAX >= INCOMING_BYTES_MAX * HANDSHAKES_MAX as u64);
/// Asked for of the kernel, which gives what the system's limits allow: bursts wait there while a core is busy.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// What is taken for a round trip until one is known. A lost first packet is sent again after three of these; RFC 9002 has 333 ms,
/// which is a second lost on any path. Where a round trip takes longer than three of these, one packet more is sent.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// QUIC notices a dead peer a moment later than those who wait for its frames, so that they say what is wrong.
const IDLE_TIMEOUT_MS: u32 = 22_000;
const _: () = assert!(IDLE_TIMEOUT_MS as u64 > DEAD_PEER_TIMEOUT_MS);

/// What is common to both sides.
fn transport(stream_window: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0_u8.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(Duration::from_millis(PING_INTERVAL_MS)))
        .allow_spin(false)
        .stream_receive_window(stream_window.into())
        // Each stream has its own room, whatever the others do: control never waits behind data.
        .receive_window(VarInt::from_u32(stream_window.saturating_mul(STREAMS_MAX)))
        .send_window(SEND_WINDOW_BYTES)
        .initial_rtt(INITIAL_RTT)
        // One stream after the other: the receiver gets whole fetches sooner.
        .send_fairness(false)
        .congestion_controller_factory(Arc::new(Factory));
    config
}

/// How much is kept for a path that has room for so many bytes: those in flight, as many to be sent next, and six times as
/// many that have arrived and wait for what was lost before them: each stream keeps what it has sent from its first hole on,
/// two or three round trips long, and at 1 % of loss there always is a hole.
pub(super) fn send_window(congestion_window: u64) -> u64 {
    congestion_window.saturating_mul(8).clamp(SEND_WINDOW_BYTES, SEND_WINDOW_BYTES_MAX)
}

/// The listening side's, for these jobs.
pub(crate) fn serving_config(jobs: &Arc<Jobs>) -> Arc<quinn::ServerConfig> {
    Arc::new(serving(Serving(Some(Arc::clone(jobs)))))
}

/// The endpoint's own, with which nothing is accepted.
pub(super) fn endpoint_config() -> quinn::ServerConfig {
    serving(Serving(None))
}

fn serving(crypto: Serving) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut tokens = ValidationTokenConfig::default();
    // A token for later would tell who comes again.
    tokens.sent(0);
    config
        .transport_config(Arc::new(transport(REQUESTS_WINDOW_BYTES)))
        .validation_token_config(tokens)
        .migration(false)
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    config
}

/// The dialling side's; with a limit of rate, with little room for what comes faster.
pub(crate) fn client_config(tls: &Arc<rustls::ClientConfig>, limit: Option<Rate>) -> quinn::ClientConfig {
    let window = limit.map_or(ANSWERS_WINDOW_BYTES, |rate| {
        let second = u32::try_from(rate.bytes_per_second()).unwrap_or(u32::MAX);
        second.clamp(ANSWERS_WINDOW_BYTES_MIN, ANSWERS_WINDOW_BYTES)
    });
    let mut config = quinn::ClientConfig::new(Arc::new(Dialling(Arc::clone(tls))));
    config
        .transport_config(Arc::new(transport(window)))
        .token_store(Arc::new(NoneTokenStore))
        .version(QUIC_V1);
    config
}

/// What holds for a socket, whoever uses it.
pub(super) fn socket_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.supported_versions(vec![QUIC_V1]);
    config
}

/// A UDP socket; on an IPv6 address for IPv4 too.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // As much as the system gives: less works too.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
