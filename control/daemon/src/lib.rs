//! The control daemon: who may replicate what. It never carries file data.
#![forbid(unsafe_code)]
pub mod db;
