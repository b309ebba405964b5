//! How many streams there are.

use super::pulse::Pulse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use uuid::Uuid;

/// Streams of one user, whatever sessions and tokens they are of.
const OF_USER_MAX: usize = 16;
/// Streams in all.
const IN_ALL_MAX: usize = 256;

const _: () = assert!(OF_USER_MAX < IN_ALL_MAX);

/// All streams.
pub(in crate::rest) struct Streams {
    open: Mutex<HashMap<Uuid, usize>>,
    pub(super) pulse: Arc<Pulse>,
    /// True when the daemon ends.
    pub(super) ending: watch::Receiver<bool>,
}

/// A stream's place among them; free again when this is dropped.
pub(super) struct Place {
    streams: Arc<Streams>,
    user: Uuid,
}

impl Streams {
    pub(in crate::rest) fn new(ending: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), pulse: Arc::default(), ending })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Uuid, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(in crate::rest) fn count(&self) -> usize {
        self.open().values().sum()
    }

    /// Takes a place; `None` if the user has too many, or all have.
    pub(super) fn enter(self: &Arc<Self>, user: Uuid) -> Option<Place> {
        let mut open = self.open();
        if open.values().sum::<usize>() >= IN_ALL_MAX {
            return None;
        }
        let of_user = open.entry(user).or_default();
        if *of_user >= OF_USER_MAX {
            return None;
        }
        *of_user += 1;
        Some(Place { streams: Arc::clone(self), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if let Some(of_user) = open.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                open.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_all_users_have_so_many_places_and_get_them_back() {
        let (_end, ending) = watch::channel(false);
        let streams = Streams::new(ending);
        let user = |n: usize| Uuid::from_u128(n as u128);
        let mut held: Vec<_> = (0..OF_USER_MAX).map(|_| streams.enter(user(1)).unwrap()).collect();
        assert!(streams.enter(user(1)).is_none());
        held.pop();
        held.push(streams.enter(user(1)).unwrap());
        for n in 0..IN_ALL_MAX - OF_USER_MAX {
            held.push(streams.enter(user(2 + n / OF_USER_MAX)).unwrap());
        }
        assert!(streams.enter(user(1000)).is_none());
        drop(held);
        assert_eq!(streams.count(), 0);
    }
}
