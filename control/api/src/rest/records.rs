//! What has happened: events, and the audit log.

use super::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Something was not done.
    Error,
    /// Somebody may have done what they must not.
    Security,
}
words!(Severity { Info = "info", Warning = "warning", Error = "error", Security = "security" });

/// Something that has happened, told by an agent or the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Goes up with each event.
    pub number: u64,
    /// By the clock of who tells it.
    pub time_ms: i64,
    /// How much it matters.
    pub severity: Severity,
    /// The agent that tells it, or that it is about.
    pub agent_id: Option<Uuid>,
    /// The job that it is about.
    pub job_id: Option<Uuid>,
    /// The run that it is about.
    pub run_id: Option<Uuid>,
    /// In words. May come from an agent: to be escaped where it is shown.
    pub message: String,
}

/// A record of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// From 1, without gaps.
    pub number: i64,
    /// By the daemon's clock.
    pub time_ms: i64,
    /// Who: `user:NAME`, `token:USER/NAME`, `agent:NAME`, `system`, `cli:NAME`, `anonymous`.
    pub actor: String,
    /// From where.
    pub address: String,
    /// In which request.
    pub request_id: Uuid,
    /// What was done, such as `job.create`.
    #[schema(examples("job.create", "login.refused"))]
    pub action: String,
    /// To what.
    pub subject: String,
    /// How that was before: JSON text, byte for byte as it was hashed, so that a reader can check the chain.
    pub before: Option<String>,
    /// How it was after; JSON text too.
    pub after: Option<String>,
    /// SHA-256 over the hash of the record before it and this record, hexadecimal.
    pub hash: String,
}
