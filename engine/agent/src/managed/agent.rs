//! `sealift agent run`: one loop: what the daemon says and what children say goes in, steps and reports come out.
//!
//! Owns the order that matters: a document is on the disk before it is acknowledged, an event before it is sent. Small
//! files are written on this very thread: nothing else here is in a hurry.

use crate::error::{Finish, RunError};
use crate::managed::child::{self, orphans};
use crate::managed::credentials::Credentials;
use crate::managed::document::{self, Desired};
use crate::managed::home::{Home, Identity};
use crate::managed::logs::{self, Logs, Start, Upload, entry};
use crate::managed::pin::Pin;
use crate::managed::runs::{Runs, Terms, host_event, this_program};
use crate::managed::session::{self, FromDaemon, Session, Standing};
use crate::managed::spool::{Spool, Text};
use crate::report::{Event as Told, Reporter};
use jiff::tz::TimeZone;
use sealift_api::agent::event::Severity;
use sealift_api::agent::goodbye::Reason;
use sealift_api::agent::{Ack, AgentMessage, Report, agent_message};
use sealift_proto::rate::Timetable;
use std::path::PathBuf;
use std::pin::Pin as Pinned;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Between reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Statuses in a report.
const STATUSES_PER_REPORT: usize = 128;
/// Events in a report.
const EVENTS_PER_REPORT: usize = 128;
/// Events that are sent before the daemon has said that it has any of them.
const EVENTS_AHEAD_MAX: u64 = 1024;
/// How long the ends of killed children are waited for.
const ENDING_MAX: Duration = Duration::from_secs(15);
/// Says how many bytes of logs are kept while the daemon is away.
const LOG_SPOOL_VARIABLE: &str = "SEALIFT_LOG_SPOOL_BYTES";
/// The file that says that this agent is barred.
const BARRED: &str = "barred";

/// Where a document stands in its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    First,
    Later,
}

struct Agent<'a> {
    home: Home,
    reporter: &'a Reporter,
    runs: Runs,
    spool: Spool,
    logs: Logs,
    logs_port: watch::Sender<u16>,
    standing: watch::Sender<Standing>,
    link: Option<mpsc::Sender<AgentMessage>>,
    ack: Option<Ack>,
    /// The newest event that was sent over this connection.
    sent: u64,
    reported: Option<Instant>,
}

/// Runs until it is told to end, or the daemon has revoked this agent. All its runs together keep to the limits, by this host's
/// time of day.
///
/// # Errors
/// See [`RunError`]; [`RunError::Barred`] if the agent was revoked.
pub async fn run(
    state_dir: Option<PathBuf>,
    limits: Timetable,
    reporter: &Reporter,
) -> Result<Finish, RunError> {
    let program = this_program()
        .map_err(|error| RunError::Failed(format!("cannot tell where this program is: {error}")))?;
    run_until(state_dir, limits, reporter, program, crate::send::interruption()).await
}

/// Runs with this program as its children, until the future is ready.
pub(crate) async fn run_until(
    state_dir: Option<PathBuf>,
    limits: Timetable,
    reporter: &Reporter,
    program: PathBuf,
    interrupted: impl Future<Output = ()>,
) -> Result<Finish, RunError> {
    let interrupted = std::pin::pin!(interrupted);
    let home = Home::find(state_dir)?;
    let identity = home.identity()?;
    let _lock = home.lock()?;
    let pin: Pin =
        identity.pin.parse().map_err(|error| RunError::Failed(format!("identity.json: {error}")))?;
    let credentials = Credentials::load(&home, &pin)?;
    let unusable = |error: std::io::Error| home.unusable(&error);
    orphans::end_all(&home.job_dirs().map_err(unusable)?).await;

    let (children, from_children) = mpsc::channel(child::NEWS_MAX);
    let (news, from_daemon) = mpsc::channel(session::NEWS_MAX);
    let trouble = news.clone();
    // One that finds the agent busy is not worth waiting for.
    let trouble = move |text| drop(trouble.try_send(FromDaemon::Warning(text)));
    // How what is kept is to be sealed is in the document. Without one, as at first, nothing is kept: one that cannot be used is
    // told of later.
    let kept = document::load(&home).ok().flatten();
    let text = kept.as_ref().map_or(Text::Withheld, text_of);
    let start = if kept.is_some() { Start::AtOnce } else { Start::OnceToldHow };
    let kek = kept.and_then(|desired| desired.logs_kek);
    let log_spool =
        logs::spool::Spool::open(&home.path("logs"), log_spool_bytes()?, kek).map_err(unusable)?;
    let logs = Logs::start(log_spool, start, trouble).map_err(unusable)?;
    let terms = terms(&home, &identity, limits, program);
    let runs = Runs::new(terms, text, logs.clone(), children).map_err(unusable)?;
    let spool = Spool::open(&home.path("events"), text).map_err(unusable)?;
    let (standing, heard) = watch::channel(Standing::default());
    let (logs_port, port) = watch::channel(0);
    let upload = Upload { home: home.clone(), identity: identity.clone(), logs: logs.clone(), port };
    let session =
        Session { home: home.clone(), identity: identity.clone(), credentials, standing: heard, news };
    let mut agent = Agent {
        home: home.clone(),
        reporter,
        runs,
        spool,
        logs,
        logs_port,
        standing,
        link: None,
        ack: None,
        sent: 0,
        reported: None,
    };
    agent.note(format!("Agent {} of {} is running.", identity.name, identity.daemon));
    agent.take_up()?;
    tokio::spawn(session.keep_up());
    tokio::spawn(upload.keep_up());
    agent.work(from_daemon, from_children, interrupted).await
}

/// Whether what happened may be on the disk in words beside the log.
fn text_of(desired: &Desired) -> Text {
    if desired.logs_kek.is_some() { Text::Withheld } else { Text::Plain }
}

/// The bound of the spool of logs.
fn log_spool_bytes() -> Result<u64, RunError> {
    match std::env::var(LOG_SPOOL_VARIABLE) {
        Err(_) => Ok(logs::spool::SPOOL_BYTES_DEFAULT),
        Ok(text) => text.parse().map_err(|_| {
            RunError::Usage(format!(
                "{LOG_SPOOL_VARIABLE} is a number of bytes, such as 67108864; not '{text}'"
            ))
        }),
    }
}

fn terms(home: &Home, identity: &Identity, limits: Timetable, program: PathBuf) -> Terms {
    Terms {
        home: home.clone(),
        allow: identity.allow_list(),
        data_addresses: identity.data_addresses.clone(),
        data_ports: identity.data_ports,
        daemon: (identity.daemon.clone(), identity.pin.clone()),
        limits,
        zone: TimeZone::system(),
        tracker_port: None,
        program,
    }
}

impl Agent<'_> {
    /// Goes on with the document that is kept, daemon or not.
    fn take_up(&mut self) -> Result<(), RunError> {
        let kept = document::load(&self.home);
        let barred = self.home.read(BARRED).map_err(|error| self.home.unusable(&error))?;
        match kept {
            Ok(Some(desired)) => {
                self.stand(&desired);
                match barred {
                    None => self.runs.desire(desired, Instant::now()),
                    Some(_) => {
                        self.warn(
                            "The daemon has barred this agent: nothing is run until it says more.".into(),
                        );
                    }
                }
            }
            Ok(None) => {}
            Err(error) => {
                let message =
                    format!("the document that was kept cannot be used, a new one is waited for: {error}");
                self.warn(message.clone());
                self.keep_event(host_event(Severity::Error, &message));
            }
        }
        self.keep_event(host_event(Severity::Info, "the agent was started"));
        self.keep_events();
        Ok(())
    }

    async fn work(
        mut self,
        mut from_daemon: mpsc::Receiver<FromDaemon>,
        mut from_children: mpsc::Receiver<child::News>,
        mut interrupted: Pinned<&mut impl Future<Output = ()>>,
    ) -> Result<Finish, RunError> {
        let ended = loop {
            let due = self.next_due();
            let idle = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = interrupted.as_mut() => break Ok(Finish::Complete),
                Some(news) = from_daemon.recv() => {
                    if let Err(error) = self.hear(news) {
                        break Err(error);
                    }
                }
                Some(news) = from_children.recv() => self.runs.hear(news, Instant::now()),
                () = idle => self.runs.reconcile(Instant::now()),
            }
            self.keep_events();
            self.speak(Instant::now());
        };
        drop(from_daemon);
        self.wind_up(from_children).await;
        ended
    }

    /// Ends the children, in order if they do.
    async fn wind_up(&mut self, mut from_children: mpsc::Receiver<child::News>) {
        let all = async {
            let mut ticks = tokio::time::interval(REPORT_INTERVAL);
            while self.runs.has_children() {
                self.runs.wind_up(Instant::now());
                tokio::select! {
                    Some(news) = from_children.recv() => self.runs.hear(news, Instant::now()),
                    _ = ticks.tick() => {}
                }
            }
        };
        let _ = tokio::time::timeout(ENDING_MAX, all).await;
        self.keep_events();
        self.log(logs::Severity::Info, "agent", "the agent ends");
        let _ = tokio::time::timeout(ENDING_MAX, self.logs.close()).await;
    }

    fn hear(&mut self, news: FromDaemon) -> Result<(), RunError> {
        match news {
            FromDaemon::Up(link, document) => {
                self.link = Some(link);
                self.reported = None;
                self.sent = self.spool.kept();
                self.runs.touch_all();
                self.note("Connected with the control daemon.".into());
                self.take(document, Place::First);
            }
            FromDaemon::Document(document) => self.take(document, Place::Later),
            FromDaemon::EventsKept(number) => {
                if let Err(error) = self.spool.keep(number) {
                    self.warn(format!("the spool of events cannot be written: {error}"));
                }
            }
            FromDaemon::Barred(reason, text) => {
                self.link = None;
                self.runs.cut(Instant::now());
                let why = format!("the daemon has barred this agent ({}): {text}", reason.as_str_name());
                self.log(logs::Severity::Security, "security", why);
                // Were this not kept, a restart would begin everything again until the daemon is asked.
                if let Err(error) = self.home.write(BARRED, reason.as_str_name().as_bytes()) {
                    self.warn(format!("it cannot be kept that this agent is barred: {error}"));
                }
                if reason == Reason::Revoked {
                    let why = if text.is_empty() { String::new() } else { format!(": {text}") };
                    return Err(RunError::Barred(format!(
                        "the control daemon has revoked this agent{why}. All its runs were ended"
                    )));
                }
            }
            FromDaemon::Down(why, delay) => {
                (self.link, self.ack) = (None, None);
                let seconds = delay.as_secs().max(1);
                self.warn(format!("Not connected: {why}\nTried again in {seconds} s; runs go on."));
            }
            FromDaemon::Renewed(text) => {
                self.log(logs::Severity::Info, "security", text.as_str());
                self.reporter.tell(&Told::Note { message: text });
            }
            FromDaemon::Alarm(text) => self.log(logs::Severity::Security, "security", text),
            FromDaemon::Warning(text) => {
                self.warn(text.clone());
                self.keep_event(host_event(Severity::Warning, &text));
            }
        }
        Ok(())
    }

    /// Takes a document: judged, on the disk, acknowledged, applied.
    fn take(&mut self, document: sealift_api::agent::Document, place: Place) {
        let received = match document::receive(document) {
            Ok(received) => received,
            Err(error) => return self.refuse(&error.to_string()),
        };
        let (number, last) = (received.desired.number, self.standing.borrow().document);
        if number < last {
            if place == Place::Later {
                return self.refuse(&format!("document {number} came after document {last}"));
            }
            let text = format!(
                "the daemon's document {number} is older than {last}, which this agent has: was the daemon restored \
                from a backup?"
            );
            self.warn(text.clone());
            self.keep_event(host_event(Severity::Warning, &text));
        }
        if let Err(error) = document::keep(&self.home, &received).and_then(|()| self.home.remove(BARRED)) {
            // Not acknowledged, so that the daemon knows; not applied, so that a restart changes nothing.
            return self.refuse(&format!("document {number} cannot be kept: {error}"));
        }
        self.stand(&received.desired);
        self.ack = Some(Ack { document: number, incarnation: received.desired.incarnation.clone() });
        self.runs.desire(received.desired, Instant::now());
    }

    fn refuse(&mut self, why: &str) {
        self.warn(why.to_owned());
        self.keep_event(host_event(Severity::Error, why));
    }

    fn stand(&mut self, desired: &Desired) {
        let (document, incarnation) = (desired.number, desired.incarnation.clone());
        self.logs_port.send_replace(desired.logs_port);
        self.logs.seal_to(desired.logs_kek.clone());
        self.runs.set_text(text_of(desired));
        if let Err(error) = self.spool.set_text(text_of(desired)) {
            self.warn(format!("the spool of events cannot be written anew without what it says: {error}"));
        }
        self.standing.send_replace(Standing { document, incarnation });
    }

    fn keep_events(&mut self) {
        for event in self.runs.take_events() {
            self.keep_event(event);
        }
    }

    fn keep_event(&mut self, event: sealift_api::agent::Event) {
        let serious = matches!(event.severity(), Severity::Error | Severity::Security | Severity::Warning);
        if serious && !event.job_id.is_empty() {
            // The log has it already.
            self.reporter.tell(&Told::Warning { message: event.message.clone() });
        }
        if let Err(error) = self.spool.push(event) {
            self.warn(format!("an event cannot be kept on the disk: {error}"));
        }
    }

    /// Says what is due to be said.
    fn speak(&mut self, now: Instant) {
        let Some(link) = &self.link else { return };
        if let Some(ack) = self.ack.take() {
            let message = AgentMessage { body: Some(agent_message::Body::Ack(ack.clone())) };
            if link.try_send(message).is_err() {
                self.ack = Some(ack);
                self.reported = Some(now);
                return;
            }
        }
        if self.reported.is_some_and(|last| now < last + REPORT_INTERVAL) || !self.has_to_say() {
            return;
        }
        let (keys, jobs): (Vec<_>, Vec<_>) = self.runs.changed(STATUSES_PER_REPORT).into_iter().unzip();
        let events: Vec<_> = match self.may_send_events() {
            true => self.spool.after(self.sent).take(EVENTS_PER_REPORT).cloned().collect(),
            false => Vec::new(),
        };
        let last = events.last().map_or(self.sent, |event| event.number);
        self.reported = Some(now);
        let message = AgentMessage { body: Some(agent_message::Body::Report(Report { jobs, events })) };
        // Full: later, with what is newer by then.
        if link.try_send(message).is_ok() {
            self.sent = last;
            self.runs.told_of(keys.into_iter());
        }
    }

    fn may_send_events(&self) -> bool {
        self.sent.saturating_sub(self.spool.kept()) < EVENTS_AHEAD_MAX
    }

    fn has_to_say(&self) -> bool {
        self.runs.has_changed() || (self.may_send_events() && self.spool.after(self.sent).next().is_some())
    }

    /// When something is due without anything happening.
    fn next_due(&self) -> Option<Instant> {
        let pending = self.link.is_some() && (self.ack.is_some() || self.has_to_say());
        let report = pending.then(|| self.reported.map_or_else(Instant::now, |last| last + REPORT_INTERVAL));
        [self.runs.next_due(), report].into_iter().flatten().min()
    }

    fn log(&self, severity: logs::Severity, target: &str, message: impl Into<String>) {
        self.logs.put(entry(severity, target, message));
    }

    fn note(&self, message: String) {
        self.log(logs::Severity::Info, "agent", message.as_str());
        self.reporter.tell(&Told::Note { message });
    }

    fn warn(&self, message: String) {
        self.log(logs::Severity::Warning, "agent", message.as_str());
        self.reporter.tell(&Told::Warning { message });
    }
}
