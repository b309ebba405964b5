//! Requests, counted by route, status and how long they took.

use super::head;
use crate::rest::{Api, RULES};
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper ends of what is told apart, in seconds.
const SECONDS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0];

#[derive(Default)]
pub(in crate::rest) struct Metrics {
    /// By route (its place in the table; after the last all that is none) and status.
    requests: Mutex<BTreeMap<(usize, u16), u64>>,
    latencies: Mutex<BTreeMap<usize, Latency>>,
    logins_refused: AtomicU64,
}

#[derive(Clone, Default)]
struct Latency {
    counts: [u64; SECONDS.len()],
    count: u64,
    seconds: f64,
}

/// Counts each request. How long an answer took is up to its head: streams go on.
pub(in crate::rest) async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let method = if *request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = RULES.iter().position(|(of, at, _)| *of == method.as_str() && Some(*at) == path.as_deref());
    let begun = Instant::now();
    let response = next.run(request).await;
    api.metrics.count(route.unwrap_or(RULES.len()), response.status().as_u16(), begun.elapsed());
    response
}

impl Metrics {
    pub(in crate::rest) fn login_refused(&self) {
        self.logins_refused.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, route: usize, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
        drop(requests);
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = latencies.entry(route).or_default();
        let seconds = took.as_secs_f64();
        if let Some(at) = SECONDS.iter().position(|end| seconds <= *end) {
            latency.counts[at] += 1;
        }
        latency.count += 1;
        latency.seconds += seconds;
    }

    pub(super) fn put(&self, out: &mut String) {
        // Writing to memory does not fail.
        let _ = self.try_put(out);
    }

    fn try_put(&self, out: &mut String) -> std::fmt::Result {
        head(out, "sealift_logins_refused_total", "counter", "Logins that were refused.")?;
        writeln!(out, "sealift_logins_refused_total {}", self.logins_refused.load(Ordering::Relaxed))?;
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(out, "sealift_http_requests_total", "counter", "Requests, by route and status.")?;
        for ((route, status), count) in requests {
            writeln!(out, "sealift_http_requests_total{{{},status=\"{status}\"}} {count}", label(route))?;
        }
        let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = "sealift_http_request_seconds";
        head(out, name, "histogram", "How long requests took, by route.")?;
        for (route, latency) in latencies {
            let label = label(route);
            let mut up_to = 0;
            for (end, count) in SECONDS.iter().zip(latency.counts) {
                up_to += count;
                writeln!(out, "{name}_bucket{{{label},le=\"{end}\"}} {up_to}")?;
            }
            writeln!(out, "{name}_bucket{{{label},le=\"+Inf\"}} {}", latency.count)?;
            writeln!(out, "{name}_sum{{{label}}} {}", latency.seconds)?;
            writeln!(out, "{name}_count{{{label}}} {}", latency.count)?;
        }
        Ok(())
    }
}

fn label(route: usize) -> String {
    let (method, path) = RULES.get(route).map_or(("", "other"), |(method, path, _)| (*method, *path));
    format!("method=\"{method}\",route=\"{path}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_adds_up() {
        let metrics = Metrics::default();
        for millis in [1, 4, 4, 60_000] {
            metrics.count(0, 200, Duration::from_millis(millis));
        }
        metrics.count(RULES.len(), 404, Duration::ZERO);
        metrics.login_refused();
        let mut out = String::new();
        metrics.put(&mut out);
        let of = |line: &str| assert!(out.lines().any(|other| other == line), "{line} is not in {out}");
        let route = "method=\"GET\",route=\"/api/v1/health\"";
        of(&format!("sealift_http_requests_total{{{route},status=\"200\"}} 4"));
        of("sealift_http_requests_total{method=\"\",route=\"other\",status=\"404\"} 1");
        of(&format!("sealift_http_request_seconds_bucket{{{route},le=\"0.001\"}} 1"));
        of(&format!("sealift_http_request_seconds_bucket{{{route},le=\"20\"}} 3"));
        of(&format!("sealift_http_request_seconds_bucket{{{route},le=\"+Inf\"}} 4"));
        of("sealift_logins_refused_total 1");
    }
}
