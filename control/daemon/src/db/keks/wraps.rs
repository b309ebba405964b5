//! What is wrapped to KEKs: noted before it can be, forgotten when nothing is any more.

use super::{active_of, by_fingerprint};
use crate::db::{Actor, Db, DbError, Write};
use rusqlite::{Connection, params};
use sealift_api::rest::{Job, Kek, Name};
use sealift_envelope::Fingerprint;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Notes what a run of a job will wrap to.
///
/// # Errors
/// [`DbError::Invalid`] if the job names a KEK that is not active.
pub(in crate::db) fn run_started(w: &Write<'_>, job: &Job, run: Uuid) -> Result<(), DbError> {
    for kek in active_of(w.tx(), &job.spec.seal_to)? {
        note(w, &kek, job.id, run)?;
    }
    Ok(())
}

/// A run of a job is done everywhere: every replica has a data key that was wrapped by it. What earlier ones wrapped to, and
/// this one does not, opens nothing any more.
pub(in crate::db) fn run_done(w: &Write<'_>, job: Uuid, run: Uuid) -> Result<(), DbError> {
    // A run of a job that is not sealed leaves plaintext, and what was sealed before is gone with it.
    let sql = "DELETE FROM kek_wraps WHERE kind = 'job' AND reference = ?1 AND run_id IS NOT ?2";
    w.tx().prepare_cached(sql)?.execute(params![job.into_bytes(), run.into_bytes()])?;
    Ok(())
}

/// Nobody asks for the replicas of a deleted job.
pub(in crate::db) fn job_deleted(w: &Write<'_>, job: Uuid) -> Result<(), DbError> {
    let sql = "DELETE FROM kek_wraps WHERE kind = 'job' AND reference = ?1";
    w.tx().prepare_cached(sql)?.execute([job.into_bytes()])?;
    Ok(())
}

/// Notes that a segment of logs is kept as it is sealed, for each of the KEKs of its envelope that are known here.
///
/// # Errors
/// Of the database.
pub fn segment_kept(w: &Write<'_>, segment: Uuid, keks: &[Kek]) -> Result<(), DbError> {
    keks.iter().try_for_each(|kek| note_segment(w, kek.id.into_bytes(), segment.into_bytes()))
}

fn note_segment(w: &Write<'_>, kek: [u8; 16], segment: [u8; 16]) -> Result<(), DbError> {
    let sql = "INSERT INTO kek_wraps (kek_id, kind, reference, created_ms) VALUES (?1, 'log', ?2, ?3) ON CONFLICT DO NOTHING";
    w.tx().prepare_cached(sql)?.execute(params![kek, segment, w.now_ms()])?;
    Ok(())
}

/// Whether all that [`segment_kept`] would note is noted.
///
/// # Errors
/// Of the database.
pub fn is_segment_noted(db: &Connection, segment: Uuid, keks: &[Kek]) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM kek_wraps WHERE kek_id = ?1 AND kind = 'log' AND reference = ?2)";
    for kek in keks {
        let of = params![kek.id.into_bytes(), segment.into_bytes()];
        if !db.prepare_cached(sql)?.query_row(of, |row| row.get::<_, bool>(0))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A segment's data key is wrapped to these KEKs, and to no others any more.
///
/// # Errors
/// Of the database.
pub fn segment_rewrapped(w: &mut Write<'_>, segment: Uuid, keks: &[Kek]) -> Result<(), DbError> {
    segments_forgotten(w, &[segment])?;
    segment_kept(w, segment, keks)?;
    let to: Vec<_> = keks.iter().map(|kek| format!("{}@{}", kek.name, kek.kek_version)).collect();
    w.audit("kek.rewrap", &format!("logs:{segment}"), None, Some(serde_json::json!({ "to": to })))
}

/// Segments in the order of their ids: these, with the KEKs that open each, are all between two others, of which the first is
/// not meant and the last is; or to the end, if that is none. What was noted of them otherwise is put right. Says whether it was
/// otherwise.
///
/// # Errors
/// Of the database.
pub fn segments_are(
    db: &Db,
    after: Uuid,
    until: Option<Uuid>,
    segments: &[(Uuid, Vec<Fingerprint>)],
) -> Result<bool, DbError> {
    let range = params![after.into_bytes(), until.unwrap_or(Uuid::max()).into_bytes()];
    let (noted, are) = db.read(|db| {
        let sql = "SELECT reference, kek_id FROM kek_wraps WHERE kind = 'log' AND reference > ?1 AND reference <= ?2";
        let mut statement = db.prepare_cached(sql)?;
        let rows = statement.query_map(range, |row| Ok((row.get(0)?, row.get(1)?)))?;
        let noted: BTreeSet<([u8; 16], [u8; 16])> = rows.collect::<Result<_, _>>()?;
        let mut are = BTreeSet::new();
        for (segment, keks) in segments {
            for kek in keks {
                are.extend(by_fingerprint(db, kek)?.map(|kek| (segment.into_bytes(), kek.id.into_bytes())));
            }
        }
        Ok((noted, are))
    })?;
    if noted == are {
        return Ok(false);
    }
    db.write(&Actor::system(), |w| {
        for (segment, kek) in noted.difference(&are) {
            let sql = "DELETE FROM kek_wraps WHERE kind = 'log' AND reference = ?1 AND kek_id = ?2";
            w.tx().prepare_cached(sql)?.execute((segment, kek))?;
        }
        for (segment, kek) in are.difference(&noted) {
            note_segment(w, *kek, *segment)?;
        }
        Ok(true)
    })
}

/// Nothing of these segments is kept any more.
///
/// # Errors
/// Of the database.
pub fn segments_forgotten(w: &Write<'_>, segments: &[Uuid]) -> Result<(), DbError> {
    let sql = "DELETE FROM kek_wraps WHERE kind = 'log' AND reference = ?1";
    for segment in segments {
        w.tx().prepare_cached(sql)?.execute([segment.into_bytes()])?;
    }
    Ok(())
}

/// Runs that go on are told of the new version at once, and may wrap to it.
pub(super) fn rotated(w: &Write<'_>, kek: &Kek) -> Result<(), DbError> {
    for (job, run, _) in under_way(w.tx(), &kek.name)? {
        note(w, kek, job, run)?;
    }
    Ok(())
}

/// A job that is sealed to the name and of which a run goes on.
pub(super) fn job_under_way(db: &Connection, name: &Name) -> Result<Option<String>, DbError> {
    Ok(under_way(db, name)?.into_iter().next().map(|(_, _, job)| job))
}

fn under_way(db: &Connection, name: &Name) -> Result<Vec<(Uuid, Uuid, String)>, DbError> {
    let sql = "SELECT jobs.id, runs.id, jobs.name FROM runs JOIN jobs ON jobs.id = job_id \
        WHERE runs.state IN ('running', 'paused') \
        AND EXISTS (SELECT 1 FROM json_each(jobs.spec, '$.seal_to') WHERE json_each.value = ?1)";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([name.as_str()], |row| {
        Ok((Uuid::from_bytes(row.get(0)?), Uuid::from_bytes(row.get(1)?), row.get(2)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn note(w: &Write<'_>, kek: &Kek, job: Uuid, run: Uuid) -> Result<(), DbError> {
    let sql = "INSERT INTO kek_wraps (kek_id, kind, reference, run_id, created_ms) VALUES (?1, 'job', ?2, ?3, ?4) \
        ON CONFLICT (kek_id, kind, reference) DO UPDATE SET run_id = excluded.run_id";
    let (kek, job, run) = (kek.id.into_bytes(), job.into_bytes(), run.into_bytes());
    w.tx().prepare_cached(sql)?.execute(params![kek, job, run, w.now_ms()])?;
    Ok(())
}
