//! Why something is not done: a sentence for a person, and the kind that a program acts on.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{NetworkId, TokenId};
use weft_api::network::{MAX_MTU, MIN_MTU, NameError};
use weft_ipam::range::RangeError;

use crate::{block, lease, member, network, token};

/// A command is refused; the state is as it was.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is a mesh already.
    #[error("this controller has the mesh \"{0}\" already: run weft leave --force first")]
    AlreadyFounded(String),
    /// There is no mesh yet.
    #[error("this controller has no mesh yet: run weft init")]
    NoMesh,
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),

    /// Too many tokens.
    #[error("the mesh has {max} valid tokens, the most it keeps: remove one with weft token rm", max = token::MAX_TOKENS)]
    TooManyTokens,
    /// Valid for no time, or too long.
    #[error("a token cannot be valid for {0} s: choose 1 s to {days} days with --expires", days = token::MAX_VALID_SECS / 86_400)]
    TokenLifetime(u64),
    /// A token that was never made here, or was removed so long ago that it is forgotten.
    #[error("this mesh has no token {0}: weft token ls lists them, weft token new makes one")]
    UnknownToken(String),
    /// More than one token begins like this.
    #[error("more than one token begins with {0}: write more of its id (weft token ls)")]
    AmbiguousToken(String),
    /// A token that was removed.
    #[error("the token {0} was removed: make a new one with weft token new, on any member")]
    RemovedToken(TokenId),
    /// A token past its time.
    #[error("the token expired {} ago: make a new one with weft token new, on any member", token::span(*.ago))]
    ExpiredToken {
        /// Seconds.
        ago: u64,
    },
    /// A once-token that another host has used.
    #[error(
        "the token was good for one host and {by} has used it: make a new one with weft token new, on any member"
    )]
    UsedToken {
        /// The host's name.
        by: String,
    },

    /// The key that this host signs with was rotated on another.
    #[error(
        "this host holds an old mesh key, which was rotated, and can sign nothing with it: weft mesh key export on a signer (weft hosts), then weft mesh key import here"
    )]
    OldKey,
    /// The chain of keys is full.
    #[error("the mesh key was rotated {max} times, the most that a joining host follows: make a new mesh", max = weft_api::succession::MAX_SUCCESSIONS)]
    TooManyRotations,
    /// The wish to join is no wish.
    #[error(
        "the wish to join cannot be read: the joining host runs another version of weft; install the same on both"
    )]
    UnreadableWish,
    /// The wish was not signed with the token's key.
    #[error("the wish to join is not signed with the token's key: copy the token again, whole")]
    ForgedWish,
    /// The wish is for another mesh.
    #[error(
        "the token is for another mesh than \"{mesh}\": ask a member of its own mesh, or make a token here with weft token new"
    )]
    OtherMesh {
        /// This mesh's name.
        mesh: String,
    },
    /// Another member has the name.
    #[error("the mesh has a host named \"{name}\" already: choose another name with --name, such as {free}")]
    HostNameTaken {
        /// The name.
        name: String,
        /// One that is free.
        free: String,
    },
    /// The host was removed.
    #[error(
        "this host was removed from the mesh, which is final for its key: run weft leave on it and join again, with a new key"
    )]
    RemovedHost,
    /// Two keys with the same short id: one in 2^64.
    #[error("this host's id is another host's too: run weft leave on it and join again, with a new key")]
    IdCollision,
    /// The mesh is full.
    #[error("the mesh has {max} hosts, the most that this version carries: remove one with weft host rm", max = member::MAX_MEMBERS)]
    TooManyMembers,
    /// The roster is full of removed hosts.
    #[error("the mesh remembers {max} hosts, most of them removed, and can take no more: make a new mesh with weft init", max = member::MAX_ROSTER)]
    RosterFull,
    /// No such host.
    #[error("the mesh has no host named \"{0}\": weft hosts lists them")]
    UnknownHost(String),
    /// The only host that decides cannot be removed.
    #[error(
        "{0} founded the mesh and is the only one that decides, so it cannot be removed: remove the others, then run weft leave --force on it"
    )]
    Founder(String),
    /// Who asks is no member.
    #[error("the host that asks is no member of the mesh: run weft join on it")]
    NotAMember,
    /// A goodbye that the host itself did not sign, or for another mesh.
    #[error("the goodbye is not signed by the host that leaves this mesh: remove it with weft host rm")]
    ForgedGoodbye,

    /// Another network has the name.
    #[error(
        "the mesh has a network named \"{0}\" already: choose another name, or remove that one with weft network rm {0}"
    )]
    NetworkNameTaken(String),
    /// Docker keeps the name for itself.
    #[error("\"{0}\" is a name that Docker keeps for itself: choose another name")]
    DockersName(String),
    /// No such network.
    #[error("the mesh has no network named \"{0}\": weft network ls lists them")]
    UnknownNetwork(String),
    /// No network with this id.
    #[error("the mesh has no network with the id {0}: it was removed")]
    UnknownNetworkId(NetworkId),
    /// Too many networks.
    #[error("the mesh has {max} networks, the most it keeps: remove one with weft network rm", max = network::MAX_NETWORKS)]
    TooManyNetworks,
    /// A range that cannot be one.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// Two ranges of one family.
    #[error("{first} and {second} are both {family} ranges, and a network has at most one: give one of them")]
    TwoRanges {
        /// One.
        first: IpNet,
        /// The other.
        second: IpNet,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// Another network is there.
    #[error(
        "{range} overlaps {other} of network {network}: choose another range with --subnet, or leave it out"
    )]
    OverlapsNetwork {
        /// What was asked for.
        range: IpNet,
        /// What is there.
        other: IpNet,
        /// Whose it is.
        network: String,
    },
    /// A machine's route is there.
    #[error(
        "{range} overlaps {route}, a route of {host}, which would lose its way there: choose another range with --subnet, or leave it out"
    )]
    OverlapsRoute {
        /// What was asked for.
        range: IpNet,
        /// What is there.
        route: IpNet,
        /// Whose it is.
        host: String,
    },
    /// A person chose a gateway that cannot be one.
    #[error(
        "{gateway} cannot be the gateway of {range}: choose another address of it with --gateway, or leave it out"
    )]
    NoGateway {
        /// What was asked for.
        gateway: IpAddr,
        /// The range.
        range: IpNet,
    },
    /// Its id was another network's, which is gone.
    #[error("the network that had this range was removed from the mesh: run docker network create again")]
    HeldNoMore,
    /// Too many networks are being made.
    #[error("too many networks are being made at once: try again in a minute")]
    TooManyHolds,
    /// The default pool has nothing left.
    #[error(
        "no {family} range of the default pool is free of other networks and of the hosts' routes: give one with --subnet"
    )]
    PoolEmpty {
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// Too small an MTU.
    #[error("an MTU of {0} is too small, IPv6 needs {MIN_MTU} (RFC 8200): choose {MIN_MTU} to {MAX_MTU}")]
    MtuTooSmall(u16),
    /// Too large an MTU.
    #[error(
        "frames of an MTU of {0}, sealed, do not fit one datagram on an underlay of 1500: choose {MIN_MTU} to {MAX_MTU}"
    )]
    MtuTooLarge(u16),
    /// Containers use the network.
    #[error("network {network} is in use by {}: stop or disconnect them first (weft ps lists them)", network::containers(.on))]
    NetworkInUse {
        /// The network.
        network: String,
        /// Host names and their containers.
        on: Vec<(String, usize)>,
    },

    /// The network has no such range.
    #[error("network {network} has no range {range}: weft network inspect {network} shows its ranges")]
    NotItsRange {
        /// The network.
        network: String,
        /// What was asked for.
        range: IpNet,
    },
    /// Every block is held.
    #[error(
        "hosts hold all blocks of {range} ({holders}): remove a container of {network} here, run the next one on a host with room (weft network inspect {network}), or make a network with a larger --subnet"
    )]
    RangeFull {
        /// The network.
        network: String,
        /// The range.
        range: IpNet,
        /// Who holds how much, in words.
        holders: String,
    },
    /// The host has many blocks.
    #[error("{host} holds {max} blocks of {range}, the most that one host gets: run further containers on another host", max = block::MAX_BLOCKS_PER_HOST)]
    TooManyBlocks {
        /// The host.
        host: String,
        /// The range.
        range: IpNet,
    },
    /// The block that an address lies in is another host's.
    #[error(
        "{block} is held by {host}: choose an address that lies in none of its blocks (weft network inspect)"
    )]
    BlockTaken {
        /// The block.
        block: IpNet,
        /// Its holder.
        host: String,
    },
    /// The address is no container's, or of no range of the network.
    #[error("{address} cannot be a container's on network {network}: choose another address of its ranges")]
    NoLease {
        /// What was asked for.
        address: IpAddr,
        /// The network.
        network: String,
    },
    /// The address is leased to another host.
    #[error("{address} is leased to {host}: choose another address, or remove the container there")]
    Leased {
        /// The address.
        address: IpAddr,
        /// The lessee.
        host: String,
    },
    /// Decided anew since.
    #[error("something newer has been decided about {0}: try again")]
    Late(IpAddr),
    /// The host has many leases.
    #[error("{host} has {max} leases, the most that one host gets: choose addresses of its own blocks", max = lease::MAX_LEASES_PER_HOST)]
    TooManyLeases {
        /// The host.
        host: String,
    },
    /// Who gives a block back has lent of it.
    #[error(
        "{address} of {block} is leased to {host}, so the block cannot be given back: wait until the lease is"
    )]
    BlockLent {
        /// The block.
        block: IpNet,
        /// An address of it.
        address: IpAddr,
        /// The lessee.
        host: String,
    },
    /// Only what a host was given can be given back.
    #[error("only blocks and leases are given back: use the same version of weft on both hosts")]
    NotGivenBack,
    /// The host believes that it holds what it does not.
    #[error(
        "{host} claims {block}, which is not its by any decision known here: wait until it and the controller have met again, or restart weft up on it"
    )]
    NotItsBlock {
        /// The host.
        host: String,
        /// The block.
        block: IpNet,
    },
}

impl Refusal {
    /// What kind of wrong it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::TokenLifetime(_)
            | Self::AmbiguousToken(_)
            | Self::UnreadableWish
            | Self::DockersName(_)
            | Self::Range(_)
            | Self::TwoRanges { .. }
            | Self::MtuTooSmall(_)
            | Self::MtuTooLarge(_)
            | Self::NoGateway { .. }
            | Self::NoLease { .. }
            | Self::NotGivenBack
            | Self::NotItsRange { .. } => ErrorKind::Invalid,
            Self::RemovedToken(_)
            | Self::ExpiredToken { .. }
            | Self::UsedToken { .. }
            | Self::ForgedWish
            | Self::OtherMesh { .. }
            | Self::RemovedHost
            | Self::NotAMember
            | Self::ForgedGoodbye => ErrorKind::Forbidden,
            Self::UnknownToken(_)
            | Self::UnknownHost(_)
            | Self::UnknownNetwork(_)
            | Self::UnknownNetworkId(_) => ErrorKind::NotFound,
            Self::AlreadyFounded(_)
            | Self::TooManyTokens
            | Self::HostNameTaken { .. }
            | Self::IdCollision
            | Self::TooManyMembers
            | Self::RosterFull
            | Self::OldKey
            | Self::TooManyRotations
            | Self::Founder(_)
            | Self::NetworkNameTaken(_)
            | Self::TooManyNetworks
            | Self::HeldNoMore
            | Self::OverlapsNetwork { .. }
            | Self::OverlapsRoute { .. }
            | Self::PoolEmpty { .. }
            | Self::NetworkInUse { .. }
            | Self::RangeFull { .. }
            | Self::TooManyBlocks { .. }
            | Self::BlockTaken { .. }
            | Self::Leased { .. }
            | Self::Late(_)
            | Self::TooManyLeases { .. }
            | Self::BlockLent { .. }
            | Self::NotItsBlock { .. } => ErrorKind::Conflict,
            Self::NoMesh | Self::TooManyHolds => ErrorKind::Unavailable,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind(), refusal.to_string())
    }
}
