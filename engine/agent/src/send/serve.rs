//! Serves receivers: takes a connection through handshake and greeting, then to its purpose.
//!
//! Runs on the shard that the connection was given to. Owns the table of sessions, by which the connections of one
//! receiver find each other.

use super::log::ManifestLog;
use super::shelf::Shelf;
use super::{control, data};
use crate::report::Reporter;
use sealift_net::{
    Acceptor, Carrier, ConnectionReader, ConnectionWriter, FrameReader, FrameWriter, Incoming, Limiter,
    ReadError,
};
use sealift_proto::block::FileId;
use sealift_proto::limits::PEERS_TOLD_MAX;
use sealift_proto::limits::{FETCHES_OUTSTANDING_MAX, SESSIONS_MAX};
use sealift_proto::path::SafePath;
use sealift_proto::session::{Purpose, Role, Session, choose_version};
use sealift_proto::wire::{
    Channel, Close, CloseCode, Finished, FrameKind, Hello, Member, Peer, Peers, Welcome,
};
use sealift_store::BlockIo;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// What all connections of a sender share.
pub struct Serving {
    /// Authenticates.
    pub acceptor: Acceptor,
    /// What is offered.
    pub shelf: Shelf,
    /// The manifest.
    pub log: Arc<ManifestLog>,
    /// Who this is.
    pub member: Member,
    /// What happens goes to the one who waits for it.
    pub happened: mpsc::Sender<Happened>,
    /// How fast receivers are served, all together.
    pub limiter: Arc<Limiter>,
    /// Data connections that one receiver may have.
    pub connections_max: usize,
    /// Becomes true when the sender ends.
    pub ending: watch::Receiver<bool>,
    /// Who is told.
    pub reporter: Arc<Reporter>,
    /// Files that could not be read when they were asked for, and were told.
    pub unreadable: Mutex<HashSet<FileId>>,
    /// Sessions by the name they were given.
    pub sessions: Mutex<HashMap<[u8; 16], Arc<Serve>>>,
    /// Changes whenever a session with a member begins or ends.
    pub members: watch::Sender<()>,
    /// Members that have everything and may serve still, and when they said so; the latest last.
    pub finished: Mutex<VecDeque<(Peer, Instant)>>,
}

/// One receiver being served.
pub struct Serve {
    /// Where it dialled from.
    pub peer: SocketAddr,
    /// Who it is, if it says so.
    pub member: Option<Member>,
    /// What its control connection goes over.
    pub carrier: Carrier,
    /// Payload bytes that were sent to it.
    pub sent_bytes: AtomicU64,
    /// Its data connections.
    pub connections: AtomicUsize,
    /// Becomes true when its control connection ends.
    pub ended: watch::Sender<bool>,
}

impl Serve {
    /// Where others may reach it, if it serves.
    fn reachable(&self) -> Option<Peer> {
        let member = self.member.as_ref().filter(|member| member.port != 0)?;
        let address = SocketAddr::new(self.peer.ip(), member.port);
        Some(Peer { node: member.node, address, label: member.label.clone() })
    }
}

/// How long others are told of one that has finished.
const FINISHED_TOLD: Duration = Duration::from_secs(600);

/// What happens to a sender.
pub enum Happened {
    /// A receiver has begun.
    Connected(SocketAddr, Carrier),
    /// A receiver has all that it could get.
    Finished(SocketAddr, Finished, u64),
    /// A receiver went away before that; payload bytes that were sent to it.
    Lost(SocketAddr, String, u64),
    /// A peer was turned away.
    Refused(SocketAddr, String),
}

/// The two halves of a greeted connection.
pub type Halves = (FrameReader<ConnectionReader>, FrameWriter<ConnectionWriter>);

/// Why a connection ended early.
#[derive(Debug)]
pub enum Ended {
    /// It broke, or the peer closed it.
    Lost(String),
    /// It is to be closed with this code.
    Refused(CloseCode, String),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Lost(error.to_string()),
            ReadError::Frame(error) => Self::Refused(CloseCode::Protocol, error.to_string()),
        }
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// A refusal of the peer's making.
pub fn protocol(error: impl std::fmt::Display) -> Ended {
    Ended::Refused(CloseCode::Protocol, error.to_string())
}

impl Serving {
    /// Tells that a peer was turned away. Strangers must not hold anything up: what does not fit is not told.
    fn refused(&self, peer: SocketAddr, reason: String) {
        let _ = self.happened.try_send(Happened::Refused(peer, reason));
    }

    /// Tells, once, that a file cannot be read now that it is asked for.
    pub fn tell_unreadable(&self, id: FileId, path: &SafePath, error: &std::io::Error) {
        if self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            self.reporter.problem(path.as_bytes(), format!("cannot be read: {error}"));
        }
    }

    /// How many files were told to be unreadable.
    pub fn unreadable_files(&self) -> u64 {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Others who serve, for one of them: of many, not the same for everybody.
    pub fn others(&self, than: &Member) -> Peers {
        let mut peers: Vec<Peer> = self.sessions().values().filter_map(|serve| serve.reachable()).collect();
        {
            let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
            let recently = finished.iter().filter(|(_, at)| at.elapsed() < FINISHED_TOLD);
            peers.extend(recently.map(|(peer, _)| peer.clone()));
        }
        peers.retain(|peer| peer.node != than.node);
        // Names are random, and so is what two of them have in common.
        let mixed = |peer: &Peer| std::array::from_fn::<u8, 16, _>(|i| peer.node.0[i] ^ than.node.0[i]);
        peers.sort_unstable_by_key(mixed);
        peers.dedup_by_key(|peer| peer.node);
        peers.truncate(PEERS_TOLD_MAX);
        Peers { peers }
    }

    /// A receiver has everything: it may go on serving others.
    pub fn finished(&self, serve: &Serve) {
        let Some(peer) = serve.reachable() else { return };
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        if finished.len() == PEERS_TOLD_MAX {
            finished.pop_front();
        }
        finished.push_back((peer, Instant::now()));
    }

    /// The table of sessions.
    pub fn sessions(&self) -> MutexGuard<'_, HashMap<[u8; 16], Arc<Serve>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one connection to its end.
pub async fn serve(io: BlockIo, serving: Arc<Serving>, incoming: Incoming) {
    let peer = incoming.peer_addr();
    let accepted = match serving.acceptor.handshake(incoming).await {
        Ok(accepted) => accepted,
        Err(error) => return serving.refused(peer, error.to_string()),
    };
    let mut auth = accepted.auth;
    let carrier = accepted.connection.carrier();
    let (reader, writer) = accepted.connection.split();
    let mut halves = (FrameReader::new(reader), FrameWriter::new(writer));
    let mut session = Session::new(Role::Sender, Purpose::Control);
    let greeted = match auth.run(greet(&mut halves.0, &mut session)).await {
        Ok(greeted) => greeted,
        Err(overdue) => return serving.refused(peer, overdue.to_string()),
    };
    drop(auth);
    let ended = match greeted {
        Ok(hello) => open(io, &serving, (peer, carrier), hello, session, &mut halves).await,
        Err(ended) => Err(ended),
    };
    if let Err(Ended::Refused(code, reason)) = ended {
        serving.refused(peer, reason.clone());
        close(&mut halves.1, code, reason).await;
    }
}

/// Says why, if the peer still listens, and ends the stream in order.
pub async fn close(writer: &mut FrameWriter<ConnectionWriter>, code: CloseCode, reason: String) {
    let close = Close { code, reason };
    let said = async {
        writer.send(FrameKind::Close, 0, &close.encode()).await?;
        writer.shutdown().await
    };
    // The peer may be gone, or not read: then there is nobody to tell.
    let _ = tokio::time::timeout(Duration::from_secs(2), said).await;
}

async fn greet(reader: &mut FrameReader<ConnectionReader>, session: &mut Session) -> Result<Hello, Ended> {
    let header = reader.header().await?;
    session.admit(header.kind).map_err(protocol)?;
    if header.kind != FrameKind::Hello {
        return Err(Ended::Lost("closed".into()));
    }
    Hello::decode(&reader.body(header).await?).map_err(protocol)
}

async fn open(
    io: BlockIo,
    serving: &Arc<Serving>,
    (peer, carrier): (SocketAddr, Carrier),
    hello: Hello,
    mut session: Session,
    halves: &mut Halves,
) -> Result<(), Ended> {
    let version = choose_version(&hello).map_err(|code| Ended::Refused(code, "no common version".into()))?;
    let welcome = |session| Welcome {
        version,
        session,
        fetches_outstanding: u32::try_from(FETCHES_OUTSTANDING_MAX).expect("small"),
        snapshot: serving.log.first(),
        member: Some(serving.member.clone()),
        partial: matches!(serving.shelf, Shelf::Replica(_)),
    };
    match hello.channel {
        Channel::Control { next_segment } => {
            halves.1.get_ref().take_precedence();
            let mut name = [0; 16];
            let no_randomness = |_| Ended::Refused(CloseCode::Internal, "no randomness".into());
            getrandom::fill(&mut name).map_err(no_randomness)?;
            let is_member = hello.member.is_some();
            let serve = Arc::new(Serve {
                peer,
                member: hello.member,
                carrier,
                sent_bytes: AtomicU64::new(0),
                connections: AtomicUsize::new(0),
                ended: watch::Sender::new(false),
            });
            {
                let mut sessions = serving.sessions();
                if sessions.len() >= SESSIONS_MAX {
                    return Err(Ended::Refused(CloseCode::Busy, "too many receivers".into()));
                }
                sessions.insert(name, Arc::clone(&serve));
            }
            if is_member {
                serving.members.send_replace(());
            }
            let ended = async {
                halves.1.send(FrameKind::Welcome, 0, &welcome(name).encode()).await?;
                control::run(serving, &serve, next_segment, session, halves).await
            };
            let ended = ended.await;
            serving.sessions().remove(&name);
            serve.ended.send_replace(true);
            if is_member {
                serving.members.send_replace(());
            }
            if let Err(Ended::Lost(reason) | Ended::Refused(_, reason)) = &ended {
                let sent_bytes = serve.sent_bytes.load(Ordering::Relaxed);
                let _ = serving.happened.send(Happened::Lost(peer, reason.clone(), sent_bytes)).await;
            }
            ended
        }
        Channel::Data { session: name } => {
            session.set_purpose(Purpose::Data);
            let unknown = || Ended::Refused(CloseCode::UnknownSession, "no such session".into());
            let serve = serving.sessions().get(&name).cloned().ok_or_else(unknown)?;
            let _counted = Counted::new(&serve, serving.connections_max)
                .ok_or_else(|| Ended::Refused(CloseCode::Busy, "too many connections".into()))?;
            halves.1.send(FrameKind::Welcome, 0, &welcome(name).encode()).await?;
            data::run(io, serving, &serve, session, halves).await
        }
    }
}

/// A data connection that counts against its receiver's number.
struct Counted<'s>(&'s Serve);

impl<'s> Counted<'s> {
    fn new(serve: &'s Serve, max: usize) -> Option<Self> {
        let before = serve.connections.fetch_add(1, Ordering::Relaxed);
        let counted = Self(serve);
        (before < max).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
