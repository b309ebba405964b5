//! Jobs: what is to be replicated from where to where, how, and when.

use super::endpoint::Endpoint;
use super::name::Name;
use super::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Which way a job goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// From one agent to many.
    Distribution,
    /// From many agents to one, each into a directory of its own that is named by it.
    Consolidation,
}
words!(JobKind { Distribution = "distribution", Consolidation = "consolidation" });

/// The hash by which blocks and files are verified.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    /// SHA-256.
    #[default]
    Sha256,
    /// BLAKE3.
    Blake3,
}
words!(Hash { Sha256 = "sha256", Blake3 = "blake3" });

/// The cipher of a job's sessions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum Cipher {
    /// AES-128-GCM.
    #[serde(rename = "aes-128-gcm")]
    Aes128Gcm,
    /// AES-256-GCM.
    #[default]
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
}
words!(Cipher { Aes128Gcm = "aes-128-gcm", Aes256Gcm = "aes-256-gcm" });

/// What carries a job's sessions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Whichever of the two works, and serves better.
    #[default]
    Auto,
    /// QUIC over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
}
words!(Transport { Auto = "auto", Quic = "quic", Tcp = "tcp" });

/// When a job runs by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// At the times of a cron expression.
    Cron {
        /// Five fields: minute, hour, day of the month, month, day of the week (0 or 7: Sunday). In each: `*`, a
        /// number, a range, a step, or several of these with commas between.
        #[schema(max_length = 256, examples("30 2 * * 1-5"))]
        cron: String,
        /// The name of a zone in the IANA database.
        #[schema(max_length = 64, examples("Europe/Berlin", "UTC"))]
        time_zone: String,
    },
    /// Again and again, so long after the last run has ended.
    Interval {
        /// How long.
        #[schema(minimum = 10, maximum = 31_622_400)]
        seconds: u32,
    },
    /// Once.
    Once {
        /// When.
        at_ms: i64,
    },
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}
words!(Day {
    Monday = "monday",
    Tuesday = "tuesday",
    Wednesday = "wednesday",
    Thursday = "thursday",
    Friday = "friday",
    Saturday = "saturday",
    Sunday = "sunday",
});

/// How fast blocks go from some time of day on, until the next entry begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateEntry {
    /// On which day; absent: on each. What is said of a day takes precedence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<Day>,
    /// The time of day, `HH:MM`.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", examples("08:00"))]
    pub from: String,
    /// The limit in bytes a second; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 8192)]
    pub bytes_per_second: Option<u64>,
}

/// How fast blocks go by the time of day, as each agent's own clock tells it: also while the daemon is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSchedule {
    /// The name of a zone in the IANA database.
    #[schema(max_length = 64, examples("Europe/Berlin", "UTC"))]
    pub time_zone: String,
    /// What holds from when on. Before the first entry of a week the last of the week before holds.
    #[schema(min_items = 1, max_items = 64)]
    pub entries: Vec<RateEntry>,
}

/// What is to be replicated, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Which way.
    pub kind: JobKind,
    /// The sources: of a distribution exactly one agent, of a consolidation agents and groups.
    #[schema(min_items = 1, max_items = 256)]
    pub from: Vec<Endpoint>,
    /// The destinations: of a distribution agents and groups, of a consolidation exactly one agent.
    #[schema(min_items = 1, max_items = 256)]
    pub to: Vec<Endpoint>,
    /// KEKs by name: if there are any, all content and names are sealed at the source, for those who have one of the private halves;
    /// destinations keep ciphertext.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub seal_to: Vec<Name>,
    /// The hash by which everything is verified.
    #[serde(default)]
    pub hash: Hash,
    /// The cipher of the sessions.
    #[serde(default)]
    pub cipher: Cipher,
    /// Whether destinations delete what the source does not have.
    #[serde(default)]
    pub delete: bool,
    /// Connections of each session; 0: the agents' own default.
    #[serde(default)]
    #[schema(maximum = 64)]
    pub connections: u32,
    /// What carries the sessions.
    #[serde(default)]
    pub transport: Transport,
    /// How fast blocks go at each of its agents, in bytes a second; absent: as fast as they can. A change holds at once, also
    /// for runs that go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 8192)]
    pub bytes_per_second: Option<u64>,
    /// The same by the time of day; absent: always the same. Of this and `bytes_per_second` the lower holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_schedule: Option<RateSchedule>,
    /// When it runs by itself; absent: when somebody starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// A key of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobKey {
    /// The source that signs with it.
    pub source_id: Uuid,
    /// The source's name.
    pub source: Name,
    /// The public half, hexadecimal: checks what the source signs.
    pub verify_key: String,
    /// When it was made.
    pub created_ms: i64,
}

/// Something to be replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// UUIDv7.
    pub id: Uuid,
    /// By which people name it.
    pub name: Name,
    /// What and how.
    pub spec: JobSpec,
    /// The epoch of its keys: goes up when they are rotated.
    pub epoch: u32,
    /// The keys of this epoch, one for each source that has had one made.
    pub keys: Vec<JobKey>,
    /// Goes up with every change; the `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_ms: i64,
    /// When it was last changed.
    pub updated_ms: i64,
}

/// A job to be made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    /// By which people will name it.
    pub name: Name,
    /// What and how.
    pub spec: JobSpec,
}

/// What to change of a job; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobPatch {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Another spec, whole. Its kind stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<JobSpec>,
}
