//! A new mesh key: on the signer that makes it, and on another that gets it. The whole roster is signed again in the same durable
//! step; the key itself is kept by who calls, in a file that lies there before this begins.

use std::path::Path;

use weft_api::error::ApiError;
use weft_api::id::{HostId, HostKey, MeshKey};
use weft_api::roster::RosterRecord;
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::Succession;
use weft_controller_state::{Command, Refusal, World};

use crate::controller::{Clock, Controller, ControllerKeys, FoundError};
use crate::published::Published;
use crate::store::{Store, StoreError};

/// The mesh has a new key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rotation {
    /// The new key.
    pub key: MeshKey,
    /// So many times the key has been rotated.
    pub number: u32,
    /// Who held the old key beside this host, and can sign nothing now: id and name.
    pub signers: Vec<(HostId, String)>,
}

impl Controller {
    /// From now on `next` signs for the mesh. It must lie on the disk: after a crash [`signing_key`] says whether it counts.
    pub fn rotate(&self, next: SigningKey) -> Result<Rotation, ApiError> {
        let mut guard = self.core();
        let core = &mut *guard;
        let me = self.me();
        if !core.state.signs(&me) {
            return Err(Refusal::OldKey.into());
        }
        let key = MeshKey(next.public());
        let number = core.state.key_number() + 1;
        let carried = u32::try_from(core.state.roster().count()).unwrap_or(u32::MAX);
        let succession = core.keys.mesh_key.sign(&Succession { mesh: self.mesh_id(), number, key, carried });
        let signers = core.state.members().filter(|r| r.roles.signer && r.key != me);
        let signers = signers.map(|r| (r.key.id(), r.name.clone())).collect();
        let events = core.state.decide(&core.world, Command::Rotate { succession, by: me })?;
        core.store_events(&events)?;
        core.keys.mesh_key = next;
        core.publish_all();
        let sequence = core.store.sequence();
        drop(guard);
        tracing::info!(number, key = %key.fingerprint(), "mesh key rotated");
        self.announce(sequence);
        Ok(Rotation { key, number, signers })
    }

    /// Gives a signer whose key was rotated the one that signs now: `keys.mesh_key`, the last of `successions`; `roster`: what it has
    /// signed. The tokens made here stay good.
    pub fn renew(
        dir: &Path,
        keys: ControllerKeys,
        successions: Vec<Signed<Succession>>,
        roster: Vec<RosterRecord>,
        clock: Clock,
    ) -> Result<Self, FoundError> {
        let (mut store, mut state) = Store::open(dir)?;
        let world = World { now: clock(), ..World::default() };
        let key = HostKey(keys.host_key.public());
        let events = state.decide(&world, Command::Renew { successions, roster, key })?;
        events.iter().for_each(|event| state.apply(event));
        store.append(&events, &state)?;
        let mesh = state.mesh().ok_or(Refusal::NoMesh)?.clone();
        Ok(Self::start(keys, clock, &mesh, store, state))
    }

    /// Whether what this host signs with the mesh key counts: it is a signer, by the key that it holds.
    #[must_use]
    pub fn signs(&self) -> bool {
        self.read(|state| state.signs(&self.me()))
    }

    /// The successors of the mesh key, up to the one that this host signs with.
    #[must_use]
    pub fn successions(&self) -> Vec<Signed<Succession>> {
        self.read(|state| state.successions().to_vec())
    }
}

/// The mesh key that the controller's file in this directory signs with, if it is not the one that the mesh began with: tells after
/// a crash which of two keys counts.
pub fn signing_key(dir: &Path) -> Result<Option<MeshKey>, StoreError> {
    let (_, state) = Store::open(dir)?;
    Ok(state.successions().last().and_then(|signed| signed.peek().ok()).map(|last| last.key))
}

/// Only who signs with the key that counts admits and removes.
pub(crate) fn needs_the_key(command: &Command) -> bool {
    matches!(
        command,
        Command::NewToken { .. }
            | Command::Join { .. }
            | Command::RemoveHost { .. }
            | Command::Goodbye { .. }
            | Command::Rotate { .. }
    )
}

impl crate::controller::Core {
    /// Signs everything again.
    fn publish_all(&mut self) {
        if let Some(mesh) = self.state.mesh() {
            self.published = Published::new(&self.keys, mesh, &self.state);
        }
    }
}
