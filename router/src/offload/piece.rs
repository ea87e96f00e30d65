//! The bytes of a piece: what a chunk of that kind holds.
//!
//! ```text
//!  0      1       2      3               5          7         9
//! | kind | index | last | superframe id | gso size | offset  | copy of the headers ... | payload ... |
//! ```
//! Big endian. `kind`: 1 TCPv4, 2 TCPv6, 3 UDPv4, 4 UDPv6. `index` of `0..=last`. `superframe id`: the sender lane's count,
//! which wraps. `gso size`: payload bytes of a segment. `offset`: payload bytes of the superframe before this piece.
//! The headers are the superframe's own, Ethernet to TCP options, the same in every piece: who glues puts them right. Their
//! L4 checksum is "not computed". The payload is whole segments; only the superframe's last may be shorter.

use thiserror::Error;

use super::headers::{Headers, HeadersError, Kind, MAX_PACKET};

/// Bytes of a piece before the copy of the headers.
pub const PIECE_HEADER_LEN: usize = 9;
/// Most pieces of a superframe, as many as `last` can number.
pub const MAX_PIECES: usize = 256;
/// Most segments in a piece of a UDP superframe: what every kernel with USO takes in one write.
pub const MAX_UDP_PIECE_SEGMENTS: usize = 64;

/// Why a piece from the mesh is dropped. Each is a fault, or a lie, of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PieceError {
    /// Shorter than its own header and the smallest frame's.
    #[error("the piece is cut off after {0} bytes")]
    Truncated(usize),
    /// A number that is no [`Kind`].
    #[error("the piece is of the unknown kind {0}")]
    UnknownKind(u8),
    /// More than the last.
    #[error("the piece has number {index} of 0 to {last}")]
    AbsurdNumber {
        /// As it says.
        index: u8,
        /// As it says.
        last: u8,
    },
    /// Its headers are not those of a superframe.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// Its headers are those of another kind.
    #[error("the piece says {said:?}, but its headers are {found:?}")]
    KindMismatch {
        /// In the piece header.
        said: Kind,
        /// In the copy of the headers.
        found: Kind,
    },
    /// Zero, or more than the network's MTU leaves.
    #[error("the piece has segments of {gso_size} bytes; this network takes 1 to {limit}")]
    SegmentSize {
        /// As it says.
        gso_size: u16,
        /// MTU less the headers.
        limit: u16,
    },
    /// Not whole segments, nothing at all, or an offset that no cutting gives.
    #[error("{len} bytes at offset {offset} are no piece of a superframe with segments of {gso_size}")]
    ImpossibleLength {
        /// Bytes of payload.
        len: usize,
        /// As it says.
        offset: u16,
        /// As it says.
        gso_size: u16,
    },
    /// The superframe would be longer than an IP packet.
    #[error("the piece ends at byte {0} of its superframe, past the end of the longest IP packet")]
    TooLong(usize),
}

/// The first nine bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PieceHeader {
    pub kind: Kind,
    pub index: u8,
    pub last: u8,
    pub id: u16,
    pub gso_size: u16,
    pub offset: u16,
}

impl PieceHeader {
    #[inline]
    pub fn to_bytes(self) -> [u8; PIECE_HEADER_LEN] {
        let [id, gso_size, offset] = [self.id, self.gso_size, self.offset].map(u16::to_be_bytes);
        [self.kind as u8, self.index, self.last, id[0], id[1], gso_size[0], gso_size[1], offset[0], offset[1]]
    }

    /// The header and the bytes after it. What it says is in range by itself, no more.
    #[inline]
    pub fn parse(body: &[u8]) -> Result<(PieceHeader, &[u8]), PieceError> {
        let (header, rest) =
            body.split_first_chunk::<PIECE_HEADER_LEN>().ok_or(PieceError::Truncated(body.len()))?;
        let [kind, index, last, id0, id1, gso0, gso1, offset0, offset1] = *header;
        let kind = Kind::from_wire(kind).ok_or(PieceError::UnknownKind(kind))?;
        if index > last {
            return Err(PieceError::AbsurdNumber { index, last });
        }
        let header = PieceHeader {
            kind,
            index,
            last,
            id: u16::from_be_bytes([id0, id1]),
            gso_size: u16::from_be_bytes([gso0, gso1]),
            offset: u16::from_be_bytes([offset0, offset1]),
        };
        Ok((header, rest))
    }

    /// Checks `rest`, what followed the header, by itself: the first piece of a run.
    pub fn check(&self, rest: &[u8], inner_mtu: u16) -> Result<Headers, PieceError> {
        let headers = Headers::of(rest)?;
        if headers.kind != self.kind {
            return Err(PieceError::KindMismatch { said: self.kind, found: headers.kind });
        }
        let limit = usize::from(inner_mtu).saturating_sub(headers.packet_overhead()) as u16;
        if self.gso_size == 0 || self.gso_size > limit {
            return Err(PieceError::SegmentSize { gso_size: self.gso_size, limit });
        }
        self.check_payload(&headers, rest.len() - headers.len())?;
        Ok(headers)
    }

    /// Checks the length of the payload and where it says it lies. All pieces but the last are equally long.
    #[inline]
    pub fn check_payload(&self, headers: &Headers, len: usize) -> Result<(), PieceError> {
        let (offset, gso_size, index) =
            (usize::from(self.offset), usize::from(self.gso_size), usize::from(self.index));
        let stride = match (self.index, self.index == self.last) {
            (_, false) => len,
            (0, true) => len.next_multiple_of(gso_size),
            (_, true) => offset / index,
        };
        let is_cut = len > 0 && len <= stride && stride.is_multiple_of(gso_size) && offset == stride * index;
        let too_many = !self.kind.is_tcp() && len > gso_size * MAX_UDP_PIECE_SEGMENTS;
        if !is_cut || too_many {
            return Err(PieceError::ImpossibleLength { len, offset: self.offset, gso_size: self.gso_size });
        }
        let end = headers.packet_overhead() + offset + len;
        if end > MAX_PACKET { Err(PieceError::TooLong(end)) } else { Ok(()) }
    }
}
