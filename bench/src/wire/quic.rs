//! QUIC by quinn alone: one connection, streams in one direction, nothing hashed and nothing written.
//!
//! Windows are wide and the congestion control is quinn's own, so that neither is what limits it on the loopback
//! interface. Each end has a thread and a runtime of its own.

use super::tls;
use crate::failure::{OrFailure as _, Outcome, failure};
use crate::turns::Watch;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

/// What one stream may have under way.
const STREAM_WINDOW_BYTES: u32 = 32 << 20;
/// What all may.
const WINDOW_BYTES: u32 = 128 << 20;
/// Bytes that are asked of a stream at a time.
const READ_BYTES: usize = 1 << 20;

/// The end that takes what is sent, and throws it away.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Server {
    /// Listens on the loopback interface.
    pub fn start() -> Outcome<Self> {
        let crypto = tls::Server::new().map_err(io::Error::other).and_then(|own| own.config());
        let crypto = crypto.and_then(|config| QuicServerConfig::try_from(config).map_err(io::Error::other));
        let crypto = crypto.or_failure(|| "cannot make a server's TLS".into())?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound_by, bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let bind = async { Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()) };
            let Ok(runtime) = runtime() else { return };
            let Ok(endpoint) = runtime.block_on(bind) else { return };
            let _ = bound_by.send(endpoint.local_addr());
            runtime.block_on(async {
                let serving = async {
                    while let Some(incoming) = endpoint.accept().await {
                        tokio::spawn(async move { incoming.await.map(take) });
                    }
                };
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        let address = bound.recv().map_err(io::Error::other).flatten();
        let address = address.or_failure(|| "cannot listen for UDP".into())?;
        Ok(Self { address, thread: Some(thread), stop: Some(stop) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads all streams, and says of each that it has come.
fn take(connection: Connection) {
    tokio::spawn(async move {
        while let Ok((mut answer, mut stream)) = connection.accept_bi().await {
            tokio::spawn(async move {
                while let Ok(Some(_)) = stream.read_chunk(READ_BYTES, true).await {}
                let _ = answer.write_all(&[1]).await;
                let _ = answer.finish();
            });
        }
    });
}

/// Sends over so many streams of one connection at once; timed from when it is established until the other end has
/// everything.
pub fn send(address: SocketAddr, streams: u32, bytes: u64, data: &[u8], watch: &mut Watch) -> Outcome<()> {
    let runtime = runtime().or_failure(|| "cannot start".into())?;
    let broke = |error: io::Error| failure(format!("the connection broke: {error}"));
    let connected = runtime.block_on(async {
        let crypto = tls::Client::new()
            .config()
            .and_then(|config| QuicClientConfig::try_from(config).map_err(io::Error::other))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
        let connecting = endpoint.connect_with(config, address, "sealift-bench").map_err(io::Error::other)?;
        Ok::<_, io::Error>((endpoint, connecting.await?))
    });
    let (endpoint, connection) = match connected {
        Ok(connected) => connected,
        Err(error) => return broke(error),
    };
    let data: Arc<[u8]> = data.into();
    let share = bytes / u64::from(streams);
    let sent = watch.time(|| {
        runtime.block_on(async {
            let sending: Vec<_> = (0..streams)
                .map(|_| tokio::spawn(send_one(connection.clone(), Arc::clone(&data), share)))
                .collect();
            for one in sending {
                one.await.map_err(io::Error::other)??;
            }
            Ok::<_, io::Error>(())
        })
    });
    connection.close(VarInt::from_u32(0), b"");
    runtime.block_on(endpoint.wait_idle());
    sent.or_else(broke)
}

async fn send_one(connection: Connection, data: Arc<[u8]>, bytes: u64) -> io::Result<()> {
    let (mut stream, mut answer) = connection.open_bi().await?;
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        stream.write_all(&data[..now]).await?;
        left -= now as u64;
    }
    stream.finish().map_err(io::Error::other)?;
    answer.read_exact(&mut [0]).await.map_err(io::Error::other)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into())
        .send_fairness(false);
    config
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
