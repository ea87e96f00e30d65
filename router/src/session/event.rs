//! What happens, as the session layer is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use weft_api::id::{BootId, HostId};
use weft_api::roster::Cipher;

use super::{Path, Rekey, Remote, StreamId, Why};

/// A QUIC connection, by a number that is never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// The first message of each end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Tells a restart from a lost link.
    pub boot: BootId,
    /// The session index that the sender of this takes envelopes under.
    pub index: u32,
    /// What seals envelopes.
    pub cipher: Cipher,
    /// Dialled beside a session that works, to take its place.
    pub replaces: bool,
    /// The address that the sender of this sees the other at, if no relay is between them.
    pub seen: Option<SocketAddr>,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Time has passed; due at [`super::Sessions::next_wake`] at the latest.
    Tick,
    /// The roster: every other member.
    Members(&'a BTreeSet<HostId>),
    /// What this host has presented does not make it a member.
    Refused(HostId),
    /// Where a member may be reached, the likeliest first.
    Addresses(HostId, &'a [Path]),
    /// A dial of ours reached a host that has proven its key. Who is no member has a while to become one.
    Reached(ConnectionId, HostId),
    /// A host that has proven its key dialled us; the id is from [`super::Sessions::new_connection`]. The same.
    Accepted(ConnectionId, HostId, Path),
    /// The peer's first message.
    Hello(ConnectionId, Hello),
    /// A connection ended, or a dial failed.
    Lost(ConnectionId, Option<Why>),
    /// A probe from an authentic envelope under our index, that came by this path.
    Probe(u32, Path, &'a [u8]),
    /// An authentic envelope under our index with more than a probe, newer than all before, of so many bytes, from another address
    /// than the one before.
    Moved(u32, SocketAddr, usize),
    /// The best first hops to members that are not linked directly, as far as facts tell.
    Routes(&'a BTreeMap<HostId, HostId>),
    /// With whom sessions are kept; until it is said, with everybody.
    Keep(&'a BTreeSet<HostId>),
    /// Frames go to this host, or wait to.
    Wanted(HostId),
    /// Datagrams go to this host that are longer than those that pass anywhere ([`super::mtu::floor`]).
    Full(HostId),
    /// This host's kernel refuses datagrams of this length along this path to the host; it takes the other length, if it says.
    TooBig(HostId, Path, u16, Option<u16>),
    /// The first authentic envelope under our index.
    FirstAuthentic(u32),
    /// An envelope from there had an index that nobody here knows.
    UnknownIndex(Remote, u32),
    /// Somebody says that a peer does not know this index of its own. Unproven.
    Notice(u32),
    /// The key to seal for this peer's index has sealed so many envelopes of a lane that it should be replaced.
    Worn(u32),
    /// A lane other than 0 has frames to seal for this peer's index.
    LaneWanted(u32, u8),
    /// What the peer says about the keys of a connection.
    Rekey(ConnectionId, Rekey),
    /// Somebody wants fresh keys of every session.
    RekeyAll,
    /// What came of [`super::Action::OpenStream`]: the stream, or none.
    StreamOpened(HostId, SocketAddr, Option<StreamId>),
    /// A TCP stream ended, whoever opened it.
    StreamEnded(StreamId),
}
