-- What version 2 adds: key-encryption keys (KEKs), and who takes ciphertext alone.

CREATE TABLE keks (
    id              BLOB PRIMARY KEY CHECK (length(id) = 16),
    name            TEXT NOT NULL,
    kek_version     INTEGER NOT NULL,       -- from 1 within the name; goes up with each rotation
    fingerprint     BLOB NOT NULL UNIQUE CHECK (length(fingerprint) = 32),  -- one record a key, whatever became of it
    public_pem      TEXT NOT NULL,
    bits            INTEGER NOT NULL,
    sealed_private  BLOB,                   -- PKCS#8; NULL: the daemon was never given it, or it was destroyed
    has_private     INTEGER NOT NULL,       -- whether it was given one
    state           TEXT NOT NULL CHECK (state IN ('active', 'decrypt_only', 'disabled', 'destroyed')),
    version         INTEGER NOT NULL DEFAULT 1,
    created_by      TEXT NOT NULL,
    created_ms      INTEGER NOT NULL,
    updated_ms      INTEGER NOT NULL,
    UNIQUE (name, kek_version)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX keks_that_are_active ON keks (name) WHERE state = 'active';

-- What data keys are wrapped to a KEK.
CREATE TABLE kek_wraps (
    kek_id          BLOB NOT NULL REFERENCES keks (id),
    kind            TEXT NOT NULL CHECK (kind IN ('job', 'log')),
    reference       BLOB NOT NULL CHECK (length(reference) = 16),   -- the job; the segment of logs
    run_id          BLOB,                   -- of a job: the run that wrapped to it last
    created_ms      INTEGER NOT NULL,
    PRIMARY KEY (kek_id, kind, reference)
) STRICT, WITHOUT ROWID;
CREATE INDEX kek_wraps_by_reference ON kek_wraps (kind, reference);

-- Agents and groups where no plaintext may be placed.
ALTER TABLE agents ADD COLUMN must_seal INTEGER NOT NULL DEFAULT 0;
CREATE TABLE groups_that_seal (
    group_name      TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
