//! What the data connections go over: with `auto`, some over each transport until it shows which of them serves better,
//! and then all over that one. Pure: it is told what happens.

use sealift_net::{Carrier, NEAR, Transport};
use std::cmp::Ordering;
use std::time::Duration;

/// How long the two are compared, once both carry something; and how long if one is far ahead.
const TRIAL: Duration = Duration::from_secs(3);
/// See [`TRIAL`].
const TRIAL_SHORT: Duration = Duration::from_secs(1);
/// What far ahead is.
const FAR_AHEAD: u64 = 3;
/// Less than this says nothing.
const TRIAL_BYTES: u64 = 8 << 20;
/// QUIC costs both ends more work than TCP, so it has to be better by this part.
const QUIC_MARGIN_PART: u64 = 10;
/// How long a connection that is to go may still answer what it was asked. What it then owes is asked of the others.
pub(super) const LEAVE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(super) struct Carriers {
    transport: Transport,
    /// What is tried first: what the control connection goes over, which so is known to work, unless it failed since.
    first: Carrier,
    /// The better one, once that is known.
    chosen: Option<Carrier>,
    /// What was chosen and then failed.
    dropped: Option<Carrier>,
    /// What was last said to be it.
    told: Option<Carrier>,
    /// Bytes that came since both carry something.
    tcp_bytes: u64,
    quic_bytes: u64,
    begun: Option<Duration>,
}

impl Carriers {
    pub(super) const fn new(transport: Transport) -> Self {
        let chosen = match transport {
            Transport::Tcp => Some(Carrier::Tcp),
            Transport::Quic => Some(Carrier::Quic),
            Transport::Auto => None,
        };
        Self {
            transport,
            first: Carrier::Quic,
            chosen,
            dropped: None,
            told: None,
            tcp_bytes: 0,
            quic_bytes: 0,
            begun: None,
        }
    }

    /// The control connection is there, and its first answer took so long. Over a short path TCP loses nothing to QUIC and
    /// costs both ends less: nothing is compared, unless it turns out that TCP does not work.
    pub(super) fn opened(&mut self, carrier: Carrier, answered_in: Duration) {
        if self.chosen == Some(other(carrier)) {
            // When the last one broke: perhaps what was chosen does not work any more.
            self.failed(other(carrier), 0);
        }
        self.first = carrier;
        self.answered(answered_in);
    }

    /// So long took an answer of the sender's host. A host that is busy is late with some.
    pub(super) fn answered(&mut self, answered_in: Duration) {
        if self.transport == Transport::Auto && self.chosen.is_none() && answered_in < NEAR {
            self.chosen = Some(Carrier::Tcp);
        }
    }

    /// What all content goes over from now on, if that is another than was said before.
    pub(super) fn news(&mut self) -> Option<Carrier> {
        let news = self.chosen.filter(|chosen| self.told != Some(*chosen));
        self.told = news.or(self.told);
        news
    }

    /// What the next connection goes over, where there are so many already over each.
    pub(super) fn next(&self, tcp: usize, quic: usize) -> Carrier {
        self.chosen.unwrap_or(match tcp.cmp(&quic) {
            Ordering::Less => Carrier::Tcp,
            Ordering::Equal => self.first,
            Ordering::Greater => Carrier::Quic,
        })
    }

    /// Whether a connection over this one is to go.
    pub(super) fn leaves(&self, carrier: Carrier) -> bool {
        self.chosen.is_some_and(|chosen| chosen != carrier)
    }

    /// A connection could not be made over this one, and so many are up over the other.
    pub(super) fn failed(&mut self, carrier: Carrier, others: usize) {
        if self.transport == Transport::Auto {
            self.chosen = match self.chosen {
                // It worked before: they are compared again, if both still do.
                Some(chosen) if chosen == carrier => {
                    self.dropped = Some(carrier);
                    None
                }
                None if others > 0 => Some(other(carrier)),
                chosen => chosen,
            };
            self.first = other(carrier);
            self.begun = None;
        }
    }

    /// So many bytes came over one of them, at a time since any beginning, while so many connections are up over each.
    pub(super) fn came(&mut self, carrier: Carrier, bytes: u64, now: Duration, up: (usize, usize)) {
        if self.chosen.is_some() || up.0 == 0 || up.1 == 0 {
            self.begun = None;
            if self.chosen.is_none() && self.dropped == Some(other(carrier)) {
                self.chosen = Some(carrier);
            }
            return;
        }
        let Some(begun) = self.begun else {
            (self.begun, self.tcp_bytes, self.quic_bytes) = (Some(now), 0, 0);
            return;
        };
        match carrier {
            Carrier::Tcp => self.tcp_bytes = self.tcp_bytes.saturating_add(bytes),
            Carrier::Quic => self.quic_bytes = self.quic_bytes.saturating_add(bytes),
        }
        let took = now.saturating_sub(begun);
        if took < TRIAL_SHORT || self.tcp_bytes + self.quic_bytes < TRIAL_BYTES {
            return;
        }
        // By connection, as there may be more of one.
        let (tcp, quic) = (self.tcp_bytes / up.0 as u64, self.quic_bytes / up.1 as u64);
        let far = tcp > quic.saturating_mul(FAR_AHEAD) || quic > tcp.saturating_mul(FAR_AHEAD);
        if took >= TRIAL || far {
            let quic_is_better = quic > tcp + tcp / QUIC_MARGIN_PART;
            self.chosen = Some(if quic_is_better { Carrier::Quic } else { Carrier::Tcp });
        }
    }
}

const fn other(carrier: Carrier) -> Carrier {
    match carrier {
        Carrier::Tcp => Carrier::Quic,
        Carrier::Quic => Carrier::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Carrier::{Quic, Tcp};

    const MIB: u64 = 1 << 20;

    /// Feeds so many MiB a second over each, in steps of a tenth; what is chosen, and when.
    fn compare(tcp: u64, quic: u64) -> Option<(Carrier, Duration)> {
        let mut carriers = Carriers::new(Transport::Auto);
        (0..50).find_map(|tenth| {
            let now = Duration::from_millis(tenth * 100);
            carriers.came(Tcp, tcp * MIB / 10, now, (2, 2));
            carriers.came(Quic, quic * MIB / 10, now, (2, 2));
            carriers.news().map(|chosen| (chosen, now))
        })
    }

    #[test]
    fn the_better_one_is_chosen_sooner_if_it_is_much_better() {
        assert_eq!(compare(10, 15), Some((Quic, TRIAL)));
        assert_eq!(compare(15, 10), Some((Tcp, TRIAL)));
        assert_eq!(compare(1, 15), Some((Quic, TRIAL_SHORT)));
        assert_eq!(compare(60, 15), Some((Tcp, TRIAL_SHORT)));
        assert_eq!(compare(100, 101), Some((Tcp, TRIAL)), "it has to be worth it");
        assert_eq!(compare(0, 1), None, "too little to tell");
    }

    #[test]
    fn both_are_tried_in_turn_and_what_fails_is_left() {
        let mut carriers = Carriers::new(Transport::Auto);
        assert_eq!((carriers.next(0, 0), carriers.next(0, 1), carriers.next(1, 1)), (Quic, Tcp, Quic));
        carriers.opened(Tcp, Duration::from_millis(50));
        assert_eq!((carriers.next(0, 0), carriers.next(1, 0), carriers.next(1, 1)), (Tcp, Quic, Tcp));
        carriers.failed(Quic, 0);
        assert_eq!(carriers.next(0, 1), Tcp, "nothing is known to work");
        assert_eq!(carriers.news(), None);
        carriers.failed(Quic, 1);
        assert_eq!(carriers.next(5, 0), Tcp);
        assert_eq!((carriers.news(), carriers.news()), (Some(Tcp), None), "it is told once");
        assert!(carriers.leaves(Quic) && !carriers.leaves(Tcp));
        carriers.failed(Tcp, 0);
        assert_eq!((carriers.next(0, 0), carriers.leaves(Quic)), (Quic, false));
    }

    #[test]
    fn what_alone_gives_something_after_the_chosen_one_failed_is_chosen() {
        let mut carriers = Carriers::new(Transport::Auto);
        carriers.came(Tcp, 1, Duration::ZERO, (1, 0));
        assert_eq!(carriers.news(), None, "the other one may yet come");
        carriers.failed(Tcp, 1);
        assert_eq!(carriers.news(), Some(Quic));
        carriers.failed(Quic, 0);
        carriers.came(Tcp, 1, Duration::ZERO, (1, 1));
        assert_eq!(carriers.news(), None, "some over the other are up: they are compared");
        carriers.came(Tcp, 1, Duration::ZERO, (1, 0));
        assert_eq!(carriers.news(), Some(Tcp));
    }

    #[test]
    fn a_session_that_comes_back_over_the_other_one_tries_that_first() {
        let mut carriers = Carriers::new(Transport::Auto);
        carriers.failed(Tcp, 1);
        assert_eq!(carriers.news(), Some(Quic));
        carriers.opened(Tcp, Duration::from_millis(50));
        assert_eq!((carriers.next(0, 0), carriers.next(1, 0)), (Tcp, Quic));
        carriers.came(Tcp, 1, Duration::ZERO, (1, 0));
        assert_eq!(carriers.news(), Some(Tcp));
        carriers.opened(Quic, Duration::from_millis(2));
        assert_eq!((carriers.next(0, 0), carriers.news()), (Tcp, None), "over a short path it stays");
    }

    #[test]
    fn a_short_path_takes_tcp_unless_that_fails() {
        let mut carriers = Carriers::new(Transport::Auto);
        carriers.opened(Quic, Duration::from_millis(2));
        assert_eq!((carriers.next(0, 0), carriers.next(3, 0)), (Tcp, Tcp));
        carriers.failed(Tcp, 0);
        assert_eq!(carriers.next(0, 0), Quic);
    }

    #[test]
    fn what_was_asked_for_is_kept_to() {
        for (transport, carrier) in [(Transport::Tcp, Tcp), (Transport::Quic, Quic)] {
            let mut carriers = Carriers::new(transport);
            carriers.failed(carrier, 3);
            assert_eq!(carriers.next(0, 5), carrier);
            assert_eq!(carriers.next(5, 0), carrier);
            assert!(!carriers.leaves(carrier));
        }
    }
}
