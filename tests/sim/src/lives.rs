//! Hosts come up, say what is true of them, move, die, and come up again with what their disk has.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_api::id::{BootId, HostId, MeshKey};
use weft_api::roster::Cipher;
use weft_router::mesh::{self, Mesh, Start};
use weft_router::session::{self, Sessions};

use crate::frames::Place;
use crate::host::{Host, Stored, host_key, items, mesh_key};
use crate::signer::Signer;
use crate::world::{Due, MEASURE, TABLES, World};

impl World {
    /// A host whose disk has this.
    pub(crate) fn start(&mut self, n: usize, life: u32, stored: Stored) -> Host {
        let start = Start {
            key: host_key(n),
            mesh_key: MeshKey(mesh_key().public()),
            boot: u64::from(life),
            successions: stored.successions,
            roster: stored.roster,
            facts: stored.facts,
            decisions: stored.decisions,
            hints: self.told[n].clone(),
            limits: self.limits,
            seed: self.random.draw(),
            notary: Arc::clone(&self.notary) as _,
        };
        let mut boot = [n as u8; 16];
        boot[..4].copy_from_slice(&life.to_be_bytes());
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.random.draw().to_be_bytes());
        let sessions = Sessions::new(self.ids[n], BootId(boot), Cipher::Aegis128L, seed);
        let mut host = Host::new(sessions, Mesh::new(start).0, life);
        host.quic = self.quic_of(n, life);
        host
    }

    /// Before they begin: each was admitted after those before it, and has not been heard of by anybody but host 0 since.
    pub fn make_newcomers(&mut self) {
        for n in 1..self.hosts.len() {
            let stored = Stored { roster: self.signer.roster[..=n].to_vec(), ..Stored::default() };
            let mut host = self.start(n, 1, stored);
            host.store_roster();
            self.hosts[n] = host;
        }
    }

    /// What a person would tell a host now.
    pub(crate) fn hints(&self, n: usize) -> Vec<(HostId, SocketAddr)> {
        let others = BTreeSet::from([0, n.saturating_sub(1)]);
        others.iter().filter(|o| **o != n).map(|o| (self.ids[*o], self.underlay.address(*o))).collect()
    }

    /// A person finds that a host has lost the others, and starts it with where they are now.
    pub fn guide(&mut self, n: usize) {
        self.told[n] = self.hints(n);
        self.restart(n);
    }

    /// The first host that host 0 cannot find, nor the other way round, nor through others: no address of one that another knows
    /// is true.
    #[must_use]
    pub fn lost(&self) -> Option<usize> {
        let knows = |a: usize, b: usize| {
            let known = self.hosts[a].mesh.addresses(self.ids[b]);
            known.iter().any(|address| self.underlay.can_dial(b, *address))
        };
        let (mut met, mut new) = (BTreeSet::from([0]), vec![0]);
        while let Some(a) = new.pop() {
            let found = |b: &usize| !met.contains(b) && (knows(a, *b) || knows(*b, a));
            let found: Vec<usize> = (0..self.hosts.len()).filter(found).collect();
            met.extend(&found);
            new.extend(found);
        }
        (0..self.hosts.len()).find(|n| !met.contains(n))
    }

    /// What a host does first.
    pub(crate) fn wake_up(&mut self, n: usize) {
        self.join_up(n);
        self.later(n, TABLES, Due::Tables);
        self.say(n);
        self.sign(n);
    }

    /// Without saying anything of itself yet.
    pub(crate) fn join_up(&mut self, n: usize) {
        let members = self.hosts[n].members.clone();
        self.session(n, session::Event::Members(&members));
        self.mesh(n, mesh::Event::Tick);
        for other in 0..self.ids.len() {
            self.tell_addresses(n, self.ids[other]);
        }
        self.later(n, MEASURE, Due::Measure);
    }

    /// A host says what is true of it now.
    pub fn say(&mut self, n: usize) {
        let items = items(self.underlay.address(n), &self.hosts[n].endpoints, self.networks);
        self.mesh(n, mesh::Event::Say(&items));
        if !self.thin {
            self.hosts[n].make_tables(self.ids[n], self.networks);
        }
    }

    /// It is gone in the middle of whatever it did.
    pub fn kill(&mut self, n: usize) {
        self.hosts[n].alive = false;
    }

    /// It comes up again with what its disk has; its containers run on.
    pub fn restart(&mut self, n: usize) {
        let (life, endpoints) = (self.hosts[n].life + 1, self.hosts[n].endpoints.clone());
        let disk = std::mem::take(&mut self.hosts[n].disk);
        let mut host = self.start(n, life, Stored::of(&disk));
        (host.endpoints, host.disk, host.sent) = (endpoints, disk, self.hosts[n].sent);
        self.hosts[n] = host;
        self.wake_up(n);
    }

    /// The mesh key is rotated, if the host that has it runs.
    pub fn rotate(&mut self) {
        if self.hosts[0].alive && self.signer.rotate() {
            self.sign(0);
        }
    }

    /// What has the mesh key on its disk says what that has signed: whenever it starts, and when that changes.
    fn sign(&mut self, n: usize) {
        if n == 0 && !self.signer.successions.is_empty() {
            let Signer { successions, roster, .. } = &self.signer;
            let (successions, roster) = (successions.clone(), roster.clone());
            self.mesh(0, mesh::Event::MadeSuccessions(successions));
            self.mesh(0, mesh::Event::MadeRoster(roster));
        }
    }

    /// It makes fresh keys for all of its sessions.
    pub fn rekey(&mut self, n: usize) {
        if self.hosts[n].alive {
            self.session(n, session::Event::RekeyAll);
        }
    }

    /// It has another address from now on, whether it runs or not.
    pub fn relocate(&mut self, n: usize) {
        self.underlay.relocate(n);
        self.cut_streams(n);
        if self.hosts[n].alive {
            self.say(n);
        }
    }

    /// A container starts, or ends.
    pub fn set_endpoint(&mut self, place: Place, runs: bool) {
        let endpoints = &mut self.hosts[place.host].endpoints;
        let changed = if runs { endpoints.insert(place) } else { endpoints.remove(&place) };
        if changed && self.hosts[place.host].alive {
            self.say(place.host);
        }
    }
}
