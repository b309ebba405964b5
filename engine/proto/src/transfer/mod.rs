//! Transfers without I/O: what to ask for ([`pull`]), what may be answered ([`serve`]), and when a file is whole
//! ([`assembly`]). Payload bytes never come here: these see block numbers only.

pub mod assembly;
pub mod pull;
pub mod serve;
