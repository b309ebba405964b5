//! How a segment is sealed: under a data key of its own, in memory alone, which is wrapped to a KEK that the daemon names.

use sealift_api::agent as wire;
use sealift_envelope::{DataKey, Envelope, Fingerprint, KekVersion, OwnerId, PublicKek, RecordSealer};
use std::io;
use std::sync::Arc;

/// The KEK that logs are sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogKek {
    public: PublicKek,
    version: KekVersion,
}

/// Which KEK, of all that there are.
pub(super) type KekId = (Fingerprint, KekVersion);

impl LogKek {
    /// As the daemon says it; `None` if that makes no sense.
    pub(crate) fn read(said: &wire::Kek) -> Option<Self> {
        let public = PublicKek::from_pem(&said.public_pem).ok()?;
        let is_it = public.fingerprint().0.as_slice() == said.fingerprint;
        is_it.then_some(Self { public, version: KekVersion(said.version) })
    }

    pub(super) fn id(&self) -> KekId {
        (self.public.fingerprint(), self.version)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) to: KekId,
    pub(super) envelope: Arc<[u8]>,
    pub(super) records: RecordSealer,
}

impl Sealing {
    /// A fresh data key, wrapped.
    pub(super) fn begin(kek: &LogKek, spool: &[u8; 16]) -> io::Result<Self> {
        let key = DataKey::generate().map_err(io::Error::other)?;
        let envelope = Envelope::seal(&key, OwnerId(*spool), &[(&kek.public, kek.version)]);
        let envelope = envelope.map_err(io::Error::other)?.encode().into();
        Ok(Self { to: kek.id(), envelope, records: RecordSealer::new(&key, spool) })
    }
}
