//! One TCP connection that sends as fast as it may, for others to share a path with.

use super::path::{End, Path};
use crate::failure::{OrFailure as _, Outcome};
use rustix::net::sockopt::set_tcp_congestion;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;

const PORT: u16 = 9;
const PIECE_BYTES: usize = 256 << 10;

/// The connection, until it is dropped.
#[derive(Debug)]
pub struct Bulk {
    ends: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Bulk {
    /// From the near end of a path, as one of its flows, with this congestion control.
    ///
    /// # Errors
    /// If there is no such congestion control, or no connection.
    pub fn start(path: &Path, flow: usize, congestion: &str) -> Outcome<Self> {
        let near = path.address(End::Near, flow);
        let cannot = || format!("cannot send bulk data with {congestion}");
        // The accepted socket has the option of the one that listens.
        let listener = path.host(End::Near).inside(|| TcpListener::bind((near, PORT)))?.or_failure(cannot)?;
        set_tcp_congestion(&listener, congestion).or_failure(cannot)?;
        let mut sink = path.host(End::Far).inside(|| TcpStream::connect((near, PORT)))?.or_failure(cannot)?;
        let (mut source, _) = listener.accept().or_failure(cannot)?;
        let ends = [source.try_clone().or_failure(cannot)?, sink.try_clone().or_failure(cannot)?];
        let send = move || {
            let piece = vec![0x5a; PIECE_BYTES];
            while source.write_all(&piece).is_ok() {}
        };
        let receive = move || {
            let mut piece = vec![0; PIECE_BYTES];
            while sink.read(&mut piece).is_ok_and(|bytes| bytes > 0) {}
        };
        Ok(Self { ends, threads: vec![std::thread::spawn(send), std::thread::spawn(receive)] })
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
