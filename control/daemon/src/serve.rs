//! The running daemon: opens its ports and serves until it is told to end.
//!
//! Owns the order of starting and ending. What comes in on a port goes to its router: the agent channel on 8444, agents'
//! logs on 8445, the API on 8443; members of jobs find each other by the tracker on 3000. Agents dial in and are never dialled.

use crate::ca::{Authority, CaError};
use crate::channel::{self, Hub};
use crate::db::logs::LogStore;
use crate::db::{Db, DbError, audit};
use crate::logs;
use crate::tls::{self, Accepted, TlsError};
use crate::tracker::{Tracker, TrackerError, TrackerTimes};
use axum::Extension;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// From one request on a connection to the end of the next one's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 64;
/// Between looks whether somebody else has changed the database: a command on this host.
const OTHERS_TICK: Duration = Duration::from_millis(500);
/// How long connections may take to end.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The console and the API.
    pub web: SocketAddr,
    /// The agents' channel.
    pub agents: SocketAddr,
    /// Where agents bring their logs.
    pub logs: SocketAddr,
    /// The file of those logs.
    pub logs_file: PathBuf,
    /// The tracker, if there is to be one.
    pub tracker: Option<SocketAddr>,
    /// Names and addresses by which people reach this host.
    pub names: Vec<String>,
}

/// Where it listens: ports that were 0 are known by now.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// The console and the API.
    pub web: SocketAddr,
    /// The agents' channel.
    pub agents: SocketAddr,
    /// Where agents bring their logs.
    pub logs: SocketAddr,
    /// The tracker, TCP and UDP.
    pub tracker: Option<SocketAddr>,
}

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificates.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The tracker.
    #[error(transparent)]
    Tracker(#[from] TrackerError),
    /// The file of logs.
    #[error("the logs cannot be kept: {0}")]
    Logs(#[source] DbError),
    /// Signals.
    #[error("cannot take signals: {0}")]
    Signals(io::Error),
}

/// Who is at the other end of a connection: given to each request on it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// The certificate that it showed and that this daemon's authority has signed, DER.
    pub certificate: Option<Arc<[u8]>>,
}

/// Serves until SIGTERM or SIGINT. `listening` is called once every port is open.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    db: Db,
    options: ServeOptions,
    listening: impl FnOnce(Listening),
) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let authority = Arc::new(Authority::load(&db)?);
    let for_agents = Arc::new(tls::for_agents(&authority)?);
    let for_logs = Arc::new(tls::for_logs(&authority)?);
    let for_people = Arc::new(tls::for_people(&authority, &options.names)?);
    let web = listen(options.web).await?;
    let agents = listen(options.agents).await?;
    let uploads = listen(options.logs).await?;
    let tracker = match options.tracker {
        Some(address) => Some(Tracker::bind(&authority, address, TrackerTimes::default()).await?),
        None => None,
    };
    let at = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let where_to = Listening {
        web: at(&web, options.web),
        agents: at(&agents, options.agents),
        logs: at(&uploads, options.logs),
        tracker: tracker.as_ref().map(Tracker::local_addr),
    };
    let clock = db.clone();
    let store = LogStore::open(&options.logs_file, Arc::new(move || clock.now_ms()));
    let store = store.map_err(ServeError::Logs)?;
    logs::reconcile(&store, &db).map_err(ServeError::Logs)?;

    let hub = Hub::new(db.clone(), Arc::clone(&authority));
    hub.logs_port.store(where_to.logs.port(), Ordering::Relaxed);
    let tracker_port = where_to.tracker.map_or(0, |tracker| tracker.port());
    hub.tracker_port.store(tracker_port, Ordering::Relaxed);
    let (end, ending) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let keys = logs::DataKeys::default();
    let api = crate::rest::router(db.clone(), Arc::clone(&hub), store.clone(), keys.clone(), ending.clone());
    tasks.spawn(port(web, for_people, api, ending.clone()));
    tasks.spawn(port(agents, for_agents, channel::router(Arc::clone(&hub)), ending.clone()));
    let upload = logs::router(Arc::clone(&hub), store.clone(), keys);
    tasks.spawn(port(uploads, for_logs, upload, ending.clone()));
    if let Some(tracker) = tracker {
        tasks.spawn(tracker.run(ending.clone()));
    }
    let retaining = tokio::spawn(logs::retain(store, db.clone()));
    let watching = tokio::spawn(watch_others(db.clone(), Arc::clone(&hub)));
    let scheduling = tokio::spawn(crate::schedule::run(Arc::clone(&hub)));
    listening(where_to);
    tracing::info!(
        web = %where_to.web,
        agents = %where_to.agents,
        logs = %where_to.logs,
        tracker = where_to.tracker.map(tracing::field::display),
        "serving"
    );

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    hub.shut_down();
    end.send_replace(true);
    let ended = async { while tasks.join_next().await.is_some() {} };
    // Agents come again, and requests are tried again: nobody is waited for for long.
    let _ = tokio::time::timeout(ENDING_MAX, ended).await;
    retaining.abort();
    watching.abort();
    scheduling.abort();
    let signed = tokio::task::spawn_blocking(move || {
        hub.finish();
        db.record_refusals(true)?;
        audit::checkpoint(&db)
    });
    let signed = signed.await;
    if !matches!(signed, Ok(Ok(_))) {
        tracing::error!("the audit could not be signed");
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| ServeError::Listen(address, error))
}

/// Serves one port.
async fn port(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: Router,
    ending: watch::Receiver<bool>,
) {
    let until = ending.clone();
    let serve = move |accepted| connection(accepted, router.clone(), until.clone());
    tls::accept(listener, config, ending, serve).await;
}

async fn connection(accepted: Accepted, router: Router, mut ending: watch::Receiver<bool>) {
    let Accepted { stream, peer: address } = accepted;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(|leaf| Arc::from(leaf.as_ref()));
    let service = TowerToHyperService::new(router.layer(Extension(Peer { address, certificate })));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = async move { ending.wait_for(|&ending| ending).await.is_ok() };
    let served = tokio::select! {
        served = serving.as_mut() => served,
        _ = ended => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(ENDING_MAX, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "a connection ended");
    }
}

/// Tells every agent anew when a command on this host has changed the database.
async fn watch_others(db: Db, hub: Arc<Hub>) {
    let mut version = None;
    let mut ticks = tokio::time::interval(OTHERS_TICK);
    loop {
        ticks.tick().await;
        let db = db.clone();
        let now = tokio::task::spawn_blocking(move || db.data_version()).await;
        let Ok(Ok(now)) = now else { continue };
        if version.replace(now).is_some_and(|before| before != now) {
            hub.wake_all();
        }
    }
}
