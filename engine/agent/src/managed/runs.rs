//! The runs of this agent: what is desired of each, its child if it has one, and how it stands.
//!
//! Does what the plan says, hears the children, and keeps how runs ended. Owns the table; tells the agent which statuses
//! have changed and what has happened.

mod outcomes;
mod verdict;
mod work;

use crate::managed::child::output::Told;
use crate::managed::child::{self, Exit, Handle, News, Order, What};
use crate::managed::document::{Desired, RunKey, Task, Wish, Work};
use crate::managed::logs::{self, ChildLog, Details as _, Logs, entry};
use crate::managed::pause;
use crate::managed::plan::{GRACE, Phase, Spec, Step, Wanted, next_due, plan};
use crate::managed::spool::{MESSAGE_BYTES_MAX, Text, truncate};
use crate::pace::{self, LOOK_INTERVAL};
use outcomes::Outcome;
use sealift_api::agent::event::Severity;
use sealift_api::agent::job_status::State;
use sealift_api::agent::{Event, JobStatus};
use sealift_proto::rate::{BothWays, share};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use verdict::{Kind, Verdict, verdict};
use work::Hindrance;
pub(crate) use work::{Terms, this_program};

/// Events that one child may cause by what it says; its end is told in any case.
const EVENTS_PER_CHILD_MAX: u32 = 100;
/// Rounds of planning after one occurrence: a step that fails may make others due.
const ROUNDS_MAX: usize = 8;

/// One run.
struct Run {
    phase: Phase,
    status: JobStatus,
    handle: Option<Handle>,
    /// How fast its child may be.
    pace: watch::Sender<BothWays>,
    /// It was told that this host does not know the zone of its schedule of rates.
    is_zone_told: bool,
    birth: u64,
    port: Option<u16>,
    /// Ends of children that counted as failures.
    failures: u32,
    /// Of those, since the source was last reached: makes pauses longer.
    tries: u32,
    events: u32,
    error: Option<String>,
    /// What its child says may have names in it that the daemon is not to learn: those of a sealed source.
    names_are_secret: bool,
    log: ChildLog,
}

/// See the module.
pub(crate) struct Runs {
    terms: Terms,
    logs: Logs,
    wanted: BTreeMap<RunKey, Task>,
    runs: BTreeMap<RunKey, Run>,
    /// Nothing is started: the agent ends, or is barred.
    held: bool,
    /// Whether how runs ended may be on the disk in words.
    text: Text,
    births: u64,
    /// When the clock was looked at last, for limits of rate by the time of day.
    looked: Option<Instant>,
    news: mpsc::Sender<News>,
    changed: BTreeSet<RunKey>,
    events: Vec<Event>,
}

impl Run {
    fn new(key: RunKey) -> Self {
        let mut status =
            JobStatus { job_id: key.job.to_vec(), run_id: key.run.to_vec(), ..JobStatus::default() };
        status.set_state(State::Waiting);
        Self {
            phase: Phase::Waiting { from: None },
            status,
            handle: None,
            pace: watch::Sender::new(BothWays::default()),
            is_zone_told: false,
            birth: 0,
            port: None,
            failures: 0,
            tries: 0,
            events: 0,
            error: None,
            names_are_secret: true,
            log: ChildLog::new("run"),
        }
    }
}

impl Runs {
    /// Takes up what is known of runs that ended. Children's news go into the channel.
    pub(crate) fn new(
        terms: Terms,
        text: Text,
        logs: Logs,
        news: mpsc::Sender<News>,
    ) -> std::io::Result<Self> {
        let mut runs = BTreeMap::new();
        for Outcome { key, spec, status } in outcomes::load(&terms.home)? {
            runs.insert(key, Run { phase: Phase::Ended { spec }, status, ..Run::new(key) });
        }
        let (wanted, changed, events) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let (held, births, looked) = (false, 0, None);
        Ok(Self { terms, logs, wanted, runs, held, text, births, looked, news, changed, events })
    }

    /// What is desired from now on.
    pub(crate) fn desire(&mut self, desired: Desired, now: Instant) {
        self.held = false;
        self.terms.tracker_port = desired.tracker_port;
        self.wanted = desired.tasks.into_iter().map(|task| (task.key, task)).collect();
        for (&key, task) in &self.wanted {
            let run = self.runs.entry(key).or_insert_with(|| Run::new(key));
            self.changed.insert(key);
            let rates = task.work.as_ref().ok().and_then(|work| work.rates.as_ref());
            if let Some(rates) = rates.filter(|rates| rates.zone.is_none() && !run.is_zone_told) {
                run.is_zone_told = true;
                let message = format!(
                    "job {}: this host does not know the time zone {} of its schedule of rates: the lowest of them always \
                    holds (are the host's time zone data installed?)",
                    task.job_name, rates.zone_name
                );
                self.events.push(event(key, Severity::Warning, &message));
                self.logs.put(entry(logs::Severity::Warning, "run", message).of(key));
            }
        }
        self.reconcile(now);
    }

    /// Whether how runs ended may be on the disk in words, from now on. What is there already goes, if not.
    pub(crate) fn set_text(&mut self, text: Text) {
        if std::mem::replace(&mut self.text, text) == Text::Plain && text == Text::Withheld {
            self.keep_outcomes();
        }
    }

    /// Every child ends at once, and none is started until something is desired anew.
    pub(crate) fn cut(&mut self, now: Instant) {
        self.held = true;
        for run in self.runs.values_mut() {
            if let Some(handle) = &run.handle {
                handle.order(Order::Kill);
                run.phase = Phase::Stopping { since: now, killed: true };
            }
        }
    }

    /// Nothing is to run any more, since the agent ends; statuses and outcomes stay as they are.
    pub(crate) fn wind_up(&mut self, now: Instant) {
        self.held = true;
        for run in self.runs.values_mut() {
            if let (Some(handle), Phase::Running { .. }) = (&run.handle, run.phase) {
                handle.order(Order::Terminate);
                run.phase = Phase::Stopping { since: now, killed: false };
            }
            if let (Some(handle), Phase::Stopping { since, killed: false }) = (&run.handle, run.phase)
                && now >= since + GRACE
            {
                handle.order(Order::Kill);
                run.phase = Phase::Stopping { since, killed: true };
            }
        }
    }

    pub(crate) fn has_children(&self) -> bool {
        self.runs.values().any(|run| run.handle.is_some())
    }

    /// When time alone makes something due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        next_due(&self.phases()).into_iter().chain(self.next_look()).min()
    }

    /// When the clock is to be looked at, if it matters what time it is.
    fn next_look(&self) -> Option<Instant> {
        let by_clock = |task: &Task| {
            let rates = task.work.as_ref().ok().and_then(|work| work.rates.as_ref());
            rates.is_some_and(|rates| !rates.timetable.is_constant())
        };
        let matters = !self.terms.limits.is_constant() || self.wanted.values().any(by_clock);
        let is_idle = self.held || !self.has_children();
        self.looked.filter(|_| matters && !is_idle).map(|looked| looked + LOOK_INTERVAL)
    }

    /// Tells every child how fast it may be now: as its job says, and no more than its part of what this host allows.
    fn set_pace(&mut self, now: Instant) {
        self.looked = Some(now);
        let allowed = self.terms.limits.at(pace::now(&self.terms.zone));
        let wanted = &self.wanted;
        let mut running = Vec::new();
        for (key, run) in self.runs.iter().filter(|(_, run)| run.handle.is_some()) {
            // What is not wanted any more is about to end.
            let work = wanted.get(key).and_then(|task| task.work.as_ref().ok());
            let limits = work.map_or_else(|| *run.pace.borrow(), Work::pace);
            running.push((run, limits, work.map_or(Kind::Source, Work::kind)));
        }
        // Destinations send too: they serve each other.
        let sent: Vec<_> = running.iter().map(|(_, limits, _)| limits.up).collect();
        let receivers = running.iter().filter(|(_, _, kind)| *kind == Kind::Destination);
        let received: Vec<_> = receivers.map(|(_, limits, _)| limits.down).collect();
        let mut down = share(allowed.down, &received).into_iter();
        for ((run, _, kind), up) in running.into_iter().zip(share(allowed.up, &sent)) {
            let down = match kind {
                Kind::Destination => down.next().flatten(),
                Kind::Source => None,
            };
            let limits = BothWays { up, down };
            run.pace.send_if_modified(|now| std::mem::replace(now, limits) != limits);
        }
    }

    fn phases(&self) -> BTreeMap<RunKey, Phase> {
        self.runs.iter().map(|(key, run)| (*key, run.phase)).collect()
    }

    /// Brings what runs closer to what is desired.
    pub(crate) fn reconcile(&mut self, now: Instant) {
        if self.held {
            return;
        }
        for _ in 0..ROUNDS_MAX {
            let wanted = self.wanted.iter().map(|(key, task)| (*key, wanted(task))).collect();
            let steps = plan(now, &wanted, &self.phases());
            if steps.is_empty() {
                break;
            }
            for step in steps {
                self.take(step, now);
            }
        }
        for (key, task) in &self.wanted {
            let Some(run) = self.runs.get_mut(key) else { continue };
            if task.wish == Wish::Run && matches!(run.phase, Phase::Settled { .. }) {
                run.phase = Phase::Waiting { from: None };
                run.status.set_state(State::Waiting);
                self.changed.insert(*key);
            }
        }
        self.set_pace(now);
    }

    fn take(&mut self, step: Step, now: Instant) {
        match step {
            Step::Start(key) => self.start(key, now),
            Step::Terminate(key) => {
                self.stop(key, Order::Terminate, Phase::Stopping { since: now, killed: false });
            }
            Step::Kill(key) => self.stop(key, Order::Kill, Phase::Stopping { since: now, killed: true }),
            Step::Settle(key, wish) => {
                let Some(run) = self.runs.get_mut(&key) else { return };
                run.phase = Phase::Settled { wish };
                let state = if wish == Wish::Pause { State::Paused } else { State::Stopped };
                self.set(key, state, String::new());
            }
            Step::Forget(key) => {
                let gone = self.runs.remove(&key);
                self.changed.remove(&key);
                if gone.is_some_and(|run| matches!(run.phase, Phase::Ended { .. })) {
                    self.keep_outcomes();
                }
            }
        }
    }

    fn stop(&mut self, key: RunKey, order: Order, phase: Phase) {
        if let Some(run) = self.runs.get_mut(&key) {
            run.phase = phase;
            if let Some(handle) = &run.handle {
                handle.order(order);
            }
        }
    }

    fn start(&mut self, key: RunKey, now: Instant) {
        let Some(task) = self.wanted.get(&key) else { return };
        let spec = wanted(task).spec;
        let name = task.job_name.clone();
        let target = task.work.as_ref().map_or("run", |work| match work.kind() {
            Kind::Source => "send",
            Kind::Destination => "receive",
        });
        let taken = self.runs.values().filter_map(|run| run.port).collect();
        let prepared = match &task.work {
            Ok(work) => self.terms.prepare(key, work, &taken),
            Err(why) => Err(Hindrance::Wrong(why.clone())),
        };
        // Kept with the child: it may go on for a while when nobody wants it any more.
        let names_are_secret =
            task.work.as_ref().is_ok_and(|work| work.sealed && work.kind() == Kind::Source);
        self.births += 1;
        let pace = self.runs.get(&key).map(|run| run.pace.subscribe());
        let started = prepared.and_then(|(program, port)| {
            let program = child::Program { pace, ..program };
            let handle = child::start(program, key, self.births, self.news.clone());
            handle.map(|handle| (handle, port)).map_err(|error| Hindrance::Now(error.to_string()))
        });
        match started {
            Ok((handle, port)) => {
                let Some(run) = self.runs.get_mut(&key) else { return };
                run.phase = Phase::Running { spec };
                (run.handle, run.port, run.birth) = (Some(handle), port, self.births);
                (run.events, run.error, run.names_are_secret) = (0, None, names_are_secret);
                run.log = ChildLog::new(target);
                run.status.addresses.clear();
                self.set(key, State::Running, String::new());
                self.happened(key, Severity::Info, format!("job {name}: started"));
            }
            Err(Hindrance::Refused(refusal)) => {
                self.happened(key, Severity::Security, format!("job {name}: {refusal}"));
                self.end(key, spec, State::Failed, refusal.to_string());
            }
            Err(Hindrance::Wrong(why)) => {
                self.happened(key, Severity::Error, format!("job {name}: {why}"));
                self.end(key, spec, State::Failed, why);
            }
            Err(Hindrance::Now(why)) => self.again(key, why, now),
        }
    }

    /// A child's news. Those of an earlier child of the run come too late.
    pub(crate) fn hear(&mut self, news: News, now: Instant) {
        let News { key, birth, what } = news;
        if self.runs.get(&key).is_none_or(|run| run.birth != birth || run.handle.is_none()) {
            return;
        }
        let names_are_secret = self.runs.get(&key).is_none_or(|run| run.names_are_secret);
        let what = if names_are_secret { what.without_names() } else { what };
        match what {
            What::Told(told) => {
                if let Some(run) = self.runs.get_mut(&key) {
                    run.log.told(&self.logs, key, &told, now);
                }
                self.told(key, told);
            }
            What::Ended(exit) => {
                if let Some(run) = self.runs.get_mut(&key) {
                    run.log.ended(&self.logs, key, &exit, now);
                }
                self.ended(key, &exit, now);
                self.reconcile(now);
            }
        }
    }

    fn told(&mut self, key: RunKey, told: Told) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        let status = &mut run.status;
        let mut said = None;
        match told {
            Told::Listening(addresses) => status.addresses = self.terms.addresses(addresses),
            Told::Scanned { files, bytes, problems } => {
                (status.files, status.bytes_known, status.failed) = (files, bytes, problems);
            }
            Told::Progress { files, bytes, bytes_known, bytes_transferred } => {
                (status.files, status.bytes, status.bytes_known) = (files, bytes, bytes_known);
                status.bytes_transferred = bytes_transferred;
            }
            Told::Done { files, bytes, bytes_transferred, failed, deleted } => {
                (status.files, status.bytes, status.bytes_known) =
                    (files, bytes, status.bytes_known.max(bytes));
                (status.bytes_transferred, status.failed, status.deleted) =
                    (bytes_transferred, failed, deleted);
            }
            Told::Peer(text) => {
                run.tries = 0;
                said = Some((Severity::Info, text));
            }
            Told::Refused(text) => said = Some((Severity::Security, text)),
            Told::NoRoom(text) => {
                status.message = clean(&format!("waits for room: {text}"));
                said = Some((Severity::Warning, text));
            }
            Told::Room => status.message.clear(),
            Told::Problem(text) => {
                status.failed += 1;
                said = Some((Severity::Warning, text));
            }
            Told::Warning(text) => said = Some((Severity::Warning, text)),
            Told::Error(text) => run.error = Some(text),
        }
        self.changed.insert(key);
        if let Some((severity, text)) = said {
            run.events += 1;
            // What the child said is in the log already.
            if run.events <= EVENTS_PER_CHILD_MAX {
                self.events.push(event(key, severity, &text));
            } else if run.events == EVENTS_PER_CHILD_MAX + 1 {
                self.events.push(event(key, Severity::Warning, "further events of this run are not told"));
            }
        }
    }

    fn ended(&mut self, key: RunKey, exit: &Exit, now: Instant) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        (run.handle, run.port) = (None, None);
        run.status.addresses.clear();
        let (asked, spec) = match run.phase {
            Phase::Running { spec } => (false, Some(spec)),
            _ => (true, None),
        };
        let task = self.wanted.get(&key);
        let kind = task.and_then(|task| task.work.as_ref().ok()).map_or(Kind::Source, |work| work.kind());
        let interrupted = run.error.as_deref() == Some("interrupted");
        let why = run.error.take().unwrap_or_else(|| ending_text(exit));
        // A child that was asked to end since its work has changed is done with nothing that is desired now.
        let spec = spec.or_else(|| task.filter(|task| task.wish != Wish::Run).map(|task| wanted(task).spec));
        let name = task.map_or_else(String::new, |task| task.job_name.clone());
        match (verdict(kind, asked, interrupted, exit, run.failures), spec) {
            (Verdict::Done, Some(spec)) => {
                self.happened(key, Severity::Info, format!("job {name}: done"));
                self.end(key, spec, State::Done, String::new());
            }
            (Verdict::Partial, Some(spec)) => {
                let failed = self.runs.get(&key).map_or(0, |run| run.status.failed);
                let message = format!("{failed} entries are missing");
                self.happened(key, Severity::Warning, format!("job {name}: {message}"));
                self.end(key, spec, State::Partial, message);
            }
            (Verdict::Failed, Some(spec)) => {
                self.happened(key, Severity::Error, format!("job {name}: {why}"));
                self.end(key, spec, State::Failed, why);
            }
            (Verdict::Again, _) => {
                // A source out of reach is no failure, however often.
                run.failures += u32::from(exit.code != Some(5));
                self.again(key, why, now);
            }
            (Verdict::AsAsked, _) | (_, None) => run.phase = Phase::Waiting { from: None },
        }
    }

    /// The run is tried again, after a pause.
    fn again(&mut self, key: RunKey, why: String, now: Instant) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        let delay = pause::delay(run.tries);
        let is_first = run.tries == 0;
        run.tries = run.tries.saturating_add(1);
        run.phase = Phase::Waiting { from: Some(now + delay) };
        if is_first {
            self.happened(key, Severity::Warning, format!("{why}; tried again"));
        }
        self.set(key, State::Waiting, format!("{why}; tried again in {} s", delay.as_secs().max(1)));
    }

    fn end(&mut self, key: RunKey, spec: Spec, state: State, message: String) {
        let Some(run) = self.runs.get_mut(&key) else { return };
        run.phase = Phase::Ended { spec };
        self.set(key, state, message);
        self.keep_outcomes();
    }

    fn set(&mut self, key: RunKey, state: State, message: String) {
        if let Some(run) = self.runs.get_mut(&key) {
            run.status.set_state(state);
            run.status.message = clean(&message);
            self.changed.insert(key);
        }
    }

    fn keep_outcomes(&mut self) {
        let ended = self.runs.iter().filter_map(|(&key, run)| match run.phase {
            Phase::Ended { spec } => Some(Outcome { key, spec, status: run.status.clone() }),
            _ => None,
        });
        let ended: Vec<_> = ended.collect();
        if let Err(error) = outcomes::keep(&self.terms.home, &ended, self.text) {
            let message = format!("how runs ended cannot be kept on this host: {error}");
            self.logs.put(entry(logs::Severity::Error, "agent", message.as_str()));
            self.events.push(host_event(Severity::Error, &message));
        }
    }

    fn happened(&mut self, key: RunKey, severity: Severity, message: String) {
        self.events.push(event(key, severity, &message));
        let severity = match severity {
            Severity::Unspecified | Severity::Info => logs::Severity::Info,
            Severity::Warning => logs::Severity::Warning,
            Severity::Error => logs::Severity::Error,
            Severity::Security => logs::Severity::Security,
        };
        self.logs.put(entry(severity, "run", message).of(key));
    }

    /// What has happened since the last time this was asked.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Every status is to be told again.
    pub(crate) fn touch_all(&mut self) {
        self.changed.extend(self.wanted.keys().copied());
    }

    /// At most so many statuses that were not told since they changed.
    pub(crate) fn changed(&self, count: usize) -> Vec<(RunKey, JobStatus)> {
        let known = self.changed.iter().filter(|key| self.wanted.contains_key(key));
        let statuses = known.filter_map(|key| Some((*key, self.runs.get(key)?.status.clone())));
        statuses.take(count).collect()
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.changed.iter().any(|key| self.wanted.contains_key(key))
    }

    /// These were told.
    pub(crate) fn told_of(&mut self, keys: impl Iterator<Item = RunKey>) {
        for key in keys {
            self.changed.remove(&key);
        }
    }
}

/// How runs ended, as it is on the disk.
pub(crate) fn kept_outcomes(home: &crate::managed::home::Home) -> std::io::Result<Vec<(RunKey, JobStatus)>> {
    Ok(outcomes::load(home)?.into_iter().map(|outcome| (outcome.key, outcome.status)).collect())
}

fn wanted(task: &Task) -> Wanted {
    let (spec, ready) = match &task.work {
        Ok(work) => (work.spec(), work.kind() == Kind::Source || !work.sources().is_empty()),
        Err(_) => ([0; 32], true),
    };
    Wanted { wish: task.wish, spec, ready }
}

fn ending_text(exit: &Exit) -> String {
    let end = match (exit.code, exit.signal) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    if exit.stderr.is_empty() { end } else { format!("{end}: {}", exit.stderr) }
}

/// One line, of bounded length.
fn clean(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    truncate(&mut text, MESSAGE_BYTES_MAX);
    text
}

fn event(key: RunKey, severity: Severity, message: &str) -> Event {
    Event { job_id: key.job.to_vec(), run_id: key.run.to_vec(), ..host_event(severity, message) }
}

/// An event of the host's own; it is numbered when it is kept.
pub(crate) fn host_event(severity: Severity, message: &str) -> Event {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Event {
        unix_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        severity: severity.into(),
        message: clean(message),
        ..Event::default()
    }
}
