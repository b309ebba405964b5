//! One runner for all backends: whatever a test asks, it asks of every backend that the CPU has.

use crypto_simd::Digest;
use crypto_simd::sha256::{Backend, PairHasher, hash, hash_many, par_hash_many};
use proptest::prelude::*;
use sha2::Digest as _;

fn oracle(message: &[u8]) -> Digest {
    sha2::Sha256::digest(message).into()
}

fn for_each_backend(check: impl Fn(Backend)) {
    let backends = Backend::supported();
    assert_eq!(backends.last().map(|backend| backend.name()), Some("portable"));
    for backend in backends {
        println!("backend {backend:?}");
        check(backend);
    }
}

/// Hashes a batch by `backend`, on top of what must be overwritten.
fn batch(backend: Backend, messages: &[&[u8]]) -> Vec<Digest> {
    let mut digests = vec![[0xa5; 32]; messages.len()];
    backend.hash_many(messages, &mut digests);
    digests
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

/// Batches of a shape that reaches every kernel and every hand-over between them.
const COUNTS: &[usize] =
    if cfg!(miri) { &[0, 1, 3] } else { &[0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 40, 100] };

#[test]
fn every_length_around_every_padding_boundary() {
    let data = noise(4 * 64 + 1, 1);
    let lengths: Vec<usize> =
        if cfg!(miri) { vec![0, 55, 56, 63, 64, 65, 119, 120, 128] } else { (0..=4 * 64).collect() };
    let messages: Vec<&[u8]> = lengths.iter().map(|&length| &data[1..=length]).collect();
    let expected: Vec<Digest> = messages.iter().map(|message| oracle(message)).collect();
    for_each_backend(|backend| {
        assert_eq!(batch(backend, &messages), expected, "{backend:?}");
        for (message, expected) in messages.iter().zip(&expected) {
            assert_eq!(backend.hash(message), *expected, "{backend:?}, {} bytes", message.len());
            let same = [*message; 17];
            assert_eq!(batch(backend, &same), [*expected; 17], "{backend:?}, {} bytes", message.len());
        }
    });
}

#[test]
fn any_number_of_messages() {
    let data = noise(5_000, 2);
    for_each_backend(|backend| {
        for &count in COUNTS {
            let messages: Vec<&[u8]> = (0..count).map(|i| &data[i..i + (i * 997) % 3_000]).collect();
            let expected: Vec<Digest> = messages.iter().map(|message| oracle(message)).collect();
            assert_eq!(batch(backend, &messages), expected, "{backend:?}, {count} messages");
        }
    });
}

#[test]
fn one_long_message_among_short_ones() {
    let long = noise(if cfg!(miri) { 700 } else { 300_000 }, 3);
    for_each_backend(|backend| {
        for &count in COUNTS.iter().filter(|count| **count > 0) {
            for place in [0, count / 2, count - 1] {
                let messages: Vec<&[u8]> =
                    (0..count).map(|i| if i == place { &long[..] } else { &long[..i] }).collect();
                let expected: Vec<Digest> = messages.iter().map(|message| oracle(message)).collect();
                assert_eq!(batch(backend, &messages), expected, "{backend:?}, {count} messages");
            }
        }
    });
}

#[test]
#[cfg(not(miri))]
fn batches_on_all_threads() {
    let data = noise(200_000, 5);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().expect("five threads");
    // Many of one block, a few long ones, a mixture; one too small to share.
    let batches: [Vec<&[u8]>; 4] = [
        (0..20_000).map(|i| &data[i..i + i % 130]).collect(),
        (0..7).map(|i| &data[i..]).collect(),
        (0..300).map(|i| &data[i..i + (i * 7_919) % 150_000]).collect(),
        vec![b"abc"; 40],
    ];
    for messages in batches {
        let expected: Vec<Digest> = messages.iter().map(|message| oracle(message)).collect();
        for_each_backend(|backend| {
            let mut digests = vec![[0xa5; 32]; messages.len()];
            pool.install(|| backend.par_hash_many(&messages, &mut digests));
            assert_eq!(digests, expected, "{backend:?}");
        });
        let mut digests = vec![[0xa5; 32]; messages.len()];
        par_hash_many(&messages, &mut digests);
        assert_eq!(digests, expected);
    }
}

#[test]
fn pairs_are_the_hashes_of_their_concatenation() {
    let prefix: [u8; 64] = noise(64, 4).try_into().expect("64 bytes");
    let nodes: Vec<Digest> = (0..200_u64).map(|i| noise(32, i).try_into().expect("32 bytes")).collect();
    let (pairs, _) = nodes.as_chunks::<2>();
    let expected: Vec<Digest> =
        pairs.iter().map(|[left, right]| oracle(&[&prefix[..], left, right].concat())).collect();
    for_each_backend(|backend| {
        let hasher = PairHasher::with_backend(&prefix, backend);
        for &count in COUNTS {
            let mut parents = vec![[0xa5; 32]; count];
            hasher.hash_many(&pairs[..count], &mut parents);
            assert_eq!(parents, expected[..count], "{backend:?}, {count} pairs");
        }
        for (pair, expected) in pairs.iter().zip(&expected).take(4) {
            assert_eq!(hasher.hash(&pair[0], &pair[1]), *expected, "{backend:?}");
        }
    });
}

#[test]
fn the_chosen_backend_is_one_of_the_supported() {
    let active = Backend::active();
    assert!(Backend::named(active.name()).is_some());
    assert!(Backend::named("none such").is_none());
    if let Ok(forced) = std::env::var(crypto_simd::sha256::BACKEND_VARIABLE) {
        assert_eq!(active.name(), forced);
    }
    assert_eq!(hash(b"abc"), oracle(b"abc"));
    let mut digests = [[0; 32]; 1];
    hash_many(&[b"abc"], &mut digests);
    assert_eq!(digests[0], oracle(b"abc"));
}

/// Runs the test above in a process of its own, which is what the choice is made once for.
#[cfg(not(miri))]
fn with_variable(value: &str) -> std::process::Output {
    std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "the_chosen_backend_is_one_of_the_supported"])
        .env(crypto_simd::sha256::BACKEND_VARIABLE, value)
        .output()
        .expect("it runs")
}

#[test]
#[cfg(not(miri))]
fn the_environment_forces_a_backend() {
    for_each_backend(|backend| {
        let output = with_variable(backend.name());
        assert!(output.status.success(), "{backend:?}: {output:?}");
    });
}

#[test]
#[cfg(not(miri))]
fn refuses_an_unknown_backend_in_the_environment() {
    let output = with_variable("abacus");
    assert!(!output.status.success());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("CRYPTO_SIMD=abacus") && text.contains("portable"), "{text}");
}

#[test]
#[should_panic(expected = "one digest for each message")]
fn refuses_more_messages_than_digests() {
    hash_many(&[b"a", b"b"], &mut [[0; 32]]);
}

proptest! {
    #![proptest_config(if cfg!(miri) {
        // miri's world has no directory to keep failures in.
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2) }
    } else {
        ProptestConfig::with_cases(64)
    })]

    #[test]
    fn random_batches(
        lengths in prop::collection::vec(
            prop_oneof![0..200_usize, 0..5_000_usize, 0..if cfg!(miri) { 300 } else { 70_000_usize }],
            0..if cfg!(miri) { 4 } else { 60 },
        ),
        seed: u64,
    ) {
        let data = noise(70_100, seed);
        let messages: Vec<&[u8]> =
            lengths.iter().enumerate().map(|(i, &length)| &data[i..i + length]).collect();
        let expected: Vec<Digest> = messages.iter().map(|message| oracle(message)).collect();
        for backend in Backend::supported() {
            prop_assert_eq!(&batch(backend, &messages), &expected, "{:?}", backend);
        }
    }
}
