//! Hosts: what they send, to whom, and how fast.

use crate::events::{HostId, LinkId};
use crate::receiver::Receiver;
use sealift_proto::transfer::pull::Fetch;
use std::collections::VecDeque;

/// What connections of a host are served in turn.
pub const PIECE_BYTES: u64 = 256 << 10;

pub enum Role {
    Source,
    Receiver(Box<Receiver>),
    /// Says that it has everything, and gives what is wrong.
    Liar,
}

/// A fetch that is being answered.
pub struct Upload {
    pub fetch: Box<Fetch>,
    pub left: u64,
}

/// One end of a connection.
pub struct Link {
    pub other: HostId,
    /// The connection's number at the other end.
    pub back: LinkId,
    /// Whether something passes.
    pub carries: bool,
    /// Whether this end holds it to be alive.
    pub believed: bool,
    pub uploads: VecDeque<Upload>,
}

pub struct Host {
    pub role: Role,
    pub zone: u32,
    /// Which half it is in while the network is cut.
    pub half: bool,
    pub lives: bool,
    /// Whether it will crash: it is not counted.
    pub is_doomed: bool,
    /// Bytes a microsecond.
    pub rate: f64,
    pub links: Vec<Link>,
    /// Connections with something to send, in turn.
    pub active: VecDeque<LinkId>,
    pub is_sending: bool,
    /// Until when what comes in keeps its link busy.
    pub down_free: u64,
    pub sent_bytes: u64,
}

impl Host {
    pub fn new(role: Role, zone: u32, half: bool, rate: f64) -> Self {
        Self {
            role,
            zone,
            half,
            lives: true,
            is_doomed: false,
            rate,
            links: Vec::new(),
            active: VecDeque::new(),
            is_sending: false,
            down_free: 0,
            sent_bytes: 0,
        }
    }

    pub fn link(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id as usize]
    }

    pub fn receiver(&mut self) -> Option<&mut Receiver> {
        match &mut self.role {
            Role::Receiver(receiver) => Some(receiver),
            Role::Source | Role::Liar => None,
        }
    }

    /// Connections that this host believes in.
    pub fn believed(&self) -> impl Iterator<Item = LinkId> {
        let believed = self.links.iter().enumerate().filter(|(_, link)| link.believed);
        believed.map(|(id, _)| LinkId::try_from(id).expect("few connections"))
    }

    pub fn knows(&self, other: HostId) -> bool {
        self.links.iter().any(|link| link.believed && link.other == other)
    }

    /// The next piece to send: of which connection, its bytes, and the fetch that is answered with it.
    pub fn next_piece(&mut self) -> Option<(LinkId, u64, Option<Box<Fetch>>)> {
        while let Some(id) = self.active.pop_front() {
            let link = &mut self.links[id as usize];
            if !link.carries {
                link.uploads.clear();
            }
            let Some(upload) = link.uploads.front_mut() else { continue };
            let bytes = upload.left.min(PIECE_BYTES);
            upload.left -= bytes;
            let is_whole = upload.left == 0;
            let fetch = if is_whole { link.uploads.pop_front().map(|upload| upload.fetch) } else { None };
            if !link.uploads.is_empty() {
                self.active.push_back(id);
            }
            return Some((id, bytes, fetch));
        }
        None
    }
}

/// How long so many bytes take at a rate, in microseconds.
pub fn micros(bytes: u64, rate: f64) -> u64 {
    // Rates are positive, and nothing takes longer than the scenario.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let micros = (bytes as f64 / rate).ceil() as u64;
    micros
}
