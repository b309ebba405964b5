//! The recovery key: a second way to the master key, written down once and kept away from the host.
//!
//! What it opens is in the database, so that a backup and its recovery key are enough to begin anew on another host.

use super::MasterKey;
use crate::db::{Actor, Db, DbError, Write, open, random};
use data_encoding::{Encoding, Specification};
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
/// With it the text has 56 characters, and a mistake in it goes unnoticed once in 16 million.
const CHECK_LEN: usize = 3;
const GROUP_LEN: usize = 7;
const PURPOSE: &str = "recovery";
const ROW: &str = "recovery";

/// Opens the master key that is sealed in the database. Its text, by `Display`, is for one pair of eyes, once: eight groups of
/// base32 in the alphabet of Crockford, which has no I, L, O and U, so that a reader's mistakes are understood.
pub struct RecoveryKey(MasterKey);

/// Makes a new recovery key; the one before opens nothing any more. `told` is called before that, and keeps or shows it: if
/// that fails, the one before stays.
///
/// # Errors
/// What `told` returns, or that it cannot be written.
pub fn renew_recovery(
    db: &Db,
    by: &Actor,
    told: impl FnOnce(&RecoveryKey) -> Result<(), DbError>,
) -> Result<(), DbError> {
    let key = RecoveryKey::generate()?;
    told(&key)?;
    db.write(by, |write| {
        key.put(write, db.master())?;
        write.audit("master.new_recovery_key", "master", None, None)
    })
}

impl RecoveryKey {
    pub(super) fn generate() -> Result<Self, DbError> {
        Ok(Self(MasterKey(*random()?)))
    }

    /// Lets it open this master key.
    pub(super) fn put(&self, write: &Write<'_>, master: &MasterKey) -> Result<(), DbError> {
        let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) \
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        write.tx().execute(sql, (ROW, self.0.seal(PURPOSE, &master.0)?))?;
        Ok(())
    }

    /// The master key of a database.
    ///
    /// # Errors
    /// [`DbError::Refused`] if it is another's.
    pub fn open(&self, file: &std::path::Path) -> Result<MasterKey, DbError> {
        self.open_in(&open::look(file)?)
    }

    fn open_in(&self, file: &Connection) -> Result<MasterKey, DbError> {
        let other = || DbError::Refused("the recovery key is not the one of this database".into());
        let plain = self.0.open(PURPOSE, &open::sealed(file, ROW)?).map_err(|_| other())?;
        MasterKey::from_slice(&plain).ok_or_else(other)
    }

    /// Reads one as it was shown, or as somebody has typed it.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if it is none or has a mistake.
    pub fn parse(text: &str) -> Result<Self, DbError> {
        let mistake = || DbError::Invalid("this is not a recovery key: look for a mistake in it".into());
        let bytes = Zeroizing::new(encoding().decode(text.as_bytes()).map_err(|_| mistake())?);
        let Some((key, check)) = bytes.split_first_chunk::<KEY_LEN>() else { return Err(mistake()) };
        if *check != checksum(key) {
            return Err(mistake());
        }
        Ok(Self(MasterKey(*key)))
    }
}

impl fmt::Display for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = Zeroizing::new([&self.0.0[..], &checksum(&self.0.0)].concat());
        let text = Zeroizing::new(encoding().encode(&bytes));
        for (at, symbol) in text.chars().enumerate() {
            if at > 0 && at % GROUP_LEN == 0 {
                f.write_str("-")?;
            }
            write!(f, "{symbol}")?;
        }
        Ok(())
    }
}

fn checksum(key: &[u8; KEY_LEN]) -> [u8; CHECK_LEN] {
    let digest = Sha256::new().chain_update(b"sealift-control recovery key 1").chain_update(key).finalize();
    [digest[0], digest[1], digest[2]]
}

fn encoding() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    specification.translate.from.push_str("abcdefghjkmnpqrstvwxyzIiLlOo");
    specification.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ111100");
    specification.ignore.push_str("- \t\r\n");
    specification.encoding().expect("the alphabet is a constant, and tested")
}
