//! Limits of what the API takes, in one place.

/// Characters in a name: of an agent, a group, a job, a user, a token.
pub const NAME_CHARS_MAX: usize = 63;
/// Bytes in a path of an endpoint.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes in an endpoint as text: `group:`, a name, a colon, a path.
pub const ENDPOINT_BYTES_MAX: usize = 6 + NAME_CHARS_MAX + 1 + PATH_BYTES_MAX;
/// Endpoints on one side of a job.
pub const ENDPOINTS_MAX: usize = 256;
/// Agents on one side of a run, once groups are resolved.
pub const RUN_AGENTS_MAX: usize = 10_000;
/// Parts that one agent has at a time in all runs that go on; as many as an agent takes in a document.
pub const PARTS_OF_AGENT_MAX: usize = 1024;
/// Groups that one agent is in.
pub const GROUPS_OF_AGENT_MAX: usize = 64;
/// KEKs that a job is sealed to; as many as an envelope has.
pub const SEAL_TO_MAX: usize = 16;
/// Bytes of a file of a KEK's half.
pub const KEK_FILE_BYTES_MAX: usize = 64 << 10;
/// Connections of a session; as many as the engine takes.
pub const CONNECTIONS_MAX: u32 = 64;
/// Bytes a second that a job may be limited to; as little as the engine takes.
pub const BYTES_PER_SECOND_MIN: u64 = 8 << 10;
/// Entries of a schedule of rates; as many as the engine takes.
pub const RATE_ENTRIES_MAX: usize = 64;
/// Characters in a cron expression.
pub const CRON_CHARS_MAX: usize = 256;
/// Characters in the name of a time zone.
pub const TIME_ZONE_CHARS_MAX: usize = 64;
/// Seconds between the runs of a job that goes by interval: at least this, so that no job does nothing but begin.
pub const INTERVAL_SECONDS_MIN: u32 = 10;
/// Seconds between the runs of a job that goes by interval: a year.
pub const INTERVAL_SECONDS_MAX: u32 = 366 * 24 * 3600;
/// Characters in a password.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Bytes in a password: hashing must not be a way to keep the daemon busy.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Uses of an enrolment token.
pub const TOKEN_USES_MAX: u32 = 10_000;
/// Seconds that an enrolment token is good for: 30 days.
pub const ENROLMENT_TOKEN_SECONDS_MAX: u32 = 30 * 24 * 3600;
/// Seconds that an API token is good for: two years.
pub const API_TOKEN_SECONDS_MAX: u32 = 731 * 24 * 3600;
/// Items of a page, if the request does not say.
pub const PAGE_ITEMS_DEFAULT: usize = 100;
/// Items of a page.
pub const PAGE_ITEMS_MAX: usize = 1000;
/// Addresses that an agent gives for its data port.
pub const ADDRESSES_MAX: usize = 16;
/// Paths in an agent's own allow-list, as it tells them.
pub const ROOTS_MAX: usize = 64;
/// Bytes in a text from an agent: a message, the name of its host or system.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Bytes in the message of a log record.
pub const LOG_MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes in the target of a log record.
pub const LOG_TARGET_BYTES_MAX: usize = 64;
/// Fields of a log record.
pub const LOG_FIELDS_MAX: usize = 16;
/// Bytes in the name of such a field.
pub const LOG_FIELD_NAME_BYTES_MAX: usize = 64;
/// Bytes in the value of such a field.
pub const LOG_FIELD_VALUE_BYTES_MAX: usize = 512;
/// Bytes of a log record within these limits, on the wire: with what frames its parts, and its time and ids.
pub const LOG_RECORD_BYTES_MAX: usize = LOG_MESSAGE_BYTES_MAX
    + LOG_TARGET_BYTES_MAX
    + LOG_FIELDS_MAX * (LOG_FIELD_NAME_BYTES_MAX + LOG_FIELD_VALUE_BYTES_MAX + 16)
    + 128;
/// Log records in one batch of an upload.
pub const LOG_BATCH_RECORDS_MAX: usize = 1000;
/// Bytes in one batch of an upload, as the agent counts them: those of its records.
pub const LOG_BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes in a text that logs are searched for.
pub const LOG_QUERY_BYTES_MAX: usize = 256;

const _: () = assert!(LOG_RECORD_BYTES_MAX <= LOG_BATCH_BYTES_MAX);
const _: () = assert!(PAGE_ITEMS_DEFAULT <= PAGE_ITEMS_MAX);
const _: () = assert!(PASSWORD_CHARS_MIN < PASSWORD_BYTES_MAX);
