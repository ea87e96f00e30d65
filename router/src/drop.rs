//! Every reason a frame or a datagram can die: a variant, a metric label, one line that says what it means.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why something was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[DropReason] = &[$(DropReason::$name,)+];

            /// The metric label: stable, snake case.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(DropReason::$name => $label,)+
                }
            }

            /// What it means, for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(DropReason::$name => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    // Datagrams from the underlay, before anything is known of them.
    /// A datagram without a byte.
    Empty = "empty",
    /// The first byte is neither QUIC's nor one of our kinds.
    UnknownKind = "unknown_kind",
    /// Shorter than an envelope can be.
    TooShort = "too_short",
    /// The bytes of the header that must be zero are not.
    HeaderNotZero = "header_not_zero",
    /// A sender lane beyond the 64 that a receiver takes.
    LaneOutOfRange = "lane_out_of_range",
    /// No session here has this index: the sender knows an older life of this host, or guesses.
    UnknownIndex = "unknown_index",
    /// A bare QUIC packet, a notice or an unknown index while half of the control side's queue waits.
    UnprovenQueueFull = "unproven_queue_full",
    /// The key of this index was replaced and erased: the envelope is more than 10 s late.
    KeyExpired = "key_expired",
    /// More of the datagram came than the buffer takes.
    Truncated = "truncated",

    // TCP streams, before and while they carry datagrams.
    /// A TCP stream while too many are open that have not proven themselves, or too many in all.
    StreamLimit = "stream_limit",
    /// A TCP stream while too many of the same address are open.
    StreamAddressLimit = "stream_address_limit",
    /// A TCP stream that did not say the preface in time, or ended before.
    StreamSilent = "stream_silent",
    /// A TCP stream that begins with anything but the preface: another program, or another version.
    StreamForeign = "stream_foreign",
    /// A TCP stream without a finished handshake and without an authentic envelope in time, or with too many bytes before.
    StreamUnproven = "stream_unproven",
    /// A TCP stream with a record of an impossible length; it is closed.
    StreamGarbled = "stream_garbled",
    /// A datagram for a TCP stream whose send queue is full.
    StreamQueueFull = "stream_queue_full",
    /// A datagram for a TCP stream that has ended.
    StreamEnded = "stream_ended",

    // Envelopes of a session.
    /// The tag does not match: damaged, forged, or sealed by another key.
    NotAuthentic = "not_authentic",
    /// This counter was seen before.
    Replayed = "replayed",
    /// Older than the replay window, so nobody can say whether it was seen before.
    TooOld = "too_old",
    /// A counter beyond the hard stop of 2^32 envelopes of a lane.
    CounterBeyondStop = "counter_beyond_stop",

    // Chunks of an envelope.
    /// The chunk's length exceeds its envelope.
    ChunkTruncated = "chunk_truncated",
    /// A kind of chunk that this version does not know.
    ChunkUnknown = "chunk_unknown",
    /// A fragment that is none: absurd numbers, a repeated part, or one inside another.
    FragmentInvalid = "fragment_invalid",
    /// A chunk of which parts did not come in time, or while too many others waited for theirs.
    FragmentLost = "fragment_lost",
    /// A QUIC packet longer than any that a host sends.
    ControlTooLong = "control_too_long",
    /// A control chunk while the control side's queue is full.
    ControlQueueFull = "control_queue_full",
    /// A probe longer than a probe's body may be.
    ProbeTooLong = "probe_too_long",

    // Relaying.
    /// A relayed datagram that is none: an absurd hop limit, or nothing in it.
    RelayGarbled = "relay_garbled",
    /// A relayed datagram from or to a host that is no member.
    RelayStranger = "relay_stranger",
    /// A relayed datagram that would go back to where it came from, or one of our own that came round.
    RelayLoop = "relay_loop",
    /// A relayed datagram whose hop limit is used up.
    RelayHops = "relay_hops",
    /// A relayed datagram for a member that this host cannot reach either.
    RelayNoRoute = "relay_no_route",
    /// A neighbour has more relayed than its limit.
    RelayLimit = "relay_limit",
    /// A relayed datagram inside a relayed one.
    RelayNested = "relay_nested",

    // The switch, both ways.
    /// The frame has no whole Ethernet header.
    FrameTooShort = "frame_too_short",
    /// The frame is longer than its network's MTU allows.
    FrameTooLong = "frame_too_long",
    /// This host does not have the network.
    NetworkUnknown = "network_unknown",
    /// The sending host does not have the network, as far as is known here.
    NetworkNotTheirs = "network_not_theirs",
    /// The source address is a group's, or zero.
    SourceInvalid = "source_invalid",
    /// The source MAC belongs to an endpoint of another host.
    SourceNotTheirs = "source_not_theirs",
    /// ARP, ND or IP claims an address that belongs to another endpoint, or to another host's block.
    AddressNotTheirs = "address_not_theirs",
    /// More IPv6 extension headers than are walked: what the frame claims behind them cannot be judged.
    HeadersHidden = "headers_hidden",
    /// To or from the gateway's MAC, or asking for its address: it is every host's own and never enters the mesh.
    GatewayStays = "gateway_stays",
    /// To 01:80:c2:00:00:0x: link-local protocols (STP, LACP, pause) end at the bridge.
    LinkLocal = "link_local",
    /// Announces a router by IPv6: containers get their addresses and routes from the mesh, and from no other container.
    RouterAdvertisement = "router_advertisement",
    /// Asks for the address of another host's endpoint: answered here, from the facts, instead of everywhere.
    AnsweredHere = "answered_here",
    /// For an endpoint of this host, or asking for its address: the bridge has delivered it already.
    StaysHere = "stays_here",
    /// No other host has the network.
    NobodyElse = "nobody_else",
    /// The source floods more than its limit.
    FloodLimit = "flood_limit",
    /// Says who listens to a multicast group, which this host has noted; no other host has a multicast router that must know.
    MembershipNoted = "membership_noted",
    /// The source says more of multicast groups, or of its bridge, than is listened to.
    MembershipLimit = "membership_limit",
    /// A host's question whether bridges of the network are tied together: it ends at the tap.
    BridgeProbe = "bridge_probe",
    /// More such questions than are verified.
    BridgeProbeLimit = "bridge_probe_limit",
    /// Flooded by a host whose bridge is tied to this one's outside weft: it comes that way too, and would go round for ever.
    Tied = "tied",
    /// Another host sends more broadcasts and frames for nobody known than are taken of one.
    MemberFloods = "member_floods",
    /// The source MAC moves between hosts too often: frozen where it was (a loop outside, or a forger).
    MovesTooOften = "moves_too_often",
    /// Came from the mesh for something that is not on this host: a frame from the mesh never goes back.
    NotHere = "not_here",

    // Towards the underlay.
    /// The destination host has no session with this one.
    NoSession = "no_session",
    /// The destination host has no session yet, and enough waits for it, or for others, already.
    WaitingFull = "waiting_full",
    /// Waited 5 s for a session with the destination host.
    WaitedTooLong = "waited_too_long",
    /// Waited for a session with the destination host, which could not be reached.
    NotReached = "not_reached",
    /// The session has no usable path at the moment.
    NoPath = "no_path",
    /// The frame, or a datagram of it, does not fit the path.
    TooBigForPath = "too_big_for_path",
    /// A superframe that cannot be cut: not understood, or with impossible segments.
    SuperframeInvalid = "superframe_invalid",
    /// The lane has sent 2^32 envelopes in this epoch: nothing more under this key.
    CounterSpent = "counter_spent",
    /// The control side sends faster than the lane takes.
    CommandQueueFull = "command_queue_full",
    /// The socket's send buffer is full (EAGAIN, ENOBUFS).
    SendBufferFull = "send_buffer_full",
    /// The peer's port is closed (ECONNREFUSED).
    PortClosed = "port_closed",
    /// No route to the peer's address (ENETUNREACH, EHOSTUNREACH, ENETDOWN).
    NoRoute = "no_route",
    /// The kernel says that the datagram exceeds the path (EMSGSIZE).
    DatagramTooBig = "datagram_too_big",
    /// A firewall of this host forbids it (EPERM, EACCES).
    SendForbidden = "send_forbidden",
    /// Another error of sendmsg.
    SendFailed = "send_failed",

    // Towards the tap.
    /// A piece that is no piece: absurd numbers, headers or sizes.
    PieceInvalid = "piece_invalid",
    /// The frame's checksum is "not computed", but it has no TCP or UDP header of its own.
    ChecksumImpossible = "checksum_impossible",
    /// The network has no tap at the moment.
    NoTap = "no_tap",
    /// The tap's queue is full (EAGAIN), or the kernel has no memory.
    TapFull = "tap_full",
    /// The kernel does not take the frame (EINVAL).
    TapRefused = "tap_refused",
    /// The tap is down or gone.
    TapDown = "tap_down",
    /// A frame from the tap that is no frame: shorter than its headers.
    TapGarbage = "tap_garbage",

    // Handshakes and control messages, on the control side.
    /// An incoming handshake while 64 others are unfinished.
    HandshakeLimit = "handshake_limit",
    /// An incoming handshake while too many others of the same source prefix are unfinished.
    HandshakePrefixLimit = "handshake_prefix_limit",
    /// An incoming handshake that failed, or was not finished in time.
    HandshakeFailed = "handshake_failed",
    /// A handshake under a key that is no member's: never was, or was removed.
    NotAMember = "not_a_member",
    /// A handshake under a key that is no member's as far as is known here, while too many such wait to prove themselves.
    StrangersTooMany = "strangers_too_many",
    /// A host presented another host's roster record as its own.
    ProofOfAnother = "proof_of_another",
    /// Roster records presented at the start of a session, faster than they are judged.
    ProofsTooFast = "proofs_too_fast",
    /// A dial that reached this host itself.
    DialledItself = "dialled_itself",
    /// A bare QUIC packet that belongs to no connection and begins none.
    BareUnknown = "bare_unknown",
    /// A bare short-header packet of a connection whose packets travel in envelopes.
    BareAfterEnvelope = "bare_after_envelope",
    /// A QUIC packet while too many wait for QUIC.
    QuicQueueFull = "quic_queue_full",
    /// A QUIC packet for an address that the table of connections does not have any more.
    ConnectionGone = "connection_gone",
    /// More connections with one host than are kept; the least useful was closed.
    ConnectionsTooMany = "connections_too_many",
    /// A frame for a host without a session, while too many sessions are there on demand.
    SessionsTooMany = "sessions_too_many",
    /// A control message that cannot be read, is too long, or comes out of turn.
    MessageGarbled = "message_garbled",
    /// The peer seals with another suite than the mesh has.
    CipherDiffers = "cipher_differs",
    /// A rekey message that nobody waits for, or for another epoch than the next.
    RekeyOutOfTurn = "rekey_out_of_turn",
    /// The peer asks for fresh keys that it has, or that are under way.
    RekeyIgnored = "rekey_ignored",
    /// The peer offers fresh keys while it has 16 that can be opened with.
    RekeyTooSoon = "rekey_too_soon",
    /// The peer did not do its part of a rekey; another connection is dialled.
    RekeyUnanswered = "rekey_unanswered",
    /// A probe whose body is none.
    ProbeGarbled = "probe_garbled",
    /// A notice about an index that is not in use, or while an earlier one is being looked into.
    NoticeIgnored = "notice_ignored",
    /// A notice not sent, since too many were sent just before.
    NoticeLimit = "notice_limit",
    /// A stream of a kind that this version does not know, or that did not say its kind in time.
    StreamUnknown = "stream_unknown",
    /// A stream or a wish to join while the agent has too many to serve.
    AgentBusy = "agent_busy",

    // Signed records.
    /// A signature that does not fit the record and its signer's key.
    RecordForged = "record_forged",
    /// A signed record that is none of its kind.
    RecordUnreadable = "record_unreadable",
    /// A record of another mesh.
    RecordOfAnotherMesh = "record_of_another_mesh",
    /// A record longer than its kind may be.
    RecordTooLong = "record_too_long",
    /// A record whose names, items or body break the rules of its kind.
    RecordInvalid = "record_invalid",
    /// A record of its kind beyond the most that are kept.
    RecordsTooMany = "records_too_many",
    /// A roster record that an older mesh key has signed than the one that signs now.
    RecordOfOldKey = "record_of_old_key",
    /// A record under a mesh key that is not known here yet: the succession to it is asked for first.
    RecordOfLaterKey = "record_of_later_key",
    /// A second successor of one mesh key: the first that came stays, and somebody has used an old mesh key.
    SuccessionRival = "succession_rival",
    /// A roster record whose host id is another key's already.
    RosterCollision = "roster_collision",
    /// Facts of a host that is no member.
    FactOfStranger = "fact_of_stranger",
    /// A decision by a host that is no member or has not the role `controller`.
    DecisionNotControllers = "decision_not_controllers",
    /// Facts that changed more often than any host says something new; the next comparison brings the newest.
    FactsTooFast = "facts_too_fast",
    /// Changed facts that do not hash to what their owner signed; the whole record is asked for.
    DeltaMismatch = "delta_mismatch",
    /// Records faster than a neighbour may send them.
    RecordsTooFast = "records_too_fast",
    /// Questions faster than a neighbour may ask them.
    QuestionsTooFast = "questions_too_fast",
    /// A record asked for while the neighbour is owed many others.
    AsksTooMany = "asks_too_many",
    /// An announced record while too many others are waited for.
    IdsTooMany = "ids_too_many",
    /// An announced record that nobody sent when it was asked for.
    AskUnanswered = "ask_unanswered",
    /// Records that the disk did not take; they were not acted on.
    DiskRefused = "disk_refused",
}

/// How often each thing was dropped. Written by lanes, read by anybody, never reset.
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }

    /// One more.
    #[inline]
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// `n` more.
    #[inline]
    pub fn add(&self, reason: DropReason, n: u64) {
        self.0[reason as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// Every reason that has happened, by label.
    #[must_use]
    pub fn by_label(&self) -> BTreeMap<String, u64> {
        DropReason::ALL.iter().map(|r| (r.label().to_owned(), self.get(*r))).filter(|(_, n)| *n > 0).collect()
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_unique_and_stable_in_shape() {
        let labels: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
        assert!(labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        assert!(DropReason::ALL.iter().enumerate().all(|(i, r)| *r as usize == i));
        assert!(DropReason::ALL.iter().all(|r| r.meaning().ends_with('.')), "a sentence each");
    }

    #[test]
    fn counts_by_label() {
        let drops = DropCounters::new();
        drops.count(DropReason::Replayed);
        drops.add(DropReason::Replayed, 2);
        assert_eq!(drops.by_label(), BTreeMap::from([("replayed".to_owned(), 3)]));
    }
}
