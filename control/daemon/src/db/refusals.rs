//! Refusals in the audit: the first at once, those like it counted.
//!
//! An outsider can have himself refused as often as he likes. So that each time is not a record, made durable, the first of
//! a kind from an address is recorded when it happens, and what is like it within the next minute in one record with their
//! number. Owns what is counted, in memory: a crash loses the counts of a minute, never a first.

#[cfg(test)]
mod tests;

use super::{Actor, Db, DbError, Write, lock};
use crate::address::network;
use serde_json::{Value, json};
use std::collections::HashMap;

/// How long refusals are counted into one record.
const WINDOW_MS: i64 = 60_000;
/// Kinds counted at a time; those beyond are counted as one.
const KINDS_MAX: usize = 1024;

/// A refusal.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    /// Such as `login.locked`.
    pub action: &'static str,
    /// To what it was refused.
    pub subject: &'a str,
    /// Why: with the action and the address it makes the kind, so that there are to be few.
    pub why: &'a str,
    /// What the record of the first says.
    pub after: Value,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    action: &'static str,
    /// Who, from where, and why; empty for all that found no place.
    what: String,
}

struct Window {
    begun_ms: i64,
    more: u64,
    by: Actor,
    subject: String,
}

/// What is counted.
#[derive(Default)]
pub(super) struct Counted(HashMap<Kind, Window>);

/// What a refusal is to its kind.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    First,
    More,
}

impl Counted {
    fn count(&mut self, by: &Actor, refusal: &Refusal<'_>, now_ms: i64) -> Turn {
        let from = by.address.parse().map_or_else(|_| by.address.clone(), |ip| network(ip).to_string());
        let mut kind = Kind { action: refusal.action, what: format!("{} {from} {}", by.who, refusal.why) };
        let mut subject = refusal.subject;
        let mut by = by;
        let others = Actor { address: String::new(), ..by.clone() };
        if !self.0.contains_key(&kind) && self.0.len() >= KINDS_MAX {
            kind.what.clear();
            subject = "others";
            by = &others;
        }
        if let Some(window) = self.0.get_mut(&kind) {
            // One that is over is recorded with the others that are: until then it counts.
            window.more += 1;
            return Turn::More;
        }
        let window = Window { begun_ms: now_ms, more: 0, by: by.clone(), subject: subject.to_owned() };
        self.0.insert(kind, window);
        Turn::First
    }

    fn over(&mut self, until_ms: i64) -> Vec<(Kind, Window)> {
        self.0.extract_if(|_, window| window.begun_ms <= until_ms).collect()
    }
}

impl Db {
    /// Records a refusal, or counts it.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub fn refuse(&self, by: &Actor, refusal: &Refusal<'_>) -> Result<(), DbError> {
        // What is only counted is no transaction.
        match lock(&self.shared.refusals).count(by, refusal, self.now_ms()) {
            Turn::More => Ok(()),
            Turn::First => self.record(by, refusal.action, refusal.subject, Some(refusal.after.clone())),
        }
    }

    /// Records the counts of all windows that are over; of all, if the daemon ends.
    ///
    /// # Errors
    /// If they cannot be recorded.
    pub fn record_refusals(&self, all: bool) -> Result<(), DbError> {
        let now_ms = self.now_ms();
        let over = lock(&self.shared.refusals).over(if all { i64::MAX } else { now_ms - WINDOW_MS });
        let counted: Vec<_> = over.into_iter().filter(|(_, window)| window.more > 0).collect();
        if counted.is_empty() {
            return Ok(());
        }
        self.write(&Actor::system(), |write| {
            for (kind, window) in &counted {
                let after = json!({ "more": window.more, "from_ms": window.begun_ms, "until_ms": now_ms });
                write.audit_as(&window.by, kind.action, &window.subject, None, Some(after))?;
            }
            Ok(())
        })
    }
}

impl Write<'_> {
    /// Records a refusal in this transaction, or counts it.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub fn refuse(&self, by: &Actor, refusal: &Refusal<'_>) -> Result<(), DbError> {
        let turn = lock(&self.shared.refusals).count(by, refusal, self.now_ms);
        match turn {
            Turn::More => Ok(()),
            Turn::First => {
                self.audit_as(by, refusal.action, refusal.subject, None, Some(refusal.after.clone()))
            }
        }
    }
}
