//! What envelopes take from an epoch before they are sealed: counters, by the handful; and the cover in which they travel by a
//! neighbour that relays.

use std::ops::Range;
use std::sync::Arc;

use weft_router::drop::DropReason;
use weft_router::envelope::Header;
use weft_router::relay::{RELAY_FRONT, RELAY_OVERHEAD, Relayed};

use super::desk::Desk;
use super::event::LaneEvent;
use crate::tables::SendEpoch;

/// The counters of an epoch that are taken and not yet used.
pub(super) struct Counters {
    /// What the envelopes say: this lane, or lane 0 to a peer that does not hear this one.
    pub lane: u8,
    left: Range<u64>,
}

impl Counters {
    pub(super) fn new(lane: u8) -> Self {
        Self { lane, left: 0..0 }
    }

    /// The header of the next envelope of `epoch`. Takes as many counters as the train has envelopes by now.
    #[inline]
    pub(super) fn header(
        &mut self,
        desk: &Desk,
        epoch: &SendEpoch,
        count: usize,
    ) -> Result<Header, DropReason> {
        if self.left.is_empty() {
            let (taken, worn) = epoch.use_counters(self.lane, count.max(1) as u64)?;
            tell_worn(desk, epoch, worn);
            self.left = taken;
        }
        let counter = self.left.start;
        self.left.start += 1;
        Ok(Header { lane: self.lane, index: epoch.index(), counter })
    }

    pub(super) fn give_back(&mut self, epoch: &SendEpoch) {
        epoch.give_back(self.lane, std::mem::take(&mut self.left));
    }
}

/// The neighbour by which envelopes for a peer travel.
pub(super) struct Wrap {
    pub epoch: Arc<SendEpoch>,
    pub counters: Counters,
    relayed: Relayed,
}

impl Wrap {
    /// Bytes before the peer's envelope.
    pub(super) const FRONT: usize = RELAY_OVERHEAD;

    /// `lane`: what they say.
    pub(super) fn new(epoch: Arc<SendEpoch>, lane: u8, relayed: Relayed) -> Self {
        Self { epoch, counters: Counters::new(lane), relayed }
    }

    /// Covers the sealed envelope that lies in `out` behind [`Self::FRONT`], the `count`th of its train.
    #[inline]
    pub(super) fn seal(&mut self, desk: &Desk, out: &mut [u8], count: usize) -> Result<(), DropReason> {
        let header = self.counters.header(desk, &self.epoch, count)?;
        self.cover(header, out)
    }

    /// Covers one that goes alone.
    pub(super) fn seal_alone(&self, desk: &Desk, sealed: &[u8]) -> Result<Vec<u8>, DropReason> {
        let lane = self.counters.lane;
        let (counter, worn) = self.epoch.use_counter(lane)?;
        let mut out = [&[0; Self::FRONT], sealed].concat();
        self.cover(Header { lane, index: self.epoch.index(), counter }, &mut out)?;
        tell_worn(desk, &self.epoch, worn);
        Ok(out)
    }

    #[inline]
    fn cover(&self, header: Header, out: &mut [u8]) -> Result<(), DropReason> {
        let front = out.first_chunk_mut::<RELAY_FRONT>().ok_or(DropReason::TooShort)?;
        self.relayed.cover(front);
        self.epoch.key().seal_head(header, front);
        Ok(())
    }
}

pub(super) fn tell_worn(desk: &Desk, epoch: &SendEpoch, worn: bool) {
    if worn {
        desk.tell(LaneEvent::Worn { host: epoch.host(), index: epoch.index() });
    }
}
