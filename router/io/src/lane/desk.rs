//! What every part of a lane's thread needs at hand: the shared state, where events go, and how a drop is counted.

use std::sync::Arc;

use tokio::sync::mpsc;
use weft_router::drop::{DropCounters, DropReason};

use super::Shared;
use super::event::{EVENT_QUEUE, LaneEvent};

pub(super) struct Desk {
    pub shared: Arc<Shared>,
    events: mpsc::Sender<LaneEvent>,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, events: mpsc::Sender<LaneEvent>) -> Self {
        Self { shared, events }
    }

    #[inline]
    pub(super) fn lane(&self) -> u8 {
        self.shared.lane
    }

    #[inline]
    pub(super) fn drop(&self, reason: DropReason) {
        self.shared.drops.count(reason);
    }

    /// Counts at the lane and at the epoch.
    #[inline]
    pub(super) fn drop_on(&self, epoch: &DropCounters, reason: DropReason, n: u64) {
        self.shared.drops.add(reason, n);
        epoch.add(reason, n);
    }

    /// An event that an authentic envelope, or this host itself, caused.
    pub(super) fn tell(&self, event: LaneEvent) {
        if self.events.try_send(event).is_err() {
            self.drop(DropReason::ControlQueueFull);
        }
    }

    /// An event that anybody can cause: takes no more than half of the queue, so that junk does not keep the others out.
    pub(super) fn tell_unproven(&self, event: impl FnOnce() -> LaneEvent) {
        if self.events.capacity() <= EVENT_QUEUE / 2 || self.events.try_send(event()).is_err() {
            self.drop(DropReason::UnprovenQueueFull);
        }
    }
}
