//! Small echoes over a path, one after the other: what a packet meets on its way.

use super::path::{End, Path};
use crate::failure::{OrFailure as _, Outcome};
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where echoes are made.
const PORT: u16 = 7;
/// How long it is waited for the last ones.
const LAST: Duration = Duration::from_secs(1);
/// How often threads look whether they are done.
const LOOKS: Duration = Duration::from_millis(50);

/// Sends echoes until it is finished.
#[derive(Debug)]
pub struct Probe {
    over: Arc<AtomicBool>,
    echo: Option<JoinHandle<()>>,
    client: Option<JoinHandle<Echoes>>,
}

/// What became of echoes.
#[derive(Clone, Debug, Default)]
pub struct Echoes {
    /// How many were sent.
    pub sent: usize,
    /// How long each took that came back, in the order of their return.
    pub round_trips: Vec<Duration>,
}

impl Probe {
    /// Sends an echo of 36 bytes each so often, as one of the flows of a path, from its near end.
    ///
    /// # Errors
    /// If there are no sockets.
    pub fn start(path: &Path, flow: usize, every: Duration) -> Outcome<Self> {
        let (near, far) = (path.address(End::Near, flow), path.address(End::Far, flow));
        let server = path.host(End::Far).inside(|| UdpSocket::bind((far, PORT)))?;
        let client = path.host(End::Near).inside(|| {
            let socket = UdpSocket::bind((near, 0))?;
            socket.connect((far, PORT)).map(|()| socket)
        })?;
        let cannot = || "cannot send echoes".to_owned();
        let (server, client) = (server.or_failure(cannot)?, client.or_failure(cannot)?);
        server.set_read_timeout(Some(LOOKS)).or_failure(cannot)?;
        let over = Arc::new(AtomicBool::new(false));
        let (echo_over, client_over) = (Arc::clone(&over), Arc::clone(&over));
        Ok(Self {
            over,
            echo: Some(std::thread::spawn(move || echo(&server, &echo_over))),
            client: Some(std::thread::spawn(move || send(&client, every, &client_over))),
        })
    }

    /// Stops, and waits a moment for those on their way.
    #[must_use]
    pub fn finish(mut self) -> Echoes {
        self.over.store(true, Ordering::Relaxed);
        let echoes = self.client.take().and_then(|client| client.join().ok()).unwrap_or_default();
        let _ = self.echo.take().map(JoinHandle::join);
        echoes
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn echo(socket: &UdpSocket, over: &AtomicBool) {
    let mut packet = [0; 64];
    let mut over_since: Option<Instant> = None;
    // The last ones are still on their way when it is over.
    while over_since.is_none_or(|since| since.elapsed() < LAST) {
        if over.load(Ordering::Relaxed) {
            over_since.get_or_insert_with(Instant::now);
        }
        if let Ok((bytes, from)) = socket.recv_from(&mut packet) {
            let _ = socket.send_to(&packet[..bytes], from);
        }
    }
}

fn send(socket: &UdpSocket, every: Duration, over: &AtomicBool) -> Echoes {
    let mut sent: Vec<Option<Instant>> = Vec::new();
    let mut round_trips = Vec::new();
    let mut next = Instant::now();
    let mut until: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if until.is_none() && over.load(Ordering::Relaxed) {
            until = Some(now + LAST);
        }
        if until.is_some_and(|until| now >= until) || (until.is_some() && round_trips.len() == sent.len()) {
            return Echoes { sent: sent.len(), round_trips };
        }
        if until.is_none() && now >= next {
            let number = sent.len() as u64;
            sent.push(Some(Instant::now()));
            let _ = socket.send(&number.to_le_bytes());
            next = (next + every).max(now);
        }
        let wait = until.unwrap_or(next).saturating_duration_since(Instant::now());
        let mut packet = [0; 8];
        let heard = socket
            .set_read_timeout(Some(wait.clamp(Duration::from_micros(1), LOOKS)))
            .and_then(|()| socket.recv(&mut packet));
        match heard {
            Ok(8) => {
                let number = usize::try_from(u64::from_le_bytes(packet)).unwrap_or(usize::MAX);
                // Each counts once.
                if let Some(began) = sent.get_mut(number).and_then(Option::take) {
                    round_trips.push(began.elapsed());
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Refused, as long as nobody listens.
            Err(_) => std::thread::yield_now(),
        }
    }
}

impl Echoes {
    /// The mean round trip; `None` if nothing came back.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.round_trips.len()).ok().filter(|count| *count > 0)?;
        Some(self.round_trips.iter().sum::<Duration>() / count)
    }

    /// The round trip that so many of a hundred did not exceed; `None` if nothing came back.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
    }

    /// What share did not come back.
    #[must_use]
    pub fn lost(&self) -> f64 {
        1.0 - self.round_trips.len() as f64 / self.sent.max(1) as f64
    }
}
