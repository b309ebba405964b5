//! Secrets that people give: typed without being shown, in a file, or on standard input. Never as an argument, nor in the
//! environment, where others on this host could read them.

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

/// Of all that is taken here.
const SECRET_LEN_MAX: usize = 1024;

/// Where a secret is: `@FILE`, or `-` for the next line of standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretFrom {
    File(PathBuf),
    Stdin,
}

impl FromStr for SecretFrom {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('@') {
            Some(file) if !file.is_empty() => Ok(Self::File(file.into())),
            None if text == "-" => Ok(Self::Stdin),
            _ => Err(
                "a secret is not an argument, which others could read: give @FILE, or - for standard input",
            ),
        }
    }
}

impl SecretFrom {
    /// Reads it: one line.
    pub(super) fn read(&self) -> io::Result<Zeroizing<String>> {
        let secret = match self {
            Self::Stdin => line(&mut io::stdin().lock())?,
            Self::File(file) => of_file(file).map_err(|error| of(file, error))?,
        };
        if secret.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no secret was given"));
        }
        Ok(secret)
    }
}

fn of(file: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

fn of_file(file: &Path) -> io::Result<Zeroizing<String>> {
    let opened = File::open(file)?;
    let found = opened.metadata()?;
    // systemd keeps its credentials where the service alone can look, whatever their modes.
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let is_credential = credentials.is_some_and(|dir| file.starts_with(dir));
    if found.is_file() && found.mode() & 0o077 != 0 && !is_credential {
        return Err(io::Error::other("others can read it: make it 0600"));
    }
    line(&mut io::BufReader::new(opened))
}

fn line(from: &mut impl io::BufRead) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(SECRET_LEN_MAX + 3));
    from.take(SECRET_LEN_MAX as u64 + 3).read_line(&mut text)?;
    let secret = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if secret.len() > SECRET_LEN_MAX { Err(too_long()) } else { Ok(secret) }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is too long")
}

/// A secret that exists, from the terminal.
pub(super) fn asked(prompt: &str, instead: &str) -> io::Result<Zeroizing<String>> {
    let secret = typed(prompt, instead)?;
    if secret.is_empty() { Err(io::Error::other("nothing was typed")) } else { Ok(secret) }
}

/// A new secret from the terminal, typed twice, since nobody sees it.
pub(super) fn asked_new(prompt: &str, instead: &str) -> io::Result<Zeroizing<String>> {
    let secret = asked(prompt, instead)?;
    match *typed("The same again: ", instead)? == *secret {
        true => Ok(secret),
        false => Err(io::Error::other("the two are not the same")),
    }
}

/// A new password: from standard input if that is asked for, or is no terminal.
pub(super) fn new_password(from_stdin: bool, prompt: &str) -> io::Result<Zeroizing<String>> {
    if from_stdin || !io::stdin().is_terminal() {
        SecretFrom::Stdin.read()
    } else {
        asked_new(prompt, "--password-stdin")
    }
}

/// Has the terminal as it was again when dropped.
struct Quiet<'t> {
    terminal: &'t File,
    before: Termios,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

fn typed(prompt: &str, instead: &str) -> io::Result<Zeroizing<String>> {
    let no_terminal = |_| {
        let what = format!("there is no terminal to ask for it ({}): give {instead}", prompt.trim_end());
        io::Error::new(io::ErrorKind::NotFound, what)
    };
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let before = tcgetattr(&terminal).map_err(|error| no_terminal(error.into()))?;
    let typed = {
        let mut quiet = before.clone();
        // Byte by byte, and Ctrl-C is read like any other: whatever is typed, the terminal is put right at the end.
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        let _restored = Quiet { terminal: &terminal, before };
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        // Only now: what is typed before is shown, and thrown away.
        (&terminal).write_all(prompt.as_bytes())?;
        line_of(io::BufReader::new(&terminal))
    };
    let _ = writeln!(&terminal);
    typed
}

/// A line as a terminal in raw mode gives it, with the keys that people correct themselves by.
fn line_of(from: impl io::BufRead) -> io::Result<Zeroizing<String>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: u8 = 8;
    const KILL_LINE: u8 = 21;
    const DELETE: u8 = 127;
    let mut line = Zeroizing::new(Vec::with_capacity(SECRET_LEN_MAX + 1));
    for byte in from.bytes() {
        match byte? {
            b'\n' | b'\r' | END => break,
            INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            KILL_LINE => line.clear(),
            // A character, which may be several bytes.
            BACKSPACE | DELETE => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            byte if line.len() < SECRET_LEN_MAX => line.push(byte),
            _ => return Err(too_long()),
        }
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is not text (UTF-8)")),
    }
}

/// Keeps a secret in a new file that only its owner can read. Durable when this returns.
pub(super) fn keep(file: &Path, secret: &str) -> io::Result<()> {
    let write = || {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        opened.write_all(secret.as_bytes())?;
        opened.write_all(b"\n")?;
        opened.sync_all()
    };
    write().map_err(|error| of(file, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_no_argument() {
        assert_eq!("@/a b".parse(), Ok(SecretFrom::File("/a b".into())));
        assert_eq!("-".parse(), Ok(SecretFrom::Stdin));
        for text in ["hunter2", "@", "", "--"] {
            assert!(text.parse::<SecretFrom>().is_err(), "{text}");
        }
    }

    #[test]
    fn comes_from_a_file_that_others_cannot_read() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("secret");
        keep(&file, "a b").unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(keep(&file, "another").is_err(), "what is there stays");
        let from = SecretFrom::File(file.clone());
        assert_eq!(*from.read().unwrap(), "a b");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(from.read().unwrap_err().to_string().contains("0600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, "x".repeat(2000)).unwrap();
        assert!(from.read().is_err());
        std::fs::write(&file, "\n").unwrap();
        assert!(from.read().is_err());
    }

    #[test]
    fn a_typed_line_can_be_corrected_and_given_up() {
        for (keys, line) in [
            (&b"secret\nmore"[..], "secret"),
            (b"secrex\x7ft\r", "secret"),
            ("sä\x08ecret\n".as_bytes(), "secret"),
            (b"wrong\x15secret\x04", "secret"),
        ] {
            assert_eq!(*line_of(keys).unwrap(), line);
        }
        assert_eq!(line_of(&b"sec\x03"[..]).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(line_of(&[b'x'; 2000][..]).is_err());
    }
}
