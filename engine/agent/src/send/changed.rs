//! Files that a receiver's request found changed, on their way to the scanner. Bounded by the number of offered
//! files: each is in it once.

use sealift_proto::block::FileId;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The set, and the bell that is rung when it grows.
#[derive(Default)]
pub struct ChangedFiles {
    waiting: Mutex<HashSet<FileId>>,
    bell: Notify,
}

impl ChangedFiles {
    /// Adds a file.
    pub fn add(&self, file: FileId) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(file);
        self.bell.notify_one();
    }

    /// Takes what is there.
    pub fn try_take(&self) -> HashSet<FileId> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what is there, waiting for at least one.
    pub async fn take(&self) -> HashSet<FileId> {
        loop {
            let taken = self.try_take();
            if !taken.is_empty() {
                return taken;
            }
            self.bell.notified().await;
        }
    }
}
