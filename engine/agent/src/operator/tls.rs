//! TLS to the daemon's API: 1.3 or 1.2 as the daemon serves it, and nobody but its own authority is believed.
//!
//! There is no way to turn that off. Unlike the agents' port, this one is reached by the name that people know the daemon
//! by, so that the certificate has to be for that name.

use crate::error::RunError;
use crate::managed::Pin;
use crate::managed::tls::{Pinned, explain, only};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, Error};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The file of an authority.
const AUTHORITY_BYTES_MAX: u64 = 64 << 10;

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those of the authority with this fingerprint, which the daemon shows.
    Pin(Pin),
    /// Those of this authority, DER.
    Authority(Vec<u8>),
}

impl Trust {
    /// The authority in a file: PEM, also with text before it, or DER.
    pub(crate) fn read(file: &Path) -> Result<Self, RunError> {
        use std::io::Read as _;
        let shown = file.display();
        let mut content = Vec::new();
        std::fs::File::open(file)
            .and_then(|file| file.take(AUTHORITY_BYTES_MAX).read_to_end(&mut content))
            .map_err(|error| RunError::Usage(format!("cannot read the authority from {shown}: {error}")))?;
        let der = match CertificateDer::from_pem_slice(&content) {
            Ok(certificate) => certificate.to_vec(),
            Err(_) => content,
        };
        match rustls::RootCertStore::empty().add(CertificateDer::from(der.clone())) {
            Ok(()) => Ok(Self::Authority(der)),
            Err(_) => Err(RunError::Usage(format!(
                "{shown} has no certificate: `sealift-control authority` shows the daemon's"
            ))),
        }
    }
}

/// How the daemon is dialled.
pub(super) struct Dialler {
    /// `HOST:PORT`.
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    pinned: Option<Arc<Pinned>>,
    given: Option<Vec<u8>>,
}

impl Dialler {
    pub(super) fn new(address: &str, trust: &Trust) -> Result<Self, RunError> {
        let failed = |error: Error| RunError::Failed(format!("TLS cannot be set up: {error}"));
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| RunError::Usage(format!("{host} is no name of a host")))?;
        let provider = Arc::new(provider());
        let (verifier, pinned, given): (Arc<dyn ServerCertVerifier>, _, _) = match trust {
            Trust::Pin(pin) => {
                let pinned = Arc::new(Pinned::new(*pin, Arc::clone(&provider)));
                (Arc::clone(&pinned) as _, Some(pinned), None)
            }
            Trust::Authority(der) => {
                let authority = CertificateDer::from(der.clone());
                (only(authority, Arc::clone(&provider)).map_err(failed)?, None, Some(der.clone()))
            }
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { address: address.to_owned(), name, config: Arc::new(config), pinned, given })
    }

    /// `HOST:PORT`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The authority, DER: the one that was given, or that was shown in a handshake and has the fingerprint.
    pub(super) fn authority(&self) -> Option<Vec<u8>> {
        self.given.clone().or_else(|| self.pinned.as_ref()?.authority())
    }

    pub(super) async fn dial(&self) -> Result<TlsStream<TcpStream>, RunError> {
        let daemon = &self.address;
        let away =
            |error: io::Error| RunError::DaemonAway(format!("the control daemon at {daemon}: {error}"));
        let socket = TcpStream::connect(daemon).await.map_err(away)?;
        socket.set_nodelay(true).map_err(away)?;
        let connected = TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), socket).await;
        connected.map_err(|error| {
            self.of_name(&error).or_else(|| explain(daemon, &error)).unwrap_or_else(|| away(error))
        })
    }

    /// What people get wrong first: the daemon was not told the name by which they reach it.
    fn of_name(&self, error: &io::Error) -> Option<RunError> {
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        let Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) = inner
        else {
            return None;
        };
        let name = self.name.to_str();
        Some(RunError::Barred(format!(
            "the control daemon at {} has no certificate for {name}: reach it by one of its names, or start it with \
            `sealift-control serve --name {name}`. Nothing was sent to it",
            self.address
        )))
    }
}

/// As the daemon serves it: ECDHE with AES-GCM alone.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}
