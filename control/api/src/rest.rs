//! Resources of the REST API, as they are on the wire.
//!
//! Owns their form and what can be told of it without a database: limits, names, endpoints. Whether a request is
//! allowed, and whether what it names exists, is the daemon's to say. Times are milliseconds since 1970, UTC. Request
//! bodies refuse fields that they do not know; answers may gain some.

mod agents;
mod endpoint;
mod jobs;
mod keks;
pub mod limits;
mod logs;
mod name;
mod records;
mod runs;
mod secret;
mod settings;
mod users;

pub use agents::{
    Agent, AgentPatch, AgentState, EnrolmentToken, Group, GroupMember, HostFacts, NewEnrolmentToken,
    NewEnrolmentTokenSecret,
};
pub use endpoint::{Endpoint, EndpointError, Place};
pub use jobs::{
    Cipher, Day, Hash, Job, JobKey, JobKind, JobPatch, JobSpec, NewJob, RateEntry, RateSchedule, Schedule,
    Transport,
};
pub use keks::{GroupPolicy, Kek, KekFiles, KekMode, KekState, KekWraps, NewKek};
pub use logs::{
    LogField, LogRecord, OpenLogs, OpenedLogs, Rewrapped, RewrappedPage, SealedLog, SealedSegment, fields_of,
    within_limits,
};
pub use name::{Name, NameError};
pub use records::{AuditRecord, Event, Severity};
pub use runs::{Run, RunAgent, RunAgentState, RunDetail, RunRole, RunState};
pub use secret::SecretText;
pub use settings::{Settings, SettingsPatch};
pub use users::{
    ApiToken, Login, LoginAnswer, NewApiToken, NewApiTokenSecret, NewUser, PasswordChange, Role, User,
    UserPatch,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What went wrong, by RFC 9457 (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: a URI reference, the same for all problems of a kind.
    #[serde(rename = "type")]
    #[schema(examples("/problems/stale"))]
    pub kind: String,
    /// The kind in words, the same for all problems of a kind.
    pub title: String,
    /// The status code of the answer.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The request, as logs and the audit log name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Uuid>,
}

/// Some of a list, in its order, and where the rest begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// What to ask for as `after` to get those that follow; absent at the end. Not to be read or made by clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from one item more than it may have: the surplus tells that there is a next page, which begins after the
    /// last item that stays.
    #[must_use]
    pub fn of(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

/// Enums that are a word on the wire and the same word in the database.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The value as it is on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that the word stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_whether_there_is_more() {
        let page = |items: &[u8]| Page::of(items.to_vec(), 2, |item| item.to_string());
        assert_eq!(page(&[1, 2, 3]), Page { items: vec![1, 2], next: Some("2".into()) });
        assert_eq!(page(&[1, 2]), Page { items: vec![1, 2], next: None });
        assert_eq!(page(&[]), Page { items: vec![], next: None });
    }

    #[test]
    fn words_are_read_back() {
        for state in RunAgentState::ALL {
            assert_eq!(RunAgentState::from_word(state.as_str()), Some(*state));
        }
        assert_eq!(Role::from_word("Administrator"), None);
    }
}
