//! Peers that hold a job's real keys, speak the real protocol, and lie.
//!
//! [`forge`] makes records and segments that [`sealift_proto`] refuses to make; [`content`] makes honest ones;
//! [`talk`] carries frames, whole or broken, over a real session; [`HostileSender`] listens with a ticket of its own and
//! plays a script; [`HostileReceiver`] dials with somebody else's ticket; [`scene`] is where the victim works, with
//! something beside it that must stay as it is. None of it checks what it sends.

pub mod content;
pub mod forge;
pub mod receiver;
pub mod scene;
pub mod sender;
pub mod talk;

pub use content::DataSet;
pub use forge::Forger;
pub use receiver::HostileReceiver;
pub use scene::Scene;
pub use sender::{HostileSender, Seen};
pub use talk::{Reply, SESSION, Said, Talk};

use sealift_proto::keys::{KEY_BYTES, RoSecret, RwSeed, VerifyKey};
use sealift_proto::ticket::{Address, Ticket};

/// A job whose every key is in our hands.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    seed: [u8; KEY_BYTES],
}

impl Job {
    /// A job with new keys.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn random() -> Self {
        let mut seed = [0; KEY_BYTES];
        getrandom::fill(&mut seed).expect("there is randomness");
        Self { seed }
    }

    /// The bytes of its read-write seed.
    #[must_use]
    pub fn seed(&self) -> &[u8; KEY_BYTES] {
        &self.seed
    }

    /// Its read-only secret.
    #[must_use]
    pub fn ro(&self) -> RoSecret {
        RwSeed::new(&self.seed).ro_secret()
    }

    /// Its verify key.
    #[must_use]
    pub fn verify_key(&self) -> VerifyKey {
        RwSeed::new(&self.seed).verify_key()
    }

    /// A ticket for it.
    #[must_use]
    pub fn ticket(&self, addresses: Vec<Address>) -> String {
        Ticket { ro_secret: self.ro(), verify_key: self.verify_key(), addresses }.encode().to_string()
    }
}
