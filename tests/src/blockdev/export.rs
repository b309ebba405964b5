//! `qemu-storage-daemon` as the other side of a block device.

use super::mount::{Caching, LoopDevice};
use super::tool::Unavailable;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A block device that a graph of QEMU's block drivers answers. The process ends when this is dropped.
#[derive(Debug)]
pub struct Export {
    device: Option<LoopDevice>,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    file: PathBuf,
}

impl Export {
    /// Starts it with these nodes, in this order (`--blockdev`); the one named `top` is the device. `file` must be free:
    /// that is where the daemon shows it.
    ///
    /// # Errors
    /// If the daemon is missing, or cannot do one of these things.
    ///
    /// # Panics
    /// If a file cannot be made.
    pub fn start(nodes: &[Value], file: &Path) -> Result<Self, Unavailable> {
        File::create(file).expect("a file can be made");
        let mut daemon = Command::new("qemu-storage-daemon");
        for node in nodes {
            daemon.arg("--blockdev").arg(node.to_string());
        }
        let export = json!({ "type": "fuse", "id": "export", "node-name": "top", "mountpoint": file, "writable": true });
        daemon.arg("--export").arg(export.to_string());
        // Commands and answers; the greeting comes when all of the above stands.
        daemon.args(["--chardev", "stdio,id=stdio", "--monitor", "chardev=stdio"]);
        daemon.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            daemon.spawn().map_err(|error| Unavailable(format!("qemu-storage-daemon: {error}")))?;
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut export = Self { device: None, child, commands, answers, file: file.to_owned() };
        if export.answer()["QMP"].is_null() {
            let mut said = String::new();
            let _ = export.child.stderr.take().expect("piped").read_to_string(&mut said);
            return Err(Unavailable(format!("qemu-storage-daemon: {}", said.trim())));
        }
        export.command(&json!({ "execute": "qmp_capabilities" }))?;
        no_reading_ahead(file)?;
        export.attach_again()?;
        Ok(export)
    }

    /// Detaches the device, which must not be mounted, and attaches it again. Nothing of it is in memory then.
    ///
    /// # Errors
    /// If that fails.
    pub fn attach_again(&mut self) -> Result<(), Unavailable> {
        self.device = None;
        // Not direct: see what was found to work.
        self.device = Some(LoopDevice::attach(&self.file, Caching::Cached)?);
        Ok(())
    }

    /// The block device.
    ///
    /// # Panics
    /// Never: it has one from the start.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.device.as_ref().expect("it was attached at the start").path()
    }

    /// Tells the daemon to do something, in the words of QMP.
    ///
    /// # Errors
    /// If it refuses.
    pub fn command(&mut self, command: &Value) -> Result<(), Unavailable> {
        writeln!(self.commands, "{command}").map_err(|error| Unavailable(format!("{command}: {error}")))?;
        loop {
            let answer = self.answer();
            if !answer["return"].is_null() {
                return Ok(());
            }
            if answer["event"].is_null() {
                return Err(Unavailable(format!("{command}: {answer}")));
            }
        }
    }

    /// The next thing it says; null once it has ended.
    fn answer(&mut self) -> Value {
        let mut line = String::new();
        let _ = self.answers.read_line(&mut line);
        serde_json::from_str(&line).unwrap_or_default()
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        // While its device is in use it would not end.
        self.device = None;
        if self.command(&json!({ "execute": "quit" })).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Turns off reading ahead from what the daemon shows.
fn no_reading_ahead(file: &Path) -> Result<(), Unavailable> {
    let device =
        fs::metadata(file).map_err(|error| Unavailable(format!("{}: {error}", file.display())))?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    fs::write(&setting, "0").map_err(|error| Unavailable(format!("{setting}: {error}")))
}
