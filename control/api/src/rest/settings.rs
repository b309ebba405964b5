//! Settings of the daemon: what administrators may choose for everybody.

use super::name::Name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All settings. Each holds from the moment it is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// After how long without a request a session ends.
    pub session_idle_seconds: u32,
    /// After how long a session ends whatever is done with it; of sessions that begin from now on.
    pub session_seconds: u32,
    /// For how long an agent's certificate holds; of those that are issued from now on.
    pub agent_certificate_seconds: u32,
    /// Whether every agent that enrols waits for an operator, also with a token that would have it approved at once.
    pub approve_every_agent: bool,
    /// How many events are kept.
    pub events_kept: u32,
    /// For how long events are kept.
    pub events_kept_seconds: u32,
    /// For how long logs are kept.
    pub logs_kept_seconds: u32,
    /// How large the file of logs becomes.
    pub logs_bytes: u64,
    /// The KEK that agents' logs are sealed to, by name; absent: they are not sealed. With a KEK of which the daemon has no private half it
    /// cannot read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_kek: Option<Name>,
    /// Goes up with every change; the `ETag`.
    pub version: i64,
    /// When they were last changed; 0 if they never were.
    pub updated_ms: i64,
}

/// What to change of the settings; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 86_400)]
    pub session_idle_seconds: Option<u32>,
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 300, maximum = 2_592_000)]
    pub session_seconds: Option<u32>,
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 3600, maximum = 7_776_000)]
    pub agent_certificate_seconds: Option<u32>,
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve_every_agent: Option<bool>,
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1000, maximum = 1_000_000)]
    pub events_kept: Option<u32>,
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 3600, maximum = 315_360_000)]
    pub events_kept_seconds: Option<u32>,
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 3600, maximum = 315_360_000)]
    pub logs_kept_seconds: Option<u32>,
    /// See [`Settings`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16_777_216, maximum = 1_099_511_627_776_u64)]
    pub logs_bytes: Option<u64>,
    /// See [`Settings`]. An empty one ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63)]
    pub logs_kek: Option<String>,
}
