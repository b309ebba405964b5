//! Who may speak with the daemon, by TLS: configurations for each port, and the handshakes themselves.
//!
//! A handshake has a task of its own and an absolute deadline, so that a peer who dribbles bytes holds nobody up; there
//! are a limited number at a time. Whether an agent may do what it asks is decided later, by the database.

use crate::address::network;
use crate::ca::{Authority, CONTROL_NAME, CaError, ServerIdentity};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// From accepting a connection to the end of its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at a time, on each port.
const HANDSHAKES_MAX: usize = 128;
/// Connections at a time, on each port.
const CONNECTIONS_MAX: usize = 16_384;
/// Handshakes at a time from one address, on each port: the others' turn is not theirs to take.
const HANDSHAKES_OF_ADDRESS_MAX: usize = HANDSHAKES_MAX / 2;
/// Connections at a time from one address, on each port. Many agents may be behind one.
const CONNECTIONS_OF_ADDRESS_MAX: usize = CONNECTIONS_MAX / 4;
/// After the system has refused to accept one (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The library.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] Error),
    /// The library's verifier.
    #[error("TLS cannot be set up: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    // ECDHE with AES-GCM alone.
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    provider
}

/// For agents: TLS 1.3, and a certificate of theirs if they have one.
///
/// # Errors
/// See [`TlsError`].
pub fn for_agents(authority: &Authority) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let known = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let algorithms = provider.signature_verification_algorithms;
    let ServerIdentity { chain, key } = authority.server(&[CONTROL_NAME.to_owned()])?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AgentVerifier { known, algorithms }))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For agents that bring their logs: TLS 1.3, and a valid certificate of theirs.
///
/// # Errors
/// See [`TlsError`].
pub fn for_logs(authority: &Authority) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone())?;
    let known =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let ServerIdentity { chain, key } = authority.server(&[CONTROL_NAME.to_owned()])?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(known)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For members of jobs that ask a tracker: TLS 1.3. Who they are is nothing to it.
///
/// # Errors
/// See [`TlsError`].
pub fn for_members(authority: &Authority) -> Result<ServerConfig, TlsError> {
    let ServerIdentity { chain, key } = authority.server(&[CONTROL_NAME.to_owned()])?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![sealift_proto::discovery::tracker::ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For people and orchestrators: TLS 1.3 or 1.2, under the names by which they reach this host.
///
/// # Errors
/// See [`TlsError`].
pub fn for_people(authority: &Authority, names: &[String]) -> Result<ServerConfig, TlsError> {
    let ServerIdentity { chain, key } = authority.server(names)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts certificates of this authority, also when they have expired: an agent that was off for long shows its key by
/// it, and may have it renewed, which is all that the channel allows it then.
#[derive(Debug)]
struct AgentVerifier {
    known: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AgentVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        // Those who enrol have none.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.known.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().min(ends)));
        self.known.verify_client_cert(leaf, intermediates, at)
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

/// A connection whose handshake is done.
pub struct Accepted {
    /// The stream.
    pub stream: TlsStream<TcpStream>,
    /// Whose.
    pub peer: SocketAddr,
}

/// Accepts until told to end. `serve` runs for each connection, in a task of its own.
pub async fn accept<F, Fut>(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    mut ending: watch::Receiver<bool>,
    serve: F,
) where
    F: Fn(Accepted) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let acceptor = TlsAcceptor::from(config);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let shaking_from = Crowd::new(HANDSHAKES_OF_ADDRESS_MAX);
    let connected_from = Crowd::new(CONNECTIONS_OF_ADDRESS_MAX);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|&ending| ending) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Over the limits there is no queue: whoever comes then is let go at once.
        let (Ok(shaking), Ok(connected)) =
            (Arc::clone(&handshakes).try_acquire_owned(), Arc::clone(&connections).try_acquire_owned())
        else {
            continue;
        };
        let from = network(peer.ip());
        let (Some(shaking_from), Some(connected_from)) =
            (shaking_from.enter(from), connected_from.enter(from))
        else {
            continue;
        };
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        tokio::spawn(async move {
            let _connected = (connected, connected_from);
            match handshake(&acceptor, stream).await {
                Ok(stream) => {
                    drop((shaking, shaking_from));
                    serve(Accepted { stream, peer }).await;
                }
                Err(error) => tracing::debug!(%peer, %error, "a handshake failed"),
            }
        });
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await?
}

/// How many there are from each address.
struct Crowd {
    from: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
}

/// One of them, until it is dropped.
struct InCrowd {
    crowd: Arc<Crowd>,
    from: IpAddr,
}

impl Crowd {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { from: Mutex::default(), max })
    }

    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<InCrowd> {
        let mut all = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(from).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(InCrowd { crowd: Arc::clone(self), from })
    }
}

impl Drop for InCrowd {
    fn drop(&mut self) {
        let mut all = self.crowd.from.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_gets_them_back() {
        let crowd = Crowd::new(2);
        let at = |text: &str| network(text.parse().unwrap());
        let one = crowd.enter(at("192.0.2.1")).unwrap();
        let _two = crowd.enter(at("::ffff:192.0.2.1")).unwrap();
        assert!(crowd.enter(at("192.0.2.1")).is_none());
        assert!(crowd.enter(at("192.0.2.2")).is_some());
        drop(one);
        assert!(crowd.enter(at("192.0.2.1")).is_some());
        assert_eq!(crowd.from.lock().unwrap().len(), 1);
    }
}
