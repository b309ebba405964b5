//! `sealift agent join`: this host becomes an agent of a control daemon.
//!
//! Owns the order: the key is kept before it is shown, the daemon is believed by the pinned fingerprint alone, the token
//! is sent only after that, and `identity.json`, by which the host has joined, is written last.

use crate::error::{Finish, RunError};
use crate::managed::credentials::{AgentKey, Certificate};
use crate::managed::home::{Home, Identity};
use crate::managed::pin::Pin;
use crate::managed::{allow, facts, tls};
use crate::report::{Event, Reporter};
use sealift_api::agent::enrolment_client::EnrolmentClient;
use sealift_api::agent::{EnrolReply, EnrolRequest, enrol_reply};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long it is waited between asking for approval.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// One call of Enrol.
const ENROL_TIMEOUT: Duration = Duration::from_secs(30);
/// The port of the agents' channel.
pub const CONTROL_PORT: u16 = 8444;
/// Roots of each kind.
const ROOTS_MAX: usize = 64;

/// What to join, and on which terms.
#[derive(Debug)]
pub struct JoinOptions {
    /// `HOST` or `HOST:PORT`.
    pub daemon: String,
    /// The fingerprint of its certificate authority.
    pub pin: Pin,
    /// What the operator made for this host.
    pub token: Zeroizing<String>,
    /// How the agent is to be known; `None`: as the host is.
    pub name: Option<String>,
    /// Where state is kept, if the user named a place.
    pub state_dir: Option<PathBuf>,
    /// Roots beneath which jobs may read.
    pub allow_read: Vec<PathBuf>,
    /// Roots beneath which jobs may write.
    pub allow_write: Vec<PathBuf>,
    /// Where others reach this host's data ports.
    pub data_addresses: Vec<String>,
    /// The ports that sources listen on; `None`: any.
    pub data_ports: Option<(u16, u16)>,
    /// How long an operator's approval is waited for; `None`: as long as it takes.
    pub wait: Option<Duration>,
}

/// Joins.
///
/// # Errors
/// See [`RunError`]; in particular if the daemon does not show what was pinned.
pub async fn join(options: JoinOptions, reporter: &Reporter) -> Result<Finish, RunError> {
    join_asking(options, reporter, ASK_AGAIN).await
}

/// Joins, asking for approval this often.
pub(crate) async fn join_asking(
    options: JoinOptions,
    reporter: &Reporter,
    again: Duration,
) -> Result<Finish, RunError> {
    let home = Home::open(options.state_dir.clone())?;
    let _lock = home.lock()?;
    if let Some(identity) = home.identity_if_joined()? {
        return Err(RunError::Usage(format!(
            "this host has joined {} already, as {}: to join anew, remove {} first",
            identity.daemon,
            identity.name,
            home.dir().display()
        )));
    }
    let mut identity = Identity {
        version: Identity::VERSION,
        agent_id: Uuid::nil(),
        name: options.name.clone().unwrap_or_else(facts::hostname),
        daemon: with_port(&options.daemon, CONTROL_PORT)?,
        pin: options.pin.to_string(),
        data_addresses: options.data_addresses.clone(),
        data_ports: options.data_ports,
        allow_read: options.allow_read.clone(),
        allow_write: options.allow_write.clone(),
    };
    check_roots(&identity)?;
    let key = AgentKey::load_or_make(&home)?;
    let request = EnrolRequest {
        token: options.token.to_string(),
        name: identity.name.clone(),
        csr: key.request(&identity.name)?,
        host: Some(facts::gather(&identity)),
    };
    let request = Secret(request);
    let deadline = options.wait.map(|wait| Instant::now() + wait);
    let mut told = false;
    let (reply, authority) = loop {
        let asked = enrol(&identity.daemon, options.pin, &request).await;
        match asked {
            Ok((reply, authority)) if reply.state() == enrol_reply::State::Approved => {
                break (reply, authority);
            }
            Ok((reply, _)) if reply.state() == enrol_reply::State::Pending => {
                if !std::mem::replace(&mut told, true) {
                    let message = format!(
                        "The token was taken. An operator has to approve agent {} now; waiting.",
                        identity.name
                    );
                    reporter.tell(&Event::Note { message });
                }
            }
            Ok(_) => return Err(RunError::Failed("the daemon's answer makes no sense here".into())),
            // Once it has been asked, a daemon that is restarted is waited for.
            Err(RunError::DaemonAway(_)) if told => {}
            Err(error) => return Err(error),
        }
        if deadline.is_some_and(|deadline| Instant::now() + again > deadline) {
            return Err(RunError::Barred(format!(
                "agent {} was not approved in time: the same command, with the same token, goes on waiting",
                identity.name
            )));
        }
        tokio::time::sleep(again).await;
    };
    finish(&home, &mut identity, &key, reply, &authority, reporter)?;
    Ok(Finish::Complete)
}

/// A request whose token is zeroized.
struct Secret(EnrolRequest);

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0.token);
    }
}

async fn enrol(daemon: &str, pin: Pin, request: &Secret) -> Result<(EnrolReply, Vec<u8>), RunError> {
    let (config, pinned) = tls::for_join(pin)?;
    let channel = tls::dial(daemon, config).await?;
    let authority =
        pinned.authority().ok_or_else(|| RunError::Failed("the daemon was not verified".into()))?;
    let mut client = EnrolmentClient::new(channel);
    let answer = tokio::time::timeout(ENROL_TIMEOUT, client.enrol(request.0.clone())).await;
    match answer {
        Ok(Ok(reply)) => Ok((reply.into_inner(), authority)),
        Ok(Err(status)) => Err(refused(daemon, &status)),
        Err(_) => Err(RunError::DaemonAway(format!("the control daemon at {daemon} does not answer"))),
    }
}

fn refused(daemon: &str, status: &tonic::Status) -> RunError {
    match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::AlreadyExists | tonic::Code::FailedPrecondition => {
            let said = sealift_proto::path::escape(status.message().as_bytes());
            RunError::Failed(format!("the control daemon at {daemon} refuses: {said}"))
        }
        _ => tls::of_status(daemon, status),
    }
}

fn finish(
    home: &Home,
    identity: &mut Identity,
    key: &AgentKey,
    reply: EnrolReply,
    authority: &[u8],
    reporter: &Reporter,
) -> Result<(), RunError> {
    if !reply.ca_certificate.is_empty() && reply.ca_certificate != authority {
        return Err(RunError::Barred(
            "the daemon names another certificate authority than the one that was pinned".into(),
        ));
    }
    identity.agent_id = Uuid::from_slice(&reply.agent_id)
        .map_err(|_| RunError::Failed("the daemon gave this agent no id".into()))?;
    let certificate = Certificate::check(reply.certificate, key, authority)?;
    if let Some(doubt) = certificate.clock_doubt(SystemTime::now()) {
        return Err(RunError::Failed(doubt));
    }
    let keep = |name, content: &[u8]| home.write(name, content).map_err(|error| home.unusable(&error));
    keep("ca", authority)?;
    keep("certificate", &certificate.der)?;
    home.write_identity(identity)?;
    let message = format!(
        "Joined {} as {} ({}). Start the agent with: sealift agent run",
        identity.daemon, identity.name, identity.agent_id
    );
    reporter.tell(&Event::Note { message });
    Ok(())
}

/// The daemon's address, with the usual port if it has none.
pub(crate) fn with_port(daemon: &str, port: u16) -> Result<String, RunError> {
    use sealift_proto::ticket::Address;
    let usual = if daemon.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{daemon}]:{port}")
    } else if daemon.contains(':') && !daemon.ends_with(']') {
        daemon.to_owned()
    } else {
        format!("{daemon}:{port}")
    };
    let address = usual.parse::<Address>();
    address
        .map(|address| address.to_string())
        .map_err(|_| RunError::Usage(format!("{} is no address: HOST or HOST:PORT", daemon.escape_default())))
}

fn check_roots(identity: &Identity) -> Result<(), RunError> {
    for (roots, option) in [(&identity.allow_read, "--allow-read"), (&identity.allow_write, "--allow-write")]
    {
        if roots.len() > ROOTS_MAX {
            return Err(RunError::Usage(format!("{option} can be given {ROOTS_MAX} times at most")));
        }
        for root in roots {
            let shown = root.display();
            if root.to_str().is_none() || !allow::is_plain(root) {
                return Err(RunError::Usage(format!(
                    "{option} {shown}: it must be an absolute path, in UTF-8, without . and .."
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (text, address) in [
            ("control", "control:8444"),
            ("control.example:1", "control.example:1"),
            ("10.0.0.1", "10.0.0.1:8444"),
            ("::1", "[::1]:8444"),
            ("[::1]", "[::1]:8444"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(with_port(text, CONTROL_PORT).unwrap(), address, "{text}");
        }
        for text in ["", "a b", "host:", "host:x", "http://host"] {
            assert_eq!(with_port(text, CONTROL_PORT).unwrap_err().code(), 2, "{text}");
        }
    }
}
