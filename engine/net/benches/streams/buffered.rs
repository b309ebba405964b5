//! The other way: tokio-rustls with large reads and a large buffer, as Sealift had it before its own record layer.

use aws_lc_rs::signature::Ed25519KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, sign::any_eddsa_type};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use sealift_net::Cipher;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use tokio::io::{BufReader, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

const READ_BYTES: usize = 256 << 10;
const BUFFER_BYTES: usize = 2 << 20;

type Stream = TlsStream<BufReader<TcpStream>>;
type Halves = (ReadHalf<Stream>, WriteHalf<Stream>);

fn provider(cipher: Option<Cipher>) -> Arc<CryptoProvider> {
    let suite = |cipher| match cipher {
        Cipher::Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
        Cipher::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
    };
    let ciphers = cipher.map_or(Cipher::ALL.to_vec(), |cipher| vec![cipher]);
    Arc::new(CryptoProvider { cipher_suites: ciphers.into_iter().map(suite).collect(), ..default_provider() })
}

fn socket(stream: TcpStream) -> BufReader<TcpStream> {
    stream.set_nodelay(true).expect("an option of every socket");
    BufReader::with_capacity(READ_BYTES, stream)
}

/// Listens, says where, and takes one connection in.
pub async fn listen(cipher: Cipher, tell: mpsc::Sender<SocketAddr>) -> Halves {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let key = Ed25519KeyPair::generate_pkcs8(&random).expect("randomness");
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(key.as_ref())).expect("a key");
    let public = key.public_key().expect("its public half").to_vec();
    let own = CertifiedKey::new(vec![public.into()], key);
    let config = ServerConfig::builder_with_provider(provider(Some(cipher)))
        .with_protocol_versions(&[&TLS13])
        .expect("suites of TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(own))));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    tell.send(listener.local_addr().expect("its address")).expect("the dialer waits");
    let (stream, _) = listener.accept().await.expect("the dialer");
    let limit = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(BUFFER_BYTES));
    let tls = TlsAcceptor::from(Arc::new(config)).accept_with(socket(stream), limit);
    split(tls.await.expect("a session").into())
}

/// Dials.
pub async fn dial(address: SocketAddr) -> Halves {
    let config = ClientConfig::builder_with_provider(provider(None))
        .with_protocol_versions(&[&TLS13])
        .expect("suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("the listener");
    let name = ServerName::try_from("bench.invalid").expect("a name");
    let limit = |tls: &mut rustls::ClientConnection| tls.set_buffer_limit(Some(BUFFER_BYTES));
    let tls = TlsConnector::from(Arc::new(config)).connect_with(name, socket(stream), limit);
    split(tls.await.expect("a session").into())
}

/// Believes any server.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
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
