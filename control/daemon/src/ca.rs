//! The daemon's certificate authority: it says which key is which agent's, and which server is this daemon.
//!
//! Owns the authority's key while the daemon runs; at rest it is in the database, sealed under the master key. Agents pin
//! the authority's certificate, so it stays the same for its ten years, through backups and moves to other hosts.

mod file;

use crate::db::{Actor, Db, DbError};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// The name that every daemon shows to agents, wherever it runs: whom they trust is a matter of their pin, not of DNS.
pub const CONTROL_NAME: &str = "control.sealift.invalid";

/// Of a server's certificate: one is made at each start.
const SERVER_LIFETIME: Duration = Duration::from_secs(397 * 24 * 3600);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3653 * 24 * 3600);
/// Clocks of others may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(300);

const KEY_PURPOSE: &str = "ca.key";
const KEY_ROW: &str = "ca.key";
const CERTIFICATE_ROW: &str = "ca.certificate";

/// Why a certificate cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// What was sent is no request that can be granted.
    #[error("the certificate request is refused: {0}")]
    BadRequest(String),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The file that an authority of its own is kept in.
    #[error("{}: {what}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Making or signing one failed.
    #[error("cannot make a certificate: {0}")]
    Failed(#[from] rcgen::Error),
}

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate for an agent.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: i64,
}

/// A certificate of this daemon, with its key.
pub struct ServerIdentity {
    /// The leaf, then the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Makes a new authority and keeps it in the database.
    ///
    /// # Errors
    /// If there is one already, or it cannot be kept.
    pub fn create(db: &Db, by: &Actor) -> Result<Self, CaError> {
        let Made { certificate, key } = Made::new()?;
        let fingerprint = fingerprint(&certificate);
        db.write(by, |write| {
            let sealed = write.seal(KEY_PURPOSE, key.serialized_der())?;
            let put = "INSERT INTO meta (name, value) VALUES (?1, ?2)";
            write.tx().execute(put, (KEY_ROW, sealed))?;
            write.tx().execute(put, (CERTIFICATE_ROW, certificate.as_ref()))?;
            write.audit("ca.create", &fingerprint, None, None)
        })?;
        Self::new(certificate, key)
    }

    /// Takes it from the database.
    ///
    /// # Errors
    /// If it is not there, or not whole.
    pub fn load(db: &Db) -> Result<Self, CaError> {
        let (certificate, sealed) = db.read(|connection| {
            let get = |name| {
                connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
                    row.get::<_, Vec<u8>>(0)
                })
            };
            Ok((get(CERTIFICATE_ROW)?, get(KEY_ROW)?))
        })?;
        let key = db.master().open(KEY_PURPOSE, &sealed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let key = KeyPair::from_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)?;
        Self::new(CertificateDer::from(certificate), key)
    }

    fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, CaError> {
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate })
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What agents pin: SHA-256 of the certificate, in hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// Its certificate, as text (RFC 7468).
    #[must_use]
    pub fn pem(&self) -> String {
        let base64 = data_encoding::BASE64.encode(&self.certificate);
        let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in base64.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text + "-----END CERTIFICATE-----\n"
    }

    /// A certificate for this daemon, under a new key. `names` are host names and addresses of people's access.
    ///
    /// # Errors
    /// If a name is none.
    pub fn server(&self, names: &[String]) -> Result<ServerIdentity, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Sealift control");
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, SERVER_LIFETIME);
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(ServerIdentity { chain: vec![leaf, self.certificate.clone()], key })
    }

    /// A certificate for an agent. Of the request the key alone is taken: who the agent is, is ours to say.
    /// It is renewed long before its lifetime is over, and after too, against the key that is known.
    ///
    /// # Errors
    /// If the request is malformed, not signed by its key, or of another kind of key.
    pub fn agent(
        &self,
        request: &Request,
        id: Uuid,
        name: &str,
        lifetime: Duration,
    ) -> Result<Issued, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.subject_alt_names = vec![SanType::URI(format!("urn:uuid:{id}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let expires_ms = valid_for(&mut params, lifetime);
        let certificate = params.signed_by(&request.key, &self.issuer)?.der().clone();
        Ok(Issued { certificate, expires_ms })
    }
}

/// An authority that nobody knows yet.
struct Made {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Made {
    fn new() -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // Told apart by people who see several: the id means nothing else.
        params.distinguished_name = named(&format!("Sealift {}", Uuid::now_v7().simple()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, AUTHORITY_LIFETIME);
        Ok(Self { certificate: params.self_signed(&key)?.der().clone(), key })
    }
}

/// A certificate request whose signature is right.
pub struct Request {
    key: rcgen::PublicKey,
    /// SHA-256 of the key, as SubjectPublicKeyInfo: by this an agent is known.
    pub key_hash: [u8; 32],
}

impl Request {
    /// Reads a PKCS #10 request.
    ///
    /// # Errors
    /// If it is malformed, its signature is wrong, or its key is not ECDSA P-256.
    pub fn parse(der: &[u8]) -> Result<Self, CaError> {
        if der.len() > REQUEST_BYTES_MAX {
            return Err(CaError::BadRequest("it is too long".into()));
        }
        let parsed = CertificateSigningRequestParams::from_der(&der.into());
        let key = parsed.map_err(|error| CaError::BadRequest(error.to_string()))?.public_key;
        if *key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::BadRequest("its key is not ECDSA P-256".into()));
        }
        let key_hash = Sha256::digest(key.subject_public_key_info()).into();
        Ok(Self { key, key_hash })
    }
}

/// Of a certificate request.
const REQUEST_BYTES_MAX: usize = 4096;

/// SHA-256 of a certificate, in hex.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(certificate))
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Sets both ends of its time; returns the later one, in milliseconds.
fn valid_for(params: &mut CertificateParams, lifetime: Duration) -> i64 {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + lifetime).into();
    let ends = (now + lifetime).duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(ends.as_millis()).unwrap_or(i64::MAX)
}
