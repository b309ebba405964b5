-- What version 2 of logs.db adds: records that the daemon keeps and cannot read.

-- Data keys of agents' segments, wrapped.
CREATE TABLE sealed_segments (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),   -- the beginning of what commits to the data key
    agent_id        BLOB NOT NULL CHECK (length(agent_id) = 16),
    spool           BLOB NOT NULL CHECK (length(spool) = 16),
    envelope        BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sealed_logs (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    received_ms     INTEGER NOT NULL,
    agent_id        BLOB NOT NULL CHECK (length(agent_id) = 16),
    segment         BLOB NOT NULL REFERENCES sealed_segments (id),
    spool_number    INTEGER NOT NULL,
    record          BLOB NOT NULL
) STRICT;
CREATE INDEX sealed_logs_by_agent ON sealed_logs (agent_id);
CREATE INDEX sealed_logs_by_segment ON sealed_logs (segment);
