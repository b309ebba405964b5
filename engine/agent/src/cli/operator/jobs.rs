//! `sealift job`.

use super::schedule::{When, when};
use super::{FormArgs, ListArgs};
use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::jobs;
use crate::operator::runs::{self, Then};
use clap::{Args, Subcommand};
use sealift_api::rest::limits::{CONNECTIONS_MAX, NAME_CHARS_MAX};
use sealift_api::rest::{
    Cipher, Day, Endpoint, Hash, JobKind, JobSpec, Name, NewJob, RateEntry, RateSchedule, Schedule, Transport,
};
use sealift_proto::rate::{BothWays, Entry, Rate, Timetable, TimetableError, Weekday};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum JobCommand {
    /// Defines a job.
    ///
    /// A distribution goes from one agent to many; a consolidation from many to one, each into a directory of its own
    /// that is named by it. Each agent's own lists must permit the paths.
    #[command(
        after_help = "Examples:\n  sealift job create --kind distribution --from web-1:/data/models --to group:dc2:/data/models\n  \
        sealift job create --name logs --kind consolidation --from group:web:/var/log --to store:/logs \\\n    \
        --schedule '30 2 * * *' --time-zone Europe/Berlin\n  \
        sealift job create --kind distribution --from web-1:/data/models --to web-2:/data/models --start --wait"
    )]
    Create(Create),
    /// Shows the jobs.
    List(List),
    /// Shows a job.
    Show(One),
    /// Changes a job: what is not named stays. A run that goes on is not changed by it.
    #[command(
        after_help = "Example:\n  sealift job update models --schedule 'every 1h' --to group:dc2:/data/models"
    )]
    Update(Update),
    /// Removes a job. What it has replicated stays where it is.
    Delete(Delete),
    /// Gives a job new keys, from its next run on.
    RotateKeys(One),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// By which people name it [default: after the directory of the first --from]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// distribution or consolidation
    #[arg(long, value_parser = kind)]
    kind: JobKind,
    /// A source: AGENT:/path, or group:NAME:/path; may be repeated
    #[arg(long, required = true, value_name = "AGENT:/PATH")]
    from: Vec<Endpoint>,
    /// A destination; may be repeated
    #[arg(long, required = true, value_name = "AGENT:/PATH")]
    to: Vec<Endpoint>,
    #[command(flatten)]
    how: How,
    /// Destinations delete what the source does not have
    #[arg(long)]
    delete: bool,
    /// Start a run of it, too
    #[arg(long)]
    start: bool,
    /// Wait for the end of that run, as `sealift run watch` does
    #[arg(long, requires = "start")]
    wait: bool,
    #[command(flatten)]
    form: FormArgs,
}

/// What a job has beside its ends.
#[derive(Debug, Args)]
struct How {
    /// Seal all content and names at the source, for whoever has the private half of this KEK: destinations keep ciphertext.
    /// May be repeated; none: not sealed
    #[arg(long, value_name = "KEK|none")]
    seal_to: Vec<Name>,
    /// The hash by which everything is verified: sha256 or blake3
    #[arg(long, value_parser = hash)]
    hash: Option<Hash>,
    /// The cipher of the sessions: aes-256-gcm or aes-128-gcm
    #[arg(long, value_parser = cipher)]
    cipher: Option<Cipher>,
    /// What the sessions go over: tcp, quic, or auto for whichever works and serves better
    #[arg(long, value_name = "tcp|quic|auto", value_parser = transport)]
    transport: Option<Transport>,
    /// Connections of each session; 0: as the agents choose
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(CONNECTIONS_MAX)))]
    connections: Option<u32>,
    /// How fast blocks go at each of its agents: bytes a second, with K, M, G or T for powers of 1024; by the time of day,
    /// like '08:00,512K 18:00,30M Sat-00:00,off'; or none. Holds at once, also for a run that goes on
    #[arg(long, value_name = "RATE|TIMETABLE|none", value_parser = limit)]
    bwlimit: Option<Limit>,
    /// When it runs by itself: five fields as of cron, `every 15m`, `at 2026-12-24T18:00:00Z`, or none
    #[arg(long, value_name = "WHEN", value_parser = when)]
    schedule: Option<When>,
    /// The time zone of a cron schedule, and of limits by the time of day, by its name in the IANA database [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// Its name or id
    job: String,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Delete {
    /// Its name or id
    job: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Update {
    /// Its name or id
    job: String,
    /// Another name
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// The sources, instead of those it has; may be repeated
    #[arg(long, value_name = "AGENT:/PATH")]
    from: Vec<Endpoint>,
    /// The destinations, instead of those it has; may be repeated
    #[arg(long, value_name = "AGENT:/PATH")]
    to: Vec<Endpoint>,
    #[command(flatten)]
    how: How,
    /// Destinations delete what the source does not have
    #[arg(long)]
    delete: bool,
    /// They do not
    #[arg(long, conflicts_with = "delete")]
    no_delete: bool,
    #[command(flatten)]
    form: FormArgs,
}

/// Runs a command.
pub(super) async fn run(command: JobCommand) -> Result<Finish, RunError> {
    match command {
        JobCommand::Create(args) => create(args).await,
        JobCommand::List(args) => jobs::list(&mut Api::logged_in()?, args.list.all()).await,
        JobCommand::Show(one) => jobs::show(&mut Api::logged_in()?, &one.job, one.form.into()).await,
        JobCommand::Update(args) => update(args).await,
        JobCommand::Delete(args) => jobs::delete(&mut Api::logged_in()?, &args.job).await,
        JobCommand::RotateKeys(one) => {
            jobs::rotate_keys(&mut Api::logged_in()?, &one.job, one.form.into()).await
        }
    }
}

async fn create(args: Create) -> Result<Finish, RunError> {
    let mut spec = JobSpec {
        kind: args.kind,
        from: args.from,
        to: args.to,
        seal_to: Vec::new(),
        hash: Hash::default(),
        cipher: Cipher::default(),
        delete: args.delete,
        connections: 0,
        transport: Transport::default(),
        bytes_per_second: None,
        rate_schedule: None,
        schedule: None,
    };
    args.how.check(None)?;
    args.how.apply(&mut spec);
    let name = match args.name {
        Some(name) => name,
        None => named_after(&spec.from)?,
    };
    let api = &mut Api::logged_in()?;
    let form = args.form.into();
    let job = jobs::create(api, &NewJob { name, spec }, form).await?;
    if !args.start {
        return Ok(Finish::Complete);
    }
    runs::start_of(api, &job, if args.wait { Then::Watch } else { Then::Return }, form).await
}

async fn update(args: Update) -> Result<Finish, RunError> {
    args.how.check(Some(()))?;
    let (from, to, how) = (args.from, args.to, args.how);
    let deletes = (args.delete || args.no_delete).then_some(args.delete);
    let change = move |spec: &mut JobSpec| {
        if !from.is_empty() {
            spec.from = from;
        }
        if !to.is_empty() {
            spec.to = to;
        }
        if let Some(deletes) = deletes {
            spec.delete = deletes;
        }
        how.apply(spec);
    };
    jobs::update(&mut Api::logged_in()?, &args.job, args.name, change, args.form.into()).await
}

impl How {
    /// A time zone is one of cron, or of limits by the time of day; that of a job may be changed alone.
    fn check(&self, existing: Option<()>) -> Result<(), RunError> {
        let is_cron =
            matches!(self.schedule, Some(When::Cron(_))) || matches!(self.bwlimit, Some(Limit::ByTime(_)));
        let may_be = existing.is_some() && self.schedule.is_none();
        match self.time_zone.is_some() && !is_cron && !may_be {
            true => Err(RunError::Usage("--time-zone is for a --schedule with the fields of cron, and for a --bwlimit by the time of day".into())),
            false => Ok(()),
        }
    }

    fn apply(self, spec: &mut JobSpec) {
        if self.seal_to.iter().any(|kek| kek.as_str() == "none") {
            spec.seal_to.clear();
        } else if !self.seal_to.is_empty() {
            spec.seal_to = self.seal_to;
        }
        spec.hash = self.hash.unwrap_or(spec.hash);
        spec.cipher = self.cipher.unwrap_or(spec.cipher);
        spec.transport = self.transport.unwrap_or(spec.transport);
        spec.connections = self.connections.unwrap_or(spec.connections);
        let zone_before = spec.rate_schedule.as_ref().map(|schedule| schedule.time_zone.clone());
        match self.bwlimit {
            None => {}
            Some(Limit::Always(limit)) => (spec.bytes_per_second, spec.rate_schedule) = (limit, None),
            Some(Limit::ByTime(entries)) => {
                let time_zone = zone_before.unwrap_or_else(|| "UTC".into());
                spec.bytes_per_second = None;
                spec.rate_schedule = Some(RateSchedule { time_zone, entries });
            }
        }
        if let (Some(schedule), Some(zone)) = (&mut spec.rate_schedule, &self.time_zone) {
            schedule.time_zone.clone_from(zone);
        }
        match (self.schedule, &mut spec.schedule) {
            (Some(when), schedule) => {
                // Another time of day is meant in the same zone, unless a zone is named.
                let before = match schedule {
                    Some(Schedule::Cron { time_zone, .. }) => Some(time_zone.clone()),
                    _ => None,
                };
                let zone = self.time_zone.or(before).unwrap_or_else(|| "UTC".into());
                *schedule = when.schedule(&zone);
            }
            (None, Some(Schedule::Cron { time_zone, .. })) => {
                if let Some(zone) = self.time_zone {
                    *time_zone = zone;
                }
            }
            (None, _) => {}
        }
    }
}

/// The last part of the first path, as far as it can be a name.
fn named_after(from: &[Endpoint]) -> Result<Name, RunError> {
    let path = from.first().map_or("", Endpoint::path);
    let last = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = last.chars().map(plain).take(NAME_CHARS_MAX).collect();
    name.trim_matches('-')
        .parse()
        .map_err(|_| RunError::Usage(format!("{path} gives the job no name: give it one with --name")))
}

fn kind(word: &str) -> Result<JobKind, String> {
    JobKind::from_word(word).ok_or_else(|| "distribution or consolidation".into())
}

fn hash(word: &str) -> Result<Hash, String> {
    Hash::from_word(word).ok_or_else(|| "sha256 or blake3".into())
}

/// A limit of rate, or that there is to be none.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Limit {
    Always(Option<u64>),
    ByTime(Vec<RateEntry>),
}

fn limit(word: &str) -> Result<Limit, String> {
    let each = |limits: BothWays| match limits.up == limits.down {
        true => Ok(limits.up.map(Rate::bytes_per_second)),
        false => Err("a job has one limit for both directions".to_owned()),
    };
    if word == "none" {
        return Ok(Limit::Always(None));
    }
    let table: Timetable = word.parse().map_err(|error: TimetableError| error.to_string())?;
    if table.entries().is_empty() {
        return each(table.highest()).map(Limit::Always);
    }
    let entry = |entry: &Entry| {
        let day = entry.day.map(|day| match day {
            Weekday::Monday => Day::Monday,
            Weekday::Tuesday => Day::Tuesday,
            Weekday::Wednesday => Day::Wednesday,
            Weekday::Thursday => Day::Thursday,
            Weekday::Friday => Day::Friday,
            Weekday::Saturday => Day::Saturday,
            Weekday::Sunday => Day::Sunday,
        });
        Ok(RateEntry { day, from: entry.from.to_string(), bytes_per_second: each(entry.limits)? })
    };
    table.entries().iter().map(entry).collect::<Result<_, String>>().map(Limit::ByTime)
}

fn transport(word: &str) -> Result<Transport, String> {
    Transport::from_word(word).ok_or_else(|| "tcp, quic or auto".into())
}

fn cipher(word: &str) -> Result<Cipher, String> {
    Cipher::from_word(word).ok_or_else(|| "aes-256-gcm or aes-128-gcm".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_understood() {
        assert_eq!(limit("none"), Ok(Limit::Always(None)));
        assert_eq!(limit("8K"), Ok(Limit::Always(Some(8192))));
        let of = |day, from: &str, bytes_per_second| RateEntry { day, from: from.into(), bytes_per_second };
        let entries = vec![of(None, "08:00", Some(1 << 20)), of(Some(Day::Sunday), "00:00", None)];
        assert_eq!(limit("8:00,1M Sun-00:00,off"), Ok(Limit::ByTime(entries)));
        for wrong in ["1M:2M", "08:00,1M:2M", "fast", "08:00", ""] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_job_is_named_after_its_directory() {
        for (from, name) in
            [("a:/data/models", "models"), ("a:/data/My Models_2", "my-models-2"), ("group:x:/x", "x")]
        {
            assert_eq!(named_after(&[from.parse().unwrap()]).unwrap().as_str(), name);
        }
        for from in ["a:/", "a:/\u{202e}"] {
            assert_eq!(named_after(&[from.parse().unwrap()]).unwrap_err().code(), 2);
        }
    }
}
