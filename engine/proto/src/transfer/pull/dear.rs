//! What to ask of a source, or of a peer behind an expensive link, when there are others: see [`super::gate`].

use super::gate::{Due, Gate, Group, TURN_OF_NEAR, TURNS};
use super::peer::{Peer, Why};
use super::pick::Batch;
use super::table::Wanted;
use super::{Distance, PeerId, Puller};
use crate::limits;

/// How many come before us for a run, as far as this peer is concerned.
fn turn(wanted: &Wanted, peer: (bool, Distance), group: &Group, far: usize) -> usize {
    let (is_source, distance) = peer;
    let near = usize::from(wanted.copies[0]) + usize::from(wanted.copies[1]);
    let rank = group.rank(&wanted.run);
    // Who was asked for it and does not give it counts as somebody who has not got it.
    let turn = if near > wanted.askers.count() {
        TURN_OF_NEAR + rank
    } else {
        // Those around a source in another zone get things from it before we do.
        rank + usize::from(is_source && distance == Distance::Far && far > 0)
    };
    turn.min(TURNS - 1)
}

impl Puller {
    pub(super) fn pick_dear(&mut self, of: PeerId, batch: &mut Batch, now_ms: u64) -> Why {
        let Self {
            table, peers, fresh, sources, of_sources, of_far, far, refused, random, unlooked_ms, ..
        } = self;
        let Some(Peer { info, haves, offers, gate, .. }) = peers.peers.get_mut(&of) else { return Why::Next };
        let is_source = info.kind == super::PeerKind::Source;
        let gate: &mut Gate = if is_source { sources } else { gate };
        let group = if is_source { of_sources } else { of_far };
        let distance = info.distance.index();
        let who = (is_source, info.distance);
        let has = |wanted: &Wanted| wanted.may_ask(of) && (is_source || haves.has(&wanted.run));
        let is_refused = |wanted: &Wanted| {
            let by = refused.get(&(wanted.run.file, wanted.run.first));
            is_source && by.is_some_and(|by| by.contains(&of))
        };
        let mut looks = limits::PICK_LOOKS_MAX;

        // What has waited for too long, whatever else there is.
        while looks > 0
            && !batch.is_full()
            && gate.may_take_over()
            && let Some(Due { slot, turn }) = gate.pop_aged(now_ms)
        {
            looks -= 1;
            let Some(wanted) = table.get(slot).filter(|wanted| has(wanted)) else { continue };
            if is_refused(wanted) || !batch.take(slot, of, table) {
                gate.hold(slot, turn, now_ms);
            }
        }
        if !batch.is_empty() {
            return Why::TakenOver;
        }

        // What is ours.
        let mut drops = limits::PICK_DROPS_MAX;
        let mut turns_away = 0;
        while looks > 0 && drops > 0 && !batch.is_full() {
            let next = if is_source {
                fresh.pop_front()
            } else {
                offers.pop(distance, random, &mut drops, |slot| table.get(slot).filter(|wanted| has(wanted)))
            };
            let Some(slot) = next else { break };
            let Some(wanted) = table.get(slot).filter(|wanted| has(wanted)) else {
                drops -= 1;
                continue;
            };
            if is_refused(wanted) {
                fresh.push_back(slot);
                looks -= 1;
                continue;
            }
            let turn = turn(wanted, who, group, *far);
            if turn > 0 {
                gate.hold(slot, turn, now_ms);
                looks -= 1;
                turns_away += 1;
            } else if !batch.take(slot, of, table) {
                if is_source {
                    fresh.push_front(slot);
                } else {
                    offers.push(slot, table.at(slot), distance);
                }
                break;
            }
        }
        if !batch.is_empty() {
            gate.flows();
            return Why::Next;
        }
        if turns_away > 0 && (looks == 0 || drops == 0) {
            *unlooked_ms = Some(now_ms + 1);
            return Why::Next;
        }

        // What others should have brought.
        gate.dry(now_ms);
        while looks > 0
            && !batch.is_full()
            && gate.may_take_over()
            && let Some(due) = gate.pop(now_ms)
        {
            looks -= 1;
            let Some(wanted) = table.get(due.slot).filter(|wanted| has(wanted)) else { continue };
            let turn = turn(wanted, who, group, *far);
            if turn > due.turn || is_refused(wanted) || !batch.take(due.slot, of, table) {
                gate.hold(due.slot, turn, now_ms);
            }
        }
        Why::TakenOver
    }
}
