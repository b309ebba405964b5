//! Sessions: what stands for a password from a login on, until it is left alone, too old, or ended.

use super::login::NewSession;
use super::parsed;
use crate::db::{Actor, Db, DbError, Write, random, settings};
use data_encoding::BASE64URL_NOPAD;
use rusqlite::{Connection, OptionalExtension as _};
use sealift_api::rest::{Name, Role, User};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use zeroize::Zeroizing;

/// That something is used is written down at most this often: a request is not to cost a transaction.
pub(super) const TOUCH_MS: i64 = 60_000;
/// A user's sessions: a further login ends the oldest.
const SESSIONS_MAX: i64 = 32;

/// Who asks, proved by what was shown with the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user_id: Uuid,
    /// The user's name.
    pub name: Name,
    /// What may be done: of a token never more than its user may do now.
    pub role: Role,
    /// What was shown.
    pub credential: Credential,
    /// The same as it is kept: by this it is asked again whether it still holds.
    pub(super) hash: [u8; 32],
}

/// What proved who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A session's cookie. Browsers send it by themselves, so that a change needs the other half too.
    Session {
        /// That other half.
        csrf: String,
    },
    /// A token of the API, which no browser sends by itself.
    Token {
        /// The token's id.
        id: Uuid,
        /// The token's name.
        name: Name,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Session { .. } => f.write_str("Session"),
            Self::Token { name, .. } => write!(f, "Token({name})"),
        }
    }
}

impl Principal {
    /// Who it is for the audit: `user:NAME`, or `token:USER/NAME`.
    #[must_use]
    pub fn actor(&self, address: &str, request_id: Uuid) -> Actor {
        let who = match &self.credential {
            Credential::Session { .. } => format!("user:{}", self.name),
            Credential::Token { name, .. } => format!("token:{}/{name}", self.name),
        };
        Actor { who, address: address.into(), request_id }
    }

    /// Whether a request that changes something may, by the CSRF token that it brings or does not. How long the answer
    /// takes does not tell how much of it is right.
    #[must_use]
    pub fn may_change(&self, brought: Option<&str>) -> bool {
        match &self.credential {
            Credential::Token { .. } => true,
            Credential::Session { csrf } => {
                brought.is_some_and(|brought| brought.as_bytes().ct_eq(csrf.as_bytes()).into())
            }
        }
    }
}

/// Begins a session. Returns with it what the audit shows of it.
pub(super) fn begin(write: &Write<'_>, user: User) -> Result<(NewSession, Value), DbError> {
    let now_ms = write.now_ms();
    let tx = write.tx();
    let settings = settings::get(tx)?;
    tx.prepare_cached("DELETE FROM sessions WHERE expires_ms <= ?1 OR used_ms <= ?2")?
        .execute((now_ms, now_ms - i64::from(settings.session_idle_seconds) * 1000))?;
    tx.prepare_cached(
        "DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions WHERE user_id = ?1 \
         ORDER BY created_ms DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute((user.id.as_bytes(), SESSIONS_MAX - 1))?;
    let token = Zeroizing::new(BASE64URL_NOPAD.encode(&*random::<32>()?));
    let csrf = random::<32>()?;
    let expires_ms = now_ms + i64::from(settings.session_seconds) * 1000;
    tx.prepare_cached(
        "INSERT INTO sessions (hash, user_id, csrf, address, created_ms, used_ms, expires_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)",
    )?
    .execute((hash_of(&token), user.id.as_bytes(), &*csrf, &write.by().address, now_ms, expires_ms))?;
    let session = NewSession { user, token, csrf: BASE64URL_NOPAD.encode(&*csrf), expires_ms };
    Ok((session, json!({ "expires_ms": expires_ms })))
}

/// Whose session it is; `None` if it is none, has ended, or its user is disabled.
///
/// # Errors
/// If the database cannot be read or written.
pub fn session(db: &Db, token: &str) -> Result<Option<Principal>, DbError> {
    let hash = hash_of(token);
    let now_ms = db.now_ms();
    let Some((principal, used_ms)) = db.read(|file| find(file, &hash, now_ms))? else { return Ok(None) };
    if now_ms - used_ms >= TOUCH_MS {
        db.write(&Actor::system(), |write| {
            let sql = "UPDATE sessions SET used_ms = max(used_ms, ?2) WHERE hash = ?1";
            write.tx().prepare_cached(sql)?.execute((hash, now_ms))?;
            Ok(())
        })?;
    }
    Ok(Some(principal))
}

/// Whether what somebody has shown still holds, and allows as much as it did. To ask is no use of it: a session that is
/// only watched ends like one that is left alone.
///
/// # Errors
/// If the database cannot be read.
pub fn still(file: &Connection, principal: &Principal, now_ms: i64) -> Result<bool, DbError> {
    let now = match &principal.credential {
        Credential::Session { .. } => find(file, &principal.hash, now_ms)?.map(|(now, _)| now),
        Credential::Token { .. } => super::tokens::find(file, &principal.hash, now_ms)?.map(|(now, _)| now),
    };
    Ok(now.is_some_and(|now| now.role >= principal.role))
}

fn find(file: &Connection, hash: &[u8; 32], now_ms: i64) -> Result<Option<(Principal, i64)>, DbError> {
    let idle_ms = i64::from(settings::get(file)?.session_idle_seconds) * 1000;
    let mut statement = file.prepare_cached(
        "SELECT users.id, name, role, csrf, used_ms FROM sessions JOIN users ON users.id = user_id \
         WHERE hash = ?1 AND NOT disabled AND expires_ms > ?2 AND used_ms > ?3",
    )?;
    let found = statement.query_row((hash, now_ms, now_ms - idle_ms), |row| {
        let csrf = BASE64URL_NOPAD.encode(&row.get::<_, [u8; 32]>(3)?);
        let principal = Principal {
            user_id: Uuid::from_bytes(row.get(0)?),
            name: parsed(row, 1, |text: String| text.try_into().ok())?,
            role: parsed(row, 2, |text: String| Role::from_word(&text))?,
            credential: Credential::Session { csrf },
            hash: *hash,
        };
        Ok((principal, row.get(4)?))
    });
    Ok(found.optional()?)
}

/// Ends a session; nothing happens if it has ended.
///
/// # Errors
/// If the database cannot be written.
pub fn logout(db: &Db, by: &Actor, token: &str) -> Result<(), DbError> {
    let hash = hash_of(token);
    db.write(by, |write| {
        let sql = "SELECT name FROM sessions JOIN users ON users.id = user_id WHERE hash = ?1";
        let name = write.tx().prepare_cached(sql)?.query_row([hash], |row| row.get::<_, String>(0));
        let Some(name) = name.optional()? else { return Ok(()) };
        write.tx().prepare_cached("DELETE FROM sessions WHERE hash = ?1")?.execute([hash])?;
        write.audit("logout", &format!("user:{name}"), None, None)
    })
}

/// Ends all sessions of a user. Tokens of the API stay.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn logout_everywhere(db: &Db, by: &Actor, user: Uuid) -> Result<(), DbError> {
    db.write(by, |write| {
        let name = super::get(write.tx(), user)?.name;
        let ended = end_all(write, user)?;
        write.audit("logout.everywhere", &format!("user:{name}"), Some(json!({ "sessions": ended })), None)
    })
}

pub(super) fn end_all(write: &Write<'_>, user: Uuid) -> Result<usize, DbError> {
    let sql = "DELETE FROM sessions WHERE user_id = ?1";
    Ok(write.tx().prepare_cached(sql)?.execute([user.as_bytes()])?)
}

/// What is kept of a secret that only has to be recognised: 256 random bits need no slow hash.
pub(super) fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
