//! A sender that plays a script, on a thread of its own: what happens on each control and each data connection is two
//! functions of the test's. Everything that receivers say is kept.

use super::{Job, Said, Talk};
use sealift_net::{Acceptor, AcceptorOptions, Cipher, Incoming, Listener, ServedJob, Transport};
use sealift_proto::wire::{BlocksPrefix, Channel, Close, Finished, FrameKind, Hello, Reject};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

/// How long what receivers said last may take to be heard.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Something that a receiver said or did.
#[derive(Clone, Debug)]
pub enum Seen {
    /// It opened a connection.
    Hello(Hello),
    /// It takes more segments.
    Credit(u32),
    /// It asked for ranges.
    Fetch(u64, Vec<BlocksPrefix>),
    /// A block was wrong.
    Reject(Reject),
    /// It is done.
    Finished(Finished),
    /// It closed a connection.
    Close(Close),
    /// A control connection is over.
    ControlEnded,
    /// A data connection is over.
    DataEnded,
    /// Something of the script's own.
    Mark(&'static str),
}

/// What was seen so far; shared by all connections.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<Seen>>, Condvar)>);

impl Log {
    fn entries(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to it.
    pub fn note(&self, seen: Seen) {
        self.entries().push(seen);
        self.0.1.notify_all();
    }

    /// Waits until `is_it` is content with something that was seen.
    ///
    /// # Panics
    /// After a minute.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Seen) -> bool) {
        let waiting = self
            .0
            .1
            .wait_timeout_while(self.entries(), Duration::from_secs(60), |seen| !seen.iter().any(&is_it));
        let (seen, result) = waiting.unwrap_or_else(PoisonError::into_inner);
        assert!(!result.timed_out(), "{what} was not seen: {:?}", *seen);
    }

    /// What was seen so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Seen> {
        self.entries().clone()
    }
}

/// A sender that lies.
pub struct HostileSender {
    /// What its receivers do.
    pub log: Log,
    address: SocketAddr,
    ticket: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HostileSender {
    /// Listens on a free port of 127.0.0.1 with the job's real keys. `control` and `data` get each connection after
    /// its handshake and its hello, and say what is to be said from the welcome on.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start<C, D>(job: &Job, control: C, data: D) -> Self
    where
        C: AsyncFn(&mut Talk) -> Said<()> + Send + 'static,
        D: AsyncFn(&mut Talk) -> Said<()> + Send + 'static,
    {
        Self::start_over(Transport::Tcp, job, control, data)
    }

    /// The same, over this.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_over<C, D>(transport: Transport, job: &Job, control: C, data: D) -> Self
    where
        C: AsyncFn(&mut Talk) -> Said<()> + Send + 'static,
        D: AsyncFn(&mut Talk) -> Said<()> + Send + 'static,
    {
        let log = Log::default();
        let (stop, stopped) = oneshot::channel();
        let (bound_by, bound) = std::sync::mpsc::channel();
        let (ro, logged) = (job.ro(), log.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let options = AcceptorOptions::new().expect("there is randomness");
                let address = (Ipv4Addr::LOCALHOST, 0).into();
                let listener = Listener::bind_for(address, transport, &options.gate).expect("a port is free");
                bound_by.send(listener.local_addr()).expect("the test waits for it");
                let served = ServedJob { ro, cipher: Cipher::Aes256Gcm };
                let plot = Rc::new(Plot {
                    acceptor: Acceptor::new(vec![served], options),
                    controls: Cell::new(0),
                    datas: Cell::new(0),
                    control,
                    data,
                    log: logged,
                });
                let mut served = JoinSet::new();
                let accepting = async {
                    loop {
                        let incoming = listener.accept().await;
                        served.spawn_local(Rc::clone(&plot).serve(incoming));
                    }
                };
                let stopped = tokio::select! {
                    () = accepting => return,
                    stopped = stopped => stopped,
                };
                if stopped.is_ok() {
                    let all = async { while served.join_next().await.is_some() {} };
                    let _ = tokio::time::timeout(LAST_WORDS, all).await;
                }
            });
        });
        let address = bound.recv().expect("it listens");
        let ticket = job.ticket(vec![address.into()]);
        Self { log, address, ticket, stop: Some(stop), thread: Some(thread) }
    }

    /// Its ticket.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until `is_it` is content with something that a receiver did.
    ///
    /// # Panics
    /// After a minute.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Seen) -> bool) {
        self.log.wait_for(what, is_it);
    }

    /// Ends it after its receivers have ended, when it has heard their last words. What was seen.
    ///
    /// # Panics
    /// If a script panicked.
    #[must_use]
    pub fn finish(mut self) -> Vec<Seen> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.stop();
        self.log.so_far()
    }

    /// Ends it, cutting whatever is open.
    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the script panicked");
        }
    }
}

impl Drop for HostileSender {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Plot<C, D> {
    acceptor: Acceptor,
    controls: Cell<usize>,
    datas: Cell<usize>,
    control: C,
    data: D,
    log: Log,
}

impl<C, D> Plot<C, D>
where
    C: AsyncFn(&mut Talk) -> Said<()>,
    D: AsyncFn(&mut Talk) -> Said<()>,
{
    async fn serve(self: Rc<Self>, incoming: Incoming) {
        let Ok(accepted) = self.acceptor.handshake(incoming).await else { return };
        let (reader, writer) = accepted.connection.split();
        drop(accepted.auth);
        let mut talk = Talk::new(reader, writer, self.log.clone(), 0);
        if talk.hear_until(FrameKind::Hello).await.is_err() {
            return;
        }
        let channel = talk.hello.as_ref().map(|hello| hello.channel);
        // What a script ends with is the peer's going, mostly; the log has the rest.
        match channel {
            Some(Channel::Control { .. }) => {
                talk.nth = self.controls.replace(self.controls.get() + 1);
                let _ = (self.control)(&mut talk).await;
                self.log.note(Seen::ControlEnded);
            }
            _ => {
                talk.nth = self.datas.replace(self.datas.get() + 1);
                let _ = (self.data)(&mut talk).await;
                self.log.note(Seen::DataEnded);
            }
        }
    }
}
