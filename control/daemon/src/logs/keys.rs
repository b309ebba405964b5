//! Data keys of agents' segments that were unwrapped: in memory alone, and only for as long as their KEK may be used.
//!
//! Each agent has a few, so that none displaces another's: it sends its segments one after the other. What did not unwrap is
//! remembered as well. Who uses a key asks the database first whether its KEK may still be used.

use sealift_envelope::{Commitment, DataKey, Envelope};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Data keys of one agent; of more the oldest is forgotten, and unwrapped again.
const KEYS_OF_AGENT_MAX: usize = 4;
/// Envelopes of one agent that are remembered as ones that do not open.
const FAILED_OF_AGENT_MAX: usize = 16;
/// Agents; of more, all are forgotten.
const AGENTS_MAX: usize = 16_384;

/// See the module. Clones share them.
#[derive(Clone, Default)]
pub struct DataKeys(Arc<Mutex<HashMap<Uuid, OfAgent>>>);

#[derive(Default)]
struct OfAgent {
    held: VecDeque<Held>,
    /// Hashes of a KEK's id and an envelope: what does not open with it never does.
    failed: VecDeque<[u8; 32]>,
}

struct Held {
    kek: Uuid,
    commitment: Commitment,
    key: DataKey,
}

impl DataKeys {
    fn agents(&self) -> MutexGuard<'_, HashMap<Uuid, OfAgent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, agent: Uuid, change: impl FnOnce(&mut OfAgent)) {
        let mut agents = self.agents();
        if agents.len() >= AGENTS_MAX && !agents.contains_key(&agent) {
            agents.clear();
        }
        change(agents.entry(agent).or_default());
    }

    /// The key of an agent's segment, and the KEK by which it was unwrapped: its state is to be asked for before it is used.
    pub(super) fn held(&self, agent: Uuid, commitment: &Commitment) -> Option<(Uuid, DataKey)> {
        let agents = self.agents();
        let held = agents.get(&agent)?.held.iter().find(|held| held.commitment == *commitment)?;
        Some((held.kek, held.key.clone()))
    }

    pub(super) fn hold(&self, agent: Uuid, kek: Uuid, commitment: Commitment, key: &DataKey) {
        self.change(agent, |of| {
            of.held.retain(|held| held.commitment != commitment);
            of.held.truncate(KEYS_OF_AGENT_MAX - 1);
            of.held.push_front(Held { kek, commitment, key: key.clone() });
        });
    }

    pub(super) fn has_failed(&self, agent: Uuid, kek: Uuid, envelope: &Envelope) -> bool {
        let name = name(kek, envelope);
        self.agents().get(&agent).is_some_and(|of| of.failed.contains(&name))
    }

    pub(super) fn failed(&self, agent: Uuid, kek: Uuid, envelope: &Envelope) {
        let name = name(kek, envelope);
        self.change(agent, |of| {
            of.failed.truncate(FAILED_OF_AGENT_MAX - 1);
            of.failed.push_front(name);
        });
    }

    /// Drops what a KEK has unwrapped: it may not be used any more.
    pub fn drop_of(&self, kek: Uuid) {
        for of in self.agents().values_mut() {
            of.held.retain(|held| held.kek != kek);
        }
    }

    /// How many are held.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.agents().values().map(|of| of.held.len()).sum()
    }
}

fn name(kek: Uuid, envelope: &Envelope) -> [u8; 32] {
    Sha256::new().chain_update(kek.as_bytes()).chain_update(envelope.encode()).finalize().into()
}
