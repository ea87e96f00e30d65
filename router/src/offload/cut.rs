//! The sender's half: a superframe from our tap becomes pieces that each fit one datagram.

use std::iter::FusedIterator;
use std::ops::Range;

use thiserror::Error;

use super::headers::{Headers, HeadersError, Kind, MAX_PACKET};
use super::piece::{MAX_PIECES, MAX_UDP_PIECE_SEGMENTS, PIECE_HEADER_LEN, PieceHeader};
use super::vnet::{Gso, VnetHeader};

/// What the pieces of a superframe must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// Bytes that the body of a chunk may have on the path to the peer.
    pub max_body: usize,
    /// MTU of the network, in bytes of an IP packet.
    pub inner_mtu: u16,
}

/// Why a superframe of our own tap is not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CutError {
    /// A frame without GSO: it travels as a plain frame.
    #[error("the frame is no superframe")]
    NotSuperframe,
    /// A GSO type that we did not ask for.
    #[error("the superframe has the GSO type {0}, which we did not ask for")]
    UnknownGso(u8),
    /// Not understood, or not what the GSO type says.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// The GSO type and the headers differ.
    #[error("the superframe has the GSO type {gso_type}, but its headers are {found:?}")]
    KindMismatch {
        /// As the tap said.
        gso_type: u8,
        /// In the frame.
        found: Kind,
    },
    /// Its checksum is another than that of its own TCP or UDP header.
    #[error("the checksum not computed lies at {start}+{offset}, not in the frame's own TCP or UDP header")]
    ChecksumElsewhere {
        /// As the tap said.
        start: u16,
        /// As the tap said.
        offset: u16,
    },
    /// A segment size of 0, no payload, or more of it than an IP packet holds.
    #[error("the superframe has {len} bytes of payload in segments of {gso_size}")]
    ImpossibleLength {
        /// Bytes of payload.
        len: usize,
        /// As the tap said.
        gso_size: u16,
    },
    /// UDP boundaries are content, so a datagram is never cut here. Send the segments of [`super::segment::each`] as
    /// plain frames, which the envelope fragments, or answer too-big.
    #[error("a UDP segment of {gso_size} bytes does not fit the {room} that this path takes")]
    UdpTooBig {
        /// Payload bytes of a datagram.
        gso_size: u16,
        /// What fits.
        room: usize,
    },
    /// It would take more than [`MAX_PIECES`], or not even the headers fit.
    #[error("the path takes only {max_body} bytes, too few for the pieces of a superframe")]
    PathTooSmall {
        /// As the caller said.
        max_body: usize,
    },
}

/// A superframe about to be sent. For each of [`Cut::pieces`] the caller makes a chunk of [`Cut::body_len`] bytes:
/// [`Cut::write_head`], sealed in place, then [`Cut::payload`], sealed out of place from the tap's buffer. All bodies but
/// the last have the same length, as UDP_SEGMENT wants.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'f> {
    frame: &'f [u8],
    headers: Headers,
    id: u16,
    gso_size: u16,
    piece_len: u32,
    last: u8,
}

/// One piece of a [`Cut`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its number, from 0.
    pub index: u8,
    /// Payload bytes of the superframe before it.
    pub offset: u16,
    /// Its payload, as a range of the frame.
    pub payload: Range<usize>,
}

impl<'f> Cut<'f> {
    /// Plans the pieces of `frame`, which our tap gave with `vnet` before it. `id` tells this superframe from others of the
    /// lane: a count that wraps. TCP whose segments do not fit path or network is cut anew at what fits.
    pub fn new(vnet: &VnetHeader, frame: &'f [u8], limits: CutLimits, id: u16) -> Result<Cut<'f>, CutError> {
        let Superframe { headers, gso_size, payload_len } = Superframe::check(vnet, frame)?;
        let too_small = CutError::PathTooSmall { max_body: limits.max_body };
        let most_body = limits.max_body.min(MAX_PACKET);
        let room = most_body.checked_sub(PIECE_HEADER_LEN + headers.len()).ok_or(too_small)?;
        let limit = room.min(usize::from(limits.inner_mtu).saturating_sub(headers.packet_overhead()));
        let whole = usize::from(gso_size).min(payload_len);
        if whole > limit && !headers.kind.is_tcp() {
            return Err(CutError::UdpTooBig { gso_size, room: limit });
        }
        let segment = whole.min(limit);
        if segment == 0 {
            return Err(too_small);
        }
        let most = if headers.kind.is_tcp() { usize::MAX } else { MAX_UDP_PIECE_SEGMENTS };
        let piece_len = segment * (room / segment).min(most);
        let pieces = payload_len.div_ceil(piece_len);
        if pieces > MAX_PIECES {
            return Err(too_small);
        }
        let (last, piece_len) = ((pieces - 1) as u8, piece_len as u32);
        Ok(Cut { frame, headers, id, gso_size: segment as u16, piece_len, last })
    }

    /// How many pieces there are.
    pub fn count(&self) -> usize {
        usize::from(self.last) + 1
    }

    /// The pieces, in order.
    #[inline]
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = Piece> + FusedIterator + Clone + use<> {
        let (start, end, step) = (self.headers.len(), self.frame.len(), self.piece_len as usize);
        (0..u16::from(self.last) + 1).map(move |index| {
            let offset = usize::from(index) * step;
            let from = start + offset;
            Piece { index: index as u8, offset: offset as u16, payload: from..end.min(from + step) }
        })
    }

    /// Bytes of every piece before its payload.
    #[inline]
    pub fn head_len(&self) -> usize {
        PIECE_HEADER_LEN + self.headers.len()
    }

    /// Bytes of the chunk body of `piece`.
    #[inline]
    pub fn body_len(&self, piece: &Piece) -> usize {
        self.head_len() + piece.payload.len()
    }

    /// Writes the piece header and the copy of the frame's headers into the first [`Cut::head_len`] bytes of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than that.
    #[inline]
    pub fn write_head(&self, piece: &Piece, out: &mut [u8]) {
        let header = PieceHeader {
            kind: self.headers.kind,
            index: piece.index,
            last: self.last,
            id: self.id,
            gso_size: self.gso_size,
            offset: piece.offset,
        };
        out[..PIECE_HEADER_LEN].copy_from_slice(&header.to_bytes());
        out[PIECE_HEADER_LEN..self.head_len()].copy_from_slice(&self.frame[..self.headers.len()]);
    }

    /// The payload of `piece` in the frame.
    #[inline]
    pub fn payload(&self, piece: &Piece) -> &'f [u8] {
        &self.frame[piece.payload.clone()]
    }
}

/// A superframe from our tap, checked: its container may have made it by hand.
pub(super) struct Superframe {
    pub headers: Headers,
    pub gso_size: u16,
    pub payload_len: usize,
}

impl Superframe {
    pub fn check(vnet: &VnetHeader, frame: &[u8]) -> Result<Superframe, CutError> {
        if !vnet.is_superframe() {
            return Err(CutError::NotSuperframe);
        }
        let gso_type = vnet.gso_type & !VnetHeader::GSO_ECN;
        if ![Gso::Tcp4, Gso::Tcp6, Gso::Udp].iter().any(|known| *known as u8 == gso_type) {
            return Err(CutError::UnknownGso(gso_type));
        }
        let headers = Headers::of(frame)?;
        if headers.kind.gso() as u8 != gso_type {
            return Err(CutError::KindMismatch { gso_type, found: headers.kind });
        }
        let own = (headers.l4, headers.kind.checksum_offset());
        if vnet.needs_checksum() && (vnet.csum_start, vnet.csum_offset) != own {
            return Err(CutError::ChecksumElsewhere { start: vnet.csum_start, offset: vnet.csum_offset });
        }
        let (payload_len, gso_size) = (frame.len() - headers.len(), vnet.gso_size);
        if gso_size == 0 || payload_len == 0 || headers.packet_overhead() + payload_len > MAX_PACKET {
            return Err(CutError::ImpossibleLength { len: payload_len, gso_size });
        }
        Ok(Superframe { headers, gso_size, payload_len })
    }
}
