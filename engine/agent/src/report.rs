//! What a run tells: events, as lines for people or as one JSON object a line for programs.
//!
//! Names from outside are escaped before they come here or here; secrets come here only as the ticket itself.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sealift_proto::path::escape;
use serde::Serialize;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Lines on standard error, results on standard output, a progress bar if it is a terminal.
    People,
    /// One JSON object a line on standard output.
    Json,
}

/// Something worth telling.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The data set can be fetched with this ticket.
    Ticket {
        /// The ticket, unless it went to a file.
        #[serde(skip_serializing_if = "Option::is_none")]
        ticket: Option<&'a str>,
        /// The file it went to.
        #[serde(skip_serializing_if = "Option::is_none")]
        ticket_file: Option<String>,
        /// Where this side listens.
        addresses: Vec<String>,
    },
    /// Everything is hashed and signed.
    Scanned {
        /// Files, directories and links.
        entries: u64,
        /// Bytes of content.
        bytes: u64,
        /// What could not be offered.
        problems: u64,
        /// Bytes that were read and hashed.
        hashed_bytes: u64,
        /// Files that were not read, since they are as an earlier run hashed them.
        reused_files: u64,
    },
    /// A session has begun.
    Connected {
        /// Who.
        peer: String,
        /// What its control connection goes over: `tcp` or `quic`.
        transport: &'static str,
    },
    /// It is known, or known anew, what all content comes over from whoever gives the manifest.
    Content {
        /// `tcp` or `quic`.
        transport: &'static str,
    },
    /// A receiver has ended.
    Disconnected {
        /// Who.
        peer: String,
        /// How.
        reason: String,
    },
    /// Somebody was turned away.
    Refused {
        /// Who.
        peer: String,
        /// Why.
        reason: String,
    },
    /// How far it is; at most four a second.
    Progress {
        /// Files in place; of a sender, files offered.
        files: u64,
        /// Bytes of those and of blocks in place; of a sender, bytes sent.
        bytes: u64,
        /// Bytes known to be wanted so far.
        bytes_known: u64,
        /// Bytes of content that came over the wire.
        bytes_transferred: u64,
    },
    /// The disk is full: nothing more is fetched until there is room.
    Paused {
        /// What did not fit.
        reason: String,
    },
    /// There is room again.
    Resumed,
    /// One entry is missing or incomplete.
    Problem {
        /// Which, escaped.
        path: String,
        /// Why.
        reason: String,
    },
    /// An entry of a replica is not what was signed.
    Damaged {
        /// Which, escaped.
        path: String,
        /// In one word: `corrupt`, `edited`, `unreadable`, `missing`, `kind`, `target`, `names` or `hidden`.
        what: &'static str,
        /// Its wrong blocks, as far as they are known.
        blocks: &'a [u32],
        /// Those of them that cannot be read.
        #[serde(skip_serializing_if = "<[u32]>::is_empty")]
        unreadable: &'a [u32],
        /// Bytes of content to be put right.
        bytes: u64,
        /// The same for people.
        reason: String,
    },
    /// An entry of a replica that its manifest does not have.
    Extra {
        /// Which, escaped.
        path: String,
    },
    /// A replica was compared with its manifest.
    Verified {
        /// Files, further names among them.
        files: u64,
        /// Bytes that were hashed.
        bytes: u64,
        /// Entries that are wrong.
        damaged: u64,
        /// Blocks that are, as far as they are known.
        blocks_damaged: u64,
        /// Bytes of content to be put right.
        bytes_damaged: u64,
        /// How long it took.
        seconds: f64,
    },
    /// What was found wrong was put right, and checked again.
    Repaired {
        /// Entries that are right now.
        repaired: u64,
        /// Entries that still are not.
        left: u64,
        /// How long it took.
        seconds: f64,
    },
    /// The index of a replica was made anew.
    Rebuilt {
        /// Entries that are in it.
        entries: u64,
        /// Files that were looked at.
        files: u64,
        /// Bytes that were hashed.
        bytes: u64,
        /// Entries of the manifest that are not in it, since they are wrong.
        left_out: u64,
        /// How long it took.
        seconds: f64,
    },
    /// The tree of a sealed job was made anew.
    Restored {
        /// Files.
        files: u64,
        /// Directories.
        directories: u64,
        /// Symbolic links and further names.
        links: u64,
        /// Bytes of the files.
        bytes: u64,
        /// Entries that could not be restored.
        failed: u64,
        /// How long it took.
        seconds: f64,
    },
    /// Something was done otherwise than the manifest has it.
    Warning {
        /// What.
        message: String,
    },
    /// For the curious.
    Note {
        /// What.
        message: String,
    },
    /// The end.
    Done {
        /// Files in place.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Bytes of content that went over the wire.
        bytes_transferred: u64,
        /// How long it took.
        seconds: f64,
        /// Entries that are missing.
        failed: u64,
        /// Entries that were removed here, since the source has them no more.
        #[serde(skip_serializing_if = "is_zero")]
        deleted: u64,
    },
    /// The end, without success.
    Error {
        /// What happened, to what, and what to do.
        message: String,
        /// The exit code.
        code: u8,
    },
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Tells events.
pub struct Reporter {
    style: Style,
    bar: Option<ProgressBar>,
    last_progress: Mutex<Option<Instant>>,
}

const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

impl Reporter {
    /// A reporter; the progress bar shows only on a terminal.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { style, bar: None, last_progress: Mutex::new(None) }
    }

    /// Shows a progress bar on standard error, if that is a terminal and people read it.
    #[must_use]
    pub fn with_bar(mut self) -> Self {
        if self.style == Style::People && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            let style = ProgressStyle::with_template(
                "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg} eta {eta}",
            )
            .expect("the template is right");
            self.bar =
                Some(ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style));
        }
        self
    }

    /// Tells an event.
    pub fn tell(&self, event: &Event<'_>) {
        if let Event::Progress { .. } = event
            && !self.progress_is_due()
        {
            return;
        }
        match self.style {
            Style::Json => {
                let line = serde_json::to_string(event).expect("events are plain data");
                // A reader that went away must not stop the transfer.
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            }
            Style::People => self.tell_people(event),
        }
    }

    /// A problem with one entry, named by raw bytes.
    pub fn problem(&self, path: &[u8], reason: impl Into<String>) {
        self.tell(&Event::Problem { path: escape(path), reason: reason.into() });
    }

    fn progress_is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.last_progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = last.is_none_or(|last| now.duration_since(last) >= PROGRESS_INTERVAL);
        if due {
            *last = Some(now);
        }
        due
    }

    fn tell_people(&self, event: &Event<'_>) {
        let line = match event {
            Event::Ticket { ticket, ticket_file, addresses } => {
                let serving = format!("Serving on {}.", addresses.join(", "));
                match (ticket, ticket_file) {
                    (Some(ticket), _) => {
                        let _ = writeln!(std::io::stderr().lock(), "{serving}\nOn the other host, type:\n");
                        // The one line that a program may want.
                        let _ = writeln!(std::io::stdout().lock(), "sealift receive {ticket} DEST");
                        "\nThe ticket is a secret: who has it can read the data set.".to_owned()
                    }
                    (None, Some(file)) => format!("{serving}\nThe ticket, a secret, is in {file}."),
                    (None, None) => serving,
                }
            }
            Event::Scanned { entries, bytes, problems, hashed_bytes, reused_files } => {
                let mut text = format!("Hashed and signed {entries} entries, {}.", human_bytes(*bytes));
                if *reused_files > 0 {
                    text += &format!(
                        " {reused_files} files are unchanged; {} were read.",
                        human_bytes(*hashed_bytes)
                    );
                }
                if *problems > 0 {
                    text += &format!(" {problems} could not be offered.");
                }
                text
            }
            // Content may go over another transport than what was said first: that is told by itself.
            Event::Connected { peer, .. } => format!("Connected with {peer}."),
            Event::Content { transport } => format!("Content comes over {}.", transport.to_uppercase()),
            Event::Disconnected { peer, reason } => format!("{peer}: {reason}."),
            Event::Refused { peer, reason } => format!("{peer} was turned away: {reason}."),
            Event::Progress { files, bytes, bytes_known, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_length(*bytes_known);
                    bar.set_position(*bytes);
                    bar.set_message(format!("{files} files"));
                }
                return;
            }
            Event::Paused { reason } => format!("paused: {reason}; waiting for room"),
            Event::Resumed => "There is room again: going on.".to_owned(),
            Event::Problem { path, reason } => format!("problem: {path}: {reason}"),
            Event::Damaged { path, reason, .. } => format!("damaged: {path}: {reason}"),
            Event::Extra { path } => format!("extra: {path}"),
            Event::Verified { .. }
            | Event::Repaired { .. }
            | Event::Rebuilt { .. }
            | Event::Restored { .. } => self.checked_text(event),
            Event::Warning { message } => format!("warning: {message}"),
            Event::Note { message } => message.clone(),
            Event::Done { files, bytes, bytes_transferred, seconds, failed, deleted } => {
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
                let mut text = format!(
                    "{} {files} files, {}, {} of it over the wire, in {seconds:.2} s ({}/s).",
                    if *failed == 0 { "Done:" } else { "Partly done:" },
                    human_bytes(*bytes),
                    human_bytes(*bytes_transferred),
                    human_bytes(per_second(*bytes, *seconds)),
                );
                if *deleted > 0 {
                    text += &format!(" {deleted} entries were removed.");
                }
                if *failed > 0 {
                    text += &format!(" {failed} entries are missing.");
                }
                text
            }
            Event::Error { message, .. } => {
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
                format!("sealift: {message}")
            }
        };
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.suspend(|| tell_line(&line)),
            _ => tell_line(&line),
        }
    }
}

impl Reporter {
    /// What came of a check of a replica.
    fn checked_text(&self, event: &Event<'_>) -> String {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let speed = |bytes: u64, seconds: f64| {
            format!("in {seconds:.2} s ({}/s)", human_bytes(per_second(bytes, seconds)))
        };
        match event {
            Event::Verified { files, bytes, damaged: 0, seconds, .. } => {
                format!("All right: {files} files, {}, {}.", human_bytes(*bytes), speed(*bytes, *seconds))
            }
            Event::Verified { files, bytes, damaged, blocks_damaged, bytes_damaged, seconds } => format!(
                "Damaged: {damaged} entries, {blocks_damaged} blocks, {} of content; {files} files, {}, {}.",
                human_bytes(*bytes_damaged),
                human_bytes(*bytes),
                speed(*bytes, *seconds),
            ),
            Event::Repaired { repaired, left: 0, .. } => {
                format!("Repaired: {repaired} entries, all that were damaged.")
            }
            Event::Repaired { repaired, left, .. } => {
                format!("Repaired: {repaired} entries; {left} are still damaged.")
            }
            Event::Rebuilt { entries, bytes, left_out, seconds, .. } => format!(
                "The index has {entries} entries{}; {}, {}.",
                if *left_out > 0 { format!(", {left_out} are left out") } else { String::new() },
                human_bytes(*bytes),
                speed(*bytes, *seconds),
            ),
            Event::Restored { files, directories, links, bytes, failed, seconds } => format!(
                "Restored {files} files, {directories} directories and {links} links; {}, {}{}.",
                human_bytes(*bytes),
                speed(*bytes, *seconds),
                if *failed > 0 { format!("; {failed} entries could not be restored") } else { String::new() },
            ),
            _ => String::new(),
        }
    }
}

fn tell_line(line: &str) {
    // A reader that went away must not stop the transfer.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn per_second(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 / seconds.max(1e-3)) as u64
}

fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
