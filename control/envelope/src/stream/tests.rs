//! Streams against the vectors that Tink publishes, and against whoever changes them.

use super::*;
use data_encoding::HEXLOWER;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// HKDF (RFC 5869) over SHA-1, as Tink's vectors have it.
fn hkdf_sha1(key: &[u8], salt: &[u8], info: &[&[u8]], derived: &mut [u8]) {
    use aws_lc_rs::hkdf::{HKDF_SHA1_FOR_LEGACY_USE_ONLY, KeyType, Salt};
    struct Bytes(usize);
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let bytes = Bytes(derived.len());
    Salt::new(HKDF_SHA1_FOR_LEGACY_USE_ONLY, salt)
        .extract(key)
        .expand(info, bytes)
        .unwrap()
        .fill(derived)
        .unwrap();
}

const SHORT_KEY: &str = "6eb56cdc726dfbe5d57f2fcdc6e9345b";
const LONG_KEY: &str = "00112233445566778899aabbccddeeff6eb56cdc726dfbe5d57f2fcdc6e9345b";

/// Those of tink-java's `AesGcmHkdfStreamingTestUtil`, but for the one with SHA-512. None has all of Sealift's parameters;
/// all have its construction, and each parameter is in one of them.
#[test]
fn published_vectors_open_and_are_made_again() {
    let (sha1, sha256) = (hkdf_sha1 as Derive, hkdf_sha256 as Derive);
    let empty: &[u8] = b"";
    let vectors = [
        (
            (64, 16, sha1, SHORT_KEY),
            &b"This is a fairly long plaintext. It is of the exact length to create three output blocks. "[..],
            &b"aad"[..],
            concat!(
                "1893b3af5e14ab378d065addfc8484da642c0862877baea8",
                "db92d9c77406a406168478821c4298eab3e6d531277f4c1a051714faebcaefcbca7b7be05e9445ea",
                "a0bb2904153398a25084dd80ae0edcd1c3079fcea2cd3770630ee36f7539207b",
                "8ec9d754956d486b71cdf989f0ed6fba6779b63558be0a66e668df14e1603cd2",
                "af8944844078345286d0b292e772e7190775c51a0f83e40c0b75821027e7e538e111",
            ),
        ),
        (
            (64, 16, sha1, SHORT_KEY),
            empty,
            empty,
            "18ec99b2c3884194023bd41bb9bff309205354c750fa0cb3c0d02609abf71f88eaeaa48d7deca27f",
        ),
        (
            (64, 16, sha256, SHORT_KEY),
            empty,
            empty,
            "18be78bce0cab6fd38a9041eea8ab0ffc4cf17e3c00b661d3927f5f79069f41a210fedc40b25648c",
        ),
        (
            (64, 16, sha1, LONG_KEY),
            empty,
            empty,
            "180880e85a24207a7b72cefde26306ed09d7d76e58104b751d005a3ffd72dd6151f0d9c8ccf163f7",
        ),
        (
            (64, 32, sha1, LONG_KEY),
            empty,
            empty,
            concat!(
                "28fae780c70a82d1256c8303a1261ac6a98cf557b4e173967a62f3c149517ba5",
                "b2431da93b3c6e90f508b34dc14bfda59bab05681c6ad3fa",
            ),
        ),
        (
            (128, 32, sha1, LONG_KEY),
            empty,
            empty,
            concat!(
                "28fae780c70a82d1256c8303a1261ac6a98cf557b4e173967a62f3c149517ba5",
                "b2431da93b3c6e90f508b34dc14bfda59bab05681c6ad3fa",
            ),
        ),
        (
            (120, 32, sha1, LONG_KEY),
            b"BLOCK 1.BLOCK 2.BLOCK 3.BLOCK 4.BLOCK 5.BLOCK 6.BLOCK 7.BLOCK 8.",
            &[0, 1, 2, 3],
            concat!(
                "28782994617714a80fa085e15051a16854522330d6d0f26c049b2192f09cdd98",
                "b2eb90c753bfff277a29e54fa4afb15d648c28477eb07f012535c767f5fdce24",
                "ffffae318480c1d37357d6d3c511159318afa09ef38aa3f5456fd7817c5c02dd",
                "6e1a7fef174c8bd24e38b5982ac105497c0101ac5581fe5b",
            ),
        ),
    ];
    for ((segment_bytes, key_bytes, derive, key), plaintext, associated, sealed) in vectors {
        let (kind, stream) = (Kind { key_bytes, derive }, Stream { segment_bytes });
        let (key, sealed) = (hex(key), hex(sealed));
        let opened = stream.open_all_of(&kind, &key, associated, &sealed).unwrap();
        assert_eq!(&opened[..], plaintext);
        let random = &sealed[1..kind.header_bytes()];
        assert_eq!(stream.seal_salted(&kind, &key, associated, random, plaintext), sealed);
    }
}

const SEGMENT: usize = 100;

fn key() -> DataKey {
    DataKey::from_bytes(&[7; 32])
}

fn stream() -> Stream {
    Stream::new(SEGMENT).unwrap()
}

/// Four segments: 44 bytes of content in the first, 84 in each after it.
fn four() -> Vec<u8> {
    let content: Vec<u8> = (0..250_u8).collect();
    stream().seal(&key(), b"place", &content).unwrap()
}

fn refused(sealed: &[u8]) -> StreamError {
    stream().open_all(&key(), b"place", sealed).unwrap_err()
}

#[test]
fn a_cut_between_segments_shows_as_one() {
    let sealed = four();
    for segments in 1..4_u32 {
        let cut = SEGMENT * usize::try_from(segments).unwrap();
        assert_eq!(refused(&sealed[..cut]), StreamError::Truncated { after: segments - 1 });
    }
}

#[test]
fn no_cut_opens() {
    let sealed = four();
    for bytes in 0..sealed.len() {
        refused(&sealed[..bytes]);
    }
    assert_eq!(refused(&sealed[..HEADER_BYTES + TAG_BYTES - 1]), StreamError::Short);
    assert_eq!(refused(&sealed[..SEGMENT + TAG_BYTES]), StreamError::Short);
}

#[test]
fn segments_in_another_order_show_as_such() {
    let mut sealed = four();
    let (one, two) = sealed[SEGMENT..].split_at_mut(SEGMENT);
    one.swap_with_slice(&mut two[..SEGMENT]);
    assert_eq!(refused(&sealed), StreamError::Moved { at: 1, is: 2 });
}

#[test]
fn a_segment_left_out_shows_as_another_in_its_place() {
    let mut sealed = four();
    sealed.drain(SEGMENT..2 * SEGMENT);
    assert_eq!(refused(&sealed), StreamError::Moved { at: 1, is: 2 });
}

#[test]
fn what_goes_on_behind_its_end_shows() {
    let whole = stream().seal(&key(), b"place", &[1; SEGMENT - HEADER_BYTES - TAG_BYTES]).unwrap();
    assert_eq!(whole.len(), SEGMENT, "one segment, and full");
    let longer = [&whole[..], &four()[SEGMENT..2 * SEGMENT]].concat();
    assert_eq!(refused(&longer), StreamError::Extended { end: 0 });
}

#[test]
fn another_key_another_place_and_another_header_are_refused() {
    let sealed = four();
    let other = DataKey::from_bytes(&[8; 32]);
    assert_eq!(stream().open_all(&other, b"place", &sealed), Err(StreamError::NotAuthentic(0)));
    assert_eq!(stream().open_all(&key(), b"another", &sealed), Err(StreamError::NotAuthentic(0)));
    assert_eq!(
        stream().open_all(&key(), b"place", &[&[24], &sealed[1..]].concat()),
        Err(StreamError::Header)
    );
    assert_eq!(
        Stream::new(SEGMENT + 1).unwrap().open_all(&key(), b"place", &sealed),
        Err(StreamError::NotAuthentic(0))
    );
}

#[test]
fn segments_open_in_any_order_and_only_where_they_are() {
    let sealed = four();
    let header = sealed.first_chunk().unwrap();
    let opener = stream().opener(&key(), b"place", header, u64::try_from(sealed.len()).unwrap()).unwrap();
    assert_eq!(opener.last(), 3);
    let mut content = Vec::new();
    for number in [2, 0, 3, 1] {
        let range = within(&opener.range(number).unwrap()).unwrap();
        content.push((number, opener.open(number, &sealed[range]).unwrap().to_vec()));
    }
    content.sort();
    let content: Vec<u8> = content.into_iter().flat_map(|(_, content)| content).collect();
    assert_eq!(content, (0..250_u8).collect::<Vec<_>>());
    assert_eq!(opener.range(4), None);
    assert_eq!(opener.open(4, &[0; SEGMENT]), Err(StreamError::NoSegment(4)));
    assert_eq!(opener.open(1, &sealed[SEGMENT..2 * SEGMENT - 1]), Err(StreamError::Short));
}

#[test]
fn lengths_that_no_stream_has_are_refused_before_anything_is_held() {
    let header = [40; HEADER_BYTES];
    let refused = |bytes| stream().opener(&key(), b"", &header, bytes).map(|_| ()).unwrap_err();
    assert_eq!(refused(u64::MAX), StreamError::Long);
    let segment = u64::try_from(SEGMENT).unwrap();
    assert_eq!(refused(SEGMENTS_MAX * segment + 1), StreamError::Long);
    assert!(stream().opener(&key(), b"", &header, SEGMENTS_MAX * segment).is_ok());
    assert_eq!(Stream::new(SEGMENT_BYTES_MIN - 1), None);
    assert_eq!(Stream::new(SEGMENT_BYTES_MAX + 1), None);
}

proptest! {
    #[test]
    fn what_was_sealed_opens_and_what_was_changed_does_not(
        content in prop::collection::vec(any::<u8>(), 0..400),
        associated in prop::collection::vec(any::<u8>(), 0..20),
        segment_bytes in SEGMENT_BYTES_MIN..200_usize,
        bit in any::<prop::sample::Index>(),
    ) {
        let stream = Stream::new(segment_bytes).unwrap();
        let mut sealed = stream.seal(&key(), &associated, &content).unwrap();
        prop_assert_eq!(&stream.open_all(&key(), &associated, &sealed).unwrap()[..], &content[..]);
        let bit = bit.index(sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(stream.open_all(&key(), &associated, &sealed).is_err());
    }
}
