//! The jobs that are served, by the names that a `ClientHello` has for them; and decoys for all other names.

use crate::cipher::Cipher;
use crate::tag::{Clock, days_around, tag_in};
use crate::tls::server_config;
use hkdf::Hkdf;
use rustls::ServerConfig;
use sealift_proto::keys::{JobTag, KEY_BYTES, RoSecret};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// A job that this side serves.
#[derive(Clone, Debug)]
pub struct ServedJob {
    /// Opens its sessions.
    pub ro: RoSecret,
    /// Encrypts them.
    pub cipher: Cipher,
}

/// Which of the jobs given to [`Acceptor::new`](crate::Acceptor::new) a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobIndex(pub usize);

/// What decoys are derived from. Keep one for as long as possible: decoys that change give themselves away.
#[derive(Clone)]
pub struct DecoySecret(Zeroizing<[u8; KEY_BYTES]>);

impl DecoySecret {
    /// A new secret.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// A secret that was kept.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// What depends on the name asked for alone: a decoy's secret, and a number to choose its cipher by.
    fn derive(&self, server_name: &str) -> (RoSecret, u32) {
        let (mut secret, mut choice) = (Zeroizing::new([0; KEY_BYTES]), [0; 4]);
        let hkdf = Hkdf::<Sha256>::new(None, &self.0[..]);
        hkdf.expand_multi_info(&[b"sealift v1 decoy secret", server_name.as_bytes()], secret.as_mut())
            .expect("32 bytes are one block of output");
        hkdf.expand_multi_info(&[b"sealift v1 decoy choice", server_name.as_bytes()], &mut choice)
            .expect("4 bytes are one block of output");
        (RoSecret::from_bytes(&secret), u32::from_le_bytes(choice))
    }
}

impl fmt::Debug for DecoySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoySecret(secret)")
    }
}

/// What is served, and the secret behind what is not.
#[derive(Debug)]
pub(crate) struct Jobs {
    jobs: Vec<(ServedJob, Arc<ServerConfig>)>,
    decoy: DecoySecret,
    clock: Clock,
    tags: Mutex<KnownTags>,
}

/// The tags of the days around one day.
#[derive(Debug, Default)]
struct KnownTags {
    day: Option<u64>,
    jobs: HashMap<JobTag, JobIndex>,
}

impl Jobs {
    pub(super) fn new(jobs: Vec<ServedJob>, decoy: DecoySecret, clock: Clock) -> Self {
        let configured = |job: ServedJob| {
            let config = server_config(&job.ro, job.cipher);
            (job, config)
        };
        Self { jobs: jobs.into_iter().map(configured).collect(), decoy, clock, tags: Mutex::default() }
    }

    /// The job a server name stands for and its configuration; for an unknown one a decoy's, which costs the same:
    /// it is made up in either case.
    pub(crate) fn choose(&self, server_name: &str) -> (Option<JobIndex>, Arc<ServerConfig>) {
        let decoy = self.decoy(server_name);
        match tag_in(server_name).and_then(|tag| self.find(tag)) {
            Some(job) => (Some(job), Arc::clone(&self.jobs[job.0].1)),
            None => (None, decoy),
        }
    }

    fn decoy(&self, server_name: &str) -> Arc<ServerConfig> {
        let (secret, choice) = self.decoy.derive(server_name);
        // Each cipher as often as real jobs have it.
        let like = choice as usize % self.jobs.len().max(1);
        let cipher = self.jobs.get(like).map_or_else(Cipher::default, |(job, _)| job.cipher);
        server_config(&secret, cipher)
    }

    fn find(&self, tag: JobTag) -> Option<JobIndex> {
        let today = self.clock.day();
        let mut known = self.tags.lock().expect("nothing panics while it holds the tags");
        if known.day != Some(today) {
            let tags_of = |(index, (job, _)): (usize, &(ServedJob, _))| {
                let ro = job.ro.clone();
                days_around(today).map(move |day| (ro.tag(day), JobIndex(index)))
            };
            known.jobs = self.jobs.iter().enumerate().flat_map(tags_of).collect();
            known.day = Some(today);
        }
        known.jobs.get(&tag).copied()
    }
}
