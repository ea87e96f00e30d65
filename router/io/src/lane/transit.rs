//! Relayed envelopes on their way through: they lie in the receive buffer as they came, the head of each is sealed anew in its place,
//! and what one call received leaves by one. What they carry is neither opened nor copied.

use std::ops::Range;
use std::sync::Arc;

use weft_api::id::HostId;
use weft_router::drop::DropReason;
use weft_router::relay::{RELAY_FRONT, Relayed};
use weft_router::session::mtu::floor;
use weft_router::stream::MAX_DATAGRAM;

use super::carrier::Carrier;
use super::depart::{Departure, MAX_BYTES, MAX_DATAGRAMS};
use super::desk::Desk;
use super::wrap::Counters;
use crate::tables::{SendEpoch, Tables};

/// What goes on to one neighbour; another one, or another place in the buffer, and it departs.
#[derive(Default)]
pub(super) struct Transit {
    hop: Option<Hop>,
    /// Where in the buffer what has not yet departed lies.
    range: Range<usize>,
    stride: usize,
    count: usize,
}

/// The neighbour.
struct Hop {
    epoch: Arc<SendEpoch>,
    to: Carrier,
    counters: Counters,
    /// The longest datagram that it can be sent, and the longest that passes anywhere.
    datagram: usize,
    floor: usize,
}

impl Hop {
    fn of(desk: &Desk, tables: &Tables, host: HostId) -> Result<Self, DropReason> {
        let epoch = Arc::clone(tables.sends.get(&host).ok_or(DropReason::NoSession)?);
        let path = epoch.path().filter(|path| path.way.is_direct()).ok_or(DropReason::NoPath)?;
        let to = Carrier::of(desk, path.way)?;
        let lane = if epoch.hears(desk.lane()) { desk.lane() } else { 0 };
        let (datagram, floor) = (usize::from(path.datagram).min(MAX_DATAGRAM), floor(path.way).into());
        Ok(Self { epoch, to, counters: Counters::new(lane), datagram, floor })
    }
}

impl Transit {
    /// Turns to the neighbour `next`; whether it can be sent a datagram of `len` bytes.
    #[inline]
    pub(super) fn takes(
        &mut self,
        desk: &Desk,
        tables: &Tables,
        next: HostId,
        buffer: &[u8],
        len: usize,
    ) -> Result<bool, DropReason> {
        if let Some(hop) = self.hop.as_ref().filter(|hop| hop.epoch.host() == next) {
            return Ok(len <= hop.datagram);
        }
        self.finish(desk, buffer);
        let hop = Hop::of(desk, tables, next)?;
        let takes = len <= hop.datagram;
        self.hop = Some(hop);
        Ok(takes)
    }

    /// Seals the head of the envelope at `range` of the buffer for that neighbour.
    #[inline]
    pub(super) fn push(
        &mut self,
        desk: &Desk,
        relayed: Relayed,
        buffer: &mut [u8],
        range: Range<usize>,
    ) -> Result<(), DropReason> {
        if !self.continues(&range) {
            self.depart(desk, buffer);
        }
        let Some(hop) = &mut self.hop else { return Err(DropReason::NoSession) };
        let header = hop.counters.header(desk, &hop.epoch, self.count)?;
        let datagram = &mut buffer[range.clone()];
        let front = datagram.first_chunk_mut::<RELAY_FRONT>().ok_or(DropReason::TooShort)?;
        relayed.readdress(front);
        hop.epoch.key().seal_head(header, front);
        if self.count == 0 {
            (self.range.start, self.stride) = (range.start, range.len());
        }
        self.range.end = range.end;
        self.count += 1;
        Ok(())
    }

    /// Whether the envelope at `range` may be the next of the same train: right behind the others, none longer than the first,
    /// none after a shorter.
    #[inline]
    fn continues(&self, range: &Range<usize>) -> bool {
        self.count == 0
            || (range.start == self.range.end
                && self.range.len() == self.count * self.stride
                && range.len() <= self.stride
                && self.count < MAX_DATAGRAMS
                && range.end - self.range.start <= MAX_BYTES)
    }

    /// What is sealed leaves; the buffer may be used for something else then.
    pub(super) fn depart(&mut self, desk: &Desk, buffer: &[u8]) {
        let (Some(hop), 1..) = (&self.hop, std::mem::take(&mut self.count)) else { return };
        if self.stride > hop.floor {
            hop.epoch.send_full();
        }
        let departure = Departure { to: &hop.to, lane: hop.counters.lane, epoch: &hop.epoch, hop: None };
        departure.train(desk, &buffer[self.range.clone()], self.stride);
    }

    /// The same, and the neighbour is let go.
    pub(super) fn finish(&mut self, desk: &Desk, buffer: &[u8]) {
        self.depart(desk, buffer);
        if let Some(mut hop) = self.hop.take() {
            hop.counters.give_back(&hop.epoch);
        }
    }
}
