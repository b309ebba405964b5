//! What is on its way to the shelf from which others are served: nothing gets there before the index knows of it.

use crate::swarm::ReplicaShelf;
use sealift_proto::block::{FileId, Layout};
use sealift_proto::path::SafePath;
use std::io;
use std::sync::Arc;

type Place = (FileId, SafePath, Layout);

/// See the module.
pub struct Shelving {
    shelf: Arc<ReplicaShelf>,
    /// Files that the index knows.
    ready: Vec<Place>,
    /// Files of which the index is told with the next batch,
    unnoted: Vec<Place>,
    /// and with the one that is being written.
    noting: Vec<Place>,
}

impl Shelving {
    /// To this shelf.
    pub fn new(shelf: Arc<ReplicaShelf>) -> Self {
        Self { shelf, ready: Vec::new(), unnoted: Vec::new(), noting: Vec::new() }
    }

    /// The shelf.
    pub fn shelf(&self) -> &ReplicaShelf {
        &self.shelf
    }

    /// A file is in its place, and the index knows it or is about to be told.
    pub fn placed(&mut self, id: FileId, path: SafePath, layout: Layout, is_indexed: bool) {
        let list = if is_indexed { &mut self.ready } else { &mut self.unnoted };
        list.push((id, path, layout));
    }

    /// The index is being told.
    pub fn noting(&mut self) {
        self.noting.append(&mut self.unnoted);
    }

    /// The index was told.
    pub fn noted(&mut self) {
        self.ready.append(&mut self.noting);
    }

    /// Everything is in its place, and the index was told of all of it.
    pub fn all_noted(&mut self) {
        self.noting();
        self.noted();
    }

    /// Puts on the shelf what may be there.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn put(&mut self, total_bytes: u64) -> io::Result<()> {
        if !self.ready.is_empty() {
            self.shelf.set_total_bytes(total_bytes);
        }
        self.shelf.add_files(&mut self.ready)
    }
}
