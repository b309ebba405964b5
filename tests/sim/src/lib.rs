//! The swarm in virtual time: one source and thousands of receivers, each with the real [`Puller`], in one process.
//!
//! A [`Scenario`] and its seed decide everything; [`run`] says what came of it. What is not the picker is a model: hosts
//! with a rate up and a rate down, links with a delay, a tracker that tells who may meet whom, and misfortune.
//! docs/swarm.md has what is measured with it.
//!
//! [`Puller`]: sealift_proto::transfer::pull::Puller
#![forbid(unsafe_code)]

mod events;
mod host;
mod meeting;
mod misfortune;
mod random;
mod receiver;
mod report;
mod scenario;
mod tracker;
mod world;

pub use report::Report;
pub use scenario::Scenario;

/// Plays a scenario to its end: until all receivers that live and are honest have everything, or its time is over.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).play()
}
