//! A run of glued pieces, and the writes to our tap that deliver it.

use std::ops::Range;

use super::headers::{CWR, MAX_HEADERS};
use super::plain::Checksum;
use super::segment::Superheader;
use super::vnet::{Offloads, VnetHeader};

/// Bytes in one of the caller's buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The number that the caller gave with the piece.
    pub buffer: u32,
    /// The first byte.
    pub start: u32,
    /// How many.
    pub len: u32,
}

impl Span {
    /// The same as a range.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// One write to the tap: the bytes of `vnet`, `headers` and every span of `payload`, in this order.
#[derive(Clone, Copy, Debug)]
pub struct Write<'r> {
    /// Built here; nothing in it is the peer's word.
    pub vnet: VnetHeader,
    /// Ethernet to TCP or UDP, put right.
    pub headers: &'r [u8],
    /// At most [`super::MAX_RUN_PIECES`].
    pub payload: &'r [Span],
}

/// Consecutive pieces of one superframe under one header.
#[derive(Debug)]
pub struct Run<'g, K> {
    key: K,
    superheader: Superheader,
    headers: &'g [u8],
    payload: &'g [Span],
    offloads: Offloads,
}

impl<'g, K: Copy> Run<'g, K> {
    pub(super) fn new(
        key: K,
        superheader: Superheader,
        headers: &'g mut [u8],
        payload: &'g [Span],
        offloads: Offloads,
    ) -> Run<'g, K> {
        superheader.rewrite(headers);
        Run { key, superheader, headers, payload, offloads }
    }

    /// Where the pieces came from.
    pub fn key(&self) -> K {
        self.key
    }

    /// The headers, for the switch to judge: MACs, addresses.
    pub fn headers(&self) -> &'g [u8] {
        self.headers
    }

    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.superheader.segments()
    }

    /// Bytes of the frame, headers and payload.
    pub fn frame_len(&self) -> usize {
        self.headers.len() + self.superheader.len
    }

    /// Calls `write` for each write to the tap: one, or one for each segment where our tap does not take the
    /// superframe. `bytes` gives the bytes of a span; it is called only if checksums must be computed.
    #[inline]
    pub fn emit<'b>(&self, bytes: impl Fn(Span) -> &'b [u8], mut write: impl FnMut(Write<'_>)) {
        let Superheader { shape, gso_size, .. } = self.superheader;
        let ecn = shape.tcp_flags(self.headers) & CWR != 0;
        let is_single = self.segments() == 1;
        let needs = match (is_single, ecn) {
            (true, _) => Offloads::CSUM,
            (false, false) => shape.kind.offloads(),
            (false, true) => shape.kind.offloads().with(Offloads::TSO_ECN),
        };
        if self.offloads.has(needs) {
            let vnet = shape.vnet((!is_single).then_some(gso_size), ecn);
            write(Write { vnet, headers: self.headers, payload: self.payload });
        } else {
            self.emit_segments(bytes, write);
        }
    }

    fn emit_segments<'b>(&self, bytes: impl Fn(Span) -> &'b [u8], mut write: impl FnMut(Write<'_>)) {
        let has_csum = self.offloads.has(Offloads::CSUM);
        let checksum = if has_csum { Checksum::NotComputed } else { Checksum::Computed };
        let gso_size = u32::from(self.superheader.gso_size);
        let mut own = [0; MAX_HEADERS];
        let mut index = 0;
        for piece in self.payload {
            // A piece holds whole segments, so none crosses from one span into the next.
            for at in (0..piece.len).step_by(gso_size as usize) {
                let span =
                    Span { start: piece.start + at, len: gso_size.min(piece.len - at), buffer: piece.buffer };
                let vnet = self.superheader.segment(self.headers, index, bytes(span), checksum, &mut own);
                write(Write { vnet, headers: &own[..self.headers.len()], payload: &[span] });
                index += 1;
            }
        }
    }
}
