//! What the admin API tells: the rows of the CLI's tables, and its `--json`. Times are seconds unless the name says otherwise.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{HostId, Mac, NetworkId, TokenId};
use crate::network::Subnet;
use crate::roster::Cipher;

/// How this host and its mesh are.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The mesh's name.
    pub mesh: String,
    /// This host's name.
    pub host: String,
    /// This host's id.
    pub id: HostId,
    /// Made the mesh, and decides.
    pub founder: bool,
    /// The version of weft.
    pub version: String,
    /// Members, this host included.
    pub hosts: usize,
    /// Members that can be reached, this host included.
    pub reachable: usize,
    /// Members that cannot.
    pub unreachable: Vec<String>,
    /// Docker.
    pub docker: Part,
    /// The accept rules.
    pub firewall: Part,
    /// The kernel's offloads: `all`, or what is missing.
    pub offloads: Part,
    /// Who decides, and whether it can be reached.
    pub controller: Part,
    /// Further things that are wrong, a sentence each.
    pub problems: Vec<String>,
    /// Frames and datagrams dropped since the start, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Seconds since the start.
    pub uptime: u64,
}

impl Status {
    /// Whether anything is wrong: the exit code of `weft status`.
    #[must_use]
    pub fn degraded(&self) -> bool {
        self.reachable < self.hosts
            || !self.problems.is_empty()
            || [&self.docker, &self.firewall, &self.controller].iter().any(|p| !p.ok)
    }
}

/// The state of one part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// As it should be.
    pub ok: bool,
    /// In words: `ok`, or what is wrong.
    pub text: String,
}

/// A member of the mesh.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: HostId,
    /// The host that answers.
    pub this: bool,
    /// Made the mesh.
    pub founder: bool,
    /// May sign decisions.
    pub controller: bool,
    /// Holds the mesh key: admits and removes members.
    pub signer: bool,
    /// Can be reached.
    pub reachable: bool,
    /// The name of the host through which, if there is no link to it.
    pub through: Option<String>,
    /// Where it says that it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// Containers on weft networks.
    pub endpoints: usize,
    /// Its version of weft, if it has said it.
    pub version: Option<String>,
}

/// A link to another host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Link {
    /// The other host's name.
    pub host: String,
    /// Its id.
    pub id: HostId,
    /// `up`, `connecting` or `down`.
    pub state: LinkState,
    /// What carries it: `udp`, `tcp`, or the name of the host that relays.
    pub transport: String,
    /// The other end, if no host relays.
    pub address: Option<SocketAddr>,
    /// Round trip of the last probes, milliseconds.
    pub rtt_ms: Option<f64>,
    /// Share of the last 32 probes that did not come back, 0 to 1.
    pub loss: f32,
    /// The longest datagram that is known to pass.
    pub mtu: Option<u16>,
    /// What seals it.
    pub cipher: Option<Cipher>,
    /// Seconds since its keys were made.
    pub key_age: Option<u64>,
    /// Bytes of datagrams sent.
    pub sent_bytes: u64,
    /// Bytes of datagrams received.
    pub received_bytes: u64,
    /// Dropped on this link, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// A host whose sessions get fresh keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rekeyed {
    /// Its name.
    pub host: String,
    /// How many sessions; absent: it could not be asked.
    pub sessions: Option<usize>,
    /// Why not.
    pub why: Option<String>,
}

/// The mesh has a new key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rotated {
    /// The new key, for people to compare.
    pub fingerprint: String,
    /// So many times the key has been rotated.
    pub number: u32,
    /// Members that held the old key and can sign nothing until they import the new one.
    pub signers: Vec<String>,
    /// Those among them that cannot be reached: what they have admitted or removed unheard is not carried over.
    pub unheard: Vec<String>,
}

/// Whether frames pass a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Probes are answered.
    Up,
    /// Being dialled.
    Connecting,
    /// Silent.
    Down,
}

/// The way of a frame from the host that answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trace {
    /// What was asked for.
    pub to: String,
    /// In order.
    pub steps: Vec<Step>,
    /// The last step is where it was meant to be.
    pub arrives: bool,
}

/// One step of a way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What happens.
    pub says: String,
    /// The fact, the decision or the observation that it follows from.
    pub because: String,
}

impl Trace {
    /// It goes on.
    pub fn step(&mut self, says: String, because: String) {
        self.steps.push(Step { says, because });
    }

    /// Here it ends.
    pub fn ends(&mut self, says: String, because: impl Into<String>) {
        self.step(says, because.into());
        self.arrives = false;
    }
}

/// A container on a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The container's name, or the start of Docker's endpoint id until it is known.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The host's name.
    pub host: String,
    /// The host can be reached.
    pub reachable: bool,
    /// Its address stands in Docker's own record (`--ip`), so that it keeps it.
    #[serde(default)]
    pub pinned: bool,
}

/// A network and what is known of it here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: NetworkId,
    /// Its ranges.
    pub subnets: Vec<Subnet>,
    /// Its MTU.
    pub mtu: u16,
    /// No way out.
    pub internal: bool,
    /// The hosts that have it.
    pub hosts: Vec<String>,
    /// Containers on it, on all hosts.
    pub endpoints: usize,
    /// Which host may hand out what.
    pub blocks: Vec<Block>,
    /// Single addresses that are another host's than the block that they lie in.
    #[serde(default)]
    pub leases: Vec<Lease>,
    /// How it is on this host.
    pub state: NetworkState,
    /// Why it does not work here, if it does not.
    pub problem: Option<String>,
}

/// How a network is on the host that answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkState {
    /// As it should be, or on the way.
    Here,
    /// A person took it away: `weft network detach`, or `docker network rm`.
    Detached,
    /// Only Docker has it: it is not the mesh's, and carries nothing.
    Conflict,
    /// It does not work.
    Problem,
}

/// A block and its holder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Block {
    /// The range.
    pub range: IpNet,
    /// The holder's name.
    pub host: String,
    /// Addresses of it in use, as far as facts say.
    pub used: usize,
}

/// An address that was lent out of a block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// The lessee's name.
    pub host: String,
    /// It is in use, as far as facts say.
    pub used: bool,
}

/// A token, without its secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Unix seconds.
    pub expires: u64,
    /// Good for one host only.
    pub once: bool,
    /// The hosts that joined by it.
    pub used_by: Vec<String>,
}

/// What time it is on a host, as it tells others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Time {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// The clock of another host against that of the host that answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Skew {
    /// The other host's name.
    pub host: String,
    /// By how much its clock is ahead, milliseconds; negative: behind.
    pub ahead_ms: i64,
    /// The truth is within this many milliseconds of it: half of the round trip.
    pub within_ms: u64,
}
