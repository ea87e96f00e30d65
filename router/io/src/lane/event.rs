//! What crosses between a lane and the control side: commands in, events out, both by bounded queues.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_api::id::{HostId, NetworkId};
use weft_api::sign::Signed;
use weft_router::session::{Path, Remote};
use weft_router::switch::Frozen;
use weft_router::switch::group::Heard;
use weft_router::switch::ties::Probe;

use crate::tables::SendEpoch;

/// Events that wait for the control side; when full they are dropped and counted (`ControlQueueFull`, `UnprovenQueueFull`).
pub const EVENT_QUEUE: usize = 2048;
/// The longest QUIC packet that is passed on; with [`EVENT_QUEUE`] it bounds the memory that a peer can fill. Longer ones are
/// dropped (`ControlTooLong`).
pub const MAX_QUIC_LEN: usize = 2048;
/// Commands that wait for the lane; when full `send_sealed` says so, and it is counted (`CommandQueueFull`).
pub const COMMAND_QUEUE: usize = 1024;

/// So often a lane says that a host without a session is wanted.
pub const WANTED_EVERY: Duration = Duration::from_millis(250);

/// A chunk of the control side, to be sealed by the lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlChunk {
    /// A whole QUIC packet.
    Quic(Vec<u8>),
    /// A probe, at most [`weft_router::chunk::MAX_PROBE_LEN`] bytes; what it says is the session layer's.
    Probe(Vec<u8>),
    /// The answer to a probe, of the same length limit.
    Answer(Vec<u8>),
    /// A datagram that the peer shall relay, behind its head ([`weft_router::relay`]).
    Relayed(Vec<u8>),
}

/// Where a control chunk goes when not along the session's path as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Aim {
    /// This path instead of the session's: a challenge to a candidate.
    pub path: Option<Path>,
    /// Padded to a datagram of this length: a probe of the path's size, never sent as fragments. Too small a number has no effect.
    pub datagram: Option<u16>,
    /// On this lane, from its own port: a probe whether the peer hears it.
    pub lane: u8,
}

pub(crate) struct Command {
    pub epoch: Arc<SendEpoch>,
    pub chunk: ControlChunk,
    pub aim: Aim,
}

/// What the lane tells the control side.
#[derive(Debug)]
pub enum LaneEvent {
    /// A frame for a host without a session; told again while there is none, not oftener than each [`WANTED_EVERY`].
    Wanted {
        /// The host.
        host: HostId,
    },
    /// A QUIC packet outside an envelope.
    Bare {
        /// Its sender, unproven.
        from: Remote,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A QUIC packet from an authentic envelope.
    Quic {
        /// Our session index.
        index: u32,
        /// Where the envelope came from.
        from: Remote,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A probe from an authentic envelope.
    Probe {
        /// Our session index.
        index: u32,
        /// Where the envelope came from.
        from: Remote,
        /// When it was read from the socket.
        at: Instant,
        /// Length of the datagram that carried it, for path MTU probes.
        datagram: u16,
        /// What it says.
        body: Vec<u8>,
        /// An answer to one of ours.
        answer: bool,
    },
    /// The first authentic envelope of an epoch; if several lanes receive it, once by each.
    FirstAuthentic {
        /// Our session index.
        index: u32,
        /// Where it came from.
        from: Remote,
    },
    /// A direct lane-0 envelope with more than a probe, the newest so far, came from another address than the one before
    /// (PROTOCOL 5). Probes say themselves where they come from, and may come from where their sender only looks around.
    Moved {
        /// Our session index.
        index: u32,
        /// Where it came from.
        from: SocketAddr,
        /// Length of the datagram: what may be sent there unproven depends on it.
        len: usize,
    },
    /// A container said this of multicast groups.
    Groups {
        /// The network.
        network: NetworkId,
        /// What; it may be nothing.
        heard: Vec<Heard>,
    },
    /// A host's probe came out of the network's bridge here; unverified.
    Bridged {
        /// The network.
        network: NetworkId,
        /// What it says.
        probe: Signed<Probe>,
    },
    /// A MAC was seen on two hosts too often, and is frozen on one.
    Frozen {
        /// The network.
        network: NetworkId,
        /// Which, and where.
        frozen: Frozen,
    },
    /// An envelope with a session index that nobody here knows. The control side answers with
    /// [`super::LaneHandle::send_notice`], rate limited.
    UnknownIndex {
        /// Its sender, unproven.
        from: Remote,
        /// The index.
        index: u32,
        /// Length of the datagram.
        len: usize,
    },
    /// A peer says that it does not know a session index of ours. Unproven: never ends a session by itself.
    Notice {
        /// Its sender, unproven.
        from: Remote,
        /// The index, as we sent it.
        index: u32,
    },
    /// This epoch has sent another 2^28 envelopes on a lane: it needs new keys.
    Worn {
        /// The peer.
        host: HostId,
        /// The peer's session index of that epoch.
        index: u32,
    },
    /// A lane has frames for this peer, which has not yet shown that it hears the lane; they went by lane 0.
    LaneWanted {
        /// The peer's session index.
        index: u32,
        /// The lane.
        lane: u8,
    },
    /// The kernel refused a datagram of this length along a path: told once until the size changes, and of each probe.
    TooBig {
        /// The peer.
        host: HostId,
        /// The path.
        way: Path,
        /// The length.
        size: u16,
        /// What is known to fit instead.
        limit: Option<u16>,
    },
    /// The kernel refused an offload; the lane goes on without it.
    OffloadLost {
        /// What: `UDP_SEGMENT`.
        what: &'static str,
    },
}
