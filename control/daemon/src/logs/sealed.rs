//! Sealed batches: opened where the daemon has a private half, kept as they are where it has not.
//!
//! Each segment's data key is unwrapped once, which is a use of the private half and so a record of the audit; what does not
//! unwrap is remembered, too. Both are told in records that the agent pays for: its account bounds how often.

#[cfg(test)]
mod tests;

use super::keys::DataKeys;
use crate::db::logs::{LogStore, segment_id};
use crate::db::{Actor, Db, DbError, keks};
use rusqlite::Connection;
use sealift_api::logs::{Field, Record, record};
use sealift_api::rest::{Agent, Kek, KekMode, KekState};
use sealift_envelope::{DataKey, Envelope, OwnerId, RecordSealer};
use uuid::Uuid;

/// What a segment whose key has to be unwrapped costs its agent, in records: an operation with a private key, and a record of
/// the audit.
pub(super) const UNWRAP_RECORDS: usize = 100;
/// What one costs that is noted as kept sealed: a transaction of the control database.
pub(super) const NOTE_RECORDS: usize = 20;

/// A batch of sealed records, as it came.
pub(super) struct SealedBatch<'b> {
    pub(super) agent: &'b Agent,
    pub(super) spool: [u8; 16],
    pub(super) first: u64,
    pub(super) envelope: &'b Envelope,
    pub(super) records: &'b [Vec<u8>],
}

/// What became of a batch.
pub(super) enum Taken {
    /// It was opened: this is in it.
    Records(Vec<Record>),
    /// It was kept, up to this number.
    Sealed(u64),
}

/// Opens the records of a batch, if the daemon can; keeps them as they are, if it cannot. What it costs beside its records is
/// added to `price`, whatever becomes of it.
pub(super) fn take(
    keys: &DataKeys,
    db: &Db,
    store: &LogStore,
    batch: &SealedBatch<'_>,
    price: &mut usize,
) -> Result<Taken, DbError> {
    let SealedBatch { agent, spool, first, envelope, records } = *batch;
    if let Some(key) = key(keys, db, batch, price)? {
        let sealer = RecordSealer::new(&key, &spool);
        let opened = records.iter().zip(first..).map(|(record, number)| opened(&sealer, number, record));
        return Ok(Taken::Records(opened.collect()));
    }
    let segment = segment_id(envelope);
    let last = first.saturating_add(records.len() as u64) - 1;
    // Of a segment that was wrapped anew since it was begun, that envelope stays.
    let keks = |db: &Connection| known(db, store.envelope(segment)?.as_ref().unwrap_or(envelope));
    // Of what is there already nothing is kept again, nor noted.
    if store.kept(agent.id, spool)? < last {
        let is_noted = db.read(|db| keks::is_segment_noted(db, segment, &keks(db)?))?;
        if !is_noted {
            *price += NOTE_RECORDS;
            // Asked for again here, since nobody wraps anew meanwhile.
            db.write(&Actor::system(), |write| keks::segment_kept(write, segment, &keks(write.tx())?))?;
        }
    }
    let (number, is_new) = store.take_sealed(agent.id, spool, first, envelope, records)?;
    if is_new {
        // It may have been forgotten since it was noted, and its note with it: who forgets is waited for here.
        db.write(&Actor::system(), |write| keks::segment_kept(write, segment, &keks(write.tx())?))?;
    }
    Ok(Taken::Sealed(number))
}

fn key(
    keys: &DataKeys,
    db: &Db,
    batch: &SealedBatch<'_>,
    price: &mut usize,
) -> Result<Option<DataKey>, DbError> {
    let SealedBatch { agent, spool, envelope, .. } = *batch;
    let may_open = |kek: Uuid| db.read(|db| keks::may_open(db, kek));
    if let Some((kek, key)) = keys.held(agent.id, &envelope.commitment()) {
        if may_open(kek)? {
            return Ok(Some(key));
        }
        keys.drop_of(kek);
    }
    // If none is: who has one elsewhere can open what is kept.
    let Some(kek) = db.read(|db| known(db, envelope))?.into_iter().find(is_usable) else { return Ok(None) };
    if keys.has_failed(agent.id, kek.id, envelope) {
        return Ok(None);
    }
    *price += UNWRAP_RECORDS;
    let why = format!("the logs of the agent {}", agent.name);
    let private = match db.write(&Actor::system(), |write| keks::private(write, kek.id, &why)) {
        // Disabled, or destroyed, a moment ago.
        Err(DbError::Refused(_)) => return Ok(None),
        private => private?,
    };
    // The transaction is over: others write while this is computed.
    let Ok(key) = envelope.open_for(OwnerId(spool), &private.open(db.master())?) else {
        keys.failed(agent.id, kek.id, envelope);
        tracing::warn!(
            agent = agent.name.as_str(),
            "a data key of logs cannot be unwrapped: they are kept sealed"
        );
        return Ok(None);
    };
    keys.hold(agent.id, kek.id, envelope.commitment(), &key);
    // Who disables the KEK drops what is held after it: what was held after that is dropped here.
    if !may_open(kek.id)? {
        keys.drop_of(kek.id);
        return Ok(None);
    }
    Ok(Some(key))
}

/// Whether the daemon has its private half, and may use it.
pub(super) fn is_usable(kek: &Kek) -> bool {
    kek.mode == KekMode::Server && matches!(kek.state, KekState::Active | KekState::DecryptOnly)
}

/// The KEKs of an envelope that are known here.
pub(super) fn known(db: &rusqlite::Connection, envelope: &Envelope) -> Result<Vec<Kek>, DbError> {
    let keks = envelope.keks();
    let known = keks.iter().filter_map(|info| keks::by_fingerprint(db, &info.fingerprint).transpose());
    known.collect()
}

/// A record; or, where one does not open, a record of that.
fn opened(sealer: &RecordSealer, number: u64, sealed: &[u8]) -> Record {
    let record = sealer.open(number, sealed).ok();
    let record = record.and_then(|record| <Record as prost::Message>::decode(&record[..]).ok());
    record.unwrap_or_else(|| Record {
        severity: record::Severity::Security.into(),
        target: "logs".to_owned(),
        message: "a sealed log record cannot be opened: it was changed, or is not of this agent's spool"
            .to_owned(),
        fields: vec![Field { name: "number".to_owned(), value: number.to_string() }],
        ..Record::default()
    })
}
