//! Server-sent events: a stream that says when there is something new.

use crate::error::RunError;
use crate::operator::http::{Asked, Http};
use crate::operator::refusal::refused;
use http_body_util::{BodyExt as _, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use std::time::Duration;
use zeroize::Zeroizing;

/// For how long nothing may come: daemons say that they live more often than that.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Bytes of one event.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// Bytes of a refusal.
const REFUSAL_BYTES_MAX: usize = 256 << 10;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// Of what kind; empty if that was not said.
    pub(super) kind: String,
    /// What it says.
    pub(super) data: String,
}

/// A stream that is open.
pub(super) struct Subscription {
    body: Incoming,
    reading: Reading,
}

impl Subscription {
    pub(super) async fn open(http: &mut Http, mut asked: Asked) -> Result<Option<Self>, RunError> {
        asked.headers.push((ACCEPT, HeaderValue::from_static("text/event-stream")));
        let response = http.open(&asked).await?;
        let (head, body) = response.into_parts();
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if head.status.is_success() && kind.starts_with("text/event-stream") {
            return Ok(Some(Self { body, reading: Reading::default() }));
        }
        // An older daemon has none.
        if head.status.is_success() || head.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
        let answer =
            super::http::Answer { status: head.status, headers: head.headers, body: Zeroizing::new(body) };
        Err(refused(http.dialler().address(), &answer))
    }

    /// The next event; `None` when the stream has ended, or nothing has come for too long.
    pub(super) async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.reading.next() {
                return Some(event);
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await.ok()??.ok()?;
            if let Ok(data) = frame.into_data()
                && !self.reading.feed(&data)
            {
                return None;
            }
        }
    }
}

/// Lines into events, by the rules of the HTML standard.
#[derive(Default)]
struct Reading {
    bytes: Vec<u8>,
    /// Up to where there are no ends of lines that were not seen.
    seen: usize,
    event: SseEvent,
    has_data: bool,
}

impl Reading {
    /// Whether it was not too much.
    fn feed(&mut self, data: &[u8]) -> bool {
        self.bytes.extend_from_slice(data);
        self.bytes.len() + self.event.data.len() <= EVENT_BYTES_MAX
    }

    fn next(&mut self) -> Option<SseEvent> {
        let mut begin = 0;
        let mut complete = None;
        while let Some(length) = self.bytes[self.seen.max(begin)..].iter().position(|byte| *byte == b'\n') {
            let end = self.seen.max(begin) + length;
            let line = self.bytes[begin..end].strip_suffix(b"\r").unwrap_or(&self.bytes[begin..end]);
            let line = String::from_utf8_lossy(line).into_owned();
            begin = end + 1;
            self.seen = begin;
            if let Some(event) = self.line(&line) {
                complete = Some(event);
                break;
            }
        }
        self.bytes.drain(..begin);
        self.seen = if complete.is_some() { 0 } else { self.bytes.len() };
        complete
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.kind = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, an id, which the data has as well, or something newer.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = b": alive\r\n\r\nevent: run\r\nid: 7\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:x\n\ndata\n\nevent: none\n\ndata: y";
        for size in 1..text.len() {
            let mut reading = Reading::default();
            let mut events = Vec::new();
            for piece in text.chunks(size) {
                assert!(reading.feed(piece));
                while let Some(event) = reading.next() {
                    events.push((event.kind, event.data));
                }
            }
            let expected = [("run", "{\"a\":\n1}"), ("", "x"), ("", "")].map(|(a, b)| (a.into(), b.into()));
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut reading = Reading::default();
        assert!(!reading.feed(&vec![b'x'; EVENT_BYTES_MAX + 1]));
    }
}
