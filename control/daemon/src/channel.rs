//! The agents' channel, on 8444: enrolment, desired state out, observed state in.
//!
//! Owns which agents are connected. An agent is who its key says, by the certificate of its handshake; whether it may
//! speak is looked up in the database at the beginning and whenever anything has changed, so that a revocation cuts it
//! within a moment. Everything is said again after a reconnect: no message here is waited for.

mod agents;
mod hub;
mod intake;

pub(crate) use agents::{blocking, peer, sent_away, status};
pub use hub::Hub;
pub(crate) use hub::{Line, Place};

use crate::serve::Peer;
use axum::Router;
use sealift_api::agent::channel_server::ChannelServer;
use sealift_api::agent::enrolment_server::EnrolmentServer;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tonic::service::Routes;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Jobs in one report.
const JOBS_MAX: usize = 1000;
/// A message from an agent.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The routes of the port.
pub fn router(hub: Arc<Hub>) -> Router {
    let service = agents::Agents::new(hub);
    let channel = ChannelServer::new(service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let enrolment = EnrolmentServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(channel).add_service(enrolment).into_axum_router()
}

/// What the handshake says of an agent.
pub(crate) struct Shown {
    /// SHA-256 of its key.
    pub(crate) key: [u8; 32],
    /// Whether its certificate's time is over.
    pub(crate) expired: bool,
}

impl Shown {
    /// `None` if it showed no certificate. (One that was not signed by our authority has ended the handshake.)
    pub(crate) fn of(peer: &Peer, now_ms: i64) -> Option<Self> {
        let der = peer.certificate.as_deref()?;
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let ends_ms = certificate.validity().not_after.timestamp().saturating_mul(1000);
        let key = Sha256::digest(certificate.public_key().raw).into();
        Some(Self { key, expired: ends_ms <= now_ms })
    }
}
