//! Checkpoints: the daemon's signature over a number and a hash of the audit.

use super::{Hash, head};
use crate::db::{Actor, Db, DbError};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rusqlite::Connection;
use std::fmt;
use std::str::FromStr;

const DOMAIN: &[u8] = b"sealift-control audit checkpoint 1";
const PREFIX: &str = "slaudit1";

/// That the audit up to this record was so. Its text, `slaudit1 NUMBER HASH SIGNATURE`, is what to keep elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Of the last record that it covers.
    pub number: i64,
    /// That record's hash.
    pub hash: Hash,
    /// Ed25519, by the daemon's audit key.
    pub signature: [u8; 64],
}

/// The newest records under a checkpoint: a new one if there is none yet.
///
/// # Errors
/// [`DbError::NotFound`] if nothing has been recorded, or the database cannot be written.
pub fn checkpoint(db: &Db) -> Result<Checkpoint, DbError> {
    db.write(&Actor::system(), |write| {
        let (number, hash) = head(write.tx())?.ok_or(DbError::NotFound("audit record"))?;
        put(write.tx(), write.now_ms(), &write.shared.audit_key, number, &hash)
    })
}

/// The public half of the key that signs checkpoints: with a checkpoint that was kept elsewhere, keep this too.
#[must_use]
pub fn public_key(db: &Db) -> [u8; 32] {
    db.shared.audit_key.verifying_key().to_bytes()
}

/// Signs, and keeps it. Ed25519 signs the same always alike, so that the one that is there already is the same.
pub(super) fn put(
    tx: &Connection,
    now_ms: i64,
    key: &SigningKey,
    number: i64,
    hash: &Hash,
) -> Result<Checkpoint, DbError> {
    let signature = key.sign(&message(number, hash)).to_bytes();
    tx.prepare_cached(
        "INSERT INTO audit_checkpoints (number, time_ms, hash, signature) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (number) DO NOTHING",
    )?
    .execute((number, now_ms, hash, signature))?;
    Ok(Checkpoint { number, hash: *hash, signature })
}

impl Checkpoint {
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&message(self.number, &self.hash), &signature).is_ok()
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, hash, signature } = self;
        write!(f, "{PREFIX} {number} {} {}", HEXLOWER.encode(hash), HEXLOWER.encode(signature))
    }
}

impl FromStr for Checkpoint {
    type Err = DbError;

    fn from_str(text: &str) -> Result<Self, DbError> {
        let parse = || {
            let mut words = text.split_whitespace();
            let (prefix, number, hash, signature) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            if prefix != PREFIX || words.next().is_some() {
                return None;
            }
            Some(Self {
                number: number.parse().ok().filter(|number| *number > 0)?,
                hash: HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?,
                signature: HEXLOWER.decode(signature.as_bytes()).ok()?.try_into().ok()?,
            })
        };
        parse().ok_or_else(|| DbError::Invalid(format!("a checkpoint is \"{PREFIX} NUMBER HASH SIGNATURE\"")))
    }
}

fn message(number: i64, hash: &Hash) -> Vec<u8> {
    [DOMAIN, &number.to_be_bytes(), hash].concat()
}
