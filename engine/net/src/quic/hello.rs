//! A `ClientHello` as it comes in QUIC, without records: collected until it is whole, and asked for the name in it.

use rustls::AlertDescription;
use rustls::server::Acceptor;

/// More than any `ClientHello` needs. One that claims more is refused before it has come.
const HELLO_BYTES_MAX: usize = 16 << 10;
/// A handshake message's type and length.
const HEADER_BYTES: usize = 4;
const CLIENT_HELLO: u8 = 1;
/// What stands before a handshake message in TLS over TCP: its type, its version, and its length.
const RECORD: [u8; 3] = [22, 3, 3];
/// Of a record.
const RECORD_BYTES_MAX: usize = 1 << 14;

/// What has come of it.
pub(super) struct Hello(Vec<u8>);

impl Hello {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Everything that has come.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes more of it in. Once it is whole, says which name it asks for; one that makes no sense asks for none, and is
    /// left to rustls' judgement.
    ///
    /// # Errors
    /// What the peer is to be told if it is none, or too long.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Option<Option<String>>, AlertDescription> {
        if self.0.len() + bytes.len() > HELLO_BYTES_MAX {
            return Err(AlertDescription::DecodeError);
        }
        self.0.extend_from_slice(bytes);
        let Some(&[kind, high, middle, low]) = self.0.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        if kind != CLIENT_HELLO {
            return Err(AlertDescription::UnexpectedMessage);
        }
        let length = HEADER_BYTES + u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > HELLO_BYTES_MAX {
            return Err(AlertDescription::DecodeError);
        }
        Ok(self.0.get(..length).map(server_name))
    }
}

/// The name that a whole `ClientHello` asks for. rustls reads those of TCP: it gets the message in records.
fn server_name(hello: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    for part in hello.chunks(RECORD_BYTES_MAX) {
        let length = u16::try_from(part.len()).expect("a record's length fits").to_be_bytes();
        let record = [&RECORD[..], &length, part].concat();
        let mut record = &record[..];
        while !record.is_empty() {
            if acceptor.read_tls(&mut record).ok()? == 0 {
                return None;
            }
        }
    }
    acceptor.accept().ok()??.client_hello().server_name().map(str::to_owned)
}
