//! `sealift kek`: keys that data keys are wrapped to.
//!
//! A private half goes to the daemon only if it is named, and its passphrase with it. Both are overwritten when they were sent.

use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::output::{Form, Listing, note, properties, say_json, show_list, show_one, time};
use crate::operator::sealed_logs;
use crate::seal::{Passphrase, read_pem};
use sealift_api::rest::{Group, GroupPolicy, Kek, KekFiles, KekState, Name, NewKek, Settings, SettingsPatch};
use sealift_envelope::PrivateKek;
use sealift_proto::path::escape;
use serde_json::Value;
use std::path::PathBuf;

/// Where the halves of a KEK are.
#[derive(Debug)]
pub(crate) struct Halves {
    /// The public half.
    pub(crate) public: PathBuf,
    /// The private half, if the daemon is to have it.
    pub(crate) private: Option<PathBuf>,
    /// Where its passphrase comes from, if it is encrypted.
    pub(crate) passphrase: Passphrase,
}

impl Halves {
    fn read(&self) -> Result<KekFiles, RunError> {
        let public_pem = read_pem(&self.public)?.to_string();
        let mut files = KekFiles { public_pem, private_pem: None, passphrase: None };
        if let Some(path) = &self.private {
            let private = read_pem(path)?;
            if PrivateKek::needs_passphrase(&private) {
                files.passphrase = Some(self.passphrase.read(path)?.to_string().into());
            }
            files.private_pem = Some(private.to_string().into());
        }
        Ok(files)
    }
}

/// Takes one up.
pub(crate) async fn import(
    api: &mut Api,
    name: Name,
    halves: &Halves,
    form: Form,
) -> Result<Finish, RunError> {
    let new = NewKek { name, files: halves.read()? };
    let made = api.post("keks", Some(&new)).await?;
    shown(api, &made, form)
}

/// Gives a name another key.
pub(crate) async fn rotate(
    api: &mut Api,
    kek: &str,
    halves: &Halves,
    form: Form,
) -> Result<Finish, RunError> {
    let kek = find(api, kek).await?;
    let files = halves.read()?;
    let made = api.post(&format!("keks/{}/rotate", kek.id), Some(&files)).await?;
    shown(api, &made, form)
}

fn shown(api: &Api, made: &Value, form: Form) -> Result<Finish, RunError> {
    let kek: Kek = api.typed(made)?;
    if kek.weak {
        note(&format!(
            "Warning: the key has {} bits. 3072 or more are recommended: `openssl genpkey -algorithm RSA -pkeyopt \
            rsa_keygen_bits:4096 ...`",
            kek.bits
        ));
    }
    show_one(api, made, form, people)
}

/// What is done to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is used no more, until it is enabled.
    Disable,
    /// It is used again.
    Enable,
    /// Its private half is overwritten.
    Destroy,
}

/// Does it.
pub(crate) async fn act(api: &mut Api, action: Action, kek: &str, form: Form) -> Result<Finish, RunError> {
    let kek = find(api, kek).await?;
    let word = match action {
        Action::Disable => "disable",
        Action::Enable => "enable",
        Action::Destroy => "destroy",
    };
    let changed = api.post::<()>(&format!("keks/{}/{word}", kek.id), None).await?;
    show_one(api, &changed, form, people)
}

/// Shows them.
pub(crate) async fn list(api: &mut Api, listing: Listing) -> Result<Finish, RunError> {
    let head = ["NAME", "VERSION", "STATE", "MODE", "BITS", "JOBS", "LOGS", "FINGERPRINT"];
    show_list(api, "keks", &[], listing, &head, |kek: &Kek| {
        vec![
            kek.name.to_string(),
            kek.kek_version.to_string(),
            kek.state.to_string(),
            kek.mode.to_string(),
            kek.bits.to_string(),
            kek.wraps.jobs.to_string(),
            kek.wraps.logs.to_string(),
            kek.fingerprint.clone(),
        ]
    })
    .await
}

/// Shows one.
pub(crate) async fn show(api: &mut Api, kek: &str, form: Form) -> Result<Finish, RunError> {
    let kek = find(api, kek).await?;
    let kek = api.get(&format!("keks/{}", kek.id)).await?;
    match form {
        Form::Json => {
            say_json(&kek)?;
            Ok(Finish::Complete)
        }
        Form::People => show_one(api, &kek, form, |kek: &Kek| people(kek) + "\n" + &kek.public_pem),
    }
}

fn people(kek: &Kek) -> String {
    properties([
        ("name", kek.name.to_string()),
        ("version", kek.kek_version.to_string()),
        ("id", kek.id.to_string()),
        ("state", kek.state.to_string()),
        ("mode", kek.mode.to_string()),
        ("fingerprint", kek.fingerprint.clone()),
        ("bits", kek.bits.to_string()),
        ("wrapped to it", format!("{} jobs, {} segments of logs", kek.wraps.jobs, kek.wraps.logs)),
        ("imported", format!("{} by {}", time(kek.created_ms), kek.created_by)),
        ("changed", time(kek.updated_ms)),
    ])
}

/// By its id, its fingerprint or the beginning of it, `NAME@VERSION`, or its name: then the active one is meant, or the only one.
async fn find(api: &mut Api, text: &str) -> Result<Kek, RunError> {
    const SHORT: usize = 8;
    let mut all: Vec<Value> = Vec::new();
    api.list("keks", &[], None, |kek| {
        all.push(kek);
        Ok(())
    })
    .await?;
    let keks = all.iter().map(|kek| api.typed::<Kek>(kek)).collect::<Result<Vec<_>, _>>()?;
    let is_named = |kek: &&Kek| kek.name.as_str() == text;
    let is_it = |kek: &&Kek| {
        kek.id.to_string() == text
            || format!("{}@{}", kek.name, kek.kek_version) == text
            || (text.len() >= SHORT && kek.fingerprint.starts_with(text))
    };
    let mut found: Vec<&Kek> = keks.iter().filter(is_it).collect();
    if found.is_empty() {
        found = keks.iter().filter(is_named).filter(|kek| kek.state == KekState::Active).collect();
    }
    if found.is_empty() {
        found = keks.iter().filter(is_named).collect();
    }
    let shown = escape(text.as_bytes());
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(RunError::Usage(format!("there is no KEK {shown}: `sealift kek list` shows them"))),
        _ => Err(RunError::Usage(format!(
            "several KEKs are meant by {shown}: name one as NAME@VERSION, as `sealift kek list` shows them"
        ))),
    }
}

/// Wraps to a KEK's active version what was wrapped to the key that is given; if none is, to its other versions that the daemon
/// can unwrap.
pub(crate) async fn rewrap(
    api: &mut Api,
    kek: &str,
    key: Option<&sealed_logs::Key>,
) -> Result<Finish, RunError> {
    let to = find(api, kek).await?;
    match key {
        Some(key) => sealed_logs::rewrap(api, key, &to).await,
        None => sealed_logs::rewrap_there(api, &to).await,
    }
}

/// Has agents' logs sealed to a KEK, or to none.
pub(crate) async fn seal_logs(api: &mut Api, kek: Option<Name>, form: Form) -> Result<Finish, RunError> {
    let settings = api.get("settings").await?;
    let settings: Settings = api.typed(&settings)?;
    let logs_kek = Some(kek.map_or_else(String::new, |kek| kek.to_string()));
    let patch = SettingsPatch { logs_kek, ..SettingsPatch::default() };
    let changed = api.patch("settings", settings.version, &patch).await?;
    show_one(api, &changed, form, |settings: &Settings| match &settings.logs_kek {
        Some(kek) => format!("What agents log is sealed to {kek}.\n"),
        None => "What agents log is not sealed.\n".to_owned(),
    })
}

/// Says whether the members of a group take ciphertext alone.
pub(crate) async fn set_group_policy(
    api: &mut Api,
    group: &Name,
    must_seal: bool,
    form: Form,
) -> Result<Finish, RunError> {
    let changed = api.put(&format!("groups/{group}/policy"), &GroupPolicy { must_seal }).await?;
    show_one(api, &changed, form, |group: &Group| {
        let what = if group.must_seal { "take ciphertext alone" } else { "take plaintext too" };
        format!("The members of {} {what}.\n", group.name)
    })
}
