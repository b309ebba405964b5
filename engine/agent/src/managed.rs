//! A managed agent: joins a control daemon, keeps what it desires of this host, and runs transfers by itself.
//!
//! ```text
//! daemon ── session ──▶ document ──▶ plan ──▶ runs ──▶ children (`sealift send`, `sealift receive`)
//!        ◀── reports and events ─── agent ◀── news of children ──┘
//! ```
//!
//! Level-triggered: what is desired is one document, on the disk before it is acknowledged; `plan` compares it with what
//! runs, after everything that happens. The daemon may be away for as long as it likes. Whatever it says, `allow` judges
//! paths by this host's own list.

mod agent;
mod allow;
mod child;
mod credentials;
mod document;
mod facts;
mod home;
mod join;
mod logs;
mod pause;
mod pin;
mod plan;
mod runs;
mod session;
mod spool;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

pub use agent::run;
pub(crate) use join::with_port;
pub use join::{CONTROL_PORT, JoinOptions, join};
pub use pin::{Pin, PinError};
pub use status::status;
