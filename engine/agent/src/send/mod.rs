//! `sealift send`: offers files, and serves them to whoever has the ticket.
//!
//! Takes the job's keys up or makes some, starts the scan and the serving shards, and passes each connection that comes
//! in to one of these. Owns the order of starting and ending.

mod carried;
mod changed;
mod control;
mod data;
mod feed;
mod find;
mod hashes;
pub(crate) mod log;
mod offering;
mod recent;
mod scan;
mod sequence;
pub(crate) mod serve;
pub(crate) mod shelf;

use crate::discovery::{self, DiscoveryOptions, own_addresses};
use crate::error::{Finish, RunError};
use crate::preserve::Preserve;
use crate::report::{Event, Reporter};
use crate::seal::{self, KeyFile, SourceSeal};
use crate::shards::Shards;
use crate::state::{Chain, Job, JobName, StateDir, new_seed};
use crate::swarm::new_node;
use carried::Carried;
use changed::ChangedFiles;
use hashes::Hashes;
use log::{ManifestLog, OfferedFiles};
use offering::Offering;
use recent::Recent;
use scan::{Scan, Scanning, Totals};
use sealift_envelope::DataKey;
use sealift_net::{
    Acceptor, AcceptorOptions, Cipher, HandshakeGate, Limiter, Listener, ServedJob, Transport,
};
use sealift_proto::digest::HashAlgorithm;
use sealift_proto::discovery::Offers;
use sealift_proto::keys::{RoSecret, RwSeed};
use sealift_proto::limits::TICKET_ADDRESSES_MAX;
use sealift_proto::manifest::{SegmentHash, SegmentSeq, SegmentWriter};
use sealift_proto::member::Label;
use sealift_proto::ticket::{Address, Ticket};
use sealift_proto::wire::Member;
use sealift_store::{Backend, Source};
use serve::{Happened, Serving};
use shelf::{Shelf, SourceShelf};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// News of receivers that may wait.
const HAPPENED_MAX: usize = 64;

const PROGRESS_TICK: Duration = Duration::from_millis(250);
/// Refusals that are told in a minute.
const REFUSALS_PER_MINUTE: u32 = 20;

/// What to send, and how.
#[derive(Clone, Debug)]
pub struct SendOptions {
    /// Files and directories.
    pub paths: Vec<PathBuf>,
    /// Where to listen.
    pub bind: Option<SocketAddr>,
    /// Addresses to put into the ticket before this host's own.
    pub advertise: Vec<Address>,
    /// End after the first receiver has everything.
    pub once: bool,
    /// Write the ticket here instead of showing it.
    pub ticket_file: Option<PathBuf>,
    /// The hash of the blocks.
    pub hash: HashAlgorithm,
    /// The cipher of the sessions.
    pub cipher: Cipher,
    /// What sessions may go over.
    pub transport: Transport,
    /// Data connections that one receiver may open.
    pub connections: usize,
    /// By what receivers find this sender, beside the ticket's addresses.
    pub discovery: DiscoveryOptions,
    /// The job whose keys and chain are gone on with; without one they are of this run alone.
    pub job: Option<JobName>,
    /// Where state is kept, if the user named a place.
    pub state_dir: Option<PathBuf>,
    /// Whether all files are hashed again, whatever is known of them.
    pub rehash: bool,
    /// Where this host stands in the network.
    pub label: Label,
    /// How fast receivers are served, all together.
    pub limiter: Arc<Limiter>,
    /// What is carried. Modes, times, links, names of one file and holes always are.
    pub preserve: Preserve,
    /// Whose keys open what is offered; if there are none, it is offered as it is.
    pub seal_to: Vec<KeyFile>,
}

/// The port of data sessions.
pub const DATA_PORT: u16 = 3939;

/// Runs until interrupted, or with `once` until the first receiver is done.
///
/// # Errors
/// See [`RunError`].
pub async fn send(options: SendOptions, reporter: Arc<Reporter>) -> Result<Finish, RunError> {
    // Before anybody is told anything: whoever knows of this run can end it in order.
    let interrupted = std::pin::pin!(interruption());
    let backend = Backend::choose().map_err(|error| RunError::Usage(error.to_string()))?;
    let source = Source::open(&options.paths).map_err(|error| RunError::Usage(error.to_string()))?;
    let state = StateDir::open(options.state_dir.clone());
    if let Ok(state) = &state
        && state.is_within(&options.paths)
    {
        let place = state.path().display();
        return Err(RunError::Usage(format!(
            "the state directory {place} lies within what is sent, and holds the keys of jobs: name another with --state-dir"
        )));
    }
    let (seed, chain) = match (&options.job, &state) {
        (None, _) => (new_seed().map_err(failed("no keys can be made"))?.1, None),
        (Some(name), Ok(state)) => {
            let Job { seed, chain } = state.job(name)?;
            (seed, Some(chain))
        }
        (Some(_), Err(_)) => return Err(state.expect_err("just looked")),
    };
    let seal = sealing(&options, &state, &seed, &reporter)?;
    let carried = Arc::new(Carried::new(options.preserve));
    let source = match &seal {
        None => Offering::plain(source),
        Some(seal) => Offering::sealed(source, Arc::clone(seal), Arc::clone(&carried), Arc::clone(&reporter))
            .map_err(failed("cannot make a temporary file for what is sealed"))?,
    };
    let source = Arc::new(source);
    let acceptor_options = AcceptorOptions::new().map_err(failed("no randomness for keys"))?;
    let listener = bind(options.bind, options.transport, &acceptor_options.gate)?;
    let ticket = Ticket {
        ro_secret: match seal {
            None => seed.ro_secret(),
            Some(_) => RoSecret::of_keepers(&seed.verify_key()),
        },
        verify_key: seed.verify_key(),
        addresses: ticket_addresses(&options.advertise, listener.local_addr()),
    };
    tell_ticket(&ticket, options.ticket_file.as_deref(), &reporter)?;

    let (next, previous) = chain.as_ref().map_or((SegmentSeq(0), SegmentHash::NONE), Chain::begins_at);
    let writer = SegmentWriter::resume(seed, options.hash, next, previous);
    let spool = failed("cannot make a temporary file for the manifest");
    let log = Arc::new(ManifestLog::new(chain).map_err(&spool)?);
    let files = Arc::new(OfferedFiles::new().map_err(&spool)?);
    let changed = Arc::new(ChangedFiles::default());
    let scanned = watch::Sender::new(None);
    let totals = scanned.subscribe();
    let recent = Arc::new(Recent::default());
    let scan = Scan {
        source: Arc::clone(&source),
        log: Arc::clone(&log),
        files: Arc::clone(&files),
        algorithm: options.hash,
        recent: Arc::clone(&recent),
        backend: backend.backend,
        carried,
        reporter: Arc::clone(&reporter),
        changed: Arc::clone(&changed),
        scanned,
    };
    let hashes = Hashes::open(
        state.as_ref(),
        &options.paths,
        options.hash,
        options.rehash,
        seal.as_deref(),
        &reporter,
    );
    let mut scanning = scan::start(scan, writer, hashes).map_err(failed("cannot start the scan"))?;

    let goodbyes = watch::Sender::new(false);
    let (happened, news) = mpsc::channel(HAPPENED_MAX);
    let job = ServedJob { ro: ticket.ro_secret.clone(), cipher: options.cipher };
    let serving = Arc::new(Serving {
        acceptor: Acceptor::new(vec![job], acceptor_options),
        shelf: Shelf::Source(SourceShelf { source, files, recent, changed }),
        log: Arc::clone(&log),
        member: Member {
            node: new_node().map_err(failed("no randomness for a name"))?,
            port: listener.local_addr().port(),
            label: options.label,
        },
        members: watch::Sender::new(()),
        finished: Mutex::default(),
        happened,
        limiter: options.limiter,
        connections_max: options.connections,
        ending: goodbyes.subscribe(),
        sessions: Mutex::default(),
        reporter: Arc::clone(&reporter),
        unreadable: Mutex::default(),
    });
    let shards = Shards::start("sealift-send", backend.backend).map_err(failed("cannot start threads"))?;
    shards.describe(&backend, &reporter).await.map_err(failed("cannot start threads"))?;

    let announced = discovery::announce(
        &options.discovery,
        &ticket.ro_secret,
        listener.local_addr(),
        offers(options.transport),
        &reporter,
    )?;
    let ending = serve_until_end(
        &listener,
        &shards,
        &serving,
        (&mut scanning, &totals),
        news,
        interrupted,
        options.once,
    )
    .await;
    announced.end().await;
    // Sessions say goodbye; the shards then end with whatever is left.
    goodbyes.send_replace(true);
    let goodbye = async {
        while !serving.sessions().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), goodbye).await;
    scanning.stop().await;
    if let Err(error) = log.close() {
        let message =
            format!("The end of this run could not be kept, so the next one leaves numbers out: {error}.");
        reporter.tell(&Event::Note { message });
    }
    let (finish, done) = ending?;
    reporter.tell(&done);
    Ok(finish)
}

/// How what is offered is sealed, if it is: under the job's data key, or one of this run alone.
fn sealing(
    options: &SendOptions,
    state: &Result<StateDir, RunError>,
    seed: &RwSeed,
    reporter: &Reporter,
) -> Result<Option<Arc<SourceSeal>>, RunError> {
    if options.seal_to.is_empty() {
        return Ok(None);
    }
    let mut keks = Vec::with_capacity(options.seal_to.len());
    for KeyFile { path, version } in &options.seal_to {
        let kek = seal::read_public(path)?;
        if kek.is_weak() {
            let message = format!(
                "{}: an RSA key of {} bits is weaker than is recommended today: 3072 bits or more",
                path.display(),
                kek.bits()
            );
            reporter.tell(&Event::Warning { message });
        }
        keks.push((kek, *version));
    }
    let job = seed.verify_key().job_id();
    let kept = match (&options.job, state) {
        (Some(name), Ok(state)) => Some((state, name)),
        _ => None,
    };
    let key = match kept {
        Some((state, name)) => seal::data_key(state, name)?,
        None => DataKey::generate().map_err(|error| RunError::Failed(error.to_string()))?,
    };
    let envelope = seal::envelope(kept, &key, job, &keks)?;
    Ok(Some(Arc::new(SourceSeal::new(&key, job, envelope))))
}

/// How a run ends, and what is told of it last of all.
type Ending = (Finish, Event<'static>);

/// Serves whoever comes, until the user, the system or `once` ends it, or the scan fails.
async fn serve_until_end(
    listener: &Listener,
    shards: &Shards,
    serving: &Arc<Serving>,
    (scanning, totals): (&mut Scanning, &watch::Receiver<Option<Totals>>),
    mut news: mpsc::Receiver<Happened>,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
    once: bool,
) -> Result<Ending, RunError> {
    let mut tally = Tally::new();
    let mut ticks = tokio::time::interval(PROGRESS_TICK);
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let serving = Arc::clone(serving);
                shards.spawn(move |io| serve::serve(io, serving, incoming)).await.map_err(failed("cannot serve"))?;
            }
            Some(happened) = news.recv() => {
                if let Some(ending) = tally.note(happened, once, totals, serving) {
                    return Ok(ending);
                }
            }
            _ = ticks.tick() => tally.progress(serving),
            ended = &mut scanning.failed => {
                let reason = ended.map_or_else(|_| "its thread ended".into(), |error| error.to_string());
                return Err(RunError::Failed(format!("the scan failed: {reason}")));
            }
            () = interrupted.as_mut() => {
                if once {
                    return Err(RunError::Interrupted);
                }
                while let Ok(happened) = news.try_recv() {
                    let _ = tally.note(happened, once, totals, serving);
                }
                return Ok(tally.end(totals, serving));
            }
        }
    }
}

/// What was served so far.
struct Tally {
    started: Instant,
    begun: Option<Instant>,
    /// Payload bytes sent to receivers that have ended.
    transferred: u64,
    /// Since when refusals are counted, and how many were told since.
    refusals: (Instant, u32),
}

impl Tally {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, begun: None, transferred: 0, refusals: (now, 0) }
    }

    /// Tells how far the receivers are, while there are any.
    fn progress(&self, serving: &Serving) {
        let sessions = serving.sessions();
        if !sessions.is_empty() {
            let sent: u64 = sessions.values().map(|serve| serve.sent_bytes.load(Ordering::Relaxed)).sum();
            serving.reporter.tell(&Event::Progress {
                files: serving.shelf.count(),
                bytes: sent,
                bytes_known: serving.shelf.total_bytes() * sessions.len() as u64,
                bytes_transferred: self.transferred + sent,
            });
        }
    }

    /// Whether one more refusal is told: a few, and then only some a minute, whatever strangers do.
    fn tells_refusal(&mut self) -> bool {
        if self.refusals.0.elapsed() >= Duration::from_secs(60) {
            self.refusals = (Instant::now(), 0);
        }
        self.refusals.1 += 1;
        self.refusals.1 <= REFUSALS_PER_MINUTE
    }

    /// Tells the news; with `once`, the end that it brings.
    fn note(
        &mut self,
        happened: Happened,
        once: bool,
        totals: &watch::Receiver<Option<Totals>>,
        serving: &Serving,
    ) -> Option<Ending> {
        let reporter = &serving.reporter;
        match happened {
            Happened::Connected(peer, carrier) => {
                self.begun.get_or_insert_with(Instant::now);
                reporter.tell(&Event::Connected { peer: peer.to_string(), transport: carrier.name() });
                None
            }
            Happened::Refused(peer, reason) => {
                if self.tells_refusal() {
                    reporter.tell(&Event::Refused { peer: peer.to_string(), reason });
                }
                None
            }
            Happened::Lost(peer, reason, sent_bytes) => {
                self.transferred += sent_bytes;
                reporter.tell(&Event::Disconnected { peer: peer.to_string(), reason });
                None
            }
            Happened::Finished(peer, finished, sent_bytes) => {
                self.transferred += sent_bytes;
                let reason = match finished.failed {
                    0 => "has everything".to_owned(),
                    failed => format!("is done; {failed} entries are missing there"),
                };
                reporter.tell(&Event::Disconnected { peer: peer.to_string(), reason });
                once.then(|| {
                    let done = Event::Done {
                        files: finished.files,
                        bytes: finished.bytes,
                        bytes_transferred: self.transferred,
                        seconds: self.begun.unwrap_or(self.started).elapsed().as_secs_f64(),
                        failed: finished.failed,
                        deleted: 0,
                    };
                    // What could not be offered is among what the receiver misses, if it says so.
                    (finish_of(finished.failed.max(problems(totals, serving))), done)
                })
            }
        }
    }

    /// The end of a sender that was told to stop.
    fn end(&self, totals: &watch::Receiver<Option<Totals>>, serving: &Serving) -> Ending {
        let Totals { files, bytes, .. } = totals.borrow().unwrap_or_default();
        let problems = problems(totals, serving);
        let done = Event::Done {
            files,
            bytes,
            bytes_transferred: self.transferred,
            seconds: self.started.elapsed().as_secs_f64(),
            failed: problems,
            deleted: 0,
        };
        (finish_of(problems), done)
    }
}

/// What could not be offered, or not be read when it was asked for.
fn problems(totals: &watch::Receiver<Option<Totals>>, serving: &Serving) -> u64 {
    totals.borrow().map_or(0, |totals| totals.problems) + serving.unreadable_files()
}

fn finish_of(failed: u64) -> Finish {
    if failed == 0 { Finish::Complete } else { Finish::Partial }
}

/// What a listener can be dialled by.
pub(crate) fn offers(transport: Transport) -> Offers {
    match transport {
        Transport::Tcp => Offers::TCP,
        Transport::Quic => Offers::QUIC,
        Transport::Auto => Offers::TCP.and(Offers::QUIC),
    }
}

/// Listens there, or on all addresses at the port of data sessions.
///
/// # Errors
/// If that cannot be done.
pub(crate) fn bind(
    address: Option<SocketAddr>,
    transport: Transport,
    gate: &HandshakeGate,
) -> Result<Listener, RunError> {
    let bind = |address| Listener::bind_for(address, transport, gate);
    let listener = match address {
        Some(address) => bind(address).map_err(|error| (address, error)),
        None => {
            let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DATA_PORT));
            let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DATA_PORT));
            match bind(any6) {
                // A host without IPv6.
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    bind(any4).map_err(|error| (any4, error))
                }
                bound => bound.map_err(|error| (any6, error)),
            }
        }
    };
    listener.map_err(|(address, error)| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                " (is another sender or receiver running? Choose another port with --bind)"
            }
            io::ErrorKind::PermissionDenied => " (ports below 1024 need privileges)",
            io::ErrorKind::AddrNotAvailable => " (this host has no such address)",
            _ => "",
        };
        RunError::Failed(format!("cannot listen on {address}: {error}{hint}"))
    })
}

/// Where a receiver may find this host: what was advertised, then what it listens on.
fn ticket_addresses(advertise: &[Address], bound: SocketAddr) -> Vec<Address> {
    let mut addresses = advertise.to_vec();
    let own = own_addresses(bound).into_iter();
    addresses.extend(own.map(|ip| Address::Socket(SocketAddr::new(ip, bound.port()))));
    addresses.truncate(TICKET_ADDRESSES_MAX);
    addresses
}

fn tell_ticket(ticket: &Ticket, file: Option<&Path>, reporter: &Reporter) -> Result<(), RunError> {
    let text = ticket.encode();
    let addresses = ticket.addresses.iter().map(ToString::to_string).collect();
    match file {
        None => reporter.tell(&Event::Ticket { ticket: Some(&text), ticket_file: None, addresses }),
        Some(file) => {
            write_secret(file, &text).map_err(|error| {
                RunError::Failed(format!("cannot write the ticket to {}: {error}", file.display()))
            })?;
            let ticket_file = Some(file.display().to_string());
            reporter.tell(&Event::Ticket { ticket: None, ticket_file, addresses });
        }
    }
    Ok(())
}

/// Puts a secret where only its owner can read it, whole from the moment it can be seen.
fn write_secret(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let staged = file.with_file_name(hidden);
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    let written =
        writeln!(out, "{text}").and_then(|()| out.sync_all()).and_then(|()| std::fs::rename(&staged, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&staged);
    }
    written
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |error| RunError::Failed(format!("{what}: {error}"))
}

/// Ends when the user or the system asks for it: from this call on, whenever it is waited for.
pub(crate) fn interruption() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let asked = |kind| {
        let signals = signal(kind);
        async move {
            match signals {
                Ok(mut signals) => drop(signals.recv().await),
                Err(_) => std::future::pending().await,
            }
        }
    };
    let (interrupt, terminate) = (asked(SignalKind::interrupt()), asked(SignalKind::terminate()));
    async move {
        tokio::select! {
            () = interrupt => {}
            () = terminate => {}
        }
    }
}
