//! Data keys of segments that are kept sealed, wrapped to another KEK: the records stay as they are.
//!
//! Whoever has unwrapped one elsewhere brings its new envelope. Where the daemon has the private half it does both: of
//! what came while that was disabled, or before it was there.

use super::sealed::{is_usable, known};
use crate::db::logs::LogStore;
use crate::db::{Actor, Db, DbError, keks};
use data_encoding::BASE64;
use sealift_api::rest::{Kek, KekState, RewrappedPage, SealedSegment};
use sealift_envelope::{Envelope, KekVersion, OwnerId, PrivateKek, PublicKek, WrapInfo};
use std::collections::HashMap;
use uuid::Uuid;

/// Puts another envelope in a segment's place: of the same data key, and to KEKs that are active.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Invalid`] if it is no such envelope.
pub fn replace(
    db: &Db,
    store: &LogStore,
    by: &Actor,
    segment: Uuid,
    envelope: &Envelope,
) -> Result<(), DbError> {
    db.write(by, |write| {
        let one = |info: &WrapInfo| {
            let kek = keks::by_fingerprint(write.tx(), &info.fingerprint)?;
            kek.filter(|kek| kek.state == KekState::Active)
                .ok_or_else(|| DbError::Invalid(format!("the KEK {} is not active here", info.fingerprint)))
        };
        let to = envelope.keks().iter().map(one).collect::<Result<Vec<_>, _>>()?;
        keks::segment_rewrapped(write, segment, &to)?;
        // If this is not kept, nor is what was noted; if the daemon is killed after it, the next start finds out.
        store.rewrap(segment, envelope)
    })
}

/// Wraps to an active KEK what of a page of segments is wrapped to other versions of its name, where the daemon has the private
/// half and may use it.
///
/// # Errors
/// [`DbError::NotFound`]; [`DbError::Conflict`] if the KEK is not active; [`DbError::Invalid`] if the cursor is none.
pub fn rewrap(
    db: &Db,
    store: &LogStore,
    by: &Actor,
    to: Uuid,
    after: Option<&str>,
    limit: usize,
) -> Result<RewrappedPage, DbError> {
    let to = db.read(|db| keks::get(db, to))?;
    if to.state != KekState::Active {
        let what = format!("the KEK {} (version {}) is {}", to.name, to.kek_version, to.state);
        return Err(DbError::Conflict(what));
    }
    let public = PublicKek::from_pem(&to.public_pem).map_err(|error| DbError::Damaged(error.to_string()))?;
    let anew = Anew { db, store, by, to: &to, public, opened: HashMap::new() };
    anew.page(after, limit)
}

struct Anew<'a> {
    db: &'a Db,
    store: &'a LogStore,
    by: &'a Actor,
    to: &'a Kek,
    public: PublicKek,
    /// By the KEK: each is opened once a page, which is a use of it and so a record of the audit. None if it may not be used.
    opened: HashMap<Uuid, Option<PrivateKek>>,
}

/// What became of a segment.
enum Became {
    Rewrapped,
    /// There is nothing to do.
    Same,
    /// The daemon cannot unwrap it.
    Closed,
    /// It should have been able to.
    Failed,
}

impl Anew<'_> {
    fn page(mut self, after: Option<&str>, limit: usize) -> Result<RewrappedPage, DbError> {
        let segments = self.store.segments(after, limit)?;
        let mut page = RewrappedPage { rewrapped: 0, closed: 0, failed: 0, next: segments.next };
        for segment in &segments.items {
            match self.one(segment)? {
                Became::Rewrapped => page.rewrapped += 1,
                Became::Same => {}
                Became::Closed => page.closed += 1,
                Became::Failed => page.failed += 1,
            }
        }
        Ok(page)
    }

    fn one(&mut self, segment: &SealedSegment) -> Result<Became, DbError> {
        let bytes = BASE64.decode(segment.envelope.as_bytes());
        let Some(envelope) = bytes.ok().and_then(|bytes| Envelope::decode(&bytes).ok()) else {
            return Ok(Became::Failed);
        };
        let (db, to) = (self.db, self.to);
        let mut keks = db.read(|db| known(db, &envelope))?;
        if keks.iter().any(|kek| kek.id == to.id) {
            return Ok(Became::Same);
        }
        keks.retain(|kek| kek.name == to.name);
        if keks.is_empty() {
            return Ok(Became::Same);
        }
        let Some(kek) = keks.iter().find(|kek| is_usable(kek)) else { return Ok(Became::Closed) };
        let Some(private) = self.private(kek)? else { return Ok(Became::Closed) };
        let key = envelope.open_for(OwnerId(segment.spool.into_bytes()), private);
        let version = KekVersion(to.kek_version);
        let anew = key.ok().and_then(|key| envelope.rewrap(&key, &[(&self.public, version)]).ok());
        let Some(anew) = anew else { return Ok(Became::Failed) };
        match replace(db, self.store, self.by, segment.id, &anew) {
            // One that has become too old meanwhile is gone with its data key.
            Err(DbError::NotFound(_)) => Ok(Became::Same),
            done => done.map(|()| Became::Rewrapped),
        }
    }

    fn private(&mut self, kek: &Kek) -> Result<Option<&PrivateKek>, DbError> {
        if !self.opened.contains_key(&kek.id) {
            let why = format!("data keys of logs, to wrap them to version {}", self.to.kek_version);
            let private = match self.db.write(self.by, |write| keks::private(write, kek.id, &why)) {
                // Disabled, or destroyed, a moment ago.
                Err(DbError::Refused(_)) => None,
                sealed => Some(sealed?.open(self.db.master())?),
            };
            self.opened.insert(kek.id, private);
        }
        Ok(self.opened.get(&kek.id).and_then(Option::as_ref))
    }
}
