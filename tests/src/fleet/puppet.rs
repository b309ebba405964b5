//! An agent that says what a test wants it to, word by word.

use super::member::Member;
use super::{Upload, enrol};
use crate::control::Daemon;
use sealift_api::agent::daemon_message::Body;
use sealift_api::agent::{Ack, AgentMessage, DaemonMessage, Document, Hello, agent_message};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::Streaming;

/// How long a word is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Puppet {
    runtime: Runtime,
    member: Member,
    line: Option<(mpsc::Sender<AgentMessage>, Streaming<DaemonMessage>)>,
}

impl Puppet {
    /// Enrols it, with the secret of a token.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn enrol(daemon: &Daemon, name: &str, token: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut members = runtime.block_on(enrol(daemon, vec![(name.to_owned(), token.to_owned())]));
        Self { runtime, member: members.remove(0), line: None }
    }

    /// Begins to bring logs of a spool.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn upload(&self, daemon: &Daemon, spool: [u8; 16]) -> Upload<'_> {
        Upload::open(&self.runtime, &self.member, daemon.logs, spool).expect("the daemon welcomes it")
    }

    /// Connects with this Hello, and gives the daemon's first word.
    ///
    /// # Errors
    /// How the daemon refuses the call.
    pub fn hello(&mut self, hello: Hello) -> Result<Option<Body>, String> {
        self.line = None;
        let line = self.runtime.block_on(self.member.follow(hello)).map_err(|error| error.to_string())?;
        self.line = Some(line);
        Ok(self.hear())
    }

    /// The daemon's next word; `None` if it has ended the call.
    ///
    /// # Panics
    /// If none comes.
    pub fn hear(&mut self) -> Option<Body> {
        let (_, incoming) = self.line.as_mut().expect("it has said Hello");
        let heard = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, incoming.message()).await });
        heard.expect("a word in time").ok().flatten().and_then(|message| message.body)
    }

    /// The same, until a word is what is waited for.
    ///
    /// # Panics
    /// If the call ends before.
    pub fn hear_until<T>(&mut self, what: &str, is_it: impl Fn(Body) -> Option<T>) -> T {
        loop {
            let body = self.hear().unwrap_or_else(|| panic!("the daemon ended the call before: {what}"));
            if let Some(found) = is_it(body) {
                return found;
            }
        }
    }

    /// Says something.
    ///
    /// # Panics
    /// If it has not said Hello.
    pub fn say(&mut self, body: agent_message::Body) {
        let (out, _) = self.line.as_ref().expect("it has said Hello");
        // That the daemon has gone is heard.
        let _ = self.runtime.block_on(out.send(AgentMessage { body: Some(body) }));
    }

    /// Acknowledges a document.
    pub fn acknowledge(&mut self, document: &Document) {
        let ack = Ack { document: document.number, incarnation: document.incarnation.clone() };
        self.say(agent_message::Body::Ack(ack));
    }
}
