//! What is asked of the admin API. Paths are in [`path`]; bodies are JSON; an error is an [`crate::error::ApiError`].
//! A host asks the deciding host for the same things by the same requests, on a stream of its session.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::decision::DecisionKey;
use crate::id::{HostId, HostKey, NetworkId, TokenId};
use crate::network::MtuOption;
use crate::roster::{MeshRecord, RosterRecord};
use crate::sign::Signed;
use crate::succession::Succession;
use crate::token::JoinWish;

/// Paths of the API. `GET` lists or shows, `POST` makes, `DELETE` removes.
pub mod path {
    /// GET -> [`crate::report::Status`]
    pub const STATUS: &str = "/v1/status";
    /// GET -> `Vec<`[`crate::report::Host`]`>`; DELETE `/v1/hosts/{name}` (decided by a signer)
    pub const HOSTS: &str = "/v1/hosts";
    /// GET -> `Vec<`[`crate::report::Link`]`>`
    pub const LINKS: &str = "/v1/links";
    /// GET `/v1/trace/{to}` -> [`crate::report::Trace`]
    pub const TRACE: &str = "/v1/trace";
    /// GET -> `Vec<`[`crate::report::Endpoint`]`>`
    pub const ENDPOINTS: &str = "/v1/endpoints";
    /// GET -> `Vec<`[`crate::report::Network`]`>`; POST [`super::CreateNetwork`] -> [`crate::network::Network`]
    /// (decided by the controller); GET, DELETE `/v1/networks/{name}`
    pub const NETWORKS: &str = "/v1/networks";
    /// GET -> `Vec<`[`crate::report::Token`]`>`; POST [`super::NewToken`] -> [`super::TokenMade`]; DELETE `/v1/tokens/{id}`
    /// (decided by a signer)
    pub const TOKENS: &str = "/v1/tokens";
    /// POST (attach) or DELETE (detach) `/v1/networks/{name}/here`: whether this host has the network
    pub const HERE: &str = "here";
    /// POST [`super::Attach`] -> [`crate::report::Endpoint`]; DELETE [`super::Detach`]: what Docker did not start on a network
    pub const ATTACHMENTS: &str = "/v1/attachments";
    /// POST [`super::HoldRange`] -> [`super::RangeHeld`]; hosts only, decided by the controller
    pub const RANGES: &str = "/v1/ranges";
    /// POST [`super::WantBlock`] -> [`super::BlockGranted`]; hosts only, decided by the controller
    pub const BLOCKS: &str = "/v1/blocks";
    /// POST [`super::AskLoan`]: another host asks for an address of a block of the host that is asked; hosts only
    pub const LOANS: &str = "/v1/loans";
    /// POST [`super::Lend`]: the holder of a block lends an address of it; hosts only, decided by the controller
    pub const LEASES: &str = "/v1/leases";
    /// POST [`super::GiveUp`]: a host gives a block or a lease back; hosts only, decided by the controller
    pub const GIVEN_UP: &str = "/v1/given-up";
    /// POST `Signed<JoinWish>` as [`super::Join`] -> [`super::Admitted`]; passed on by any member, decided by a signer
    pub const JOIN: &str = "/v1/join";
    /// GET -> `Vec<`[`crate::report::Skew`]`>`: the clocks of the other hosts against this one's
    pub const CLOCKS: &str = "/v1/clocks";
    /// GET -> [`crate::report::Time`]; hosts only, answered by every member
    pub const TIME: &str = "/v1/time";
    /// POST [`super::Rekey`] -> `Vec<`[`crate::report::Rekeyed`]`>`; of another host, without a body: [`crate::report::Rekeyed`]
    pub const REKEY: &str = "/v1/rekey";
    /// POST -> [`crate::report::Rotated`]: a new mesh key; on a signer only
    pub const ROTATE: &str = "/v1/mesh/key";
    /// POST [`super::Leave`]: this host leaves the mesh
    pub const LEAVE: &str = "/v1/leave";
    /// POST `Signed<`[`super::Goodbye`]`>` in JSON: a host tells the signer that it has left
    pub const GOODBYE: &str = "/v1/goodbye";
}

/// Who asks; the server of a request puts it beside the request, nobody can send it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A person on this host: the admin socket.
    Admin,
    /// Another host, or this one's own agent: the stream of a session.
    Member(HostId),
}

/// Asks for a network.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// Its ranges; empty: the first free one of the default pool.
    #[serde(default)]
    pub subnets: Vec<IpNet>,
    /// With an IPv6 range of the default pool too.
    #[serde(default)]
    pub ipv6: bool,
    /// Its MTU; absent: [`crate::network::DEFAULT_MTU`].
    #[serde(default)]
    pub mtu: Option<u16>,
    /// `docker network create`: the option that set it.
    #[serde(default)]
    pub mtu_option: Option<MtuOption>,
    /// No way out.
    #[serde(default)]
    pub internal: bool,
    /// The gateways of `subnets`; of a range without one here it is the first address.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// `docker network create` on some host: the id under which its range is held. Asked twice, it is made once.
    #[serde(default)]
    pub held: Option<NetworkId>,
}

/// A person typed `docker network create`; Docker wants a range before it tells a name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HoldRange {
    /// `--subnet`; absent: the first free range of the default pool.
    pub range: Option<IpNet>,
    /// Of the pool of IPv6.
    #[serde(default)]
    pub v6: bool,
}

/// The range is held for a minute, for whoever names a network with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeHeld {
    /// The id of the network that will have it, or that has exactly this range.
    pub network: NetworkId,
    /// The range.
    pub range: IpNet,
    /// The gateway unless the person chooses one.
    pub gateway: IpAddr,
}

/// A host asks for its next block of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WantBlock {
    /// Of which network.
    pub network: NetworkId,
    /// Of which of its ranges.
    pub range: IpNet,
    /// The blocks of that range that the host already holds, so that asking twice gives one block, not two.
    pub have: Vec<IpNet>,
    /// The block that this address lies in, since a container wants it; absent: the lowest free one.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// The blocks of the range that the host now holds; the signed decision travels by gossip as well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockGranted {
    /// All of them, old and new.
    pub blocks: Vec<IpNet>,
}

/// A host asks the holder of a block for one address of it, which a container wants there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AskLoan {
    /// Of which network.
    pub network: NetworkId,
    /// Which one.
    pub address: IpAddr,
}

/// The holder of a block lends one address of it. It has written that down before, and gives the address to nobody.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lend {
    /// Of which network.
    pub network: NetworkId,
    /// Which one.
    pub address: IpAddr,
    /// To this host; absent: to nobody after all.
    pub to: Option<HostId>,
    /// The revision of the last decision about this address that the holder knows, 0 if there is none. After a newer one
    /// nothing is decided: the request was late.
    pub seen: u64,
}

/// A host gives back what was decided to be its own. It has written that down before, and uses it no more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GiveUp {
    /// A block or a lease.
    pub key: DecisionKey,
    /// The revision under which it was the host's. If it was decided anew since, nothing happens.
    pub revision: u64,
}

/// What weft puts on a network by itself, on the host that is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whom {
    /// A running container, by its name or id.
    Container(String),
    /// The network namespace of a process.
    Pid(u32),
    /// The host itself.
    Host,
}

/// Puts something on a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// What.
    pub whom: Whom,
    /// The network's name or id.
    pub network: String,
    /// Its addresses, one of a range at most; of other ranges it gets the lowest free one.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// Takes it off again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Detach {
    /// What.
    pub whom: Whom,
    /// The network's name or id.
    pub network: String,
}

/// Asks for a token.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NewToken {
    /// Good for one host only.
    #[serde(default)]
    pub once: bool,
    /// Valid for so many seconds; absent: a day.
    #[serde(default)]
    pub valid_secs: Option<u64>,
}

/// A new token; its text is told only now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenMade {
    /// Its id in lists.
    pub id: TokenId,
    /// What to hand to the joining host.
    pub token: String,
    /// Unix seconds.
    pub expires: u64,
}

/// A host that wants to join, passed on to the signer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Join {
    /// Signed by the token's key.
    pub wish: Signed<JoinWish>,
}

/// The host is a member now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Admitted {
    /// What everybody agrees on, signed by the mesh key.
    pub mesh: Signed<MeshRecord>,
    /// From the first mesh key to that one.
    pub successions: Vec<Signed<Succession>>,
    /// The whole roster, the new member's own record in it.
    pub roster: Vec<Signed<RosterRecord>>,
}

/// Asks for fresh keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rekey {
    /// Of every host's sessions, not of this host's alone.
    #[serde(default)]
    pub all: bool,
}

/// Asks this host to leave its mesh.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Leave {
    /// Even while containers use its networks, and even as the founder.
    #[serde(default)]
    pub force: bool,
}

/// A host's last word, signed by its own key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Goodbye {
    /// Who leaves.
    pub key: HostKey,
    /// Which mesh.
    pub mesh: crate::id::MeshId,
}

impl crate::sign::Record for Goodbye {
    const DOMAIN: &'static str = "weft goodbye 1";
}
