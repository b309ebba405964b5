//! Paths from outside: checked once, here, and carried as bytes ever after.

use crate::limits;
use std::fmt;

/// The name of the directory that Sealift keeps its own files in, under the root of a replica.
pub const RESERVED_NAME: &[u8] = b".sealift";

/// A relative path that names something strictly beneath a root: no empty, `.` or `..` component, no NUL,
/// none of Sealift's own names, within the limits. Bytes, not text: names need not be UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SafePath(Box<[u8]>);

/// Why bytes are no [`SafePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing at all.
    #[error("the path is empty")]
    Empty,
    /// Begins with a slash.
    #[error("the path is absolute")]
    Absolute,
    /// `a//b` or `a/`.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("the path has a component '.' or '..'")]
    Dots,
    /// A NUL byte.
    #[error("the path has a NUL byte")]
    Nul,
    /// Over [`limits::PATH_BYTES_MAX`].
    #[error("the path is longer than {} bytes", limits::PATH_BYTES_MAX)]
    TooLong,
    /// Over [`limits::COMPONENT_BYTES_MAX`].
    #[error("a component of the path is longer than {} bytes", limits::COMPONENT_BYTES_MAX)]
    ComponentTooLong,
    /// Over [`limits::PATH_DEPTH_MAX`].
    #[error("the path is deeper than {} levels", limits::PATH_DEPTH_MAX)]
    TooDeep,
    /// A component named `.sealift`.
    #[error("the path uses the reserved name '.sealift'")]
    Reserved,
}

impl SafePath {
    /// Checks bytes from outside. Nothing is cleaned up: what is not right is refused.
    ///
    /// # Errors
    /// The first rule that the bytes break.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > limits::PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if bytes[0] == b'/' {
            return Err(PathError::Absolute);
        }
        let mut depth = 0;
        for component in bytes.split(|&b| b == b'/') {
            depth += 1;
            if depth > limits::PATH_DEPTH_MAX {
                return Err(PathError::TooDeep);
            }
            match component {
                b"" => return Err(PathError::EmptyComponent),
                b"." | b".." => return Err(PathError::Dots),
                RESERVED_NAME => return Err(PathError::Reserved),
                _ if component.len() > limits::COMPONENT_BYTES_MAX => {
                    return Err(PathError::ComponentTooLong);
                }
                _ if component.contains(&0) => return Err(PathError::Nul),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The path of `name` beneath `parent` (`None`: beneath the root).
    ///
    /// # Errors
    /// As [`SafePath::parse`].
    pub fn join(parent: Option<&Self>, name: &[u8]) -> Result<Self, PathError> {
        match parent {
            None => Self::parse(name),
            Some(parent) => {
                let mut bytes = Vec::with_capacity(parent.0.len() + 1 + name.len());
                bytes.extend_from_slice(&parent.0);
                bytes.push(b'/');
                bytes.extend_from_slice(name);
                Self::parse(&bytes)
            }
        }
    }

    /// The bytes, components joined by single slashes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path above, or `None` for what lies directly beneath the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.parent_bytes().map(|bytes| Self(bytes.into()))
    }

    pub(crate) fn parent_bytes(&self) -> Option<&[u8]> {
        let slash = self.0.iter().rposition(|&b| b == b'/')?;
        Some(&self.0[..slash])
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// The number of components, at least 1.
    #[must_use]
    pub fn depth(&self) -> usize {
        1 + self.0.iter().filter(|&&b| b == b'/').count()
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shows the path so that no name can forge a line of a log or drive a terminal; see [`escape`].
impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

/// Text for people from bytes of an untrusted name: control characters, bytes that are not UTF-8, backslashes and
/// the marks that change the direction of text become `\x..` or `\u{..}`; all else stays.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                text.push_str("\\\\");
            } else if c.is_ascii_control() {
                let _ = write!(text, "\\x{:02x}", u32::from(c));
            } else if c.is_control() || is_format_mark(c) {
                let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Characters that reorder or hide the text around them (Unicode TR 36, section 2.5; line and paragraph separators).
fn is_format_mark(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a1_refuses_every_path_that_could_leave_the_root() {
        let long_name = vec![b'x'; 256];
        let long_path = [b"abcdefgh/".repeat(456), b"x".to_vec()].concat();
        let deep = [b"d/".repeat(256), b"x".to_vec()].concat();
        let cases: [(&[u8], PathError); 14] = [
            (b"", PathError::Empty),
            (b"/", PathError::Absolute),
            (b"/etc/passwd", PathError::Absolute),
            (b"..", PathError::Dots),
            (b"a/../b", PathError::Dots),
            (b".", PathError::Dots),
            (b"a/./b", PathError::Dots),
            (b"a//b", PathError::EmptyComponent),
            (b"a/", PathError::EmptyComponent),
            (b"a\0b", PathError::Nul),
            (&long_name, PathError::ComponentTooLong),
            (&long_path, PathError::TooLong),
            (&deep, PathError::TooDeep),
            (b"a/.sealift/x", PathError::Reserved),
        ];
        for (bytes, error) in cases {
            assert_eq!(SafePath::parse(bytes), Err(error), "{}", escape(bytes));
        }
    }

    #[test]
    fn a2_carries_names_that_are_not_utf8() {
        let bytes = b"caf\xe9/\xff\xfe\n";
        assert_eq!(SafePath::parse(bytes).expect("safe").as_bytes(), bytes);
    }

    #[test]
    fn a20_escapes_what_could_drive_a_terminal() {
        assert_eq!(escape(b"a\x1b[2J\r\nb\\"), "a\\x1b[2J\\x0d\\x0ab\\\\");
        assert_eq!(escape("x\u{202e}gpj.exe".as_bytes()), "x\\u{202e}gpj.exe");
        assert_eq!(escape("\u{9b}31m".as_bytes()), "\\u{9b}31m");
        assert_eq!(escape(b"\xff ok"), "\\xff ok");
        assert_eq!(escape("naïve 文件".as_bytes()), "naïve 文件");
    }

    proptest! {
        #[test]
        fn a_parsed_path_has_only_plain_components(bytes in proptest::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(0), any::<u8>()], 0..64)) {
            if let Ok(path) = SafePath::parse(&bytes) {
                prop_assert_eq!(path.as_bytes(), &bytes[..]);
                for component in path.as_bytes().split(|&b| b == b'/') {
                    prop_assert!(!matches!(component, b"" | b"." | b".." | b".sealift"));
                    prop_assert!(!component.contains(&0));
                }
                let rejoined = SafePath::join(path.parent().as_ref(), path.name());
                prop_assert_eq!(rejoined, Ok(path));
            }
        }

        #[test]
        fn escaped_text_has_no_control_characters(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!escape(&bytes).chars().any(|c| c.is_control() || is_format_mark(c)));
        }
    }
}
