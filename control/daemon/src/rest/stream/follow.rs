//! One stream: reads what is new, says it, and sees to it that its reader may still have it.

use super::places::Place;
use crate::db::events::{self, EventFilter};
use crate::db::users::{self, Principal};
use crate::db::{Db, DbError, runs};
use crate::rest::Api;
use axum::response::sse::Event as Frame;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use uuid::Uuid;

/// A reader that takes nothing for so long is let go.
const SLOW_MAX: Duration = Duration::from_secs(20);
/// Between looks whether the session or token still holds.
const RECHECK: Duration = Duration::from_secs(2);
/// Between looks at a run.
const RUN_TICK: Duration = Duration::from_millis(500);
/// Events read at a time.
const BATCH: usize = 100;

/// Why a stream ends.
enum Over {
    /// The reader has gone, or takes nothing.
    Gone,
    /// Its session or token has ended.
    Denied,
    /// The daemon ends.
    Ending,
    /// Something of ours failed: the reader comes again.
    Failed(DbError),
}

impl From<DbError> for Over {
    fn from(error: DbError) -> Self {
        Self::Failed(error)
    }
}

/// What follows for a reader.
pub(super) struct Follower {
    api: Api,
    principal: Principal,
    frames: Sender<Result<Frame, Infallible>>,
    checked: Instant,
    _place: Place,
}

/// Events that the reader has missed for good: those after one number, before another.
#[derive(Serialize)]
struct Gap {
    after: u64,
    before: u64,
}

impl Follower {
    pub(super) fn new(
        api: Api,
        principal: Principal,
        frames: Sender<Result<Frame, Infallible>>,
        place: Place,
    ) -> Self {
        Self { api, principal, frames, checked: Instant::now(), _place: place }
    }

    /// Says all events after the cursor, for ever.
    pub(super) async fn events(mut self, filter: EventFilter, cursor: u64) {
        let over = self.follow_events(filter, cursor).await;
        self.end(&over);
    }

    /// Says how the run stands, until it is over.
    pub(super) async fn run(mut self, id: Uuid) {
        if let Err(over) = self.follow_run(id).await {
            self.end(&over);
        }
    }

    fn end(&self, over: &Over) {
        let who = self.principal.name.as_str();
        match over {
            Over::Gone => tracing::debug!(who, "a stream's reader went away, or took nothing"),
            Over::Denied => tracing::debug!(who, "a stream ends with its session or token"),
            Over::Ending => {}
            Over::Failed(error) => tracing::error!(who, %error, "a stream could not go on"),
        }
    }

    async fn follow_events(&mut self, filter: EventFilter, mut cursor: u64) -> Over {
        let mut pulse = self.api.streams.pulse.feel(&self.api.db);
        loop {
            match self.say_events(filter, cursor).await {
                Ok(at) => cursor = at,
                Err(over) => return over,
            }
            let newer = async {
                // A number below the cursor is that of a database that was put in its place.
                if pulse.wait_for(|&newest| newest != cursor).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            if let Err(over) = self.wait(newer, RECHECK).await {
                return over;
            }
        }
    }

    /// Says what there is after the cursor now; returns up to where the reader has it.
    async fn say_events(&mut self, filter: EventFilter, mut cursor: u64) -> Result<u64, Over> {
        loop {
            self.recheck().await?;
            let tail = self.read(move |db| events::tail(db, &filter, cursor, BATCH)).await?;
            if tail.oldest > cursor.saturating_add(1) || tail.newest < cursor {
                let resumed = tail.oldest.saturating_sub(1);
                self.say("gap", Some(resumed), &Gap { after: cursor, before: tail.oldest }).await?;
                cursor = resumed;
                continue;
            }
            let was_full = tail.events.len() == BATCH;
            for event in &tail.events {
                self.say("event", Some(event.number), event).await?;
                cursor = event.number;
            }
            if !was_full {
                return Ok(tail.newest);
            }
        }
    }

    async fn follow_run(&mut self, id: Uuid) -> Result<(), Over> {
        let mut said = None;
        loop {
            self.recheck().await?;
            let known = said.clone();
            let changed = self.read(move |db| {
                let mark = runs::mark(db, id)?;
                let run = if known.as_ref() == Some(&mark) { None } else { Some(runs::detail(db, id)?) };
                Ok((mark, run))
            });
            let (mark, run) = changed.await?;
            said = Some(mark);
            if let Some(run) = run {
                self.say("run", None, &run).await?;
                if run.run.state.is_over() {
                    return Ok(());
                }
            }
            self.wait(std::future::pending(), RUN_TICK).await?;
        }
    }

    /// Waits for something, but not for longer than so.
    async fn wait(&self, what: impl Future<Output = ()>, at_most: Duration) -> Result<(), Over> {
        let mut ending = self.api.streams.ending.clone();
        tokio::select! {
            () = what => Ok(()),
            () = tokio::time::sleep(at_most) => Ok(()),
            () = self.frames.closed() => Err(Over::Gone),
            _ = ending.wait_for(|&ending| ending) => Err(Over::Ending),
        }
    }

    async fn say(&self, name: &str, id: Option<u64>, what: &impl Serialize) -> Result<(), Over> {
        let frame = Frame::default().event(name);
        let frame = if let Some(id) = id { frame.id(id.to_string()) } else { frame };
        let frame = frame
            .json_data(what)
            .map_err(|error| Over::Failed(DbError::Damaged(format!("it cannot be told: {error}"))))?;
        let mut ending = self.api.streams.ending.clone();
        tokio::select! {
            sent = tokio::time::timeout(SLOW_MAX, self.frames.send(Ok(frame))) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Over::Gone),
            },
            _ = ending.wait_for(|&ending| ending) => Err(Over::Ending),
        }
    }

    /// Whether the reader may still have it. What it reads is no use of its session: that ends when it is left alone.
    async fn recheck(&mut self) -> Result<(), Over> {
        if self.checked.elapsed() < RECHECK {
            return Ok(());
        }
        let (principal, now_ms) = (self.principal.clone(), self.api.db.now_ms());
        let still = self.read(move |db| users::still(db, &principal, now_ms)).await?;
        self.checked = Instant::now();
        if still { Ok(()) } else { Err(Over::Denied) }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, Over> {
        let db: Db = self.api.db.clone();
        let done = tokio::task::spawn_blocking(move || db.read(work)).await;
        done.unwrap_or_else(|error| Err(DbError::Damaged(format!("a task failed: {error}"))))
            .map_err(Over::from)
    }
}
