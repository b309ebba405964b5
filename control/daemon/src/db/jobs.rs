//! Jobs and their keys.
//!
//! Owns the tables `jobs` and `job_keys`. Each source of a job signs with a key of its own, made here and sealed under
//! the master key; of an epoch that is over only the public halves stay. A job does not change while a run of it goes
//! on, but for its name and its schedule. Who is meant by a spec's endpoints is told here, each time anew.

mod keys;
mod resolve;
#[cfg(test)]
mod tests;

pub(super) use keys::{agent_was_revoked, ensure, reseal};
pub use keys::{rotate, seed};
pub(super) use resolve::{Member, Members, Who, nothing_plain_where_none_may_be, resolve};

use super::agents::{one_more, parsed};
use super::{DbError, Write, keks, new_id};
use crate::spec;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sealift_api::rest::{Endpoint, Job, JobPatch, JobSpec, Name, NewJob, Page, Place};
use serde_json::json;
use uuid::Uuid;

const SELECT: &str =
    "SELECT id, name, spec, epoch, version, created_ms, updated_ms FROM jobs WHERE deleted_ms IS NULL";

fn from_row(row: &Row<'_>) -> Result<Job, rusqlite::Error> {
    Ok(Job {
        id: Uuid::from_bytes(row.get(0)?),
        name: parsed(row, 1, |text: String| text.try_into().ok())?,
        spec: parsed(row, 2, |text: String| serde_json::from_str(&text).ok())?,
        epoch: row.get(3)?,
        keys: Vec::new(),
        version: row.get(4)?,
        created_ms: row.get(5)?,
        updated_ms: row.get(6)?,
    })
}

/// A job, with the public halves of its keys.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn get(db: &Connection, id: Uuid) -> Result<Job, DbError> {
    let sql = format!("{SELECT} AND id = ?1");
    found(db, db.prepare_cached(&sql)?.query_row([id.into_bytes()], from_row))
}

/// The job of the name.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn by_name(db: &Connection, name: &Name) -> Result<Job, DbError> {
    let sql = format!("{SELECT} AND name = ?1");
    found(db, db.prepare_cached(&sql)?.query_row([name.as_str()], from_row))
}

fn found(db: &Connection, job: Result<Job, rusqlite::Error>) -> Result<Job, DbError> {
    let mut job = job.optional()?.ok_or(DbError::NotFound("job"))?;
    job.keys = keys::of_epoch(db, job.id, job.epoch)?;
    Ok(job)
}

/// Jobs in the order of their names, after the one named by the cursor.
///
/// # Errors
/// Of the database.
pub fn list(db: &Connection, after: Option<&str>, limit: usize) -> Result<Page<Job>, DbError> {
    let mut statement = db.prepare_cached(&format!("{SELECT} AND name > ?1 ORDER BY name LIMIT ?2"))?;
    let rows = statement.query_map(params![after.unwrap_or(""), one_more(limit)], from_row)?;
    let mut page = Page::of(rows.collect::<Result<Vec<_>, _>>()?, limit, |job| job.name.to_string());
    for job in &mut page.items {
        job.keys = keys::of_epoch(db, job.id, job.epoch)?;
    }
    Ok(page)
}

/// All jobs that have a schedule.
///
/// # Errors
/// Of the database.
pub fn scheduled(db: &Connection) -> Result<Vec<Job>, DbError> {
    let mut statement =
        db.prepare_cached(&format!("{SELECT} AND spec ->> 'schedule' IS NOT NULL ORDER BY id"))?;
    let rows = statement.query_map([], from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes a job, and keys for the sources that it has now.
///
/// # Errors
/// [`DbError::Invalid`] if the spec makes no sense, or names what is not known; [`DbError::Conflict`] if there is a job
/// of the name.
pub fn create(w: &mut Write<'_>, new: &NewJob) -> Result<Job, DbError> {
    check(&new.spec)?;
    let members = resolve(w.tx(), &new.spec, Who::Known)?;
    keks::active_of(w.tx(), &new.spec.seal_to)?;
    nothing_plain_where_none_may_be(w.tx(), &new.spec, &members)?;
    let id = new_id();
    w.tx()
        .execute(
            "INSERT INTO jobs (id, name, kind, spec, created_ms, updated_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            params![id.into_bytes(), new.name.as_str(), new.spec.kind.as_str(), text(&new.spec)?, w.now_ms()],
        )
        .map_err(DbError::taken(format!("there is a job {} already", new.name)))?;
    let after = json!({ "id": id, "spec": new.spec, "epoch": 1 });
    w.audit("job.create", &subject(&new.name), None, Some(after))?;
    let job = get(w.tx(), id)?;
    keys::ensure(w, &job, &members.sources)?;
    get(w.tx(), id)
}

/// Changes a job's name, its spec, or both.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Stale`] if it is not of the version; those of [`create`]; [`DbError::Conflict`] if
/// a run goes on, and more than name, schedule and limit of rate would change.
pub fn update(w: &mut Write<'_>, id: Uuid, version: Option<i64>, patch: &JobPatch) -> Result<Job, DbError> {
    let before = get(w.tx(), id)?;
    of_version(&before, version)?;
    let name = patch.name.as_ref().unwrap_or(&before.name);
    let spec = patch.spec.as_ref().unwrap_or(&before.spec);
    if *spec != before.spec {
        check(spec)?;
        if spec.kind != before.spec.kind {
            return Err(DbError::Invalid("a job keeps its kind: make another one".to_owned()));
        }
        if settled(spec) != settled(&before.spec) {
            no_run_goes_on(w.tx(), &before)?;
            let members = resolve(w.tx(), spec, Who::Known)?;
            keks::active_of(w.tx(), &spec.seal_to)?;
            nothing_plain_where_none_may_be(w.tx(), spec, &members)?;
            keys::ensure(w, &before, &members.sources)?;
        }
    }
    w.tx()
        .execute(
            "UPDATE jobs SET name = ?2, spec = ?3, version = version + 1, updated_ms = ?4 WHERE id = ?1",
            params![id.into_bytes(), name.as_str(), text(spec)?, w.now_ms()],
        )
        .map_err(DbError::taken(format!("there is a job {name} already")))?;
    let old = json!({ "name": before.name, "spec": before.spec });
    w.audit("job.update", &subject(&before.name), Some(old), Some(json!({ "name": name, "spec": spec })))?;
    get(w.tx(), id)
}

/// What of a spec stays while a run goes on.
fn settled(spec: &JobSpec) -> JobSpec {
    JobSpec { schedule: None, bytes_per_second: None, rate_schedule: None, ..spec.clone() }
}

/// Deletes a job and its keys. Its runs stay to be looked at; its name is free.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Stale`] if it is not of the version; [`DbError::Conflict`] if a run goes on.
pub fn delete(w: &mut Write<'_>, id: Uuid, version: Option<i64>) -> Result<(), DbError> {
    let before = get(w.tx(), id)?;
    of_version(&before, version)?;
    no_run_goes_on(w.tx(), &before)?;
    w.tx().execute("DELETE FROM job_keys WHERE job_id = ?1", [id.into_bytes()])?;
    keks::job_deleted(w, id)?;
    // No job can be called so: the name is free again.
    let gone = format!("{}~{id}", before.name);
    w.tx().execute(
        "UPDATE jobs SET name = ?2, version = version + 1, updated_ms = ?3, deleted_ms = ?3 WHERE id = ?1",
        params![id.into_bytes(), gone, w.now_ms()],
    )?;
    w.audit("job.delete", &subject(&before.name), Some(json!({ "id": id, "spec": before.spec })), None)
}

fn check(spec: &JobSpec) -> Result<(), DbError> {
    spec::check(spec).map_err(|error| DbError::Invalid(error.to_string()))
}

fn of_version(job: &Job, version: Option<i64>) -> Result<(), DbError> {
    if version.is_some_and(|version| version != job.version) { Err(DbError::Stale) } else { Ok(()) }
}

fn no_run_goes_on(db: &Connection, job: &Job) -> Result<(), DbError> {
    if super::runs::current(db, job.id)?.is_some() {
        return Err(DbError::Conflict(format!("a run of the job {} goes on: stop it first", job.name)));
    }
    Ok(())
}

fn text(spec: &JobSpec) -> Result<String, DbError> {
    serde_json::to_string(spec).map_err(|error| DbError::Invalid(error.to_string()))
}

/// Names an agent anew in the jobs that name it.
pub(super) fn agent_was_renamed(w: &mut Write<'_>, from: &Name, to: &Name) -> Result<(), DbError> {
    let mut statement = w.tx().prepare(SELECT)?;
    let jobs: Vec<Job> = statement.query_map([], from_row)?.collect::<Result<_, _>>()?;
    drop(statement);
    let was = Place::Agent(from.clone());
    for job in jobs {
        let mut spec = job.spec.clone();
        for endpoint in spec.from.iter_mut().chain(&mut spec.to).filter(|endpoint| *endpoint.place() == was) {
            *endpoint = Endpoint::new(Place::Agent(to.clone()), endpoint.path())
                .map_err(|error| DbError::Invalid(error.to_string()))?;
        }
        if spec == job.spec {
            continue;
        }
        let sql = "UPDATE jobs SET spec = ?2, version = version + 1, updated_ms = ?3 WHERE id = ?1";
        w.tx().execute(sql, params![job.id.into_bytes(), text(&spec)?, w.now_ms()])?;
        let (before, after) = (json!({ "spec": job.spec }), json!({ "spec": spec }));
        w.audit("job.update", &subject(&job.name), Some(before), Some(after))?;
    }
    Ok(())
}

/// As the audit log names a job.
fn subject(name: &Name) -> String {
    format!("job:{name}")
}
