//! What operators do from the command line: `sealift login`, and the commands that ask the control daemon's API.
//!
//! ```text
//! words (cli::operator) ──▶ commands (agents, tokens, jobs, runs, …) ──▶ Api ──▶ http ──▶ tls ──▶ the daemon's port 8443
//!                             table, json ◀── answers
//! ```
//!
//! The daemon is believed by its own authority alone, which was pinned at the login. What it answers is bounded, and
//! escaped before people see it. With `--json` its own objects are passed on, one a line; what goes wrong is told on
//! standard error, and by the exit code.

pub(crate) mod agents;
mod api;
mod http;
pub(crate) mod jobs;
pub(crate) mod keks;
pub(crate) mod login;
mod login_file;
pub(crate) mod output;
mod password;
pub(crate) mod records;
mod refusal;
pub(crate) mod runs;
pub(crate) mod sealed_logs;
mod sse;
mod tls;
pub(crate) mod tokens;
pub(crate) mod users;
mod watch;

pub(crate) use api::Api;
pub(crate) use output::{Form, Listing};
pub(crate) use password::PasswordFrom;
pub(crate) use tls::Trust;

/// The port of the API.
pub const API_PORT: u16 = 8443;
