//! The TLS policy: TLS 1.3 alone, hybrid key agreement, one ALPN, no tickets, no resumption, no 0-RTT.
//!
//! Builds rustls' configurations for both sides and reads meaning into rustls' errors. Names its provider itself and
//! never relies on, or installs, a process-wide one. Does no I/O.

use crate::cipher::Cipher;
use crate::rpk::{OnlyKey, certified};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::version::TLS13;
use rustls::{AlertDescription, CipherSuite, ClientConfig, Error, ServerConfig, SupportedCipherSuite};
use sealift_proto::keys::RoSecret;
use std::io;
use std::sync::Arc;

/// The protocol both sides must negotiate.
pub(crate) const ALPN: &[u8] = b"sealift/1";

fn suite(cipher: Cipher) -> SupportedCipherSuite {
    match cipher {
        Cipher::Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
        Cipher::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
    }
}

/// The cipher behind a negotiated suite.
pub(crate) fn cipher_of(negotiated: CipherSuite) -> Option<Cipher> {
    Cipher::ALL.into_iter().find(|cipher| suite(*cipher).suite() == negotiated)
}

fn provider(ciphers: &[Cipher]) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: ciphers.iter().copied().map(suite).collect(),
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

/// What a listener offers for one job: the job's cipher only.
pub(crate) fn server_config(ro: &RoSecret, cipher: Cipher) -> Arc<ServerConfig> {
    let key = ro.session_key();
    let provider = provider(&[cipher]);
    let verifier = Arc::new(OnlyKey::new(&key, provider.signature_verification_algorithms));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(&key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// What a dialer offers: every cipher, since the listener knows the job's.
pub(crate) fn client_config(ro: &RoSecret) -> Arc<ClientConfig> {
    let key = ro.session_key();
    let provider = provider(&Cipher::ALL);
    let verifier = Arc::new(OnlyKey::new(&key, provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(&key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum TlsFailure {
    /// One end did not prove that it holds the key the other expects.
    Key(String),
    /// The peer speaks something else, or breaks the protocol.
    Protocol(String),
    /// The connection failed beneath TLS.
    Io(io::Error),
}

impl From<Error> for TlsFailure {
    fn from(error: Error) -> Self {
        if is_about_keys(&error) { Self::Key(error.to_string()) } else { Self::Protocol(error.to_string()) }
    }
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

fn is_about_keys(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => true,
        Error::AlertReceived(alert) => alert_is_about_keys(*alert),
        _ => false,
    }
}

/// Whether an alert says that a key was not accepted.
pub(crate) const fn alert_is_about_keys(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// Whether an error from an established [`Connection`](crate::Connection) means that the peer refused our key.
///
/// In TLS 1.3 a dialer has finished its handshake before the listener judges its key: the refusal then comes as the
/// error of the first read.
#[must_use]
pub fn is_rejection(error: &io::Error) -> bool {
    rustls_error(error).is_some_and(is_about_keys)
}
