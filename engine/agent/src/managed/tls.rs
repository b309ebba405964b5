//! Connections to the control daemon: TLS 1.3 alone, HTTP/2, and nobody but the pinned authority is believed.
//!
//! Owns the configurations, dialling, and what errors of TLS mean to people. Names its provider itself. The daemon is
//! known by a name that is the same wherever it runs: whom an agent trusts is a matter of its pin, not of DNS.

use crate::error::RunError;
use crate::managed::credentials::{Credentials, clock_text, date, unix_seconds};
use crate::managed::pin::Pin;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError,
    RootCertStore, SignatureScheme,
};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// The name that every daemon shows to agents.
const CONTROL_NAME: &str = "control.sealift.invalid";
/// From resolving the daemon's name to the end of the handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a silent connection is asked whether it still lives, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// See [`KEEP_ALIVE`].
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

fn failed(error: impl std::fmt::Display) -> RunError {
    RunError::Failed(format!("TLS cannot be set up: {error}"))
}

/// A verifier that believes this authority and no other.
pub(crate) fn only(
    authority: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// For a host that has joined: its certificate is shown, and the authority that was pinned then is believed.
pub(crate) fn for_agent(credentials: &Credentials) -> Result<Arc<ClientConfig>, RunError> {
    let provider = provider();
    let authority = CertificateDer::from(credentials.authority.clone());
    let verifier = only(authority, Arc::clone(&provider)).map_err(failed)?;
    let shown = credentials.key.certified(&credentials.certificate);
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_webpki_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    Ok(finished(config))
}

/// For a host that joins: the authority is the certificate of the daemon's chain that has the fingerprint.
pub(crate) fn for_join(pin: Pin) -> Result<(Arc<ClientConfig>, Arc<Pinned>), RunError> {
    let provider = provider();
    let pinned = Arc::new(Pinned::new(pin, Arc::clone(&provider)));
    let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&pinned) as _;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok((finished(config), pinned))
}

fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

/// Finds the pinned authority in a chain, and has rustls' own verifier judge the chain by it alone.
#[derive(Debug)]
pub(crate) struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
    algorithms: WebPkiSupportedAlgorithms,
    authority: Mutex<Option<Vec<u8>>>,
}

/// None of the daemon's certificates has the fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("the pinned fingerprint is of none of the daemon's certificates")]
struct NotPinned;

impl Pinned {
    pub(crate) fn new(pin: Pin, provider: Arc<CryptoProvider>) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { pin, provider, algorithms, authority: Mutex::default() }
    }

    /// The authority, DER, once a handshake was right.
    pub(crate) fn authority(&self) -> Option<Vec<u8>> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = others.iter().find(|certificate| Pin::of(certificate) == self.pin);
        let Some(authority) = authority else {
            return Err(CertificateError::Other(OtherError(Arc::new(NotPinned))).into());
        };
        let verifier = only(authority.clone().into_owned(), Arc::clone(&self.provider))?;
        let verified = verifier.verify_server_cert(leaf, others, name, ocsp, now)?;
        let mut kept = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(authority.to_vec());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Dials the daemon and makes the handshake. The channel is of this connection alone: when it ends, so do its calls.
pub(crate) async fn dial(daemon: &str, config: Arc<ClientConfig>) -> Result<Channel, RunError> {
    let unreachable = |error: &dyn std::fmt::Display| {
        RunError::DaemonAway(format!("the control daemon at {daemon}: {error}"))
    };
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, async {
        let socket = TcpStream::connect(daemon).await.map_err(|error| unreachable(&error))?;
        socket.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let name = ServerName::try_from(CONTROL_NAME).map_err(failed)?;
        let connected = TlsConnector::from(config).connect(name, socket).await;
        connected.map_err(|error| explain(daemon, &error).unwrap_or_else(|| unreachable(&error)))
    });
    let stream = dialled.await.map_err(|_| unreachable(&"it does not answer"))??;
    channel(stream).await.map_err(|error| unreachable(&error))
}

async fn channel(stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    // TLS is beneath it already.
    Endpoint::from_static("http://control.sealift.invalid")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
}

/// What an error of TLS means; `None` if it is one of the network.
pub(crate) fn explain(daemon: &str, error: &io::Error) -> Option<RunError> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) if inner.is::<NotPinned>() => {
            RunError::Barred(format!(
                "{daemon} does not show the certificate authority that was pinned: it is another daemon, or the \
                fingerprint given with --pin is wrong. Nothing was sent to it"
            ))
        }
        Error::InvalidCertificate(error) => match clock(error) {
            Some(clock) => {
                RunError::Failed(format!("{clock}\nThe control daemon at {daemon} was not believed"))
            }
            None => RunError::Barred(format!(
                "{daemon} does not prove that it is the control daemon whose certificate authority was pinned: {error}"
            )),
        },
        Error::AlertReceived(alert) if is_about_certificates(*alert) => {
            RunError::Barred(format!("the control daemon at {daemon} refused this agent's certificate"))
        }
        error => RunError::Failed(format!("{daemon} does not speak as a control daemon: {error}")),
    })
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// What is said if a daemon's certificate is not of this time: daemons renew theirs, so that it is the clock (C5).
fn clock(error: &CertificateError) -> Option<String> {
    let seconds = |time: &UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let now = unix_seconds(SystemTime::now());
    match error {
        CertificateError::ExpiredContext { not_after, .. } => Some(format!(
            "this host's clock looks wrong: it says {}, and the daemon's certificate ended at {}",
            date(now),
            date(seconds(not_after))
        )),
        CertificateError::NotValidYetContext { not_before, .. } => Some(format!(
            "this host's clock looks wrong: it says {}, and the daemon's certificate begins at {}",
            date(now),
            date(seconds(not_before))
        )),
        CertificateError::Expired | CertificateError::NotValidYet => Some(clock_text(now, 0, 0)),
        _ => None,
    }
}

/// What an error of a call means: the daemon may judge an agent's certificate only after the agent's own handshake.
pub(crate) fn of_status(daemon: &str, status: &tonic::Status) -> RunError {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let explained = error.downcast_ref::<io::Error>().and_then(|error| explain(daemon, error));
        if let Some(explained) = explained {
            return explained;
        }
        source = error.source();
    }
    let said = sealift_proto::path::escape(status.message().as_bytes());
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            RunError::Barred(format!("the control daemon at {daemon} refuses this host: {said}"))
        }
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            RunError::DaemonAway(format!("the control daemon at {daemon}: {said}"))
        }
        _ => RunError::Failed(format!("the control daemon at {daemon}: {said}")),
    }
}
