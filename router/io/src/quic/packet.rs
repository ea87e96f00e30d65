//! The few bytes of a QUIC packet that say which connection it is for (RFC 8999, RFC 9000 17). Nothing here is proven.

use weft_router::drop::DropReason;

/// Bytes of every connection id that we choose.
pub(crate) const CID_LEN: usize = 8;
/// A connection id that we chose.
pub(crate) type Cid = [u8; CID_LEN];

const LONG: u8 = 0x80;
const TYPE: u8 = 0x30;
const INITIAL: u8 = 0;
const VERSION_1: u32 = 1;
const MAX_CID_LEN: usize = 20;

/// Where a packet wants to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packet<'a> {
    /// Of a connection whose handshake is over.
    Short {
        /// Our connection id.
        to: Cid,
    },
    /// Of a handshake.
    Long {
        /// The destination, if it is as long as ours are.
        to: Option<Cid>,
        /// The sender's connection id.
        from: &'a [u8],
        /// It may begin a connection.
        initial: bool,
    },
}

impl<'a> Packet<'a> {
    /// Reads the connection ids of the first packet of a datagram.
    pub(crate) fn read(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let (&first, rest) = datagram.split_first().ok_or(DropReason::Empty)?;
        if first & LONG == 0 {
            let to = rest.first_chunk().ok_or(DropReason::BareUnknown)?;
            return Ok(Self::Short { to: *to });
        }
        let (version, rest) = rest.split_first_chunk().ok_or(DropReason::BareUnknown)?;
        let (to, rest) = cid(rest)?;
        let (from, _) = cid(rest)?;
        let initial = u32::from_be_bytes(*version) == VERSION_1 && first & TYPE == INITIAL;
        Ok(Self::Long { to: to.try_into().ok(), from, initial })
    }
}

/// The source connection id of a packet of ours, if it has a long header.
pub(crate) fn source_cid(ours: &[u8]) -> Option<Cid> {
    match Packet::read(ours) {
        Ok(Packet::Long { from, .. }) => from.try_into().ok(),
        _ => None,
    }
}

fn cid(bytes: &[u8]) -> Result<(&[u8], &[u8]), DropReason> {
    let (&len, rest) = bytes.split_first().ok_or(DropReason::BareUnknown)?;
    let len = usize::from(len);
    if len > MAX_CID_LEN { None } else { rest.split_at_checked(len) }.ok_or(DropReason::BareUnknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Packet::read(&bytes);
            let _ = source_cid(&bytes);
        }

        #[test]
        fn connection_ids_are_found(to in prop::collection::vec(any::<u8>(), 0..24), from in prop::collection::vec(any::<u8>(), 0..24), tail: Vec<u8>) {
            let bytes = [
                &[0xc1, 0, 0, 0, 1, to.len() as u8][..], &to, &[from.len() as u8], &from, &tail,
            ].concat();
            let read = Packet::read(&bytes);
            if to.len() > MAX_CID_LEN || from.len() > MAX_CID_LEN {
                prop_assert_eq!(read, Err(DropReason::BareUnknown));
            } else {
                prop_assert_eq!(read, Ok(Packet::Long { to: to.try_into().ok(), from: &from, initial: true }));
            }
        }
    }

    #[test]
    fn only_a_version_1_initial_begins_a_connection() {
        let begins = |first: u8, version: u8| {
            let bytes = [first, 0, 0, 0, version, 0, 0];
            matches!(Packet::read(&bytes), Ok(Packet::Long { initial: true, .. }))
        };
        assert!(begins(0xc0, 1));
        assert!(!begins(0xc0, 2) && !begins(0xd0, 1) && !begins(0xe0, 1) && !begins(0xf0, 1));
        assert_eq!(Packet::read(&[0x40, 1, 2]), Err(DropReason::BareUnknown));
    }
}
