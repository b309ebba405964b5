//! Runs: a job, carried out once.

use super::name::Name;
use super::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Goes on.
    Running,
    /// Goes on when somebody resumes it.
    Paused,
    /// Everything is everywhere.
    Done,
    /// Something is missing somewhere.
    Partial,
    /// Nothing has arrived anywhere.
    Failed,
    /// Somebody has ended it.
    Stopped,
}
words!(RunState {
    Running = "running",
    Paused = "paused",
    Done = "done",
    Partial = "partial",
    Failed = "failed",
    Stopped = "stopped",
});

impl RunState {
    /// Whether the run has ended, and for good.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Running | Self::Paused)
    }
}

/// What an agent does in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunRole {
    /// Gives.
    Source,
    /// Takes.
    Destination,
}
words!(RunRole { Source = "source", Destination = "destination" });

/// How an agent stands in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunAgentState {
    /// Has not begun, or cannot reach the other.
    Waiting,
    /// Goes on.
    Running,
    /// Is paused.
    Paused,
    /// Has everything.
    Done,
    /// Has ended, and some entries are missing.
    Partial,
    /// Has given up.
    Failed,
    /// Was stopped.
    Stopped,
}
words!(RunAgentState {
    Waiting = "waiting",
    Running = "running",
    Paused = "paused",
    Done = "done",
    Partial = "partial",
    Failed = "failed",
    Stopped = "stopped",
});

impl RunAgentState {
    /// Whether the agent has ended its part, and for good.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Partial | Self::Failed | Self::Stopped)
    }
}

/// A job, carried out once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// UUIDv7.
    pub id: Uuid,
    /// What is carried out.
    pub job_id: Uuid,
    /// The job's name; of a job that was deleted, the one it had, `~` and the job's id.
    pub job_name: String,
    /// How it stands.
    pub state: RunState,
    /// Who started it: `user:NAME`, `token:USER/NAME`, `system`.
    pub started_by: String,
    /// Goes up with every change that somebody makes; the `ETag`.
    pub version: i64,
    /// When it was started.
    pub created_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
}

/// A run and all who take part in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: Run,
    /// First sources, then destinations, each in the order of their names.
    pub agents: Vec<RunAgent>,
}

/// An agent's part in a run, as the agent reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunAgent {
    /// The agent.
    pub agent_id: Uuid,
    /// Its name.
    pub agent: Name,
    /// The source that it gets from; itself, of a source.
    pub source_id: Uuid,
    /// That source's name.
    pub source: Name,
    /// What it does.
    pub role: RunRole,
    /// Where on the agent.
    pub path: String,
    /// How it stands.
    pub state: RunAgentState,
    /// Files that are as they shall be.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes there are to be, as far as it is known.
    pub bytes_known: u64,
    /// Bytes that went over the wire.
    pub bytes_transferred: u64,
    /// Entries that failed.
    pub failed: u64,
    /// Entries that were deleted.
    pub deleted: u64,
    /// Of a state that needs words.
    pub message: String,
    /// Where a source is reached.
    pub addresses: Vec<String>,
    /// When it last changed.
    pub updated_ms: i64,
}
