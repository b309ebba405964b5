//! What Prometheus asks for: how much there is of everything, in its text format.
//!
//! Labels have values from tables of this program alone (routes, states, status codes), so that there are only so many
//! series. Counters begin anew with each start of the daemon.

mod count;

pub(super) use count::{Metrics, observe};

use super::Api;
use super::problem::{Failure, Problems};
use crate::db::tally::{self, Tally};
use axum::extract::State;
use axum::http::{HeaderName, header};
use std::fmt::Write as _;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics of the daemon, in the text format of Prometheus.
#[utoipa::path(get, path = "/api/v1/metrics",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"), Problems))]
pub(super) async fn get(
    State(api): State<Api>,
) -> Result<([(HeaderName, &'static str); 1], String), Failure> {
    let tally = api.blocking(|db| db.read(tally::tally)).await?;
    let mut out = String::with_capacity(16 << 10);
    // Writing to memory does not fail.
    let _ = put(&mut out, &api, &tally);
    api.metrics.put(&mut out);
    Ok(([(header::CONTENT_TYPE, TEXT)], out))
}

fn put(out: &mut String, api: &Api, tally: &Tally) -> std::fmt::Result {
    head(out, "sealift_build_info", "gauge", "The version of the daemon.")?;
    writeln!(out, "sealift_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
    head(out, "sealift_agents", "gauge", "Agents, by how they stand.")?;
    for (state, count) in &tally.agents {
        writeln!(out, "sealift_agents{{state=\"{state}\"}} {count}")?;
    }
    one(out, "sealift_agents_connected", "Agents whose channel is open.", api.hub.connected())?;
    head(out, "sealift_runs", "gauge", "Runs that are kept, by how they stand.")?;
    for (state, count) in &tally.runs {
        writeln!(out, "sealift_runs{{state=\"{state}\"}} {count}")?;
    }
    head(out, "sealift_active_runs_bytes", "gauge", "Bytes at the destinations of runs that go on.")?;
    for (what, bytes) in &tally.bytes {
        writeln!(out, "sealift_active_runs_bytes{{what=\"{what}\"}} {bytes}")?;
    }
    one(out, "sealift_jobs", "Jobs.", tally.jobs)?;
    one(out, "sealift_audit_records", "Records in the audit log.", tally.audit)?;
    one(out, "sealift_events_newest", "The number of the newest event.", tally.newest_event)?;
    one(
        out,
        "sealift_database_bytes",
        "The size of the database, without what is not yet moved into it.",
        tally.bytes_of_file,
    )?;
    one(out, "sealift_streams", "Streams that are open.", api.streams.count())
}

fn one(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) -> std::fmt::Result {
    head(out, name, "gauge", help)?;
    writeln!(out, "{name} {value}")
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}
