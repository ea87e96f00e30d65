//! One real host in the big mesh: a state directory with all that its hosts know, for a `weft up` that has it to remember; and a
//! real neighbour, the mesh's first host, that says something new again and again.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::time::{interval, sleep};
use weft_agent::state::{Identity, StateDir};
use weft_api::decision::{Decision, DecisionKey};
use weft_api::fact::FactRecord;
use weft_api::id::{BootId, HostId, HostKey, MeshKey};
use weft_api::roster::{Cipher, MeshRecord, Roles, RosterRecord, Standing, Under};
use weft_api::sign::Signed;
use weft_router::mesh::Limits;
use weft_router_io::node::{Node, NodeConfig, Persist, Stored, StoredRecord};

use crate::big::{Big, NETWORKS, place};
use crate::host::{host_key, items, member, mesh_id, mesh_key};

/// Its name.
const NAME: &str = "onlooker";
/// The neighbour has heard all that the onlooker knows.
const CATCHES_UP: Duration = Duration::from_secs(20);

/// Makes the directory, which must not exist; an error is a sentence.
pub fn write(big: &Big, dir: &Path, port: u16) -> Result<(), String> {
    let state = StateDir::new(dir);
    let _lock = state.lock().map_err(|e| e.to_string())?;
    let key = HostKey(state.host_key_or_new().map_err(|e| e.to_string())?.public());
    let ledger = state.create_ledger(mesh_id()).map_err(|e| e.to_string())?;
    let facts = big.world.hosts[0].mesh.facts().records();
    let facts = facts.map(|(host, said)| StoredRecord::Facts(host, FactRecord::clone(&said.record)));
    let decided = big.world.hosts[0].mesh.decisions().records();
    let decided = decided.map(|held| {
        let (key, signed): (DecisionKey, Signed<Decision>) = (held.record.key.clone(), held.signed.clone());
        StoredRecord::Decision(key, signed)
    });
    let id = |n: usize| -> HostId { big.world.ids[n] };
    let roster = (0..big.world.hosts.len()).map(|n| StoredRecord::Roster(id(n), member(n)));
    let own = record(key);
    let records: Vec<StoredRecord> =
        roster.chain([StoredRecord::Roster(key.id(), own)]).chain(decided).chain(facts).collect();
    ledger.save(&records).map_err(|e| e.to_string())?;
    let identity = Identity::new(mesh(), MeshKey(mesh_key().public()), NAME.into(), key, port);
    state.enrol(&identity).map_err(|e| e.to_string())
}

fn mesh() -> MeshRecord {
    MeshRecord { mesh: mesh_id(), name: "sim".into(), cipher: Cipher::Aegis128L }
}

fn record(key: HostKey) -> Signed<RosterRecord> {
    mesh_key().sign(&RosterRecord {
        mesh: mesh_id(),
        key,
        name: NAME.into(),
        roles: Roles::default(),
        serial: 1,
        standing: Standing::Member,
        under: Under::default(),
    })
}

struct Nowhere;

impl Persist for Nowhere {
    fn save(&self, _records: &[StoredRecord]) -> io::Result<()> {
        Ok(())
    }
}

/// The first host, on loopback one port further than the onlooker of this directory: one of its containers starts or ends so
/// often a second, until killed. Says on standard output when it begins, and how many hosts and endpoints it has heard of by then.
pub fn neighbour(dir: &Path, port: u16, endpoints: usize, per_second: u32) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let onlooker = HostKey(StateDir::new(dir).host_key().map_err(|e| e.to_string())?.public());
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let here = at(port + 1);
        let config = NodeConfig {
            host_key: host_key(0),
            boot: BootId([1; 16]),
            boot_counter: 2,
            mesh: mesh(),
            mesh_key: MeshKey(mesh_key().public()),
            listen: here,
            limits: Limits::default(),
            lanes: 1,
            stored: Stored { roster: vec![member(0), record(onlooker)], ..Stored::default() },
            dial: vec![(onlooker.id(), at(port))],
        };
        let (node, _events) = Node::start(config, Box::new(Nowhere)).await.map_err(|e| e.to_string())?;
        let mut places: BTreeSet<_> = (0..endpoints).map(|n| place(0, n)).collect();
        node.publish(items(here, &places, NETWORKS));
        sleep(CATCHES_UP).await;
        let view = std::sync::Arc::clone(&node.view().borrow());
        if !view.reachable.contains(&onlooker.id()) {
            return Err("it is not reached".into());
        }
        let said: usize = view.facts.values().map(|facts| facts.items.endpoints().count()).sum();
        println!("{} {said}", view.facts.len());
        let mut due = interval(Duration::from_secs(1) / per_second.max(1));
        loop {
            due.tick().await;
            let last = place(0, endpoints.saturating_sub(1));
            if !places.remove(&last) {
                places.insert(last);
            }
            node.publish(items(here, &places, NETWORKS));
        }
    })
}
