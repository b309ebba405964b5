//! Raw public keys (RFC 7250) in the handshake: shows the job's session key and accepts that key alone.
//!
//! Both ends derive the same Ed25519 key from the job's read-only secret, so each expects to see its own. A signature
//! cannot be reflected: TLS 1.3 signs the role along with the transcript (RFC 8446, section 4.4.3).
//! Decides who may open a session; never what a session may contain.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureAlgorithm,
    SignatureScheme,
};
use sealift_proto::keys::{KEY_BYTES, SessionKey};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// The DER of an Ed25519 `SubjectPublicKeyInfo` up to the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const SPKI_BYTES: usize = SPKI_PREFIX.len() + KEY_BYTES;

fn spki(key: &SessionKey) -> [u8; SPKI_BYTES] {
    let mut der = [0; SPKI_BYTES];
    der[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
    der[SPKI_PREFIX.len()..].copy_from_slice(&key.public());
    der
}

/// The key as rustls shows it to the peer and signs with it.
pub(crate) fn certified(key: &SessionKey) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(vec![spki(key).to_vec().into()], Arc::new(OwnKey(key.clone()))))
}

#[derive(Clone, Debug)]
struct OwnKey(SessionKey);

impl SigningKey for OwnKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.0).to_vec().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for OwnKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Accepts one key and no other, on either side of the handshake.
#[derive(Debug)]
pub(crate) struct OnlyKey {
    expected: [u8; SPKI_BYTES],
    algorithms: WebPkiSupportedAlgorithms,
}

impl OnlyKey {
    pub(crate) fn new(key: &SessionKey, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { expected: spki(key), algorithms }
    }

    fn check_key(&self, shown: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        if chain.is_empty() && bool::from(self.expected[..].ct_eq(shown.as_ref())) {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not compiled in; were it, nothing signed under it would count.
const TLS12: Error = Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered);

impl ServerCertVerifier for OnlyKey {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_key(shown, chain).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for OnlyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_key(shown, chain).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_proto::keys::RoSecret;

    fn key(fill: u8) -> SessionKey {
        RoSecret::from_bytes(&[fill; 32]).session_key()
    }

    fn only(key: &SessionKey) -> OnlyKey {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        OnlyKey::new(key, provider.signature_verification_algorithms)
    }

    #[test]
    fn accepts_its_key_and_no_other() {
        let ours = certified(&key(1));
        assert_eq!(only(&key(1)).check_key(&ours.cert[0], &[]), Ok(()));
        assert!(only(&key(2)).check_key(&ours.cert[0], &[]).is_err());
        assert!(only(&key(1)).check_key(&ours.cert[0], &ours.cert).is_err());
        assert!(only(&key(1)).check_key(&CertificateDer::from(&b""[..]), &[]).is_err());
    }

    #[test]
    fn signs_with_ed25519_only() {
        assert!(OwnKey(key(1)).choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).is_none());
        assert!(OwnKey(key(1)).choose_scheme(&[SignatureScheme::ED25519]).is_some());
    }
}
