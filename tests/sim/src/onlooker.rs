//! One real host in the big mesh: a state directory with all that its hosts know, for a `weft up` that has it to remember.

use std::path::Path;

use weft_agent::state::{Identity, StateDir};
use weft_api::decision::{Decision, DecisionKey};
use weft_api::fact::FactRecord;
use weft_api::id::{HostId, HostKey, MeshKey};
use weft_api::roster::{Cipher, MeshRecord, Roles, RosterRecord, Standing, Under};
use weft_api::sign::Signed;
use weft_router_io::node::StoredRecord;

use crate::big::Big;
use crate::host::{member, mesh_id, mesh_key};

/// Its name.
const NAME: &str = "onlooker";

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
    let own = mesh_key().sign(&RosterRecord {
        mesh: mesh_id(),
        key,
        name: NAME.into(),
        roles: Roles::default(),
        serial: 1,
        standing: Standing::Member,
        under: Under::default(),
    });
    let records: Vec<StoredRecord> =
        roster.chain([StoredRecord::Roster(key.id(), own)]).chain(decided).chain(facts).collect();
    ledger.save(&records).map_err(|e| e.to_string())?;
    let mesh = MeshRecord { mesh: mesh_id(), name: "sim".into(), cipher: Cipher::Aegis128L };
    let identity = Identity::new(mesh, MeshKey(mesh_key().public()), NAME.into(), key, port);
    state.enrol(&identity).map_err(|e| e.to_string())
}
