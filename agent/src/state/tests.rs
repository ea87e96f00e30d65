//! A directory that is empty, whole, half written, mixed up, locked; a ledger that comes back as it was.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use weft_api::decision::{Decision, DecisionKey};
use weft_api::fact::{FactRecord, FactVersion, Items};
use weft_api::id::{HostKey, Mac, MeshKey, NetworkId};
use weft_api::roster::{Cipher, MeshRecord, Roles, RosterRecord, Standing};
use weft_api::sign::SigningKey;
use weft_api::succession::Succession;
use weft_router_io::node::StoredRecord;

use super::ledger::{Change, Endpoint};
use super::{Identity, LedgerError, StateDir, StateError};

fn dir() -> (tempfile::TempDir, StateDir) {
    let temp = tempfile::tempdir().unwrap();
    let state = StateDir::new(temp.path().join("weft"));
    drop(state.lock().unwrap());
    (temp, state)
}

fn mesh_key() -> SigningKey {
    SigningKey::from_seed([9; 32])
}

fn member(state: &StateDir) -> Identity {
    let key = state.host_key_or_new().unwrap();
    let mesh_key = MeshKey(mesh_key().public());
    let mesh = MeshRecord { mesh: mesh_key.id(), name: "quiet-fox".into(), cipher: Cipher::Aes256Gcm };
    Identity::new(mesh, mesh_key, "h1".into(), HostKey(key.public()), 6783)
}

fn enrolled() -> (tempfile::TempDir, StateDir, Identity) {
    let (temp, state) = dir();
    let identity = member(&state);
    drop(state.create_ledger(identity.mesh.mesh).unwrap());
    state.enrol(&identity).unwrap();
    (temp, state, identity)
}

#[test]
fn an_empty_directory_holds_nobody() {
    let (_temp, state) = dir();
    assert!(state.is_empty());
    assert!(state.identity().unwrap().is_none());
    let error = state.member().unwrap_err();
    assert!(error.to_string().contains("weft init") && error.to_string().contains("weft join"), "{error}");
}

#[test]
fn an_interrupted_join_goes_on_with_the_same_key() {
    let (_temp, state) = dir();
    let key = state.host_key_or_new().unwrap().public();
    assert!(state.identity().unwrap().is_none());
    assert_eq!(state.host_key_or_new().unwrap().public(), key);
}

#[test]
fn a_member_is_read_back_and_its_files_are_roots_own() {
    let (_temp, state, identity) = enrolled();
    assert_eq!(state.member().unwrap(), identity);
    for name in ["host.key", "mesh.json", "agent.redb"] {
        let mode = std::fs::metadata(state.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
    state.clear().unwrap();
    assert!(state.is_empty());
}

#[test]
fn half_written_directories_are_said_to_be_so() {
    for missing in ["mesh.json", "host.key", "agent.redb"] {
        let (_temp, state, _) = enrolled();
        std::fs::remove_file(state.path().join(missing)).unwrap();
        let error = state.identity().unwrap_err();
        assert!(matches!(error, StateError::HalfWritten { missing: m, .. } if m == missing), "{error}");
        let said = error.to_string();
        assert!(said.contains(missing) && said.contains(&*state.path().to_string_lossy()), "{said}");
    }
}

#[test]
fn a_founder_needs_the_mesh_key_and_the_controllers_file() {
    let (_temp, state, mut identity) = enrolled();
    identity.founder = true;
    state.enrol(&identity).unwrap();
    assert!(matches!(state.identity(), Err(StateError::HalfWritten { missing: "mesh.key", .. })));
    drop(state.new_mesh_key().unwrap());
    assert!(matches!(state.identity(), Err(StateError::HalfWritten { missing: "controller.redb", .. })));
}

#[test]
fn the_next_mesh_key_takes_the_olds_place_or_goes() {
    let (_temp, state, _) = enrolled();
    let old = state.new_mesh_key().unwrap().public();
    assert!(state.next_mesh_key().unwrap().is_none());
    let next = state.next_mesh_key_or_new().unwrap().public();
    assert_eq!(state.next_mesh_key_or_new().unwrap().public(), next, "it may count already");
    let mode = std::fs::metadata(state.path().join("mesh.next")).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, state.mesh_key().unwrap().public()), (0o600, old));
    state.drop_next_mesh_key().unwrap();
    let next = state.next_mesh_key_or_new().unwrap().public();
    state.take_next_mesh_key().unwrap();
    assert_eq!((state.mesh_key().unwrap().public(), state.next_mesh_key().unwrap().is_none()), (next, true));
    state.next_mesh_key_or_new().unwrap();
    state.clear().unwrap();
    assert!(std::fs::read_dir(state.path()).unwrap().all(|f| f.unwrap().file_name() == "lock"));
}

#[test]
fn foreign_files_are_sentences() {
    let (_temp, state, _) = enrolled();
    let path = state.path().join("mesh.json");
    for text in ["", "{}", "nonsense", "[1,2", "{\"format\": 2}"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(state.identity(), Err(StateError::Unreadable { .. })), "{text:?}");
    }
    std::fs::write(state.path().join("host.key"), "nonsense").unwrap();
    let error = state.identity().unwrap_err().to_string();
    assert!(error.contains("host.key") && !error.contains("nonsense"), "{error}");
}

#[test]
fn another_hosts_key_is_noticed() {
    let (_temp, state, _) = enrolled();
    std::fs::write(state.path().join("host.key"), "07".repeat(32)).unwrap();
    assert!(matches!(state.identity(), Err(StateError::MixedUp { .. })));
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let (_temp, state) = dir();
    let lock = state.lock().unwrap();
    assert!(matches!(state.lock(), Err(StateError::InUse(_))));
    drop(lock);
    state.lock().unwrap();
}

#[test]
fn the_ledger_counts_starts_and_keeps_records() {
    let (_temp, state, identity) = enrolled();
    let mesh = identity.mesh.mesh;
    let key = state.host_key().unwrap();
    let record = RosterRecord {
        mesh,
        key: identity.key,
        name: "h1".into(),
        roles: Roles::default(),
        serial: 1,
        standing: Standing::Member,
        under: weft_api::roster::Under::default(),
    };
    let roster = mesh_key().sign(&record);
    let succession = mesh_key().sign(&Succession { mesh, number: 1, key: MeshKey(key.public()), carried: 1 });
    let facts = FactRecord::sign(&key, mesh, identity.id(), FactVersion::default(), Items::default());
    let decision = key.sign(&Decision {
        mesh,
        revision: 1,
        signer: identity.key,
        key: DecisionKey::Controller,
        body: None,
    });
    {
        let ledger = state.open_ledger(mesh).unwrap();
        assert_eq!(ledger.next_boot().unwrap(), 1);
        ledger
            .save(&[
                StoredRecord::Succession(1, succession.clone()),
                StoredRecord::Roster(identity.id(), roster.clone()),
                StoredRecord::Facts(identity.id(), facts.clone()),
                StoredRecord::Decision(DecisionKey::Controller, decision.clone()),
            ])
            .unwrap();
    }
    let ledger = state.open_ledger(mesh).unwrap();
    assert_eq!(ledger.next_boot().unwrap(), 2);
    let stored = ledger.stored().unwrap();
    assert_eq!((stored.roster, stored.facts, stored.decisions), (vec![roster], vec![facts], vec![decision]));
    assert_eq!(stored.successions, [succession]);
    ledger.save(&[StoredRecord::RosterGone(identity.id())]).unwrap();
    assert!(ledger.stored().unwrap().roster.is_empty());
    ledger.save(&[StoredRecord::FactsGone(identity.id())]).unwrap();
    assert!(ledger.stored().unwrap().facts.is_empty());
}

#[test]
fn the_ledger_remembers_what_was_given() {
    let (_temp, state, identity) = enrolled();
    let mesh = identity.mesh.mesh;
    let endpoint = Endpoint {
        id: "e".repeat(64),
        docker_network: "n".repeat(64),
        network: NetworkId(7),
        addresses: vec!["10.32.0.2".parse().unwrap()],
        mac: Mac([2, 0x42, 10, 32, 0, 2]),
        container: "web".into(),
        since: 5,
    };
    let (v4, v6) = ("10.32.0.2".parse().unwrap(), "fd00::2".parse().unwrap());
    state
        .open_ledger(mesh)
        .unwrap()
        .change(&[
            Change::Give(NetworkId(7), v4, 1),
            Change::Give(NetworkId(7), v6, 2),
            Change::Endpoint(endpoint.clone()),
            Change::Bind("d".into(), NetworkId(7)),
        ])
        .unwrap();
    let ledger = state.open_ledger(mesh).unwrap();
    let remembered = ledger.remembered().unwrap();
    assert_eq!(remembered.given, [(NetworkId(7), v4, 1), (NetworkId(7), v6, 2)]);
    assert_eq!(remembered.endpoints, std::slice::from_ref(&endpoint));
    assert_eq!(remembered.bound, [("d".to_owned(), NetworkId(7))]);
    ledger
        .change(&[
            Change::Free(NetworkId(7), v4),
            Change::EndpointGone(endpoint.id),
            Change::Unbind("d".into()),
        ])
        .unwrap();
    let remembered = ledger.remembered().unwrap();
    assert_eq!(remembered.given.len(), 1);
    assert!(remembered.endpoints.is_empty() && remembered.bound.is_empty());
}

#[test]
fn a_ledger_of_another_mesh_or_in_use_or_damaged_is_refused() {
    let (_temp, state, identity) = enrolled();
    let other = MeshKey([1; 32]).id();
    assert!(matches!(state.open_ledger(other), Err(LedgerError::OtherMesh(_))));
    let held = Arc::new(state.open_ledger(identity.mesh.mesh).unwrap());
    assert!(matches!(state.open_ledger(identity.mesh.mesh), Err(LedgerError::InUse(_))));
    drop(held);
    let path = state.path().join("agent.redb");
    let whole = std::fs::read(&path).unwrap();
    for damage in [&b""[..], b"nonsense", &whole[..whole.len() / 3]] {
        std::fs::write(&path, damage).unwrap();
        let error = state.open_ledger(identity.mesh.mesh).unwrap_err();
        assert!(matches!(error, LedgerError::Damaged { .. }), "{error:?}");
    }
}
