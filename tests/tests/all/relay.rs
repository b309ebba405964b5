//! A TCP relay between receiver and sender, that does to connections what networks do: passes, freezes, cuts.
//!
//! Connections are numbered as they come: 0 is the first control connection, data connections follow. A plan is asked
//! about every piece that goes through. Nothing here knows what is in the pieces.
#![allow(clippy::unwrap_used)]

use sealift_tests::ports::{bind_again, own_address};
use sealift_tests::process::PATIENCE;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// What to do with a piece, and with its connection from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Pass,
    /// It is held back, and so is all that follows on this connection in either direction; nothing is closed.
    Freeze,
    /// Both sides lose the connection.
    Cut,
    /// Every connection is frozen.
    FreezeAll,
}

/// A piece on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// The number of its connection.
    pub(crate) connection: usize,
    /// Whether it goes from sender to receiver.
    pub(crate) down: bool,
    /// Bytes that have come from the sender on all connections, this piece included.
    pub(crate) total_down: u64,
}

type Plan = Box<dyn FnMut(Piece) -> Fate + Send>;

/// Waits for that long: what is tested is what others do in the meantime.
pub(crate) fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        thread::park_timeout(left);
    }
}

/// A plan that lets so many bytes a second through from the sender, on all connections together.
pub(crate) fn limited(bytes_per_second: u64) -> impl FnMut(Piece) -> Fate + Send {
    let (mut due, mut passed) = (Instant::now(), 0);
    move |piece| {
        if piece.down {
            let bytes = piece.total_down - passed;
            passed = piece.total_down;
            // What was not used is gone, but for a moment's worth.
            due = due.max(Instant::now().checked_sub(Duration::from_millis(20)).unwrap());
            due += Duration::from_secs(1).mul_f64(bytes as f64 / bytes_per_second as f64);
            pause(due.saturating_duration_since(Instant::now()));
        }
        Fate::Pass
    }
}

/// The relay. Everything it has open is cut when it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    fates: Mutex<Receiver<(usize, Fate)>>,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    fates: Sender<(usize, Fate)>,
}

struct State {
    plan: Plan,
    connections: Vec<Connection>,
    total_down: u64,
    /// Whether somebody listens; the number tells one listener from the next.
    listening: Option<u64>,
    listeners: u64,
    all_frozen: bool,
    over: bool,
}

struct Connection {
    frozen: bool,
    /// Both of its ends; empty once it was cut.
    ends: Vec<TcpStream>,
}

impl Relay {
    /// Relays to `upstream`, with a plan.
    pub(crate) fn start(upstream: SocketAddr, plan: impl FnMut(Piece) -> Fate + Send + 'static) -> Self {
        let relay = Self::silent(upstream, plan);
        relay.listen();
        relay
    }

    /// A relay that nobody can reach until it listens.
    pub(crate) fn silent(upstream: SocketAddr, plan: impl FnMut(Piece) -> Fate + Send + 'static) -> Self {
        Self::at(own_address(), upstream, plan)
    }

    fn at(
        address: SocketAddr,
        upstream: SocketAddr,
        plan: impl FnMut(Piece) -> Fate + Send + 'static,
    ) -> Self {
        let (send_fate, fates) = channel();
        let state = State {
            plan: Box::new(plan),
            connections: Vec::new(),
            total_down: 0,
            listening: None,
            listeners: 0,
            all_frozen: false,
            over: false,
        };
        let shared = Shared { upstream, state: Mutex::new(state), changed: Condvar::new(), fates: send_fate };
        Self { address, shared: Arc::new(shared), fates: Mutex::new(fates) }
    }

    /// Where it listens, or will.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until something does not pass, and tells which connection that was, and what became of it.
    pub(crate) fn next_fate(&self) -> (usize, Fate) {
        let fate = self.fates.lock().unwrap().recv_timeout(PATIENCE);
        fate.expect("something happens to a connection in time")
    }

    /// How many fates were met and not asked for.
    pub(crate) fn fates(&self) -> usize {
        self.fates.lock().unwrap().try_iter().count()
    }

    /// Begins to listen.
    pub(crate) fn listen(&self) {
        let listener = bind_again(|| TcpListener::bind(self.address));
        let mut state = self.shared.state();
        state.listeners += 1;
        let number = state.listeners;
        state.listening = Some(number);
        drop(state);
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for accepted in listener.incoming() {
                if shared.state().listening != Some(number) {
                    return;
                }
                if let Ok(accepted) = accepted {
                    shared.take(accepted);
                }
            }
        });
    }

    /// Stops to listen: whoever dials is refused. Connections go on.
    pub(crate) fn refuse(&self) {
        self.shared.state().listening = None;
        // Wakes the listener, which then goes. Refusal begins when the last thread with the listener has ended.
        while TcpStream::connect(self.address).is_ok() {
            thread::yield_now();
        }
    }

    /// Cuts one connection. Whether it was there.
    pub(crate) fn cut(&self, connection: usize) -> bool {
        self.shared.cut(connection)
    }

    /// Cuts all of them.
    pub(crate) fn cut_all(&self) {
        let count = self.connections();
        for connection in 0..count {
            self.cut(connection);
        }
    }

    /// How many have been made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().connections.len()
    }

    /// Those that are neither cut nor frozen.
    pub(crate) fn live(&self) -> Vec<usize> {
        let state = self.shared.state();
        let live = |connection: &Connection| !connection.frozen && !connection.ends.is_empty();
        (0..state.connections.len()).filter(|&number| live(&state.connections[number])).collect()
    }

    /// Lets everything pass from now on that is not cut.
    pub(crate) fn thaw(&self) {
        let mut state = self.shared.state();
        state.plan = Box::new(|_| Fate::Pass);
        state.all_frozen = false;
        for connection in &mut state.connections {
            connection.frozen = false;
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.shared.state().listening.is_some() {
            self.refuse();
        }
        self.shared.state().over = true;
        self.cut_all();
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn take(self: &Arc<Self>, receiver: TcpStream) {
        // Who dials while there is no sender finds the connection closed.
        let Ok(sender) = TcpStream::connect(self.upstream) else { return };
        let number = {
            let mut state = self.state();
            let ends = vec![receiver.try_clone().unwrap(), sender.try_clone().unwrap()];
            state.connections.push(Connection { frozen: false, ends });
            state.connections.len() - 1
        };
        let (receiver_too, sender_too) = (receiver.try_clone().unwrap(), sender.try_clone().unwrap());
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || up.pump(number, false, receiver, sender));
        thread::spawn(move || down.pump(number, true, sender_too, receiver_too));
    }

    fn pump(&self, connection: usize, down: bool, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let bytes = match from.read(&mut buffer) {
                Ok(0) => {
                    // An orderly end goes on as one.
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(bytes) => bytes,
                Err(_) => break,
            };
            if !self.may_pass(connection, down, bytes) || to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        self.cut(connection);
    }

    /// Asks the plan, and waits as long as the connection is frozen. Whether it is still there.
    fn may_pass(&self, connection: usize, down: bool, bytes: usize) -> bool {
        let mut state = self.state();
        if down {
            state.total_down += bytes as u64;
        }
        if !state.all_frozen && !state.connections[connection].frozen {
            let piece = Piece { connection, down, total_down: state.total_down };
            let fate = (state.plan)(piece);
            match fate {
                Fate::Pass => {}
                Fate::Freeze => state.connections[connection].frozen = true,
                Fate::FreezeAll => state.all_frozen = true,
                Fate::Cut => {}
            }
            if fate != Fate::Pass {
                // The test may not listen.
                let _ = self.fates.send((connection, fate));
            }
            if fate == Fate::Cut {
                return false;
            }
        }
        let frozen = |state: &mut State| {
            let connection = &state.connections[connection];
            (state.all_frozen || connection.frozen) && !connection.ends.is_empty() && !state.over
        };
        let state = self.changed.wait_while(state, frozen).unwrap();
        !state.connections[connection].ends.is_empty()
    }

    fn cut(&self, connection: usize) -> bool {
        let mut state = self.state();
        let ends = std::mem::take(&mut state.connections[connection].ends);
        for end in &ends {
            // What was not read makes the kernel reset it when the last of us closes it.
            let _ = end.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
        !ends.is_empty()
    }
}
