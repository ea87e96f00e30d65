//! What must be done, in the order that the session layer says it.

use std::net::SocketAddr;

use weft_api::id::HostId;

use super::{ConnectionId, Hello, Path, Remote, probe};
use crate::drop::DropReason;

/// What must be done. Carried out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Dial; who answers is reported by [`super::Event::Reached`].
    Dial(ConnectionId, HostId, Path),
    /// Close the connection, telling the peer why. Its keys stay until [`Action::EraseKeys`].
    Close(ConnectionId, Why),
    /// Make the key to open with from the connection's newest chain, first of all from its exporter: envelopes may come under
    /// this index from now on.
    InstallReceive(ConnectionId, HostId, u32),
    /// Send this as the first message.
    Greet(ConnectionId, Hello),
    /// Make the key to seal with from the connection's newest chain: the peer takes envelopes under this index, along this path.
    /// The key before it is forgotten.
    InstallSend(ConnectionId, HostId, u32, Path),
    /// Frames for the host go by this connection's key from now on.
    Use(HostId, ConnectionId),
    /// There is no key for the host any more.
    Unuse(HostId),
    /// A host that frames wait for ([`super::Event::Wanted`]) could not be reached.
    Unreached(HostId),
    /// Forget all keys of the connection.
    EraseKeys(ConnectionId),
    /// Tell the peer that this epoch is wanted.
    AskRekey(ConnectionId, u32),
    /// Make a fresh X25519 key and send its public half as the offer of this epoch, with our index in it.
    OfferKeys(ConnectionId, u32, u32),
    /// Make the next chain from this one, the peer's X25519 key and the one that was offered, or else a fresh one; forget this chain
    /// and the private key.
    NextChain(ConnectionId, [u8; 32]),
    /// Send the public half of that fresh key as the answer for this epoch, with our index in it.
    AnswerKeys(ConnectionId, u32, u32),
    /// Forget the key to open with of this index of ours.
    EraseReceive(ConnectionId, u32),
    /// The connection's envelopes and QUIC packets go along this path from now on.
    SetPath(ConnectionId, Path),
    /// Open a TCP stream to this address of the host.
    OpenStream(HostId, SocketAddr),
    /// Send this body, sealed, along this path whatever the connection's is; the flag says that it is an answer.
    Probe(ConnectionId, Path, [u8; probe::PROBE_LEN], bool),
    /// The same, as a question padded to a datagram of this length. What does not fit the interface is told by
    /// [`super::Event::TooBig`].
    ProbeSize(ConnectionId, Path, [u8; probe::PROBE_LEN], u16),
    /// The path passes datagrams of this length; until it is said, of [`super::mtu::floor`]. The flag says that this is settled: a moment
    /// later it will hardly be more.
    SetSize(ConnectionId, u16, bool),
    /// Send this body, sealed, on this lane.
    ProbeLane(ConnectionId, u8, [u8; probe::PROBE_LEN]),
    /// Frames of this lane go by it from now on, or by lane 0 again.
    UseLane(ConnectionId, u8, bool),
    /// Tell the peer that it is seen at this address now.
    TellSeen(ConnectionId, SocketAddr),
    /// Tell the sender that nobody here knows the index.
    Notice(Remote, u32),
    /// Envelopes pass both ways.
    LinkUp(HostId),
    /// They do not any more.
    LinkDown(HostId),
    /// Count this.
    Count(DropReason),
}

/// Why a connection is closed; its number travels in QUIC's CONNECTION_CLOSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Another connection with this host took its place; envelopes under way are still taken.
    Superseded = 1,
    /// The host has started anew.
    Restarted = 2,
    /// The peer is no member.
    NotAMember = 3,
    /// Nothing was heard any more.
    Silent = 4,
    /// A dial or a greeting took too long, or is not needed any more.
    GivenUp = 5,
    /// The peer seals with another suite.
    CipherDiffers = 6,
    /// A message out of turn, too long or unreadable.
    Garbled = 7,
    /// The host stops.
    Goodbye = 8,
    /// A host dialled itself.
    Itself = 9,
    /// More connections with one host than are kept.
    TooMany = 10,
    /// Nothing needed it any more.
    Idle = 11,
}

impl Why {
    /// The reason of a code that a peer sent.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        use Why::{
            CipherDiffers, Garbled, GivenUp, Goodbye, Idle, Itself, NotAMember, Restarted, Silent,
            Superseded, TooMany,
        };
        [
            Superseded,
            Restarted,
            NotAMember,
            Silent,
            GivenUp,
            CipherDiffers,
            Garbled,
            Goodbye,
            Itself,
            TooMany,
            Idle,
        ]
        .into_iter()
        .find(|w| *w as u64 == code)
    }
}
