//! A log record, within limits and without secrets.
//!
//! Secrets are not given to the log in the first place. What looks like one nevertheless (a ticket, a token) is masked
//! here, the one place that all records pass.

use crate::managed::document::RunKey;
use crate::managed::spool::truncate;
use sealift_api::logs::{Field, Record, record::Severity};
use sealift_api::rest::limits::{
    LOG_FIELD_NAME_BYTES_MAX, LOG_FIELD_VALUE_BYTES_MAX, LOG_FIELDS_MAX, LOG_MESSAGE_BYTES_MAX,
    LOG_TARGET_BYTES_MAX,
};
use std::fmt::Display;
use std::time::{SystemTime, UNIX_EPOCH};

/// How secrets of this program begin: tickets, enrolment tokens, tokens of the API.
const SECRET_PREFIXES: [&str; 3] = ["sealift1", "slenrol1", "slapi1"];
/// What so begins and goes on for less is a word.
const SECRET_CHARS_MIN: usize = 8;

/// A record, of now.
pub(crate) fn entry(severity: Severity, target: &str, message: impl Into<String>) -> Record {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut record = Record {
        unix_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        severity: severity.into(),
        target: target.into(),
        message: masked(message.into()),
        ..Record::default()
    };
    truncate(&mut record.target, LOG_TARGET_BYTES_MAX);
    truncate(&mut record.message, LOG_MESSAGE_BYTES_MAX);
    record
}

/// The same with details.
pub(crate) trait Details: Sized {
    /// About a run.
    fn of(self, key: RunKey) -> Self;
    /// With a field; one too many is left out.
    fn with(self, name: &str, value: impl Display) -> Self;
}

impl Details for Record {
    fn of(mut self, key: RunKey) -> Self {
        (self.job_id, self.run_id) = (key.job.to_vec(), key.run.to_vec());
        self
    }

    fn with(mut self, name: &str, value: impl Display) -> Self {
        if self.fields.len() < LOG_FIELDS_MAX {
            let mut field = Field { name: name.into(), value: masked(value.to_string()) };
            truncate(&mut field.name, LOG_FIELD_NAME_BYTES_MAX);
            truncate(&mut field.value, LOG_FIELD_VALUE_BYTES_MAX);
            self.fields.push(field);
        }
        self
    }
}

/// Stands in the place of records that were dropped from the spool.
pub(super) fn dropped_record(count: u64) -> Record {
    let text = format!("{count} log records before this one were dropped: the spool was full");
    entry(Severity::Warning, "logs", text).with("dropped", count)
}

/// Says that there may have been more.
pub(super) fn damaged_record() -> Record {
    entry(Severity::Warning, "logs", "the spool was torn or damaged: some log records may be missing")
}

/// Says that records did not reach the spool.
pub(super) fn lost_record(count: u64) -> Record {
    let text =
        format!("{count} log records were lost: they came faster than the disk took them, or it failed");
    entry(Severity::Warning, "logs", text).with("dropped", count)
}

fn masked(mut text: String) -> String {
    for prefix in SECRET_PREFIXES {
        let mut from = 0;
        while let Some(found) = text[from..].find(prefix) {
            let begin = from + found + prefix.len();
            let length =
                text[begin..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len() - begin);
            if length >= SECRET_CHARS_MIN {
                text.replace_range(begin..begin + length, "[secret]");
            }
            from = begin;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_masked_wherever_it_stands() {
        let secret = "abcdefghijklmnop234567";
        let text = format!("sealift1{secret}, x=slenrol1{secret}\nslapi1{secret}sealift1{secret}");
        let record = entry(Severity::Info, "agent", text.clone()).with("ticket", &text);
        let all = format!("{record:?}");
        assert!(!all.contains(secret) && all.contains("sealift1[secret], x=slenrol1[secret]"), "{all}");
        let harmless = "sealift1 is a prefix, and sealift1ab no secret; sealift1";
        assert_eq!(entry(Severity::Info, "agent", harmless).message, harmless);
    }

    #[test]
    fn a_record_is_never_larger_than_a_batch_may_be() {
        let long = "ä".repeat(100_000);
        let mut record = entry(Severity::Info, &long, long.clone());
        for _ in 0..100 {
            record = record.with(&long, &long);
        }
        let bytes = prost::Message::encoded_len(&record);
        assert!(bytes <= 16 << 10, "{bytes}");
    }
}
