//! Which extended attributes are carried: an allow-list.

use std::collections::BTreeSet;

/// The extended attributes that are read, or set. By default those of `user.`, which any program may give its own
/// files; the kernel gives no meaning to them. The others have power over the machine, and each must be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XattrFilter {
    /// Each begins with `user.`.
    prefixes: Vec<Box<[u8]>>,
    names: BTreeSet<Box<[u8]>>,
}

/// Why a pattern cannot be in an [`XattrFilter`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XattrFilterError {
    /// No namespace before the name, or too long.
    #[error("{pattern:?} is no name of an extended attribute, such as user.comment")]
    NoName {
        /// As it was given.
        pattern: String,
    },
    /// A `*` that is not at the end.
    #[error("{pattern:?}: a * can only stand at the end")]
    Star {
        /// As it was given.
        pattern: String,
    },
    /// A pattern outside `user.`.
    #[error("{pattern:?}: outside of user. each extended attribute must be named in full")]
    Namespace {
        /// As it was given.
        pattern: String,
    },
    /// Access control lists are no ordinary attributes.
    #[error("{pattern:?}: access control lists are carried by --preserve=acls")]
    Acl {
        /// As it was given.
        pattern: String,
    },
}

const USER: &[u8] = b"user.";
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

impl Default for XattrFilter {
    fn default() -> Self {
        Self { prefixes: vec![USER.into()], names: BTreeSet::new() }
    }
}

impl XattrFilter {
    /// Exactly these: full names, or `user.*`, `user.something*`.
    ///
    /// # Errors
    /// One of them is not to be understood, or allows more than may be allowed at once.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, XattrFilterError> {
        let mut filter = Self { prefixes: Vec::new(), names: BTreeSet::new() };
        for pattern in patterns {
            let text = pattern.as_ref();
            let pattern = || text.to_owned();
            let (name, is_prefix) = match text.strip_suffix('*') {
                Some(prefix) => (prefix, true),
                None => (text, false),
            };
            let named = name.split_once('.').is_some_and(|(namespace, rest)| {
                !namespace.is_empty() && (is_prefix || !rest.is_empty()) && !name.contains('\0')
            });
            if name.contains('*') {
                return Err(XattrFilterError::Star { pattern: pattern() });
            }
            if name.as_bytes().starts_with(ACL_PREFIX) {
                return Err(XattrFilterError::Acl { pattern: pattern() });
            }
            if is_prefix && !name.as_bytes().starts_with(USER) {
                return Err(XattrFilterError::Namespace { pattern: pattern() });
            }
            if !named || name.len() > sealift_proto::limits::NAME_BYTES_MAX {
                return Err(XattrFilterError::NoName { pattern: pattern() });
            }
            if is_prefix {
                filter.prefixes.push(name.as_bytes().into());
            } else {
                filter.names.insert(name.as_bytes().into());
            }
        }
        Ok(filter)
    }

    /// Whether an attribute of that name is carried.
    #[must_use]
    pub fn allows(&self, name: &[u8]) -> bool {
        // A bare `user.` is no name.
        let beneath = |prefix: &[u8]| name.starts_with(prefix) && name.len() > USER.len();
        self.prefixes.iter().any(|prefix| beneath(prefix)) || self.names.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_only_user_attributes_unless_named_one_by_one() {
        let filter = XattrFilter::default();
        assert!(filter.allows(b"user.comment") && filter.allows(b"user.\xff"));
        for name in [
            &b"security.capability"[..],
            b"security.selinux",
            b"trusted.overlay.opaque",
            b"system.posix_acl_access",
            b"user.",
            b"user",
            b"users.x",
            b"",
        ] {
            assert!(!filter.allows(name), "{}", String::from_utf8_lossy(name));
        }
        let filter = XattrFilter::parse(&["security.capability", "user.mine*"]).unwrap();
        assert!(filter.allows(b"security.capability") && filter.allows(b"user.mine.x"));
        assert!(!filter.allows(b"security.capability2") && !filter.allows(b"user.other"));
        assert!(!XattrFilter::parse::<&str>(&[]).unwrap().allows(b"user.x"));
    }

    #[test]
    fn a7_patterns_that_allow_too_much_are_refused() {
        let error = |pattern: &str| XattrFilter::parse(&[pattern]).unwrap_err();
        for pattern in ["*", "security.*", "trusted.*", "system.*", "us*", "user*"] {
            assert!(matches!(error(pattern), XattrFilterError::Namespace { .. }), "{pattern}");
        }
        for pattern in ["system.posix_acl_access", "system.posix_acl_*"] {
            assert!(matches!(error(pattern), XattrFilterError::Acl { .. }), "{pattern}");
        }
        for pattern in ["", "comment", ".x", "user.", "user.\0", &"user.".repeat(60)] {
            assert!(matches!(error(pattern), XattrFilterError::NoName { .. }), "{pattern}");
        }
        assert!(matches!(error("user.*x"), XattrFilterError::Star { .. }));
    }
}
