//! What follows from an answer: what is had, what is asked for again and of whom, who is banned.

use super::table::Slot;
use super::{ConnectionId, FetchId, Loss, Outcome, PeerId, Puller, Run, Unasked, Verdict};
use crate::limits;
use crate::wire::RangeProblem;

impl Puller {
    /// The answer to a fetch: one outcome for each of its runs, in order.
    ///
    /// # Errors
    /// If the fetch is not unanswered on that connection, or the number of outcomes is not that of its runs.
    pub fn handle_answer(
        &mut self,
        connection: ConnectionId,
        fetch: FetchId,
        outcomes: &[Outcome],
        now_ms: u64,
    ) -> Result<Vec<Verdict>, Unasked> {
        let open = self.peers.connections.get_mut(&connection).ok_or(Unasked)?;
        if open.fetches.get(&fetch).ok_or(Unasked)?.slots.len() != outcomes.len() {
            return Err(Unasked);
        }
        open.heard_ms = open.heard_ms.max(now_ms);
        let peer = open.peer;
        let asked = open.fetches.remove(&fetch).ok_or(Unasked)?;
        if let Some(peer) = self.peers.peers.get_mut(&peer) {
            peer.pace.answered(asked.bytes, asked.asked_ms, now_ms);
        }
        let mut verdicts = Vec::new();
        let mut was_needed = false;
        for (&slot, outcome) in asked.slots.iter().zip(outcomes) {
            let wanted = self.table.at(slot);
            let (run, is_late) = (wanted.run, wanted.is_settled());
            self.table.answered(slot, peer);
            if is_late {
                self.judge_late(run, peer, outcome, &mut verdicts);
            } else {
                was_needed |= *outcome == Outcome::Written;
                self.judge(slot, run, peer, outcome, &mut verdicts);
            }
        }
        if let Some(gate) = self.gate_of(peer) {
            gate.answered(now_ms.saturating_sub(asked.asked_ms));
        }
        self.returned(connection, fetch, peer, &asked, was_needed);
        let struck = self.peers.peers.get(&peer).filter(|peer| peer.struck >= limits::PEER_MISMATCHES_MAX);
        if let Some(banned) = struck {
            if !banned.is_source() {
                self.leave(peer);
            }
            verdicts.push(Verdict::Ban(peer));
        }
        Ok(verdicts)
    }

    fn judge(&mut self, slot: Slot, run: Run, peer: PeerId, outcome: &Outcome, verdicts: &mut Vec<Verdict>) {
        match outcome {
            Outcome::Written => self.table.settle(slot),
            Outcome::NotWritten => {
                self.table.settle(slot);
                verdicts.push(Verdict::GiveUp(run.file, Loss::NotWritten));
            }
            Outcome::Refused(problem) => self.judge_refusal(slot, run, peer, *problem, verdicts),
            Outcome::Mismatch(blocks) => self.judge_mismatch(slot, run, peer, blocks, verdicts),
        }
    }

    fn judge_mismatch(
        &mut self,
        slot: Slot,
        run: Run,
        peer: PeerId,
        blocks: &[Run],
        verdicts: &mut Vec<Verdict>,
    ) {
        let is_source = self.strike(peer);
        // While others owe the whole run, one of them may give it.
        let is_owed = self.table.at(slot).askers.count() > 0;
        if !is_owed {
            self.table.settle(slot);
        }
        for &block in blocks {
            if is_source {
                let times = self.mismatches.entry((run.file, block.first)).or_default();
                *times += 1;
                if *times >= limits::BLOCK_MISMATCHES_MAX {
                    if is_owed {
                        self.table.settle(slot);
                    }
                    verdicts.push(Verdict::GiveUp(run.file, Loss::Corrupt));
                    break;
                }
            } else if let Some(peer) = self.peers.peers.get_mut(&peer) {
                peer.haves.remove(&block);
            }
            verdicts.push(Verdict::Retry(peer, run.file, block.first));
            if !is_owed {
                self.want(block);
            }
        }
    }

    /// Counts a run with wrong blocks. Whether it came from a source.
    fn strike(&mut self, peer: PeerId) -> bool {
        let Some(peer) = self.peers.peers.get_mut(&peer) else { return false };
        peer.struck += 1;
        peer.is_source()
    }

    fn judge_refusal(
        &mut self,
        slot: Slot,
        run: Run,
        of: PeerId,
        problem: RangeProblem,
        verdicts: &mut Vec<Verdict>,
    ) {
        let Some(peer) = self.peers.peers.get_mut(&of) else { return };
        if !peer.is_source() {
            if peer.haves.has(&run) {
                peer.haves.remove(&run);
                let distance = peer.info.distance;
                self.lose_copy(slot, distance);
            }
            self.again(slot, false);
            return;
        }
        let key = (run.file, run.first);
        let refused = self.refused.entry(key).or_default();
        refused.push(of);
        let mut sources = self.peers.peers.iter().filter(|(_, peer)| peer.is_source());
        if sources.all(|(source, _)| refused.contains(source)) {
            self.refused.remove(&key);
            self.table.settle(slot);
            verdicts.push(Verdict::GiveUp(run.file, Loss::Refused(problem)));
        } else {
            self.again(slot, false);
        }
    }

    /// The answer to what came from elsewhere before, or is cancelled.
    fn judge_late(&mut self, run: Run, peer: PeerId, outcome: &Outcome, verdicts: &mut Vec<Verdict>) {
        if matches!(outcome, Outcome::Mismatch(_)) {
            self.strike(peer);
        }
        verdicts.push(Verdict::Late(run));
    }
}
