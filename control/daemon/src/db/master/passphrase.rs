//! A master key from a passphrase: Argon2id over a salt that is kept beside the database, in a header file.

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
const SALT_LEN: usize = 16;
/// In bytes of UTF-8.
const PASSPHRASE_LEN_MIN: usize = 12;
/// RFC 9106's choice where memory is short: it is asked for once, when the daemon starts.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
/// What a header may ask for: one that was tampered with is not to take the host down.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
}

impl MasterKey {
    /// Makes a new header file, and the key that this passphrase has with it. Slow on purpose.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the passphrase is too short; or if there is a file already, or it cannot be written.
    pub fn create_with_passphrase(header: &Path, passphrase: &[u8]) -> Result<Self, DbError> {
        if passphrase.len() < PASSPHRASE_LEN_MIN {
            let what = format!("a passphrase has at least {PASSPHRASE_LEN_MIN} characters");
            return Err(DbError::Invalid(what));
        }
        let content = Header {
            format: FORMAT,
            kdf: "argon2id".into(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: BASE64URL_NOPAD.encode(&*random::<SALT_LEN>()?),
        };
        let key = content.key(passphrase)?;
        let mut text = serde_json::to_vec(&content).map_err(|_| DbError::Crypto)?;
        text.push(b'\n');
        write_new(header, &text)?;
        Ok(key)
    }

    /// The key that this passphrase has with this header file. That it is another's is found out by the database.
    ///
    /// # Errors
    /// If the header cannot be read, or is none.
    pub fn read_with_passphrase(header: &Path, passphrase: &[u8]) -> Result<Self, DbError> {
        let text = File::open(header).and_then(read_all).map_err(at(header))?;
        let content: Header = serde_json::from_slice(&text).map_err(|_| no_header())?;
        content.key(passphrase)
    }
}

impl Header {
    fn key(&self, passphrase: &[u8]) -> Result<MasterKey, DbError> {
        let salt = BASE64URL_NOPAD.decode(self.salt.as_bytes()).map_err(|_| no_header())?;
        let known = self.format == FORMAT && self.kdf == "argon2id" && salt.len() == SALT_LEN;
        if !known || self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX {
            return Err(no_header());
        }
        let params = Params::new(self.memory_kib, self.passes, 1, Some(KEY_LEN)).map_err(|_| no_header())?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, &mut *key)
            .map_err(|_| DbError::Crypto)?;
        Ok(MasterKey(*key))
    }
}

fn no_header() -> DbError {
    DbError::Invalid("the file is not the header of a passphrase".into())
}
