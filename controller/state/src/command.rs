//! What can be asked of the state, and what must be known of the world to answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use weft_api::decision::Decision;
use weft_api::id::{HostId, HostKey, NetworkId, TokenId};
use weft_api::request::{CreateNetwork, GiveUp, Goodbye, Lend, WantBlock};
use weft_api::roster::{MeshRecord, RosterRecord};
use weft_api::sign::Signed;
use weft_api::succession::Succession;
use weft_api::token::JoinWish;

use crate::hold::Hold;

/// Something that is asked for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make the mesh; its first member holds every role.
    Found {
        /// What every member will agree on.
        mesh: MeshRecord,
        /// The founder.
        key: HostKey,
        /// The founder's name.
        name: String,
        /// Where the founder can be asked.
        addresses: Vec<SocketAddr>,
    },
    /// Begin as another signer of a mesh that exists.
    Appoint {
        /// What every member agrees on.
        mesh: MeshRecord,
        /// The successors of the mesh key, up to the one that this host has now.
        successions: Vec<Signed<Succession>>,
        /// The roster as this host knows it, signed by that key.
        roster: Vec<RosterRecord>,
        /// This host.
        key: HostKey,
    },
    /// A new key signs from now on.
    Rotate {
        /// Signed by the old key.
        succession: Signed<Succession>,
        /// The signer that has the new one.
        by: HostKey,
    },
    /// This signer has got the key that signs now.
    Renew {
        /// The successors of the mesh key, up to that one.
        successions: Vec<Signed<Succession>>,
        /// What that key has signed, as this host knows it.
        roster: Vec<RosterRecord>,
        /// This host.
        key: HostKey,
    },
    /// The deciding host can be asked here from now on.
    Place {
        /// The deciding host.
        host: HostId,
        /// Its addresses.
        addresses: Vec<SocketAddr>,
    },
    /// Make a token. Its seed stays with who asked: only the public key comes here.
    NewToken {
        /// Its id, drawn at random by the caller.
        id: TokenId,
        /// The public key of its seed.
        key: [u8; 32],
        /// Good for one host only.
        once: bool,
        /// Valid for so long; absent: a day.
        valid_secs: Option<u64>,
    },
    /// Make a token worthless.
    RemoveToken {
        /// The token's id, or how it begins.
        id: String,
    },
    /// Admit a host.
    Join {
        /// Signed by the token's key.
        wish: Signed<JoinWish>,
    },
    /// Remove a host for good.
    RemoveHost {
        /// Its name, or its id.
        name: String,
    },
    /// A host has left.
    Goodbye {
        /// Signed by the host's own key.
        goodbye: Signed<Goodbye>,
    },
    /// Make a network.
    CreateNetwork(CreateNetwork),
    /// Remove a network that nobody uses.
    RemoveNetwork {
        /// Its name, or its id.
        name: String,
    },
    /// Give a host its next block of a network.
    GrantBlock {
        /// Who asks.
        host: HostId,
        /// What for.
        want: WantBlock,
    },
    /// Lend an address out of a block, or to nobody after all.
    Lend {
        /// Who holds the block, and asks.
        host: HostId,
        /// What.
        loan: Lend,
    },
    /// Take a block or a lease back.
    GiveUp {
        /// Who has it, and asks.
        host: HostId,
        /// What.
        what: GiveUp,
    },
    /// The mesh still knows these words of ours (their signatures have been checked), which a store restored from a backup may
    /// have forgotten.
    Hear {
        /// Roster records, signed by the mesh key.
        roster: Vec<RosterRecord>,
        /// Decisions, signed by the deciding host.
        decisions: Vec<Decision>,
    },
}

/// What a decision depends on beside the state.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Unix seconds.
    pub now: u64,
    /// What each host has published last.
    pub hosts: BTreeMap<HostId, Observed>,
    /// Ranges of networks that are being named, by the id they will have.
    pub holds: BTreeMap<NetworkId, Hold>,
}

/// What a host's facts say, as far as decisions need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Routes of its machine.
    pub routes: Vec<IpNet>,
    /// Containers on each network.
    pub endpoints: BTreeMap<NetworkId, usize>,
}
