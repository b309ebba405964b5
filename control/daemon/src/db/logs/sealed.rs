//! Records that are kept as they came, sealed: nothing here opens them.

use super::keep::{known, number_kept};
use super::{LogStore, blob};
use crate::db::{DbError, lock};
use data_encoding::BASE64;
use rusqlite::{Connection, OptionalExtension as _, Row, TransactionBehavior, params};
use sealift_api::rest::{Page, SealedLog, SealedSegment};
use sealift_envelope::{Envelope, Fingerprint};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Names a segment of an agent's logs: the beginning of what commits to its data key.
#[must_use]
pub fn segment_id(envelope: &Envelope) -> Uuid {
    let commitment = envelope.commitment().0;
    Uuid::from_bytes(*commitment.first_chunk().expect("16 of 32 bytes"))
}

impl LogStore {
    /// Keeps sealed records, as [`LogStore::take`] does others; tells also whether nothing of the segment was here.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the number makes no sense.
    pub fn take_sealed(
        &self,
        agent: Uuid,
        spool: [u8; 16],
        first: u64,
        envelope: &Envelope,
        records: &[Vec<u8>],
    ) -> Result<(u64, bool), DbError> {
        let now = (self.clock)();
        let mut writer = lock(&self.shared.writer);
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (known, after) = known(&tx, agent, spool, first, records.len())?;
        let segment = blob(segment_id(envelope));
        // There is none without records: it goes when the last of them does.
        let is_new = known < after && {
            let sql = "INSERT INTO sealed_segments (id, agent_id, spool, envelope) VALUES (?1, ?2, ?3, ?4) \
                ON CONFLICT DO NOTHING";
            tx.prepare_cached(sql)?.execute(params![segment, blob(agent), spool, envelope.encode()])? > 0
        };
        let sql = "INSERT INTO sealed_logs (received_ms, agent_id, segment, spool_number, record) \
            VALUES (?1, ?2, ?3, ?4, ?5)";
        for (record, number) in records.iter().zip(first..).filter(|(_, number)| *number > known) {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            tx.prepare_cached(sql)?.execute(params![now, blob(agent), segment, number, record])?;
        }
        number_kept(&tx, agent, spool, after, now)?;
        tx.commit()?;
        Ok((after, is_new))
    }

    /// Sealed records, of one agent or all, the newest first, after the one named by the cursor.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the cursor is none.
    pub fn list_sealed(
        &self,
        agent: Option<Uuid>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<SealedLog>, DbError> {
        let bad = |_| DbError::Invalid("'after' is not what an earlier page gave as 'next'".into());
        let below = after.map_or(Ok(i64::MAX), str::parse).map_err(bad)?;
        self.read(|db| {
            let whose = if agent.is_some() { "sealed_logs.agent_id = ?2" } else { "?2 IS NULL" };
            let sql = format!(
                "SELECT number, received_ms, sealed_logs.agent_id, spool, spool_number, envelope, record FROM sealed_logs \
                    JOIN sealed_segments ON id = segment WHERE number < ?1 AND {whose} ORDER BY number DESC LIMIT ?3"
            );
            let limit_sql = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map(params![below, agent.map(blob), limit_sql], from_row)?;
            Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |log| log.number.to_string()))
        })
    }

    /// Segments in the order of their ids, after the one named by the cursor.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the cursor is none.
    pub fn segments(&self, after: Option<&str>, limit: usize) -> Result<Page<SealedSegment>, DbError> {
        let bad = |_| DbError::Invalid("'after' is not what an earlier page gave as 'next'".into());
        let above = after.map_or(Ok(Uuid::nil()), str::parse).map_err(bad)?;
        self.read(|db| {
            let sql = "SELECT id, agent_id, spool, envelope FROM sealed_segments WHERE id > ?1 ORDER BY id LIMIT ?2";
            let limit_sql = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map(params![blob(above), limit_sql], |row| {
                Ok(SealedSegment {
                    id: Uuid::from_bytes(row.get(0)?),
                    agent_id: Uuid::from_bytes(row.get(1)?),
                    spool: Uuid::from_bytes(row.get(2)?),
                    envelope: BASE64.encode(&row.get::<_, Vec<u8>>(3)?),
                })
            })?;
            Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |segment| segment.id.to_string()))
        })
    }

    /// The envelope of a segment, if anything of it is kept.
    ///
    /// # Errors
    /// Of the database; [`DbError::Damaged`] if it is none.
    pub fn envelope(&self, segment: Uuid) -> Result<Option<Envelope>, DbError> {
        let sql = "SELECT envelope FROM sealed_segments WHERE id = ?1";
        let read = |db: &Connection| -> Result<Option<Vec<u8>>, DbError> {
            Ok(db.prepare_cached(sql)?.query_row([blob(segment)], |row| row.get(0)).optional()?)
        };
        self.read(read)?.as_deref().map(decoded).transpose()
    }

    /// Segments in the order of their ids, after that one, with the KEKs that open each: so many at most.
    ///
    /// # Errors
    /// Of the database.
    pub fn wrapped_after(&self, after: Uuid, limit: usize) -> Result<Vec<(Uuid, Vec<Fingerprint>)>, DbError> {
        let sql = "SELECT id, envelope FROM sealed_segments WHERE id > ?1 ORDER BY id LIMIT ?2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows: Vec<(Uuid, Vec<u8>)> = self.read(|db| {
            let mut statement = db.prepare_cached(sql)?;
            let row = |row: &Row<'_>| Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?));
            Ok(statement.query_map(params![blob(after), limit], row)?.collect::<Result<_, _>>()?)
        })?;
        let fingerprints = |envelope: Envelope| envelope.keks().iter().map(|info| info.fingerprint).collect();
        // What is none any more opens with no key.
        let keks = |bytes: &[u8]| decoded(bytes).map(fingerprints).unwrap_or_default();
        Ok(rows.iter().map(|(id, bytes)| (*id, keks(bytes))).collect())
    }

    /// Puts another envelope of the same data key in a segment's place: the records stay as they are.
    ///
    /// # Errors
    /// [`DbError::NotFound`]; [`DbError::Invalid`] if it is of another data key or spool.
    pub fn rewrap(&self, segment: Uuid, envelope: &Envelope) -> Result<(), DbError> {
        let mut writer = lock(&self.shared.writer);
        let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "SELECT envelope FROM sealed_segments WHERE id = ?1";
        let before: Option<Vec<u8>> =
            tx.prepare_cached(sql)?.query_row([blob(segment)], |row| row.get(0)).optional()?;
        let before = decoded(&before.ok_or(DbError::NotFound("sealed segment"))?)?;
        // Whether it holds that key can only be told by who opens it: what it says of itself has to be right.
        if (before.commitment(), before.owner()) != (envelope.commitment(), envelope.owner()) {
            return Err(DbError::Invalid("the envelope is of another data key, or of another spool".into()));
        }
        let sql = "UPDATE sealed_segments SET envelope = ?2 WHERE id = ?1";
        tx.prepare_cached(sql)?.execute(params![blob(segment), envelope.encode()])?;
        Ok(tx.commit()?)
    }

    /// Of these segments, those of which nothing is here.
    ///
    /// # Errors
    /// Of the database.
    pub fn missing(&self, mut segments: Vec<Uuid>) -> Result<Vec<Uuid>, DbError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT 1 FROM sealed_segments WHERE id = ?1")?;
            let mut failed = None;
            segments.retain(|segment| match statement.exists([blob(*segment)]) {
                Ok(is_there) => !is_there,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            });
            failed.map_or(Ok(segments), |error| Err(error.into()))
        })
    }
}

/// Removes the oldest that came before this time: so many at most. How many those were, and of which segments nothing is left:
/// these go with them.
pub(super) fn reduce(db: &Connection, before: i64, count: i64) -> Result<(usize, Vec<Uuid>), DbError> {
    let sql = "DELETE FROM sealed_logs WHERE number IN (SELECT number FROM sealed_logs ORDER BY number LIMIT ?1) \
        AND received_ms < ?2 RETURNING segment";
    let mut statement = db.prepare_cached(sql)?;
    let removed = statement.query_map((count, before), |row| row.get(0))?;
    let removed: Vec<[u8; 16]> = removed.collect::<Result<_, _>>()?;
    let sql = "DELETE FROM sealed_segments WHERE id = ?1 \
        AND NOT EXISTS (SELECT 1 FROM sealed_logs WHERE segment = ?1)";
    let mut statement = db.prepare_cached(sql)?;
    let mut forgotten = Vec::new();
    for segment in removed.iter().collect::<BTreeSet<_>>() {
        if statement.execute([segment])? > 0 {
            forgotten.push(Uuid::from_bytes(*segment));
        }
    }
    Ok((removed.len(), forgotten))
}

fn decoded(bytes: &[u8]) -> Result<Envelope, DbError> {
    Envelope::decode(bytes).map_err(|error| DbError::Damaged(error.to_string()))
}

fn from_row(row: &Row<'_>) -> Result<SealedLog, rusqlite::Error> {
    Ok(SealedLog {
        number: row.get::<_, i64>(0)?.unsigned_abs(),
        received_ms: row.get(1)?,
        agent_id: Uuid::from_bytes(row.get(2)?),
        spool: Uuid::from_bytes(row.get(3)?),
        spool_number: row.get::<_, i64>(4)?.unsigned_abs(),
        envelope: BASE64.encode(&row.get::<_, Vec<u8>>(5)?),
        record: BASE64.encode(&row.get::<_, Vec<u8>>(6)?),
    })
}
