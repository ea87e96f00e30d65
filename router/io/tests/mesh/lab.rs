//! A small mesh of whole nodes on loopback, each with a disk in memory and threads of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use weft_api::id::{BootId, HostId, HostKey, MeshKey};
use weft_api::report::LinkState;
use weft_api::roster::{Cipher, MeshRecord, Roles, RosterRecord, Standing};
use weft_api::sign::{Signed, SigningKey};
use weft_router_io::node::{MeshView, Node, NodeConfig, NodeEvent, Persist, Stored, StoredRecord};

pub fn mesh_key() -> SigningKey {
    SigningKey::from_seed([100; 32])
}

pub fn mesh() -> MeshRecord {
    MeshRecord {
        mesh: MeshKey(mesh_key().public()).id(),
        name: "quiet-fox".into(),
        cipher: Cipher::Aes256Gcm,
    }
}

pub fn key(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

pub fn id(n: u8) -> HostId {
    HostKey(key(n).public()).id()
}

pub fn record(n: u8, serial: u64, standing: Standing) -> Signed<RosterRecord> {
    record_by(&mesh_key(), n, serial, standing)
}

/// Signed by this mesh key.
pub fn record_by(mesh_key: &SigningKey, n: u8, serial: u64, standing: Standing) -> Signed<RosterRecord> {
    let first = n == 1;
    mesh_key.sign(&RosterRecord {
        mesh: MeshKey(mesh_key.public()).id(),
        key: HostKey(key(n).public()),
        name: format!("h{n}"),
        roles: Roles { founder: first, controller: first, signer: first },
        serial,
        standing,
        under: weft_api::roster::Under::default(),
    })
}

pub fn roster(members: &[u8]) -> Vec<Signed<RosterRecord>> {
    members.iter().map(|n| record(*n, 1, Standing::Member)).collect()
}

pub fn address(n: u8) -> SocketAddr {
    // One address a host, a port that is free there.
    let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// A disk in memory.
#[derive(Clone, Default)]
pub struct Disk(pub Arc<Mutex<BTreeMap<String, StoredRecord>>>);

impl Persist for Disk {
    fn save(&self, records: &[StoredRecord]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        for record in records {
            match record {
                StoredRecord::Roster(host, _) => disk.insert(format!("roster {host}"), record.clone()),
                StoredRecord::Facts(host, _) => disk.insert(format!("facts {host}"), record.clone()),
                StoredRecord::Decision(key, _) => disk.insert(format!("decision {key:?}"), record.clone()),
                StoredRecord::FactsGone(host) => disk.remove(&format!("facts {host}")),
                StoredRecord::Succession(n, _) => disk.insert(format!("key {n}"), record.clone()),
                StoredRecord::RosterGone(host) => disk.remove(&format!("roster {host}")),
            };
        }
        Ok(())
    }
}

impl Disk {
    pub fn load(&self, mut stored: Stored) -> Stored {
        for record in self.0.lock().unwrap().values() {
            match record.clone() {
                StoredRecord::Roster(_, r) => stored.roster.push(r),
                StoredRecord::Facts(_, r) => stored.facts.push(r),
                StoredRecord::Decision(_, r) => stored.decisions.push(r),
                StoredRecord::Succession(_, r) => stored.successions.push(r),
                StoredRecord::FactsGone(_) | StoredRecord::RosterGone(_) => {}
            }
        }
        stored
    }
}

/// A running host, on threads of its own, so that it can be killed without a word.
pub struct Host {
    pub node: Node,
    pub events: mpsc::Receiver<NodeEvent>,
    pub runtime: Option<Runtime>,
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A whole mesh: every host knows the roster and where the others are.
pub struct Lab {
    pub members: Vec<u8>,
    pub addresses: BTreeMap<u8, SocketAddr>,
    pub disks: BTreeMap<u8, Disk>,
    pub boots: u64,
    /// Pairs that know no address of each other.
    pub apart: BTreeSet<(u8, u8)>,
}

impl Lab {
    pub fn new(members: &[u8]) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env(); // RUST_LOG=weft_router_io=debug
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        Self {
            members: members.to_vec(),
            addresses: members.iter().map(|n| (*n, address(*n))).collect(),
            disks: members.iter().map(|n| (*n, Disk::default())).collect(),
            boots: 0,
            apart: BTreeSet::new(),
        }
    }

    pub fn config(&mut self, n: u8) -> NodeConfig {
        self.boots += 1;
        let mut boot = [n; 16];
        boot[..8].copy_from_slice(&self.boots.to_be_bytes());
        let stored = Stored { roster: roster(&self.members), ..Stored::default() };
        NodeConfig {
            host_key: key(n),
            boot: BootId(boot),
            boot_counter: self.boots,
            mesh: mesh(),
            mesh_key: MeshKey(mesh_key().public()),
            listen: self.addresses[&n],
            limits: Default::default(),
            lanes: 2,
            stored: self.disks[&n].load(stored),
            dial: self.known_to(n),
        }
    }

    fn known_to(&self, n: u8) -> Vec<(HostId, SocketAddr)> {
        let others = self.addresses.iter().filter(|(o, _)| **o != n);
        let known = others.filter(|(o, _)| !self.apart.contains(&(n.min(**o), n.max(**o))));
        known.map(|(o, a)| (id(*o), *a)).collect()
    }

    pub async fn start(&mut self, n: u8) -> Host {
        let config = self.config(n);
        self.start_as(n, config).await
    }

    /// With these settings in place of the lab's.
    pub async fn start_as(&self, n: u8, config: NodeConfig) -> Host {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let starting = runtime.spawn(Node::start(config, Box::new(self.disks[&n].clone())));
        let (node, events) = starting.await.unwrap().unwrap();
        Host { node, events, runtime: Some(runtime) }
    }

    pub async fn start_all(&mut self) -> Vec<Host> {
        let mut hosts = Vec::new();
        for n in self.members.clone() {
            hosts.push(self.start(n).await);
        }
        hosts
    }
}

pub async fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not after {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}

pub fn view(host: &Host) -> Arc<MeshView> {
    host.node.view().borrow().clone()
}

pub fn all_up(hosts: &[Host]) -> bool {
    hosts.iter().all(|h| {
        view(h).reachable.len() == hosts.len() && h.node.links().iter().all(|l| l.state == LinkState::Up)
    })
}

pub const SOON: Duration = Duration::from_secs(10);

/// As `kill -9` does it: no goodbye. The port is free when this returns.
pub async fn kill(host: Host) {
    let address = host.node.local_addr().unwrap();
    drop(host);
    let free = || UdpSocket::bind(address).is_ok();
    until("the port is free", SOON, free).await;
}
