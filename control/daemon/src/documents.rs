//! Documents: all that is desired of an agent, told from the runs that go on.
//!
//! A document is never stored: it is made from the database each time, secrets and all, and is the same for the same
//! content. Only its number and a digest are kept: the number goes up when the digest changes. So an agent can be told
//! at any time, by any process, and after any restart, and is told nothing twice that it has.

#[cfg(test)]
mod tests;

use crate::db::agents::parsed;
use crate::db::{self, DbError, Write, agents, jobs};
use crate::spec::minute_of_day;
use data_encoding::HEXLOWER;
use rusqlite::{Row, params};
use sealift_api::agent::assignment::{Action, Role};
use sealift_api::agent::{Assignment, Document, Kek, RateEntry, RateSchedule, Settings, settings};
use sealift_api::rest::{
    AgentState, Cipher, Day, Hash, JobKind, JobSpec, Name, RunAgentState, RunRole, RunState, Transport,
};
use sealift_proto::keys::{RoSecret, RwSeed};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

const ASSIGNMENT_DOMAIN: &[u8] = b"sealift v1 assignment";
const DIGEST_DOMAIN: &[u8] = b"sealift v1 document digest";

/// By which an agent knows its part in a job: `job_id` of the channel's messages. In a distribution that is the job's
/// id. In a consolidation the destination has a part with each source, and each has an id of its own.
#[must_use]
pub fn assignment_id(kind: JobKind, job: Uuid, source: Uuid) -> Uuid {
    match kind {
        JobKind::Distribution => job,
        JobKind::Consolidation => {
            let digest = Sha256::new_with_prefix(ASSIGNMENT_DOMAIN)
                .chain_update(job.as_bytes())
                .chain_update(source.as_bytes())
                .finalize();
            let bytes: &[u8; 16] = digest.first_chunk().expect("16 of 32 bytes");
            uuid::Builder::from_custom_bytes(*bytes).into_uuid()
        }
    }
}

/// What is desired of an agent now, without number and incarnation. Of one that is not approved nothing is.
///
/// A destination has nothing to do before its source has told where it listens, nor once it has ended; a source has
/// something to do until all of its destinations have ended.
///
/// # Errors
/// [`DbError::NotFound`] if there is no such agent; [`DbError::Crypto`] if a key cannot be opened.
pub fn desired(w: &Write<'_>, agent: Uuid) -> Result<Document, DbError> {
    let mut document = Document::default();
    let standing = agents::get(w.tx(), agent)?;
    if standing.state != AgentState::Approved {
        return Ok(document);
    }
    document.must_seal = standing.takes_ciphertext_alone();
    if let Some(name) = db::settings::get(w.tx())?.logs_kek {
        document.logs_kek = keks(w, std::slice::from_ref(&name))?.pop();
    }
    for part in parts(w, agent)? {
        document.assignments.extend(assignment(w, &part)?);
    }
    Ok(document)
}

/// Raises the number of an agent's document if something else is desired by now, and then tells the document.
///
/// # Errors
/// Those of [`desired`].
pub fn refresh(w: &mut Write<'_>, agent: Uuid) -> Result<Option<(u64, Document)>, DbError> {
    let mut document = desired(w, agent)?;
    let sql = "UPDATE agents SET document = document + 1, document_digest = ?2 \
        WHERE id = ?1 AND document_digest != ?2";
    let changed = w.tx().prepare_cached(sql)?.execute(params![agent.into_bytes(), digest(&document)])?;
    if changed == 0 {
        return Ok(None);
    }
    document.number = number(w, agent)?;
    Ok(Some((document.number, document)))
}

/// An agent's document as it is now, with its number; the number is raised if it has to be.
///
/// # Errors
/// Those of [`desired`].
pub fn current(w: &mut Write<'_>, agent: Uuid) -> Result<Document, DbError> {
    if let Some((_, document)) = refresh(w, agent)? {
        return Ok(document);
    }
    Ok(Document { number: number(w, agent)?, ..desired(w, agent)? })
}

fn number(w: &Write<'_>, agent: Uuid) -> Result<u64, DbError> {
    Ok(agents::get(w.tx(), agent)?.document.unsigned_abs())
}

/// Of the content, secrets included: of all fields in their order, each with its length, so that no two contents are
/// written alike. Whoever gives an assignment another field is told by the compiler to put it here.
fn digest(document: &Document) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix(DIGEST_DOMAIN);
    let mut put = |bytes: &[u8]| {
        digest.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        digest.update(bytes);
    };
    let Document {
        number: _,
        incarnation: _,
        assignments,
        logs_port: _,
        tracker_port: _,
        must_seal,
        logs_kek,
    } = document;
    put(&[u8::from(*must_seal), u8::from(logs_kek.is_some())]);
    logs_kek.iter().for_each(|kek| put_kek(&mut put, kek));
    for assignment in assignments {
        let Assignment {
            job_id,
            job_name,
            run_id,
            role,
            path,
            epoch,
            read_write_seed,
            read_only_secret,
            verify_key,
            action,
            source_addresses,
            destinations,
            settings,
            sealed,
            keks,
            rate_schedule,
        } = assignment;
        let Settings { hash, cipher, delete, connections, bytes_per_second, transport } =
            settings.unwrap_or_default();
        for bytes in
            [job_id, job_name.as_bytes(), run_id, path, read_write_seed, read_only_secret, verify_key]
        {
            put(bytes);
        }
        for number in [*role, *action, hash, cipher, i32::from(delete), transport] {
            put(&number.to_le_bytes());
        }
        put(&bytes_per_second.to_le_bytes());
        for number in [*epoch, *destinations, connections] {
            put(&number.to_le_bytes());
        }
        put(&source_addresses.len().to_le_bytes());
        for address in source_addresses {
            put(address.as_bytes());
        }
        put(&[u8::from(*sealed)]);
        put(&keks.len().to_le_bytes());
        keks.iter().for_each(|kek| put_kek(&mut put, kek));
        put(&[u8::from(rate_schedule.is_some())]);
        if let Some(RateSchedule { time_zone, entries }) = rate_schedule {
            put(time_zone.as_bytes());
            put(&entries.len().to_le_bytes());
            for RateEntry { day, minute, bytes_per_second } in entries {
                put(&day.to_le_bytes());
                put(&minute.to_le_bytes());
                put(&bytes_per_second.to_le_bytes());
            }
        }
    }
    digest.finalize().into()
}

fn put_kek(put: &mut impl FnMut(&[u8]), kek: &Kek) {
    let Kek { name, version, fingerprint, public_pem } = kek;
    for bytes in [name.as_bytes(), &version.to_le_bytes(), fingerprint, public_pem.as_bytes()] {
        put(bytes);
    }
}

/// An agent's part in a run that goes on.
struct Part {
    run: Uuid,
    run_state: RunState,
    job: Uuid,
    job_name: String,
    spec: JobSpec,
    epoch: u32,
    source: Uuid,
    role: RunRole,
    state: RunAgentState,
    path: Vec<u8>,
}

fn parts(w: &Write<'_>, agent: Uuid) -> Result<Vec<Part>, DbError> {
    // From the few runs that go on, and not from all that the agent ever took part in.
    let sql = "SELECT runs.id, runs.state, jobs.id, jobs.name, jobs.spec, jobs.epoch, r.source_id, r.role, r.state, \
        r.path FROM runs CROSS JOIN run_agents r ON r.run_id = runs.id AND r.agent_id = ?1 \
        JOIN jobs ON jobs.id = runs.job_id WHERE runs.state IN ('running', 'paused') \
        ORDER BY runs.id, r.source_id, r.role";
    let mut statement = w.tx().prepare_cached(sql)?;
    let rows = statement.query_map([agent.into_bytes()], part_from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn part_from_row(row: &Row<'_>) -> Result<Part, rusqlite::Error> {
    Ok(Part {
        run: Uuid::from_bytes(row.get(0)?),
        run_state: parsed(row, 1, |text: String| RunState::from_word(&text))?,
        job: Uuid::from_bytes(row.get(2)?),
        job_name: row.get(3)?,
        spec: parsed(row, 4, |text: String| serde_json::from_str(&text).ok())?,
        epoch: row.get(5)?,
        source: Uuid::from_bytes(row.get(6)?),
        role: parsed(row, 7, |text: String| RunRole::from_word(&text))?,
        state: parsed(row, 8, |text: String| RunAgentState::from_word(&text))?,
        path: row.get(9)?,
    })
}

fn assignment(w: &Write<'_>, part: &Part) -> Result<Option<Assignment>, DbError> {
    let mut assignment = Assignment {
        job_id: assignment_id(part.spec.kind, part.job, part.source).as_bytes().to_vec(),
        job_name: part.job_name.clone(),
        run_id: part.run.as_bytes().to_vec(),
        path: part.path.clone(),
        epoch: part.epoch,
        settings: Some(settings(&part.spec)),
        sealed: !part.spec.seal_to.is_empty(),
        rate_schedule: rate_schedule(&part.spec),
        ..Assignment::default()
    };
    assignment.set_action(if part.run_state == RunState::Paused { Action::Pause } else { Action::Run });
    match part.role {
        RunRole::Source => {
            let destinations = destinations(w, part)?;
            // One that says that it is done stays until they are: they may have to come back for something.
            let gone = matches!(part.state, RunAgentState::Failed | RunAgentState::Stopped);
            if gone || destinations.to_do == 0 {
                return Ok(None);
            }
            assignment.set_role(Role::Source);
            assignment.destinations = destinations.not_failed;
            assignment.read_write_seed = jobs::seed(w, part.job, part.source, part.epoch)?.to_vec();
            assignment.keks = keks(w, &part.spec.seal_to)?;
        }
        RunRole::Destination => {
            let addresses = source_addresses(w, part)?;
            if part.state.is_over() || addresses.is_empty() {
                return Ok(None);
            }
            let seed = jobs::seed(w, part.job, part.source, part.epoch)?;
            let keys = RwSeed::new(&seed);
            let verify_key = keys.verify_key();
            // Whoever keeps a sealed job's replicas gets nothing of what it would have if the job were not.
            let secret = if assignment.sealed { RoSecret::of_keepers(&verify_key) } else { keys.ro_secret() };
            assignment.set_role(Role::Destination);
            assignment.source_addresses = addresses;
            assignment.read_only_secret = secret.as_bytes().to_vec();
            assignment.verify_key = verify_key.as_bytes().to_vec();
        }
    }
    Ok(Some(assignment))
}

/// KEKs by their names, as they are now. One that is not active is named nowhere where this is asked.
fn keks(w: &Write<'_>, names: &[Name]) -> Result<Vec<Kek>, DbError> {
    let one = |name: &Name| {
        let Some(kek) = db::keks::active(w.tx(), name)? else { return Ok(None) };
        let fingerprint = HEXLOWER.decode(kek.fingerprint.as_bytes());
        let fingerprint = fingerprint.map_err(|_| DbError::Damaged("a fingerprint of a KEK".to_owned()))?;
        let (version, public_pem) = (kek.kek_version, kek.public_pem);
        Ok(Some(Kek { name: name.to_string(), version, fingerprint, public_pem }))
    };
    names.iter().filter_map(|name| one(name).transpose()).collect()
}

/// The destinations of a source.
struct Destinations {
    /// Who have not ended.
    to_do: u32,
    /// Who have finished or will: a source that waits for so many to finish ends.
    not_failed: u32,
}

fn destinations(w: &Write<'_>, part: &Part) -> Result<Destinations, DbError> {
    let sql = "SELECT count(*) FILTER (WHERE state IN ('waiting', 'running', 'paused')), \
        count(*) FILTER (WHERE state NOT IN ('failed', 'stopped')) \
        FROM run_agents WHERE run_id = ?1 AND source_id = ?2 AND role = 'destination'";
    let of = params![part.run.into_bytes(), part.source.into_bytes()];
    let counts = w
        .tx()
        .prepare_cached(sql)?
        .query_row(of, |row| Ok(Destinations { to_do: row.get(0)?, not_failed: row.get(1)? }))?;
    Ok(counts)
}

fn source_addresses(w: &Write<'_>, part: &Part) -> Result<Vec<String>, DbError> {
    let sql = "SELECT addresses FROM run_agents WHERE run_id = ?1 AND agent_id = ?2 AND source_id = ?2 \
        AND role = 'source'";
    let of = params![part.run.into_bytes(), part.source.into_bytes()];
    let addresses = w
        .tx()
        .prepare_cached(sql)?
        .query_row(of, |row| parsed(row, 0, |text: String| serde_json::from_str(&text).ok()))?;
    Ok(addresses)
}

/// One that was checked when it was taken.
fn rate_schedule(spec: &JobSpec) -> Option<RateSchedule> {
    let schedule = spec.rate_schedule.as_ref()?;
    let entry = |entry: &sealift_api::rest::RateEntry| {
        Some(RateEntry {
            day: entry.day.map_or(0, day_number),
            minute: minute_of_day(&entry.from).ok()?.minutes().into(),
            bytes_per_second: entry.bytes_per_second.unwrap_or(0),
        })
    };
    let entries = schedule.entries.iter().filter_map(entry).collect();
    Some(RateSchedule { time_zone: schedule.time_zone.clone(), entries })
}

fn day_number(day: Day) -> u32 {
    match day {
        Day::Monday => 1,
        Day::Tuesday => 2,
        Day::Wednesday => 3,
        Day::Thursday => 4,
        Day::Friday => 5,
        Day::Saturday => 6,
        Day::Sunday => 7,
    }
}

fn settings(spec: &JobSpec) -> Settings {
    let hash = match spec.hash {
        Hash::Sha256 => settings::Hash::Sha256,
        Hash::Blake3 => settings::Hash::Blake3,
    };
    let cipher = match spec.cipher {
        Cipher::Aes128Gcm => settings::Cipher::Aes128Gcm,
        Cipher::Aes256Gcm => settings::Cipher::Aes256Gcm,
    };
    let transport = match spec.transport {
        Transport::Auto => settings::Transport::Unspecified,
        Transport::Quic => settings::Transport::Quic,
        Transport::Tcp => settings::Transport::Tcp,
    };
    Settings {
        hash: hash.into(),
        cipher: cipher.into(),
        delete: spec.delete,
        connections: spec.connections,
        bytes_per_second: spec.bytes_per_second.unwrap_or(0),
        transport: transport.into(),
    }
}
