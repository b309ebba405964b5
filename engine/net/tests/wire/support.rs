//! A serving side on loopback, and keys and dates to set it up with.

use sealift_net::{
    Accepted, Acceptor, AcceptorOptions, Cipher, Clock, Connection, Dialer, HandshakeError, Listener,
    ServedJob, Transport,
};
use sealift_proto::keys::RoSecret;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

pub const TODAY: u64 = 20_000;

pub fn secret(fill: u8) -> RoSecret {
    RoSecret::from_bytes(&[fill; 32])
}

pub fn job(fill: u8) -> ServedJob {
    ServedJob { ro: secret(fill), cipher: Cipher::Aes256Gcm }
}

pub fn noon_of(day: u64) -> Clock {
    Clock::new(move || UNIX_EPOCH + Duration::from_secs(day * 86_400 + 43_200))
}

pub fn dialer(fill: u8) -> Dialer {
    Dialer::new(secret(fill)).with_clock(noon_of(TODAY))
}

pub struct Server {
    pub listener: Listener,
    pub acceptor: Acceptor,
}

impl Server {
    pub fn new(jobs: Vec<ServedJob>) -> Self {
        Self::with(jobs, |_| {})
    }

    pub fn with(jobs: Vec<ServedJob>, change: impl FnOnce(&mut AcceptorOptions)) -> Self {
        let mut options = AcceptorOptions::new().unwrap();
        options.clock = noon_of(TODAY);
        change(&mut options);
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { listener, acceptor: Acceptor::new(jobs, options) }
    }

    /// One that listens for QUIC.
    pub fn over_quic(jobs: Vec<ServedJob>) -> Self {
        Self::over_quic_with(jobs, |_| {})
    }

    pub fn over_quic_with(jobs: Vec<ServedJob>, change: impl FnOnce(&mut AcceptorOptions)) -> Self {
        let mut server = Self::with(jobs, change);
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        server.listener = Listener::bind_for(address, Transport::Quic, server.acceptor.gate()).unwrap();
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    pub async fn take(&self) -> Result<Accepted, HandshakeError> {
        self.acceptor.handshake(self.listener.accept().await).await
    }

    /// A session both ends of which are in our hands: the dialer's, the listener's.
    pub async fn session(&self, dialer: &Dialer) -> (Connection, Accepted) {
        let (dialed, taken) = tokio::join!(dialer.dial_one(self.address()), self.take());
        (dialed.unwrap(), taken.unwrap())
    }
}
