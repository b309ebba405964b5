//! Owners, extended attributes and access control lists of what is offered, where `--preserve` asks for them.
//!
//! What of them cannot be carried is counted by kind and told at the end of a scan: a million files of an unknown owner
//! are one line.

use crate::preserve::{Aspect, Preserve};
use crate::report::{Event, Reporter};
use sealift_proto::manifest::Attributes;
use sealift_proto::path::{SafePath, escape};
use sealift_store::{AttributeKinds, AttributeReader, EntryKind, NotCarried, Source, XattrFilter};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Kinds that are counted apart.
const KINDS_COUNTED_MAX: usize = 256;

/// Reads attributes, if any are to be carried.
pub struct Carried {
    reader: Option<AttributeReader>,
    left_out: Mutex<LeftOut>,
}

#[derive(Default)]
struct LeftOut {
    /// How often, and where first.
    kinds: HashMap<NotCarried, (u64, String)>,
    /// Of further kinds.
    others: u64,
}

impl Carried {
    /// What the user asked for.
    pub fn new(preserve: Preserve) -> Self {
        let kinds = AttributeKinds {
            owner: preserve.has(Aspect::Owner),
            xattrs: preserve.has(Aspect::Xattrs),
            acls: preserve.has(Aspect::Acls),
        };
        let reader = kinds.any().then(|| AttributeReader::new(kinds, XattrFilter::default()));
        Self { reader, left_out: Mutex::default() }
    }

    /// Whether anything is carried at all.
    pub fn any(&self) -> bool {
        self.reader.is_some()
    }

    /// Reads the attributes of an entry, the offered directory itself being `None`. An entry is offered even if they
    /// cannot be read; that is told. Blocks.
    pub fn read(
        &self,
        source: &Source,
        path: Option<&SafePath>,
        kind: EntryKind,
        reporter: &Reporter,
    ) -> Option<Box<Attributes>> {
        let reader = self.reader.as_ref()?;
        match source.attributes(path, kind, reader) {
            Ok((attributes, left_out)) => {
                for what in left_out {
                    self.count(what, path);
                }
                (!attributes.is_empty()).then(|| Box::new(attributes))
            }
            // Whatever reads its content finds out that it is gone, or another kind of thing.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                None
            }
            Err(error) => {
                let message = format!("{}: its owner and attributes cannot be read: {error}", shown(path));
                reporter.tell(&Event::Warning { message });
                None
            }
        }
    }

    /// The same of an entry of which that was told before.
    pub fn read_again(&self, source: &Source, path: &SafePath, kind: EntryKind) -> Option<Box<Attributes>> {
        let (attributes, _) = source.attributes(Some(path), kind, self.reader.as_ref()?).ok()?;
        (!attributes.is_empty()).then(|| Box::new(attributes))
    }

    fn count(&self, what: NotCarried, path: Option<&SafePath>) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let room = left_out.kinds.len() < KINDS_COUNTED_MAX;
        match left_out.kinds.entry(what) {
            Entry::Occupied(mut counted) => counted.get_mut().0 += 1,
            Entry::Vacant(vacant) if room => {
                vacant.insert((1, shown(path)));
            }
            Entry::Vacant(_) => left_out.others += 1,
        }
    }

    /// Tells what was left out since it was last told.
    pub fn tell(&self, reporter: &Reporter) {
        let left_out = std::mem::take(&mut *self.left_out.lock().unwrap_or_else(PoisonError::into_inner));
        let mut kinds: Vec<_> = left_out.kinds.into_iter().collect();
        kinds.sort_by(|(_, (_, a)), (_, (_, b))| a.cmp(b));
        for (what, (count, first)) in kinds {
            let further = match count {
                1 => String::new(),
                _ => format!(" (and so for {} more entries)", count - 1),
            };
            reporter.tell(&Event::Warning { message: format!("{first}: {what}{further}") });
        }
        if left_out.others > 0 {
            let message = format!("{} attributes more of other kinds are not carried", left_out.others);
            reporter.tell(&Event::Warning { message });
        }
    }
}

fn shown(path: Option<&SafePath>) -> String {
    path.map_or_else(|| ".".into(), |path| escape(path.as_bytes()))
}
