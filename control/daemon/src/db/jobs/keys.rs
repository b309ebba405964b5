//! Keys of jobs: made, sealed, rotated.

use super::{Member, Who, get, no_run_goes_on, resolve, subject};
use crate::db::agents::parsed;
use crate::db::runs::Affected;
use crate::db::{DbError, MasterKey, Write};
use data_encoding::HEXLOWER;
use rusqlite::{Connection, OptionalExtension as _, params};
use sealift_api::rest::{Job, JobKey};
use sealift_proto::keys::{KEY_BYTES, RwSeed};
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What a seed is sealed for: it can be opened for nothing else, and put in no other place.
fn purpose(job: Uuid, source: Uuid, epoch: u32) -> String {
    format!("job-key:{job}:{source}:{epoch}")
}

/// Makes a key for each of the sources that has none in the job's epoch.
pub(in crate::db) fn ensure(w: &mut Write<'_>, job: &Job, sources: &[Member]) -> Result<(), DbError> {
    for source in sources {
        let sql = "SELECT 1 FROM job_keys WHERE job_id = ?1 AND source_id = ?2 AND epoch = ?3";
        let at = params![job.id.into_bytes(), source.id.into_bytes(), job.epoch];
        if !w.tx().prepare_cached(sql)?.exists(at)? {
            make(w, job, source)?;
        }
    }
    Ok(())
}

fn make(w: &mut Write<'_>, job: &Job, source: &Member) -> Result<(), DbError> {
    let mut seed = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(seed.as_mut()).map_err(|_| DbError::Crypto)?;
    let sealed = w.seal(&purpose(job.id, source.id, job.epoch), seed.as_ref())?;
    let verify_key = *RwSeed::new(&seed).verify_key().as_bytes();
    w.tx().execute(
        "INSERT INTO job_keys (job_id, source_id, epoch, sealed_seed, verify_key, created_ms) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![job.id.into_bytes(), source.id.into_bytes(), job.epoch, sealed, verify_key, w.now_ms()],
    )?;
    let after = json!({
        "source": source.name, "epoch": job.epoch, "verify_key": HEXLOWER.encode(&verify_key),
    });
    w.audit("job.key.make", &subject(&job.name), None, Some(after))
}

/// The read-write seed of a job's source: the key itself. For the source's document alone.
///
/// # Errors
/// [`DbError::NotFound`] if there is none; [`DbError::Crypto`] if it is not what was sealed.
pub fn seed(
    w: &Write<'_>,
    job: Uuid,
    source: Uuid,
    epoch: u32,
) -> Result<Zeroizing<[u8; KEY_BYTES]>, DbError> {
    let sealed: Option<Vec<u8>> = w
        .tx()
        .prepare_cached(
            "SELECT sealed_seed FROM job_keys WHERE job_id = ?1 AND source_id = ?2 AND epoch = ?3",
        )?
        .query_row(params![job.into_bytes(), source.into_bytes(), epoch], |row| row.get(0))
        .optional()?;
    let sealed = sealed.ok_or(DbError::NotFound("job key"))?;
    let plain = w.open(&purpose(job, source, epoch), &sealed)?;
    let bytes: &[u8; KEY_BYTES] = plain.as_slice().try_into().map_err(|_| DbError::Crypto)?;
    Ok(Zeroizing::new(*bytes))
}

/// The public halves of an epoch's keys, in the order of their sources' names.
pub(super) fn of_epoch(db: &Connection, job: Uuid, epoch: u32) -> Result<Vec<JobKey>, DbError> {
    let sql = "SELECT source_id, name, verify_key, job_keys.created_ms FROM job_keys \
        JOIN agents ON agents.id = source_id WHERE job_id = ?1 AND epoch = ?2 ORDER BY name";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params![job.into_bytes(), epoch], |row| {
        Ok(JobKey {
            source_id: Uuid::from_bytes(row.get(0)?),
            source: parsed(row, 1, |text: String| text.try_into().ok())?,
            verify_key: HEXLOWER.encode(&row.get::<_, [u8; KEY_BYTES]>(2)?),
            created_ms: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Begins a new epoch with new keys. The seeds of the old one are destroyed: they sign nothing any more.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if a run goes on; [`DbError::Invalid`] if what the spec names is not
/// known any more.
pub fn rotate(w: &mut Write<'_>, id: Uuid) -> Result<Job, DbError> {
    let before = get(w.tx(), id)?;
    no_run_goes_on(w.tx(), &before)?;
    let members = resolve(w.tx(), &before.spec, Who::Known)?;
    begin_epoch(w, &before, &members.sources)?;
    get(w.tx(), id)
}

/// Gives new keys to every job whose keys a revoked agent may have: whatever it does, they open nothing any more. A run that
/// goes on does so with the new ones; who takes part in it has to be told.
///
/// # Errors
/// [`DbError::Conflict`] if a job has no later epoch.
pub(in crate::db) fn agent_was_revoked(w: &mut Write<'_>, agent: Uuid) -> Result<Affected, DbError> {
    let sql = "SELECT DISTINCT jobs.id FROM run_agents JOIN runs ON runs.id = run_id \
        JOIN jobs ON jobs.id = runs.job_id WHERE agent_id = ?1";
    let jobs = ids(w, sql, agent)?;
    let mut affected = Affected::new();
    for job in jobs {
        let before = get(w.tx(), job)?;
        // Others have theirs made when they are to give something.
        let sql = "SELECT agents.id, name FROM job_keys JOIN agents ON agents.id = source_id \
            WHERE job_id = ?1 AND epoch = ?2 AND state <> 'revoked' ORDER BY agents.id";
        let mut statement = w.tx().prepare_cached(sql)?;
        let sources = statement.query_map(params![job.into_bytes(), before.epoch], |row| {
            let name = parsed(row, 1, |text: String| text.try_into().ok())?;
            Ok(Member { id: Uuid::from_bytes(row.get(0)?), name, path: String::new() })
        })?;
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        drop(statement);
        begin_epoch(w, &before, &sources)?;
        let sql = "SELECT DISTINCT agent_id FROM runs JOIN run_agents ON run_id = runs.id \
            WHERE job_id = ?1 AND runs.state IN ('running', 'paused')";
        affected.extend(ids(w, sql, job)?);
    }
    Ok(affected)
}

fn ids(w: &Write<'_>, sql: &str, of: Uuid) -> Result<Vec<Uuid>, DbError> {
    let mut statement = w.tx().prepare_cached(sql)?;
    let rows = statement.query_map([of.into_bytes()], |row| Ok(Uuid::from_bytes(row.get(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn begin_epoch(w: &mut Write<'_>, before: &Job, sources: &[Member]) -> Result<(), DbError> {
    let id = before.id;
    let epoch =
        before.epoch.checked_add(1).ok_or_else(|| DbError::Conflict("there is no later epoch".to_owned()))?;
    let sql = "UPDATE jobs SET epoch = ?2, version = version + 1, updated_ms = ?3 WHERE id = ?1";
    w.tx().execute(sql, params![id.into_bytes(), epoch, w.now_ms()])?;
    w.tx().execute("UPDATE job_keys SET sealed_seed = x'' WHERE job_id = ?1", [id.into_bytes()])?;
    let of = |epoch: u32| Some(json!({ "epoch": epoch }));
    w.audit("job.keys.rotate", &subject(&before.name), of(before.epoch), of(epoch))?;
    ensure(w, &Job { epoch, ..before.clone() }, sources)
}

/// Seals the seeds anew, under another master key.
///
/// # Errors
/// [`DbError::Crypto`] if one is not what was sealed.
pub(in crate::db) fn reseal(w: &Write<'_>, new: &MasterKey) -> Result<(), DbError> {
    let sql = "SELECT job_id, source_id, epoch, sealed_seed FROM job_keys WHERE length(sealed_seed) > 0";
    let mut keys = w.tx().prepare(sql)?;
    let keys = keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let keys = keys.collect::<Result<Vec<([u8; 16], [u8; 16], u32, Vec<u8>)>, _>>()?;
    for (job, source, epoch, sealed) in keys {
        let purpose = purpose(Uuid::from_bytes(job), Uuid::from_bytes(source), epoch);
        let sealed = w.reseal(new, &purpose, &sealed)?;
        let sql = "UPDATE job_keys SET sealed_seed = ?4 WHERE job_id = ?1 AND source_id = ?2 AND epoch = ?3";
        w.tx().prepare_cached(sql)?.execute(params![job, source, epoch, sealed])?;
    }
    Ok(())
}
