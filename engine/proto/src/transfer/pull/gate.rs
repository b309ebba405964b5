//! What is dear, and whose turn it is to bring it: the source, and whoever is behind an expensive link.
//!
//! All receivers of a zone rank themselves for each run, by a hash of node and run. The first asks for it at once. The
//! others wait until it is near, and ask for it themselves if they run out of what is theirs and it does not come: the
//! second before the third. So about one copy leaves the source, and about one crosses each such link, without a word
//! between them; who knows of fewer nodes than there are asks for more than its part, and nothing worse.

use super::Run;
use super::peer::key_of;
use super::random::mix;
use super::table::Slot;
use crate::limits;
use crate::member::NodeId;
use std::collections::VecDeque;

/// Turns that are told apart.
pub(super) const TURNS: usize = 8;
/// The turn of what somebody near has already: it is taken from there, unless that fails.
pub(super) const TURN_OF_NEAR: usize = 4;
/// All take things from sources in the same order. Who is behind us by so many times the patience for its turn is slow, and
/// what it was to bring is taken over, whatever else there is to ask for.
const AGES: u64 = 8;

/// Runs for which it is not our turn yet, for one dear peer or for all sources.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Whether runs come in the same order to all who share.
    in_order: bool,
    /// By turn, since when, in the order in which they came.
    held: [VecDeque<(Slot, u64)>; TURNS],
    /// Since when there has been nothing to ask for whose turn it is.
    dry_ms: Option<u64>,
    /// Fetches of what others did not bring that may be unanswered at a time, beside the first.
    room: usize,
    /// Those that are.
    taken_over: usize,
    /// How long an answer takes lately, in milliseconds: so long it may take whoever's turn it is.
    takes_ms: u64,
}

/// A run out of the gate, and the turn at which it was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) slot: Slot,
    pub(super) turn: usize,
}

impl Gate {
    /// For sources, of which all ask in the same order.
    pub(super) fn in_order() -> Self {
        Self { in_order: true, ..Self::default() }
    }

    /// Holds a run back.
    pub(super) fn hold(&mut self, slot: Slot, turn: usize, now_ms: u64) {
        self.held[turn.clamp(1, TURNS - 1)].push_back((slot, now_ms));
    }

    /// There was something to ask for that is ours.
    pub(super) fn flows(&mut self) {
        self.dry_ms = None;
        self.room = 0;
    }

    /// There is nothing (more) that is ours.
    pub(super) fn dry(&mut self, now_ms: u64) {
        self.dry_ms.get_or_insert(now_ms);
    }

    /// Whether one more fetch of what others did not bring may be asked for.
    pub(super) fn may_take_over(&self) -> bool {
        self.taken_over <= self.room
    }

    /// A fetch of what others did not bring is asked for.
    pub(super) fn takes_over(&mut self) {
        self.taken_over += 1;
    }

    /// It is answered, or lost. If it was needed, since nobody else had brought it, more of them may be asked for at a
    /// time; if not, one.
    pub(super) fn took_over(&mut self, was_needed: bool) {
        self.taken_over -= 1;
        self.room = if was_needed { self.room + 1 } else { 0 };
    }

    /// An answer came after so long.
    pub(super) fn answered(&mut self, took_ms: u64) {
        self.takes_ms = (self.takes_ms * 3 + took_ms) / 4;
    }

    /// How long whoever comes before us is waited for.
    fn patience(&self) -> impl Fn(usize) -> u64 + use<> {
        let each = limits::SWARM_PATIENCE_MS.max(2 * self.takes_ms);
        move |turn| each.saturating_mul(turn as u64)
    }

    /// When the next run may be taken over.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        let patience = self.patience();
        let turns = (1..TURNS).filter_map(|turn| {
            let (_, oldest) = self.held[turn].front()?;
            let aged = self.in_order.then(|| oldest + AGES * patience(turn));
            let dry = self.dry_ms.map(|dry| dry + patience(turn));
            aged.into_iter().chain(dry).min()
        });
        turns.min()
    }

    /// A run that whose turn it was is late with.
    pub(super) fn pop_aged(&mut self, now_ms: u64) -> Option<Due> {
        let patience = self.patience();
        let turns = if self.in_order { 1..TURNS } else { 0..0 };
        turns.into_iter().find_map(|turn| {
            let &(slot, since) = self.held[turn].front()?;
            let aged = now_ms >= since + AGES * patience(turn);
            aged.then(|| self.held[turn].pop_front()).map(|_| Due { slot, turn })
        })
    }

    /// A run that may be taken over since there is nothing else to ask for: the one that whose turn it was would come
    /// to last, so that the two don't meet.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<Due> {
        let (dry, patience) = (self.dry_ms?, self.patience());
        let due = |turn: &usize| now_ms >= dry + patience(*turn);
        (1..TURNS).take_while(due).find_map(|turn| {
            let (slot, _) = self.held[turn].pop_back()?;
            Some(Due { slot, turn })
        })
    }

    /// How many runs are held, those included that are of no more use.
    pub(super) fn len(&self) -> usize {
        self.held.iter().map(VecDeque::len).sum()
    }

    /// Lets go of everything that is held.
    pub(super) fn release(&mut self) -> impl DoubleEndedIterator<Item = Slot> {
        self.held.iter_mut().flat_map(|held| held.drain(..)).map(|(slot, _)| slot)
    }

    /// Forgets everything that is held.
    pub(super) fn clear(&mut self) {
        self.held.iter_mut().for_each(VecDeque::clear);
    }
}

/// Whose turn it is: ours and others' keys.
#[derive(Debug)]
pub(super) struct Group {
    me: u64,
    others: Vec<u64>,
}

impl Group {
    pub(super) fn new(me: NodeId) -> Self {
        Self { me: key_of(me), others: Vec::new() }
    }

    pub(super) fn set(&mut self, others: impl Iterator<Item = u64>) {
        let me = self.me;
        self.others.clear();
        self.others.extend(others.filter(|key| *key != me));
    }

    /// How many of the others come before us, up to the last turn.
    pub(super) fn rank(&self, run: &Run) -> usize {
        let run = mix(mix(run.file.0) ^ u64::from(run.first.0));
        let mine = mix(self.me ^ run);
        let before = self.others.iter().filter(|other| mix(**other ^ run) > mine);
        before.take(TURNS - 1).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{BlockIndex, FileId};

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    #[test]
    fn each_run_is_the_first_turn_of_one_node_and_all_have_about_as_many() {
        let groups: Vec<Group> = (0..16)
            .map(|me| {
                let mut group = Group::new(node(me));
                group.set((0..16).map(|other| key_of(node(other))));
                group
            })
            .collect();
        let mut firsts = [0; 16];
        for block in 0..16_000 {
            let run = Run { file: FileId(3), first: BlockIndex(block), count: 1, bytes: 1 };
            let ranks: Vec<usize> = groups.iter().map(|group| group.rank(&run)).collect();
            for turn in 0..TURNS - 1 {
                assert_eq!(ranks.iter().filter(|rank| **rank == turn).count(), 1, "{ranks:?}");
            }
            firsts[ranks.iter().position(|rank| *rank == 0).expect("just counted")] += 1;
        }
        assert!(firsts.iter().all(|firsts| (850..1150).contains(firsts)), "{firsts:?}");
    }

    #[test]
    fn others_are_waited_for_longer_the_more_of_them_come_before_us() {
        let patience = limits::SWARM_PATIENCE_MS;
        let mut gate = Gate::in_order();
        gate.hold(1, 1, 0);
        gate.hold(2, 1, 0);
        gate.hold(3, 2, 0);
        assert_eq!(
            (gate.pop(patience), gate.wake_ms()),
            (None, Some(AGES * patience)),
            "there is ours to ask for"
        );
        gate.dry(10);
        assert_eq!((gate.pop(patience), gate.wake_ms()), (None, Some(10 + patience)));
        assert_eq!(gate.pop(10 + patience), Some(Due { slot: 2, turn: 1 }), "the last first");
        gate.flows();
        assert_eq!(gate.pop(10 + 2 * patience), None);
        assert_eq!(gate.pop_aged(AGES * patience - 1), None);
        assert_eq!(
            gate.pop_aged(AGES * patience),
            Some(Due { slot: 1, turn: 1 }),
            "it has waited for too long"
        );
        gate.dry(0);
        assert_eq!(gate.pop(2 * patience), Some(Due { slot: 3, turn: 2 }));
        assert_eq!((gate.pop(u64::MAX), gate.wake_ms()), (None, None));
    }

    #[test]
    fn what_is_taken_over_without_need_makes_it_rarer() {
        let mut gate = Gate::default();
        let fill = |gate: &mut Gate| {
            let mut taken = 0;
            while gate.may_take_over() {
                gate.takes_over();
                taken += 1;
            }
            taken
        };
        assert_eq!(fill(&mut gate), 1);
        gate.took_over(true);
        assert_eq!(fill(&mut gate), 2);
        gate.took_over(true);
        assert_eq!(fill(&mut gate), 2);
        gate.took_over(false);
        assert_eq!(fill(&mut gate), 0);
    }
}
