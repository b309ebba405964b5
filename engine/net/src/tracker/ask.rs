//! A connection to a tracker: requests out, answers in.

use super::TrackerSettings;
use super::pin::client_config;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error};
use sealift_proto::discovery::tracker::{ALPN, ANSWER_HEAD_BYTES, Answer, Request, Verdict};
use sealift_proto::limits::TICKET_ADDRESSES_MAX;
use sealift_proto::ticket::Address;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

/// The name that every tracker shows: whom we trust is a matter of the pin, not of DNS.
const TRACKER_NAME: &str = "control.sealift.invalid";

/// For one of its addresses: connecting and the handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Asked {
    /// The tracker wants to be left alone for so long.
    TooOften(Duration),
    /// For people.
    Failed(String),
}

impl From<io::Error> for Asked {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|error| error.downcast_ref());
        Self::Failed(match tls {
            // Our own words, which rustls shows as it would a programmer.
            Some(Error::InvalidCertificate(CertificateError::Other(own))) => own.0.to_string(),
            _ => error.to_string(),
        })
    }
}

/// A connection whose tracker is the pinned one.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
}

impl Connection {
    /// Dials the tracker's addresses one after another: there is no hurry.
    pub(super) async fn open(settings: &TrackerSettings) -> Result<Self, Asked> {
        let mut failure = Asked::Failed("the name has no address".into());
        for address in resolve(&settings.address).await? {
            match timeout(DIAL_TIMEOUT, Self::to(address, settings.pin)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failure = error.into(),
                Err(_) => failure = io::Error::from(io::ErrorKind::TimedOut).into(),
            }
        }
        Err(failure)
    }

    async fn to(address: SocketAddr, pin: [u8; 32]) -> io::Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(TRACKER_NAME).expect("a DNS name");
        let stream = TlsConnector::from(client_config(pin)).connect(name, tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::other("it is no tracker"));
        }
        Ok(Self { stream, peer: address })
    }

    pub(super) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) async fn ask(&mut self, request: &Request) -> Result<Answer, Asked> {
        self.stream.write_all(&request.encode()).await?;
        self.stream.flush().await?;
        let mut bytes = Zeroizing::new(vec![0; ANSWER_HEAD_BYTES]);
        self.stream.read_exact(&mut bytes).await?;
        let head = bytes.first_chunk().expect("a head was read");
        let nonsense = || Asked::Failed("its answer makes no sense".into());
        let more = Answer::entries_bytes(head).ok_or_else(nonsense)?;
        let mut whole = Zeroizing::new(Vec::with_capacity(ANSWER_HEAD_BYTES + more));
        whole.extend_from_slice(&bytes);
        whole.resize(ANSWER_HEAD_BYTES + more, 0);
        self.stream.read_exact(&mut whole[ANSWER_HEAD_BYTES..]).await?;
        let answer = Answer::decode(&whole).ok_or_else(nonsense)?;
        match answer.verdict {
            Verdict::TooOften => {
                Err(Asked::TooOften(Duration::from_secs(answer.again_s.clamp(1, 600).into())))
            }
            Verdict::Done | Verdict::Full => Ok(answer),
        }
    }

    pub(super) async fn close(mut self) {
        // Everything was said.
        let _ = self.stream.shutdown().await;
    }
}

async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    match address {
        Address::Socket(address) => Ok(vec![*address]),
        Address::Name(name, port) => {
            Ok(lookup_host((name.as_str(), *port)).await?.take(TICKET_ADDRESSES_MAX).collect())
        }
    }
}
