//! What whoever runs the tests may ask for, by variables of the environment.

/// The number that a variable says, or another if it is not set.
///
/// # Panics
/// If it says something else than a number.
#[must_use]
pub fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
        Err(_) => otherwise,
    }
}
