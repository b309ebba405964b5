//! Passwords: what one must be, its hash (Argon2id with OWASP's parameters), and how many are hashed at a time.

use crate::db::{DbError, lock};
use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use sealift_api::rest::limits::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Logins that wait for their turn, each on a thread of its own.
const WAITING_MAX: usize = 32;

/// A password's hash, as it is kept: a PHC string.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PasswordHash(String);

impl PasswordHash {
    /// What was kept.
    pub(super) fn kept(text: String) -> Self {
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lets one password be hashed at a time: each takes 19 MiB and a core, and who asks has not shown yet who they are.
#[derive(Default)]
pub(in crate::db) struct Hashing {
    turn: Mutex<()>,
    waiting: AtomicUsize,
}

/// What a password was found to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many wait already: nothing was found out.
    Busy,
}

impl Hashing {
    /// The hash of a new password.
    pub(super) fn hash(&self, password: &str) -> Result<PasswordHash, DbError> {
        if password.chars().count() < PASSWORD_CHARS_MIN {
            return Err(DbError::Invalid(format!("a password has at least {PASSWORD_CHARS_MIN} characters")));
        }
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(DbError::Invalid(format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
        }
        let _turn = lock(&self.turn);
        hash(password)
    }

    /// Whether it is the password. Without a hash, as nobody has that name, it takes as long.
    pub(super) fn verify(&self, password: &str, kept: Option<&PasswordHash>) -> Result<Verdict, DbError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(Verdict::Wrong);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Ok(Verdict::Busy);
        }
        let turn = lock(&self.turn);
        let verdict = match kept {
            None => hash(password).map(|_| Verdict::Wrong),
            Some(kept) => match argon2()?.verify_password(password.as_bytes(), kept.as_str()) {
                Ok(()) => Ok(Verdict::Right),
                Err(password_hash::Error::PasswordInvalid) => Ok(Verdict::Wrong),
                Err(_) => Err(DbError::Damaged("a kept password cannot be read".into())),
            },
        };
        drop(turn);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        verdict
    }
}

fn hash(password: &str) -> Result<PasswordHash, DbError> {
    let hash = argon2()?.hash_password(password.as_bytes()).map_err(|_| DbError::Crypto)?;
    Ok(PasswordHash(hash.to_string()))
}

fn argon2() -> Result<Argon2<'static>, DbError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| DbError::Crypto)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}
