//! Endpoints: the sources and destinations of jobs, as text.

use super::limits::{ENDPOINT_BYTES_MAX, PATH_BYTES_MAX};
use super::name::{Name, NameError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

const GROUP: &str = "group";

/// A path on an agent, `AGENT:/path`, or on each agent of a group, `group:NAME:/path`. No agent can be called `group`.
///
/// The path is absolute and in its shortest form: no empty, `.` or `..` parts, no slash at the end (but `/` itself), no
/// control characters; at most 4096 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    place: Place,
    path: String,
}

/// Which agents an endpoint is on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The agent of this name.
    Agent(Name),
    /// Each agent of this group.
    Group(Name),
}

/// Why a text is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointError {
    /// Neither of the two forms.
    Form,
    /// What stands for the name of an agent or group is none.
    Name,
    /// The path is not absolute.
    Relative,
    /// The path is too long.
    Long,
    /// The path has a part that is empty, `.` or `..`, or ends with a slash.
    Parts,
    /// The path has control characters.
    Control,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("an endpoint is AGENT:/path or group:NAME:/path"),
            Self::Name => write!(f, "in an endpoint, {NameError}"),
            Self::Relative => f.write_str("the path of an endpoint must be absolute"),
            Self::Long => write!(f, "the path of an endpoint must not be longer than {PATH_BYTES_MAX} bytes"),
            Self::Parts => f.write_str(
                "the path of an endpoint must not have empty parts, '.' or '..', or a slash at its end",
            ),
            Self::Control => f.write_str("the path of an endpoint must not have control characters"),
        }
    }
}

impl std::error::Error for EndpointError {}

impl Endpoint {
    /// The path at the place, if it may be one.
    ///
    /// # Errors
    /// Says what is wrong with the path; or [`EndpointError::Name`] for an agent called `group`.
    pub fn new(place: Place, path: &str) -> Result<Self, EndpointError> {
        if matches!(&place, Place::Agent(name) if name.as_str() == GROUP) {
            return Err(EndpointError::Name);
        }
        let rest = path.strip_prefix('/').ok_or(EndpointError::Relative)?;
        if path.len() > PATH_BYTES_MAX {
            return Err(EndpointError::Long);
        }
        if path.chars().any(char::is_control) {
            return Err(EndpointError::Control);
        }
        if !rest.is_empty() && rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(EndpointError::Parts);
        }
        Ok(Self { place, path: path.to_owned() })
    }

    /// Which agents it is on.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where on them.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl PartialSchema for Endpoint {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("`AGENT:/path`, or `group:NAME:/path` for each agent of a group"))
            .max_length(Some(ENDPOINT_BYTES_MAX))
            .pattern(Some("^(group:)?[a-z0-9.-]{1,63}:/"))
            .examples(["db1:/data/models", "group:dc2:/data/models"])
            .into()
    }
}

impl ToSchema for Endpoint {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Endpoint")
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (first, rest) = text.split_once(':').ok_or(EndpointError::Form)?;
        let name = |text: &str| text.parse::<Name>().map_err(|NameError| EndpointError::Name);
        if first == GROUP {
            let (group, path) = rest.split_once(':').ok_or(EndpointError::Form)?;
            return Self::new(Place::Group(name(group)?), path);
        }
        Self::new(Place::Agent(name(first)?), rest)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Agent(name) => write!(f, "{name}:{}", self.path),
            Place::Group(name) => write!(f, "{GROUP}:{name}:{}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        text.parse()
    }

    #[test]
    fn both_forms_are_read() {
        let agent = parse("db1.dc2:/data/a:b").unwrap();
        assert_eq!(agent.place(), &Place::Agent("db1.dc2".parse().unwrap()));
        assert_eq!(agent.path(), "/data/a:b");
        let group = parse("group:dc2:/").unwrap();
        assert_eq!(group.place(), &Place::Group("dc2".parse().unwrap()));
        assert_eq!(group.path(), "/");
        assert!(parse(&format!("a:/{}", "x".repeat(4095))).is_ok());
    }

    #[test]
    fn whatever_else_is_refused() {
        use EndpointError::{Control, Form, Long, Name, Parts, Relative};
        let cases = [
            ("", Form),
            ("a", Form),
            ("/data", Form),
            ("group:/data", Form),
            ("group:/data:/x", Name),
            ("group:Dc2:/x", Name),
            ("A:/x", Name),
            (":/x", Name),
            ("a b:/x", Name),
            ("a:", Relative),
            ("a:data", Relative),
            ("group:a:", Relative),
            ("a:/data/", Parts),
            ("a://", Parts),
            ("a:/data//x", Parts),
            ("a:/data/../etc", Parts),
            ("a:/..", Parts),
            ("a:/./x", Parts),
            ("a:/x\0", Control),
            ("a:/x\u{1b}[2J", Control),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
        assert_eq!(parse(&format!("a:/{}", "x".repeat(4096))), Err(Long));
        let called_group = Place::Agent("group".parse().unwrap());
        assert_eq!(Endpoint::new(called_group, "/x"), Err(Name));
    }

    /// Numbers from a seed (xorshift64*), so that a failing case is found again.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
        }

        fn text(&mut self, of: &[&str], most: usize) -> String {
            (0..=self.below(most)).map(|_| of[self.below(of.len())]).collect()
        }
    }

    const PIECES: &[&str] = &[
        "group", ":", "::", "/", "//", ".", "..", "a", "B", "-", "0", "ä", "\u{202e}", "\n", "\0", " ",
        "data",
    ];

    #[test]
    fn what_is_read_is_written_the_same_and_is_safe() {
        for seed in 1..20_000 {
            let mut numbers = Numbers(seed);
            let mut text = numbers.text(PIECES, 10);
            if numbers.below(2) == 0 {
                text = format!("a-1:/{text}");
            }
            let Ok(endpoint) = parse(&text) else { continue };
            assert_eq!(endpoint.to_string(), text, "seed {seed}");
            let path = endpoint.path();
            assert!(path.starts_with('/') && path.len() <= PATH_BYTES_MAX, "seed {seed}");
            assert!(path.split('/').all(|part| part != ".." && part != "."), "seed {seed}: {path}");
        }
    }

    #[test]
    fn what_is_made_is_read_back() {
        for seed in 1..5_000 {
            let mut numbers = Numbers(seed);
            let name = numbers.text(&["a", "b9", "0-z", "x.y"], 8).parse().unwrap();
            let place = if numbers.below(2) == 0 { Place::Agent(name) } else { Place::Group(name) };
            let path: String = (0..=numbers.below(5))
                .map(|_| format!("/{}", numbers.text(&["a", ":", "..x", "ä"], 9)))
                .collect();
            let endpoint = Endpoint::new(place, &path).unwrap();
            assert_eq!(parse(&endpoint.to_string()), Ok(endpoint), "seed {seed}");
        }
    }
}
