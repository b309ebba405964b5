//! How runs ended, on the disk: a run that is done is not begun again when the agent is.

use crate::managed::document::RunKey;
use crate::managed::home::Home;
use crate::managed::plan::Spec;
use crate::managed::spool::Text;
use data_encoding::HEXLOWER;
use sealift_api::agent::JobStatus;
use sealift_api::agent::job_status::State;
use serde::{Deserialize, Serialize};
use std::io;

const FILE: &str = "outcomes.json";
/// What is kept in the place of what a run said at its end, where that must not be on the disk.
const SEALED: &str = "why is in this agent's log, which is sealed";

/// One run's end.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) key: RunKey,
    pub(crate) spec: Spec,
    pub(crate) status: JobStatus,
}

#[derive(Serialize, Deserialize)]
struct Row {
    job: String,
    run: String,
    spec: String,
    state: String,
    files: u64,
    bytes: u64,
    bytes_known: u64,
    bytes_transferred: u64,
    failed: u64,
    deleted: u64,
    message: String,
}

/// What was kept. A damaged file counts as none: what is done is then found done again.
pub(crate) fn load(home: &Home) -> io::Result<Vec<Outcome>> {
    let Some(text) = home.read(FILE)? else { return Ok(Vec::new()) };
    let rows: Vec<Row> = serde_json::from_slice(&text).unwrap_or_default();
    Ok(rows.iter().filter_map(outcome).collect())
}

/// Replaces what is kept, durably.
pub(crate) fn keep(home: &Home, outcomes: &[Outcome], text: Text) -> io::Result<()> {
    let mut rows: Vec<Row> = outcomes.iter().map(row).collect();
    if text == Text::Withheld {
        for row in rows.iter_mut().filter(|row| !row.message.is_empty()) {
            row.message = SEALED.to_owned();
        }
    }
    home.write(FILE, &serde_json::to_vec(&rows)?)
}

fn outcome(row: &Row) -> Option<Outcome> {
    let key = RunKey { job: unhex(&row.job)?, run: unhex(&row.run)? };
    let state = State::from_str_name(&row.state)?;
    let status = JobStatus {
        job_id: key.job.to_vec(),
        run_id: key.run.to_vec(),
        state: state.into(),
        files: row.files,
        bytes: row.bytes,
        bytes_known: row.bytes_known,
        bytes_transferred: row.bytes_transferred,
        failed: row.failed,
        message: row.message.clone(),
        addresses: Vec::new(),
        deleted: row.deleted,
    };
    Some(Outcome { key, spec: unhex(&row.spec)?, status })
}

fn row(outcome: &Outcome) -> Row {
    let Outcome { key, spec, status } = outcome;
    Row {
        job: HEXLOWER.encode(&key.job),
        run: HEXLOWER.encode(&key.run),
        spec: HEXLOWER.encode(spec),
        state: status.state().as_str_name().to_owned(),
        files: status.files,
        bytes: status.bytes,
        bytes_known: status.bytes_known,
        bytes_transferred: status.bytes_transferred,
        failed: status.failed,
        deleted: status.deleted,
        message: status.message.clone(),
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_back_and_damage_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path().to_owned())).unwrap();
        let key = RunKey { job: [1; 16], run: [2; 16] };
        let mut status = JobStatus {
            job_id: vec![1; 16],
            run_id: vec![2; 16],
            files: 3,
            message: "why".into(),
            ..JobStatus::default()
        };
        status.set_state(State::Partial);
        let ended = Outcome { key, spec: [4; 32], status: status.clone() };
        keep(&home, std::slice::from_ref(&ended), Text::Plain).unwrap();
        let kept = load(&home).unwrap();
        assert_eq!((kept[0].key, kept[0].spec, &kept[0].status), (key, [4; 32], &status));
        keep(&home, &[ended], Text::Withheld).unwrap();
        assert_eq!(load(&home).unwrap()[0].status.message, SEALED);
        home.write(FILE, b"[{").unwrap();
        assert!(load(&home).unwrap().is_empty());
    }
}
