//! A simulated host: the product's session layer, mesh and switch, and what its machine would hold for them.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weft_agent::state::ledger::Endpoint;
use weft_agent::tables::table;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::{self, FactRecord, Item};
use weft_api::id::{HostId, HostKey, MeshId, MeshKey, NetworkId};
use weft_api::network::{Network, Origin, Subnet};
use weft_api::roster::{Roles, RosterRecord, Standing};
use weft_api::sign::{Signed, SigningKey, verify_bytes};
use weft_api::succession::Succession;
use weft_router::drop::DropReason;
use weft_router::fragment::Reassembly;
use weft_router::mesh::{AnyRecord, Mesh, Notary, RecordKey};
use weft_router::replay::ReplayWindow;
use weft_router::seal::{OpenKey, SealKey};
use weft_router::session::{ConnectionId, LinkView, Path, Sessions};
use weft_router::switch::{Memory, Table};
use weft_router::waiting::WaitingRoom;
use weft_router_io::node::{Groups, HostFacts, MeshView};

use crate::frames::Place;
use crate::quic::Quic;

/// Signatures are checked once for all hosts, which share one copy of each record.
#[derive(Default, Debug)]
pub struct SharedNotary(Mutex<HashMap<u128, Arc<dyn Any + Send + Sync>>>);

impl Notary for SharedNotary {
    fn verify(&self, key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
        verify_bytes(key, bytes, signature).is_ok()
    }

    fn recall(&self, mark: u128) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&mark).cloned()
    }

    fn keep(&self, mark: u128, held: &Arc<dyn Any + Send + Sync>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(mark, Arc::clone(held));
    }
}

/// A key to open with.
pub(crate) struct Opening {
    pub connection: ConnectionId,
    /// Its place among the keys of the connection.
    pub epoch: u32,
    pub heard: bool,
    pub replay: ReplayWindow,
    pub newest_from: Option<SocketAddr>,
    /// Where envelopes are more than a model.
    pub key: Option<OpenKey>,
}

/// A key to seal with.
pub(crate) struct Sealing {
    pub index: u32,
    pub counter: u64,
    /// Where envelopes are more than a model.
    pub key: Option<Rc<SealKey>>,
    /// The longest datagram that the path is known to pass.
    pub size: u16,
    /// Chunks that were sent in fragments.
    pub fragment: u16,
}

/// What a host starts with.
#[derive(Clone, Default)]
pub(crate) struct Stored {
    pub successions: Vec<Signed<Succession>>,
    pub roster: Vec<Signed<RosterRecord>>,
    pub facts: Vec<FactRecord>,
    pub decisions: Vec<Signed<Decision>>,
}

impl Stored {
    /// All that is on a disk.
    pub(crate) fn of(disk: &BTreeMap<RecordKey, AnyRecord>) -> Self {
        let mut stored = Self::default();
        for record in disk.values() {
            match record {
                AnyRecord::Succession(held) => stored.successions.push(held.signed.clone()),
                AnyRecord::Roster(held) => stored.roster.push(held.signed.clone()),
                AnyRecord::Facts(said) => stored.facts.push(said.record.clone()),
                AnyRecord::Decision(held) => stored.decisions.push(held.signed.clone()),
            }
        }
        stored
    }
}

/// A host.
pub struct Host {
    pub(crate) sessions: Sessions,
    /// What it knows.
    pub mesh: Mesh,
    /// Rises with each start.
    pub life: u32,
    /// Whether it runs.
    pub alive: bool,
    /// Its containers.
    pub endpoints: BTreeSet<Place>,
    /// What died here, by reason.
    pub counts: BTreeMap<DropReason, u64>,
    /// Bytes that it sent, IP headers included.
    pub sent: u64,
    pub(crate) disk: BTreeMap<RecordKey, AnyRecord>,
    /// Whom it takes for members.
    pub(crate) members: BTreeSet<HostId>,
    pub(crate) tables: Vec<(Table, Memory)>,
    pub(crate) tables_due: Option<Duration>,
    pub(crate) peers: HashMap<ConnectionId, (HostId, Path)>,
    pub(crate) opens: HashMap<u32, Opening>,
    pub(crate) seals: HashMap<ConnectionId, Sealing>,
    pub(crate) wires: HashMap<ConnectionId, usize>,
    pub(crate) used: BTreeMap<HostId, ConnectionId>,
    pub(crate) up: BTreeSet<HostId>,
    /// What the mesh was told of: links that no relay takes part in.
    pub(crate) linked: BTreeSet<HostId>,
    pub(crate) wakes: Option<Duration>,
    /// QUIC itself, where that is no model.
    pub(crate) quic: Option<Box<Quic>>,
    pub(crate) fragments: Reassembly,
    /// Frames that wait for a session: the network, and the bytes.
    pub(crate) held: WaitingRoom<(usize, Rc<[u8]>)>,
}

impl Host {
    /// One that has just started.
    pub(crate) fn new(sessions: Sessions, mesh: Mesh, life: u32) -> Self {
        Self {
            members: mesh.roster().members(),
            sessions,
            mesh,
            life,
            alive: true,
            endpoints: BTreeSet::new(),
            counts: BTreeMap::new(),
            sent: 0,
            disk: BTreeMap::new(),
            tables: Vec::new(),
            tables_due: None,
            peers: HashMap::new(),
            opens: HashMap::new(),
            seals: HashMap::new(),
            wires: HashMap::new(),
            used: BTreeMap::new(),
            up: BTreeSet::new(),
            linked: BTreeSet::new(),
            wakes: None,
            quic: None,
            fragments: Reassembly::new(),
            held: WaitingRoom::default(),
        }
    }

    /// What it starts with lies on its disk.
    pub(crate) fn store_roster(&mut self) {
        let records = self.mesh.roster().records();
        let records =
            records.map(|(host, held)| (RecordKey::Roster(host), AnyRecord::Roster(Arc::clone(held))));
        self.disk.extend(records);
    }

    pub(crate) fn count(&mut self, reason: DropReason, n: u64) {
        if n > 0 {
            *self.counts.entry(reason).or_default() += n;
        }
    }

    /// The session with another host, as it sees it.
    #[must_use]
    pub fn link(&self, host: HostId) -> Option<LinkView> {
        self.sessions.links().find(|l| l.host == host)
    }

    /// The path to a host that frames would take.
    pub(crate) fn path(&self, host: HostId) -> Option<Path> {
        let connection = self.used.get(&host)?;
        self.peers.get(connection).map(|(_, path)| *path)
    }

    /// Makes the switch's tables of what is known.
    pub(crate) fn make_tables(&mut self, me: HostId, networks: usize) {
        let view = view(&self.mesh);
        let own: Vec<Endpoint> = self.endpoints.iter().map(|place| own_endpoint(*place)).collect();
        for n in 0..networks {
            let made = table(me, &network(n), &view, &own, &Groups::new());
            match self.tables.get_mut(n) {
                Some((table, _)) => *table = made,
                None => self.tables.push((made, Memory::new())),
            }
        }
    }
}

/// What the agent would be told.
fn view(mesh: &Mesh) -> MeshView {
    let mut view = MeshView::default();
    let roster = mesh.roster().records().map(|(id, held)| (id, held.record.clone()));
    view.roster = Arc::new(roster.collect());
    let said = mesh.facts().records().map(|(owner, said)| {
        let (version, items) = (said.head.version, said.record.items.clone());
        (owner, HostFacts { version, items })
    });
    view.facts = Arc::new(said.collect());
    let decided = mesh.decisions().records().map(|held| (held.record.key.clone(), held.record.clone()));
    view.decisions = Arc::new(decided.collect());
    view
}

/// The key that signs the roster.
#[must_use]
pub fn mesh_key() -> SigningKey {
    SigningKey::from_seed([255; 32])
}

/// The mesh.
#[must_use]
pub fn mesh_id() -> MeshId {
    MeshKey(mesh_key().public()).id()
}

/// A host's own key.
#[must_use]
pub fn host_key(n: usize) -> SigningKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SigningKey::from_seed(seed)
}

/// Host 0 decides.
#[must_use]
pub fn member(n: usize) -> Signed<RosterRecord> {
    let roles = Roles { controller: n == 0, ..Roles::default() };
    let key = HostKey(host_key(n).public());
    let standing = Standing::Member;
    mesh_key().sign(&RosterRecord {
        mesh: mesh_id(),
        key,
        name: format!("h{n}"),
        roles,
        serial: 1,
        standing,
        under: weft_api::roster::Under::default(),
    })
}

/// A network: 10.32.0.0/16, 10.33.0.0/16, ...
#[must_use]
pub fn network(n: usize) -> Network {
    let second = 32 + n as u8;
    let subnet = Subnet {
        range: format!("10.{second}.0.0/16").parse().unwrap_or_default(),
        gateway: [10, second, 0, 1].into(),
    };
    Network {
        id: NetworkId(n as u32 + 1),
        name: format!("net{n}"),
        subnets: vec![subnet],
        mtu: 1340,
        internal: false,
        origin: Origin::Weft,
    }
}

/// That each host holds its block of each network, and that the networks are there.
#[must_use]
pub fn decisions(hosts: usize, networks: usize) -> Vec<Signed<Decision>> {
    let signer = HostKey(host_key(0).public());
    let mut all = Vec::new();
    for n in 0..networks {
        let network = network(n);
        all.push((DecisionKey::Network(network.id), DecisionBody::Network(network.clone())));
        for host in 0..hosts {
            let place = Place { host, network: n, nth: 0 };
            let Ok(block) = format!("{}/26", place.address()).parse::<ipnet::IpNet>() else { continue };
            let owner = HostKey(host_key(host).public()).id();
            all.push((DecisionKey::Block(network.id, block.trunc()), DecisionBody::Block { owner }));
        }
    }
    let sign = |(revision, (key, body)): (usize, (DecisionKey, DecisionBody))| {
        let revision = revision as u64 + 1;
        host_key(0).sign(&Decision { mesh: mesh_id(), revision, signer, key, body: Some(body) })
    };
    all.into_iter().enumerate().map(sign).collect()
}

/// What a host says of itself.
pub(crate) fn items(address: SocketAddr, endpoints: &BTreeSet<Place>, networks: usize) -> Vec<Item> {
    let endpoint = |place: &Place| {
        Item::Endpoint(fact::Endpoint {
            network: network(place.network).id,
            mac: place.mac(),
            addresses: vec![place.address().into()],
            container: format!("c{}", place.nth),
        })
    };
    let present = (0..networks).map(|n| Item::Network(network(n).id));
    [Item::Address(address)].into_iter().chain(present).chain(endpoints.iter().map(endpoint)).collect()
}

fn own_endpoint(place: Place) -> Endpoint {
    Endpoint {
        id: format!("{place:?}"),
        docker_network: String::new(),
        network: network(place.network).id,
        addresses: vec![place.address().into()],
        mac: place.mac(),
        container: format!("c{}", place.nth),
        since: 0,
    }
}
