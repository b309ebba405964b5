//! A client that is not ours: any name, any key, any ALPN, and it believes every server. It notes what it hears.

use crate::support::{TODAY, secret};
use ed25519_dalek::{Signer as _, SigningKey};
use quinn::ConnectionError;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureAlgorithm, SignatureScheme};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const SPKI_PREFIX: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The name under which a job is asked for today.
pub fn name_of(fill: u8) -> String {
    data_encoding::HEXLOWER.encode(&secret(fill).tag(TODAY).0) + ".sealift.invalid"
}

pub fn spki(public: &[u8; 32]) -> Vec<u8> {
    [SPKI_PREFIX, public].concat()
}

/// Signs a message with whatever key.
pub type Sign = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

pub struct Stranger {
    /// The server name it asks for, if any.
    pub name: Option<String>,
    pub alpn: Option<&'static [u8]>,
    /// The key it claims as its own, as SPKI.
    pub claims: Vec<u8>,
    /// Signs with this.
    pub key: Sign,
}

/// What the stranger learned from one attempt.
#[derive(Debug, PartialEq)]
pub struct Heard {
    /// The key the server showed, as SPKI.
    pub server_key: Vec<u8>,
    /// Type and length of every TLS record.
    pub records: Vec<(u8, usize)>,
    /// How it ended.
    pub end: String,
    pub rejected: bool,
}

impl Stranger {
    /// One with a key of its own.
    pub fn named(name: impl Into<String>) -> Self {
        let key = SigningKey::from_bytes(&[0x55; 32]);
        Self {
            name: Some(name.into()),
            alpn: Some(b"sealift/1"),
            claims: spki(&key.verifying_key().to_bytes()),
            key: Arc::new(move |message| key.sign(message).to_bytes().to_vec()),
        }
    }

    /// Its part of a handshake, which notes the key that the server shows.
    fn config(&self, seen: Arc<AnyServer>) -> rustls::ClientConfig {
        let own = CertifiedKey::new(vec![self.claims.clone().into()], Arc::new(Key(self.key.clone())));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(seen)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(own))));
        config.alpn_protocols = self.alpn.iter().map(|alpn| alpn.to_vec()).collect();
        config.enable_sni = self.name.is_some();
        config
    }

    /// The same over QUIC: the key that the server showed, and how it ended.
    pub async fn try_over_quic(&self, server: SocketAddr) -> (Vec<u8>, ConnectionError) {
        let seen = Arc::new(AnyServer::default());
        let tls = QuicClientConfig::try_from(self.config(Arc::clone(&seen))).unwrap();
        let endpoint = quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
        let name = self.name.as_deref().unwrap_or("nobody.invalid");
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let end = match endpoint.connect_with(config, server, name).unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        let server_key = seen.0.lock().unwrap().clone();
        (server_key, end)
    }

    pub async fn try_at(&self, server: SocketAddr) -> Heard {
        let seen = Arc::new(AnyServer::default());
        let config = self.config(Arc::clone(&seen));
        let name = ServerName::try_from(self.name.clone().unwrap_or("nobody.invalid".to_owned())).unwrap();
        let heard = Arc::default();
        let tap = Tap { stream: TcpStream::connect(server).await.unwrap(), heard: Arc::clone(&heard) };
        let result = match TlsConnector::from(Arc::new(config)).connect(name, tap).await {
            Ok(mut tls) => tls.read(&mut [0; 1]).await.map(|count| format!("{count} bytes")),
            Err(error) => Err(error),
        };
        let records = records(&heard.lock().unwrap());
        let server_key = seen.0.lock().unwrap().clone();
        let rejected = result.as_ref().is_err_and(sealift_net::is_rejection);
        Heard { server_key, records, end: format!("{result:?}"), rejected }
    }
}

fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        records.push((*kind, length));
        bytes = &rest[length..];
    }
    records
}

/// A stream that notes what comes in.
struct Tap {
    stream: TcpStream,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        poll
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[derive(Clone)]
struct Key(Sign);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl rustls::sign::SigningKey for Key {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl rustls::sign::Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok((self.0)(message))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Believes any server, and notes its key.
#[derive(Debug, Default)]
struct AnyServer(Mutex<Vec<u8>>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().unwrap() = shown.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
