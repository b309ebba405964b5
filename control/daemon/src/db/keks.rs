//! Key-encryption keys (KEKs): what data keys are wrapped to.
//!
//! Owns the tables `keks` and `kek_wraps`. A key is one record, whatever becomes of it; versions of one name follow each other,
//! and one at most is active. A private half is sealed under the master key, and is there until the key is destroyed: which
//! it cannot be as long as anything is wrapped to it. What is wrapped is noted when a run of a sealed job begins, and
//! forgotten when a later run is done everywhere: then every replica's data key is wrapped anew.

#[cfg(test)]
mod tests;
mod wraps;

pub use wraps::{is_segment_noted, segment_kept, segment_rewrapped, segments_are, segments_forgotten};
pub(super) use wraps::{job_deleted, run_done, run_started};

use super::agents::{one_more, parsed};
use super::{DbError, MasterKey, Write, new_id};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sealift_api::rest::limits::PASSWORD_BYTES_MAX;
use sealift_api::rest::{Kek, KekFiles, KekMode, KekState, KekWraps, Name, Page};
use sealift_envelope::limits::RSA_BITS_STRONG;
use sealift_envelope::{Fingerprint, PrivateKek, PublicKek};
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

const SELECT: &str = "SELECT id, name, kek_version, fingerprint, public_pem, bits, has_private, state, version, created_by, \
    created_ms, updated_ms, (SELECT count(*) FROM kek_wraps WHERE kek_id = id AND kind = 'job'), \
    (SELECT count(*) FROM kek_wraps WHERE kek_id = id AND kind = 'log') FROM keks";

fn from_row(row: &Row<'_>) -> Result<Kek, rusqlite::Error> {
    let bits = row.get(5)?;
    Ok(Kek {
        id: Uuid::from_bytes(row.get(0)?),
        name: parsed(row, 1, |text: String| text.try_into().ok())?,
        kek_version: row.get(2)?,
        fingerprint: Fingerprint(row.get(3)?).to_string(),
        public_pem: row.get(4)?,
        bits,
        weak: bits < RSA_BITS_STRONG,
        mode: if row.get(6)? { KekMode::Server } else { KekMode::EndToEnd },
        state: parsed(row, 7, |text: String| KekState::from_word(&text))?,
        version: row.get(8)?,
        created_by: row.get(9)?,
        created_ms: row.get(10)?,
        updated_ms: row.get(11)?,
        wraps: KekWraps { jobs: row.get(12)?, logs: row.get(13)? },
    })
}

/// What a private half is sealed for: it can be opened for nothing else, and put in no other place.
fn purpose(id: Uuid) -> String {
    format!("kek:{id}")
}

/// As the audit names a KEK.
fn subject(kek: &Kek) -> String {
    format!("kek:{}", kek.name)
}

/// A KEK.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn get(db: &Connection, id: Uuid) -> Result<Kek, DbError> {
    let sql = format!("{SELECT} WHERE id = ?1");
    let found = db.prepare_cached(&sql)?.query_row([id.into_bytes()], from_row);
    found.optional()?.ok_or(DbError::NotFound("KEK"))
}

/// The version of a name that data keys are wrapped to now, if there is one.
///
/// # Errors
/// Of the database.
pub fn active(db: &Connection, name: &Name) -> Result<Option<Kek>, DbError> {
    let sql = format!("{SELECT} WHERE name = ?1 AND state = 'active'");
    Ok(db.prepare_cached(&sql)?.query_row([name.as_str()], from_row).optional()?)
}

/// The KEK that has this fingerprint.
///
/// # Errors
/// Of the database.
pub fn by_fingerprint(db: &Connection, fingerprint: &Fingerprint) -> Result<Option<Kek>, DbError> {
    let sql = format!("{SELECT} WHERE fingerprint = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([fingerprint.0], from_row).optional()?)
}

/// The active versions of all the names.
///
/// # Errors
/// What is wrong, in words, as [`DbError::Invalid`].
pub(super) fn active_of(db: &Connection, names: &[Name]) -> Result<Vec<Kek>, DbError> {
    let one = |name: &Name| {
        active(db, name)?.ok_or_else(|| {
            let what =
                format!("there is no KEK {name} that is active: `sealift kek list` shows those that are");
            DbError::Invalid(what)
        })
    };
    names.iter().map(one).collect()
}

/// KEKs, the versions of a name together, in the order in which names were first imported.
///
/// # Errors
/// Of the database; [`DbError::Invalid`] if the cursor is none.
pub fn list(db: &Connection, after: Option<&str>, limit: usize) -> Result<Page<Kek>, DbError> {
    let bad = || DbError::Invalid("'after' is not what an earlier page gave as 'next'".to_owned());
    let (name, version) = match after {
        None => ("", 0),
        Some(cursor) => {
            let (name, version) = cursor.rsplit_once('@').ok_or_else(bad)?;
            (name, version.parse::<u32>().map_err(|_| bad())?)
        }
    };
    let sql = format!("{SELECT} WHERE (name, kek_version) > (?1, ?2) ORDER BY name, kek_version LIMIT ?3");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![name, version, one_more(limit)], from_row)?;
    let cursor = |kek: &Kek| format!("{}@{}", kek.name, kek.kek_version);
    Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, cursor))
}

/// The halves of a KEK, read, and proved to belong together. To be made before the transaction: a passphrase takes its time.
pub struct Checked {
    public: PublicKek,
    private: Option<PrivateKek>,
}

impl Checked {
    /// Reads the files.
    ///
    /// # Errors
    /// [`DbError::Invalid`]: what is wrong with them, and what to do.
    pub fn of(files: &KekFiles) -> Result<Self, DbError> {
        let invalid = |what: String| DbError::Invalid(what);
        let passphrase = files.passphrase.as_deref().map(str::as_bytes);
        if passphrase.is_some_and(|passphrase| passphrase.len() > PASSWORD_BYTES_MAX) {
            return Err(invalid(format!("a passphrase has at most {PASSWORD_BYTES_MAX} bytes")));
        }
        let public = PublicKek::from_pem(&files.public_pem).map_err(|error| invalid(error.to_string()))?;
        let private =
            files.private_pem.as_ref().map(|file| PrivateKek::from_pem(file, passphrase)).transpose();
        let private = private.map_err(|error| invalid(error.to_string()))?;
        if private.as_ref().is_some_and(|private| !private.proves(&public)) {
            return Err(invalid("the private key is not the other half of the public key".to_owned()));
        }
        Ok(Self { public, private })
    }
}

/// Takes up a KEK under a name that has none.
///
/// # Errors
/// [`DbError::Conflict`] if there is one of the name, or the key is there already.
pub fn import(w: &mut Write<'_>, name: &Name, halves: &Checked) -> Result<Kek, DbError> {
    if newest_version(w.tx(), name)? > 0 {
        let what =
            format!("there is a KEK {name} already: rotate it to give it another key, or take another name");
        return Err(DbError::Conflict(what));
    }
    let kek = insert(w, name, 1, halves)?;
    w.audit("kek.import", &subject(&kek), None, Some(told(&kek)))?;
    Ok(kek)
}

/// Gives a name another key: that is the active one from now on, and the one before can decrypt only. Who is wrapping to the
/// name has to be told.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if the key is there already.
pub fn rotate(w: &mut Write<'_>, id: Uuid, halves: &Checked) -> Result<Kek, DbError> {
    let of = get(w.tx(), id)?;
    let before = active(w.tx(), &of.name)?;
    if let Some(before) = &before {
        set_state(w, before.id, KekState::DecryptOnly)?;
    }
    let version = newest_version(w.tx(), &of.name)?.checked_add(1);
    let version = version.ok_or_else(|| DbError::Conflict("there is no later version".to_owned()))?;
    let kek = insert(w, &of.name, version, halves)?;
    wraps::rotated(w, &kek)?;
    w.audit("kek.rotate", &subject(&kek), before.as_ref().map(told), Some(told(&kek)))?;
    Ok(kek)
}

/// Has a KEK used no more, until it is enabled.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is not used anyway, or a run that seals to it goes on.
pub fn disable(w: &mut Write<'_>, id: Uuid) -> Result<Kek, DbError> {
    let before = in_state(w.tx(), id, &[KekState::Active, KekState::DecryptOnly])?;
    if before.state == KekState::Active
        && let Some(job) = wraps::job_under_way(w.tx(), &before.name)?
    {
        let what =
            format!("a run of the job {job}, which is sealed to {}, goes on: stop it first", before.name);
        return Err(DbError::Conflict(what));
    }
    let seals_logs = super::settings::get(w.tx())?.logs_kek.is_some_and(|name| name == before.name);
    if before.state == KekState::Active && seals_logs {
        let what =
            format!("logs are sealed to the KEK {}: have them sealed to another first, or not", before.name);
        return Err(DbError::Conflict(what));
    }
    change(w, &before, KekState::Disabled, "kek.disable")
}

/// Has a disabled KEK used again: the newest of its name as the active one, others to decrypt.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is not disabled.
pub fn enable(w: &mut Write<'_>, id: Uuid) -> Result<Kek, DbError> {
    let before = in_state(w.tx(), id, &[KekState::Disabled])?;
    let is_newest = newest_version(w.tx(), &before.name)? == before.kek_version;
    let to = if is_newest { KekState::Active } else { KekState::DecryptOnly };
    change(w, &before, to, "kek.enable")
}

/// Destroys a KEK: the private half is overwritten in the file. It is in the file's log until [`super::Db::empty_log`], and in backups
/// that were made before.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if it is active, was destroyed, or anything is wrapped to it.
pub fn destroy(w: &mut Write<'_>, id: Uuid) -> Result<Kek, DbError> {
    let before = in_state(w.tx(), id, &[KekState::DecryptOnly, KekState::Disabled])?;
    let KekWraps { jobs, logs } = before.wraps;
    if jobs > 0 || logs > 0 {
        let what = format!(
            "the KEK {} (version {}) opens the replicas of {jobs} jobs and {logs} segments of logs: what is wrapped to it has \
            to be wrapped to another first, by a complete run of each job; or the jobs deleted",
            before.name, before.kek_version
        );
        return Err(DbError::Conflict(what));
    }
    let sql = "UPDATE keks SET sealed_private = NULL WHERE id = ?1";
    w.tx().execute(sql, [id.into_bytes()])?;
    change(w, &before, KekState::Destroyed, "kek.destroy")
}

/// Whether the daemon has the private half of a KEK and may use it.
///
/// # Errors
/// Of the database.
pub fn may_open(db: &Connection, id: Uuid) -> Result<bool, DbError> {
    let sql =
        "SELECT sealed_private IS NOT NULL AND state IN ('active', 'decrypt_only') FROM keks WHERE id = ?1";
    let found = db.prepare_cached(sql)?.query_row([id.into_bytes()], |row| row.get(0)).optional()?;
    Ok(found.unwrap_or(false))
}

/// A private half as it is kept, for whoever has had its use recorded.
pub struct SealedPrivate {
    id: Uuid,
    /// In words.
    name: String,
    sealed: Vec<u8>,
}

impl SealedPrivate {
    /// Opens it. To be done after the transaction: it takes its time.
    ///
    /// # Errors
    /// [`DbError::Crypto`] or [`DbError::Damaged`] if it is not what was sealed.
    pub fn open(&self, master: &MasterKey) -> Result<PrivateKek, DbError> {
        let der = master.open(&purpose(self.id), &self.sealed)?;
        PrivateKek::from_pkcs8_der(&der).map_err(|error| DbError::Damaged(format!("{}: {error}", self.name)))
    }
}

/// The private half of a KEK, if the daemon has it and may use it. Each use is a record of the audit.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Refused`] if it is disabled or destroyed, or was never given to the daemon.
pub fn private(w: &mut Write<'_>, id: Uuid, why: &str) -> Result<SealedPrivate, DbError> {
    let kek = get(w.tx(), id)?;
    let name = format!("the KEK {} (version {})", kek.name, kek.kek_version);
    if !matches!(kek.state, KekState::Active | KekState::DecryptOnly) {
        return Err(DbError::Refused(format!("{name} is {}", kek.state)));
    }
    let sql = "SELECT sealed_private FROM keks WHERE id = ?1";
    let sealed: Option<Vec<u8>> =
        w.tx().prepare_cached(sql)?.query_row([id.into_bytes()], |row| row.get(0))?;
    let sealed = sealed.ok_or_else(|| {
        DbError::Refused(format!(
            "{name} is end to end: the daemon has no private half, its owner has to open this"
        ))
    })?;
    w.audit("kek.use", &subject(&kek), None, Some(json!({ "version": kek.kek_version, "for": why })))?;
    Ok(SealedPrivate { id, name, sealed })
}

fn newest_version(db: &Connection, name: &Name) -> Result<u32, DbError> {
    let sql = "SELECT coalesce(max(kek_version), 0) FROM keks WHERE name = ?1";
    Ok(db.prepare_cached(sql)?.query_row([name.as_str()], |row| row.get(0))?)
}

fn in_state(db: &Connection, id: Uuid, states: &[KekState]) -> Result<Kek, DbError> {
    let kek = get(db, id)?;
    if !states.contains(&kek.state) {
        let what = format!("the KEK {} (version {}) is {}", kek.name, kek.kek_version, kek.state);
        return Err(DbError::Conflict(what));
    }
    Ok(kek)
}

fn insert(w: &mut Write<'_>, name: &Name, version: u32, halves: &Checked) -> Result<Kek, DbError> {
    let Checked { public, private } = halves;
    let fingerprint = public.fingerprint();
    if let Some(there) = by_fingerprint(w.tx(), &fingerprint)? {
        let what = format!(
            "this key is there already, as the KEK {} (version {}), which is {}",
            there.name, there.kek_version, there.state
        );
        return Err(DbError::Conflict(what));
    }
    let id = new_id();
    let sealed = match private {
        Some(private) => {
            let der: Zeroizing<Vec<u8>> = private.to_pkcs8_der().map_err(|_| DbError::Crypto)?;
            Some(w.seal(&purpose(id), &der)?)
        }
        None => None,
    };
    let sql = "INSERT INTO keks (id, name, kek_version, fingerprint, public_pem, bits, sealed_private, has_private, state, \
        created_by, created_ms, updated_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'active', ?9, ?10, ?10)";
    w.tx().prepare_cached(sql)?.execute(params![
        id.into_bytes(),
        name.as_str(),
        version,
        fingerprint.0,
        public.to_pem(),
        public.bits(),
        sealed,
        sealed.is_some(),
        w.by().who,
        w.now_ms()
    ])?;
    get(w.tx(), id)
}

fn set_state(w: &Write<'_>, id: Uuid, state: KekState) -> Result<(), DbError> {
    let sql = "UPDATE keks SET state = ?2, version = version + 1, updated_ms = ?3 WHERE id = ?1";
    w.tx().prepare_cached(sql)?.execute(params![id.into_bytes(), state.as_str(), w.now_ms()])?;
    Ok(())
}

fn change(w: &mut Write<'_>, before: &Kek, to: KekState, action: &str) -> Result<Kek, DbError> {
    set_state(w, before.id, to)?;
    let after = get(w.tx(), before.id)?;
    w.audit(action, &subject(before), Some(told(before)), Some(told(&after)))?;
    Ok(after)
}

/// What the audit says of one.
fn told(kek: &Kek) -> serde_json::Value {
    json!({
        "id": kek.id, "version": kek.kek_version, "fingerprint": kek.fingerprint, "bits": kek.bits, "mode": kek.mode,
        "state": kek.state,
    })
}

/// Seals the private halves anew, under another master key.
///
/// # Errors
/// [`DbError::Crypto`] if one is not what was sealed.
pub(super) fn reseal(w: &Write<'_>, new: &MasterKey) -> Result<(), DbError> {
    let mut keks = w.tx().prepare("SELECT id, sealed_private FROM keks WHERE sealed_private IS NOT NULL")?;
    let keks = keks.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (id, sealed) in keks.collect::<Result<Vec<([u8; 16], Vec<u8>)>, _>>()? {
        let sealed = w.reseal(new, &purpose(Uuid::from_bytes(id)), &sealed)?;
        let sql = "UPDATE keks SET sealed_private = ?2 WHERE id = ?1";
        w.tx().prepare_cached(sql)?.execute(params![id, sealed])?;
    }
    Ok(())
}
