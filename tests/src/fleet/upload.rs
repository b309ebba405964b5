//! An agent's logs as it brings them, batch by batch.

use super::member::{Failure, Member, dial};
use sealift_api::logs::from_agent::Body as Said;
use sealift_api::logs::from_daemon::Body;
use sealift_api::logs::logs_client::LogsClient;
use sealift_api::logs::{Batch, FromAgent, FromDaemon, Hello};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream that the daemon has welcomed.
pub struct Upload<'p> {
    runtime: &'p Runtime,
    out: mpsc::Sender<FromAgent>,
    incoming: Streaming<FromDaemon>,
    spool: [u8; 16],
}

impl<'p> Upload<'p> {
    pub(super) fn open(
        runtime: &'p Runtime,
        member: &Member,
        daemon: SocketAddr,
        spool: [u8; 16],
    ) -> Result<Self, Failure> {
        runtime.block_on(async {
            let channel = dial(daemon, member.tls()).await?;
            let (out, outgoing) = mpsc::channel(1);
            let hello = Hello { version_min: 1, version_max: 1, spool: spool.to_vec() };
            out.send(FromAgent { body: Some(Said::Hello(hello)) }).await?;
            let incoming = LogsClient::new(channel).upload(ReceiverStream::new(outgoing)).await?;
            let mut incoming = incoming.into_inner();
            match incoming.message().await?.and_then(|message| message.body) {
                Some(Body::Welcome(_)) => Ok(Self { runtime, out, incoming, spool }),
                other => Err(format!("it begins with {other:?}").into()),
            }
        })
    }

    /// The spool that it is of.
    #[must_use]
    pub fn spool(&self) -> [u8; 16] {
        self.spool
    }

    /// Brings a batch, and waits until the daemon keeps it.
    ///
    /// # Panics
    /// If it does not.
    pub fn bring(&mut self, batch: Batch) {
        let last = batch.first + u64::from(batch.count) - 1;
        let (out, incoming) = (&self.out, &mut self.incoming);
        let answer = self.runtime.block_on(async {
            // That the daemon has gone is heard.
            let _ = out.send(FromAgent { body: Some(Said::Batch(batch)) }).await;
            tokio::time::timeout(PATIENCE, incoming.message()).await
        });
        let answer = answer.expect("an answer in time").expect("the daemon takes it");
        let Some(Body::Kept(kept)) = answer.and_then(|message| message.body) else {
            panic!("the daemon ends the upload")
        };
        assert_eq!(kept.number, last);
    }
}
