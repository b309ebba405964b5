//! Carries packets between two TUN devices as two [`Link`]s say: one thread, which never waits for longer than it must
//! and, under load, wakes for many packets at a time.

use super::link::{Link, LinkSpec};
use super::packet::Packet;
use super::tally::{Delays, Fate, Tally};
use crate::failure::{OrFailure as _, Outcome, failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::num::NonZeroU64;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tun_rs::SyncDevice;

/// The largest packet, in bytes: what devices are set to.
pub const MTU: u16 = 1500;
/// While packets come, they are taken up and let go this often, not one by one. Times are exact to it.
const TICK: Duration = Duration::from_micros(100);
/// While none are under way, it looks this often whether it is over.
const IDLE: Duration = Duration::from_millis(20);
/// Packets that are read from one device before the other has its turn.
const BATCH: usize = 256;
/// Buffers that are kept for the next packets.
const SPARE_MAX: usize = 1 << 15;

/// A relay, until it is dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// From the first device to the second, and back.
    links: Mutex<[Link; 2]>,
    late: Mutex<Delays>,
    refused: AtomicU64,
    over: AtomicBool,
}

impl Relay {
    /// Carries from now on: `specs` and seeds are those from the first device to the second, and back.
    pub fn start(devices: [SyncDevice; 2], specs: [LinkSpec; 2], seed: u64) -> Outcome<Self> {
        for device in &devices {
            device.set_nonblocking(true).or_failure(|| "cannot use a TUN device".into())?;
        }
        let links = [Link::new(specs[0], seed), Link::new(specs[1], seed.rotate_left(32) ^ 1)];
        let shared = Arc::new(Shared {
            links: Mutex::new(links),
            late: Mutex::default(),
            refused: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let mover = Mover {
            devices,
            under_way: [BinaryHeap::new(), BinaryHeap::new()],
            spare: Vec::new(),
            number: 0,
            began: Instant::now(),
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new().name("relay".into()).spawn(move || mover.run());
        Ok(Self { shared, thread: Some(thread.or_failure(|| "cannot start a thread".into())?) })
    }

    /// What became of everything so far, from the first device to the second, and back.
    pub fn tallies(&self) -> [Tally; 2] {
        lock(&self.shared.links).each_ref().map(|link| link.tally().clone())
    }

    /// By how much packets left later than the links said, because this machine had no time for them.
    pub fn late(&self) -> Delays {
        lock(&self.shared.late).clone()
    }

    /// That all that should have arrived did.
    pub fn check(&self) -> Outcome<()> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return failure("the relay has ended");
        }
        match self.shared.refused.load(Ordering::Relaxed) {
            0 => Ok(()),
            packets => failure(format!("the kernel refused {packets} packets of the relay")),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters are whole whatever happened to who held them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A packet on its way; the number tells apart those of one moment.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at: u64,
    number: u64,
    packet: Vec<u8>,
}

struct Mover {
    devices: [SyncDevice; 2],
    /// What came from each device.
    under_way: [BinaryHeap<Reverse<UnderWay>>; 2],
    spare: Vec<Vec<u8>>,
    number: u64,
    began: Instant,
    shared: Arc<Shared>,
}

impl Mover {
    fn run(mut self) {
        go_before_others();
        while !self.shared.over.load(Ordering::Relaxed) {
            let mut came = false;
            for from in 0..2 {
                match self.take_up(from) {
                    Ok(some) => came |= some,
                    // The device is gone.
                    Err(_) => return,
                }
            }
            let next = self.let_go();
            if came {
                rest(TICK);
                continue;
            }
            let wait = match next {
                Some(at) => Duration::from_nanos(at.saturating_sub(self.now())).clamp(TICK, IDLE),
                None => IDLE,
            };
            self.wait(wait);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Reads what has come from a device, up to a batch. Whether there was anything.
    fn take_up(&mut self, from: usize) -> io::Result<bool> {
        let now = self.now();
        let mut links = lock(&self.shared.links);
        for count in 0..BATCH {
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.resize(usize::from(MTU), 0);
            match self.devices[from].recv(&mut packet) {
                Ok(bytes) => packet.truncate(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.spare.push(packet);
                    return Ok(count > 0);
                }
                Err(error) => return Err(error),
            }
            match links[from].offer(now, Packet::read(&packet)) {
                Fate::Arrives(at) => {
                    self.number += 1;
                    self.under_way[from].push(Reverse(UnderWay { at, number: self.number, packet }));
                }
                Fate::Lost | Fate::Overflows => self.spare.push(packet),
            }
        }
        Ok(true)
    }

    /// Writes what is due. When the next is, if there is one.
    fn let_go(&mut self) -> Option<u64> {
        let now = self.now();
        let mut late = lock(&self.shared.late);
        for from in 0..2 {
            let queue = &mut self.under_way[from];
            while let Some(first) = queue.peek_mut().filter(|first| first.0.at <= now) {
                let Reverse(due) = std::collections::binary_heap::PeekMut::pop(first);
                late.add(now - due.at);
                if self.devices[1 - from].send(&due.packet).is_err() {
                    self.shared.refused.fetch_add(1, Ordering::Relaxed);
                }
                if self.spare.len() < SPARE_MAX {
                    self.spare.push(due.packet);
                }
            }
        }
        self.under_way.iter().filter_map(|queue| queue.peek().map(|first| first.0.at)).min()
    }

    /// Until something comes, or so long.
    fn wait(&self, time: Duration) {
        poll_for(&mut self.devices.each_ref().map(|device| PollFd::new(device, PollFlags::IN)), time);
    }
}

/// Has this thread run whenever it can, before all that it carries for. Whatever of it does not work, only makes its times
/// worse, which are told.
fn go_before_others() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1000));
    let _ = rustix::process::setpriority_process(None, -20);
    // Real-time scheduling, by util-linux.
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let _ = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).stderr(Stdio::null()).status();
}

/// Lets packets come, however many.
fn rest(time: Duration) {
    poll_for(&mut [], time);
}

fn poll_for(what: &mut [PollFd<'_>], time: Duration) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    // Interrupted or not, its caller looks again.
    let _ = poll(what, Some(&timeout));
}
