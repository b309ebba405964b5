//! Users. Being written.

/// At most one password is hashed at a time.
#[derive(Default)]
pub(super) struct Hashing;
