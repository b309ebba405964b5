//! A receiver that dials a real sender with its real ticket, and then does as it likes.

use super::sender::Log;
use super::{Said, Talk};
use sealift_net::{Carrier, Connection, DialError, Dialer};
use sealift_proto::manifest::{Catalog, Record, SegmentSeq};
use sealift_proto::session::hello;
use sealift_proto::ticket::{Address, Ticket};
use sealift_proto::wire::{Channel, Credit, FrameKind, Hello, Welcome};
use std::net::SocketAddr;

/// A receiver that lies.
pub struct HostileReceiver {
    dialer: Dialer,
    carrier: Carrier,
    address: SocketAddr,
    catalog: Catalog,
}

impl HostileReceiver {
    /// One with this ticket.
    ///
    /// # Panics
    /// If it is none, or has no socket address.
    #[must_use]
    pub fn new(ticket: &str) -> Self {
        Self::over(ticket, Carrier::Tcp)
    }

    /// The same, over this.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn over(ticket: &str, carrier: Carrier) -> Self {
        let ticket = Ticket::decode(ticket).expect("a ticket");
        let address = ticket.addresses.iter().find_map(|address| match address {
            Address::Socket(address) => Some(*address),
            Address::Name(..) => None,
        });
        Self {
            dialer: Dialer::new(ticket.ro_secret),
            carrier,
            address: address.expect("a ticket of a test has a socket address"),
            catalog: Catalog::new(ticket.verify_key, None),
        }
    }

    /// A connection on which nothing was said.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn dial(&self) -> Result<Connection, DialError> {
        match self.carrier {
            Carrier::Tcp => self.dialer.dial_one(self.address).await,
            // Further streams of one connection.
            Carrier::Quic => self.dialer.dial_over(self.address, Carrier::Quic).await,
        }
    }

    /// A connection on which nothing was said, to say frames on.
    ///
    /// # Errors
    /// If the handshake fails.
    pub async fn dial_silently(&self) -> Result<Talk, DialError> {
        let (reader, writer) = self.dial().await?.split();
        Ok(Talk::new(reader, writer, Log::default(), 0))
    }

    /// A connection with this greeting said and nothing heard.
    ///
    /// # Panics
    /// If there is no connection.
    pub async fn greet(&self, greeting: &Hello) -> Talk {
        let mut talk = self.dial_silently().await.expect("the key is right");
        talk.say(FrameKind::Hello, 0, &greeting.encode()).await.expect("it listens");
        talk
    }

    /// A control connection, welcomed; and the name of its session.
    ///
    /// # Panics
    /// If it is not welcomed.
    pub async fn control(&self) -> (Talk, [u8; 16]) {
        let mut talk = self.greet(&hello(Channel::Control { next_segment: SegmentSeq(0) })).await;
        let (_, body) = talk.hear_until(FrameKind::Welcome).await.expect("welcomed");
        let welcome = Welcome::decode(&body).expect("a welcome");
        (talk, welcome.session)
    }

    /// A data connection, with whatever is the first answer still to be heard.
    pub async fn data_unheard(&self, session: [u8; 16]) -> Talk {
        self.greet(&hello(Channel::Data { session })).await
    }

    /// A data connection, welcomed.
    ///
    /// # Panics
    /// If it is not welcomed.
    pub async fn data(&self, session: [u8; 16]) -> Talk {
        let mut talk = self.data_unheard(session).await;
        talk.hear_until(FrameKind::Welcome).await.expect("welcomed");
        talk
    }

    /// The whole manifest, checked.
    ///
    /// # Errors
    /// If the connection broke.
    ///
    /// # Panics
    /// If the manifest is refused.
    pub async fn manifest(&mut self, control: &mut Talk) -> Said<Vec<Record>> {
        let mut records = Vec::new();
        while !self.catalog.ended() {
            control.say(FrameKind::Credit, 0, &Credit { segments: 1 }.encode()).await?;
            let (_, segment) = control.hear_until(FrameKind::Segment).await?;
            records.extend(self.catalog.admit(&segment).expect("a real sender's manifest is right"));
        }
        Ok(records)
    }
}
