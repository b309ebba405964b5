//! The audit: a chain that shows whatever is changed.
