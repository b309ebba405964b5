-- Triggers and indexes. Made with the tables, and again whenever the database is opened: nothing here changes what is kept.

-- The audit is only added to, by whatever program opens this file. (Who takes a trigger away is found out by the chain.)
CREATE TRIGGER IF NOT EXISTS audit_is_not_updated BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'an audit record is never changed'); END;
CREATE TRIGGER IF NOT EXISTS audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'an audit record is never removed'); END;
-- INSERT OR REPLACE would remove without asking the trigger above.
CREATE TRIGGER IF NOT EXISTS audit_is_added_to BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE number >= NEW.number)
BEGIN SELECT RAISE(ABORT, 'an audit record is never replaced'); END;

CREATE TRIGGER IF NOT EXISTS audit_checkpoints_are_not_updated BEFORE UPDATE ON audit_checkpoints
BEGIN SELECT RAISE(ABORT, 'an audit checkpoint is never changed'); END;
CREATE TRIGGER IF NOT EXISTS audit_checkpoints_are_not_deleted BEFORE DELETE ON audit_checkpoints
BEGIN SELECT RAISE(ABORT, 'an audit checkpoint is never removed'); END;
CREATE TRIGGER IF NOT EXISTS audit_checkpoints_are_added_to BEFORE INSERT ON audit_checkpoints
WHEN EXISTS (SELECT 1 FROM audit_checkpoints
    WHERE number = NEW.number AND (hash != NEW.hash OR signature != NEW.signature))
BEGIN SELECT RAISE(ABORT, 'an audit checkpoint is never replaced'); END;

-- What lists are filtered by. The number is part of each index, and so the newest are found first.
CREATE INDEX IF NOT EXISTS audit_by_actor ON audit (actor);
CREATE INDEX IF NOT EXISTS audit_by_subject ON audit (subject);
CREATE INDEX IF NOT EXISTS audit_by_action ON audit (action);
CREATE INDEX IF NOT EXISTS audit_by_time ON audit (time_ms);
CREATE INDEX IF NOT EXISTS events_by_agent ON events (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_by_job ON events (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_by_run ON events (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_by_severity ON events (severity) WHERE severity != 'info';
CREATE INDEX IF NOT EXISTS events_by_taken ON events (taken_ms);
CREATE INDEX IF NOT EXISTS agents_by_state ON agents (state, name);
CREATE INDEX IF NOT EXISTS group_members_by_agent ON group_members (agent_id);
-- Of the destinations of a source, which are not yet over.
CREATE INDEX IF NOT EXISTS run_agents_by_source ON run_agents (run_id, source_id, role, state);
