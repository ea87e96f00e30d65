//! What an envelope seals: chunks, one behind the other.
//!
//! ```text
//!  0      1        3
//! | kind | length | body ... |        of a frame or a piece the body begins with its network (32)
//! ```
//! Big endian. Kind 0 is padding: nothing follows. A chunk of a kind not known is dropped by name and the next one read.

use std::ops::Range;

use weft_api::id::NetworkId;

use crate::drop::DropReason;
use crate::offload::plain::Checksum;

/// Bytes before the body of a chunk.
pub const CHUNK_HEAD_LEN: usize = 3;
/// Bytes before a frame, or before the body of a piece.
pub const NETWORK_HEAD_LEN: usize = CHUNK_HEAD_LEN + 4;
/// The longest body of a probe or an answer.
pub const MAX_PROBE_LEN: usize = 128;

const PADDING: u8 = 0;
const FRAME: u8 = 1;
const FRAME_OPEN_CHECKSUM: u8 = 2;
const PIECE: u8 = 3;
const QUIC: u8 = 4;
const PROBE: u8 = 5;
const ANSWER: u8 = 6;
const FRAGMENT: u8 = 7;
const RELAYED: u8 = 8;

/// What a chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkKind {
    /// A whole frame.
    Frame {
        /// Its network.
        network: NetworkId,
        /// Whether its checksum was computed.
        checksum: Checksum,
    },
    /// A piece of a superframe (`offload::piece`).
    Piece {
        /// Its network.
        network: NetworkId,
    },
    /// A QUIC packet.
    Quic,
    /// A probe.
    Probe,
    /// The answer to a probe.
    Answer,
    /// A part of a longer chunk (`crate::fragment`).
    Fragment,
    /// A datagram of two other hosts (`crate::relay`).
    Relayed,
}

/// A chunk of an opened envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// What it is.
    pub kind: ChunkKind,
    /// Its frame, piece, packet or probe: where in the envelope's chunks.
    pub body: Range<usize>,
}

/// Whether an envelope's chunks begin with a probe, which may come from where its sender only looks around.
#[inline]
#[must_use]
pub fn begins_with_probe(chunks: &[u8]) -> bool {
    matches!(chunks.first(), Some(&(PROBE | ANSWER)))
}

/// Walks the chunks of one envelope. Holds no borrow, so that the bytes may be changed between.
#[derive(Default, Debug)]
pub struct Chunks {
    at: usize,
}

impl Chunks {
    /// From the first.
    #[must_use]
    pub fn new() -> Self {
        Self { at: 0 }
    }

    /// The next chunk of `chunks`, which must be the same bytes in every call. An error is one chunk dropped; the walk goes on.
    #[inline]
    pub fn next_in(&mut self, chunks: &[u8]) -> Option<Result<Chunk, DropReason>> {
        let rest = chunks.get(self.at..).filter(|r| !r.is_empty())?;
        if rest[0] == PADDING {
            self.at = chunks.len();
            return None;
        }
        let Some([kind, len0, len1]) = rest.first_chunk::<CHUNK_HEAD_LEN>().copied() else {
            self.at = chunks.len();
            return Some(Err(DropReason::ChunkTruncated));
        };
        let start = self.at + CHUNK_HEAD_LEN;
        let end = start + usize::from(u16::from_be_bytes([len0, len1]));
        if end > chunks.len() {
            self.at = chunks.len();
            return Some(Err(DropReason::ChunkTruncated));
        }
        self.at = end;
        Some(read(kind, start..end, &chunks[start..end]))
    }
}

#[inline]
fn read(kind: u8, body: Range<usize>, bytes: &[u8]) -> Result<Chunk, DropReason> {
    let network =
        || bytes.first_chunk().map(|b| NetworkId(u32::from_be_bytes(*b))).ok_or(DropReason::ChunkTruncated);
    let inner = (body.start + 4).min(body.end)..body.end;
    match kind {
        FRAME | FRAME_OPEN_CHECKSUM => {
            let checksum = if kind == FRAME { Checksum::Computed } else { Checksum::NotComputed };
            Ok(Chunk { kind: ChunkKind::Frame { network: network()?, checksum }, body: inner })
        }
        PIECE => Ok(Chunk { kind: ChunkKind::Piece { network: network()? }, body: inner }),
        QUIC => Ok(Chunk { kind: ChunkKind::Quic, body }),
        PROBE | ANSWER if bytes.len() > MAX_PROBE_LEN => Err(DropReason::ProbeTooLong),
        PROBE => Ok(Chunk { kind: ChunkKind::Probe, body }),
        ANSWER => Ok(Chunk { kind: ChunkKind::Answer, body }),
        FRAGMENT => Ok(Chunk { kind: ChunkKind::Fragment, body }),
        RELAYED => Ok(Chunk { kind: ChunkKind::Relayed, body }),
        _ => Err(DropReason::ChunkUnknown),
    }
}

/// The bytes before a frame of `len` bytes.
#[inline]
#[must_use]
pub fn frame_head(network: NetworkId, checksum: Checksum, len: u16) -> [u8; NETWORK_HEAD_LEN] {
    let kind = if checksum == Checksum::Computed { FRAME } else { FRAME_OPEN_CHECKSUM };
    network_head(kind, network, len)
}

/// The bytes before the body of a piece, `len` bytes long.
#[inline]
#[must_use]
pub fn piece_head(network: NetworkId, len: u16) -> [u8; NETWORK_HEAD_LEN] {
    network_head(PIECE, network, len)
}

/// The bytes before a QUIC packet of `len` bytes.
#[must_use]
pub fn quic_head(len: u16) -> [u8; CHUNK_HEAD_LEN] {
    head(QUIC, len)
}

/// The bytes before a probe of `len` bytes, or the answer to one.
#[must_use]
pub fn probe_head(answer: bool, len: u16) -> [u8; CHUNK_HEAD_LEN] {
    head(if answer { ANSWER } else { PROBE }, len)
}

/// The bytes before a fragment, whose own head is counted in `len`.
#[must_use]
pub fn fragment_head(len: u16) -> [u8; CHUNK_HEAD_LEN] {
    head(FRAGMENT, len)
}

/// The bytes before a relayed datagram, whose own head is counted in `len`.
#[inline]
#[must_use]
pub fn relayed_head(len: u16) -> [u8; CHUNK_HEAD_LEN] {
    head(RELAYED, len)
}

#[inline]
fn network_head(kind: u8, network: NetworkId, len: u16) -> [u8; NETWORK_HEAD_LEN] {
    let [kind, len0, len1] = head(kind, len + 4);
    let [n0, n1, n2, n3] = network.0.to_be_bytes();
    [kind, len0, len1, n0, n1, n2, n3]
}

#[inline]
fn head(kind: u8, len: u16) -> [u8; CHUNK_HEAD_LEN] {
    let [len0, len1] = len.to_be_bytes();
    [kind, len0, len1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Vec<Result<Chunk, DropReason>> {
        let mut chunks = Chunks::new();
        std::iter::from_fn(|| chunks.next_in(bytes)).collect()
    }

    #[test]
    fn several_in_a_row() {
        let network = NetworkId(0xdead_beef);
        let mut bytes = Vec::new();
        bytes.extend(frame_head(network, Checksum::NotComputed, 3));
        bytes.extend(b"abc");
        bytes.extend(head(FRAGMENT, 2));
        bytes.extend(b"xx");
        bytes.extend(head(99, 0));
        bytes.extend(piece_head(network, 2));
        bytes.extend(b"de");
        bytes.extend(quic_head(1));
        bytes.extend(b"q");
        bytes.extend(probe_head(true, 0));
        bytes.extend([PADDING; 20]);
        let got = all(&bytes);
        let frame = ChunkKind::Frame { network, checksum: Checksum::NotComputed };
        assert_eq!(got[0], Ok(Chunk { kind: frame, body: 7..10 }));
        assert_eq!(got[1], Ok(Chunk { kind: ChunkKind::Fragment, body: 13..15 }));
        assert_eq!(got[2], Err(DropReason::ChunkUnknown));
        assert_eq!(got[3], Ok(Chunk { kind: ChunkKind::Piece { network }, body: 25..27 }));
        assert_eq!(&bytes[25..27], b"de");
        assert_eq!(got[4], Ok(Chunk { kind: ChunkKind::Quic, body: 30..31 }));
        assert_eq!(got[5], Ok(Chunk { kind: ChunkKind::Answer, body: 34..34 }));
        assert_eq!(got.len(), 6);
    }

    #[test]
    fn what_is_cut_off_ends_the_walk() {
        let frame = frame_head(NetworkId(1), Checksum::Computed, 1);
        assert_eq!(all(&frame), [Err(DropReason::ChunkTruncated)]);
        assert_eq!(all(&[FRAME, 0]), [Err(DropReason::ChunkTruncated)]);
        assert_eq!(all(&[FRAME, 0, 2, 1, 2]), [Err(DropReason::ChunkTruncated)]);
        let long = [head(PROBE, 129).to_vec(), vec![0; 129]].concat();
        assert_eq!(all(&long), [Err(DropReason::ProbeTooLong)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_inside_their_bounds(bytes in prop::collection::vec(0u8..10, 0..300)) {
            let mut before = 0;
            for chunk in all(&bytes).into_iter().flatten() {
                prop_assert!(chunk.body.start >= before && chunk.body.start <= chunk.body.end);
                prop_assert!(chunk.body.end <= bytes.len());
                before = chunk.body.end;
            }
        }
    }
}
