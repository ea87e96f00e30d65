//! What carries datagrams between two hosts. A session is not its path: keys stay when the path changes (PROTOCOL 5).

use std::net::SocketAddr;

use weft_api::id::HostId;

/// A TCP stream, by a number that is never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// What carries datagrams to a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Path {
    /// UDP between our port and this address.
    Udp(SocketAddr),
    /// A TCP stream with the peer.
    Tcp(StreamId),
    /// Inside envelopes of the session with this neighbour, which passes them on as it sees fit.
    Relay(HostId),
}

/// The other end of a datagram whose sender has not proven itself: where it came from, and where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Remote {
    /// This address.
    Udp(SocketAddr),
    /// The other end of this stream.
    Tcp(StreamId),
    /// A member that a neighbour relays for.
    Relayed {
        /// The neighbour.
        by: HostId,
        /// The member, as the neighbour says.
        host: HostId,
    },
}

impl Path {
    /// Whether no third host takes part.
    #[must_use]
    pub fn is_direct(self) -> bool {
        !matches!(self, Self::Relay(_))
    }

    /// The address that it leads to, if it is UDP.
    #[must_use]
    pub fn udp(self) -> Option<SocketAddr> {
        match self {
            Self::Udp(address) => Some(address),
            Self::Tcp(_) | Self::Relay(_) => None,
        }
    }

    /// The other end of this path to `host`.
    #[must_use]
    pub fn to(self, host: HostId) -> Remote {
        match self {
            Self::Udp(address) => Remote::Udp(address),
            Self::Tcp(stream) => Remote::Tcp(stream),
            Self::Relay(by) => Remote::Relayed { by, host },
        }
    }
}

impl Remote {
    /// The path that leads there.
    #[must_use]
    pub fn path(self) -> Path {
        match self {
            Self::Udp(address) => Path::Udp(address),
            Self::Tcp(stream) => Path::Tcp(stream),
            Self::Relayed { by, .. } => Path::Relay(by),
        }
    }
}
