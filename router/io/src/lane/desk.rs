//! What every part of a lane's thread needs at hand: the shared state, where events go, and how a drop is counted.

use std::net::UdpSocket;
use std::sync::Arc;

use tokio::sync::mpsc;
use weft_router::drop::{DropCounters, DropReason};

use super::event::{EVENT_QUEUE, LaneEvent};
use super::{Own, Shared};

pub(super) struct Desk {
    pub shared: Arc<Shared>,
    lane: u8,
    events: mpsc::Sender<LaneEvent>,
}

impl Desk {
    pub(super) fn new(lane: u8, shared: Arc<Shared>, events: mpsc::Sender<LaneEvent>) -> Self {
        Self { shared, lane, events }
    }

    /// The number of this thread.
    #[inline]
    pub(super) fn lane(&self) -> u8 {
        self.lane
    }

    /// This lane's own sockets, taps and commands.
    #[inline]
    pub(super) fn own(&self) -> &Own {
        &self.shared.lanes[usize::from(self.lane)]
    }

    /// What envelopes that name `lane` are sent from: this thread's own, or lane 0, for a peer that this lane does not reach.
    #[inline]
    pub(super) fn socket_of(&self, lane: u8) -> &UdpSocket {
        self.shared.lanes[usize::from(lane)].sockets.send()
    }

    #[inline]
    pub(super) fn drop(&self, reason: DropReason) {
        self.shared.drops.count(reason);
    }

    pub(super) fn drop_many(&self, reason: DropReason, n: u64) {
        self.shared.drops.add(reason, n);
    }

    /// Counts at the lane and at the epoch.
    #[inline]
    pub(super) fn drop_on(&self, epoch: &DropCounters, reason: DropReason, n: u64) {
        self.shared.drops.add(reason, n);
        epoch.add(reason, n);
    }

    /// An event that an authentic envelope, or this host itself, caused. Whether there was room for it.
    pub(super) fn tell(&self, event: LaneEvent) -> bool {
        let told = self.events.try_send(event).is_ok();
        if !told {
            self.drop(DropReason::ControlQueueFull);
        }
        told
    }

    /// An event that anybody can cause: takes no more than half of the queue, so that junk does not keep the others out.
    pub(super) fn tell_unproven(&self, event: impl FnOnce() -> LaneEvent) {
        if self.events.capacity() <= EVENT_QUEUE / 2 || self.events.try_send(event()).is_err() {
            self.drop(DropReason::UnprovenQueueFull);
        }
    }
}
