//! The thread that writes the spool, and the queue before it.
//!
//! Whoever logs puts a record into the queue and goes on. The thread gathers for a moment, so that many records are one
//! write and one sync. Of what does not fit into the queue the count is kept, and told as a record.

use super::record::{damaged_record, lost_record};
use super::spool::{Batch, LogKek, Spool};
use sealift_api::logs::Record;
use sealift_api::rest::limits::{LOG_BATCH_BYTES_MAX, LOG_BATCH_RECORDS_MAX};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Records that wait to be written.
const QUEUE_MAX: usize = 8192;
/// Records that are written at once.
const WRITE_MAX: usize = 512;
/// How long a record waits for others.
const GATHER: Duration = Duration::from_millis(200);

/// Takes records, and gives what is on the disk. Clones share it; the thread ends with [`Logs::close`], or with the last.
#[derive(Clone)]
pub(crate) struct Logs {
    shared: Arc<Shared>,
    /// The number of the newest record that is on the disk.
    newest: watch::Receiver<u64>,
    spool: [u8; 16],
    _alive: Arc<Alive>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logs")
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Record>,
    since: Option<Instant>,
    lost: u64,
    orders: VecDeque<Order>,
    /// What is written from now on is sealed to this KEK, or not sealed.
    seal_to: Option<Option<LogKek>>,
    /// Nothing is written before it is said how.
    held: bool,
    ended: bool,
}

/// When writing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    AtOnce,
    /// With [`Logs::seal_to`]; what is never told how to be written is not.
    OnceToldHow,
}

enum Order {
    Read(u64, oneshot::Sender<io::Result<Option<Batch>>>),
    Acked(u64, oneshot::Sender<io::Result<()>>),
    /// Everything is on the disk, as far as it can be.
    Close(oneshot::Sender<()>),
}

/// Ends the thread.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logs {
    /// Starts the thread. `trouble` hears when the disk begins to fail.
    pub(crate) fn start(
        spool: Spool,
        start: Start,
        trouble: impl Fn(String) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        shared.queue().held = start == Start::OnceToldHow;
        let (told, newest) = watch::channel(spool.newest());
        let (id, was_damaged) = (spool.id(), spool.was_damaged());
        let writer = Writer { shared: Arc::clone(&shared), spool, told, trouble, failing: false };
        std::thread::Builder::new().name("sealift-logs".into()).spawn(move || writer.run())?;
        let logs = Self { _alive: Arc::new(Alive(Arc::clone(&shared))), shared, newest, spool: id };
        if was_damaged {
            logs.put(damaged_record());
        }
        Ok(logs)
    }

    /// Logs a record. Never waits.
    pub(crate) fn put(&self, record: Record) {
        let mut queue = self.shared.queue();
        if queue.records.len() >= QUEUE_MAX {
            queue.lost += 1;
            return;
        }
        queue.records.push_back(record);
        let first = queue.since.is_none();
        queue.since.get_or_insert_with(Instant::now);
        if first || queue.records.len() == WRITE_MAX {
            self.shared.wake.notify_one();
        }
    }

    /// Tells the spool from others.
    pub(crate) fn spool(&self) -> [u8; 16] {
        self.spool
    }

    /// Waits until there is a record after this number on the disk. Never, once the thread has ended.
    pub(crate) async fn after(&mut self, number: u64) {
        if self.newest.wait_for(|newest| *newest > number).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What is on the disk after this number.
    pub(crate) async fn read(&self, after: u64) -> io::Result<Option<Batch>> {
        self.ask(|answer| Order::Read(after, answer)).await.unwrap_or(Ok(None))
    }

    /// The daemon has all up to this number.
    pub(crate) async fn acked(&self, number: u64) -> io::Result<()> {
        self.ask(|answer| Order::Acked(number, answer)).await.unwrap_or(Ok(()))
    }

    /// Has what is written from now on sealed to this KEK, or not sealed.
    pub(crate) fn seal_to(&self, kek: Option<LogKek>) {
        let mut queue = self.shared.queue();
        (queue.seal_to, queue.held) = (Some(kek), false);
        self.shared.wake.notify_one();
    }

    /// Ends the thread once everything is written.
    pub(crate) async fn close(&self) {
        let _ = self.ask(Order::Close).await;
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.queue().orders.push_back(order(answer));
        self.shared.wake.notify_one();
        answered.await.ok()
    }
}

/// What there is to do.
struct Gathered {
    seal_to: Option<Option<LogKek>>,
    records: Vec<Record>,
    lost: u64,
    orders: VecDeque<Order>,
    ended: bool,
}

struct Writer<F> {
    shared: Arc<Shared>,
    spool: Spool,
    told: watch::Sender<u64>,
    trouble: F,
    failing: bool,
}

impl<F: Fn(String)> Writer<F> {
    fn run(mut self) {
        loop {
            let Gathered { seal_to, records, lost, orders, ended } = self.gather();
            // Those that waited, too.
            if let Some(kek) = seal_to {
                self.spool.seal_to(kek);
            }
            if lost > 0 || !records.is_empty() {
                self.write(records, lost);
            }
            let mut closing = Vec::new();
            for order in orders {
                match order {
                    Order::Read(after, answer) => {
                        let read = self.spool.read(after, LOG_BATCH_RECORDS_MAX, LOG_BATCH_BYTES_MAX);
                        let _ = answer.send(read);
                    }
                    Order::Acked(number, answer) => {
                        let _ = answer.send(self.spool.acked(number));
                    }
                    Order::Close(answer) => closing.push(answer),
                }
            }
            if !closing.is_empty() || ended {
                let left = std::mem::take(&mut *self.shared.queue());
                if let Some(kek) = left.seal_to {
                    self.spool.seal_to(kek);
                }
                if !left.held {
                    self.write(left.records.into(), left.lost);
                }
                for answer in closing {
                    let _ = answer.send(());
                }
                return;
            }
        }
    }

    /// Waits for something to do.
    fn gather(&self) -> Gathered {
        let mut queue = self.shared.queue();
        loop {
            let due = queue.since.filter(|_| !queue.held).map(|since| since + GATHER);
            let now = Instant::now();
            let is_full = queue.records.len() >= WRITE_MAX && !queue.held;
            let is_due = due.is_some_and(|due| due <= now) || is_full;
            if is_due || !queue.orders.is_empty() || queue.ended {
                let mut records = Vec::new();
                if is_due {
                    let count = queue.records.len().min(WRITE_MAX);
                    records = queue.records.drain(..count).collect();
                    if queue.records.is_empty() {
                        queue.since = None;
                    }
                }
                let lost = if records.is_empty() { 0 } else { std::mem::take(&mut queue.lost) };
                return Gathered {
                    seal_to: queue.seal_to.take(),
                    records,
                    lost,
                    orders: std::mem::take(&mut queue.orders),
                    ended: queue.ended,
                };
            }
            queue = match due {
                Some(due) => {
                    let waited = self.shared.wake.wait_timeout(queue, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn write(&mut self, mut records: Vec<Record>, lost: u64) {
        let told = (lost > 0).then(|| lost_record(lost));
        records.splice(0..0, told);
        for (at, part) in records.chunks(WRITE_MAX).enumerate() {
            match self.spool.append(part) {
                Ok(()) => self.failing = false,
                Err(error) => {
                    // A count that is lost itself goes on counting.
                    let counted = if at == 0 { lost.saturating_sub(u64::from(lost > 0)) } else { 0 };
                    self.shared.queue().lost += part.len() as u64 + counted;
                    if !std::mem::replace(&mut self.failing, true) {
                        (self.trouble)(format!("logs cannot be kept on the disk: {error}"));
                    }
                }
            }
        }
        self.told.send_if_modified(|newest| {
            let now = self.spool.newest();
            std::mem::replace(newest, now) != now
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::entry;
    use super::super::spool::tests::kek_a;
    use super::super::spool::{Content, SPOOL_BYTES_DEFAULT};
    use super::*;
    use sealift_api::logs::record::Severity;

    fn logs(dir: &tempfile::TempDir) -> Logs {
        Logs::start(
            Spool::open(&dir.path().join("logs"), SPOOL_BYTES_DEFAULT, None).unwrap(),
            Start::AtOnce,
            |_| {},
        )
        .unwrap()
    }

    #[tokio::test]
    async fn nothing_is_on_the_disk_before_it_is_said_how() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs");
        let begin = || {
            let spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
            Logs::start(spool, Start::OnceToldHow, |_| {}).unwrap()
        };
        let logs = begin();
        for _ in 0..WRITE_MAX + 1 {
            logs.put(entry(Severity::Info, "agent", "never told how"));
        }
        assert_eq!(logs.read(0).await.unwrap(), None);
        logs.close().await;
        let mut logs = begin();
        assert_eq!(logs.read(0).await.unwrap(), None);
        logs.put(entry(Severity::Info, "agent", "a secret"));
        logs.seal_to(Some(kek_a().0));
        logs.after(0).await;
        let batch = logs.read(0).await.unwrap().unwrap();
        assert!(matches!(batch.content, Content::Sealed { .. }), "{batch:?}");
        assert_eq!(batch.len(), 1);
    }

    #[tokio::test]
    async fn what_was_put_is_on_the_disk_once_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let first = logs(&dir);
        for number in 1..=1500 {
            first.put(entry(Severity::Info, "agent", number.to_string()));
        }
        first.close().await;
        let mut logs = logs(&dir);
        logs.after(1499).await;
        let (mut after, mut found) = (0, Vec::new());
        while let Some(batch) = logs.read(after).await.unwrap() {
            assert_eq!(batch.first, after + 1);
            after += batch.len() as u64;
            found.extend(batch.records().into_iter().map(|record| record.message));
            logs.acked(after).await.unwrap();
        }
        assert_eq!(found, (1..=1500).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn of_what_does_not_fit_the_count_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let logs = logs(&dir);
        {
            // Nothing is taken out meanwhile.
            let mut queue = logs.shared.queue();
            queue.records.extend(vec![entry(Severity::Info, "agent", "x"); QUEUE_MAX]);
            queue.lost = 7;
            queue.since = Some(Instant::now());
        }
        logs.close().await;
        let mut spool = Spool::open(&dir.path().join("logs"), SPOOL_BYTES_DEFAULT, None).unwrap();
        let newest = spool.newest();
        assert_eq!(newest, QUEUE_MAX as u64 + 1);
        let (mut after, mut texts) = (0, Vec::new());
        while let Some(batch) = spool.read(after, 1000, 1 << 20).unwrap() {
            after += batch.len() as u64;
            texts.extend(batch.records().into_iter().map(|record| record.message));
        }
        assert_eq!(texts.iter().filter(|text| text.starts_with("7 log records were lost")).count(), 1);
    }
}
