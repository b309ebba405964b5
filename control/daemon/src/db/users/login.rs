//! Logins, and changes of one's own password: who knows the password.
//!
//! Who is not let in is not told why: a name that nobody has, a wrong password and a disabled account get the same answer
//! after the same work, and are locked out alike. A failed login is an outcome, not an error, so that its record and its
//! count stay.

use super::lockout::Subjects;
use super::password::{PasswordHash, Verdict};
use super::{get, parsed, put_password, session};
use crate::db::{Actor, Db, DbError, Refusal, Write};
use rusqlite::{Connection, OptionalExtension as _};
use sealift_api::rest::{Name, PasswordChange, User};
use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

/// A session that was begun.
pub struct NewSession {
    /// Who has logged in.
    pub user: User,
    /// What the cookie holds: shown to nobody else, and not kept.
    pub token: Zeroizing<String>,
    /// What each request that changes something must bring beside the cookie.
    pub csrf: String,
    /// When the session ends at the latest, in milliseconds since 1970.
    pub expires_ms: i64,
}

/// What became of a login.
#[must_use]
pub enum LoginOutcome {
    /// The password was right.
    Session(Box<NewSession>),
    /// There is no such account, or the password was wrong, or the account is disabled.
    Refused,
    /// There were too many failures, of this name or from this address.
    Locked {
        /// Until when nothing is tried, in milliseconds since 1970.
        until_ms: i64,
    },
    /// Too many log in at once: nothing was tried. To be asked again.
    Busy,
}

/// Lets a user in who knows the password. Slow on purpose. `by` is who asks: still anonymous, from this address.
///
/// # Errors
/// If the database cannot be read or written.
pub fn login(db: &Db, by: &Actor, name: &str, password: &str) -> Result<LoginOutcome, DbError> {
    let account = Account::find(db, name)?;
    let outcome = attempt(db, by, account, name, password, |write, account| {
        let (session, record) = session::begin(write, get(write.tx(), account.id)?)?;
        write.audit_as(&account.actor(by), "login.ok", &account.subject(), None, Some(record))?;
        Ok(session)
    })?;
    Ok(match outcome {
        Attempt::Known(session) => LoginOutcome::Session(Box::new(session)),
        Attempt::Refused => LoginOutcome::Refused,
        Attempt::Locked { until_ms } => LoginOutcome::Locked { until_ms },
        Attempt::Busy => LoginOutcome::Busy,
    })
}

/// Changes somebody's own password, who must know the one that holds. Ends all their sessions, the asking one too. Slow on
/// purpose.
///
/// # Errors
/// [`DbError::Refused`] if the present password is another, or was guessed at too often; [`DbError::Invalid`] if the new one
/// will not do.
pub fn change_password(db: &Db, by: &Actor, id: Uuid, change: &PasswordChange) -> Result<User, DbError> {
    let name = db.read(|file| get(file, id))?.name;
    let hash = db.shared.hashing.hash(&change.new)?;
    let account = Account::find(db, name.as_str())?;
    let outcome = attempt(db, by, account, name.as_str(), &change.current, |write, account| {
        put_password(write, account.id, &hash)?;
        let sql = "UPDATE users SET version = version + 1, updated_ms = ?2 WHERE id = ?1";
        write.tx().prepare_cached(sql)?.execute((account.id.as_bytes(), write.now_ms()))?;
        session::end_all(write, account.id)?;
        write.audit("user.password", &account.subject(), None, Some(json!({ "password": "changed" })))?;
        get(write.tx(), account.id)
    })?;
    let why = match outcome {
        Attempt::Known(user) => return Ok(user),
        Attempt::Refused => "the present password is another",
        Attempt::Locked { .. } => "the present password was guessed at too often: wait, and try again",
        Attempt::Busy => "too many log in at the moment: try again",
    };
    Err(DbError::Refused(why.into()))
}

struct Account {
    id: Uuid,
    name: Name,
    password: PasswordHash,
    disabled: bool,
}

impl Account {
    /// Upper case is understood, though no name has it.
    fn find(db: &Db, name: &str) -> Result<Option<Self>, DbError> {
        let Ok(name) = Name::try_from(name.to_ascii_lowercase()) else { return Ok(None) };
        db.read(|file| Self::by_name(file, &name))
    }

    fn by_name(file: &Connection, name: &Name) -> Result<Option<Self>, DbError> {
        let sql = "SELECT id, name, password, disabled FROM users WHERE name = ?1";
        let account = file.prepare_cached(sql)?.query_row([name.as_str()], |row| {
            Ok(Self {
                id: Uuid::from_bytes(row.get(0)?),
                name: parsed(row, 1, |text: String| text.try_into().ok())?,
                password: PasswordHash::kept(row.get(2)?),
                disabled: row.get(3)?,
            })
        });
        Ok(account.optional()?)
    }

    /// Whether it is still what the password was compared with.
    fn is_still(&self, file: &Connection) -> Result<bool, DbError> {
        let now = Self::by_name(file, &self.name)?;
        Ok(now.is_some_and(|now| now.id == self.id && now.password == self.password && !now.disabled))
    }

    fn actor(&self, by: &Actor) -> Actor {
        Actor { who: self.subject(), ..by.clone() }
    }

    fn subject(&self) -> String {
        format!("user:{}", self.name)
    }
}

enum Attempt<T> {
    Known(T),
    Refused,
    Locked { until_ms: i64 },
    Busy,
}

/// Compares a password, counts and records it if it is wrong, and does the rest in the same transaction if it is right.
fn attempt<T>(
    db: &Db,
    by: &Actor,
    account: Option<Account>,
    typed: &str,
    password: &str,
    known: impl FnOnce(&mut Write<'_>, &Account) -> Result<T, DbError>,
) -> Result<Attempt<T>, DbError> {
    let subjects = match &account {
        Some(account) => Subjects::of_user(&account.name, &by.address),
        None => Subjects::of_unknown(db, typed, &by.address)?,
    };
    // Of a name that nobody has, the text stays out of the record: it may be a password in the wrong field.
    let subject = account.as_ref().map_or_else(|| "user:?".to_owned(), Account::subject);
    let locked = |until_ms: i64| {
        let after = json!({ "until_ms": until_ms });
        // Each account that there is has a record of its own; names that nobody has are one kind.
        Refusal { action: "login.locked", subject: &subject, why: &subject, after }
    };
    if let Some(until_ms) = db.read(|file| subjects.locked_until(file, db.now_ms()))? {
        db.refuse(by, &locked(until_ms))?;
        return Ok(Attempt::Locked { until_ms });
    }
    let kept = account.as_ref().map(|account| &account.password);
    let verdict = db.shared.hashing.verify(password, kept)?;
    if verdict == Verdict::Busy {
        return Ok(Attempt::Busy);
    }
    db.write(by, |write| {
        // Many may have been compared at once: after the one that locks, none is told whether it was right.
        if let Some(until_ms) = subjects.locked_until(write.tx(), write.now_ms())? {
            write.refuse(by, &locked(until_ms))?;
            return Ok(Attempt::Locked { until_ms });
        }
        let why = match &account {
            None => "unknown",
            Some(_) if verdict != Verdict::Right => "password",
            Some(account) if !account.is_still(write.tx())? => "disabled",
            Some(account) => {
                subjects.forget_account(write)?;
                return Ok(Attempt::Known(known(write, account)?));
            }
        };
        let locked_until_ms = subjects.failed(write)?;
        let record = json!({ "why": why, "locked_until_ms": locked_until_ms });
        write.audit_as(by, "login.refused", &subject, None, Some(record))?;
        Ok(Attempt::Refused)
    })
}
