//! Lockouts: after some failures an account, and an address, is not listened to for a while.
//!
//! A name that nobody has is counted as well, so that it is answered like any other. It is kept as a keyed hash: what is
//! typed as a name is sometimes a password.

use crate::db::{Actor, Db, DbError, Write};
use data_encoding::HEXLOWER;
use rusqlite::{Connection, OptionalExtension as _};
use sealift_api::rest::Name;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};

/// The failure that locks.
const FAILURES_MAX: i64 = 5;
const LOCK_MS: i64 = 60_000;
const LOCK_MS_MAX: i64 = 3_600_000;
/// An account's failures are forgotten when it was left alone for so long, or its password was right.
const ACCOUNT_FORGETS_MS: i64 = 24 * 3_600_000;
/// An address's only when it was left alone: one good account behind it is not to excuse guessing at others.
const ADDRESS_FORGETS_MS: i64 = 3_600_000;

/// Whom a login's failure counts against.
pub(super) struct Subjects {
    account: String,
    address: Option<String>,
}

impl Subjects {
    pub(super) fn of_user(name: &Name, address: &str) -> Self {
        Self { account: format!("account:{name}"), address: address_subject(address) }
    }

    pub(super) fn of_unknown(db: &Db, name: &str, address: &str) -> Result<Self, DbError> {
        let tag = db.tag("lockout", name.as_bytes())?;
        Ok(Self { account: format!("unknown:{}", HEXLOWER.encode(&tag)), address: address_subject(address) })
    }

    fn each(&self) -> impl Iterator<Item = (&str, i64)> {
        let address = self.address.as_deref().map(|address| (address, ADDRESS_FORGETS_MS));
        std::iter::once((self.account.as_str(), ACCOUNT_FORGETS_MS)).chain(address)
    }

    /// Until when neither is listened to, if that is still to come.
    pub(super) fn locked_until(&self, file: &Connection, now_ms: i64) -> Result<Option<i64>, DbError> {
        let mut latest = None;
        for (subject, _) in self.each() {
            let until = row(file, subject)?.map(|row| row.locked_until_ms).filter(|until| *until > now_ms);
            latest = latest.max(until);
        }
        Ok(latest)
    }

    /// Counts a failure. Returns until when it locks, if it does.
    pub(super) fn failed(&self, write: &Write<'_>) -> Result<Option<i64>, DbError> {
        let now_ms = write.now_ms();
        let sql = "DELETE FROM lockouts WHERE last_ms < ?1 AND locked_until_ms < ?1";
        write.tx().prepare_cached(sql)?.execute([now_ms - ACCOUNT_FORGETS_MS])?;
        let mut latest = None;
        for (subject, forgets_ms) in self.each() {
            let known = row(write.tx(), subject)?
                .filter(|row| now_ms - row.last_ms.max(row.locked_until_ms) < forgets_ms);
            let failures = known.map_or(0, |row| row.failures) + 1;
            let until = lock_ms(failures).map(|lock_ms| now_ms + lock_ms);
            write
                .tx()
                .prepare_cached(
                    "INSERT INTO lockouts (subject, failures, last_ms, locked_until_ms) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (subject) DO UPDATE \
                     SET failures = excluded.failures, last_ms = excluded.last_ms, \
                         locked_until_ms = excluded.locked_until_ms",
                )?
                .execute((subject, failures, now_ms, until.unwrap_or(0)))?;
            latest = latest.max(until);
        }
        Ok(latest)
    }

    /// The password was right.
    pub(super) fn forget_account(&self, write: &Write<'_>) -> Result<(), DbError> {
        forget(write, &self.account).map(|_| ())
    }
}

/// Lets a user try again at once who has been locked out.
///
/// # Errors
/// If it cannot be written.
pub fn unlock(db: &Db, by: &Actor, name: &Name) -> Result<(), DbError> {
    db.write(by, |write| {
        let was_counted = forget(write, &format!("account:{name}"))?;
        write.audit("user.unlock", &format!("user:{name}"), Some(json!({ "failures": was_counted })), None)
    })
}

struct Lockout {
    failures: i64,
    last_ms: i64,
    locked_until_ms: i64,
}

fn row(file: &Connection, subject: &str) -> Result<Option<Lockout>, DbError> {
    let sql = "SELECT failures, last_ms, locked_until_ms FROM lockouts WHERE subject = ?1";
    let row = file.prepare_cached(sql)?.query_row([subject], |row| {
        Ok(Lockout { failures: row.get(0)?, last_ms: row.get(1)?, locked_until_ms: row.get(2)? })
    });
    Ok(row.optional()?)
}

/// Returns whether there was anything to forget.
fn forget(write: &Write<'_>, subject: &str) -> Result<bool, DbError> {
    let sql = "DELETE FROM lockouts WHERE subject = ?1";
    Ok(write.tx().prepare_cached(sql)?.execute([subject])? > 0)
}

/// How long this failure locks: a minute, and twice as long each time, up to an hour.
fn lock_ms(failures: i64) -> Option<i64> {
    let beyond = failures - FAILURES_MAX;
    (beyond >= 0).then(|| (LOCK_MS << beyond.min(16)).min(LOCK_MS_MAX))
}

/// Who has an IPv6 address has 2⁶⁴ of them.
fn address_subject(address: &str) -> Option<String> {
    let parsed =
        address.parse::<IpAddr>().or_else(|_| address.parse::<SocketAddr>().map(|address| address.ip()));
    match parsed.map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => Some(format!("address:{address}")),
        Ok(IpAddr::V6(address)) => {
            let network = u128::from(address) >> 64 << 64;
            Some(format!("address:{}/64", std::net::Ipv6Addr::from(network)))
        }
        Err(_) if address.is_empty() => None,
        Err(_) => Some(format!("address:{address}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_a_minute_at_the_fifth_failure_and_never_longer_than_an_hour() {
        let minutes = |failures| lock_ms(failures).map(|ms| ms / 60_000);
        assert_eq!(
            [4, 5, 6, 7, 10, 11, 12].map(minutes),
            [None, Some(1), Some(2), Some(4), Some(32), Some(60), Some(60)]
        );
        assert_eq!(minutes(i64::MAX), Some(60));
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_one_is_ipv4() {
        let subject = |address| address_subject(address).unwrap();
        assert_eq!(subject("2001:db8:1:2:3:4:5:6"), "address:2001:db8:1:2::/64");
        assert_eq!(subject("2001:db8:1:2::9"), subject("[2001:db8:1:2:ffff::1]:443"));
        assert_eq!(subject("::ffff:192.0.2.7"), "address:192.0.2.7");
        assert_eq!(address_subject(""), None);
    }
}
