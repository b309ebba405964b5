//! What agents, operators and the control daemon say to each other.
//!
//! Types alone: nothing here does I/O or holds a policy.
#![forbid(unsafe_code)]

pub mod rest;

/// The agent channel: generated from `proto/sealift/agent/v1/agent.proto`, which documents it.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod agent {
    tonic::include_proto!("sealift.agent.v1");
}

/// The upload of logs: generated from `proto/sealift/logs/v1/logs.proto`, which documents it.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod logs {
    tonic::include_proto!("sealift.logs.v1");
}
