//! Users and groups, by number and by name, each asked of the system once.
//!
//! Owns the caches. The system is asked through the C library (`getpwuid_r` and its like), since accounts may live in
//! LDAP or elsewhere that no file on this machine tells. Never asks more than so many times for names that a peer
//! made up.

use crate::limits::{ACCOUNT_RETRY_SECONDS, ACCOUNTS_CACHED_MAX, ACCOUNTS_UNKNOWN_MAX};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use sealift_proto::manifest::AccountName;
use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A user or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountKind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl AccountKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The system knows no such account, or none with a name that can be carried.
    Unknown,
    /// The system could not say.
    Silent,
    /// Too many unknown ones were asked for.
    TooMany,
}

/// Whoever knows the accounts. `Ok(None)`: there is none.
pub(super) trait Directory: Send + Sync {
    fn name_of(&self, kind: AccountKind, id: u32) -> io::Result<Option<Vec<u8>>>;
    fn id_of(&self, kind: AccountKind, name: &[u8]) -> io::Result<Option<u32>>;
}

/// The system's own.
pub(super) struct System;

impl Directory for System {
    fn name_of(&self, kind: AccountKind, id: u32) -> io::Result<Option<Vec<u8>>> {
        let found = match kind {
            AccountKind::User => User::from_uid(Uid::from_raw(id)).map(|user| user.map(|user| user.name)),
            AccountKind::Group => {
                Group::from_gid(Gid::from_raw(id)).map(|group| group.map(|group| group.name))
            }
        };
        // A name that is not UTF-8 comes with its bytes replaced: it is not the account's name any more.
        let name = found.or_else(absent)?.filter(|name| !name.contains(char::REPLACEMENT_CHARACTER));
        Ok(name.map(String::into_bytes))
    }

    fn id_of(&self, kind: AccountKind, name: &[u8]) -> io::Result<Option<u32>> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        match kind {
            AccountKind::User => User::from_name(name).map(|user| user.map(|user| user.uid.as_raw())),
            AccountKind::Group => Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw())),
        }
        .or_else(absent)
    }
}

/// The ways in which C libraries say that there is no such account; see getpwnam(3).
fn absent<T>(error: Errno) -> io::Result<Option<T>> {
    match error {
        Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM => Ok(None),
        error => Err(error.into()),
    }
}

/// What was answered before.
struct Cache<K, V> {
    answers: RwLock<Answers<K, V>>,
}

struct Answers<K, V> {
    known: HashMap<(AccountKind, K), V>,
    unknown: HashMap<(AccountKind, K), Refusal>,
}

#[derive(Clone, Copy)]
enum Refusal {
    Unknown,
    Silent { since: Instant },
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self { answers: RwLock::new(Answers { known: HashMap::new(), unknown: HashMap::new() }) }
    }

    fn find(
        &self,
        kind: AccountKind,
        key: &K,
        ask: impl FnOnce() -> io::Result<Option<V>>,
    ) -> Result<V, NoAnswer> {
        let key = (kind, key.clone());
        {
            let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = answers.known.get(&key) {
                return Ok(known.clone());
            }
            match answers.unknown.get(&key) {
                Some(Refusal::Unknown) => return Err(NoAnswer::Unknown),
                Some(Refusal::Silent { since })
                    if since.elapsed() < Duration::from_secs(ACCOUNT_RETRY_SECONDS) =>
                {
                    return Err(NoAnswer::Silent);
                }
                None if answers.unknown.len() >= ACCOUNTS_UNKNOWN_MAX => return Err(NoAnswer::TooMany),
                Some(Refusal::Silent { .. }) | None => {}
            }
        }
        // Nobody is kept waiting for this answer but who asked: it may come over a network.
        let answer = ask();
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(Some(value)) => {
                if answers.known.len() >= ACCOUNTS_CACHED_MAX {
                    answers.known.clear();
                }
                answers.unknown.remove(&key);
                answers.known.insert(key, value.clone());
                Ok(value)
            }
            Ok(None) => {
                answers.unknown.insert(key, Refusal::Unknown);
                Err(NoAnswer::Unknown)
            }
            Err(_) => {
                answers.unknown.insert(key, Refusal::Silent { since: Instant::now() });
                Err(NoAnswer::Silent)
            }
        }
    }
}

/// From numbers to names.
pub(super) struct Names {
    directory: Box<dyn Directory>,
    cache: Cache<u32, AccountName>,
}

impl Names {
    pub(super) fn new(directory: Box<dyn Directory>) -> Self {
        Self { directory, cache: Cache::new() }
    }

    pub(super) fn of(&self, kind: AccountKind, id: u32) -> Result<AccountName, NoAnswer> {
        self.cache.find(kind, &id, || {
            let name = self.directory.name_of(kind, id)?;
            Ok(name.and_then(|name| AccountName::parse(&name).ok()))
        })
    }
}

/// From names to numbers.
pub(super) struct Ids {
    directory: Box<dyn Directory>,
    cache: Cache<AccountName, u32>,
}

impl Ids {
    pub(super) fn new(directory: Box<dyn Directory>) -> Self {
        Self { directory, cache: Cache::new() }
    }

    pub(super) fn of(&self, kind: AccountKind, name: &AccountName) -> Result<u32, NoAnswer> {
        // The highest number means "nobody in particular" to the kernel.
        self.cache.find(kind, name, || {
            Ok(self.directory.id_of(kind, name.as_bytes())?.filter(|&id| id != u32::MAX))
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Accounts made up, the same for users and groups.
    #[derive(Clone, Default)]
    pub(in super::super) struct Made {
        pub(in super::super) accounts: Vec<(u32, &'static str)>,
        pub(in super::super) asked: Arc<AtomicUsize>,
        pub(in super::super) silent: bool,
    }

    impl Made {
        pub(in super::super) fn new(accounts: &[(u32, &'static str)]) -> Self {
            Self { accounts: accounts.to_vec(), ..Self::default() }
        }

        fn ask<T>(&self, find: impl FnOnce() -> Option<T>) -> io::Result<Option<T>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.silent { Err(io::ErrorKind::TimedOut.into()) } else { Ok(find()) }
        }
    }

    impl Directory for Made {
        fn name_of(&self, _: AccountKind, id: u32) -> io::Result<Option<Vec<u8>>> {
            self.ask(|| {
                self.accounts
                    .iter()
                    .find(|account| account.0 == id)
                    .map(|account| account.1.as_bytes().to_vec())
            })
        }

        fn id_of(&self, _: AccountKind, name: &[u8]) -> io::Result<Option<u32>> {
            self.ask(|| {
                self.accounts.iter().find(|account| account.1.as_bytes() == name).map(|account| account.0)
            })
        }
    }

    pub(in super::super) fn account(name: &str) -> AccountName {
        AccountName::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn the_system_knows_root_and_not_everybody() {
        let names = Names::new(Box::new(System));
        let ids = Ids::new(Box::new(System));
        for kind in [AccountKind::User, AccountKind::Group] {
            assert_eq!(names.of(kind, 0), Ok(account("root")));
            assert_eq!(ids.of(kind, &account("root")), Ok(0));
            assert_eq!(names.of(kind, 3_999_999_999), Err(NoAnswer::Unknown));
            for unknown in ["no such account", "0", "caf\u{e9}"] {
                assert_eq!(ids.of(kind, &account(unknown)), Err(NoAnswer::Unknown));
            }
            let not_text = AccountName::parse(b"\xff").unwrap();
            assert_eq!(ids.of(kind, &not_text), Err(NoAnswer::Unknown));
        }
    }

    #[test]
    fn each_is_asked_once_whatever_the_answer() {
        let made = Made::new(&[(7, "seven"), (8, "a:b"), (u32::MAX, "none")]);
        let asked = Arc::clone(&made.asked);
        let names = Names::new(Box::new(made.clone()));
        let ids = Ids::new(Box::new(made));
        for _ in 0..3 {
            assert_eq!(names.of(AccountKind::User, 7), Ok(account("seven")));
            assert_eq!(names.of(AccountKind::User, 9), Err(NoAnswer::Unknown));
            assert_eq!(names.of(AccountKind::User, 8), Err(NoAnswer::Unknown), "no name that can be carried");
            assert_eq!(ids.of(AccountKind::Group, &account("seven")), Ok(7));
            assert_eq!(ids.of(AccountKind::Group, &account("none")), Err(NoAnswer::Unknown));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 5);
        let silent = Made { silent: true, ..Made::default() };
        let asked = Arc::clone(&silent.asked);
        let names = Names::new(Box::new(silent));
        for _ in 0..3 {
            assert_eq!(names.of(AccountKind::User, 7), Err(NoAnswer::Silent));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "asked again only after a while");
    }

    #[test]
    fn a10_names_that_a_peer_makes_up_are_not_all_asked_for() {
        let made = Made::new(&[(7, "seven")]);
        let asked = Arc::clone(&made.asked);
        let ids = Ids::new(Box::new(made));
        assert_eq!(ids.of(AccountKind::User, &account("seven")), Ok(7));
        for number in 0..ACCOUNTS_UNKNOWN_MAX + 50 {
            let answer = ids.of(AccountKind::User, &account(&format!("made up {number}")));
            let expected = if number < ACCOUNTS_UNKNOWN_MAX { NoAnswer::Unknown } else { NoAnswer::TooMany };
            assert_eq!(answer, Err(expected));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1 + ACCOUNTS_UNKNOWN_MAX);
        assert_eq!(ids.of(AccountKind::User, &account("seven")), Ok(7), "what is known stays known");
    }
}
