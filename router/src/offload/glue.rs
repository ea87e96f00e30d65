//! The receiver's half: pieces that follow each other become one superframe again, without a copy of their payload.

use super::headers::{Headers, MAX_HEADERS, MAX_PACKET};
use super::piece::{PieceError, PieceHeader};
use super::run::{Run, Span};
use super::segment::Superheader;
use super::vnet::Offloads;

/// Most pieces in one run, so that a header, the headers and the payloads fit one `writev`. A longer superframe becomes
/// several runs.
pub const MAX_RUN_PIECES: usize = 128;

/// What the network and our own tap for it take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlueLimits {
    /// MTU of the network, in bytes of an IP packet.
    pub inner_mtu: u16,
    /// What TUNSETOFFLOAD granted.
    pub offloads: Offloads,
    /// Most datagrams of one UDP superframe: 64 by every kernel with USO, 128 since Linux 6.10. At least
    /// [`super::piece::MAX_UDP_PIECE_SEGMENTS`].
    pub uso_segments: u16,
}

/// Where the body of a piece lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the caller's receive buffers; the run gives it back in its [`Span`]s.
    pub buffer: u32,
    /// Where in it the body begins.
    pub start: u32,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a piece that ends the run was not taken"]
pub enum Push {
    /// Part of the open run. Its buffer must stay as it is until [`Glue::take`].
    Held,
    /// The same, and the run can grow no further: take it now.
    Complete,
    /// Not taken: it does not continue the open run. [`Glue::take`] that, then push again.
    EndsRun,
}

/// The open run of pieces of one superframe. `K` says where they come from (peer, lane, network); pieces of different
/// keys are never glued.
///
/// Order is the caller's part: before it delivers anything else that arrived, and at the end of each receive batch, it
/// takes the open run. It also drops replays before they come here; a repeated piece is otherwise delivered again.
#[derive(Debug)]
pub struct Glue<K> {
    run: Option<Open<K>>,
    spans: [Span; MAX_RUN_PIECES],
    headers: [u8; MAX_HEADERS],
}

#[derive(Debug)]
struct Open<K> {
    key: K,
    first: PieceHeader,
    headers: Headers,
    offloads: Offloads,
    max_len: usize,
    /// Payload of every piece but the superframe's last; the first piece of a run that grows is not that.
    stride: usize,
    next: u16,
    pieces: usize,
    len: usize,
    is_complete: bool,
}

impl<K: Copy + Eq> Glue<K> {
    /// Nothing open.
    pub fn new() -> Glue<K> {
        Glue { run: None, spans: [Span::default(); MAX_RUN_PIECES], headers: [0; MAX_HEADERS] }
    }

    /// Whether [`Glue::take`] would give something.
    pub fn is_empty(&self) -> bool {
        self.run.is_none()
    }

    /// Takes the chunk body of a piece, which is authentic but may still be a lie. On an error the open run stays as it was.
    #[inline]
    pub fn push(
        &mut self,
        key: K,
        limits: &GlueLimits,
        body: &[u8],
        place: Place,
    ) -> Result<Push, PieceError> {
        let (header, rest) = PieceHeader::parse(body)?;
        let payload = match &mut self.run {
            Some(run) => {
                if !run.continues(key, &header, rest, &self.headers) {
                    return Ok(Push::EndsRun);
                }
                let payload = rest.len() - run.headers.len();
                run.check_payload(&header, payload)?;
                if run.len + payload > run.max_len {
                    run.is_complete = true;
                    return Ok(Push::EndsRun);
                }
                payload
            }
            None => {
                let headers = header.check(rest, limits.inner_mtu)?;
                self.headers[..headers.len()].copy_from_slice(&rest[..headers.len()]);
                let payload = rest.len() - headers.len();
                self.run = Some(Open::new(key, limits, header, headers, payload));
                payload
            }
        };
        let Some(run) = &mut self.run else { return Ok(Push::EndsRun) };
        let start = place.start + (body.len() - payload) as u32;
        self.spans[run.pieces] = Span { buffer: place.buffer, start, len: payload as u32 };
        run.pieces += 1;
        run.len += payload;
        run.next += 1;
        run.is_complete = header.index == header.last || run.pieces == MAX_RUN_PIECES;
        Ok(if run.is_complete { Push::Complete } else { Push::Held })
    }

    /// Ends the open run and gives it, its headers put right. Its payload still lies in the caller's buffers.
    #[inline]
    pub fn take(&mut self) -> Option<Run<'_, K>> {
        let run = self.run.take()?;
        let headers = &mut self.headers[..run.headers.len()];
        let before = run.first.offset;
        let superheader = Superheader {
            shape: run.headers,
            gso_size: run.first.gso_size,
            len: run.len,
            first_segment: before / run.first.gso_size,
            offset: before.into(),
            is_last: run.next == u16::from(run.first.last) + 1,
        };
        Some(Run::new(run.key, superheader, headers, &self.spans[..run.pieces], run.offloads))
    }
}

impl<K: Copy + Eq> Default for Glue<K> {
    fn default() -> Glue<K> {
        Glue::new()
    }
}

impl<K: Copy + Eq> Open<K> {
    fn new(key: K, limits: &GlueLimits, first: PieceHeader, headers: Headers, stride: usize) -> Open<K> {
        let max_len = match headers.kind.is_tcp() {
            true => usize::MAX,
            false => usize::from(limits.uso_segments) * usize::from(first.gso_size),
        };
        let next = first.index.into();
        let offloads = limits.offloads;
        Open { key, first, headers, offloads, max_len, stride, next, pieces: 0, len: 0, is_complete: false }
    }

    /// [`PieceHeader::check_payload`] of a piece that continues this, without its divisions.
    #[inline]
    fn check_payload(&self, piece: &PieceHeader, len: usize) -> Result<(), PieceError> {
        let is_cut = len == self.stride || (piece.index == piece.last && len > 0 && len < self.stride);
        let end = self.headers.packet_overhead() + usize::from(piece.offset) + len;
        if is_cut && end <= MAX_PACKET { Ok(()) } else { piece.check_payload(&self.headers, len) }
    }

    /// Whether a piece is the next one of the same superframe, under the same headers to the byte.
    #[inline]
    fn continues(&self, key: K, piece: &PieceHeader, rest: &[u8], own: &[u8; MAX_HEADERS]) -> bool {
        let expected = PieceHeader {
            index: self.next as u8,
            offset: (usize::from(self.first.offset) + self.len) as u16,
            ..self.first
        };
        !self.is_complete
            && *piece == expected
            && self.key == key
            && rest.get(..self.headers.len()) == Some(&own[..self.headers.len()])
    }
}
