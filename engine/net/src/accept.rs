//! The serving side's handshake: finds the job a ClientHello names and lets in those who hold its key.
//!
//! ClientHello → tag → the job's configuration, or a decoy's → rest of the handshake, all under one absolute deadline
//! and one place in the [`HandshakeGate`]. A decoy is a job like any other, except that nobody has its key: it is
//! derived from a secret of this process and the name asked for. So a stranger who names an unknown job and one who
//! names a real job without its key see the same messages, the same sizes and the same alerts, however often they ask.
//! Which of the two it was is for the log alone.

use crate::cipher::Cipher;
use crate::connection::Connection;
use crate::gate::{AuthDeadline, HandshakeGate, Overdue};
use crate::handshake::Opening;
use crate::listen::Incoming;
use crate::tag::{Clock, days_around, tag_in};
use crate::tls::{TlsFailure, server_config};
use hkdf::Hkdf;
use rustls::ServerConfig;
use sealift_proto::keys::{JobTag, KEY_BYTES, RoSecret};
use sealift_proto::limits::HANDSHAKE_TIMEOUT_MS;
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

/// A refused peer is given this long to take the alert in; closing at once would reset the connection and lose it.
const LINGER: Duration = Duration::from_secs(1);
/// And this many bytes are read from it meanwhile.
const LINGER_BYTES: u64 = 1 << 20;

/// A job that this side serves.
#[derive(Clone, Debug)]
pub struct ServedJob {
    /// Opens its sessions.
    pub ro: RoSecret,
    /// Encrypts them.
    pub cipher: Cipher,
}

/// Which of the jobs given to [`Acceptor::new`] a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobIndex(pub usize);

/// What decoys are derived from. Keep one for as long as possible: decoys that change give themselves away.
#[derive(Clone)]
pub struct DecoySecret(Zeroizing<[u8; KEY_BYTES]>);

impl DecoySecret {
    /// A new secret.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// A secret that was kept.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// What depends on the name asked for alone: a decoy's secret, and a number to choose its cipher by.
    fn derive(&self, server_name: &str) -> (RoSecret, u32) {
        let (mut secret, mut choice) = (Zeroizing::new([0; KEY_BYTES]), [0; 4]);
        let hkdf = Hkdf::<Sha256>::new(None, &self.0[..]);
        hkdf.expand_multi_info(&[b"sealift v1 decoy secret", server_name.as_bytes()], secret.as_mut())
            .expect("32 bytes are one block of output");
        hkdf.expand_multi_info(&[b"sealift v1 decoy choice", server_name.as_bytes()], &mut choice)
            .expect("4 bytes are one block of output");
        (RoSecret::from_bytes(&secret), u32::from_le_bytes(choice))
    }
}

impl fmt::Debug for DecoySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoySecret(secret)")
    }
}

/// What an [`Acceptor`] shares with the rest of the process, and what tests set.
#[derive(Clone, Debug)]
pub struct AcceptorOptions {
    /// Bounds the handshakes of all shards together.
    pub gate: HandshakeGate,
    /// Makes up the jobs that do not exist.
    pub decoy: DecoySecret,
    /// From accepting the connection to the end of its authentication.
    pub timeout: Duration,
    /// Says which day's tags are known.
    pub clock: Clock,
}

impl AcceptorOptions {
    /// The limits of the protocol, the system's clock, a new gate and a new decoy secret.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            gate: HandshakeGate::new(),
            decoy: DecoySecret::random()?,
            timeout: Duration::from_millis(HANDSHAKE_TIMEOUT_MS),
            clock: Clock::system(),
        })
    }
}

/// Authenticates incoming connections. One serves all shards, behind an `Arc`.
#[derive(Debug)]
pub struct Acceptor {
    jobs: Vec<(ServedJob, Arc<ServerConfig>)>,
    options: AcceptorOptions,
    tags: Mutex<KnownTags>,
}

/// The tags of the days around one day.
#[derive(Debug, Default)]
struct KnownTags {
    day: Option<u64>,
    jobs: HashMap<JobTag, JobIndex>,
}

/// A connection whose peer holds its job's key.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub connection: Connection,
    /// The job it is for.
    pub job: JobIndex,
    /// Read the first message under this, then drop it.
    pub auth: AuthDeadline,
}

/// Why a peer was not let in. For the log: the peer cannot tell these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It named no job that is served here on this day.
    UnknownJob,
    /// It named a job and did not prove that it holds its key, or did not believe that we do.
    WrongKey,
}

/// Why a handshake on the serving side failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Too slow, or in the way of newer ones.
    #[error(transparent)]
    Overdue(#[from] Overdue),
    /// The peer lacks the key.
    #[error("the peer was refused ({0:?}): {1}")]
    NotAuthorized(Refusal, String),
    /// The peer speaks another protocol or version, or breaks this one's rules.
    #[error("the peer does not speak sealift/1 properly: {0}")]
    Incompatible(String),
    /// The connection broke.
    #[error("the connection broke during the handshake: {0}")]
    Io(#[source] io::Error),
}

impl HandshakeError {
    fn new(failure: TlsFailure, job: Option<JobIndex>) -> Self {
        let refusal = if job.is_some() { Refusal::WrongKey } else { Refusal::UnknownJob };
        match failure {
            TlsFailure::Key(why) => Self::NotAuthorized(refusal, why),
            TlsFailure::Protocol(why) => Self::Incompatible(why),
            TlsFailure::Io(error) => Self::Io(error),
        }
    }
}

impl Acceptor {
    /// Serves these jobs.
    #[must_use]
    pub fn new(jobs: Vec<ServedJob>, options: AcceptorOptions) -> Self {
        let jobs = jobs
            .into_iter()
            .map(|job| {
                let config = server_config(&job.ro, job.cipher);
                (job, config)
            })
            .collect();
        Self { jobs, options, tags: Mutex::default() }
    }

    /// Serves other jobs through the same gate and behind the same decoys.
    #[must_use]
    pub fn with_jobs(&self, jobs: Vec<ServedJob>) -> Self {
        Self::new(jobs, self.options.clone())
    }

    /// The gate it admits handshakes through.
    #[must_use]
    pub const fn gate(&self) -> &HandshakeGate {
        &self.options.gate
    }

    /// Authenticates a connection, on the runtime it is called from.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is closed then, after a refused peer was told so.
    pub async fn handshake(&self, incoming: Incoming) -> Result<Accepted, HandshakeError> {
        let deadline = incoming.accepted_at + self.options.timeout;
        let mut auth = AuthDeadline::new(self.options.gate.enter(), deadline);
        let (connection, job) = auth.run(self.negotiate(incoming)).await??;
        Ok(Accepted { connection, job, auth })
    }

    async fn negotiate(&self, incoming: Incoming) -> Result<(Connection, JobIndex), HandshakeError> {
        let mut opening =
            TcpStream::from_std(incoming.stream).and_then(Opening::new).map_err(HandshakeError::Io)?;
        let name = match opening.server_name().await {
            Ok(name) => name.unwrap_or_default(),
            Err(failure) => {
                linger(opening.stream).await;
                return Err(HandshakeError::new(failure, None));
            }
        };
        let (job, config) = self.choose(&name);
        match (opening.serve(&config).await, job) {
            (Ok(agreed), Some(job)) => {
                let connection = Connection::established(opening, agreed, incoming.peer);
                connection
                    .map(|connection| (connection, job))
                    .map_err(|why| HandshakeError::new(why, Some(job)))
            }
            (Ok(_), None) => Err(HandshakeError::NotAuthorized(
                Refusal::UnknownJob,
                "the peer knows a decoy's key".to_owned(),
            )),
            (Err(failure), job) => {
                linger(opening.stream).await;
                Err(HandshakeError::new(failure, job))
            }
        }
    }

    /// The job a server name stands for and its configuration; for an unknown one a decoy's, which costs the same:
    /// it is made up in either case.
    fn choose(&self, server_name: &str) -> (Option<JobIndex>, Arc<ServerConfig>) {
        let decoy = self.decoy(server_name);
        match tag_in(server_name).and_then(|tag| self.find(tag)) {
            Some(job) => (Some(job), Arc::clone(&self.jobs[job.0].1)),
            None => (None, decoy),
        }
    }

    fn decoy(&self, server_name: &str) -> Arc<ServerConfig> {
        let (secret, choice) = self.options.decoy.derive(server_name);
        // Each cipher as often as real jobs have it.
        let like = choice as usize % self.jobs.len().max(1);
        let cipher = self.jobs.get(like).map_or_else(Cipher::default, |(job, _)| job.cipher);
        server_config(&secret, cipher)
    }

    fn find(&self, tag: JobTag) -> Option<JobIndex> {
        let today = self.options.clock.day();
        let mut known = self.tags.lock().expect("nothing panics while it holds the tags");
        if known.day != Some(today) {
            let tags_of = |(index, (job, _)): (usize, &(ServedJob, _))| {
                let ro = job.ro.clone();
                days_around(today).map(move |day| (ro.tag(day), JobIndex(index)))
            };
            known.jobs = self.jobs.iter().enumerate().flat_map(tags_of).collect();
            known.day = Some(today);
        }
        known.jobs.get(&tag).copied()
    }
}

/// Ends the sending side and reads on for a while, so that the peer gets to see what it was sent.
async fn linger(mut stream: TcpStream) {
    let reading = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Failing or not, the connection ends here.
    let _ = tokio::time::timeout(LINGER, reading).await;
}
