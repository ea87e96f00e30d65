//! What runs on a TCP stream between hosts (PROTOCOL 5): the dialler's preface, then records, each a datagram as on UDP.
//!
//! ```text
//!  0         4         5          8
//! | "weft" | version | zero      |           the preface, sent by the dialler; the acceptor is silent until then
//!  0         2
//! | length  | datagram ... |                 a record, any number of them, both ways
//! ```

pub mod gate;

use std::ops::Range;

use crate::drop::DropReason;

/// What the dialler says first.
pub const PREFACE: [u8; 8] = *b"weft\x01\0\0\0";
/// Bytes before each datagram.
pub const LENGTH_LEN: usize = 2;
/// The longest datagram of a record; a stream with a longer one is closed (`StreamGarbled`). Longer ones than UDP carries cost
/// fewer seals.
pub const MAX_DATAGRAM: usize = 9216;

/// The bytes before a datagram of `len`, which is 1 to [`MAX_DATAGRAM`].
#[inline]
#[must_use]
pub fn record_head(len: usize) -> [u8; LENGTH_LEN] {
    debug_assert!((1..=MAX_DATAGRAM).contains(&len));
    (len as u16).to_be_bytes()
}

/// Where the datagram lies whose record begins at `at`; `None` if not all of it has come.
#[inline]
pub fn datagram_at(bytes: &[u8], at: usize) -> Result<Option<Range<usize>>, DropReason> {
    let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<LENGTH_LEN>()) else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*head));
    if !(1..=MAX_DATAGRAM).contains(&len) {
        return Err(DropReason::StreamGarbled);
    }
    let datagram = at + LENGTH_LEN..at + LENGTH_LEN + len;
    Ok((datagram.end <= bytes.len()).then_some(datagram))
}

/// How many of `bytes`, which begin with a record, are whole records.
pub fn whole_records(bytes: &[u8]) -> Result<usize, DropReason> {
    let mut whole = 0;
    while let Some(datagram) = datagram_at(bytes, whole)? {
        whole = datagram.end;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_within_themselves(bytes: Vec<u8>, at in 0..64_usize) {
            if let Ok(Some(datagram)) = datagram_at(&bytes, at) {
                prop_assert!(datagram.start >= at + LENGTH_LEN && datagram.end <= bytes.len() && !datagram.is_empty());
            }
            if let Ok(whole) = whole_records(&bytes) {
                prop_assert!(whole <= bytes.len());
            }
        }

        /// However the stream is cut, the same datagrams come out.
        #[test]
        fn records_survive_any_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in prop::collection::vec(1..400_usize, 1..40),
        ) {
            let stream: Vec<u8> = datagrams.iter().flat_map(|d| [&record_head(d.len())[..], d].concat()).collect();
            let (mut held, mut rest, mut found) = (Vec::new(), &stream[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                held.extend_from_slice(now);
                rest = later;
                let whole = whole_records(&held).unwrap();
                let mut at = 0;
                while at < whole {
                    let datagram = datagram_at(&held, at).unwrap().unwrap();
                    at = datagram.end;
                    found.push(held[datagram].to_vec());
                }
                held.drain(..whole);
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(held.is_empty());
            prop_assert_eq!(found, datagrams);
        }
    }

    #[test]
    fn lengths_have_bounds() {
        assert_eq!(whole_records(&[0, 0]), Err(DropReason::StreamGarbled));
        assert_eq!(whole_records(&(MAX_DATAGRAM as u16 + 1).to_be_bytes()), Err(DropReason::StreamGarbled));
        assert_eq!(whole_records(&record_head(MAX_DATAGRAM)), Ok(0));
        assert_eq!(whole_records(&[0]), Ok(0));
    }
}
