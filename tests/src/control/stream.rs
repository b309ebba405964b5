//! A stream of Server-Sent Events, read by hand.

use super::{As, Daemon, PATIENCE};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A stream, and what has come of it.
pub struct Stream {
    runtime: tokio::runtime::Runtime,
    tls: TlsStream<TcpStream>,
    unread: Vec<u8>,
    /// The status code.
    pub status: u16,
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its name.
    pub name: String,
    /// Its id; empty if it has none.
    pub id: String,
    /// What it says.
    pub data: Value,
}

impl Daemon {
    /// Opens a stream. `head` is further lines of the request's, each with its end. The answer may be a refusal: see
    /// [`Stream::status`].
    ///
    /// # Panics
    /// If there is no answer.
    #[must_use]
    pub fn stream(&self, who: As<'_>, path: &str, head: &str) -> Stream {
        // By HTTP/1.0, so that the body comes as it is and not in chunks.
        let request =
            format!("GET /api/v1/{path} HTTP/1.0\r\nhost: localhost\r\n{}{head}\r\n", self.proof(who));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tls = runtime.block_on(async {
            let mut tls = self.connect().await.expect("a connection");
            tls.write_all(request.as_bytes()).await.expect("asked");
            tls
        });
        let mut stream = Stream { runtime, tls, unread: Vec::new(), status: 0 };
        let head = stream.until(b"\r\n\r\n").expect("a head");
        stream.status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        stream
    }
}

impl Stream {
    /// The next event; `None` at the stream's end.
    ///
    /// # Panics
    /// If nothing comes for long.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let text = self.until(b"\n\n")?;
            let field = |name: &str| {
                let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                values.map(str::trim_start).collect::<Vec<_>>().join("\n")
            };
            let data = field("data");
            // A comment alone is a sign of life.
            if !data.is_empty() {
                let data = serde_json::from_str(&data).expect("JSON");
                return Some(Frame { name: field("event"), id: field("id"), data });
            }
        }
    }

    fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end) {
                let rest = self.unread.split_off(at + end.len());
                let text = std::mem::replace(&mut self.unread, rest);
                return Some(String::from_utf8(text).expect("text"));
            }
            let read = self.tls.read_buf(&mut self.unread);
            let read = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, read).await });
            // However a connection ends, the stream does.
            if read.expect("something in time").unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}
