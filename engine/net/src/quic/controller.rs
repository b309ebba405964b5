//! The congestion controller: the model of the link, as quinn asks for it.

use quinn::congestion::{Controller, ControllerFactory};
use sealift_proto::congestion::{LinkModel, Temper};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// What a connection may have in flight before anything is known (RFC 9002 has ten packets).
const INITIAL_PACKETS: u64 = 32;

/// Makes controllers.
pub(super) struct Factory;

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let packet_bytes = u64::from(current_mtu);
        Box::new(Modelled { begun: now, packet_bytes, model: LinkModel::new(Temper::Fair, packet_bytes) })
    }
}

/// A connection's model of its link.
#[derive(Clone)]
struct Modelled {
    begun: Instant,
    packet_bytes: u64,
    model: LinkModel,
}

impl Modelled {
    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Controller for Modelled {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        self.model.handle_sent(self.micros(now), bytes);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, _: &quinn_proto::RttEstimator) {
        self.model.handle_ack(self.micros(now), self.micros(sent), bytes);
    }

    fn on_end_acks(&mut self, now: Instant, _: u64, app_limited: bool, _: Option<u64>) {
        self.model.handle_acks_end(self.micros(now), app_limited);
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, lost_bytes: u64) {
        self.model.handle_loss(lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet_bytes = u64::from(new_mtu);
        self.model.set_packet_bytes(self.packet_bytes);
    }

    fn window(&self) -> u64 {
        self.model.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.packet_bytes
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
