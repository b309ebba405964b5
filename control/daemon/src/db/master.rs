//! The master key: where it comes from, and what is sealed under it.
//!
//! Owns the bytes of a sealed secret, of the files of the key, and of what a recovery key opens. Never shows the key; the
//! memory it was in is wiped.
//!
//! - `passphrase`, `recovery`: two ways to the key beside its own file
//! - `keep`: which files of the data directory hold it, and how one takes the place of another
//! - `change`: another master key, the same one kept another way, and one that was lost
//!
//! ```text
//! a sealed secret   format (1 byte: 1)  nonce (12, random)  AES-256-GCM ciphertext and tag (16)
//!                   key: HKDF-SHA256 of the master key for the purpose; associated data: domain, format, purpose
//! master.key        "slmk1:" base64url of 32 bytes, newline
//! master.sealed     JSON: Argon2id's parameters, the salt, and the master key, sealed for the purpose "passphrase" under the
//!                   key that the passphrase has with them
//! meta "recovery"   the master key, sealed for the purpose "recovery" under the recovery key
//! meta "key.id"     HKDF-SHA256 of the master key: tells which it is, and nothing of it
//! ```

mod change;
mod keep;
mod passphrase;
mod recovery;
#[cfg(test)]
mod tests;

pub use change::{keep_otherwise, recover, rotate};
pub use keep::{KeepIn, KeptIn, MASTER_KEY, MASTER_SEALED, kept_in, read_kept};
pub(super) use keep::{settle_alone, stage};
pub use recovery::{RecoveryKey, renew_recovery};

use super::error::at;
use super::open::sync_directory_of;
use super::{Db, DbError, random};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use data_encoding::BASE64URL_NOPAD;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// The bytes of a master key.
const KEY_LEN: usize = 32;
const FORMAT: u8 = 1;
const FILE_PREFIX: &str = "slmk1:";
/// No file that is read here is longer: a larger one is something else.
const FILE_LEN_MAX: u64 = 4096;

const SEAL_SALT: &[u8] = b"sealift-control seal 1";
const TAG_SALT: &[u8] = b"sealift-control tag 1";
const ID_SALT: &[u8] = b"sealift-control key id 1";

/// The key under which the database's secrets are sealed. Whoever has it and the database has everything.
#[derive(Clone, ZeroizeOnDrop)]
pub struct MasterKey([u8; KEY_LEN]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

impl MasterKey {
    /// A new key.
    ///
    /// # Errors
    /// [`DbError::Crypto`] if there is no randomness.
    pub fn generate() -> Result<Self, DbError> {
        Ok(Self(*random()?))
    }

    /// Writes the key to a new file that only its owner can read. Durable when this returns.
    ///
    /// # Errors
    /// If there is a file already, or it cannot be written.
    pub fn create_file(&self, path: &Path) -> Result<(), DbError> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(FILE_PREFIX);
        BASE64URL_NOPAD.encode_append(&self.0, &mut text);
        text.push('\n');
        write_new(path, text.as_bytes())
    }

    /// Reads the key from a file that nobody but its owner can read or change.
    ///
    /// # Errors
    /// [`DbError::Refused`] if others can; [`DbError::Invalid`] if it holds no key.
    pub fn read_file(path: &Path) -> Result<Self, DbError> {
        let file = File::open(path).map_err(at(path))?;
        let mode = file.metadata().map_err(at(path))?.mode();
        if mode & 0o077 != 0 {
            let mode = mode & 0o7777;
            let what = "so that others can use the master key: give it to the daemon's user and make it 0600";
            return Err(DbError::Refused(format!("{} is of mode {mode:04o}, {what}", path.display())));
        }
        Self::parse(&read_all(file).map_err(at(path))?)
    }

    /// Reads the key from a credential that systemd gave to this service (`LoadCredential=`, or encrypted). Its
    /// directory is the service's alone, so that the mode of the file says nothing.
    ///
    /// # Errors
    /// [`DbError::Invalid`] if there are no credentials, or this one holds no key.
    pub fn read_credential(name: &str) -> Result<Self, DbError> {
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
            let what = "there are no credentials, since CREDENTIALS_DIRECTORY is not set: systemd sets it for a \
                service with LoadCredential=";
            DbError::Invalid(what.into())
        })?;
        Self::read_credential_in(Path::new(&directory), name)
    }

    fn read_credential_in(directory: &Path, name: &str) -> Result<Self, DbError> {
        let mut components = Path::new(name).components();
        let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else {
            return Err(DbError::Invalid(format!("{name:?} is not the name of a credential")));
        };
        let path = directory.join(name);
        Self::parse(&File::open(&path).and_then(read_all).map_err(at(&path))?)
    }

    fn parse(text: &[u8]) -> Result<Self, DbError> {
        let not_a_key = || DbError::Invalid("the file holds no master key".into());
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_prefix(FILE_PREFIX.as_bytes()).ok_or_else(not_a_key)?;
        Self::from_slice(&Zeroizing::new(BASE64URL_NOPAD.decode(text).map_err(|_| not_a_key())?))
            .ok_or_else(not_a_key)
    }

    fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Seals a secret. The purpose is part of it: what is sealed for one purpose does not open for another. Name the
    /// row in it ("job:ID"), and a sealed value that is moved to another row does not open there.
    ///
    /// # Errors
    /// [`DbError::Crypto`].
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, DbError> {
        let nonce = *random::<NONCE_LEN>()?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .sealing_key(purpose)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                associated(purpose),
                &mut sealed[1 + NONCE_LEN..],
            )
            .map_err(|_| DbError::Crypto)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens what was sealed for the same purpose.
    ///
    /// # Errors
    /// [`DbError::Crypto`] if it is anything else.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DbError> {
        let Some((&FORMAT, rest)) = sealed.split_first() else { return Err(DbError::Crypto) };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(DbError::Crypto)?;
        let mut plain = Zeroizing::new(ciphertext.to_vec());
        let plain_len = self
            .sealing_key(purpose)?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), associated(purpose), &mut plain)
            .map_err(|_| DbError::Crypto)?
            .len();
        plain.truncate(plain_len);
        Ok(plain)
    }

    /// Which key it is, for all to see.
    pub(super) fn id(&self) -> Result<[u8; 32], DbError> {
        self.derive(ID_SALT, &[b"id"]).map(|id| *id)
    }

    fn sealing_key(&self, purpose: &str) -> Result<LessSafeKey, DbError> {
        let key = self.derive(SEAL_SALT, &[purpose.as_bytes()])?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| DbError::Crypto)?))
    }

    fn derive(&self, salt: &[u8], info: &[&[u8]]) -> Result<Zeroizing<[u8; 32]>, DbError> {
        let mut key = Zeroizing::new([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(&self.0)
            .expand(info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *key))
            .map_err(|_| DbError::Crypto)?;
        Ok(key)
    }
}

impl Db {
    /// A name for something that nobody without the master key can find out by trying. It stays the same when there is
    /// another master key.
    pub(super) fn tag(&self, purpose: &str, what: &[u8]) -> Result<[u8; 32], DbError> {
        let key = self.read(|file| super::open::opened(file, self.master(), "tag.key"))?;
        let key = MasterKey::from_slice(&key).ok_or(DbError::Crypto)?;
        key.derive(TAG_SALT, &[purpose.as_bytes(), &[0], what]).map(|tag| *tag)
    }
}

fn associated(purpose: &str) -> Aad<Vec<u8>> {
    let mut bytes = SEAL_SALT.to_vec();
    bytes.push(FORMAT);
    bytes.extend_from_slice(purpose.as_bytes());
    Aad::from(bytes)
}

/// A new file, 0600, durable when this returns. Removed again if it cannot be written.
fn write_new(path: &Path, content: &[u8]) -> Result<(), DbError> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    let written =
        file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| sync_directory_of(path));
    if let Err(error) = written {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(path);
        return Err(at(path)(error));
    }
    Ok(())
}

fn read_all(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let len_max = usize::try_from(FILE_LEN_MAX).unwrap_or(usize::MAX);
    // Room for all of it at once: growing would leave copies of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(len_max + 1));
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut content)?;
    if content.len() > len_max {
        content.zeroize();
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long to hold a key"));
    }
    Ok(content)
}
