//! Keying material for other uses of a session (RFC 8446, section 7.5).
//!
//! Comes from the one secret that rustls does not hand out to who seals records himself: it is overheard as rustls
//! notes it for debuggers. Notes nothing else, and keeps it for one session alone.

use crate::cipher::Cipher;
use aws_lc_rs::digest::{self, SHA256, SHA384};
use aws_lc_rs::hkdf::{Algorithm, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::KeyLog;
use std::fmt;
use std::sync::{Arc, OnceLock};
use zeroize::Zeroizing;

/// What rustls calls the secret.
const NOTED_AS: &str = "EXPORTER_SECRET";

/// One session's exporter secret, once its handshake has come so far.
#[derive(Clone, Default)]
pub(crate) struct ExporterSecret(Arc<OnceLock<Zeroizing<Vec<u8>>>>);

impl ExporterSecret {
    /// Material for a label without a context; none if the handshake is not done.
    pub(crate) fn export(&self, cipher: Cipher, label: &str) -> Option<[u8; 32]> {
        let (algorithm, hash) = match cipher {
            Cipher::Aes128Gcm => (HKDF_SHA256, &SHA256),
            Cipher::Aes256Gcm => (HKDF_SHA384, &SHA384),
        };
        let nothing = digest::digest(hash, b"");
        let mut derived = Zeroizing::new(vec![0; hash.output_len()]);
        let mut material = [0; 32];
        expand_label(algorithm, self.0.get()?, label, nothing.as_ref(), &mut derived)?;
        expand_label(algorithm, &derived, "exporter", nothing.as_ref(), &mut material)?;
        Some(material)
    }
}

impl KeyLog for ExporterSecret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == NOTED_AS {
            // A handshake has one.
            let _ = self.0.set(Zeroizing::new(secret.to_vec()));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == NOTED_AS
    }
}

impl fmt::Debug for ExporterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExporterSecret(secret)")
    }
}

/// `HKDF-Expand-Label` (RFC 8446, section 7.1); nothing for a label that is too long.
fn expand_label(
    algorithm: Algorithm,
    secret: &[u8],
    label: &str,
    context: &[u8],
    out: &mut [u8],
) -> Option<()> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from("tls13 ".len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info = [&length[..], &label_length, b"tls13 ", label.as_bytes(), &context_length, context];
    let secret = Prk::new_less_safe(algorithm, secret);
    secret.expand(&info, Length(out.len())).ok()?.fill(out).ok()
}
