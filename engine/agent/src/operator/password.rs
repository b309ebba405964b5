//! Passwords: from the terminal, without showing them, or from standard input.

use crate::error::RunError;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use sealift_api::rest::limits::PASSWORD_BYTES_MAX;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use zeroize::Zeroizing;

/// Where a password comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordFrom {
    /// Typed, and not shown.
    Terminal,
    /// The first line of standard input.
    Stdin,
}

impl PasswordFrom {
    /// Reads it.
    pub(crate) fn read(self, prompt: &str) -> Result<Zeroizing<String>, RunError> {
        let password = match self {
            Self::Terminal => typed(prompt)?,
            Self::Stdin => first_line(io::stdin().lock())?,
        };
        match password.is_empty() {
            true => Err(RunError::Usage("no password was given".into())),
            false => Ok(password),
        }
    }

    /// Reads a new one: what is typed has to be typed twice, since nobody sees it.
    pub(super) fn read_new(self, prompt: &str) -> Result<Zeroizing<String>, RunError> {
        let password = self.read(prompt)?;
        if self == Self::Terminal && *typed("The same again: ")? != *password {
            return Err(RunError::Usage("these are two passwords".into()));
        }
        Ok(password)
    }
}

fn too_long() -> RunError {
    RunError::Usage(format!("a password has no more than {PASSWORD_BYTES_MAX} bytes"))
}

fn first_line(from: impl io::BufRead) -> Result<Zeroizing<String>, RunError> {
    let mut line = Zeroizing::new(String::with_capacity(PASSWORD_BYTES_MAX + 3));
    from.take(PASSWORD_BYTES_MAX as u64 + 3)
        .read_line(&mut line)
        .map_err(|error| RunError::Usage(format!("cannot read the password: {error}")))?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.len() > PASSWORD_BYTES_MAX { Err(too_long()) } else { Ok(password) }
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

fn typed(prompt: &str) -> Result<Zeroizing<String>, RunError> {
    let no_terminal = |_| {
        RunError::Usage("there is no terminal to ask for the password: give it with --password-stdin".into())
    };
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let before = tcgetattr(&terminal).map_err(|error| no_terminal(error.into()))?;
    let password = {
        let mut quiet = before.clone();
        // Byte by byte, and Ctrl-C is read like any other: whatever is typed, the terminal is put right at the end.
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        let _restored = Quiet { terminal: &terminal, before };
        tcsetattr(&terminal, OptionalActions::Flush, &quiet).map_err(|error| no_terminal(error.into()))?;
        // Only now: what is typed before is shown, and thrown away.
        let _ = (&terminal).write_all(prompt.as_bytes());
        // Whatever was typed after the line, by a hasty hand, was meant for nobody else.
        line_of(io::BufReader::new(&terminal))
    };
    let _ = writeln!(&terminal);
    password
}

/// A line as a terminal in raw mode gives it, with the keys that people correct themselves by.
fn line_of(from: impl io::BufRead) -> Result<Zeroizing<String>, RunError> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: u8 = 8;
    const KILL_LINE: u8 = 21;
    const DELETE: u8 = 127;
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    for byte in from.bytes() {
        match byte.map_err(|error| RunError::Usage(format!("cannot read the password: {error}")))? {
            b'\n' | b'\r' | END => break,
            INTERRUPT => return Err(RunError::Interrupted),
            KILL_LINE => line.clear(),
            BACKSPACE | DELETE => {
                // A character, which may be several bytes.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if line.len() < PASSWORD_BYTES_MAX => line.push(byte),
            _ => return Err(too_long()),
        }
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(RunError::Usage("the password is not text (UTF-8)".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_line_can_be_corrected_and_given_up() {
        for (keys, line) in [
            (&b"secret\nmore"[..], "secret"),
            (b"secret\r", "secret"),
            (b"secrex\x7ft\n", "secret"),
            ("sä\x08ecret\n".as_bytes(), "secret"),
            (b"wrong\x15secret\x04", "secret"),
            (b"secret", "secret"),
            (b"\x7f\x7f\n", ""),
        ] {
            assert_eq!(*line_of(keys).unwrap(), line);
        }
        assert!(matches!(line_of(&b"sec\x03"[..]), Err(RunError::Interrupted)));
        assert_eq!(line_of(&b"\xff\n"[..]).unwrap_err().code(), 2);
        assert_eq!(line_of(&[b'x'; 2000][..]).unwrap_err().code(), 2);
    }

    #[test]
    fn a_piped_password_is_the_first_line() {
        assert_eq!(*first_line(&b"a b \r\nmore"[..]).unwrap(), "a b ");
        assert_eq!(first_line(&[b'x'; 2000][..]).unwrap_err().code(), 2);
    }
}
