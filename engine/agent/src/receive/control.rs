//! A receiver's control connection: dials, greets, and then carries frames both ways for the coordinator.
//!
//! Owns the connection and its keep-alive. Knows nothing of what the frames mean, beyond the session's table.

use super::Event;
use sealift_net::{
    Carrier, ConnectionReader, ConnectionWriter, DialError, Dialer, FrameReader, FrameWriter, ReadError,
    is_rejection,
};
use sealift_proto::limits::{DEAD_PEER_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS, PING_INTERVAL_MS};
use sealift_proto::session::{Purpose, Role, Session, check_welcome};
use sealift_proto::ticket::Address;
use sealift_proto::wire::{Close, CloseCode, FrameKind, Have, Hello, Peer, Peers, Welcome};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Frames that may wait to be written.
pub const OUTBOX_MAX: usize = 64;

/// What comes from a control connection.
pub enum Heard {
    /// The session is open.
    Open {
        /// Where the sender was found.
        address: SocketAddr,
        /// What the connection goes over.
        carrier: Carrier,
        /// How long its answer to the greeting took.
        answered_in: Duration,
        /// Its answer.
        welcome: Box<Welcome>,
    },
    /// The manifest goes on.
    Segment(Vec<u8>),
    /// What a receiver that serves has.
    Have(Have),
    /// Others who serve.
    Peers(Vec<Peer>),
    /// The sender closed the session.
    Closed(Close),
    /// It broke, or could not be made.
    Lost(String),
    /// Nobody there takes this key, or speaks this protocol.
    Failed(DialError),
    /// The sender showed in its first answer that it does not take the key.
    Rejected,
    /// The sender broke the protocol, and was told so with this code.
    Broken(CloseCode, String),
}

/// A frame to be written.
pub type Outgoing = (FrameKind, Vec<u8>);

/// Dials and serves one control connection to its end, whatever it is.
pub async fn run(
    number: u64,
    dialer: Dialer,
    addresses: Vec<Address>,
    greeting: Hello,
    outbox: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<Event>,
) {
    let tell = |heard| events.send(Event::Control(number, heard));
    let last = match open(&dialer, &addresses, &greeting).await {
        Err(heard) => heard,
        Ok((address, carrier, answered_in, welcome, session, mut reader, mut writer)) => {
            if tell(Heard::Open { address, carrier, answered_in, welcome: Box::new(welcome) }).await.is_err()
            {
                return;
            }
            let (alive, silence) = mpsc::channel(1);
            let last = tokio::select! {
                last = read(&mut reader, session, number, &events, alive) => last,
                last = write(&mut writer, outbox, silence) => last,
            };
            close_if_broken(&last, &mut writer).await;
            last
        }
    };
    // The coordinator may have ended.
    let _ = tell(last).await;
}

type Opened = (
    SocketAddr,
    Carrier,
    Duration,
    Welcome,
    Session,
    FrameReader<ConnectionReader>,
    FrameWriter<ConnectionWriter>,
);

async fn open(dialer: &Dialer, addresses: &[Address], greeting: &Hello) -> Result<Opened, Heard> {
    let (connection, address) = dialer.dial(addresses).await.map_err(Heard::Failed)?;
    let carrier = connection.carrier();
    let (reader, writer) = connection.split();
    writer.take_precedence();
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    let mut session = Session::new(Role::Receiver, Purpose::Control);
    let begun = Instant::now();
    let greet = async {
        writer.send(FrameKind::Hello, 0, &greeting.encode()).await.map_err(from_io)?;
        let header = reader.header().await.map_err(from_read)?;
        session.admit(header.kind).map_err(broken)?;
        let body = reader.body(header).await.map_err(from_read)?;
        if header.kind == FrameKind::Close {
            return Err(Heard::Closed(Close::decode(&body).map_err(broken)?));
        }
        let welcome = Welcome::decode(&body).map_err(broken)?;
        check_welcome(&welcome)
            .map_err(|code| Heard::Broken(code, "a version was chosen that was not offered".into()))?;
        Ok(welcome)
    };
    let greeted = timeout(Duration::from_millis(HANDSHAKE_TIMEOUT_MS), greet)
        .await
        .unwrap_or_else(|_| Err(Heard::Lost("the sender did not answer in time".into())));
    match greeted {
        Ok(welcome) => Ok((address, carrier, begun.elapsed(), welcome, session, reader, writer)),
        Err(heard) => {
            close_if_broken(&heard, &mut writer).await;
            Err(heard)
        }
    }
}

async fn close_if_broken(heard: &Heard, writer: &mut FrameWriter<ConnectionWriter>) {
    if let Heard::Broken(code, reason) = heard {
        close(writer, Close { code: *code, reason: reason.clone() }).await;
    }
}

/// Tells the sender why, if it still listens, and ends the stream in order.
pub async fn close(writer: &mut FrameWriter<ConnectionWriter>, close: Close) {
    let said = async {
        writer.send(FrameKind::Close, 0, &close.encode()).await?;
        writer.shutdown().await
    };
    // The sender may be gone, or not read: then there is nobody to tell.
    let _ = timeout(Duration::from_secs(2), said).await;
}

async fn read(
    reader: &mut FrameReader<ConnectionReader>,
    mut session: Session,
    number: u64,
    events: &mpsc::Sender<Event>,
    alive: mpsc::Sender<()>,
) -> Heard {
    loop {
        let header = match reader.header().await {
            Ok(header) => header,
            Err(error) => return from_read(error),
        };
        if let Err(error) = session.admit(header.kind) {
            return broken(error);
        }
        let body = match reader.body(header).await {
            Ok(body) => body,
            Err(error) => return from_read(error),
        };
        // A full mailbox says the same.
        let _ = alive.try_send(());
        let told = match header.kind {
            FrameKind::Segment => events.send(Event::Control(number, Heard::Segment(body))).await,
            FrameKind::Have => match Have::decode(&body) {
                Ok(have) => events.send(Event::Control(number, Heard::Have(have))).await,
                Err(error) => return broken(error),
            },
            FrameKind::Peers => match Peers::decode(&body) {
                Ok(Peers { peers }) => events.send(Event::Control(number, Heard::Peers(peers))).await,
                Err(error) => return broken(error),
            },
            FrameKind::Close => return Close::decode(&body).map_or_else(broken, Heard::Closed),
            // Pings need no answer from here: our own keep the sender informed.
            _ => Ok(()),
        };
        if told.is_err() {
            return Heard::Lost("the transfer has ended".into());
        }
    }
}

async fn write(
    writer: &mut FrameWriter<ConnectionWriter>,
    mut outbox: mpsc::Receiver<Outgoing>,
    mut alive: mpsc::Receiver<()>,
) -> Heard {
    let dead = Duration::from_millis(DEAD_PEER_TIMEOUT_MS);
    let mut heard = Instant::now();
    let mut ticks = interval(Duration::from_millis(PING_INTERVAL_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (kind, body) = tokio::select! {
            frame = outbox.recv() => match frame {
                Some(frame) => frame,
                None => {
                    // The transfer has ended; an orderly end is a courtesy.
                    let _ = timeout(Duration::from_secs(1), writer.shutdown()).await;
                    return Heard::Lost("given up".into());
                }
            },
            Some(()) = alive.recv() => {
                heard = Instant::now();
                continue;
            }
            _ = ticks.tick() => {
                if heard.elapsed() >= dead {
                    return Heard::Lost("the sender is silent".into());
                }
                (FrameKind::Ping, Vec::new())
            }
        };
        if let Err(error) = writer.send(kind, 0, &body).await {
            return from_io(error);
        }
    }
}

fn from_io(error: std::io::Error) -> Heard {
    if is_rejection(&error) { Heard::Rejected } else { Heard::Lost(error.to_string()) }
}

fn from_read(error: ReadError) -> Heard {
    match error {
        ReadError::Io(error) => from_io(error),
        ReadError::Frame(error) => broken(error),
    }
}

fn broken(error: impl std::fmt::Display) -> Heard {
    Heard::Broken(CloseCode::Protocol, error.to_string())
}
