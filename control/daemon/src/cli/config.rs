//! What the configuration says, and what is wrong with it.

use super::place::Place;
use super::serve::Settings;
use super::{Done, WRONG, say};
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say all that is wrong with it, and what will hold. As the daemon's user, before it is started
    Check {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show what holds: the file, what the command line says instead, and what is so without either
    Show {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        settings: Settings,
    },
}

pub(super) fn config(command: ConfigCommand) -> Done {
    match command {
        ConfigCommand::Check { place, settings } => {
            let mut config = place.find()?.config;
            settings.apply(&mut config);
            let mut problems = config.problems();
            problems.extend(config.missing());
            for problem in &problems {
                eprintln!("sealift-control: {problem}");
            }
            say(config.to_string().trim_end())?;
            Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
        }
        ConfigCommand::Show { place, settings } => {
            let mut config = place.find()?.config;
            settings.apply(&mut config);
            say(config.to_string().trim_end())
        }
    }
}
