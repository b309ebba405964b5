//! Both halves of KEKs, from files as `openssl` writes them.

use super::*;
use crate::public::PublicKeyError;
use proptest::prelude::*;

macro_rules! key {
    ($name:literal) => {
        include_str!(concat!("../../tests/keys/", $name))
    };
}

/// As `openssl pkey -pubin -in a.pub.pem -outform DER | sha256sum` prints it.
const FINGERPRINT_OF_A: &str = "0af9ec92cf1a5ffba906827eb1ea53e9666a29d1f385070f4df7cbaae3c8572a";
const PASSPHRASE: Option<&[u8]> = Some(b"secret");

fn private(file: &str, passphrase: Option<&[u8]>) -> Result<Fingerprint, PrivateKeyError> {
    PrivateKek::from_pem(file, passphrase).map(|kek| kek.public().fingerprint())
}

fn public(file: &str) -> Result<Fingerprint, PublicKeyError> {
    PublicKek::from_pem(file).map(|kek| kek.fingerprint())
}

#[test]
fn one_key_is_the_same_whatever_it_is_written_in() {
    let a = FINGERPRINT_OF_A.parse::<Fingerprint>().unwrap();
    assert_eq!(a.to_string(), FINGERPRINT_OF_A);
    for file in [key!("a.pub.pem"), key!("a.pub.pkcs1.pem")] {
        assert_eq!(public(file), Ok(a));
    }
    for file in [key!("a.pem"), key!("a.pkcs1.pem")] {
        assert_eq!(private(file, None), Ok(a));
        assert_eq!(private(file, Some(b"needless")), Ok(a));
        assert!(!PrivateKek::needs_passphrase(file));
    }
    for file in [key!("a.aes.pem"), key!("a.sha1.pem"), key!("a.scrypt.pem")] {
        assert_eq!(private(file, PASSPHRASE), Ok(a));
        assert!(PrivateKek::needs_passphrase(file));
    }
    let with_carriage_returns = format!("some words\r\n{}\r\n", key!("a.pem").replace('\n', "\r\n"));
    assert_eq!(private(&with_carriage_returns, None), Ok(a));
}

#[test]
fn a_key_is_written_as_openssl_writes_it() {
    assert_eq!(PublicKek::from_pem(key!("a.pub.pkcs1.pem")).unwrap().to_pem(), key!("a.pub.pem"));
    let der = PrivateKek::from_pem(key!("a.aes.pem"), PASSPHRASE).unwrap().to_pkcs8_der().unwrap();
    let block = Block::of(key!("a.pem")).unwrap();
    assert_eq!(&der[..], block.der().unwrap().as_bytes());
    assert_eq!(
        PrivateKek::from_pkcs8_der(&der).unwrap().public().fingerprint().to_string(),
        FINGERPRINT_OF_A
    );
}

#[test]
fn lengths_are_told_and_judged() {
    let bits = |file| PublicKek::from_pem(file).map(|kek| (kek.bits(), kek.is_weak()));
    assert_eq!(bits(key!("a.pub.pem")), Ok((2048, true)));
    assert_eq!(bits(key!("c3072.pub.pem")), Ok((3072, false)));
    assert_eq!(bits(key!("d4096.pub.pem")), Ok((4096, false)));
    assert_eq!(bits(key!("small.pub.pem")), Err(PublicKeyError::TooSmall(1024)));
    assert_eq!(private(key!("small.pem"), None), Err(PrivateKeyError::TooSmall(1024)));
}

#[test]
fn every_other_file_is_refused_for_its_reason() {
    let a = key!("a.pem");
    let long = format!("{a}{}", " ".repeat(PEM_BYTES_MAX));
    let several = format!("{a}{}", key!("a.pub.pem"));
    let middle = a.len() / 2;
    let cut = &a[..middle];
    let torn = format!("{}\n{}", &a[..middle], &a[middle + 64..]);
    for (file, passphrase, error) in [
        (&*long, None, PrivateKeyError::TooLong),
        ("", None, PrivateKeyError::NotPem),
        (&several, None, PrivateKeyError::Several),
        (key!("a.pub.pem"), None, PrivateKeyError::IsPublic),
        (key!("a.pub.pkcs1.pem"), None, PrivateKeyError::IsPublic),
        (key!("certificate.pem"), None, PrivateKeyError::Other("CERTIFICATE".to_owned())),
        (key!("ec.pem"), None, PrivateKeyError::NotRsa),
        (key!("pss.pem"), None, PrivateKeyError::NotRsa),
        (key!("a.aes.pem"), None, PrivateKeyError::PassphraseNeeded),
        (key!("a.aes.pem"), Some(&b"Secret"[..]), PrivateKeyError::WrongPassphrase),
        (key!("a.aes.pem"), Some(b""), PrivateKeyError::WrongPassphrase),
        (key!("a.scrypt.pem"), Some(b"Secret"), PrivateKeyError::WrongPassphrase),
        (key!("a.old.pem"), PASSPHRASE, PrivateKeyError::OldEncryption),
        (key!("a.des3.pem"), PASSPHRASE, PrivateKeyError::OtherEncryption),
        (key!("a.pbe1.pem"), PASSPHRASE, PrivateKeyError::OtherEncryption),
        (key!("a.costly.pem"), PASSPHRASE, PrivateKeyError::TooCostly),
        (cut, None, PrivateKeyError::Malformed),
        (&torn, None, PrivateKeyError::Malformed),
    ] {
        assert_eq!(private(file, passphrase), Err(error));
    }
    let torn_public = key!("a.pub.pem").replace("IDAQAB", "IDAQAA");
    for (file, error) in [
        (&*long, PublicKeyError::TooLong),
        ("-----BEGIN nothing", PublicKeyError::Malformed),
        ("", PublicKeyError::NotPem),
        (&several, PublicKeyError::Several),
        (a, PublicKeyError::IsPrivate),
        (key!("a.aes.pem"), PublicKeyError::IsPrivate),
        (key!("certificate.pem"), PublicKeyError::Other("CERTIFICATE".to_owned())),
        (key!("ec.pub.pem"), PublicKeyError::NotRsa),
        (key!("pss.pub.pem"), PublicKeyError::NotRsa),
        (&torn_public, PublicKeyError::Malformed),
    ] {
        assert_eq!(public(file), Err(error));
    }
}

#[test]
fn what_is_told_says_what_to_do() {
    let told = PrivateKeyError::OldEncryption.to_string();
    assert!(told.ends_with("openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW"), "{told}");
    let label = PrivateKeyError::Other("A\u{1b}[31m".to_owned()).to_string();
    assert!(!label.contains('\u{1b}'), "{label}");
}

#[test]
fn scrypt_takes_no_more_than_it_may() {
    let scheme = |file| {
        let der = Block::of(file).unwrap().der().unwrap();
        let (algorithm, _) = pem::encrypted(der.as_bytes()).unwrap();
        EncryptionScheme::try_from(algorithm).unwrap().pbes2().unwrap().kdf.clone()
    };
    let Kdf::Scrypt(usual) = scheme(key!("a.scrypt.pem")) else { panic!("scrypt") };
    let costs = |change: fn(&mut pkcs5::pbes2::ScryptParams)| {
        let mut parameters = usual;
        change(&mut parameters);
        costs_too_much(&Kdf::Scrypt(parameters))
    };
    assert!(!costs(|_| {}));
    assert!(!costs(|parameters| parameters.cost_parameter = 1 << 17));
    assert!(costs(|parameters| parameters.cost_parameter = 1 << 18));
    assert!(costs(|parameters| parameters.cost_parameter = 1 << 63));
    assert!(costs(|parameters| parameters.block_size = 1 << 15));
    assert!(costs(|parameters| parameters.parallelization = 5));
}

#[test]
fn halves_prove_that_they_belong_together() {
    for (public, private, passphrase) in [
        (key!("a.pub.pem"), key!("a.pem"), None),
        (key!("c3072.pub.pem"), key!("c3072.pem"), None),
        (key!("d4096.pub.pem"), key!("d4096.aes.pem"), PASSPHRASE),
    ] {
        let (public, private) =
            (PublicKek::from_pem(public).unwrap(), PrivateKek::from_pem(private, passphrase).unwrap());
        assert!(private.proves(&public));
        assert!(!private.proves(&PublicKek::from_pem(key!("b.pub.pem")).unwrap()));
    }
}

#[test]
fn a_wrapped_key_opens_with_its_kek_under_its_label_alone() {
    let a = PrivateKek::from_pem(key!("a.pem"), None).unwrap();
    let b = PrivateKek::from_pem(key!("b.pem"), None).unwrap();
    let key = DataKey::generate().unwrap();
    let label =
        WrapLabel { owner: OwnerId([1; 16]), fingerprint: a.public().fingerprint(), version: KekVersion(2) };
    let wrapped = a.public().wrap(&key, &label).unwrap();
    assert_ne!(wrapped, a.public().wrap(&key, &label).unwrap(), "each is encrypted anew");
    assert_eq!(a.unwrap(&wrapped, &label).unwrap().as_bytes(), key.as_bytes());

    let (this, wrapped_to) = (b.public().fingerprint(), label.fingerprint);
    assert_eq!(b.unwrap(&wrapped, &label).err(), Some(UnwrapError::WrongKey { wrapped_to, this }));
    let of_b = WrapLabel { fingerprint: this, ..label };
    assert_eq!(b.unwrap(&wrapped, &of_b).err(), Some(UnwrapError::Damaged));
    for other in
        [WrapLabel { owner: OwnerId([2; 16]), ..label }, WrapLabel { version: KekVersion(3), ..label }]
    {
        assert_eq!(a.unwrap(&wrapped, &other).err(), Some(UnwrapError::Damaged));
    }
    assert!(b.public().wrap(&key, &label).is_err(), "the label names another KEK");
    for bytes in [0, 255, 1025] {
        assert_eq!(WrappedKey::from_bytes(&vec![0; bytes]), None);
    }
}

#[test]
fn nothing_of_a_key_is_shown() {
    let key = PrivateKek::from_pem(key!("a.pem"), None).unwrap();
    assert_eq!(format!("{key:?}"), format!("PrivateKek({FINGERPRINT_OF_A})"));
}

proptest! {
    #[test]
    fn a_file_that_was_changed_never_panics(at in any::<prop::sample::Index>(), to in any::<char>()) {
        for file in [key!("a.pem"), key!("a.pub.pem"), key!("a.pkcs1.pem"), key!("a.aes.pem")] {
            let at = at.index(file.len());
            let changed = format!("{}{to}{}", &file[..at], &file[at + 1..]);
            // The salt or the passphrase's work may be what changed: the files for tests ask for little.
            let _ = PrivateKek::from_pem(&changed, Some(b"secret")).map_err(|error| error.to_string());
            let _ = PublicKek::from_pem(&changed).map_err(|error| error.to_string());
        }
    }
}
