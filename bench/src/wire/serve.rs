//! The end that takes what is sent, and throws it away.

use super::{Kind, tls};
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// A listener.
pub struct Server {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
    tls: Arc<tls::Server>,
}

impl Server {
    /// Listens.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let tls = tls::Server::new().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { listener, address, tls: Arc::new(tls) })
    }

    /// Serves everybody, each connection on a thread of its own.
    pub fn run(self) -> io::Result<()> {
        loop {
            let (stream, peer) = self.listener.accept()?;
            let tls = Arc::clone(&self.tls);
            std::thread::spawn(move || {
                if let Err(error) = take(stream, &tls) {
                    eprintln!("{peer}: {error}");
                }
            });
        }
    }
}

fn take(mut stream: TcpStream, tls: &tls::Server) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    let [code, length @ ..] = header;
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code);
    let kind = kind.ok_or_else(|| io::Error::other("it is no sealift-bench of this version"))?;
    let bytes = u64::from_le_bytes(length);
    match tls.accept(kind, &mut stream)? {
        None => drain(&mut stream, bytes)?,
        Some(mut session) => drain(&mut rustls::Stream::new(&mut session, &mut stream), bytes)?,
    }
    stream.write_all(&[1])
}

fn drain(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..now])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    Ok(())
}
