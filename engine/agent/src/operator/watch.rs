//! `sealift run watch`: the progress of a run until it has ended.
//!
//! The daemon's stream says when something has changed; where there is none, it is asked again and again. A daemon that
//! goes away is waited for: the run goes on without it. On a terminal each agent has a bar; elsewhere a line is said when
//! an agent's state changes.

use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::output::{Form, bytes, note, say, say_json};
use crate::operator::runs::{people, result};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sealift_api::rest::{RunAgent, RunAgentState, RunDetail, RunRole, RunState};
use sealift_proto::path::escape;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Between looks, where the daemon has no stream.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Between attempts to reach a daemon that has gone away.
const DIAL_AGAIN: Duration = Duration::from_secs(2);
/// For how long it is waited for.
const AWAY_MAX: Duration = Duration::from_secs(600);
/// Bars at a time.
const BARS_MAX: usize = 16;

/// Shows the run until it has ended; its end is that of the command.
pub(super) async fn watch(api: &mut Api, run: Uuid, form: Form) -> Result<Finish, RunError> {
    let mut shown = match form {
        Form::Json => Shown::Json(Value::Null),
        Form::People => Shown::People(Progress::new()),
    };
    let mut away: Option<Instant> = None;
    loop {
        let error = match follow(api, run, &mut shown, &mut away).await {
            Ok(Some(detail)) => return shown.end(&detail),
            Ok(None) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            Err(RunError::DaemonAway(error)) => error,
            Err(error) => return Err(error),
        };
        let since = *away.get_or_insert_with(|| {
            shown.note(&format!("sealift: {error}\nWaiting for it; the agents go on."));
            Instant::now()
        });
        if since.elapsed() > AWAY_MAX {
            return Err(RunError::DaemonAway(error));
        }
        tokio::time::sleep(DIAL_AGAIN).await;
    }
}

/// Shows what comes from a stream until that ends, or else how it is now. Gives the run if it is over.
async fn follow(
    api: &mut Api,
    run: Uuid,
    shown: &mut Shown,
    away: &mut Option<Instant>,
) -> Result<Option<RunDetail>, RunError> {
    let mut look = |api: &Api, item: Value| -> Result<Option<RunDetail>, RunError> {
        let detail: RunDetail = api.typed(&item)?;
        shown.show(item, &detail)?;
        Ok(detail.run.state.is_over().then_some(detail))
    };
    let stream = match api.subscribe(&format!("runs/{run}/stream")).await {
        Ok(stream) => stream,
        // Too many streams are open, or whatever: it can still be asked.
        Err(RunError::DaemonAway(error)) => return Err(RunError::DaemonAway(error)),
        Err(_) => None,
    };
    if let Some(mut stream) = stream {
        *away = None;
        while let Some(event) = stream.next().await {
            let item = serde_json::from_str::<Value>(&event.data);
            if let Ok(item) = item
                && let Some(detail) = look(api, item)?
            {
                return Ok(Some(detail));
            }
        }
    }
    let item = api.get(&format!("runs/{run}")).await?;
    *away = None;
    look(api, item)
}

enum Shown {
    /// What was said last.
    Json(Value),
    People(Progress),
}

impl Shown {
    fn show(&mut self, item: Value, detail: &RunDetail) -> Result<(), RunError> {
        match self {
            Self::Json(last) => {
                if *last != item {
                    say_json(&item)?;
                    *last = item;
                }
                Ok(())
            }
            Self::People(progress) => {
                progress.show(detail);
                Ok(())
            }
        }
    }

    fn note(&self, text: &str) {
        match self {
            Self::Json(_) => note(text),
            Self::People(progress) => progress.note(text),
        }
    }

    fn end(self, detail: &RunDetail) -> Result<Finish, RunError> {
        if let Self::People(progress) = self {
            progress.clear();
            say(&people(detail))?;
        }
        result(&detail.run)
    }
}

/// Progress as people see it.
struct Progress {
    bars: Option<MultiProgress>,
    agents: BTreeMap<(Uuid, Uuid), ProgressBar>,
    told: BTreeMap<(Uuid, Uuid), RunAgentState>,
    state: RunState,
}

impl Progress {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bars = is_terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { bars, agents: BTreeMap::new(), told: BTreeMap::new(), state: RunState::Running }
    }

    fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| note(text)),
            None => note(text),
        }
    }

    fn show(&mut self, detail: &RunDetail) {
        if self.state != detail.run.state {
            self.state = detail.run.state;
            if !self.state.is_over() {
                self.note(&format!("The run is {}.", self.state));
            }
        }
        for agent in &detail.agents {
            let key = (agent.agent_id, agent.source_id);
            match &self.bars {
                Some(bars) => show_bar(bars, &mut self.agents, key, agent),
                None => {
                    if self.told.insert(key, agent.state) != Some(agent.state) {
                        note(&line(agent));
                    }
                }
            }
        }
    }

    fn clear(&self) {
        if let Some(bars) = &self.bars {
            self.agents.values().for_each(ProgressBar::finish_and_clear);
            let _ = bars.clear();
            // Bars draw themselves once more when they go.
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

fn show_bar(
    bars: &MultiProgress,
    shown: &mut BTreeMap<(Uuid, Uuid), ProgressBar>,
    key: (Uuid, Uuid),
    agent: &RunAgent,
) {
    // Those that have ended make room for others.
    if agent.state.is_over()
        && shown.len() >= BARS_MAX
        && let Some(bar) = shown.remove(&key)
    {
        bars.remove(&bar);
        return;
    }
    let is_shown = shown.contains_key(&key);
    if !is_shown && (agent.state.is_over() || shown.len() >= BARS_MAX) {
        return;
    }
    let bar = shown.entry(key).or_insert_with(|| {
        let style =
            ProgressStyle::with_template("{prefix:20!} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}")
                .expect("the template is right");
        bars.add(ProgressBar::new(0).with_style(style).with_prefix(agent.agent.to_string()))
    });
    bar.set_length(agent.bytes_known.max(agent.bytes));
    bar.set_position(agent.bytes);
    bar.set_message(match agent.role {
        RunRole::Source => format!("source, {}", agent.state),
        RunRole::Destination => agent.state.to_string(),
    });
}

/// How an agent stands, in a line.
fn line(agent: &RunAgent) -> String {
    let mut text = format!("{} ({}) is {}", agent.agent, agent.role, agent.state);
    if agent.files > 0 {
        text += &format!(": {} files, {}", agent.files, bytes(agent.bytes));
    }
    if !agent.message.is_empty() {
        text += &format!(": {}", escape(agent.message.as_bytes()));
    }
    text
}
