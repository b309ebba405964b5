//! `sealift logs --key`: what agents have logged that the daemon cannot read, opened here. The key never leaves this machine.

use super::records::LogFilter;
use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::agents::AGENT;
use crate::operator::api::{Pages, encode, id_of, typed};
use crate::operator::output::note;
use crate::seal::{Passphrase, read_private};
use data_encoding::BASE64;
use prost::Message as _;
use sealift_api::logs::Record;
use sealift_api::rest::{Kek, LogRecord, Rewrapped, RewrappedPage, SealedLog, SealedSegment};
use sealift_envelope::{Envelope, EnvelopeError, KekVersion, OwnerId, PublicKek, RecordSealer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Data keys that are held; more are forgotten, and unwrapped again.
const SEALERS_MAX: usize = 4096;
/// Segments of which the daemon is asked in one request to wrap them anew: each takes it an operation with a private key and a sync.
const REWRAPPED_AT_ONCE: usize = 50;

/// Whose key opens them.
#[derive(Debug)]
pub(crate) struct Key {
    /// The private half.
    pub(crate) file: PathBuf,
    /// Where its passphrase comes from, if it is encrypted.
    pub(crate) passphrase: Passphrase,
}

/// Wraps what the daemon keeps sealed to this key to the active version of a KEK. The data keys are unwrapped here, and no
/// record moves.
pub(crate) async fn rewrap(api: &mut Api, key: &Key, to: &Kek) -> Result<Finish, RunError> {
    let private = read_private(&key.file, &key.passphrase)?;
    let public = PublicKek::from_pem(&to.public_pem).map_err(|error| RunError::Failed(error.to_string()))?;
    let (this, that) = (private.public().fingerprint(), public.fingerprint());
    let (mut done, mut failed) = (0_u64, 0_u64);
    let mut pages = Pages::of("logs/segments", &[]);
    while let Some(segments) = pages.next(api, usize::MAX).await? {
        for segment in &segments {
            let segment: SealedSegment = api.typed(segment)?;
            let bytes = BASE64.decode(segment.envelope.as_bytes());
            let Some(envelope) = bytes.ok().and_then(|bytes| Envelope::decode(&bytes).ok()) else {
                failed += 1;
                continue;
            };
            let is_of = |fingerprint| envelope.keks().iter().any(|info| info.fingerprint == fingerprint);
            if !is_of(this) || is_of(that) {
                continue;
            }
            let anew = envelope.open_for(OwnerId(segment.spool.into_bytes()), &private).ok();
            let anew =
                anew.and_then(|key| envelope.rewrap(&key, &[(&public, KekVersion(to.kek_version))]).ok());
            let Some(anew) = anew else {
                failed += 1;
                continue;
            };
            let body = Rewrapped { envelope: BASE64.encode(&anew.encode()) };
            // One that has become too old meanwhile is gone with its data key.
            let path = format!("logs/segments/{}/envelope", segment.id);
            done += u64::from(api.put_if_there(&path, &body).await?);
        }
    }
    Ok(rewrapped(to, done, failed))
}

/// Has the daemon wrap to the active version of a KEK what it keeps sealed to others of which it has the private half.
pub(crate) async fn rewrap_there(api: &mut Api, to: &Kek) -> Result<Finish, RunError> {
    let (mut done, mut failed, mut closed) = (0, 0, 0);
    let mut after: Option<String> = None;
    loop {
        let from = after.as_deref().map(|after| format!("&after={}", encode(after))).unwrap_or_default();
        let asked = format!("keks/{}/rewrap?limit={REWRAPPED_AT_ONCE}{from}", to.id);
        let answer = api.post::<()>(&asked, None).await?;
        let page: RewrappedPage = api.typed(&answer)?;
        done += page.rewrapped;
        failed += page.failed;
        closed += page.closed;
        match page.next {
            // They come in the order of their ids: it has an end.
            Some(next) if after.as_ref().is_none_or(|after| *after < next) => after = Some(next),
            Some(_) => return Err(RunError::Failed("the daemon's list of segments has no end".into())),
            None => break,
        }
    }
    let finish = rewrapped(to, done, failed);
    if closed == 0 {
        return Ok(finish);
    }
    note(&format!(
        "{closed} are wrapped to versions whose private half the daemon does not have, or may not use: give it with --key, or enable \
        them."
    ));
    Ok(Finish::Partial)
}

fn rewrapped(to: &Kek, done: u64, failed: u64) -> Finish {
    note(&format!(
        "The data keys of {done} segments of logs are wrapped to {} (version {}).",
        to.name, to.kek_version
    ));
    if failed > 0 {
        note(&format!("{failed} could not be unwrapped: they were changed."));
        return Finish::Partial;
    }
    Finish::Complete
}

/// Records, and how many of which reason could not be opened.
pub(super) struct Opened {
    pub(super) records: Vec<Value>,
    pub(super) closed: BTreeMap<String, u64>,
    pub(super) more: bool,
}

/// The newest that fit the filter, by the agents' clocks: so many at most.
pub(super) async fn open(
    api: &mut Api,
    key: &Key,
    filter: LogFilter,
    limit: Option<usize>,
) -> Result<Opened, RunError> {
    let private = read_private(&key.file, &key.passphrase)?;
    let mut query = Vec::new();
    if let Some(agent) = &filter.events.agent {
        query.push(("agent", id_of(&api.find(AGENT, agent).await?)?.to_string()));
    }
    let (job, run) = filter.events.ids(api).await?;
    let text = filter.text.as_ref().map(|text| text.to_lowercase());
    let fits = |record: &LogRecord| {
        filter.events.severity.is_none_or(|severity| severity == record.severity)
            && job.is_none_or(|job| record.job_id == Some(job))
            && run.is_none_or(|run| record.run_id == Some(run))
            && filter.from_ms.is_none_or(|from| record.time_ms >= from)
            && filter.until_ms.is_none_or(|until| record.time_ms < until)
            && text.as_ref().is_none_or(|text| has(record, text))
    };
    let mut newest = Newest { limit: limit.unwrap_or(usize::MAX), records: Vec::new(), more: false };
    let mut sealers: HashMap<String, Result<RecordSealer, EnvelopeError>> = HashMap::new();
    let mut closed = BTreeMap::<String, u64>::new();
    let from = api.daemon().to_owned();
    // One after the other, as they come: there may be far more than this machine has room for.
    api.list("logs/sealed", &query, None, |one| {
        let one: SealedLog = typed(&from, &one)?;
        if sealers.len() >= SEALERS_MAX && !sealers.contains_key(&one.envelope) {
            sealers.clear();
        }
        let sealer = sealers.entry(one.envelope.clone()).or_insert_with(|| {
            let bytes = BASE64.decode(one.envelope.as_bytes()).map_err(|_| EnvelopeError::NotAnEnvelope)?;
            let spool = one.spool.into_bytes();
            let key = Envelope::decode(&bytes)?.open_for(OwnerId(spool), &private)?;
            Ok(RecordSealer::new(&key, &spool))
        });
        let record = match sealer {
            Ok(sealer) => record_of(sealer, &one),
            Err(error) => Err(error.to_string()),
        };
        match record {
            Ok(record) if fits(&record) => newest.add(record),
            Ok(_) => {}
            Err(why) => *closed.entry(why).or_default() += 1,
        }
        Ok(())
    })
    .await?;
    newest.sort();
    let records = newest.records.iter().map(|record| json!(record)).collect();
    Ok(Opened { records, closed, more: newest.more })
}

/// The newest records, as many as are wanted: never more than twice that are kept.
struct Newest {
    limit: usize,
    records: Vec<LogRecord>,
    /// Whether there were others.
    more: bool,
}

impl Newest {
    fn add(&mut self, record: LogRecord) {
        self.records.push(record);
        if self.records.len() > self.limit.saturating_mul(2) {
            self.sort();
        }
    }

    /// The newest first, and no older ones.
    fn sort(&mut self) {
        self.records.sort_by_key(|record| std::cmp::Reverse((record.time_ms, record.number)));
        self.more |= self.records.len() > self.limit;
        self.records.truncate(self.limit);
    }
}

fn has(record: &LogRecord, text: &str) -> bool {
    let within = |part: &str| part.to_lowercase().contains(text);
    let in_fields = record.fields.iter().any(|field| within(&field.name) || within(&field.value));
    within(&record.message) || within(&record.target) || in_fields
}

fn record_of(sealer: &RecordSealer, sealed: &SealedLog) -> Result<LogRecord, String> {
    let bytes = BASE64.decode(sealed.record.as_bytes()).map_err(|error| error.to_string())?;
    let bytes = sealer.open(sealed.spool_number, &bytes).map_err(|error| error.to_string())?;
    let record = Record::decode(&bytes[..]).map_err(|error| error.to_string())?;
    Ok(LogRecord::opened(sealed, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_api::rest::Severity;
    use uuid::Uuid;

    #[test]
    fn the_newest_are_kept_and_no_more_than_twice_as_many() {
        let mut newest = Newest { limit: 3, records: Vec::new(), more: false };
        for number in [5, 1, 9, 2, 8, 3, 7, 4, 6_u64] {
            newest.add(LogRecord {
                number,
                time_ms: 0,
                received_ms: 0,
                severity: Severity::Info,
                agent_id: Uuid::nil(),
                job_id: None,
                run_id: None,
                target: String::new(),
                message: String::new(),
                fields: Vec::new(),
            });
            assert!(newest.records.len() <= 6);
        }
        newest.sort();
        assert_eq!(newest.records.iter().map(|record| record.number).collect::<Vec<_>>(), [9, 8, 7]);
        assert!(newest.more);
    }
}
