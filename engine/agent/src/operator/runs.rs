//! `sealift run`: jobs that are carried out.

use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::api::id_of;
use crate::operator::jobs::JOB;
use crate::operator::output::{
    Form, Listing, Table, bytes, note, properties, show_list, show_one, time, time_if,
};
use crate::operator::watch::watch;
use sealift_api::rest::{Job, Run, RunAgent, RunDetail, RunState};
use sealift_proto::path::escape;
use serde_json::Value;
use uuid::Uuid;

/// What is done to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It keeps what it has.
    Pause,
    /// It goes on.
    Resume,
    /// It ends.
    Stop,
}

/// Whether it is waited for the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// No.
    Return,
    /// Its progress is shown, and its result is that of the command.
    Watch,
}

/// The run that is meant: by its id, or the newest of the job of this name or id.
pub(crate) async fn id(api: &mut Api, text: &str) -> Result<Uuid, RunError> {
    if let Ok(id) = Uuid::try_parse(text) {
        match api.get(&format!("runs/{id}")).await {
            Ok(_) => return Ok(id),
            // It may be that of a job.
            Err(RunError::Failed(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let shown = escape(text.as_bytes());
    let job = api.find(JOB, text).await.map_err(|error| match error {
        RunError::Failed(_) => RunError::Failed(format!(
            "there is no run {shown}, and no job of this name: `sealift run list` shows which there are"
        )),
        error => error,
    })?;
    let mut newest = None;
    api.list("runs", &[("job", id_of(&job)?.to_string())], Some(1), |run| {
        newest = Some(id_of(&run)?);
        Ok(())
    })
    .await?;
    newest.ok_or_else(|| RunError::Failed(format!("the job {shown} has not run yet")))
}

/// Starts a run of a job.
pub(crate) async fn start(api: &mut Api, job: &str, then: Then, form: Form) -> Result<Finish, RunError> {
    let job = api.find(JOB, job).await?;
    start_of(api, &job, then, form).await
}

/// Starts a run of a job that is known.
pub(crate) async fn start_of(api: &mut Api, job: &Value, then: Then, form: Form) -> Result<Finish, RunError> {
    let job: Job = api.typed(job)?;
    let run = api.post::<()>(&format!("jobs/{}/runs", job.id), None).await?;
    show_one(api, &run, form, |run: &Run| format!("{}\n", run.id))?;
    match then {
        Then::Return => {
            if form == Form::People {
                note(&format!("Started. `sealift run watch {}` shows how it goes on.", job.name));
            }
            Ok(Finish::Complete)
        }
        Then::Watch => watch(api, id_of(&run)?, form).await,
    }
}

/// Shows the progress of a run until it has ended.
pub(crate) async fn watch_one(api: &mut Api, run: &str, form: Form) -> Result<Finish, RunError> {
    let id = id(api, run).await?;
    watch(api, id, form).await
}

/// Shows them, the newest first.
pub(crate) async fn list(api: &mut Api, job: Option<String>, listing: Listing) -> Result<Finish, RunError> {
    let mut query = Vec::new();
    if let Some(job) = job {
        query.push(("job", id_of(&api.find(JOB, &job).await?)?.to_string()));
    }
    let head = ["ID", "JOB", "STATE", "STARTED", "ENDED", "BY"];
    show_list(api, "runs", &query, listing, &head, |run: &Run| {
        vec![
            run.id.to_string(),
            run.job_name.clone(),
            run.state.to_string(),
            time(run.created_ms),
            time_if(run.ended_ms),
            run.started_by.clone(),
        ]
    })
    .await
}

/// Shows one, and how each agent stands in it.
pub(crate) async fn show(api: &mut Api, run: &str, form: Form) -> Result<Finish, RunError> {
    let id = id(api, run).await?;
    let run = api.get(&format!("runs/{id}")).await?;
    show_one(api, &run, form, people)
}

/// Pauses one, or lets it go on, or ends it.
pub(crate) async fn act(api: &mut Api, action: Action, run: &str, form: Form) -> Result<Finish, RunError> {
    let id = id(api, run).await?;
    let word = match action {
        Action::Pause => "pause",
        Action::Resume => "resume",
        Action::Stop => "stop",
    };
    let run = api.post::<()>(&format!("runs/{id}/{word}"), None).await?;
    show_one(api, &run, form, |run: &Run| {
        format!("{} of {} is {}.\n", run.id, escape(run.job_name.as_bytes()), run.state)
    })
}

/// A run for people.
pub(super) fn people(detail: &RunDetail) -> String {
    let run = &detail.run;
    let mut text = properties([
        ("run", run.id.to_string()),
        ("job", run.job_name.clone()),
        ("state", run.state.to_string()),
        ("started", format!("{} by {}", time(run.created_ms), run.started_by)),
        ("ended", time_if(run.ended_ms)),
    ]);
    text.push('\n');
    text + &agents(&detail.agents)
}

/// How each agent stands.
pub(super) fn agents(agents: &[RunAgent]) -> String {
    let head = ["AGENT", "ROLE", "STATE", "FILES", "BYTES", "OVER THE WIRE", "FAILED", "DELETED", "MESSAGE"];
    let mut table = Table::new(&head);
    for agent in agents {
        table.row([
            agent.agent.to_string(),
            agent.role.to_string(),
            agent.state.to_string(),
            agent.files.to_string(),
            bytes(agent.bytes),
            bytes(agent.bytes_transferred),
            agent.failed.to_string(),
            agent.deleted.to_string(),
            agent.message.clone(),
        ]);
    }
    table.text()
}

/// What the end of a run is to whoever waited for it.
pub(super) fn result(run: &Run) -> Result<Finish, RunError> {
    let job = escape(run.job_name.as_bytes());
    match run.state {
        RunState::Done => Ok(Finish::Complete),
        RunState::Partial => Ok(Finish::Partial),
        RunState::Stopped => Err(RunError::Failed(format!("the run of {job} was stopped"))),
        RunState::Failed => Err(RunError::Failed(format!("the run of {job} has failed"))),
        RunState::Running | RunState::Paused => {
            Err(RunError::Failed(format!("the run of {job} has not ended")))
        }
    }
}
