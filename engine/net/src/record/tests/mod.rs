//! Both sides of the record layer without sockets, and what only a hostile peer would send.

mod hostile;
mod messages;
mod streams;

use super::format::{BODY_MAX, HEADER_BYTES, TAG_BYTES, header};
use super::{Incoming, NextKeys, Opener, Outgoing, Progress, Received, Sealer, TrafficKey, Violation};
use aws_lc_rs::aead::AES_256_GCM;
use rustls::Error;

/// The key of a direction after so many updates.
fn key(direction: u8, updates: u8) -> TrafficKey {
    TrafficKey::from_parts(&AES_256_GCM, &[direction ^ updates; 32], [updates; 12], 0).unwrap()
}

/// Keys of a peer that sends in one direction and receives in the other.
struct Keys {
    outgoing: (u8, u8),
    incoming: (u8, u8),
}

impl NextKeys for Keys {
    fn next_outgoing(&mut self) -> Result<TrafficKey, Error> {
        self.outgoing.1 = self.outgoing.1.wrapping_add(1);
        Ok(key(self.outgoing.0, self.outgoing.1))
    }

    fn next_incoming(&mut self) -> Result<TrafficKey, Error> {
        self.incoming.1 = self.incoming.1.wrapping_add(1);
        Ok(key(self.incoming.0, self.incoming.1))
    }
}

/// A peer that sends in one direction and receives in the other. The one that sends in the first is the client.
fn peer(sends: u8, receives: u8, limit: u64) -> (Incoming, Outgoing) {
    let keys = Keys { outgoing: (sends, 0), incoming: (receives, 0) };
    let opener = Opener::new(key(receives, 0), sends < receives);
    (Incoming::new(opener, Received::new()), Outgoing::new(Sealer::new(key(sends, 0), limit), Box::new(keys)))
}

/// A peer that seals whatever it likes.
struct Forger(TrafficKey);

impl Forger {
    fn new() -> Self {
        Self(key(1, 0))
    }

    /// An authentic record with any content and padding.
    fn record(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut inner = [content, &[kind], &vec![0; padding]].concat();
        let last = inner.pop().unwrap();
        let mut head = header((inner.len() + 1 + TAG_BYTES).min(BODY_MAX));
        let length = u16::try_from(inner.len() + 1 + TAG_BYTES).unwrap();
        head[3..].copy_from_slice(&length.to_be_bytes());
        let mut tail = [0; 1 + TAG_BYTES];
        self.0.seal_in_place(&head, &mut inner, last, &mut tail);
        let record = [&head[..], &inner, &tail].concat();
        assert_eq!(record.len(), HEADER_BYTES + usize::from(length));
        record
    }
}

/// One who hears it: the client, or the server.
fn listener(client: bool) -> Incoming {
    Incoming::new(Opener::new(key(1, 0), client), Received::new())
}

fn put(incoming: &mut Incoming, bytes: &[u8]) {
    incoming.room()[..bytes.len()].copy_from_slice(bytes);
    incoming.put(bytes.len());
}

/// What is heard of these bytes: the data, and how it ends. Through a reader's buffer of a size.
fn heard_through(
    incoming: &mut Incoming,
    bytes: &[u8],
    size: usize,
) -> (Vec<u8>, Result<Progress, Violation>) {
    let (mut data, mut place, mut updates) = (Vec::new(), vec![0; size], 0);
    put(incoming, bytes);
    loop {
        let next_key = |_| {
            updates += 1;
            Ok(key(1, updates))
        };
        match incoming.read(&mut place, next_key) {
            Ok(Progress::Read(count)) => data.extend_from_slice(&place[..count]),
            end => return (data, end),
        }
    }
}

/// The same for any size of buffer, which must not matter.
fn heard(client: bool, bytes: &[u8]) -> (Vec<u8>, Result<Progress, Violation>) {
    let large = heard_through(&mut listener(client), bytes, 1 << 20);
    for size in [1, 100, 20_000] {
        assert_eq!(heard_through(&mut listener(client), bytes, size), large);
    }
    large
}
