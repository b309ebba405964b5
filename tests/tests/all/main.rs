//! Every end-to-end test, in one binary: one module a subject.

mod arch;
mod attributes;
mod control;
mod discovery;
mod emulated;
mod faults;
mod home;
mod hostile_receiver;
mod hostile_sender;
mod injected;
mod killed;
mod powercut;
mod relay;
mod replica;
mod replicate;
mod resume_sender;
mod sealed;
mod swarm;
mod timetable;
mod transport;
mod vectors;
mod verify;
