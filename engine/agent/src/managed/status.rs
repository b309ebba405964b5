//! `sealift agent status`: what an agent keeps on the disk, without its secrets.

use crate::error::{Finish, RunError};
use crate::managed::credentials::{Credentials, date};
use crate::managed::document::{self, Part, Task, Wish};
use crate::managed::home::Home;
use crate::managed::runs;
use data_encoding::HEXLOWER;
use sealift_api::agent::JobStatus;
use sealift_api::agent::job_status::State;
use sealift_proto::path::escape;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

#[derive(Serialize)]
struct Shown {
    agent_id: String,
    name: String,
    daemon: String,
    pin: String,
    certificate_expires_unix: i64,
    certificate_expires: String,
    certificate_expired: bool,
    running: bool,
    barred: bool,
    document: Option<u64>,
    allow_read: Vec<PathBuf>,
    allow_write: Vec<PathBuf>,
    assignments: Vec<Assigned>,
}

#[derive(Serialize)]
struct Assigned {
    job: String,
    job_id: String,
    run_id: String,
    role: Option<&'static str>,
    path: Option<String>,
    action: &'static str,
    /// How it ended; none while it has not.
    ended: Option<&'static str>,
    message: String,
}

/// Shows it: as one JSON object, or for people.
///
/// # Errors
/// If the host has not joined, or what is kept is damaged.
pub fn status(state_dir: Option<PathBuf>, json: bool) -> Result<Finish, RunError> {
    let home = Home::find(state_dir)?;
    let shown = gather(&home)?;
    let text = match json {
        true => serde_json::to_string(&shown).map_err(|error| RunError::Failed(error.to_string()))? + "\n",
        false => people(&shown),
    };
    use std::io::Write as _;
    // A reader that went away does not matter.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(Finish::Complete)
}

fn gather(home: &Home) -> Result<Shown, RunError> {
    let identity = home.identity()?;
    let pin = identity.pin.parse().map_err(|error| RunError::Failed(format!("identity.json: {error}")))?;
    let certificate = Credentials::load(home, &pin)?.certificate;
    let unusable = |error: std::io::Error| home.unusable(&error);
    let desired = document::load(home).map_err(unusable)?;
    let outcomes: BTreeMap<_, _> = runs::kept_outcomes(home).map_err(unusable)?.into_iter().collect();
    let number = desired.as_ref().map(|desired| desired.number);
    let tasks = desired.map(|desired| desired.tasks).unwrap_or_default();
    Ok(Shown {
        agent_id: identity.agent_id.to_string(),
        name: identity.name,
        daemon: identity.daemon,
        pin: identity.pin,
        certificate_expires_unix: certificate.not_after,
        certificate_expires: date(certificate.not_after),
        certificate_expired: certificate.has_expired(SystemTime::now()),
        running: home.lock().is_err(),
        barred: home.path("barred").exists(),
        document: number,
        allow_read: identity.allow_read,
        allow_write: identity.allow_write,
        assignments: tasks.iter().map(|task| assigned(task, outcomes.get(&task.key))).collect(),
    })
}

fn assigned(task: &Task, outcome: Option<&JobStatus>) -> Assigned {
    let work = task.work.as_ref().ok();
    Assigned {
        job: escape(task.job_name.as_bytes()),
        job_id: HEXLOWER.encode(&task.key.job),
        run_id: HEXLOWER.encode(&task.key.run),
        role: work.map(|work| match work.part {
            Part::Source { .. } => "source",
            Part::Destination { .. } => "destination",
        }),
        path: work.map(|work| escape(&work.path)),
        action: match task.wish {
            Wish::Run => "run",
            Wish::Pause => "pause",
            Wish::Stop => "stop",
        },
        ended: outcome.and_then(|status| match status.state() {
            State::Done => Some("done"),
            State::Partial => Some("partial"),
            State::Failed => Some("failed"),
            _ => None,
        }),
        message: outcome.map(|status| status.message.clone()).unwrap_or_default(),
    }
}

fn people(shown: &Shown) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("agent", &format!("{} ({})", shown.name, shown.agent_id));
    line("daemon", &shown.daemon);
    let expiry = if shown.certificate_expired { "expired" } else { "until" };
    line("certificate", &format!("{expiry} {}", shown.certificate_expires));
    line("running", if shown.running { "yes" } else { "no" });
    if shown.barred {
        line("barred", "the daemon has revoked this agent or holds it in quarantine");
    }
    line("document", &shown.document.map_or_else(|| "none yet".to_owned(), |number| number.to_string()));
    for (name, roots) in [("may read", &shown.allow_read), ("may write", &shown.allow_write)] {
        if roots.is_empty() {
            line(name, "nothing");
        }
        for root in roots {
            line(name, &root.display().to_string());
        }
    }
    for one in &shown.assignments {
        let end = one.ended.map_or_else(String::new, |ended| format!(", {ended}"));
        let why = if one.message.is_empty() { String::new() } else { format!(": {}", one.message) };
        let (role, path) = (one.role.unwrap_or("unknown"), one.path.as_deref().unwrap_or_default());
        line("assignment", &format!("{} {role} {path} ({}{end}){why}", one.job, one.action));
    }
    text
}
