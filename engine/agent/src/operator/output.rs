//! What commands show: tables for people, the API's own objects for programs.
//!
//! Everything that is shown comes from outside: it is escaped here, and only here.

use crate::error::{Finish, RunError};
use crate::operator::Api;
use sealift_proto::path::escape;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;

/// For whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tables, and lines.
    People,
    /// The API's objects, one a line.
    Json,
}

/// How a list is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing {
    /// For whom.
    pub(crate) form: Form,
    /// How many items at most.
    pub(crate) limit: Option<usize>,
}

/// Text with columns.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|word| (*word).to_owned()).collect()] }
    }

    /// Adds a row, of untrusted cells.
    pub(super) fn row<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(|cell| cell_of(cell.as_ref())).collect());
    }

    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What is not there is seen to be not there, so that columns can be counted.
fn cell_of(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { escape(text.as_bytes()) }
}

/// A thing with several properties, a line each.
pub(super) fn properties<C: AsRef<str>>(lines: impl IntoIterator<Item = (&'static str, C)>) -> String {
    let mut table = Table { rows: Vec::new() };
    for (name, value) in lines {
        table.rows.push(vec![format!("{name}:"), cell_of(value.as_ref())]);
    }
    table.text()
}

/// Says something on standard output.
pub(super) fn say(text: &str) -> Result<(), RunError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has had enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(RunError::Interrupted),
        Err(error) => Err(RunError::Failed(format!("cannot write to standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Says something to people beside the output.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An object of the API, as a line for programs.
pub(super) fn say_json(item: &Value) -> Result<(), RunError> {
    say(&(json_line(item) + "\n"))
}

/// JSON that is safe on a terminal too: what could drive one is escaped, as JSON allows it.
fn json_line(item: &Value) -> String {
    let plain = item.to_string();
    let mut text = String::with_capacity(plain.len());
    let mut bytes = [0; 4];
    for c in plain.chars() {
        let is_plain = (' '..='~').contains(&c) || {
            let raw: &str = c.encode_utf8(&mut bytes);
            escape(raw.as_bytes()) == raw
        };
        match is_plain {
            true => text.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(text, "\\u{unit:04x}");
            }),
        }
    }
    text
}

/// Shows a list: a row for each item, or a line.
pub(super) async fn show_list<T: DeserializeOwned>(
    api: &mut Api,
    path: &str,
    query: &[(&str, String)],
    listing: Listing,
    head: &[&str],
    mut row: impl FnMut(&T) -> Vec<String>,
) -> Result<Finish, RunError> {
    let mut items = Vec::new();
    let more = api
        .list(path, query, listing.limit, |item| {
            match listing.form {
                Form::Json => return say_json(&item),
                Form::People => items.push(item),
            }
            Ok(())
        })
        .await?;
    if listing.form == Form::People {
        let mut table = Table::new(head);
        for item in &items {
            table.row(row(&api.typed(item)?));
        }
        say(&table.text())?;
        if more {
            note("There are more: see --limit.");
        }
    }
    Ok(Finish::Complete)
}

/// Shows one object: as people read it, or as a line.
pub(super) fn show_one<T: DeserializeOwned>(
    api: &Api,
    item: &Value,
    form: Form,
    people: impl FnOnce(&T) -> String,
) -> Result<Finish, RunError> {
    match form {
        Form::Json => say_json(item)?,
        Form::People => say(&people(&api.typed(item)?))?,
    }
    Ok(Finish::Complete)
}

/// A time as people read it: UTC, to the second.
pub(super) fn time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(_) if ms == 0 => String::new(),
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => format!("{ms} ms after 1970"),
    }
}

/// The same of a time that may not have come.
pub(super) fn time_if(ms: Option<i64>) -> String {
    ms.map(time).unwrap_or_default()
}

pub(super) fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

pub(super) fn yes(is_it: bool) -> String {
    if is_it { "yes" } else { "no" }.to_owned()
}

/// Names, with commas between.
pub(super) fn joined<N: ToString>(names: &[N]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a20_cells_cannot_drive_a_terminal() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["a\x1b[2J\u{202e}\nb", "ok"]);
        table.row(["", "x"]);
        let text = table.text();
        assert_eq!(
            text,
            "NAME                   STATE\na\\x1b[2J\\u{202e}\\x0ab  ok\n-                      x\n"
        );
        assert!(!properties([("a", "\x1b")]).contains('\x1b'));
    }

    #[test]
    fn a20_json_is_safe_on_a_terminal_and_says_the_same() {
        let item = json!({ "a": "\u{1b}[2J\u{7f}\u{9b}\u{202e}\\ \"ä\u{1f600}" });
        let line = json_line(&item);
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), item);
        assert!(line.contains('ä'));
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(1_795_344_023_999), "2026-11-22 10:40:23Z");
        assert_eq!(time(0), "");
        assert_eq!(time(i64::MAX), format!("{} ms after 1970", i64::MAX));
    }
}
