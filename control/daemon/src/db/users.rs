//! Users: who may use the API, and as what.
//!
//! Owns the tables `users`, `sessions`, `api_tokens` and `lockouts`. There is always an enabled administrator, once there
//! has been one. What is refused leaves a record too, in a transaction of its own; no record holds a password or a token.
//!
//! - `password`: what a password must be, and its hash
//! - `login`: who is let in, and `lockout`: who is not for a while
//! - `session`, `tokens`: what is shown with each request, and whose it is

mod lockout;
mod login;
mod password;
mod session;
#[cfg(test)]
mod tests;
mod tokens;

pub use lockout::unlock;
pub use login::{LoginOutcome, NewSession, change_password, login};
pub(super) use password::Hashing;
pub use session::{Credential, Principal, logout, logout_everywhere, session, still};
pub use tokens::{create_token, create_token_and, get_token, list_tokens, revoke_token, token};

use super::{Actor, Db, DbError, Write, new_id};
use password::PasswordHash;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension as _, Row};
use sealift_api::rest::{Name, NewUser, Page, Role, User, UserPatch};
use serde_json::{Value, json};
use uuid::Uuid;

const SELECT: &str = "SELECT id, name, role, disabled, version, created_ms, updated_ms FROM users";

/// The user of the id.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn get(file: &Connection, id: Uuid) -> Result<User, DbError> {
    let mut statement = file.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    statement.query_row([id.as_bytes()], from_row).optional()?.ok_or(DbError::NotFound("user"))
}

/// The user of the name.
///
/// # Errors
/// [`DbError::NotFound`].
pub fn by_name(file: &Connection, name: &Name) -> Result<User, DbError> {
    let mut statement = file.prepare_cached(&format!("{SELECT} WHERE name = ?1"))?;
    statement.query_row([name.as_str()], from_row).optional()?.ok_or(DbError::NotFound("user"))
}

/// Users by name, those after the cursor.
///
/// # Errors
/// If they cannot be read.
pub fn list(file: &Connection, after: Option<&str>, limit: usize) -> Result<Page<User>, DbError> {
    let mut statement = file.prepare_cached(&format!("{SELECT} WHERE name > ?1 ORDER BY name LIMIT ?2"))?;
    let rows = statement.query_map((after.unwrap_or_default(), one_more(limit)), from_row)?;
    Ok(Page::of(rows.collect::<Result<_, _>>()?, limit, |user| user.name.to_string()))
}

/// Makes a user. Slow on purpose: the password is hashed.
///
/// # Errors
/// [`DbError::Invalid`] if the password will not do; [`DbError::Conflict`] if the name is taken.
pub fn create(db: &Db, by: &Actor, new: &NewUser) -> Result<User, DbError> {
    create_and(db, by, new, |_, _| Ok(()))
}

/// Makes a user, and does something more in the same transaction.
///
/// # Errors
/// Those of [`create`], and of what is done more.
pub fn create_and(
    db: &Db,
    by: &Actor,
    new: &NewUser,
    more: impl FnOnce(&mut Write<'_>, &User) -> Result<(), DbError>,
) -> Result<User, DbError> {
    let hash = db.shared.hashing.hash(&new.password)?;
    let subject = format!("user:{}", new.name);
    change(db, by, "user.create", &subject, |write| {
        let now_ms = write.now_ms();
        let user = User {
            id: new_id(),
            name: new.name.clone(),
            role: new.role,
            disabled: false,
            version: 1,
            created_ms: now_ms,
            updated_ms: now_ms,
        };
        write
            .tx()
            .prepare_cached(
                "INSERT INTO users (id, name, role, password, created_ms, updated_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            )?
            .execute((user.id.as_bytes(), user.name.as_str(), user.role.as_str(), hash.as_str(), now_ms))
            .map_err(DbError::taken(format!("another user is called {}", user.name)))?;
        write.audit("user.create", &subject, None, Some(shown(&user)))?;
        more(write, &user)?;
        Ok(user)
    })
}

/// Changes a user. If a version is given, it must still be the user's. Another password, and being disabled, end the user's
/// sessions.
///
/// # Errors
/// [`DbError::NotFound`], [`DbError::Stale`]; [`DbError::Invalid`] if the password will not do; [`DbError::Refused`] if no
/// enabled administrator would be left.
pub fn update(
    db: &Db,
    by: &Actor,
    id: Uuid,
    version: Option<i64>,
    patch: &UserPatch,
) -> Result<User, DbError> {
    let hash = patch.password.as_deref().map(|password| db.shared.hashing.hash(password)).transpose()?;
    change(db, by, "user.update", &subject_of(db, id)?, |write| {
        let before = get_version(write, id, version)?;
        let role = patch.role.unwrap_or(before.role);
        let disabled = patch.disabled.unwrap_or(before.disabled);
        if role != Role::Administrator || disabled {
            refuse_without_administrator(write, &before)?;
        }
        if role == before.role && disabled == before.disabled && hash.is_none() {
            return Ok(before);
        }
        let sql = "UPDATE users SET role = ?2, disabled = ?3, version = version + 1, updated_ms = ?4 \
            WHERE id = ?1";
        write.tx().prepare_cached(sql)?.execute((id.as_bytes(), role.as_str(), disabled, write.now_ms()))?;
        if let Some(hash) = &hash {
            put_password(write, id, hash)?;
        }
        if disabled || hash.is_some() {
            session::end_all(write, id)?;
        }
        let after = get(write.tx(), id)?;
        let mut shown_after = shown(&after);
        if hash.is_some() {
            shown_after["password"] = json!("changed");
        }
        write.audit(
            "user.update",
            &format!("user:{}", after.name),
            Some(shown(&before)),
            Some(shown_after),
        )?;
        Ok(after)
    })
}

/// Deletes a user, with sessions and tokens. If a version is given, it must still be the user's.
///
/// # Errors
/// [`DbError::NotFound`], [`DbError::Stale`]; [`DbError::Refused`] if no enabled administrator would be left.
pub fn delete(db: &Db, by: &Actor, id: Uuid, version: Option<i64>) -> Result<(), DbError> {
    change(db, by, "user.delete", &subject_of(db, id)?, |write| {
        let user = get_version(write, id, version)?;
        refuse_without_administrator(write, &user)?;
        write.tx().prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([id.as_bytes()])?;
        write.audit("user.delete", &format!("user:{}", user.name), Some(shown(&user)), None)
    })
}

/// One transaction; if it is refused, a record says so in a transaction of its own.
fn change<T>(
    db: &Db,
    by: &Actor,
    action: &str,
    subject: &str,
    work: impl FnOnce(&mut Write<'_>) -> Result<T, DbError>,
) -> Result<T, DbError> {
    let result = db.write(by, work);
    if let Err(error @ (DbError::Refused(_) | DbError::Conflict(_))) = &result {
        db.record(by, &format!("{action}.refused"), subject, Some(json!({ "why": error.to_string() })))?;
    }
    result
}

fn get_version(write: &Write<'_>, id: Uuid, version: Option<i64>) -> Result<User, DbError> {
    let user = get(write.tx(), id)?;
    if version.is_some_and(|version| version != user.version) { Err(DbError::Stale) } else { Ok(user) }
}

/// To be asked before this user ceases to be an enabled administrator.
fn refuse_without_administrator(write: &Write<'_>, user: &User) -> Result<(), DbError> {
    let sql = "SELECT count(*) FROM users WHERE role = 'administrator' AND NOT disabled AND id <> ?1";
    let others: i64 = write.tx().prepare_cached(sql)?.query_row([user.id.as_bytes()], |row| row.get(0))?;
    if user.role == Role::Administrator && !user.disabled && others == 0 {
        let what = format!("{} is the only administrator who can log in: make another one first", user.name);
        return Err(DbError::Refused(what));
    }
    Ok(())
}

fn put_password(write: &Write<'_>, id: Uuid, hash: &PasswordHash) -> Result<(), DbError> {
    let sql = "UPDATE users SET password = ?2 WHERE id = ?1";
    write.tx().prepare_cached(sql)?.execute((id.as_bytes(), hash.as_str()))?;
    Ok(())
}

fn subject_of(db: &Db, id: Uuid) -> Result<String, DbError> {
    db.read(|file| get(file, id)).map(|user| format!("user:{}", user.name))
}

/// What the audit shows of a user.
fn shown(user: &User) -> Value {
    json!({ "id": user.id, "role": user.role, "disabled": user.disabled })
}

fn from_row(row: &Row<'_>) -> Result<User, rusqlite::Error> {
    Ok(User {
        id: Uuid::from_bytes(row.get(0)?),
        name: parsed(row, 1, |text: String| text.try_into().ok())?,
        role: parsed(row, 2, |text: String| Role::from_word(&text))?,
        disabled: row.get(3)?,
        version: row.get(4)?,
        created_ms: row.get(5)?,
        updated_ms: row.get(6)?,
    })
}

fn parsed<C: FromSql, T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(C) -> Option<T>,
) -> Result<T, rusqlite::Error> {
    let damaged =
        || rusqlite::Error::InvalidColumnType(column, "is damaged".to_owned(), rusqlite::types::Type::Null);
    parse(row.get(column)?).ok_or_else(damaged)
}

/// The surplus item tells that there is a next page.
fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}
