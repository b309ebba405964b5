//! Agents, their groups, and the tokens with which they enrol.

use super::name::Name;
use super::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How an agent stands with the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Enrolled, and waits for an operator.
    Pending,
    /// Takes part in jobs.
    Approved,
    /// Two copies of it, or an old one, have been seen: gets nothing until an operator releases it.
    Quarantined,
    /// For good.
    Revoked,
}
words!(AgentState {
    Pending = "pending",
    Approved = "approved",
    Quarantined = "quarantined",
    Revoked = "revoked",
});

/// What an agent tells of its host. Whatever an agent says is shown, and decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct HostFacts {
    /// As the host calls itself.
    pub hostname: String,
    /// The system, in words.
    pub os: String,
    /// Processors.
    pub cores: u32,
    /// Of the host.
    pub memory_bytes: u64,
    /// Of the agent.
    pub version: String,
    /// Where others reach its data port: `host:port`.
    pub data_addresses: Vec<String>,
    /// Beneath which jobs may read, by the agent's own configuration. Shown; bytes that are no UTF-8 are replaced.
    pub read_roots: Vec<String>,
    /// Beneath which jobs may write.
    pub write_roots: Vec<String>,
}

/// A host that replicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// UUIDv7.
    pub id: Uuid,
    /// By which jobs name it.
    pub name: Name,
    /// How it stands with the daemon.
    pub state: AgentState,
    /// What it tells of its host.
    pub facts: HostFacts,
    /// That it last came from.
    pub address: String,
    /// Which it is in, in order.
    pub groups: Vec<Name>,
    /// Whether no plaintext may be placed there by itself.
    pub must_seal: bool,
    /// Those of its groups of which the same holds.
    pub must_seal_by: Vec<Name>,
    /// Whether its channel is open now.
    pub connected: bool,
    /// The number of the newest document that was made for it.
    pub document: i64,
    /// The number of the newest document that it has put on its disk.
    pub acked_document: i64,
    /// The SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal.
    pub key: String,
    /// When its certificate expires; 0 before it has one.
    pub certificate_expires_ms: i64,
    /// Goes up with every change that somebody makes; the `ETag`.
    pub version: i64,
    /// When it enrolled.
    pub created_ms: i64,
    /// When it was last heard of.
    pub seen_ms: i64,
}

/// What to change of an agent; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentPatch {
    /// Another name. Jobs that name it are changed with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The groups it is to be in, instead of those it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 64)]
    pub groups: Option<Vec<Name>>,
    /// Whether no plaintext may be placed there: only sealed jobs have it as a destination. Administrators alone can end that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub must_seal: Option<bool>,
}

impl Agent {
    /// Whether no plaintext may be placed there, for whichever reason.
    #[must_use]
    pub fn takes_ciphertext_alone(&self) -> bool {
        self.must_seal || !self.must_seal_by.is_empty()
    }
}

/// Agents that jobs name together. A group is there as long as an agent is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// By which jobs name it.
    pub name: Name,
    /// Whether no plaintext may be placed at its members.
    pub must_seal: bool,
    /// In the order of their names.
    pub members: Vec<GroupMember>,
}

/// An agent in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupMember {
    /// The agent's.
    pub id: Uuid,
    /// The agent's.
    pub name: Name,
    /// How it stands with the daemon; only those that are approved take part.
    pub state: AgentState,
}

/// What an agent enrols with, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentToken {
    /// UUIDv7.
    pub id: Uuid,
    /// What it is for.
    pub name: Name,
    /// Whether agents that spend it are approved at once, or wait for an operator.
    pub approve: bool,
    /// The group that they join.
    pub group: Option<Name>,
    /// How many agents can still spend it.
    pub uses_left: u32,
    /// When it was made.
    pub created_ms: i64,
    /// When it ceases to hold.
    pub expires_ms: i64,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
}

/// An enrolment token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnrolmentToken {
    /// What it is for.
    pub name: Name,
    /// Whether agents that spend it are approved at once.
    #[serde(default)]
    pub approve: bool,
    /// The group that they join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// How many agents can spend it.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 10_000, default = 1)]
    pub uses: u32,
    /// For how long it holds.
    #[schema(minimum = 1, maximum = 2_592_000)]
    pub expires_in_seconds: u32,
}

fn one() -> u32 {
    1
}

/// An enrolment token that was just made, with its secret: shown this once.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct NewEnrolmentTokenSecret {
    /// What is known of it later.
    pub token: EnrolmentToken,
    /// `slenrol1…`, for `sealift agent join`.
    pub secret: String,
}
