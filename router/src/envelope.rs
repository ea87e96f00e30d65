//! The 16 bytes before what an envelope seals (PROTOCOL 3), and what the first byte of a datagram says it is.
//!
//! ```text
//!  0      1      2          4                8                16
//! | kind | lane | zero     | session index  | counter (64)   | sealed chunks ... | tag |
//! ```
//! Big endian. A notice has the same 16 bytes and nothing after them. A relayed envelope has the same 16 bytes, a sealed head, and
//! what another envelope seals, as it is (`crate::relay`).

use crate::drop::DropReason;
use crate::relay::RELAY_FRONT;

/// Bytes of the header; all of them are the AEAD's associated data.
pub const HEADER_LEN: usize = 16;
/// Bytes of the tag of every suite.
pub const TAG_LEN: usize = 16;
/// What an envelope adds to its chunks.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// A receiver takes this many sender lanes of a session; envelopes of others are dropped (`LaneOutOfRange`).
pub const MAX_LANES: usize = 64;
/// Each time that a lane has sealed so many it asks for new keys.
pub const COUNTER_WORN: u64 = 1 << 28;
/// From here on a lane sends nothing more under its key, and a receiver takes nothing.
pub const COUNTER_STOP: u64 = 1 << 32;

const QUIC_BIT: u8 = 0x40;
pub(crate) const KIND_ENVELOPE: u8 = 0x10;
const KIND_NOTICE: u8 = 0x11;
pub(crate) const KIND_RELAYED: u8 = 0x12;

/// The header of an envelope, relayed or not, or of a notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The sender's lane.
    pub lane: u8,
    /// Chosen by the receiver, one per epoch.
    pub index: u32,
    /// Used once per lane and key.
    pub counter: u64,
}

/// What a datagram is, by its first bytes alone; nothing of it is believed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// A QUIC packet outside an envelope.
    Bare,
    /// An envelope.
    Envelope(Header),
    /// An envelope of two other hosts behind a head that is sealed under this header.
    Relayed(Header),
    /// The peer does not know the session index of the header, which we sent.
    Notice(Header),
}

impl Header {
    /// The bytes before an envelope's chunks.
    #[inline]
    #[must_use]
    pub fn envelope(self) -> [u8; HEADER_LEN] {
        self.bytes(KIND_ENVELOPE)
    }

    /// The bytes before the sealed head of a relayed envelope.
    #[inline]
    #[must_use]
    pub fn relayed(self) -> [u8; HEADER_LEN] {
        self.bytes(KIND_RELAYED)
    }

    /// A whole notice: the header of the envelope that it answers, never longer than its cause.
    #[must_use]
    pub fn notice(self) -> [u8; HEADER_LEN] {
        self.bytes(KIND_NOTICE)
    }

    #[inline]
    fn bytes(self, kind: u8) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = kind;
        bytes[1] = self.lane;
        bytes[4..8].copy_from_slice(&self.index.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

impl Shape {
    /// Judges a datagram by its own first bytes.
    #[inline]
    pub fn of(datagram: &[u8]) -> Result<Shape, DropReason> {
        let kind = *datagram.first().ok_or(DropReason::Empty)?;
        if kind & QUIC_BIT != 0 {
            return Ok(Shape::Bare);
        }
        let shortest = match kind {
            KIND_ENVELOPE => OVERHEAD + 1,
            KIND_NOTICE => HEADER_LEN,
            KIND_RELAYED => RELAY_FRONT + 1 + TAG_LEN,
            _ => return Err(DropReason::UnknownKind),
        };
        let Some(header) = datagram.first_chunk::<HEADER_LEN>().filter(|_| datagram.len() >= shortest) else {
            return Err(DropReason::TooShort);
        };
        let [_, lane, zero0, zero1, i0, i1, i2, i3, counter @ ..] = *header;
        if zero0 | zero1 != 0 {
            return Err(DropReason::HeaderNotZero);
        }
        let header = Header {
            lane,
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            counter: u64::from_be_bytes(counter),
        };
        match kind {
            KIND_NOTICE => Ok(Shape::Notice(header)),
            _ if usize::from(lane) >= MAX_LANES => Err(DropReason::LaneOutOfRange),
            _ if header.counter >= COUNTER_STOP => Err(DropReason::CounterBeyondStop),
            KIND_RELAYED => Ok(Shape::Relayed(header)),
            _ => Ok(Shape::Envelope(header)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn header_goes_round(lane in 0..MAX_LANES as u8, index: u32, counter in 0..COUNTER_STOP, tail in 17usize..40) {
            let header = Header { lane, index, counter };
            let mut bytes = header.envelope().to_vec();
            bytes.resize(HEADER_LEN + tail, 7);
            prop_assert_eq!(Shape::of(&bytes), Ok(Shape::Envelope(header)));
            prop_assert_eq!(Shape::of(&header.notice()), Ok(Shape::Notice(header)));
            bytes[..HEADER_LEN].copy_from_slice(&header.relayed());
            prop_assert_eq!(Shape::of(&bytes), Err(DropReason::TooShort));
            bytes.resize(RELAY_FRONT + tail, 7);
            prop_assert_eq!(Shape::of(&bytes), Ok(Shape::Relayed(header)));
        }

        #[test]
        fn any_bytes_have_a_shape_or_a_reason(kind in 0x0fu8..0x14, mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(first) = bytes.first_mut().filter(|first| **first & 1 == 0) {
                *first = kind;
            }
            match Shape::of(&bytes) {
                Ok(Shape::Bare) => prop_assert!(bytes[0] & 0x40 != 0),
                Ok(Shape::Envelope(header)) => prop_assert_eq!(&header.envelope()[..], &bytes[..16]),
                Ok(Shape::Relayed(header)) => prop_assert_eq!(&header.relayed()[..], &bytes[..16]),
                Ok(Shape::Notice(header)) => prop_assert_eq!(&header.notice()[..], &bytes[..16]),
                Err(_) => {}
            }
        }
    }

    #[test]
    fn junk_is_named_by_its_shape() {
        let good = Header { lane: 0, index: 1, counter: 2 }.envelope();
        let with = |at: usize, value: u8| {
            let mut bytes = [good.as_slice(), &[0; 17]].concat();
            bytes[at] = value;
            Shape::of(&bytes)
        };
        assert_eq!(Shape::of(&[]), Err(DropReason::Empty));
        assert_eq!(Shape::of(&good), Err(DropReason::TooShort));
        assert_eq!(with(0, 0x05), Err(DropReason::UnknownKind));
        assert_eq!(with(0, 0x12), Err(DropReason::TooShort));
        assert_eq!(with(0, 0xc1), Ok(Shape::Bare));
        assert_eq!(with(1, 64), Err(DropReason::LaneOutOfRange));
        assert_eq!(with(2, 1), Err(DropReason::HeaderNotZero));
        assert_eq!(with(11, 1), Err(DropReason::CounterBeyondStop));
    }
}
