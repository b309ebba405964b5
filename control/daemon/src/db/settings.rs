//! Settings: what administrators choose for everybody.
//!
//! Owns the table `settings`, of one row, which is not there as long as nothing was changed. Whoever acts by a setting asks
//! for it when it acts, so that a change holds at once.

#[cfg(test)]
mod tests;

use super::{DbError, Write, keks};
use rusqlite::{Connection, OptionalExtension as _};
use sealift_api::rest::{Name, Settings, SettingsPatch};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ops::RangeInclusive;

const DAY_SECONDS: u32 = 24 * 3600;

/// What is kept of them: those that are missing in an older database are what they are without a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    session_idle_seconds: u32,
    session_seconds: u32,
    agent_certificate_seconds: u32,
    approve_every_agent: bool,
    events_kept: u32,
    events_kept_seconds: u32,
    logs_kept_seconds: u32,
    logs_bytes: u64,
    logs_kek: Option<Name>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            session_idle_seconds: 30 * 60,
            session_seconds: DAY_SECONDS / 2,
            agent_certificate_seconds: DAY_SECONDS,
            approve_every_agent: false,
            events_kept: 100_000,
            events_kept_seconds: 90 * DAY_SECONDS,
            logs_kept_seconds: 30 * DAY_SECONDS,
            logs_bytes: 1 << 30,
            logs_kek: None,
        }
    }
}

/// The settings that hold.
///
/// # Errors
/// Of the database.
pub fn get(db: &Connection) -> Result<Settings, DbError> {
    let mut statement = db.prepare_cached("SELECT kept, version, updated_ms FROM settings")?;
    let row = statement.query_row([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)));
    let Some((text, version, updated_ms)) = row.optional()? else {
        return Ok(shown(Kept::default(), 1, 0));
    };
    let kept = serde_json::from_str(&text);
    Ok(shown(kept.map_err(|error| DbError::Damaged(format!("its settings: {error}")))?, version, updated_ms))
}

fn shown(kept: Kept, version: i64, updated_ms: i64) -> Settings {
    Settings {
        session_idle_seconds: kept.session_idle_seconds,
        session_seconds: kept.session_seconds,
        agent_certificate_seconds: kept.agent_certificate_seconds,
        approve_every_agent: kept.approve_every_agent,
        events_kept: kept.events_kept,
        events_kept_seconds: kept.events_kept_seconds,
        logs_kept_seconds: kept.logs_kept_seconds,
        logs_bytes: kept.logs_bytes,
        logs_kek: kept.logs_kek,
        version,
        updated_ms,
    }
}

/// Changes some of them.
///
/// # Errors
/// [`DbError::Stale`] if they are not of the version; [`DbError::Invalid`] if a value is out of its range.
pub fn update(w: &mut Write<'_>, version: Option<i64>, patch: &SettingsPatch) -> Result<Settings, DbError> {
    let before = get(w.tx())?;
    if version.is_some_and(|version| version != before.version) {
        return Err(DbError::Stale);
    }
    let seconds_max = 3650 * DAY_SECONDS;
    let within = |name, range, value: Option<u32>, before| chosen(name, range, value.map(u64::from), before);
    let after = Kept {
        session_idle_seconds: narrow(within(
            "session_idle_seconds",
            60..=DAY_SECONDS.into(),
            patch.session_idle_seconds,
            before.session_idle_seconds.into(),
        )?),
        session_seconds: narrow(within(
            "session_seconds",
            300..=(30 * DAY_SECONDS).into(),
            patch.session_seconds,
            before.session_seconds.into(),
        )?),
        agent_certificate_seconds: narrow(within(
            "agent_certificate_seconds",
            3600..=(90 * DAY_SECONDS).into(),
            patch.agent_certificate_seconds,
            before.agent_certificate_seconds.into(),
        )?),
        approve_every_agent: patch.approve_every_agent.unwrap_or(before.approve_every_agent),
        events_kept: narrow(within(
            "events_kept",
            1000..=1_000_000,
            patch.events_kept,
            before.events_kept.into(),
        )?),
        events_kept_seconds: narrow(within(
            "events_kept_seconds",
            3600..=seconds_max.into(),
            patch.events_kept_seconds,
            before.events_kept_seconds.into(),
        )?),
        logs_kept_seconds: narrow(within(
            "logs_kept_seconds",
            3600..=seconds_max.into(),
            patch.logs_kept_seconds,
            before.logs_kept_seconds.into(),
        )?),
        logs_bytes: chosen("logs_bytes", 1 << 24..=1 << 40, patch.logs_bytes, before.logs_bytes)?,
        logs_kek: match &patch.logs_kek {
            None => before.logs_kek.clone(),
            Some(name) if name.is_empty() => None,
            Some(name) => Some(kek(w.tx(), name)?),
        },
    };
    if shown(after.clone(), before.version, before.updated_ms) == before {
        return Ok(before);
    }
    let text = serde_json::to_string(&after).map_err(|error| DbError::Invalid(error.to_string()))?;
    let sql = "INSERT INTO settings (id, kept, version, updated_ms) VALUES (1, ?1, ?2, ?3) \
        ON CONFLICT (id) DO UPDATE SET kept = excluded.kept, version = excluded.version, \
            updated_ms = excluded.updated_ms";
    w.tx().prepare_cached(sql)?.execute((text, before.version + 1, w.now_ms()))?;
    let after = get(w.tx())?;
    w.audit("settings.update", "settings", Some(json!(before)), Some(json!(after)))?;
    Ok(after)
}

fn kek(db: &Connection, name: &str) -> Result<Name, DbError> {
    let name = name.parse::<Name>().map_err(|error| DbError::Invalid(format!("'logs_kek': {error}")))?;
    keks::active_of(db, std::slice::from_ref(&name))?;
    Ok(name)
}

fn chosen(name: &str, range: RangeInclusive<u64>, value: Option<u64>, before: u64) -> Result<u64, DbError> {
    let Some(value) = value else { return Ok(before) };
    if range.contains(&value) {
        return Ok(value);
    }
    Err(DbError::Invalid(format!("'{name}' is from {} to {}", range.start(), range.end())))
}

/// Of a value whose range ends below that of its type.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
