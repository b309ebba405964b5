//! What agents log, as it is found again.

use super::Severity;
use super::limits::{
    LOG_FIELD_NAME_BYTES_MAX, LOG_FIELD_VALUE_BYTES_MAX, LOG_FIELDS_MAX, LOG_MESSAGE_BYTES_MAX,
    LOG_TARGET_BYTES_MAX,
};
use super::secret::SecretText;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
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

/// A line of an agent's log that the daemon keeps and cannot read. `sealift logs --key` opens it where the private half of one of the
/// envelope's KEKs is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SealedLog {
    /// The daemon's number of it, by the order in which sealed records came.
    pub number: u64,
    /// When it came.
    pub received_ms: i64,
    /// Whose it is.
    pub agent_id: Uuid,
    /// The agent's spool, whose the envelope is.
    pub spool: Uuid,
    /// The agent's number of it.
    pub spool_number: u64,
    /// Of the data key (docs/envelope.md), in base 64.
    pub envelope: String,
    /// The record (docs/logs.md), in base 64.
    pub record: String,
}

/// A segment of an agent's logs that the daemon keeps sealed: its data key, wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SealedSegment {
    /// The beginning of what commits to the data key.
    pub id: Uuid,
    /// Whose it is.
    pub agent_id: Uuid,
    /// The agent's spool, whose the envelope is.
    pub spool: Uuid,
    /// Of the data key (docs/envelope.md), in base 64.
    pub envelope: String,
}

/// The data key of a segment, wrapped anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrapped {
    /// The envelope, in base 64: of the same data key, to KEKs that are active.
    #[schema(max_length = 32768)]
    pub envelope: String,
}

/// What the daemon has wrapped anew of a page of segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RewrappedPage {
    /// Segments whose data keys are wrapped to the KEK now, and were not.
    pub rewrapped: u64,
    /// Segments that are wrapped to other versions of it, whose private halves the daemon does not have or may not use.
    pub closed: u64,
    /// Segments whose data keys could not be unwrapped: they were changed.
    pub failed: u64,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// A key, and which sealed records it is to open.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenLogs {
    /// The private half of a KEK: PEM. It is used in memory, and overwritten when the answer is made.
    #[schema(max_length = 65536, value_type = String)]
    pub private_pem: SecretText,
    /// Its passphrase, if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, format = Password, value_type = Option<String>)]
    pub passphrase: Option<SecretText>,
    /// Those of this agent; absent: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Uuid>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Sealed records that were opened, the newest first by when they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenedLogs {
    /// What could be opened of a page.
    pub items: Vec<LogRecord>,
    /// How many of it could not.
    pub closed: u32,
    /// What to ask for as `after` to get those that follow; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl LogRecord {
    /// A sealed record, opened.
    #[must_use]
    pub fn opened(sealed: &SealedLog, record: crate::logs::Record) -> Self {
        use crate::logs::record::Severity as Said;
        let severity = match record.severity() {
            Said::Unspecified | Said::Info => Severity::Info,
            Said::Warning => Severity::Warning,
            Said::Error => Severity::Error,
            Said::Security => Severity::Security,
        };
        let record = within_limits(record);
        Self {
            number: sealed.number,
            time_ms: i64::try_from(record.unix_millis).unwrap_or(sealed.received_ms),
            received_ms: sealed.received_ms,
            severity,
            agent_id: sealed.agent_id,
            job_id: Uuid::from_slice(&record.job_id).ok(),
            run_id: Uuid::from_slice(&record.run_id).ok(),
            target: record.target,
            message: record.message,
            fields: fields_of(record.fields),
        }
    }
}

/// What an agent says of a record, within limits: cut, each name of a field once.
#[must_use]
pub fn within_limits(mut record: crate::logs::Record) -> crate::logs::Record {
    let mut names = HashSet::new();
    record.fields.truncate(LOG_FIELDS_MAX);
    record.fields.retain_mut(|field| {
        cut(&mut field.name, LOG_FIELD_NAME_BYTES_MAX);
        cut(&mut field.value, LOG_FIELD_VALUE_BYTES_MAX);
        names.insert(field.name.clone())
    });
    cut(&mut record.target, LOG_TARGET_BYTES_MAX);
    cut(&mut record.message, LOG_MESSAGE_BYTES_MAX);
    record
}

/// Fields as they are shown.
#[must_use]
pub fn fields_of(fields: Vec<crate::logs::Field>) -> Vec<LogField> {
    fields.into_iter().map(|field| LogField { name: field.name, value: field.value }).collect()
}

fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{Field, Record};

    #[test]
    fn what_is_opened_is_cut_as_what_was_never_sealed() {
        let field = |name: String| Field { name, value: "ü".repeat(9999) };
        let record = Record {
            target: "t".repeat(9999),
            message: "€".repeat(9999),
            fields: (0..99).map(|at| field((at / 2).to_string())).collect(),
            ..Record::default()
        };
        let sealed = SealedLog {
            number: 1,
            received_ms: 2,
            agent_id: Uuid::nil(),
            spool: Uuid::nil(),
            spool_number: 3,
            envelope: String::new(),
            record: String::new(),
        };
        let opened = LogRecord::opened(&sealed, record);
        assert_eq!((opened.target.len(), opened.message.len()), (64, 4095));
        assert_eq!(opened.fields.len(), LOG_FIELDS_MAX / 2, "each name once");
        assert!(opened.fields.iter().all(|field| field.value.len() == LOG_FIELD_VALUE_BYTES_MAX));
    }
}
