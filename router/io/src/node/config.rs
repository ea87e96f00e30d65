//! What a node is started with, what it keeps on disk, and why it does not start.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use thiserror::Error;
use tokio::net::TcpListener;
use weft_api::decision::{Decision, DecisionKey};
use weft_api::fact::FactRecord;
use weft_api::id::{BootId, HostId, MeshKey};
use weft_api::roster::{MeshRecord, RosterRecord};
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::Succession;
use weft_router::mesh::Limits;

use crate::lane;
use crate::quic::endpoint::SettingsError;
use crate::tcp;

/// What a member is made of.
pub struct NodeConfig {
    /// Who it is; [`StartError::NotAMember`] if the stored roster does not have it.
    pub host_key: SigningKey,
    /// Random, new with every start of the process.
    pub boot: BootId,
    /// Rises on disk with every start of the process: the first half of the version of its facts.
    pub boot_counter: u64,
    /// The mesh that it is a member of.
    pub mesh: MeshRecord,
    /// The key that the mesh began with.
    pub mesh_key: MeshKey,
    /// Where to listen; `[::]:6783` takes IPv4 too. Port 0 takes a free one ([`super::Node::local_addr`]).
    pub listen: SocketAddr,
    /// How many neighbours it has.
    pub limits: Limits,
    /// Threads that carry frames, at most [`lane::MAX_LANES`].
    pub lanes: usize,
    /// What [`Persist`] has kept.
    pub stored: Stored,
    /// Addresses to dial beside those that facts name: where it joined, and what the user gave.
    pub dial: Vec<(HostId, SocketAddr)>,
}

/// Everything that [`Persist::save`] was given and that still holds.
#[derive(Clone, Default, Debug)]
pub struct Stored {
    /// Of the mesh key, in order.
    pub successions: Vec<Signed<Succession>>,
    /// One record a member, removed ones too.
    pub roster: Vec<Signed<RosterRecord>>,
    /// One record a host.
    pub facts: Vec<FactRecord>,
    /// One record a key.
    pub decisions: Vec<Signed<Decision>>,
}

/// A record that must survive a restart, and the key that it replaces the older one under.
#[derive(Clone, Debug)]
pub enum StoredRecord {
    /// The successor of a mesh key, by its number.
    Succession(u32, Signed<Succession>),
    /// A member's, or a removed member's.
    Roster(HostId, Signed<RosterRecord>),
    /// What a host says of itself; this host's own too.
    Facts(HostId, FactRecord),
    /// What the controller says.
    Decision(DecisionKey, Signed<Decision>),
    /// The host was removed: what it said is forgotten.
    FactsGone(HostId),
    /// No mesh key but an older one has signed it: forgotten.
    RosterGone(HostId),
}

/// The disk. Called before a record is acted on, outside the runtime's own threads; may block.
pub trait Persist: Send + Sync + 'static {
    /// Writes all or nothing, durably. After an error the records are not acted on; they will be heard again.
    fn save(&self, records: &[StoredRecord]) -> io::Result<()>;
}

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Another process has the port.
    #[error(
        "{protocol} port {port} is taken: stop what uses it (ss -tulpn 'sport = :{port}'), or choose another with --port"
    )]
    PortTaken {
        /// UDP or TCP.
        protocol: &'static str,
        /// The port.
        port: u16,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {protocol} {address}: {source}")]
    Listen {
        /// UDP or TCP.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The mesh key's hash is not the id in the mesh record.
    #[error(
        "the stored mesh key is not this mesh's: the state directory is half written or mixed up; restore it, or leave and join again"
    )]
    WrongMeshKey,
    /// The roster on disk does not have this host as a member.
    #[error(
        "this host is not in the roster of mesh \"{mesh}\": it was removed, or its state is incomplete; join again"
    )]
    NotAMember {
        /// The mesh's name.
        mesh: String,
    },
    /// The lane.
    #[error(transparent)]
    Lane(#[from] crate::lane::StartError),
    /// A library refused what it was given at the start.
    #[error("cannot start the session layer: {0}")]
    Quic(String),
}

/// The one port: a UDP socket for each lane, and TCP on the same number.
pub(super) fn listen(address: SocketAddr, lanes: usize) -> Result<(Vec<UdpSocket>, TcpListener), StartError> {
    /// A number that is free for UDP may be taken for TCP.
    const TRIES: usize = 16;
    let mut tries = 0;
    loop {
        tries += 1;
        let sockets = lane::listen(address, lanes).map_err(|e| not_listening("UDP", address, e))?;
        let bound = match sockets.first() {
            Some(socket) => socket.local_addr().map_err(|e| not_listening("UDP", address, e))?,
            None => address,
        };
        match tcp::bind(bound).and_then(TcpListener::from_std) {
            Ok(listener) => return Ok((sockets, listener)),
            Err(_) if address.port() == 0 && tries < TRIES => {}
            Err(error) => return Err(not_listening("TCP", bound, error)),
        }
    }
}

fn not_listening(protocol: &'static str, address: SocketAddr, source: io::Error) -> StartError {
    match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken { protocol, port: address.port() },
        _ => StartError::Listen { protocol, address, source },
    }
}

pub(super) fn random() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StartError::Quic(SettingsError::Random.to_string()))?;
    Ok(bytes)
}
