//! Formats, keys of days, and what may be dialled.

use super::tracker::{
    ANSWER_BYTES_MAX, Answer, Beat, HEARD_BYTES, HEARTBEAT_BYTES, Heartbeat, REQUEST_BYTES, Request, Token,
    Verdict, heard, heard_counter,
};
use super::*;
use crate::keys::RwSeed;
use crate::limits::{
    CANDIDATE_AGAIN_MS, CANDIDATES_BURST, CANDIDATES_MAX, CANDIDATES_PER_MINUTE, ENTRY_ADDRESSES_MAX,
};
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

const NOW_S: u64 = 20_000 * DAY_S + DAY_S / 2;

fn key() -> DiscoveryKey {
    DiscoveryKey::of(&RwSeed::new(&[7; 32]).ro_secret())
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn entry(node: u8, texts: &[&str]) -> Entry {
    Entry::listening(NodeId([node; 16]), NOW_S, 3939, Offers::TCP, &ips(texts))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let ips = proptest::collection::vec(any::<IpAddr>(), 0..12);
    (any::<[u8; 16]>(), any::<u16>(), any::<u8>(), ips).prop_map(|(node, port, offers, ips)| {
        Entry::listening(NodeId(node), NOW_S, port, Offers(offers), &ips)
    })
}

#[test]
fn places_and_days_have_tags_of_their_own_and_none_is_the_handshakes() {
    let ro = RwSeed::new(&[7; 32]).ro_secret();
    let mut tags = vec![ro.tag(20_000).0];
    for place in [Place::Lan, Place::Tracker] {
        tags.extend([20_000, 20_001].map(|day| key().day(place, day).tag().0));
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 5);
    assert_eq!(format!("{:?}", key()), "DiscoveryKey(secret)");
}

#[test]
fn about_midnight_both_days_count() {
    let midnight = 20_000 * DAY_S;
    assert_eq!(days_around(midnight + DAY_S / 2), 20_000..=20_000);
    assert_eq!(days_around(midnight), 19_999..=20_000);
    assert_eq!(days_around(midnight + DAY_S - 1), 20_000..=20_001);
    assert_eq!(days_around(0), 0..=0);
    // Who is as far ahead or behind as may be is found all the same.
    for now in (midnight - DAY_S..midnight + DAY_S).step_by(977) {
        for other in [now - ENTRY_SKEW_MAX_S, now + ENTRY_SKEW_MAX_S] {
            assert!(days_around(now).contains(&day_of(other)), "{now} {other}");
        }
    }
}

#[test]
fn an_entry_opens_with_the_keys_of_its_place_and_day_alone() {
    let keys = key().day(Place::Lan, 20_000);
    let told = entry(1, &["10.0.0.1", "2001:db8::1"]);
    let sealed = keys.seal(&told, [9; 12]);
    assert_eq!(keys.open(&sealed, NOW_S), Ok(told));
    let other_job = DiscoveryKey::of(&RwSeed::new(&[8; 32]).ro_secret());
    for wrong in
        [key().day(Place::Tracker, 20_000), key().day(Place::Lan, 20_001), other_job.day(Place::Lan, 20_000)]
    {
        assert_eq!(wrong.open(&sealed, NOW_S), Err(EntryFault::NotAuthentic));
    }
}

#[test]
fn an_entry_is_believed_for_an_hour_either_way() {
    let keys = key().day(Place::Tracker, 20_000);
    let told = entry(1, &["10.0.0.1"]);
    let sealed = keys.seal(&told, [9; 12]);
    for now in [NOW_S - ENTRY_SKEW_MAX_S, NOW_S + ENTRY_SKEW_MAX_S] {
        assert!(keys.open(&sealed, now).is_ok());
    }
    for now in [NOW_S - ENTRY_SKEW_MAX_S - 1, NOW_S + ENTRY_SKEW_MAX_S + 1, 0, u64::MAX] {
        assert_eq!(keys.open(&sealed, now), Err(EntryFault::NotOfThisTime));
    }
}

#[test]
fn what_cannot_be_dialled_is_not_said() {
    let told =
        entry(1, &["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1", "::ffff:10.0.0.1"]);
    let addresses: Vec<_> = told.addresses().collect();
    assert_eq!(addresses, ["10.0.0.1:3939".parse::<SocketAddr>().unwrap()], "the mapped one, as what it is");
    let many: Vec<IpAddr> = (1..=20).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    let told = Entry::listening(NodeId([1; 16]), NOW_S, 1, Offers::TCP, &many);
    assert_eq!(told.addresses().count(), ENTRY_ADDRESSES_MAX);
    let looking = Entry::listening(NodeId([1; 16]), NOW_S, 0, Offers::TCP, &many);
    assert_eq!(looking, Entry::looking(NodeId([1; 16]), NOW_S));
    assert_eq!(looking.addresses().count(), 0);
}

#[test]
fn heartbeats_are_of_their_token_and_answers_too_and_no_longer() {
    let token = Token::new([1; 16], &[2; 32]);
    let others = [Token::new([1; 16], &[3; 32]), Token::new([2; 16], &[2; 32])];
    let heartbeat = Heartbeat::new(Beat::Alive, &token, 5);
    assert!(heartbeat.is_of(&token));
    assert!(others.iter().all(|other| !heartbeat.is_of(other) && !other.is(&token)));
    let answer = heard(&token, 5);
    assert_eq!(heard_counter(&answer, &token), Some(5));
    assert_eq!(heard_counter(&answer, &others[0]), None);
    assert_eq!((HEARTBEAT_BYTES, HEARD_BYTES), (45, 28));
    // Neither is the other, and leaving is not being alive.
    assert!(Heartbeat::decode(&answer).is_none());
    let mut leave = heartbeat.encode();
    leave[4] = 2;
    assert!(!Heartbeat::decode(&leave).unwrap().is_of(&token));
    assert_eq!(format!("{token:?}").matches("secret").count(), 1);
}

fn given(candidates: &mut Candidates, now_ms: u64) -> usize {
    std::iter::from_fn(|| candidates.give(now_ms)).count()
}

#[test]
fn an_address_is_given_once_and_again_only_after_a_while() {
    let mut candidates = Candidates::new(NodeId([0; 16]));
    let told = entry(1, &["10.0.0.1", "10.0.0.2"]);
    assert!(candidates.hear(&told, Place::Lan, false, 0));
    assert!(candidates.hear(&told, Place::Tracker, false, 0));
    assert_eq!(given(&mut candidates, 0), 2);
    candidates.hear(&told, Place::Lan, false, CANDIDATE_AGAIN_MS - 1);
    assert_eq!(given(&mut candidates, CANDIDATE_AGAIN_MS - 1), 0);
    candidates.hear(&told, Place::Lan, false, CANDIDATE_AGAIN_MS);
    assert_eq!(given(&mut candidates, CANDIDATE_AGAIN_MS), 2);
    assert_eq!(candidates.next_ms(), None);
}

#[test]
fn one_does_not_dial_oneself_nor_somebody_elses_loopback() {
    let mut candidates = Candidates::new(NodeId([1; 16]));
    assert!(!candidates.hear(&entry(1, &["10.0.0.1"]), Place::Lan, true, 0));
    assert!(candidates.hear(&entry(2, &["127.0.0.1", "::1"]), Place::Lan, false, 0));
    assert_eq!(given(&mut candidates, 0), 0);
    assert!(candidates.hear(&entry(2, &["127.0.0.1", "::1"]), Place::Lan, true, 0));
    assert_eq!(given(&mut candidates, 0), 2);
}

#[test]
fn dials_are_few_and_what_is_known_is_bounded_whatever_is_heard() {
    let mut candidates = Candidates::new(NodeId([0; 16]));
    for node in 0..10_000_u32 {
        let ip = IpAddr::from((0x0a00_0000 + node).to_be_bytes());
        let told = Entry::listening(NodeId([1; 16]), NOW_S, 1, Offers::TCP, &[ip]);
        candidates.hear(&told, Place::Lan, false, u64::from(node));
    }
    let now = 10_000;
    assert_eq!(given(&mut candidates, now), CANDIDATES_BURST as usize);
    let next = candidates.next_ms().unwrap();
    assert!(next > now);
    assert_eq!(given(&mut candidates, next - 1), 0);
    let within_a_minute: usize = (1..=60_000).map(|ms| given(&mut candidates, now + ms)).sum();
    assert_eq!(within_a_minute, CANDIDATES_PER_MINUTE as usize);
    let rest: usize = (1..=600).map(|s| given(&mut candidates, now + 60_000 + s * 1000)).sum();
    assert_eq!(CANDIDATES_BURST as usize + within_a_minute + rest, CANDIDATES_MAX);
}

proptest! {
    #[test]
    fn entries_come_back_as_they_were(told in any_entry(), nonce in any::<[u8; 12]>()) {
        let keys = key().day(Place::Lan, 20_000);
        let datagram = lan::Datagram { tag: keys.tag(), entry: keys.seal(&told, nonce) };
        let read = lan::Datagram::decode(&datagram.encode()).unwrap();
        prop_assert_eq!(read, datagram);
        prop_assert_eq!(keys.open(&read.entry, NOW_S), Ok(told));
    }

    #[test]
    fn what_was_changed_anywhere_does_not_open(at in 0..SEALED_ENTRY_BYTES, bits in 1..=255_u8) {
        let keys = key().day(Place::Lan, 20_000);
        let mut sealed = keys.seal(&entry(1, &["10.0.0.1"]), [9; 12]);
        sealed.0[at] ^= bits;
        prop_assert_eq!(keys.open(&sealed, NOW_S), Err(EntryFault::NotAuthentic));
    }

    #[test]
    fn content_of_any_kind_is_one_entry_or_none(bytes in proptest::collection::vec(any::<u8>(), 164)) {
        let bytes: [u8; 164] = bytes.try_into().unwrap();
        if let Some(read) = Entry::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
            prop_assert!(read.addresses().all(|address| is_dialable(address.ip()) && address.port() != 0));
        }
    }

    #[test]
    fn messages_of_a_tracker_come_back_as_they_were(
        tag in any::<[u8; 16]>(), wanted in 0..=64_u8, has in any::<[bool; 2]>(), count in 0..=64_usize,
        numbers in any::<[u16; 2]>(), seen in any::<IpAddr>(), verdict in 0..3_u8, counter in any::<u64>(),
    ) {
        let token = has[0].then(|| Token::new([1; 16], &[2; 32]));
        let sealed = SealedEntry([5; SEALED_ENTRY_BYTES]);
        let request = Request { tag: DiscoveryTag(tag), token: token.clone(), wanted, entry: has[1].then_some(sealed) };
        let bytes = request.encode();
        let bytes: &[u8; REQUEST_BYTES] = bytes.as_slice().try_into().unwrap();
        let again = Request::decode(bytes).unwrap().encode();
        prop_assert_eq!(again.as_slice(), bytes);
        let answer = Answer {
            verdict: [Verdict::Done, Verdict::Full, Verdict::TooOften][usize::from(verdict)],
            heartbeat_s: numbers[0], again_s: numbers[1], seen, token, entries: vec![sealed; count],
        };
        let bytes = answer.encode();
        prop_assert!(bytes.len() <= ANSWER_BYTES_MAX);
        prop_assert_eq!(&Answer::decode(&bytes).unwrap().encode(), &bytes);
        prop_assert!(Answer::decode(&bytes[1..]).is_none());
        let heartbeat = Heartbeat::new(Beat::Leave, &Token::new(tag, &[2; 32]), counter);
        prop_assert_eq!(Heartbeat::decode(&heartbeat.encode()), Some(heartbeat));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = lan::Datagram::decode(&bytes);
        let _ = Answer::decode(&bytes);
        let _ = Heartbeat::decode(&bytes);
        if let Some(bytes) = bytes.first_chunk() {
            let _ = Request::decode(bytes);
        }
    }
}
