//! What the hosts of a world have decided: two worlds that differ in what carries their datagrams must come to the same.

use std::collections::{BTreeMap, BTreeSet};

use weft_api::fact::Item;
use weft_api::id::HostId;
use weft_router::session::{Event, Path};

use crate::world::World;

/// What carries a session's envelopes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// UDP between the two.
    Udp,
    /// A TCP stream between the two.
    Tcp,
    /// Other hosts.
    Relayed,
}

/// What one host has decided.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Decided {
    /// Whom it takes for members.
    pub members: BTreeSet<usize>,
    /// With whom it gossips.
    pub neighbours: BTreeSet<usize>,
    /// Its sessions, by what carries them.
    pub ways: BTreeMap<usize, Way>,
    /// The longest datagrams of those sessions that go by no third host.
    pub sizes: BTreeMap<usize, u16>,
    /// What it knows of each host, measurements aside.
    pub facts: BTreeMap<usize, BTreeSet<String>>,
    /// How many decisions of the controller it knows.
    pub decisions: usize,
}

impl World {
    /// What a host has decided by now.
    #[must_use]
    pub fn decided(&self, n: usize) -> Decided {
        let host = &self.hosts[n];
        let way = |path| match path {
            Path::Udp(_) => Way::Udp,
            Path::Tcp(_) => Way::Tcp,
            Path::Relay(_) => Way::Relayed,
        };
        let mut decided = Decided {
            members: host.mesh.roster().records().map(|(id, _)| self.number(id)).collect(),
            neighbours: host.mesh.neighbours().map(|id| self.number(id)).collect(),
            decisions: host.mesh.decisions().records().count(),
            ..Decided::default()
        };
        for (peer, id) in &host.used {
            let (Some(path), at) = (host.path(*peer), self.number(*peer)) else { continue };
            decided.ways.insert(at, way(path));
            if let Some(sealing) = host.seals.get(id).filter(|_| path.is_direct()) {
                decided.sizes.insert(at, sealing.size);
            }
        }
        for (owner, said) in host.mesh.facts().records() {
            let items = said.record.items.iter().filter_map(Item::decode).map(|item| match item {
                Item::Neighbour { host, .. } => format!("neighbour {}", self.number(host)),
                item => format!("{item:?}"),
            });
            decided.facts.insert(self.number(owner), items.collect());
        }
        decided
    }

    /// Whether all hosts that run know the same, to the last measurement.
    #[must_use]
    pub fn same_roots(&self) -> bool {
        let roots: BTreeSet<u64> = self.alive().iter().map(|n| self.hosts[*n].mesh.root()).collect();
        roots.len() <= 1
    }

    /// Long datagrams are on their way from each host to each: what their paths pass is to be found out.
    pub fn fill_paths(&mut self) {
        for n in self.alive() {
            for peer in (0..self.ids.len()).filter(|other| *other != n) {
                self.session(n, Event::Full(self.ids[peer]));
            }
        }
    }

    fn number(&self, id: HostId) -> usize {
        self.ids.iter().position(|known| *known == id).unwrap_or(usize::MAX)
    }
}
