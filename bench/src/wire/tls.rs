//! TLS 1.3 by rustls and AWS-LC, with a raw public key that nobody checks: what it costs is measured, not whom it
//! keeps out.

use super::Kind;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig,
    ServerConnection, SignatureScheme, SupportedCipherSuite,
};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

/// Plaintext that rustls takes before it makes the writer wait.
const BUFFER_BYTES: usize = 2 << 20;

fn provider(kind: Kind) -> Arc<CryptoProvider> {
    let suite: SupportedCipherSuite = match kind {
        Kind::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
        Kind::Aes256Gcm | Kind::Plain => cipher_suite::TLS13_AES_256_GCM_SHA384,
    };
    Arc::new(CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() })
}

/// For QUIC, whose first packets are always of AES-128; what follows is of AES-256, as Sealift's is.
fn quic_provider() -> Arc<CryptoProvider> {
    let suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() })
}

/// The end that sends.
pub struct Client(Arc<AnyKey>);

impl Client {
    /// One.
    pub fn new() -> Self {
        Self(Arc::new(AnyKey(aws_lc_rs::default_provider().signature_verification_algorithms)))
    }

    /// Does the handshake, if the kind has one.
    pub fn connect(&self, kind: Kind, stream: &mut TcpStream) -> io::Result<Option<ClientConnection>> {
        if kind == Kind::Plain {
            return Ok(None);
        }
        let config = self.config_of(provider(kind))?;
        let name = ServerName::try_from("sealift-bench").map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(BUFFER_BYTES));
        while session.is_handshaking() {
            session.complete_io(stream)?;
        }
        Ok(Some(session))
    }

    /// For QUIC.
    pub fn config(&self) -> io::Result<ClientConfig> {
        self.config_of(quic_provider())
    }

    fn config_of(&self, provider: Arc<CryptoProvider>) -> io::Result<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.0) as _)
            .with_no_client_auth();
        Ok(config)
    }
}

/// The end that takes.
pub struct Server(Arc<CertifiedKey>);

impl Server {
    /// One with a new key.
    pub fn new() -> Result<Self, Error> {
        let pkcs8 =
            ::aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(&::aws_lc_rs::rand::SystemRandom::new())
                .map_err(|_| Error::FailedToGetRandomBytes)?;
        let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_ref()))?;
        let public = key.public_key().ok_or(Error::General("the key has no public half".into()))?;
        let shown = CertificateDer::from(public.as_ref().to_vec());
        Ok(Self(Arc::new(CertifiedKey::new(vec![shown], key))))
    }

    /// Does the handshake, if the kind has one.
    pub fn accept(&self, kind: Kind, stream: &mut TcpStream) -> io::Result<Option<ServerConnection>> {
        if kind == Kind::Plain {
            return Ok(None);
        }
        let mut config = self.config_of(provider(kind))?;
        // The last byte to the client goes without TLS: nothing may be sent after the handshake.
        config.send_tls13_tickets = 0;
        let mut session = ServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(stream)?;
        }
        Ok(Some(session))
    }

    /// For QUIC.
    pub fn config(&self) -> io::Result<ServerConfig> {
        self.config_of(quic_provider())
    }

    fn config_of(&self, provider: Arc<CryptoProvider>) -> io::Result<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.0))));
        Ok(config)
    }
}

/// Accepts whatever key is shown, if it signs.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
