//! The control daemon: who may replicate what. It never carries file data.
#![forbid(unsafe_code)]
pub mod address;
pub mod ca;
pub mod channel;
pub mod cli;
pub mod config;
pub mod db;
pub mod documents;
pub mod limiter;
pub mod logs;
pub mod rest;
pub mod schedule;
pub mod serve;
pub mod spec;
pub mod tls;
pub mod tracker;
