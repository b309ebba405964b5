//! Key-encryption keys (KEKs): what data keys are wrapped to, so that who has sealed data cannot read it.

use super::name::Name;
use super::secret::SecretText;
use super::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a KEK is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KekState {
    /// Data keys are wrapped to it.
    Active,
    /// What is wrapped to it can be unwrapped; nothing more is wrapped to it.
    DecryptOnly,
    /// Not used, until somebody enables it.
    Disabled,
    /// For good. The daemon has no private half of it any more.
    Destroyed,
}
words!(KekState {
    Active = "active",
    DecryptOnly = "decrypt_only",
    Disabled = "disabled",
    Destroyed = "destroyed",
});

/// Who has the private half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KekMode {
    /// The daemon: it can read what is wrapped to the KEK.
    Server,
    /// The daemon was never given it.
    EndToEnd,
}
words!(KekMode { Server = "server", EndToEnd = "end_to_end" });

/// What is wrapped to a KEK. It cannot be destroyed as long as there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KekWraps {
    /// Jobs, whose replicas it opens.
    pub jobs: u32,
    /// Segments of logs.
    pub logs: u32,
}

/// A key that data keys are wrapped to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Kek {
    /// UUIDv7.
    pub id: Uuid,
    /// By which jobs name it: all versions have it.
    pub name: Name,
    /// Which of the name: goes up with each rotation.
    pub kek_version: u32,
    /// SHA-256 of the public half (SubjectPublicKeyInfo), hexadecimal.
    pub fingerprint: String,
    /// The public half, as PEM.
    pub public_pem: String,
    /// Of its modulus.
    pub bits: u32,
    /// Whether a longer one should take its place: it has fewer than 3072 bits.
    pub weak: bool,
    /// Who has the private half.
    pub mode: KekMode,
    /// What it is used for.
    pub state: KekState,
    /// What is wrapped to it.
    pub wraps: KekWraps,
    /// Who imported it.
    pub created_by: String,
    /// Goes up with every change; the `ETag`.
    pub version: i64,
    /// When it was imported.
    pub created_ms: i64,
    /// When it was last changed.
    pub updated_ms: i64,
}

/// The halves of a KEK.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KekFiles {
    /// The public half: PEM, `PUBLIC KEY` or `RSA PUBLIC KEY`; RSA of 2048 to 8192 bits.
    #[schema(max_length = 65536)]
    pub public_pem: String,
    /// The private half, if the daemon is to be able to read: PEM, `PRIVATE KEY`, `ENCRYPTED PRIVATE KEY` or `RSA PRIVATE KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 65536, value_type = Option<String>)]
    pub private_pem: Option<SecretText>,
    /// The passphrase of the private half, if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024, format = Password, value_type = Option<String>)]
    pub passphrase: Option<SecretText>,
}

/// A KEK to be imported.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKek {
    /// By which jobs will name it.
    pub name: Name,
    /// Its halves.
    pub files: KekFiles,
}

/// What holds for the agents of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupPolicy {
    /// Whether no plaintext may be placed at them: only sealed jobs have them as destinations.
    pub must_seal: bool,
}
