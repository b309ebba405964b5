//! A configuration as a file that would say the same.

use super::{Config, LogFormat};
use std::fmt;
use std::path::Path;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.0.iter().map(|name| quoted(name)).collect();
        writeln!(f, "data_dir = {}", path(&self.data_dir))?;
        writeln!(f, "names = [{}]", names.join(", "))?;
        writeln!(f, "\n[listen]")?;
        writeln!(f, "web = \"{}\"", self.listen.web)?;
        writeln!(f, "agents = \"{}\"", self.listen.agents)?;
        writeln!(f, "logs = \"{}\"", self.listen.logs)?;
        writeln!(f, "tracker = \"{}\"", self.listen.tracker)?;
        writeln!(f, "\n[log]")?;
        writeln!(f, "level = {}", quoted(&self.log.level))?;
        let format = match self.log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        writeln!(f, "format = \"{format}\"")?;
        writeln!(f, "\n[master_key]")?;
        if let Some(name) = &self.master_key.credential {
            writeln!(f, "credential = {}", quoted(name))?;
        }
        if let Some(file) = &self.master_key.passphrase_file {
            writeln!(f, "passphrase_file = {}", path(file))?;
        }
        writeln!(f, "\n[audit]")?;
        if let Some(file) = &self.audit.checkpoint_file {
            writeln!(f, "checkpoint_file = {}", path(file))?;
        }
        writeln!(f, "checkpoint_log = {}", self.audit.checkpoint_log)?;
        writeln!(f, "checkpoint_every_seconds = {}", self.audit.checkpoint_every_seconds)
    }
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
