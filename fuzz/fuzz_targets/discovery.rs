//! Discovery: any datagram, request and answer; and authentic entries of any content. What is read is written as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealift_proto::discovery::lan::Datagram;
use sealift_proto::discovery::tracker::{
    ANSWER_HEAD_BYTES, Answer, Heartbeat, REQUEST_BYTES, Request, Token, heard_counter,
};
use sealift_proto::discovery::{
    Candidates, DiscoveryKey, Entry, NodeId, Offers, Place, SEALED_ENTRY_BYTES, SealedEntry, is_dialable,
};
use sealift_proto::keys::RoSecret;
use sealift_proto::limits::{CANDIDATES_BURST, CANDIDATES_MAX, CANDIDATES_PER_MINUTE, ENTRY_ADDRESSES_MAX};
use std::net::IpAddr;

const NOW_S: u64 = 20_000 * 86_400 + 43_200;

fuzz_target!(|input: &[u8]| {
    datagrams(input);
    messages(input);
    entries(input);
});

fn datagrams(input: &[u8]) {
    let token = Token::new([2; 16], &[3; 32]);
    if let Some(datagram) = Datagram::decode(input) {
        assert_eq!(datagram.encode(), input);
    }
    if let Some(heartbeat) = Heartbeat::decode(input) {
        assert_eq!(heartbeat.encode(), input);
        let own = heartbeat == Heartbeat::new(heartbeat.beat, &token, heartbeat.counter);
        assert_eq!(heartbeat.is_of(&token), own);
    }
    let _ = heard_counter(input, &token);
}

fn messages(input: &[u8]) {
    if let Some(bytes) = input.first_chunk::<REQUEST_BYTES>()
        && let Some(request) = Request::decode(bytes)
    {
        assert_eq!(request.encode().as_slice(), bytes);
    }
    if let Some(answer) = Answer::decode(input) {
        assert_eq!(answer.encode().as_slice(), input);
        let head = input.first_chunk::<ANSWER_HEAD_BYTES>().expect("it was read");
        assert_eq!(Answer::entries_bytes(head), Some(answer.entries.len() * SEALED_ENTRY_BYTES));
    }
}

/// Bytes at the place of a sealed entry, and entries of members that say what the input says, heard at its times.
fn entries(input: &[u8]) {
    let keys = DiscoveryKey::of(&RoSecret::from_bytes(&[7; 32])).day(Place::Lan, 20_000);
    if let Some(bytes) = input.first_chunk() {
        assert!(keys.open(&SealedEntry(*bytes), NOW_S).is_err(), "nobody made it who has the key");
    }
    let mut candidates = Candidates::new(NodeId([0; 16]));
    let (mut now_ms, mut given) = (0_u64, 0_u64);
    for chunk in input.chunks_exact(24) {
        let ips: Vec<IpAddr> =
            (0..12).map(|n| [chunk[n], chunk[n + 1], chunk[n + 2], chunk[n + 3]].into()).collect();
        let port = u16::from_le_bytes([chunk[16], chunk[17]]);
        let entry = Entry::listening(NodeId([chunk[18]; 16]), NOW_S, port, Offers(chunk[19]), &ips);
        let sealed = keys.seal(&entry, [9; 12]);
        assert_eq!(keys.open(&sealed, NOW_S).as_ref(), Ok(&entry));
        assert!(entry.addresses().count() <= ENTRY_ADDRESSES_MAX);
        assert!(entry.addresses().all(|address| address.port() != 0 && is_dialable(address.ip())));
        candidates.hear(&entry, Place::Lan, chunk[20] & 1 == 1, now_ms);
        now_ms += u64::from(u16::from_le_bytes([chunk[21], chunk[22]]));
        for _ in 0..2 * CANDIDATES_MAX {
            let Some(candidate) = candidates.give(now_ms) else { break };
            assert_ne!(candidate.node, NodeId([0; 16]));
            given += 1;
        }
        let allowed = u64::from(CANDIDATES_BURST) + now_ms * u64::from(CANDIDATES_PER_MINUTE) / 60_000 + 1;
        assert!(given <= allowed, "{given} of {allowed}");
    }
}
