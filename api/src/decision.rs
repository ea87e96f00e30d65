//! Decisions: what the controller says. Signed under a revision, gossiped, kept on every disk (DESIGN rule 1, PROTOCOL 7).
//! One key holds one decision; the higher revision replaces the lower.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{HostId, HostKey, MeshId, NetworkId};
use crate::network::Network;
use crate::sign::Record;

/// A decision is at most this long when encoded; a longer one is refused.
pub const MAX_DECISION_LEN: usize = 4096;

/// What is decided, and under which revision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// The mesh that it holds in.
    pub mesh: MeshId,
    /// Rises with each decision of the mesh.
    pub revision: u64,
    /// The host key that signed it; its roster record must have the role `controller`.
    pub signer: HostKey,
    /// What it is about: a later decision with the same key replaces this one.
    pub key: DecisionKey,
    /// What holds now; `None` says that it is gone.
    pub body: Option<DecisionBody>,
}

impl Record for Decision {
    const DOMAIN: &'static str = "weft decision 1";
}

/// What a decision is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum DecisionKey {
    /// A network.
    Network(NetworkId),
    /// A block of a network, named by its range.
    Block(NetworkId, IpNet),
    /// Where the controller can be asked.
    Controller,
    /// One address of a network, apart from the block that it lies in.
    Lease(NetworkId, IpAddr),
}

/// What holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DecisionBody {
    /// The network exists so.
    Network(Network),
    /// The range belongs to this host: it alone hands out addresses in it.
    Block {
        /// The holder.
        owner: HostId,
    },
    /// Who decides.
    Controller {
        /// The deciding host.
        host: HostId,
        /// Where it was last known.
        addresses: Vec<SocketAddr>,
    },
    /// The address belongs to this host, whoever holds the block that it lies in.
    Lease {
        /// The lessee.
        owner: HostId,
    },
}
