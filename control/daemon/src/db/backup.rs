//! Copies of the database. Being written.
