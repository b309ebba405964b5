//! Tokens of the API: what a program shows instead of a session.

use super::session::{Credential, Principal, TOUCH_MS, hash_of};
use super::{change, get, one_more, parsed};
use crate::db::{Actor, Db, DbError, Write, new_id, random};
use data_encoding::BASE64URL_NOPAD;
use rusqlite::{Connection, OptionalExtension as _, Row};
use sealift_api::rest::limits::API_TOKEN_SECONDS_MAX;
use sealift_api::rest::{ApiToken, NewApiToken, NewApiTokenSecret, Page, Role};
use serde_json::{Value, json};
use uuid::Uuid;

/// By which a secret that was found somewhere is known for what it is.
const PREFIX: &str = "slapi1";
/// Tokens of a user that have neither ended nor been revoked.
const TOKENS_MAX: i64 = 256;

const SELECT: &str =
    "SELECT id, name, user_id, role, created_ms, expires_ms, used_ms, revoked_ms FROM api_tokens";

/// Makes a token of a user. Its secret is in the answer, and nowhere else.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Invalid`] if it would hold for too long; [`DbError::Refused`] if its role is above the
/// user's; [`DbError::Conflict`] if the user has one of that name that still holds.
pub fn create_token(
    db: &Db,
    by: &Actor,
    user: Uuid,
    new: &NewApiToken,
) -> Result<NewApiTokenSecret, DbError> {
    create_token_and(db, by, user, new, |_, _| Ok(()))
}

/// Makes a token, and does something more in the same transaction.
///
/// # Errors
/// Those of [`create_token`], and of what is done more.
pub fn create_token_and(
    db: &Db,
    by: &Actor,
    user: Uuid,
    new: &NewApiToken,
    more: impl FnOnce(&mut Write<'_>, &NewApiTokenSecret) -> Result<(), DbError>,
) -> Result<NewApiTokenSecret, DbError> {
    let user = db.read(|file| get(file, user))?;
    let seconds = i64::from(new.expires_in_seconds);
    if !(1..=i64::from(API_TOKEN_SECONDS_MAX)).contains(&seconds) {
        return Err(DbError::Invalid(format!("a token holds for 1 to {API_TOKEN_SECONDS_MAX} seconds")));
    }
    let secret = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&*random::<32>()?));
    let subject = format!("token:{}/{}", user.name, new.name);
    change(db, by, "token.create", &subject, |write| {
        // Looked at again: it may have been changed.
        let user = get(write.tx(), user.id)?;
        if new.role > user.role {
            return Err(DbError::Refused(format!(
                "{} is only {}, and no {}",
                user.name, user.role, new.role
            )));
        }
        let now_ms = write.now_ms();
        let sql = "SELECT count(*), count(*) FILTER (WHERE name = ?3) FROM api_tokens \
            WHERE user_id = ?1 AND revoked_ms IS NULL AND expires_ms > ?2";
        let (all, of_the_name): (i64, i64) = write
            .tx()
            .prepare_cached(sql)?
            .query_row((user.id.as_bytes(), now_ms, new.name.as_str()), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if of_the_name > 0 {
            return Err(DbError::Conflict(format!("{} has a token {} already", user.name, new.name)));
        }
        if all >= TOKENS_MAX {
            return Err(DbError::Conflict(format!("{} has {all} tokens: revoke some first", user.name)));
        }
        let token = ApiToken {
            id: new_id(),
            name: new.name.clone(),
            user_id: user.id,
            role: new.role,
            created_ms: now_ms,
            expires_ms: now_ms + seconds * 1000,
            used_ms: None,
            revoked_ms: None,
        };
        write
            .tx()
            .prepare_cached(
                "INSERT INTO api_tokens (id, name, hash, user_id, role, created_ms, expires_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                token.id.as_bytes(),
                token.name.as_str(),
                hash_of(&secret),
                user.id.as_bytes(),
                token.role.as_str(),
                token.created_ms,
                token.expires_ms,
            ))?;
        write.audit("token.create", &subject, None, Some(shown(&token)))?;
        let made = NewApiTokenSecret { token, secret };
        more(write, &made)?;
        Ok(made)
    })
}

/// Tokens by age, the oldest first, those after the cursor: of one user, or of all. Also those that hold no more.
///
/// # Errors
/// [`DbError::Invalid`] if the cursor is none.
pub fn list_tokens(
    file: &Connection,
    user: Option<Uuid>,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<ApiToken>, DbError> {
    let after = after.map(Uuid::try_parse).transpose();
    let after = after.map_err(|_| DbError::Invalid("the cursor is none of this list".into()))?;
    let after = after.unwrap_or_default();
    let user = user.as_ref().map(Uuid::as_bytes);
    let mut statement = file.prepare_cached(&format!(
        "{SELECT} WHERE id > ?1 AND (?2 IS NULL OR user_id = ?2) ORDER BY id LIMIT ?3"
    ))?;
    let rows = statement.query_map((after.as_bytes(), user, one_more(limit)), from_row)?;
    Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |token| token.id.to_string()))
}

/// The token of the id.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn get_token(file: &Connection, id: Uuid) -> Result<ApiToken, DbError> {
    let mut statement = file.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    statement.query_row([id.as_bytes()], from_row).optional()?.ok_or(DbError::NotFound("token"))
}

/// Revokes a token, for good; nothing happens if it was revoked already.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn revoke_token(db: &Db, by: &Actor, id: Uuid) -> Result<ApiToken, DbError> {
    db.write(by, |write| {
        let before = get_token(write.tx(), id)?;
        if before.revoked_ms.is_some() {
            return Ok(before);
        }
        let user = get(write.tx(), before.user_id)?;
        let sql = "UPDATE api_tokens SET revoked_ms = ?2 WHERE id = ?1";
        write.tx().prepare_cached(sql)?.execute((id.as_bytes(), write.now_ms()))?;
        let after = get_token(write.tx(), id)?;
        let subject = format!("token:{}/{}", user.name, after.name);
        write.audit("token.revoke", &subject, Some(shown(&before)), Some(shown(&after)))?;
        Ok(after)
    })
}

/// Whose token it is; `None` if it is none, holds no more, or its user is disabled.
///
/// # Errors
/// If the database cannot be read or written.
pub fn token(db: &Db, secret: &str) -> Result<Option<Principal>, DbError> {
    if !secret.starts_with(PREFIX) {
        return Ok(None);
    }
    let hash = hash_of(secret);
    let now_ms = db.now_ms();
    let Some((principal, used_ms)) = db.read(|file| find(file, &hash, now_ms))? else { return Ok(None) };
    if used_ms.is_none_or(|used_ms| now_ms - used_ms >= TOUCH_MS) {
        db.write(&Actor::system(), |write| {
            let sql = "UPDATE api_tokens SET used_ms = ?2 WHERE hash = ?1";
            write.tx().prepare_cached(sql)?.execute((hash, now_ms))?;
            Ok(())
        })?;
    }
    Ok(Some(principal))
}

pub(super) fn find(
    file: &Connection,
    hash: &[u8; 32],
    now_ms: i64,
) -> Result<Option<(Principal, Option<i64>)>, DbError> {
    let mut statement = file.prepare_cached(
        "SELECT users.id, users.name, users.role, token.role, token.id, token.name, token.used_ms \
         FROM api_tokens AS token JOIN users ON users.id = token.user_id \
         WHERE token.hash = ?1 AND NOT users.disabled AND token.revoked_ms IS NULL AND token.expires_ms > ?2",
    )?;
    let found = statement.query_row((hash, now_ms), |row| {
        let role = |column| parsed(row, column, |text: String| Role::from_word(&text));
        let credential = Credential::Token {
            id: Uuid::from_bytes(row.get(4)?),
            name: parsed(row, 5, |text: String| text.try_into().ok())?,
        };
        let principal = Principal {
            user_id: Uuid::from_bytes(row.get(0)?),
            name: parsed(row, 1, |text: String| text.try_into().ok())?,
            role: role(2)?.min(role(3)?),
            credential,
            hash: *hash,
        };
        Ok((principal, row.get(6)?))
    });
    Ok(found.optional()?)
}

fn from_row(row: &Row<'_>) -> Result<ApiToken, rusqlite::Error> {
    Ok(ApiToken {
        id: Uuid::from_bytes(row.get(0)?),
        name: parsed(row, 1, |text: String| text.try_into().ok())?,
        user_id: Uuid::from_bytes(row.get(2)?),
        role: parsed(row, 3, |text: String| Role::from_word(&text))?,
        created_ms: row.get(4)?,
        expires_ms: row.get(5)?,
        used_ms: row.get(6)?,
        revoked_ms: row.get(7)?,
    })
}

/// What the audit shows of a token.
fn shown(token: &ApiToken) -> Value {
    json!({
        "id": token.id, "role": token.role, "expires_ms": token.expires_ms, "revoked_ms": token.revoked_ms,
    })
}
