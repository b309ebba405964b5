//! What an agent says of a record, within limits: cut, never believed beyond itself.

use crate::db::logs::NewRecord;
use sealift_api::logs::{Record, record};
use sealift_api::rest::{Severity, fields_of, within_limits};
use std::collections::HashMap;
use uuid::Uuid;

/// A record as it is kept. `runs` are the agent's own, with their jobs: whatever else it names is left out, and the job is
/// that of the run (an agent may know it by another id: see [`crate::documents::assignment_id`]).
pub(super) fn judged(record: Record, runs: &HashMap<[u8; 16], Uuid>) -> NewRecord {
    let severity = match record.severity() {
        record::Severity::Unspecified | record::Severity::Info => Severity::Info,
        record::Severity::Warning => Severity::Warning,
        record::Severity::Error => Severity::Error,
        record::Severity::Security => Severity::Security,
    };
    let run = <[u8; 16]>::try_from(record.run_id.as_slice()).ok().filter(|run| runs.contains_key(run));
    let record = within_limits(record);
    NewRecord {
        time_ms: i64::try_from(record.unix_millis).ok().filter(|&time| time > 0),
        severity,
        job_id: run.and_then(|run| runs.get(&run).copied()),
        run_id: run.map(Uuid::from_bytes),
        target: record.target,
        message: record.message,
        fields: fields_of(record.fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_api::logs::Field;
    use sealift_api::rest::limits::{LOG_FIELD_VALUE_BYTES_MAX, LOG_FIELDS_MAX};

    #[test]
    fn what_is_too_much_is_cut_and_foreign_runs_are_left_out() {
        let field = |name: String| Field { name, value: "ü".repeat(9999) };
        let record = Record {
            unix_millis: u64::MAX,
            severity: 99,
            target: "t".repeat(9999),
            message: "€".repeat(9999),
            fields: (0..99).map(|at| field((at / 2).to_string())).collect(),
            job_id: vec![1; 16],
            run_id: vec![2; 16],
        };
        let kept = judged(record.clone(), &HashMap::new());
        assert_eq!((kept.run_id, kept.job_id, kept.time_ms), (None, None, None));
        assert_eq!(kept.severity, Severity::Info);
        assert_eq!((kept.target.len(), kept.message.len()), (64, 4095));
        assert_eq!(kept.fields.len(), LOG_FIELDS_MAX / 2, "each name once");
        assert!(kept.fields.iter().all(|field| field.value.len() == LOG_FIELD_VALUE_BYTES_MAX));
        let own = HashMap::from([([2; 16], Uuid::from_u128(7))]);
        let kept = judged(record, &own);
        assert_eq!((kept.run_id, kept.job_id), (Some(Uuid::from_bytes([2; 16])), Some(Uuid::from_u128(7))));
    }
}
