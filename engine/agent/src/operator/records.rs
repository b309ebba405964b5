//! `sealift audit`, `sealift events` and `sealift logs`: what was done, what has happened, and what agents have logged.

use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::agents::AGENT;
use crate::operator::api::id_of;
use crate::operator::jobs::JOB;
use crate::operator::output::{Form, Listing, Table, note, say, say_json, show_list, time};
use crate::operator::{runs, sealed_logs};
use sealift_api::rest::{Agent, AuditRecord, Event, LogRecord, Severity};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Between looks for events, where the daemon has no stream of them.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For how long a daemon that has gone is waited for, in attempts as far apart as looks.
const ATTEMPTS_MAX: u32 = 300;

/// Which records.
#[derive(Debug, Default)]
pub(crate) struct AuditFilter {
    /// The beginning of their action.
    pub(crate) action: Option<String>,
    /// Whose.
    pub(crate) actor: Option<String>,
    /// About what.
    pub(crate) subject: Option<String>,
    /// Not before, in milliseconds since 1970.
    pub(crate) from_ms: Option<i64>,
    /// Before.
    pub(crate) until_ms: Option<i64>,
}

/// Shows records of the audit, the newest first.
pub(crate) async fn audit(api: &mut Api, filter: AuditFilter, listing: Listing) -> Result<Finish, RunError> {
    let mut query = Vec::new();
    query.extend(filter.action.map(|action| ("action", action)));
    query.extend(filter.actor.map(|actor| ("actor", actor)));
    query.extend(filter.subject.map(|subject| ("subject", subject)));
    query.extend(filter.from_ms.map(|ms| ("from_ms", ms.to_string())));
    query.extend(filter.until_ms.map(|ms| ("until_ms", ms.to_string())));
    let head = ["NUMBER", "TIME", "ACTOR", "FROM", "ACTION", "SUBJECT"];
    show_list(api, "audit", &query, listing, &head, |record: &AuditRecord| {
        vec![
            record.number.to_string(),
            time(record.time_ms),
            record.actor.clone(),
            record.address.clone(),
            record.action.clone(),
            record.subject.clone(),
        ]
    })
    .await
}

/// Which events.
#[derive(Debug, Default)]
pub(crate) struct EventFilter {
    /// How much they matter.
    pub(crate) severity: Option<Severity>,
    /// Of which agent.
    pub(crate) agent: Option<String>,
    /// Of which job.
    pub(crate) job: Option<String>,
    /// Of which run.
    pub(crate) run: Option<String>,
}

impl EventFilter {
    /// The ids of its job and run.
    pub(super) async fn ids(&self, api: &mut Api) -> Result<(Option<Uuid>, Option<Uuid>), RunError> {
        let job = match &self.job {
            Some(job) => Some(id_of(&api.find(JOB, job).await?)?),
            None => None,
        };
        let run = match &self.run {
            Some(run) => Some(runs::id(api, run).await?),
            None => None,
        };
        Ok((job, run))
    }

    async fn query(self, api: &mut Api) -> Result<Vec<(&'static str, String)>, RunError> {
        let mut query = Vec::new();
        query.extend(self.severity.map(|severity| ("severity", severity.to_string())));
        if let Some(agent) = self.agent {
            query.push(("agent", id_of(&api.find(AGENT, &agent).await?)?.to_string()));
        }
        if let Some(job) = self.job {
            query.push(("job", id_of(&api.find(JOB, &job).await?)?.to_string()));
        }
        if let Some(run) = self.run {
            query.push(("run", runs::id(api, &run).await?.to_string()));
        }
        Ok(query)
    }
}

/// Which records of agents' logs, beside what events have too.
#[derive(Debug, Default)]
pub(crate) struct LogFilter {
    /// The rest.
    pub(crate) events: EventFilter,
    /// With this text in them.
    pub(crate) text: Option<String>,
    /// Not before, in milliseconds since 1970, by the agent's clock.
    pub(crate) from_ms: Option<i64>,
    /// Before.
    pub(crate) until_ms: Option<i64>,
}

/// Shows what agents have logged, the oldest first: the newest so many.
/// With a key: those that the daemon cannot read.
pub(crate) async fn logs(
    api: &mut Api,
    filter: LogFilter,
    key: Option<sealed_logs::Key>,
    listing: Listing,
) -> Result<Finish, RunError> {
    if let Some(key) = key {
        let opened = sealed_logs::open(api, &key, filter, listing.limit).await?;
        for (why, count) in &opened.closed {
            note(&format!("{count} records cannot be opened: {why}"));
        }
        return show_logs(api, opened.records, opened.more, listing.form).await;
    }
    let mut query = filter.events.query(api).await?;
    query.extend(filter.text.map(|text| ("q", text)));
    query.extend(filter.from_ms.map(|ms| ("from_ms", ms.to_string())));
    query.extend(filter.until_ms.map(|ms| ("until_ms", ms.to_string())));
    let mut newest = Vec::new();
    let more = api
        .list("logs", &query, listing.limit, |record| {
            newest.push(record);
            Ok(())
        })
        .await?;
    show_logs(api, newest, more, listing.form).await
}

async fn show_logs(
    api: &mut Api,
    mut newest: Vec<Value>,
    more: bool,
    form: Form,
) -> Result<Finish, RunError> {
    newest.reverse();
    if form == Form::Json {
        newest.iter().try_for_each(say_json)?;
        return Ok(Finish::Complete);
    }
    let mut names = BTreeMap::new();
    let mut agents = Vec::new();
    api.list("agents", &[], None, |agent| {
        agents.push(agent);
        Ok(())
    })
    .await?;
    for agent in &agents {
        let agent: Agent = api.typed(agent)?;
        names.insert(agent.id, agent.name.to_string());
    }
    let mut table = Table::new(&["TIME", "AGENT", "SEVERITY", "TARGET", "MESSAGE"]);
    for record in &newest {
        let record: LogRecord = api.typed(record)?;
        let mut message = record.message.clone();
        for field in &record.fields {
            message.push_str(&format!(" {}={}", field.name, field.value));
        }
        let agent = names.get(&record.agent_id).cloned().unwrap_or_else(|| record.agent_id.to_string());
        table.row([time(record.time_ms), agent, record.severity.to_string(), record.target, message]);
    }
    say(&table.text())?;
    if more {
        note("There are more: see --limit.");
    }
    Ok(Finish::Complete)
}

/// Shows events, the oldest first: the newest so many, and with `follow` whatever comes.
pub(crate) async fn events(
    api: &mut Api,
    filter: EventFilter,
    listing: Listing,
    follow: bool,
) -> Result<Finish, RunError> {
    let query = filter.query(api).await?;
    let mut newest = Vec::new();
    let more = api
        .list("events", &query, listing.limit, |event| {
            newest.push(event);
            Ok(())
        })
        .await?;
    // Where nothing is asked for, the number is not that of the newest; then it is looked for.
    let last = match newest.first() {
        Some(event) => number(event),
        None => newest_number(api).await?,
    };
    if more && !follow {
        note("There are more: see --limit.");
    }
    match (listing.form, follow) {
        (Form::People, false) => {
            let mut table = Table::new(&["NUMBER", "TIME", "SEVERITY", "MESSAGE"]);
            for event in newest.iter().rev() {
                let event: Event = api.typed(event)?;
                table.row(cells(&event));
            }
            say(&table.text())?;
        }
        _ => newest.iter().rev().try_for_each(|event| show(api, event, listing.form))?,
    }
    match follow {
        true => follow_for_ever(api, &query, listing.form, last).await,
        false => Ok(Finish::Complete),
    }
}

/// Ends only with an error: a daemon that is away is waited for.
async fn follow_for_ever(
    api: &mut Api,
    query: &[(&str, String)],
    form: Form,
    mut last: u64,
) -> Result<Finish, RunError> {
    let mut failures = 0;
    loop {
        match follow_on(api, query, form, &mut last).await {
            Ok(()) => failures = 0,
            Err(RunError::DaemonAway(error)) if failures < ATTEMPTS_MAX => {
                if failures == 0 {
                    note(&format!("sealift: {error}\nWaiting for it."));
                }
                failures += 1;
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Shows what has come after `last`: from a stream until that ends, or else once.
async fn follow_on(
    api: &mut Api,
    query: &[(&str, String)],
    form: Form,
    last: &mut u64,
) -> Result<(), RunError> {
    let mut path = format!("events/stream?after={last}");
    for (name, value) in query {
        // Words and ids: nothing in them has to be encoded.
        path.push_str(&format!("&{name}={value}"));
    }
    let Some(mut stream) = api.subscribe(&path).await? else {
        let mut new = Vec::new();
        let seen = *last;
        // What is new comes first.
        api.list("events", query, Some(200), |event| {
            if number(&event) > seen {
                new.push(event);
            }
            Ok(())
        })
        .await?;
        for event in new.iter().rev() {
            *last = (*last).max(number(event));
            show(api, event, form)?;
        }
        return Ok(());
    };
    while let Some(event) = stream.next().await {
        if event.kind == "gap" {
            note("Some events are missing here: the daemon keeps them no more.");
        }
        let Ok(event) = serde_json::from_str::<Value>(&event.data) else { continue };
        if number(&event) > *last {
            *last = number(&event);
            show(api, &event, form)?;
        }
    }
    Ok(())
}

async fn newest_number(api: &mut Api) -> Result<u64, RunError> {
    let mut newest = 0;
    api.list("events", &[], Some(1), |event| {
        newest = number(&event);
        Ok(())
    })
    .await?;
    Ok(newest)
}

fn number(event: &Value) -> u64 {
    event["number"].as_u64().unwrap_or(0)
}

fn show(api: &Api, event: &Value, form: Form) -> Result<(), RunError> {
    match form {
        Form::Json => say_json(event),
        Form::People => {
            let event: Event = api.typed(event)?;
            let [_, time, severity, message] = cells(&event);
            let message = sealift_proto::path::escape(message.as_bytes());
            say(&format!("{time}  {severity:<8}  {message}\n"))
        }
    }
}

fn cells(event: &Event) -> [String; 4] {
    [event.number.to_string(), time(event.time_ms), event.severity.to_string(), event.message.clone()]
}
