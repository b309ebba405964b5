//! The recovery key: a second way to the master key, written down once and kept away from the host.

use super::{MasterKey, read_all, write_new};
use crate::db::error::at;
use crate::db::{DbError, random};
use data_encoding::{Encoding, Specification};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::path::Path;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
/// With it the text has 56 characters, and a mistake in it goes unnoticed once in 16 million.
const CHECK_LEN: usize = 3;
const GROUP_LEN: usize = 7;
const PURPOSE: &str = "recovery";

/// Opens `recovery.sealed`. Its text, by `Display`, is for one pair of eyes, once: eight groups of base32 in the
/// alphabet of Crockford, which has no I, L, O and U, so that a reader's mistakes are understood.
pub struct RecoveryKey(MasterKey);

impl MasterKey {
    /// Makes a recovery key, and the new file that it opens. Whoever has both has the master key.
    ///
    /// # Errors
    /// If there is a file already, or it cannot be written.
    pub fn create_recovery(&self, sealed: &Path) -> Result<RecoveryKey, DbError> {
        let key = RecoveryKey(MasterKey(*random()?));
        write_new(sealed, &key.0.seal(PURPOSE, &self.0)?)?;
        Ok(key)
    }

    /// The master key, by the file and the text of its recovery key.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if the text is not a recovery key or has a mistake; [`DbError::Refused`] if it is another's.
    pub fn recover(sealed: &Path, text: &str) -> Result<Self, DbError> {
        let key = RecoveryKey::parse(text)?;
        let sealed = File::open(sealed).and_then(read_all).map_err(at(sealed))?;
        let other = || DbError::Refused("the recovery key is not the one of this file".into());
        let plain = key.0.open(PURPOSE, &sealed).map_err(|_| other())?;
        Self::from_slice(&plain).ok_or_else(other)
    }
}

impl RecoveryKey {
    fn parse(text: &str) -> Result<Self, DbError> {
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
