//! TLS 1.3 within QUIC (RFC 9001): rustls' handshake beneath quinn's connection.
//!
//! The same configurations as over TCP. The serving side waits for the `ClientHello` before it chooses one of them, by
//! the name that is asked for. What a peer is told of a failure is the alert alone, without a reason in words.

use super::hello::Hello;
use crate::accept::{JobIndex, Jobs};
use crate::cipher::Cipher;
use crate::tls::{ALPN, cipher_of};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use quinn::crypto::{
    self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
};
use quinn::{ConnectError, ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::ServerName;
use rustls::quic::{
    ClientConnection, Connection, KeyChange, Keys as RustlsKeys, Secrets, ServerConnection, Suite, Version,
};
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use std::any::Any;
use std::io::Cursor;
use std::sync::Arc;

/// The one version of QUIC that is spoken.
pub(super) const QUIC_V1: u32 = 1;

/// What a handshake agreed on, so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// The job that the peer named; none if that is not served here, and at the dialling side.
    pub(super) job: Option<JobIndex>,
    pub(super) cipher: Option<Cipher>,
    pub(super) key_exchange: Option<&'static str>,
    pub(super) alpn: bool,
}

/// The suite of the first packets, which protects them from nobody who knows the standard.
fn initial_suite() -> Suite {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    suite.expect("the provider has the suite of QUIC's first packets")
}

fn initial_keys(version: u32, dst_cid: &ConnectionId, side: Side) -> Result<Keys, UnsupportedVersion> {
    if version != QUIC_V1 {
        return Err(UnsupportedVersion);
    }
    let side = if side.is_client() { rustls::Side::Client } else { rustls::Side::Server };
    Ok(keys_of(initial_suite().keys(dst_cid, side, Version::V1)))
}

fn keys_of(keys: RustlsKeys) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
        packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
    }
}

fn encoded(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    bytes
}

/// An alert, as the error with which a connection ends.
fn alerted(alert: AlertDescription) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(alert.into()), frame: None, reason: String::new() }
}

/// The tag that ends a Retry packet (RFC 9001, section 5.8), under a key that everybody knows.
fn retry_tag(orig_dst_cid: &ConnectionId, packet: &[&[u8]]) -> [u8; 16] {
    const KEY: [u8; 16] =
        [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];
    const NONCE: [u8; 12] = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];
    let length = u8::try_from(orig_dst_cid.len()).expect("an identifier has at most 20 bytes");
    let pseudo_packet = [&[length], &orig_dst_cid[..], &packet.concat()].concat();
    let key = UnboundKey::new(&AES_128_GCM, &KEY).expect("the key has the cipher's length");
    let nonce = Nonce::assume_unique_for_key(NONCE);
    let sealed = LessSafeKey::new(key).seal_in_place_separate_tag(nonce, Aad::from(pseudo_packet), &mut []);
    let tag = sealed.expect("nothing is sealed, and little authenticated");
    tag.as_ref().try_into().expect("the tag of AES-GCM has 16 bytes")
}

/// One side of a handshake, and the keys after it.
struct TlsSession {
    tls: Connection,
    job: Option<JobIndex>,
    next_secrets: Option<Secrets>,
    /// Whether it was said that there is something to tell of the handshake.
    told: bool,
}

impl TlsSession {
    const fn new(tls: Connection, job: Option<JobIndex>) -> Self {
        Self { tls, job, next_secrets: None, told: false }
    }
}

impl crypto::Session for TlsSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(QUIC_V1, dst_cid, side).expect("other versions are refused before")
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.told.then(|| {
            let group = self.tls.negotiated_key_exchange_group();
            let agreed = Agreed {
                job: self.job,
                cipher: self.tls.negotiated_cipher_suite().and_then(|suite| cipher_of(suite.suite())),
                key_exchange: group.and_then(|group| group.name().as_str()),
                alpn: self.tls.alpn_protocol() == Some(ALPN),
            };
            Box::new(agreed) as Box<dyn Any>
        })
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.tls
            .read_hs(bytes)
            .map_err(|_| alerted(self.tls.alert().unwrap_or(AlertDescription::InternalError)))?;
        let is_server = matches!(self.tls, Connection::Server(_));
        let tells = !self.told && (is_server || !self.tls.is_handshaking());
        self.told |= tells;
        Ok(tells)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let side = if matches!(self.tls, Connection::Client(_)) { Side::Client } else { Side::Server };
        let params = self.tls.quic_transport_parameters();
        params
            .map(|bytes| TransportParameters::read(side, &mut Cursor::new(bytes)))
            .transpose()
            .map_err(Into::into)
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        let keys = match self.tls.write_hs(bytes)? {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                self.next_secrets = Some(next);
                keys
            }
        };
        Some(keys_of(keys))
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.next_secrets.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        payload
            .split_last_chunk::<16>()
            .is_some_and(|(payload, tag)| retry_tag(orig_dst_cid, &[header, payload]) == *tag)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let exported = self.tls.export_keying_material(output, label, Some(context));
        exported.map(|_| ()).map_err(|_| ExportKeyingMaterialError)
    }
}

/// The dialling side.
pub(super) struct Dialling(pub(super) Arc<ClientConfig>);

impl crypto::ClientConfig for Dialling {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        if version != QUIC_V1 {
            return Err(ConnectError::UnsupportedVersion);
        }
        let invalid = || ConnectError::InvalidServerName(server_name.to_owned());
        let name = ServerName::try_from(server_name.to_owned()).map_err(|_| invalid())?;
        let tls = ClientConnection::new(Arc::clone(&self.0), Version::V1, name, encoded(params))
            .map_err(|_| invalid())?;
        Ok(Box::new(TlsSession::new(Connection::Client(tls), None)))
    }
}

/// The serving side. Without jobs it knows how first packets are read, and no more: the endpoint's, whose connections
/// are accepted with a configuration that has them.
pub(super) struct Serving(pub(super) Option<Arc<Jobs>>);

impl crypto::ServerConfig for Serving {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        initial_keys(version, dst_cid, Side::Server)
    }

    fn retry_tag(&self, _: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry_tag(orig_dst_cid, &[packet])
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        Box::new(Waiting::ForHello { jobs: self.0.clone(), params: encoded(params), hello: Hello::new() })
    }
}

/// A serving side's session, which begins with the name in the peer's `ClientHello`.
enum Waiting {
    ForHello { jobs: Option<Arc<Jobs>>, params: Vec<u8>, hello: Hello },
    NoMore(TlsSession),
}

impl Waiting {
    fn session(&self) -> Option<&TlsSession> {
        match self {
            Self::ForHello { .. } => None,
            Self::NoMore(session) => Some(session),
        }
    }

    fn session_mut(&mut self) -> Option<&mut TlsSession> {
        match self {
            Self::ForHello { .. } => None,
            Self::NoMore(session) => Some(session),
        }
    }
}

/// Begins a session with the configuration for a name.
fn begin(jobs: Option<&Jobs>, params: Vec<u8>, name: Option<&str>) -> Result<TlsSession, AlertDescription> {
    let jobs = jobs.ok_or(AlertDescription::InternalError)?;
    let (job, config): (_, Arc<ServerConfig>) = jobs.choose(name.unwrap_or_default());
    let tls =
        ServerConnection::new(config, Version::V1, params).map_err(|_| AlertDescription::InternalError)?;
    Ok(TlsSession::new(Connection::Server(tls), job))
}

impl crypto::Session for Waiting {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(QUIC_V1, dst_cid, side).expect("other versions are refused before")
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session()?.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.session().is_none_or(crypto::Session::is_handshaking)
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Self::ForHello { jobs, params, hello } = self else {
            return self.session_mut().map_or(Ok(false), |session| session.read_handshake(bytes));
        };
        let Some(name) = hello.push(bytes).map_err(alerted)? else { return Ok(false) };
        let begun = begin(jobs.as_deref(), std::mem::take(params), name.as_deref());
        let mut session = begun.map_err(alerted)?;
        let tells = session.read_handshake(hello.bytes())?;
        *self = Self::NoMore(session);
        Ok(tells)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session().map_or(Ok(None), crypto::Session::transport_parameters)
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        self.session_mut()?.write_handshake(bytes)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session_mut()?.next_1rtt_keys()
    }

    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let session = self.session().ok_or(ExportKeyingMaterialError)?;
        session.export_keying_material(output, label, context)
    }
}
