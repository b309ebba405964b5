-- logs.db, version 1. Ids are 16 bytes; times are milliseconds since 1970, UTC.

-- Up to which number of its own the daemon has what an agent has logged. In one transaction with the records.
CREATE TABLE spools (
    agent_id        BLOB NOT NULL CHECK (length(agent_id) = 16),
    spool           BLOB NOT NULL CHECK (length(spool) = 16),
    kept            INTEGER NOT NULL,
    used_ms         INTEGER NOT NULL,
    PRIMARY KEY (agent_id, spool)
) STRICT, WITHOUT ROWID;

CREATE TABLE logs (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, also when all were removed
    time_ms         INTEGER NOT NULL,                   -- by the agent's clock
    received_ms     INTEGER NOT NULL,                   -- by the daemon's
    severity        INTEGER NOT NULL,                   -- 1 info, 2 warning, 3 error, 4 security
    agent_id        BLOB NOT NULL CHECK (length(agent_id) = 16),
    job_id          BLOB,
    run_id          BLOB,
    target          TEXT NOT NULL,
    message         TEXT NOT NULL,
    fields          TEXT NOT NULL                       -- JSON: [LogField]
) STRICT;
CREATE INDEX logs_by_time ON logs (time_ms);
CREATE INDEX logs_by_agent ON logs (agent_id, time_ms);
CREATE INDEX logs_by_severity ON logs (severity, time_ms) WHERE severity > 1;
CREATE INDEX logs_by_job ON logs (job_id, time_ms) WHERE job_id IS NOT NULL;
CREATE INDEX logs_by_run ON logs (run_id, time_ms) WHERE run_id IS NOT NULL;
