//! The messages of a control stream: a length (32, big endian), then postcard. Each end has one stream and begins it with
//! [`Message::Proof`] and [`Message::Hello`]; the rest is what neighbours say about records, fresh keys, and where the other is
//! seen.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Hello, Rekey};
use crate::drop::DropReason;
use crate::mesh::{Gossip, MAX_BATCH_LEN, MAX_FACTS_LEN, Proof};

/// Bytes of the length before a message.
pub const LENGTH_LEN: usize = 4;
/// The longest message: one host's facts and their signature, after a batch that had almost enough.
pub const MAX_MESSAGE_LEN: usize = MAX_FACTS_LEN + 2 * MAX_BATCH_LEN;
/// The longest hello.
pub const MAX_HELLO_LEN: usize = 256;
/// The longest proof: a roster record, and as many successions as a mesh can have.
pub const MAX_PROOF_LEN: usize = 40 << 10;

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Once, and before anything but perhaps a proof.
    Hello(Hello),
    /// What neighbours say about records.
    Mesh(Gossip),
    /// About the keys of this connection.
    Rekey(Rekey),
    /// The sender sees the other at this address now.
    Seen(SocketAddr),
    /// That the sender is a member. The first, so that who has not heard of it believes its hello.
    Proof(Proof),
}

impl Message {
    /// Length and message, as they go onto the stream.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_allocvec(self).expect("messages are plain data and always encode");
        let length = u32::try_from(body.len()).expect("a message is far below 4 GiB");
        [&length.to_be_bytes()[..], &body].concat()
    }

    /// The length that a message's first bytes announce, if it may be that long.
    pub fn length(bytes: [u8; LENGTH_LEN], max: usize) -> Result<usize, DropReason> {
        usize::try_from(u32::from_be_bytes(bytes))
            .ok()
            .filter(|n| (1..=max).contains(n))
            .ok_or(DropReason::MessageGarbled)
    }

    /// Reads a message, without its length.
    pub fn decode(bytes: &[u8]) -> Result<Self, DropReason> {
        let (message, rest) = postcard::take_from_bytes(bytes).map_err(|_| DropReason::MessageGarbled)?;
        let holds = match &message {
            Self::Hello(_) | Self::Rekey(_) | Self::Seen(_) => true,
            Self::Proof(proof) => proof.holds(),
            Self::Mesh(gossip) => gossip.holds(),
        };
        if rest.is_empty() && holds { Ok(message) } else { Err(DropReason::MessageGarbled) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::id::BootId;
    use weft_api::roster::Cipher;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, kind in 0u8..7) {
            let _ = Message::decode(&bytes);
            let _ = Message::decode(&[&[kind], &bytes[..]].concat());
        }

        #[test]
        fn hellos_go_round(boot: [u8; 16], index: u32, replaces: bool, tail in 1usize..9) {
            let hello = Message::Hello(Hello { boot: BootId(boot), index, cipher: Cipher::Aes256Gcm, replaces, seen: Some(([192, 0, 2, 1], index as u16).into()) });
            let bytes = hello.encode();
            let (length, body) = bytes.split_first_chunk().unwrap();
            prop_assert_eq!(Message::length(*length, MAX_HELLO_LEN), Ok(body.len()));
            prop_assert_eq!(Message::decode(body), Ok(hello));
            prop_assert!(Message::decode(&body[..body.len() - 1]).is_err());
            prop_assert!(Message::decode(&[body, &vec![0; tail]].concat()).is_err(), "nothing may follow");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(Message::length([0, 0, 0, 0], 10), Err(DropReason::MessageGarbled));
        assert_eq!(Message::length([0, 0, 0, 10], 10), Ok(10));
        assert_eq!(Message::length([0, 0, 0, 11], 10), Err(DropReason::MessageGarbled));
        assert_eq!(Message::length([0xff; 4], MAX_MESSAGE_LEN), Err(DropReason::MessageGarbled));
    }
}
