//! The signed form of what is decided: roster records under the mesh key, decisions under the deciding host's. Ed25519 is
//! deterministic, so what is signed again after a restart is, byte for byte, what was signed before it.

use std::collections::BTreeMap;

use weft_api::decision::{Decision, DecisionKey};
use weft_api::id::{HostKey, MeshId};
use weft_api::roster::{MeshRecord, RosterRecord};
use weft_api::sign::Signed;
use weft_controller_state::state::Decided;
use weft_controller_state::{Event, State};

use crate::controller::ControllerKeys;

/// Everything that this controller has to say to the mesh.
pub struct Published {
    pub mesh: Signed<MeshRecord>,
    pub roster: BTreeMap<HostKey, Signed<RosterRecord>>,
    pub decisions: BTreeMap<DecisionKey, Signed<Decision>>,
}

impl Published {
    /// Signs a whole state. `mesh`: what [`State::mesh`] says.
    pub fn new(keys: &ControllerKeys, mesh: &MeshRecord, state: &State) -> Self {
        let number = state.key_number();
        let ours = state.roster().filter(|record| record.under.key == number);
        let roster = ours.map(|record| (record.key, keys.mesh_key.sign(record))).collect();
        let decisions = state
            .decisions()
            .map(|(key, decided)| (key.clone(), sign(keys, mesh.mesh, key, decided)))
            .collect();
        Self { mesh: keys.mesh_key.sign(mesh), roster, decisions }
    }

    /// Signs what the events have changed; `state` is the one after them. Whether the mesh has anything new to hear.
    pub fn update(&mut self, keys: &ControllerKeys, mesh: MeshId, state: &State, events: &[Event]) -> bool {
        let mut news = false;
        for event in events {
            match event {
                Event::Enrolled(record) => {
                    // What a later key has signed is not for this one to sign.
                    if record.under.key == state.key_number() {
                        self.roster.insert(record.key, keys.mesh_key.sign(record));
                    } else {
                        self.roster.remove(&record.key);
                    }
                    news = true;
                }
                Event::Decided { key, .. } => {
                    if let Some(decided) = state.decided(key) {
                        self.decisions.insert(key.clone(), sign(keys, mesh, key, decided));
                    }
                    news = true;
                }
                Event::Founded(_)
                | Event::Rotated { .. }
                | Event::KeyTaken(_)
                | Event::TokenMade { .. }
                | Event::TokenRemoved(_)
                | Event::TokenUsed { .. } => {}
            }
        }
        if self.decisions.len() > state.decisions().count() {
            self.decisions.retain(|key, _| state.decided(key).is_some());
        }
        news
    }
}

fn sign(keys: &ControllerKeys, mesh: MeshId, key: &DecisionKey, decided: &Decided) -> Signed<Decision> {
    keys.host_key.sign(&Decision {
        mesh,
        revision: decided.revision,
        signer: HostKey(keys.host_key.public()),
        key: key.clone(),
        body: decided.body.clone(),
    })
}
