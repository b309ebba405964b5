//! An authority without a database: of a tracker that is served alone.

use super::{Authority, CaError, Made};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

impl Authority {
    /// Takes it from a file, and makes it and the file if there is none. It is there whole or not at all, and its
    /// owner's alone.
    ///
    /// # Errors
    /// If the file cannot be read or made, is not what was written, or can be read by others.
    pub fn in_file(file: &Path) -> Result<Self, CaError> {
        let fault = |what: &dyn ToString| CaError::File { file: file.to_owned(), what: what.to_string() };
        match File::open(file) {
            Ok(open) => {
                let mode = open.metadata().map_err(|error| fault(&error))?.mode();
                if mode & 0o077 != 0 {
                    return Err(fault(&"others can read it: make it 0600"));
                }
                let text = Zeroizing::new(std::fs::read(file).map_err(|error| fault(&error))?);
                let certificate = CertificateDer::from_pem_slice(&text).map_err(|error| fault(&error))?;
                let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| fault(&error))?;
                Self::new(certificate, KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Made::new()?;
                let key = Zeroizing::new(made.key.serialize_pem());
                let authority = Self::new(made.certificate, made.key)?;
                let text = Zeroizing::new(format!("{}{}", authority.pem(), *key));
                put(file, &text).map_err(|error| fault(&error))?;
                Ok(authority)
            }
            Err(error) => Err(fault(&error)),
        }
    }
}

/// Others see the file whole, and after a power cut it is there whole or not at all.
fn put(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&new, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_the_same_the_next_time_and_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tracker.pem");
        let first = Authority::in_file(&file).unwrap().fingerprint();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(Authority::in_file(&file).unwrap().fingerprint(), first);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Authority::in_file(&file), Err(CaError::File { .. })));
    }

    #[test]
    fn a_file_of_something_else_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tracker.pem");
        put(&file, "something else").unwrap();
        assert!(matches!(Authority::in_file(&file), Err(CaError::File { .. })));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "something else");
    }
}
