//! A master key in a file that a passphrase opens: Argon2id, and the key sealed under what that gives.
//!
//! The key itself does not depend on the passphrase, so that another passphrase needs nothing of the database.

use super::{KEY_LEN, MasterKey, read_all, write_new};
use crate::db::error::at;
use crate::db::{DbError, random};
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use zeroize::Zeroizing;

const FORMAT: u32 = 1;
const PURPOSE: &str = "passphrase";
const SALT_LEN: usize = 16;
/// In bytes of UTF-8.
const PASSPHRASE_LEN_MIN: usize = 12;
/// RFC 9106's choice where memory is short: it is asked for once, when the daemon starts.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
/// What a file may ask for: one that was tampered with is not to take the host down.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    /// Which key it is: [`MasterKey::id`].
    key_id: String,
    sealed_key: String,
}

impl MasterKey {
    /// Writes the key to a new file that this passphrase opens. Slow on purpose. Durable when this returns.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the passphrase is too short; or if there is a file already, or it cannot be written.
    pub fn create_sealed(&self, path: &Path, passphrase: &[u8]) -> Result<(), DbError> {
        if passphrase.len() < PASSPHRASE_LEN_MIN {
            let what = format!("a passphrase has at least {PASSPHRASE_LEN_MIN} characters");
            return Err(DbError::Invalid(what));
        }
        let mut content = Content {
            format: FORMAT,
            kdf: "argon2id".into(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: BASE64URL_NOPAD.encode(&*random::<SALT_LEN>()?),
            key_id: BASE64URL_NOPAD.encode(&self.id()?),
            sealed_key: String::new(),
        };
        content.sealed_key = BASE64URL_NOPAD.encode(&content.key(passphrase)?.seal(PURPOSE, &self.0)?);
        let mut text = serde_json::to_vec(&content).map_err(|_| DbError::Crypto)?;
        text.push(b'\n');
        write_new(path, &text)
    }

    /// Reads the key from a file that this passphrase opens.
    ///
    /// # Errors
    /// [`DbError::Refused`] if it is another passphrase; [`DbError::Invalid`] if the file is something else.
    pub fn read_sealed(path: &Path, passphrase: &[u8]) -> Result<Self, DbError> {
        let content = read(path)?;
        let sealed = BASE64URL_NOPAD.decode(content.sealed_key.as_bytes()).map_err(|_| no_sealed_key())?;
        let wrong = || DbError::Refused("the passphrase is not the one of the master key".into());
        let key = content.key(passphrase)?.open(PURPOSE, &sealed).map_err(|_| wrong())?;
        Self::from_slice(&key).ok_or_else(no_sealed_key)
    }
}

/// Which key is in a file, without its passphrase.
pub(super) fn key_id(path: &Path) -> Result<Vec<u8>, DbError> {
    BASE64URL_NOPAD.decode(read(path)?.key_id.as_bytes()).map_err(|_| no_sealed_key())
}

fn read(path: &Path) -> Result<Content, DbError> {
    let text = File::open(path).and_then(read_all).map_err(at(path))?;
    serde_json::from_slice(&text).map_err(|_| no_sealed_key())
}

impl Content {
    /// The key that the passphrase has with this salt.
    fn key(&self, passphrase: &[u8]) -> Result<MasterKey, DbError> {
        let salt = BASE64URL_NOPAD.decode(self.salt.as_bytes()).map_err(|_| no_sealed_key())?;
        let known = self.format == FORMAT && self.kdf == "argon2id" && salt.len() == SALT_LEN;
        if !known || self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX {
            return Err(no_sealed_key());
        }
        let params =
            Params::new(self.memory_kib, self.passes, 1, Some(KEY_LEN)).map_err(|_| no_sealed_key())?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, &mut *key)
            .map_err(|_| DbError::Crypto)?;
        Ok(MasterKey(*key))
    }
}

fn no_sealed_key() -> DbError {
    DbError::Invalid("the file is not a master key that a passphrase opens".into())
}
