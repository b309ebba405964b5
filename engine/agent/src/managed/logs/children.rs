//! What a child says, as log records; handshakes that were refused are counted, a flood of complaints is cut.

use super::record::{Details as _, entry};
use super::writer::Logs;
use crate::managed::child::Exit;
use crate::managed::child::output::Told;
use crate::managed::document::RunKey;
use sealift_api::logs::{Record, record::Severity};
use std::time::{Duration, Instant};

/// Records that one child may cause by what it says, beside its end.
const RECORDS_MAX: u32 = 10_000;
/// Between records of refused handshakes: those in between are counted.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);
/// Lines of what a child says on standard error at its end.
const STDERR_LINES_MAX: usize = 50;

/// Of one child.
#[derive(Debug)]
pub(crate) struct ChildLog {
    target: &'static str,
    records: u32,
    left_out: u64,
    refused: u64,
    refused_told: Option<Instant>,
    last_refused: String,
}

impl ChildLog {
    /// `target` says what the child is: `send` or `receive`.
    pub(crate) fn new(target: &'static str) -> Self {
        Self { target, records: 0, left_out: 0, refused: 0, refused_told: None, last_refused: String::new() }
    }

    /// It said something.
    pub(crate) fn told(&mut self, logs: &Logs, key: RunKey, told: &Told, now: Instant) {
        let line = |severity, text: &str| entry(severity, self.target, text);
        let record = match told {
            Told::Progress { .. } => None,
            Told::Listening(addresses) => {
                Some(line(Severity::Info, "listens").with("addresses", addresses.join(", ")))
            }
            Told::Scanned { files, bytes, problems } => {
                let record = line(Severity::Info, "has looked at everything");
                Some(record.with("files", files).with("bytes", bytes).with("problems", problems))
            }
            Told::Done { files, bytes, bytes_transferred, failed, deleted } => {
                let record = line(Severity::Info, "is done").with("files", files).with("bytes", bytes);
                let record = record.with("bytes_transferred", bytes_transferred);
                Some(record.with("failed", failed).with("deleted", deleted))
            }
            Told::Peer(text) => Some(line(Severity::Info, text)),
            Told::NoRoom(text) => Some(line(Severity::Warning, text).with("waits_for", "room")),
            Told::Room => Some(line(Severity::Info, "there is room again")),
            Told::Problem(text) | Told::Warning(text) => Some(line(Severity::Warning, text)),
            Told::Error(text) => Some(line(Severity::Error, text)),
            Told::Refused(text) => {
                self.refused += 1;
                self.last_refused.clone_from(text);
                self.refused(now, false)
            }
        };
        let Some(record) = record else { return };
        // Security is never left out: it is few, being counted.
        if self.records >= RECORDS_MAX && record.severity() != Severity::Security {
            self.left_out += 1;
            return;
        }
        self.records += 1;
        logs.put(record.of(key));
    }

    /// What is to be said of refused handshakes, the last word or not.
    fn refused(&mut self, now: Instant, last: bool) -> Option<Record> {
        let is_due = self.refused_told.is_none_or(|told| now >= told + REFUSED_INTERVAL);
        if self.refused == 0 || !(is_due || last) {
            return None;
        }
        self.refused_told = Some(now);
        let count = std::mem::take(&mut self.refused);
        Some(entry(Severity::Security, self.target, self.last_refused.as_str()).with("count", count))
    }

    /// It ended.
    pub(crate) fn ended(&mut self, logs: &Logs, key: RunKey, exit: &Exit, now: Instant) {
        if let Some(record) = self.refused(now, true) {
            logs.put(record.of(key));
        }
        if self.left_out > 0 {
            let text = format!("{} further lines of this child are left out", self.left_out);
            logs.put(entry(Severity::Warning, self.target, text).with("left_out", self.left_out).of(key));
        }
        for line in exit.stderr.lines().rev().take(STDERR_LINES_MAX).collect::<Vec<_>>().into_iter().rev() {
            logs.put(entry(Severity::Warning, self.target, line).with("stream", "stderr").of(key));
        }
        let severity = if exit.code == Some(0) { Severity::Info } else { Severity::Warning };
        let mut record = entry(severity, self.target, "has ended").of(key);
        if let Some(code) = exit.code {
            record = record.with("exit_code", code);
        }
        if let Some(signal) = exit.signal {
            record = record.with("signal", signal);
        }
        logs.put(record);
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::{SPOOL_BYTES_DEFAULT, Spool};
    use super::super::writer::Start;
    use super::*;

    const KEY: RunKey = RunKey { job: [1; 16], run: [2; 16] };

    async fn logged(act: impl FnOnce(&Logs)) -> Vec<Record> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs");
        let spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
        let logs = Logs::start(spool, Start::AtOnce, |_| {}).unwrap();
        act(&logs);
        logs.close().await;
        let mut spool = Spool::open(&path, SPOOL_BYTES_DEFAULT, None).unwrap();
        let mut records = Vec::new();
        while let Some(batch) = spool.read(records.len() as u64, 1000, 1 << 20).unwrap() {
            records.extend(batch.records());
        }
        records
    }

    fn field<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
        record.fields.iter().find(|field| field.name == name).map(|field| field.value.as_str())
    }

    #[tokio::test]
    async fn refused_handshakes_are_counted_and_none_is_forgotten() {
        let begun = Instant::now();
        let records = logged(|logs| {
            let mut child = ChildLog::new("send");
            for second in 0..100 {
                let told = Told::Refused(format!("10.0.0.{second} was turned away"));
                child.told(logs, KEY, &told, begun + Duration::from_secs(second));
            }
            child.ended(logs, KEY, &Exit { code: Some(0), ..Exit::default() }, begun);
        })
        .await;
        let refused: Vec<_> =
            records.iter().filter(|record| record.severity() == Severity::Security).collect();
        let counts: Vec<u64> =
            refused.iter().map(|record| field(record, "count").unwrap().parse().unwrap()).collect();
        assert_eq!(counts, [1, 60, 39]);
        assert!(refused.iter().all(|record| record.run_id == KEY.run && record.target == "send"));
    }

    #[tokio::test]
    async fn a_flood_of_complaints_is_cut_and_the_end_is_told() {
        let records = logged(|logs| {
            let mut child = ChildLog::new("receive");
            // As after many.
            child.records = RECORDS_MAX - 10;
            for at in 0..15 {
                child.told(logs, KEY, &Told::Problem(at.to_string()), Instant::now());
            }
            let exit = Exit { code: Some(3), signal: None, stderr: "one\ntwo".into() };
            child.ended(logs, KEY, &exit, Instant::now());
        })
        .await;
        assert_eq!(records.len(), 10 + 4);
        let texts: Vec<_> = records.iter().map(|record| record.message.as_str()).collect();
        let end = &texts[texts.len() - 4..];
        assert_eq!(end, ["5 further lines of this child are left out", "one", "two", "has ended"]);
        assert_eq!(field(records.last().unwrap(), "exit_code"), Some("3"));
    }
}
