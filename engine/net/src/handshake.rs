//! Runs rustls through a handshake over a socket, and takes over from it.
//!
//! rustls is given one record at a time, so that what follows the handshake stays in our buffer, sealed, for the record
//! layer. Every message and every alert of the handshake is rustls'. Knows no deadline: who calls this drops it.

use crate::exporter::ExporterSecret;
use crate::record::{Incoming, NextKeys, Opener, Outgoing, Received, Sealer, TrafficKey, record_bytes};
use crate::tls::TlsFailure;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{Acceptor, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ExtractedSecrets, ServerConfig, SupportedCipherSuite};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A socket before its session: what came from it and is not used up.
pub(crate) struct Opening {
    pub(crate) stream: TcpStream,
    received: Received,
}

/// What a handshake led to.
pub(crate) struct Agreed {
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) suite: SupportedCipherSuite,
    pub(crate) key_exchange: Option<&'static str>,
    pub(crate) exporter: ExporterSecret,
    client: bool,
    secrets: ExtractedSecrets,
    keys: Box<dyn NextKeys>,
}

impl Opening {
    /// Prepares a socket for the handshake.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Received::new() })
    }

    /// The dialing side's handshake.
    pub(crate) async fn connect(
        &mut self,
        config: &ClientConfig,
        name: ServerName<'static>,
    ) -> Result<Agreed, TlsFailure> {
        let exporter = ExporterSecret::default();
        let mut config = config.clone();
        config.key_log = Arc::new(exporter.clone());
        let mut side = UnbufferedClientConnection::new(Arc::new(config), name)?;
        self.drive(&mut side).await?;
        Ok(Agreed::new(side, exporter)?)
    }

    /// Reads the peer's `ClientHello` and says which name it asks for. The handshake then begins with it again.
    pub(crate) async fn server_name(&mut self) -> Result<Option<String>, TlsFailure> {
        let (mut acceptor, mut given) = (Acceptor::default(), 0);
        loop {
            let length = self.next_record(given).await?;
            let mut record = &self.received.filled()[given..given + length];
            while !record.is_empty() && acceptor.read_tls(&mut record)? > 0 {}
            given += length;
            match acceptor.accept() {
                Ok(Some(hello)) => return Ok(hello.client_hello().server_name().map(str::to_owned)),
                Ok(None) => {}
                Err((error, mut alert)) => {
                    let mut told = Vec::new();
                    alert.write_all(&mut told)?;
                    // The alert is a courtesy; the error is what counts.
                    let _ = self.stream.write_all(&told).await;
                    return Err(error.into());
                }
            }
        }
    }

    /// The serving side's handshake.
    pub(crate) async fn serve(&mut self, config: &ServerConfig) -> Result<Agreed, TlsFailure> {
        let exporter = ExporterSecret::default();
        let mut config = config.clone();
        config.key_log = Arc::new(exporter.clone());
        let mut side = UnbufferedServerConnection::new(Arc::new(config))?;
        self.drive(&mut side).await?;
        Ok(Agreed::new(side, exporter)?)
    }

    /// Goes through a handshake, to its end or to an error, of which the peer was told.
    async fn drive<S: Side>(&mut self, side: &mut S) -> Result<(), TlsFailure> {
        let (mut given, mut outgoing) = (0, Vec::new());
        loop {
            match step(side, &mut self.received, &mut given, &mut outgoing) {
                Ok(Step::Send) => {
                    self.stream.write_all(&outgoing).await?;
                    outgoing.clear();
                }
                Ok(Step::Receive) => given += self.next_record(given).await?,
                Ok(Step::Done) if given == 0 => return Ok(()),
                Ok(Step::Done) => {
                    return Err(TlsFailure::Protocol("the handshake ends within a record".to_owned()));
                }
                Err(error) => {
                    gather_alerts(side, &mut self.received, given, &mut outgoing);
                    let _ = self.stream.write_all(&outgoing).await;
                    return Err(error.into());
                }
            }
        }
    }

    /// Waits until the record at a place is whole, and says how long it is.
    async fn next_record(&mut self, at: usize) -> Result<usize, TlsFailure> {
        loop {
            let length = first_record(&self.received.filled()[at..]);
            if length > 0 {
                return Ok(length);
            }
            let room = self.received.room();
            if room.is_empty() {
                return Err(TlsFailure::Protocol("a handshake without end".to_owned()));
            }
            let count = self.stream.read(room).await?;
            if count == 0 {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "closed during the handshake");
                return Err(TlsFailure::Io(error));
            }
            self.received.put(count);
        }
    }

    /// The session that was agreed on: its socket and both directions.
    pub(crate) fn established(self, agreed: Agreed) -> Result<(TcpStream, Incoming, Outgoing), Error> {
        let opener = Opener::new(TrafficKey::new(agreed.secrets.rx)?, agreed.client);
        let sealer = Sealer::new(TrafficKey::new(agreed.secrets.tx)?, limit_of(agreed.suite));
        let incoming = Incoming::new(opener, self.received);
        Ok((self.stream, incoming, Outgoing::new(sealer, agreed.keys)))
    }
}

impl Agreed {
    fn new<S: Side>(side: S, exporter: ExporterSecret) -> Result<Self, Error> {
        let state = side.state();
        let alpn = state.alpn_protocol().map(<[u8]>::to_vec);
        let suite = state.negotiated_cipher_suite().ok_or(Error::HandshakeNotComplete)?;
        let key_exchange = state.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
        let (secrets, keys) = side.into_keys()?;
        Ok(Self { alpn, suite, key_exchange, exporter, client: S::CLIENT, secrets, keys })
    }
}

/// How many records a key of a suite may seal.
fn limit_of(suite: SupportedCipherSuite) -> u64 {
    suite.tls13().map_or(0, |suite| suite.common.confidentiality_limit)
}

/// The length of the first record if all of it is there, or else zero. What cannot be a record is left to rustls' judgement:
/// all of it.
fn first_record(bytes: &[u8]) -> usize {
    let Some(header) = bytes.first_chunk() else { return 0 };
    match record_bytes(*header) {
        Some(length) if length > bytes.len() => 0,
        Some(length) => length,
        None => bytes.len(),
    }
}

/// What rustls wants done.
enum Step {
    Send,
    Receive,
    Done,
}

/// A side of rustls' unbuffered handshake.
trait Side: Sized {
    type Data;
    const CLIENT: bool;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
    fn into_keys(self) -> Result<(ExtractedSecrets, Box<dyn NextKeys>), Error>;
}

macro_rules! side {
    ($side:ty, $data:ty, $client:literal) => {
        impl Side for $side {
            type Data = $data;
            const CLIENT: bool = $client;

            fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(incoming)
            }

            fn state(&self) -> &CommonState {
                self
            }

            fn into_keys(self) -> Result<(ExtractedSecrets, Box<dyn NextKeys>), Error> {
                let (secrets, keys) = self.dangerous_into_kernel_connection()?;
                Ok((secrets, Box::new(keys)))
            }
        }
    };
}

side!(UnbufferedClientConnection, ClientConnectionData, true);
side!(UnbufferedServerConnection, ServerConnectionData, false);

/// Lets rustls go on with the records given to it, until it wants something.
fn step<S: Side>(
    side: &mut S,
    received: &mut Received,
    given: &mut usize,
    outgoing: &mut Vec<u8>,
) -> Result<Step, Error> {
    loop {
        let UnbufferedStatus { discard, state, .. } = side.process(&mut received.filled_mut()[..*given]);
        let wanted = match state? {
            ConnectionState::EncodeTlsData(mut message) => {
                encode(&mut message, outgoing)?;
                None
            }
            ConnectionState::TransmitTlsData(message) => {
                message.done();
                Some(Step::Send)
            }
            ConnectionState::WriteTraffic(_) => Some(Step::Done),
            ConnectionState::BlockedHandshake => Some(Step::Receive),
            // The peer ends the session before it has begun, or data comes before its time.
            _ => return Err(Error::HandshakeNotComplete),
        };
        received.consume(discard);
        *given -= discard;
        match wanted {
            Some(Step::Done) if side.state().is_handshaking() => return Ok(Step::Receive),
            Some(wanted) => return Ok(wanted),
            None => {}
        }
    }
}

/// Adds what rustls still has to say after an error. It is not to look at the same bytes again.
fn gather_alerts<S: Side>(side: &mut S, received: &mut Received, mut given: usize, outgoing: &mut Vec<u8>) {
    while side.state().wants_write() {
        let UnbufferedStatus { discard, state, .. } = side.process(&mut received.filled_mut()[..given]);
        let Ok(ConnectionState::EncodeTlsData(mut message)) = state else { return };
        if encode(&mut message, outgoing).is_err() {
            return;
        }
        received.consume(discard);
        given -= discard;
    }
}

/// Adds a message to what is to be sent.
fn encode<Data>(message: &mut EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let start = outgoing.len();
    let encoded = match message.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => {
            outgoing.resize(start + size.required_size, 0);
            message.encode(&mut outgoing[start..])
        }
        encoded => encoded,
    };
    encoded.map(|_| ()).map_err(|error| Error::General(error.to_string()))
}
