//! A train: envelopes to one peer, sealed behind each other in the send buffer at one stride, sent by one call.

use std::sync::Arc;

use weft_api::id::NetworkId;
use weft_router::chunk::{NETWORK_HEAD_LEN, frame_head, piece_head};
use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, OVERHEAD, Shape, TAG_LEN};
use weft_router::fragment;
use weft_router::offload::plain::Checksum;
use weft_router::offload::{Cut, CutLimits};
use weft_router::relay::{RELAY_ANYWAY, RELAY_CHUNK_LEN, RELAY_FRONT, RELAY_OVERHEAD, Relayed};
use weft_router::stream::MAX_DATAGRAM;

use super::carrier::Carrier;
use super::depart::{Departure, MAX_BYTES, MAX_DATAGRAMS};
use super::desk::Desk;
use super::event::LaneEvent;
use super::wrap::{Counters, Wrap};
use crate::tables::SendEpoch;

/// Room for a full train and the envelope that is being packed behind it.
pub(super) const CAPACITY: usize = MAX_BYTES + MAX_DATAGRAM + RELAY_OVERHEAD;
/// A packed envelope that lacks no more than this of the path's datagram is padded to it, so that the train can go on.
const PADDING_LIMIT: usize = 256;

/// Pieces of a superframe from which on its short last one is padded to the stride, so that the next superframe's can follow in
/// the same train.
const MANY_PIECES: usize = 16;

/// How long envelopes may be.
pub(super) struct Sizes {
    /// On the path in use.
    pub datagram: u16,
    /// On any path of its kind.
    pub floor: u16,
}

/// Envelopes for one peer.
pub(super) struct Train {
    epoch: Arc<SendEpoch>,
    counters: Counters,
    to: Carrier,
    /// A neighbour relays: each envelope travels behind a head that is sealed for the neighbour.
    wrap: Option<Wrap>,
    /// The longest envelope for the peer, and the longest that passes anywhere.
    datagram: usize,
    floor: usize,
    buffer: Box<[u8]>,
    /// Bytes of sealed envelopes.
    len: usize,
    /// Length of each but the last.
    stride: usize,
    count: usize,
    /// Bytes of chunks in the envelope being packed, which begins at `len`.
    packed: usize,
}

impl Train {
    /// An empty one. `buffer` is of [`CAPACITY`].
    pub(super) fn new(
        desk: &Desk,
        epoch: Arc<SendEpoch>,
        (to, wrap): (Carrier, Option<Wrap>),
        sizes: Sizes,
        buffer: Box<[u8]>,
    ) -> Self {
        let lane = if epoch.hears(desk.lane()) { desk.lane() } else { 0 };
        if lane != desk.lane() && epoch.wants(desk.lane()) {
            desk.tell(LaneEvent::LaneWanted { index: epoch.index(), lane: desk.lane() });
        }
        let (datagram, floor) = (usize::from(sizes.datagram).min(MAX_DATAGRAM), sizes.floor.into());
        let counters = Counters::new(lane);
        Self { epoch, counters, to, wrap, datagram, floor, buffer, len: 0, stride: 0, count: 0, packed: 0 }
    }

    pub(super) fn epoch(&self) -> &Arc<SendEpoch> {
        &self.epoch
    }

    pub(super) fn into_buffer(self) -> Box<[u8]> {
        self.buffer
    }

    /// What the pieces for this peer must keep to.
    pub(super) fn cut_limits(&self, inner_mtu: u16) -> CutLimits {
        CutLimits { max_body: self.room(), inner_mtu }
    }

    /// The longest frame that an envelope takes.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.datagram.saturating_sub(OVERHEAD + NETWORK_HEAD_LEN)
    }

    /// Whether that will hardly be more in a moment.
    pub(super) fn is_settled(&self) -> bool {
        self.epoch.is_settled() && self.wrap.as_ref().is_none_or(|wrap| wrap.epoch.is_settled())
    }

    /// Packs a whole frame, no longer than [`Self::room`], behind others in the same envelope, as long as they fit.
    #[inline]
    pub(super) fn push_frame(
        &mut self,
        desk: &Desk,
        network: NetworkId,
        checksum: Checksum,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let chunk = NETWORK_HEAD_LEN + frame.len();
        if OVERHEAD + chunk > self.datagram {
            return Err(DropReason::TooBigForPath);
        }
        if OVERHEAD + self.packed + chunk > self.datagram {
            self.close_envelope(desk, true)?;
        }
        let at = self.len + self.front() + HEADER_LEN + self.packed;
        let (head, body) = self.buffer[at..at + chunk].split_at_mut(NETWORK_HEAD_LEN);
        head.copy_from_slice(&frame_head(network, checksum, frame.len() as u16));
        body.copy_from_slice(frame);
        self.packed += chunk;
        Ok(())
    }

    /// Seals every piece of a superframe into an envelope of its own.
    #[inline]
    pub(super) fn push_pieces(
        &mut self,
        desk: &Desk,
        network: NetworkId,
        cut: &Cut<'_>,
    ) -> Result<(), DropReason> {
        self.close_envelope(desk, false)?;
        let pads = cut.count() >= MANY_PIECES && matches!(self.to, Carrier::Udp(_));
        for piece in cut.pieces() {
            let body = cut.body_len(&piece);
            let mut datagram = OVERHEAD + NETWORK_HEAD_LEN + body;
            self.make_room(desk, datagram);
            let (start, unpadded) = (self.len + self.front(), datagram - TAG_LEN);
            if pads && self.count > 0 && self.len + self.stride <= MAX_BYTES {
                let full = self.stride - self.front();
                let is_last = usize::from(piece.index) + 1 == cut.count();
                if is_last || full - datagram <= PADDING_LIMIT {
                    datagram = full;
                }
            }
            let out = &mut self.buffer[start..start + datagram];
            out[unpadded..].fill(0);
            let chunk = &mut out[HEADER_LEN..unpadded];
            chunk[..NETWORK_HEAD_LEN].copy_from_slice(&piece_head(network, body as u16));
            let (head, rest) = chunk[NETWORK_HEAD_LEN..].split_at_mut(cut.head_len());
            cut.write_head(&piece, head);
            rest.copy_from_slice(cut.payload(&piece));
            self.seal(desk, datagram)?;
        }
        Ok(())
    }

    /// Seals a frame that fits no envelope in parts.
    pub(super) fn push_fragments(
        &mut self,
        desk: &Desk,
        network: NetworkId,
        checksum: Checksum,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        self.push_parts(desk, &[&frame_head(network, checksum, frame.len() as u16), frame].concat())
    }

    fn push_parts(&mut self, desk: &Desk, chunk: &[u8]) -> Result<(), DropReason> {
        let room = self.datagram.saturating_sub(OVERHEAD);
        let parts = fragment::cut(self.epoch.next_fragment(), chunk.len(), room)?;
        self.close_envelope(desk, false)?;
        for (head, part) in parts {
            let datagram = OVERHEAD + head.len() + part.len();
            self.make_room(desk, datagram);
            let start = self.len + self.front() + HEADER_LEN;
            let (before, after) =
                self.buffer[start..start + head.len() + part.len()].split_at_mut(head.len());
            before.copy_from_slice(&head);
            after.copy_from_slice(&chunk[part]);
            self.seal(desk, datagram)?;
        }
        Ok(())
    }

    /// Hands a datagram on that the peer shall take or pass on: an envelope behind a sealed head, anything else in a chunk.
    pub(super) fn push_relayed(
        &mut self,
        desk: &Desk,
        relayed: Relayed,
        carried: &[u8],
    ) -> Result<(), DropReason> {
        if self.wrap.is_some() {
            return Err(DropReason::RelayNested);
        }
        let is_envelope = matches!(Shape::of(carried), Ok(Shape::Envelope(_)));
        let front = if is_envelope { RELAY_OVERHEAD } else { HEADER_LEN + RELAY_CHUNK_LEN };
        let back = if is_envelope { 0 } else { TAG_LEN };
        let datagram = front + carried.len() + back;
        if datagram > self.datagram {
            return match carried.len() {
                ..=RELAY_ANYWAY => {
                    self.push_parts(desk, &[&relayed.chunk(carried.len() as u16), carried].concat())
                }
                _ => Err(DropReason::TooBigForPath),
            };
        }
        self.close_envelope(desk, false)?;
        self.make_room(desk, datagram);
        let out = &mut self.buffer[self.len..self.len + datagram];
        out[front..front + carried.len()].copy_from_slice(carried);
        if !is_envelope {
            out[HEADER_LEN..front].copy_from_slice(&relayed.chunk(carried.len() as u16));
            return self.seal(desk, datagram);
        }
        let header = self.counters.header(desk, &self.epoch, self.count)?;
        let front = out.first_chunk_mut::<RELAY_FRONT>().ok_or(DropReason::TooShort)?;
        relayed.cover(front);
        self.epoch.key().seal_head(header, front);
        self.couple(datagram);
        Ok(())
    }

    /// Sends everything; empty afterwards.
    pub(super) fn flush(&mut self, desk: &Desk) {
        if let Err(reason) = self.close_envelope(desk, false) {
            desk.drop_on(self.epoch.drops(), reason, 1);
        }
        self.depart(desk);
        self.counters.give_back(&self.epoch);
        if let Some(wrap) = &mut self.wrap {
            wrap.counters.give_back(&wrap.epoch);
        }
    }

    /// Seals what is packed. `more`: further envelopes follow, so it may be padded to their stride.
    fn close_envelope(&mut self, desk: &Desk, more: bool) -> Result<(), DropReason> {
        if self.packed == 0 {
            return Ok(());
        }
        let (packed, front) = (std::mem::take(&mut self.packed), self.front());
        let start = self.len + front + HEADER_LEN;
        let mut datagram = OVERHEAD + packed;
        if !self.fits(datagram) {
            // The train leaves without it; what is packed moves to the front.
            self.depart(desk);
            self.buffer.copy_within(start..start + packed, front + HEADER_LEN);
        }
        let full = if self.count == 0 { self.datagram } else { self.stride - front };
        if more && full.saturating_sub(datagram) <= PADDING_LIMIT {
            let padding = self.len + front + HEADER_LEN + packed;
            datagram = datagram.max(full);
            self.buffer[padding..self.len + front + datagram].fill(0);
        }
        self.seal(desk, datagram)
    }

    /// Seals the envelope of `datagram` bytes that lies behind the others, and couples it to them.
    #[inline]
    fn seal(&mut self, desk: &Desk, datagram: usize) -> Result<(), DropReason> {
        let header = self.counters.header(desk, &self.epoch, self.count)?;
        let (start, front) = (self.len, self.front());
        self.epoch.key().seal(header, &mut self.buffer[start + front..start + front + datagram]);
        let mut whole = datagram;
        if let Some(wrap) = &mut self.wrap {
            whole += Wrap::FRONT;
            wrap.seal(desk, &mut self.buffer[start..start + whole], self.count)?;
        }
        self.couple(whole);
        Ok(())
    }

    #[inline]
    fn front(&self) -> usize {
        if self.wrap.is_some() { Wrap::FRONT } else { 0 }
    }

    /// Whether an envelope of `datagram` bytes may be the next of this train: none longer than the first, none after a shorter.
    #[inline]
    fn fits(&self, datagram: usize) -> bool {
        let datagram = self.front() + datagram;
        self.count == 0
            || (datagram <= self.stride
                && self.len == self.count * self.stride
                && self.count < MAX_DATAGRAMS
                && self.len + datagram <= MAX_BYTES)
    }

    #[inline]
    fn make_room(&mut self, desk: &Desk, datagram: usize) {
        if !self.fits(datagram) {
            self.depart(desk);
        }
    }

    #[inline]
    fn couple(&mut self, datagram: usize) {
        if self.count == 0 {
            self.stride = datagram;
        }
        self.len += datagram;
        self.count += 1;
        debug_assert!(self.len <= MAX_BYTES && datagram <= self.stride, "no kernel takes this train");
    }

    /// Hands the sealed envelopes to the kernel.
    fn depart(&mut self, desk: &Desk) {
        let len = std::mem::take(&mut self.len);
        if std::mem::take(&mut self.count) == 0 {
            return;
        }
        let hop = self.wrap.as_ref().map(|wrap| &*wrap.epoch);
        if self.stride - self.front() > self.floor {
            self.epoch.send_full();
            hop.iter().for_each(|hop| hop.send_full());
        }
        let lane = self.wrap.as_ref().map_or(&self.counters, |wrap| &wrap.counters).lane;
        let departure = Departure { to: &self.to, lane, epoch: &self.epoch, hop };
        departure.train(desk, &self.buffer[..len], self.stride);
    }
}
