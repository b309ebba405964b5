//! `sealift run`.

use super::{FormArgs, ListArgs};
use crate::error::{Finish, RunError};
use crate::operator::Api;
use crate::operator::runs::{self, Action, Then};
use clap::{Args, Subcommand};

const ENDS: &str = "Exit codes: 0 done, 3 partly done (something is missing somewhere), 1 failed or stopped.\n\
    Ctrl-C ends the command, not the run. With --json, the run is shown again each time that something has changed.";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RunCommand {
    /// Starts a run of a job, and shows its id.
    #[command(after_help = "Example:\n  sealift run start models --wait")]
    Start(Start),
    /// Shows runs, the newest first.
    List(List),
    /// Shows a run, and how each agent stands in it.
    Show(One),
    /// Shows the progress of a run until it has ended; the command ends as the run does.
    #[command(after_help = ENDS)]
    Watch(One),
    /// Pauses a run: its agents keep what they have.
    Pause(One),
    /// Lets a paused run go on.
    Resume(One),
    /// Ends a run for good.
    Stop(One),
}

#[derive(Debug, Args)]
#[command(after_help = ENDS)]
pub(in crate::cli) struct Start {
    /// The job's name or id
    job: String,
    /// Wait for its end, as `sealift run watch` does
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    form: FormArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Those of this job, by name or id
    #[arg(long)]
    job: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// Its id; or the name or id of a job, whose newest run is meant
    run: String,
    #[command(flatten)]
    form: FormArgs,
}

/// Runs a command.
pub(super) async fn run(command: RunCommand) -> Result<Finish, RunError> {
    let api = &mut Api::logged_in()?;
    let (action, one) = match command {
        RunCommand::Start(args) => {
            let then = if args.wait { Then::Watch } else { Then::Return };
            return runs::start(api, &args.job, then, args.form.into()).await;
        }
        RunCommand::List(args) => return runs::list(api, args.job, args.list.newest()).await,
        RunCommand::Show(one) => return runs::show(api, &one.run, one.form.into()).await,
        RunCommand::Watch(one) => return runs::watch_one(api, &one.run, one.form.into()).await,
        RunCommand::Pause(one) => (Action::Pause, one),
        RunCommand::Resume(one) => (Action::Resume, one),
        RunCommand::Stop(one) => (Action::Stop, one),
    };
    runs::act(api, action, &one.run, one.form.into()).await
}
