//! The control daemon with real agents: what an operator does, and what may go wrong meanwhile.

mod access;
mod api;
mod enrolment;
mod hazards;
mod logs;
mod operator;
mod rotation;
mod runs;
mod scale;
mod sealed;
mod setup;
