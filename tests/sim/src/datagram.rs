//! What travels between hosts, how long it is, and what it is for.

use std::rc::Rc;

use weft_api::id::HostId;
use weft_router::mesh::Gossip;
use weft_router::session::message::Message;
use weft_router::session::probe::PROBE_LEN;

use crate::model::Packet;
use crate::wire::Said;

/// IP, UDP.
pub(crate) const HEADERS: usize = 28;
/// Envelope header and tag.
pub(crate) const ENVELOPE: usize = 32;
/// A chunk's head, and QUIC's own.
const QUIC: usize = 3 + 30;
/// What a relay's sealed head adds to an envelope, and its chunk to what is none.
const RELAYED_HEAD: usize = 49;
const RELAYED_CHUNK: usize = ENVELOPE + 20;
const INITIAL: usize = 1200;
const ACKNOWLEDGEMENT: usize = 6;
/// Of a message, in one packet.
pub(crate) const PACKET: usize = 1100;

/// What travels.
#[derive(Clone)]
pub(crate) enum Datagram {
    /// QUIC, as a model of it.
    Model(Packet),
    /// Whatever it is, byte by byte.
    Bytes(Rc<[u8]>),
    Envelope {
        sender: usize,
        index: u32,
        counter: u64,
        body: Body,
    },
    Notice {
        index: u32,
    },
    Relayed(Box<Relayed>),
}

/// What is sealed.
#[derive(Clone)]
pub(crate) enum Body {
    /// A probe, and the length of datagram that it is padded to.
    Probe([u8; PROBE_LEN], usize),
    Frame(usize, Rc<[u8]>),
    /// A packet of QUIC itself.
    Quic(Rc<[u8]>),
}

/// A datagram inside an envelope of a neighbour's session.
#[derive(Clone)]
pub(crate) struct Relayed {
    pub limit: u8,
    pub source: usize,
    pub target: HostId,
    pub by: usize,
    pub inner: Datagram,
}

/// Bytes, IP headers included, by [`Traffic::KINDS`].
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic(pub [u64; 7]);

impl Traffic {
    /// What they were for.
    pub const KINDS: [&str; 7] =
        ["probes", "pushes", "announcements", "questions", "answers", "acknowledgements", "handshakes"];
}

impl Traffic {
    pub(crate) fn of(&mut self, datagram: &Datagram) -> &mut u64 {
        let kind = match datagram {
            Datagram::Envelope { .. } => 0,
            Datagram::Model(Packet::Stream { said: Said::Message(message, _), .. }) => match &**message {
                Message::Mesh(Gossip::Push(_)) => 1,
                Message::Mesh(Gossip::Ids(_)) => 2,
                Message::Mesh(Gossip::Answer(_)) => 4,
                Message::Mesh(_) => 3,
                Message::Hello(_) | Message::Rekey(_) | Message::Seen(_) | Message::Proof(_) => 6,
            },
            Datagram::Model(Packet::Heard { .. }) => 5,
            Datagram::Relayed(relayed) => return self.of(&relayed.inner),
            _ => 6,
        };
        &mut self.0[kind]
    }
}

impl Datagram {
    /// The length of its largest packet on the wire.
    pub fn len(&self) -> usize {
        match self {
            Self::Model(Packet::Initial { .. } | Packet::Answer { .. }) => HEADERS + INITIAL,
            Self::Model(Packet::Stream { said, .. }) => HEADERS + ENVELOPE + QUIC + said.len().min(PACKET),
            Self::Model(Packet::Heard { .. }) => HEADERS + ENVELOPE + QUIC + ACKNOWLEDGEMENT,
            Self::Envelope { body: Body::Probe(body, size), .. } => {
                HEADERS + (ENVELOPE + 3 + body.len()).max(*size)
            }
            Self::Envelope { body: Body::Frame(_, frame), .. } => HEADERS + ENVELOPE + 7 + frame.len(),
            Self::Envelope { body: Body::Quic(packet), .. } => HEADERS + ENVELOPE + 3 + packet.len(),
            Self::Bytes(bytes) => HEADERS + bytes.len(),
            Self::Notice { .. } => HEADERS + 16,
            Self::Relayed(relayed) => relayed.inner.len() + relayed.inner.cover(),
        }
    }

    /// What a relay adds to it.
    fn cover(&self) -> usize {
        match self {
            Self::Model(Packet::Initial { .. } | Packet::Answer { .. }) | Self::Notice { .. } => {
                RELAYED_CHUNK
            }
            _ => RELAYED_HEAD,
        }
    }

    /// The length of all its packets.
    pub fn sent(&self) -> usize {
        match self {
            Self::Model(Packet::Stream { said, got, .. }) => {
                let rides = if got.is_some() { ACKNOWLEDGEMENT } else { 0 };
                said.len() + rides + (HEADERS + ENVELOPE + QUIC) * said.packets()
            }
            Self::Relayed(relayed) => {
                let inner = &relayed.inner;
                inner.sent() + inner.cover() * inner.packets()
            }
            _ => self.len() * self.packets(),
        }
    }

    fn packets(&self) -> usize {
        match self {
            Self::Model(Packet::Stream { said, .. }) => said.packets(),
            Self::Model(Packet::Heard { got, .. }) => got.packets.max(1),
            Self::Relayed(relayed) => relayed.inner.packets(),
            _ => 1,
        }
    }
}
