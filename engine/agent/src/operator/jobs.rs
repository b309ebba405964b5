//! `sealift job`: what is replicated from where to where.

use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::api::Kind;
use crate::operator::output::{
    Form, Listing, Table, bytes, joined, note, properties, show_list, show_one, time, yes,
};
use sealift_api::rest::{Job, JobPatch, JobSpec, Name, NewJob, RateSchedule, Schedule};
use sealift_proto::rate::Rate;
use serde_json::Value;

/// Jobs.
pub(crate) const JOB: Kind = Kind { path: "jobs", one: "job", list: "sealift job list" };

/// Defines one.
pub(crate) async fn create(api: &mut Api, new: &NewJob, form: Form) -> Result<Value, RunError> {
    let job = api.post("jobs", Some(new)).await?;
    show_one(api, &job, form, people)?;
    Ok(job)
}

/// Shows them.
pub(crate) async fn list(api: &mut Api, listing: Listing) -> Result<Finish, RunError> {
    let head = ["NAME", "KIND", "FROM", "TO", "SCHEDULE"];
    show_list(api, "jobs", &[], listing, &head, |job: &Job| {
        vec![
            job.name.to_string(),
            job.spec.kind.to_string(),
            joined(&job.spec.from),
            joined(&job.spec.to),
            job.spec.schedule.as_ref().map(schedule).unwrap_or_default(),
        ]
    })
    .await
}

/// Shows one.
pub(crate) async fn show(api: &mut Api, job: &str, form: Form) -> Result<Finish, RunError> {
    let job = api.find(JOB, job).await?;
    show_one(api, &job, form, people)
}

/// Changes one, as `change` says: its name, its spec, or both.
pub(crate) async fn update(
    api: &mut Api,
    job: &str,
    name: Option<Name>,
    change: impl FnOnce(&mut JobSpec),
    form: Form,
) -> Result<Finish, RunError> {
    let found = api.find(JOB, job).await?;
    let job: Job = api.typed(&found)?;
    let mut spec = job.spec.clone();
    change(&mut spec);
    let patch = JobPatch { name, spec: (spec != job.spec).then_some(spec) };
    let changed = api.patch(&format!("jobs/{}", job.id), job.version, &patch).await?;
    show_one(api, &changed, form, people)
}

/// Removes one.
pub(crate) async fn delete(api: &mut Api, job: &str) -> Result<Finish, RunError> {
    let found = api.find(JOB, job).await?;
    let job: Job = api.typed(&found)?;
    api.delete(&format!("jobs/{}", job.id)).await?;
    note(&format!("{} is removed. What it has replicated stays where it is.", job.name));
    Ok(Finish::Complete)
}

/// Gives one new keys.
pub(crate) async fn rotate_keys(api: &mut Api, job: &str, form: Form) -> Result<Finish, RunError> {
    let found = api.find(JOB, job).await?;
    let job: Job = api.typed(&found)?;
    let changed = api.post::<()>(&format!("jobs/{}/rotate-keys", job.id), None).await?;
    show_one(api, &changed, form, people)
}

fn people(job: &Job) -> String {
    let spec = &job.spec;
    let connections = match spec.connections {
        0 => "as the agents choose".to_owned(),
        count => count.to_string(),
    };
    let limit =
        spec.bytes_per_second.map_or_else(|| "none".into(), |rate| format!("{} a second", bytes(rate)));
    let mut text = properties([
        ("name", job.name.to_string()),
        ("id", job.id.to_string()),
        ("kind", spec.kind.to_string()),
        ("from", joined(&spec.from)),
        ("to", joined(&spec.to)),
        (
            "sealed to",
            if spec.seal_to.is_empty() { "nobody: not sealed".into() } else { joined(&spec.seal_to) },
        ),
        ("hash", spec.hash.to_string()),
        ("cipher", spec.cipher.to_string()),
        ("deletes", yes(spec.delete)),
        ("connections", connections),
        ("transport", spec.transport.to_string()),
        ("limit of rate", limit),
        ("rates by time", spec.rate_schedule.as_ref().map_or_else(|| "none".into(), rates)),
        ("schedule", spec.schedule.as_ref().map_or_else(|| "none: by `sealift run start`".into(), schedule)),
        ("epoch of keys", job.epoch.to_string()),
        ("changed", time(job.updated_ms)),
    ]);
    if !job.keys.is_empty() {
        let mut keys = Table::new(&["SOURCE", "SINCE", "KEY THAT CHECKS WHAT IT SIGNS"]);
        for key in &job.keys {
            keys.row([key.source.to_string(), time(key.created_ms), key.verify_key.clone()]);
        }
        text.push('\n');
        text += &keys.text();
    }
    text
}

/// A schedule of rates, as it is written on the command line.
fn rates(schedule: &RateSchedule) -> String {
    let limit = |limit: Option<u64>| match limit.map(Rate::new) {
        None => "off".to_owned(),
        Some(Ok(rate)) => rate.to_string(),
        Some(Err(_)) => "unknown".to_owned(),
    };
    let entries = schedule.entries.iter().map(|entry| {
        let day = entry
            .day
            .map_or_else(String::new, |day| format!("{}-", day.as_str().get(..3).unwrap_or_default()));
        format!("{day}{},{}", entry.from, limit(entry.bytes_per_second))
    });
    format!("{} ({})", entries.collect::<Vec<_>>().join(" "), schedule.time_zone)
}

/// A schedule, as it is written on the command line.
fn schedule(schedule: &Schedule) -> String {
    match schedule {
        Schedule::Cron { cron, time_zone } => format!("{cron} ({time_zone})"),
        Schedule::Interval { seconds } => format!("every {seconds}s"),
        Schedule::Once { at_ms } => format!("at {}", time(*at_ms)),
    }
}
