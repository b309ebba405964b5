-- Version 1; later ones add schema_2.sql and so on. Ids are UUIDv7, 16 bytes. Times are milliseconds since 1970, UTC. Secrets are sealed under the master key
-- (see master.rs); what only has to be recognised again (tokens, session cookies) is kept as its SHA-256.

CREATE TABLE meta (
    name    TEXT PRIMARY KEY,
    value   BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    name            TEXT NOT NULL UNIQUE,
    role            TEXT NOT NULL CHECK (role IN ('administrator', 'operator', 'viewer')),
    password        TEXT NOT NULL,          -- PHC string, argon2id
    disabled        INTEGER NOT NULL DEFAULT 0,
    version         INTEGER NOT NULL DEFAULT 1,
    created_ms      INTEGER NOT NULL,
    updated_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    hash            BLOB PRIMARY KEY CHECK (length(hash) = 32),
    user_id         BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    csrf            BLOB NOT NULL CHECK (length(csrf) = 32),
    address         TEXT NOT NULL,
    created_ms      INTEGER NOT NULL,
    used_ms         INTEGER NOT NULL,
    expires_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE api_tokens (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    name            TEXT NOT NULL,
    hash            BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    user_id         BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role            TEXT NOT NULL CHECK (role IN ('administrator', 'operator', 'viewer')),
    created_ms      INTEGER NOT NULL,
    expires_ms      INTEGER NOT NULL,
    used_ms         INTEGER,
    revoked_ms      INTEGER
) STRICT, WITHOUT ROWID;

-- Failed logins, by account and by address.
CREATE TABLE lockouts (
    subject         TEXT PRIMARY KEY,       -- 'account:NAME', 'unknown:HEX' (a keyed hash of a name that nobody has), 'address:IP' (IPv6: its /64)
    failures        INTEGER NOT NULL,
    last_ms         INTEGER NOT NULL,
    locked_until_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolment_tokens (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    name            TEXT NOT NULL,
    hash            BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    approve         INTEGER NOT NULL,       -- 1: agents are approved at once
    group_name      TEXT,                   -- which agents join
    uses_left       INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL,
    expires_ms      INTEGER NOT NULL,
    revoked_ms      INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    name            TEXT NOT NULL UNIQUE,
    key             BLOB NOT NULL UNIQUE CHECK (length(key) = 32),    -- SHA-256 of the SubjectPublicKeyInfo
    state           TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'quarantined', 'revoked')),
    token_id        BLOB REFERENCES enrolment_tokens (id),
    facts           TEXT NOT NULL,          -- JSON: HostFacts
    address         TEXT NOT NULL,          -- that it last came from
    incarnation     BLOB NOT NULL DEFAULT x'',
    next_incarnation BLOB NOT NULL DEFAULT x'',
    document        INTEGER NOT NULL DEFAULT 0,     -- the newest number
    document_digest BLOB NOT NULL DEFAULT x'',      -- of its content, without number and incarnation
    acked_document  INTEGER NOT NULL DEFAULT 0,
    events_kept     INTEGER NOT NULL DEFAULT 0,
    certificate_expires_ms INTEGER NOT NULL DEFAULT 0,
    version         INTEGER NOT NULL DEFAULT 1,
    created_ms      INTEGER NOT NULL,
    seen_ms         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE group_members (
    group_name      TEXT NOT NULL,
    agent_id        BLOB NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    PRIMARY KEY (group_name, agent_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    name            TEXT NOT NULL UNIQUE,
    kind            TEXT NOT NULL CHECK (kind IN ('distribution', 'consolidation')),
    spec            TEXT NOT NULL,          -- JSON: JobSpec
    epoch           INTEGER NOT NULL DEFAULT 1,
    version         INTEGER NOT NULL DEFAULT 1,
    created_ms      INTEGER NOT NULL,
    updated_ms      INTEGER NOT NULL,
    deleted_ms      INTEGER
) STRICT, WITHOUT ROWID;

-- One for each source: in a consolidation each source signs by itself.
CREATE TABLE job_keys (
    job_id          BLOB NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    source_id       BLOB NOT NULL REFERENCES agents (id),
    epoch           INTEGER NOT NULL,
    sealed_seed     BLOB NOT NULL,
    verify_key      BLOB NOT NULL CHECK (length(verify_key) = 32),
    created_ms      INTEGER NOT NULL,
    PRIMARY KEY (job_id, source_id, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    job_id          BLOB NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    state           TEXT NOT NULL CHECK (state IN ('running', 'paused', 'done', 'partial', 'failed', 'stopped')),
    started_by      TEXT NOT NULL,
    version         INTEGER NOT NULL DEFAULT 1,
    created_ms      INTEGER NOT NULL,
    ended_ms        INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_job ON runs (job_id, id);
CREATE INDEX runs_that_go_on ON runs (state) WHERE state IN ('running', 'paused');

-- What an agent is to do in a run: once for each source and destination that belong together.
CREATE TABLE run_agents (
    run_id          BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    agent_id        BLOB NOT NULL REFERENCES agents (id),
    source_id       BLOB NOT NULL REFERENCES agents (id),   -- itself, of a source
    role            TEXT NOT NULL CHECK (role IN ('source', 'destination')),
    path            BLOB NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'paused', 'done', 'partial', 'failed', 'stopped')),
    files           INTEGER NOT NULL DEFAULT 0,
    bytes           INTEGER NOT NULL DEFAULT 0,
    bytes_known     INTEGER NOT NULL DEFAULT 0,
    bytes_transferred INTEGER NOT NULL DEFAULT 0,
    failed          INTEGER NOT NULL DEFAULT 0,
    deleted         INTEGER NOT NULL DEFAULT 0,
    message         TEXT NOT NULL DEFAULT '',
    addresses       TEXT NOT NULL DEFAULT '[]',     -- JSON, of a source that listens
    updated_ms      INTEGER NOT NULL,
    PRIMARY KEY (run_id, agent_id, source_id, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_agents_by_agent ON run_agents (agent_id);

-- What agents tell, and what the daemon has to say: shown to people, and streamed.
CREATE TABLE events (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms         INTEGER NOT NULL,
    severity        TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'error', 'security')),
    agent_id        BLOB,
    job_id          BLOB,
    run_id          BLOB,
    message         TEXT NOT NULL,
    taken_ms        INTEGER NOT NULL DEFAULT 0      -- when it came, by the daemon's clock: by this it is kept
) STRICT;

-- Never updated and never deleted from. `hash` is over the previous hash and this record (see audit.rs).
CREATE TABLE audit (
    number          INTEGER PRIMARY KEY,
    time_ms         INTEGER NOT NULL,
    actor           TEXT NOT NULL,          -- 'user:NAME', 'token:USER/NAME', 'agent:NAME', 'system', 'cli:NAME', 'anonymous'
    address         TEXT NOT NULL,
    request_id      BLOB NOT NULL CHECK (length(request_id) = 16),
    action          TEXT NOT NULL,          -- 'job.create', 'login.refused' and so on
    subject         TEXT NOT NULL,
    before          TEXT,                   -- JSON, without secrets
    after           TEXT,
    hash            BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TABLE audit_checkpoints (
    number          INTEGER PRIMARY KEY,    -- of the last record that it covers
    time_ms         INTEGER NOT NULL,
    hash            BLOB NOT NULL CHECK (length(hash) = 32),
    signature       BLOB NOT NULL CHECK (length(signature) = 64)      -- Ed25519, by the daemon's audit key
) STRICT;

-- Answers to requests that brought a key, for a day: a request that is sent again is not carried out again.
CREATE TABLE idempotency (
    user_id         BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key             TEXT NOT NULL,
    request         BLOB NOT NULL CHECK (length(request) = 32),     -- a keyed hash of method, path and body
    status          INTEGER NOT NULL,
    version         INTEGER,                -- the answer's ETag
    answer          BLOB NOT NULL,          -- its body, sealed: it may have a secret
    created_ms      INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_ms);

-- At most one row: what administrators have chosen.
CREATE TABLE settings (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    kept            TEXT NOT NULL,          -- JSON (see settings.rs)
    version         INTEGER NOT NULL,
    updated_ms      INTEGER NOT NULL
) STRICT;
