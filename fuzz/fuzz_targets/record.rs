//! A peer's records at the record layer of a session: any bytes, and records that it sealed with the right key, of any
//! content; cut and read in any way. What comes out is the data of the authentic records, in order, and no more.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use record::{Incoming, Opener, Progress, Received, Sealer, TrafficKey};
use rustls::ConnectionTrafficSecrets::Aes256Gcm;
use rustls::Error;
use rustls::crypto::cipher::{AeadKey, Iv};

// It has no face towards other crates.
#[allow(dead_code, unused_imports, reason = "the other direction is not fuzzed")]
#[path = "../../engine/net/src/record/mod.rs"]
mod record;

#[derive(Arbitrary, Debug)]
struct Input {
    client: bool,
    pieces: Vec<Piece>,
    /// How much comes at a time, and how much is read at a time.
    sizes: Vec<(u16, u16)>,
}

#[derive(Arbitrary, Debug)]
enum Piece {
    Raw(Vec<u8>),
    Data {
        length: u16,
        padding: u8,
    },
    /// Of any type, messages and alerts among them.
    Sealed {
        kind: Kind,
        content: Vec<u8>,
        padding: u8,
    },
    KeyUpdate {
        answer: bool,
    },
    Replayed,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Alert,
    Handshake,
    Any(u8),
}

fn key(updates: u8) -> TrafficKey {
    let secrets = Aes256Gcm { key: AeadKey::from([updates; 32]), iv: Iv::from([!updates; 12]) };
    TrafficKey::new((0, secrets)).expect("a key of AES-256-GCM")
}

/// What the peer sends.
struct Peer {
    sealer: Sealer,
    updates: u8,
    wire: Vec<u8>,
    last: Vec<u8>,
}

impl Peer {
    fn seal(&mut self, kind: u8, content: &[u8], padding: u8) {
        let inner = [content, &[kind][..], &vec![0; usize::from(padding)]].concat();
        let (&last, inner) = inner.split_last().expect("the type at least");
        let mut record = vec![0; inner.len() + 22];
        assert_eq!(self.sealer.seal(last, inner, &mut record), record.len());
        self.wire.extend_from_slice(&record);
        self.last = record;
    }
}

fuzz_target!(|input: Input| {
    let mut peer =
        Peer { sealer: Sealer::new(key(0), u64::MAX), updates: 0, wire: Vec::new(), last: Vec::new() };
    // What an honest peer meant, until it was one no more: then it depends.
    let (mut meant, mut honest) = (Vec::new(), true);
    for (nth, piece) in input.pieces.iter().enumerate() {
        match piece {
            Piece::Raw(bytes) => {
                honest &= bytes.is_empty();
                peer.wire.extend_from_slice(bytes);
            }
            Piece::Data { length, padding } => {
                let content = vec![nth as u8; usize::from(*length).min(16_000)];
                peer.seal(23, &content, *padding);
                if honest {
                    meant.extend_from_slice(&content);
                }
            }
            Piece::Sealed { kind, content, padding } => {
                honest = false;
                let kind = match kind {
                    Kind::Alert => 21,
                    Kind::Handshake => 22,
                    Kind::Any(23) => 24,
                    Kind::Any(any) => *any,
                };
                peer.seal(kind, &content[..content.len().min(16_000)], *padding);
            }
            Piece::KeyUpdate { answer } => {
                peer.seal(22, &[24, 0, 0, 1, u8::from(*answer)], 0);
                peer.updates = peer.updates.wrapping_add(1);
                peer.sealer.rekey(key(peer.updates));
            }
            Piece::Replayed => {
                honest &= peer.last.is_empty();
                peer.wire.extend_from_slice(&peer.last);
            }
        }
    }

    let mut incoming = Incoming::new(Opener::new(key(0), input.client), Received::new());
    let (mut heard, mut wire, mut updates) = (Vec::new(), &peer.wire[..], 0_u8);
    let mut sizes = input.sizes.iter().copied().chain(std::iter::repeat((u16::MAX, 20_000)));
    let end = loop {
        let (come, read) = sizes.next().expect("endless");
        let mut place = vec![0; usize::from(read).max(1)];
        let next_key = |_| {
            updates = updates.wrapping_add(1);
            Ok::<_, Error>(key(updates))
        };
        match incoming.read(&mut place, next_key) {
            Ok(Progress::Read(count)) => heard.extend_from_slice(&place[..count]),
            Ok(Progress::Blocked) if wire.is_empty() => break Ok(()),
            Ok(Progress::Blocked) => {
                let room = incoming.room();
                assert!(!room.is_empty(), "a record always has room");
                let count = usize::from(come).max(1).min(room.len()).min(wire.len());
                room[..count].copy_from_slice(&wire[..count]);
                wire = &wire[count..];
                incoming.put(count);
            }
            Ok(Progress::End) => break Ok(()),
            Err(violation) => {
                assert_eq!(incoming.read(&mut place, |_| unreachable!()), Err(violation.clone()));
                break Err(violation);
            }
        }
    };
    let common = heard.len().min(meant.len());
    assert_eq!(heard[..common], meant[..common]);
    // Many records without data are refused even of an honest peer.
    if honest && end.is_ok() {
        assert_eq!(heard, meant);
    }
});
