//! Sessions: who may say what on a connection, and when. One table; no I/O.

use crate::wire::{Channel, CloseCode, FrameKind, Hello, VERSIONS, Welcome};

/// The side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dials and receives a data set.
    Receiver,
    /// Listens and sends it.
    Sender,
}

/// What a connection carries, once greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Manifest and verdicts.
    Control,
    /// Fetches and blocks.
    Data,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Open,
    Finishing,
    Closed,
}

/// The state of one connection, seen from one side: every frame that comes in is put to [`Session::admit`].
#[derive(Clone, Copy, Debug)]
pub struct Session {
    role: Role,
    purpose: Purpose,
    state: State,
}

/// A frame that may not come here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent a frame of {0:?} where none may come")]
pub struct Unexpected(pub FrameKind);

impl Session {
    /// A connection whose first frame has not come yet. A sender learns the purpose from that frame, and states it
    /// with [`Session::set_purpose`].
    #[must_use]
    pub fn new(role: Role, purpose: Purpose) -> Self {
        Self { role, purpose, state: State::Greeting }
    }

    /// What the connection turned out to be for.
    pub fn set_purpose(&mut self, purpose: Purpose) {
        self.purpose = purpose;
    }

    /// Whether a frame of this kind may come in now, and what follows from it.
    ///
    /// # Errors
    /// If it may not; the connection is then to be closed with [`CloseCode::Protocol`].
    pub fn admit(&mut self, kind: FrameKind) -> Result<(), Unexpected> {
        use FrameKind as K;
        use Purpose::{Control, Data};
        use Role::{Receiver, Sender};
        use State::{Closed, Finishing, Greeting, Open};
        self.state = match (self.state, self.role, self.purpose, kind) {
            (Greeting | Open | Finishing, _, _, K::Close) => Closed,
            (Greeting, Sender, _, K::Hello) | (Greeting, Receiver, _, K::Welcome) => Open,
            (Open, _, Control, K::Ping | K::Pong) => Open,
            (Open, Sender, Control, K::Credit | K::Reject) => Open,
            (Open, Sender, Control, K::Finished) => Finishing,
            (Finishing, Sender, Control, K::Ping | K::Pong) => Finishing,
            (Open, Receiver, Control, K::Segment | K::Have | K::Peers) => Open,
            (Open, Sender, Data, K::Fetch) => Open,
            (Open, Receiver, Data, K::Blocks | K::RangeError) => Open,
            _ => return Err(Unexpected(kind)),
        };
        Ok(())
    }
}

/// The listener's answer to a hello: the highest common version, or why there is none.
///
/// # Errors
/// [`CloseCode::Version`].
pub fn choose_version(hello: &Hello) -> Result<u32, CloseCode> {
    let highest = hello.version_max.min(*VERSIONS.end());
    if highest < hello.version_min || highest < *VERSIONS.start() {
        return Err(CloseCode::Version);
    }
    Ok(highest)
}

/// Whether a welcome answers the hello this build sends.
///
/// # Errors
/// [`CloseCode::Version`].
pub fn check_welcome(welcome: &Welcome) -> Result<(), CloseCode> {
    if VERSIONS.contains(&welcome.version) { Ok(()) } else { Err(CloseCode::Version) }
}

/// The hello of this build, of one that takes no part in a swarm.
#[must_use]
pub fn hello(channel: Channel) -> Hello {
    Hello { version_min: *VERSIONS.start(), version_max: *VERSIONS.end(), channel, member: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::SegmentSeq;

    const KINDS: [FrameKind; 14] = [
        FrameKind::Hello,
        FrameKind::Welcome,
        FrameKind::Close,
        FrameKind::Ping,
        FrameKind::Pong,
        FrameKind::Credit,
        FrameKind::Segment,
        FrameKind::Fetch,
        FrameKind::Blocks,
        FrameKind::RangeError,
        FrameKind::Reject,
        FrameKind::Finished,
        FrameKind::Have,
        FrameKind::Peers,
    ];

    fn admitted(session: Session) -> Vec<FrameKind> {
        KINDS.into_iter().filter(|&kind| session.clone().admit(kind).is_ok()).collect()
    }

    #[test]
    fn a15_each_state_takes_its_own_frames_and_no_others() {
        use FrameKind as K;
        let mut sender = Session::new(Role::Sender, Purpose::Control);
        assert_eq!(admitted(sender), [K::Hello, K::Close]);
        sender.admit(K::Hello).expect("first");
        assert_eq!(admitted(sender), [K::Close, K::Ping, K::Pong, K::Credit, K::Reject, K::Finished]);
        sender.admit(K::Finished).expect("open");
        assert_eq!(admitted(sender), [K::Close, K::Ping, K::Pong]);
        sender.admit(K::Close).expect("always");
        assert_eq!(admitted(sender), []);

        let mut receiver = Session::new(Role::Receiver, Purpose::Control);
        assert_eq!(admitted(receiver), [K::Welcome, K::Close]);
        receiver.admit(K::Welcome).expect("first");
        assert_eq!(admitted(receiver), [K::Close, K::Ping, K::Pong, K::Segment, K::Have, K::Peers]);

        let mut sender = Session::new(Role::Sender, Purpose::Data);
        sender.admit(K::Hello).expect("first");
        assert_eq!(admitted(sender), [K::Close, K::Fetch]);
        let mut receiver = Session::new(Role::Receiver, Purpose::Data);
        receiver.admit(K::Welcome).expect("first");
        assert_eq!(admitted(receiver), [K::Close, K::Blocks, K::RangeError]);
    }

    #[test]
    fn a15_versions_from_the_future_are_negotiated_or_refused() {
        let with = |version_min, version_max| Hello {
            version_min,
            version_max,
            ..hello(Channel::Control { next_segment: SegmentSeq(0) })
        };
        assert_eq!(choose_version(&with(1, 1)), Ok(1));
        assert_eq!(choose_version(&with(1, 9)), Ok(1));
        assert_eq!(choose_version(&with(2, 9)), Err(CloseCode::Version));
        assert_eq!(choose_version(&with(0, 0)), Err(CloseCode::Version));
        let welcome = Welcome {
            version: 2,
            session: [0; 16],
            fetches_outstanding: 1,
            snapshot: SegmentSeq(0),
            member: None,
            partial: false,
        };
        assert_eq!(check_welcome(&welcome), Err(CloseCode::Version));
    }
}
