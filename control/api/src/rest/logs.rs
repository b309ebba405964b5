//! What agents log, as it is found again.

use super::Severity;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A line of an agent's log. Its texts come from the agent's host and may hold anything, control characters, markup and
/// marks that turn the direction of writing included: to be escaped where they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRecord {
    /// The daemon's number of it, by the order in which records came.
    pub number: u64,
    /// By the agent's clock.
    pub time_ms: i64,
    /// By the daemon's clock: when it came. Later than the time if the daemon was away.
    pub received_ms: i64,
    /// How much it matters.
    pub severity: Severity,
    /// Whose it is.
    pub agent_id: Uuid,
    /// The job that it is about.
    pub job_id: Option<Uuid>,
    /// The run that it is about.
    pub run_id: Option<Uuid>,
    /// The part of the agent that speaks.
    #[schema(examples("agent", "send", "security"))]
    pub target: String,
    /// In words.
    pub message: String,
    /// Details, in the agent's order.
    pub fields: Vec<LogField>,
}

/// A detail of a log record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogField {
    /// What it is.
    #[schema(examples("count", "exit_code"))]
    pub name: String,
    /// Its value as text.
    pub value: String,
}
