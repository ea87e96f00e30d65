//! What this host has given: addresses and endpoints, each on the disk before Docker hears of it. With it, what decisions
//! and facts say, so that every question of Docker is answered from here. Calls block for one write to the disk at most.

mod compare;
mod give;
mod here;
mod loans;
mod returns;
#[cfg(test)]
pub(crate) mod tests;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tokio::sync::watch;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::network::Network;
use weft_ipam::block::block_of;
use weft_ipam::space::Space;
use weft_router_io::node::{MeshView, Stored};

pub use compare::{GRACE, Listed};
pub use give::GiveError;
pub use here::{AtWork, Decided, Stray};
pub use loans::LoanError;
pub use wishes::{Borrow, NoBlock, Wish};

use crate::state::ledger::{Change, Endpoint, Ledger, LedgerError, Loan};

/// A host publishes each of its endpoints in one record, which has room for so many; a further container is refused.
pub const MAX_ENDPOINTS: usize = 4096;

/// The book of one host.
#[derive(Debug)]
pub struct Book {
    me: HostId,
    ledger: Arc<Ledger>,
    /// Held while something is decided, written to the disk and then entered: one change after the other.
    writing: Mutex<()>,
    /// What is in memory. Held for no disk, so that readers wait for none.
    pages: Mutex<Pages>,
    /// What Docker is making, and what we do there; forgotten with the process.
    making: Arc<Mutex<here::Making>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Pages {
    me: HostId,
    view: Arc<MeshView>,
    networks: BTreeMap<NetworkId, Network>,
    spaces: BTreeMap<(NetworkId, IpNet), Space>,
    /// Since when, Unix seconds.
    given: BTreeMap<(NetworkId, IpAddr), u64>,
    /// Of these, what an earlier life of this process gave.
    inherited: BTreeSet<(NetworkId, IpAddr)>,
    endpoints: BTreeMap<String, Endpoint>,
    bound: BTreeMap<String, NetworkId>,
    /// Networks that this host does not have; true: nobody shall.
    absent: BTreeMap<NetworkId, bool>,
    /// Addresses of this host's blocks that other hosts asked for.
    lent: BTreeMap<(NetworkId, IpAddr), Loan>,
    /// What this host has given up, up to which revision.
    given_up: BTreeMap<DecisionKey, u64>,
    /// What stands in Docker's records of containers, by their names.
    pins: BTreeMap<(NetworkId, IpAddr), String>,
    /// When those of a network were read last.
    surveyed: BTreeMap<NetworkId, Instant>,
    /// Addresses that containers wait for, which are not this host's.
    wished: Vec<(NetworkId, IpNet, IpAddr)>,
    /// Of these, why the holder does not lend them.
    not_lent: BTreeMap<(NetworkId, IpAddr), String>,
    /// Why this host got no further block of a range.
    no_block: BTreeMap<(NetworkId, IpNet), NoBlock>,
}

impl Book {
    /// The book as the ledger has it.
    pub fn open(me: HostId, ledger: Arc<Ledger>, stored: &Stored) -> Result<Self, LedgerError> {
        let remembered = ledger.remembered()?;
        let mut pages = Pages {
            me,
            view: Arc::default(),
            networks: BTreeMap::new(),
            spaces: BTreeMap::new(),
            inherited: remembered.given.iter().map(|(n, ip, _)| (*n, *ip)).collect(),
            given: remembered.given.into_iter().map(|(n, ip, since)| ((n, ip), since)).collect(),
            endpoints: remembered.endpoints.into_iter().map(|e| (e.id.clone(), e)).collect(),
            bound: remembered.bound.into_iter().collect(),
            absent: remembered.absent.into_iter().collect(),
            lent: remembered.lent.into_iter().collect(),
            given_up: remembered.given_up.into_iter().collect(),
            pins: remembered.pinned.into_iter().collect(),
            surveyed: BTreeMap::new(),
            wished: Vec::new(),
            not_lent: BTreeMap::new(),
            no_block: BTreeMap::new(),
        };
        pages.learn(Arc::new(view_of(stored)));
        Ok(Self {
            me,
            ledger,
            writing: Mutex::default(),
            pages: Mutex::new(pages),
            making: Arc::default(),
            changes: watch::Sender::new(0),
        })
    }

    /// This host.
    #[must_use]
    pub fn me(&self) -> HostId {
        self.me
    }

    /// Rises whenever something in the book changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Facts and decisions as they are now.
    pub fn learn(&self, view: Arc<MeshView>) {
        self.pages().learn(view);
        self.changed();
    }

    /// Facts and decisions as the book knows them.
    #[must_use]
    pub fn view(&self) -> Arc<MeshView> {
        Arc::clone(&self.pages().view)
    }

    /// The networks of the mesh.
    #[must_use]
    pub fn networks(&self) -> Vec<Network> {
        self.pages().networks.values().cloned().collect()
    }

    /// A network of the mesh.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<Network> {
        self.pages().networks.get(&id).cloned()
    }

    /// Docker calls this network so; this host has it.
    pub fn bind(&self, docker: &str, network: NetworkId) -> Result<(), LedgerError> {
        let _one_at_a_time = self.writing();
        if self.bound(docker) == Some(network) {
            return Ok(());
        }
        let mut changes = vec![Change::Bind(docker.into(), network)];
        if self.pages().absent.contains_key(&network) {
            changes.push(Change::Present(network));
        }
        self.enter(changes)
    }

    /// Docker has no such network any more.
    pub fn unbind(&self, docker: &str) -> Result<(), LedgerError> {
        let _one_at_a_time = self.writing();
        if self.bound(docker).is_none() {
            return Ok(());
        }
        self.enter(vec![Change::Unbind(docker.into())])
    }

    /// The network that Docker calls so.
    #[must_use]
    pub fn bound(&self, docker: &str) -> Option<NetworkId> {
        self.pages().bound.get(docker).copied()
    }

    /// What Docker calls this network; empty if it does not have it.
    #[must_use]
    pub fn docker_ids(&self, network: NetworkId) -> Vec<String> {
        let pages = self.pages();
        pages.bound.iter().filter(|(_, n)| **n == network).map(|(docker, _)| docker.clone()).collect()
    }

    /// An endpoint is there, with addresses that were given here. One with the same id is replaced.
    pub fn add_endpoint(&self, endpoint: Endpoint) -> Result<(), GiveError> {
        let _one_at_a_time = self.writing();
        self.pages().check_endpoint(&endpoint)?;
        self.enter(vec![Change::Endpoint(endpoint)])?;
        Ok(())
    }

    /// The endpoint is gone; its addresses stay given until Docker releases them.
    pub fn remove_endpoint(&self, id: &str) -> Result<Option<Endpoint>, LedgerError> {
        let _one_at_a_time = self.writing();
        let gone = self.endpoint(id);
        if gone.is_some() {
            self.enter(vec![Change::EndpointGone(id.into())])?;
        }
        Ok(gone)
    }

    /// An endpoint here.
    #[must_use]
    pub fn endpoint(&self, id: &str) -> Option<Endpoint> {
        self.pages().endpoints.get(id).cloned()
    }

    /// The endpoints here.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.pages().endpoints.values().cloned().collect()
    }

    /// Writes changes to the disk and then into memory. The caller holds `writing`.
    fn enter(&self, changes: Vec<Change>) -> Result<(), LedgerError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.ledger.change(&changes)?;
        let mut pages = self.pages();
        changes.into_iter().for_each(|change| pages.apply(change));
        drop(pages);
        self.changed();
        Ok(())
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic cannot leave half a change: the disk comes first, then a few insertions.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Pages {
    fn learn(&mut self, view: Arc<MeshView>) {
        let networks = view.decisions.values().filter_map(|d| match &d.body {
            Some(DecisionBody::Network(network)) => Some((network.id, network.clone())),
            _ => None,
        });
        self.networks = networks.collect();
        self.view = view;
        self.divide();
        self.no_block.retain(|key, _| self.spaces.contains_key(key));
    }

    /// Makes the spaces out of what is decided and what is on the disk.
    fn divide(&mut self) {
        self.spaces.clear();
        for network in self.networks.values() {
            for subnet in &network.subnets {
                self.spaces.insert((network.id, subnet.range), Space::new(subnet.range, subnet.gateway));
            }
        }
        let held: Vec<_> = blocks(&self.view).filter(|(_, _, owner)| *owner == self.me).collect();
        for (network, block, _) in held {
            if self.gave_up(&DecisionKey::Block(network, block)) {
                continue;
            }
            if let Some(space) = self.space_of(network, block.addr())
                && let Err(e) = space.add_block(block)
            {
                tracing::warn!(%block, error = %e, "a block cannot be used");
            }
        }
        self.mark();
        let given: Vec<_> = self.given.keys().copied().collect();
        for (network, address) in given {
            if let Some(space) = self.space_of(network, address) {
                // An address of a block that was taken away is still its container's.
                let _outside_of_blocks = space.claim(address);
            }
        }
    }

    /// The blocks that are decided to be this host's, also those that it has given up.
    fn blocks_here(&self) -> impl Iterator<Item = (NetworkId, IpNet)> {
        blocks(&self.view)
            .filter(|(_, _, owner)| *owner == self.me)
            .map(|(network, block, _)| (network, block))
    }

    /// What is on the disk now.
    fn apply(&mut self, change: Change) {
        let divides = matches!(
            change,
            Change::Lend(..)
                | Change::LoanGone(..)
                | Change::GiveUp(..)
                | Change::GivenUp(_)
                | Change::Pin(..)
                | Change::Unpin(..)
        );
        match change {
            Change::Give(network, address, since) => {
                self.given.insert((network, address), since);
                self.inherited.remove(&(network, address));
                if let Some(space) = self.space_of(network, address) {
                    // Claimed already if what is known of the mesh was replaced meanwhile.
                    let _claimed = space.claim(address);
                }
            }
            Change::Free(network, address) => {
                self.given.remove(&(network, address));
                self.inherited.remove(&(network, address));
                if let Some(space) = self.space_of(network, address) {
                    space.release(address);
                }
            }
            Change::Endpoint(endpoint) => drop(self.endpoints.insert(endpoint.id.clone(), endpoint)),
            Change::EndpointGone(id) => drop(self.endpoints.remove(&id)),
            Change::Bind(docker, network) => drop(self.bound.insert(docker, network)),
            Change::Unbind(docker) => drop(self.bound.remove(&docker)),
            Change::Absent(network, remove) => drop(self.absent.insert(network, remove)),
            Change::Present(network) => drop(self.absent.remove(&network)),
            Change::Lend(network, address, loan) => drop(self.lent.insert((network, address), loan)),
            Change::LoanGone(network, address) => drop(self.lent.remove(&(network, address))),
            Change::GiveUp(key, revision) => drop(self.given_up.insert(key, revision)),
            Change::GivenUp(key) => drop(self.given_up.remove(&key)),
            Change::Pin(network, address, name) => drop(self.pins.insert((network, address), name)),
            Change::Unpin(network, address) => drop(self.pins.remove(&(network, address))),
        }
        if divides {
            self.divide();
        }
    }

    fn space_of(&mut self, network: NetworkId, address: IpAddr) -> Option<&mut Space> {
        let mut spaces = self.spaces.iter_mut();
        spaces.find(|((n, range), _)| *n == network && range.contains(&address)).map(|(_, space)| space)
    }

    fn check_endpoint(&self, endpoint: &Endpoint) -> Result<(), GiveError> {
        if let Some(stray) =
            endpoint.addresses.iter().find(|ip| !self.given.contains_key(&(endpoint.network, **ip)))
        {
            return Err(GiveError::NotGiven { address: *stray });
        }
        if endpoint.mac.is_group() || endpoint.mac == Mac::GATEWAY {
            return Err(GiveError::BadMac { mac: endpoint.mac });
        }
        let taken = self.endpoints.values().find(|other| {
            other.network == endpoint.network && other.mac == endpoint.mac && other.id != endpoint.id
        });
        if let Some(holder) = taken {
            return Err(GiveError::MacInUse { mac: endpoint.mac, holder: give::who(holder) });
        }
        let other = |e: &&Endpoint| e.network == endpoint.network && e.id != endpoint.id;
        for address in &endpoint.addresses {
            if let Some(holder) =
                self.endpoints.values().filter(other).find(|e| e.addresses.contains(address))
            {
                return Err(GiveError::InUse { address: *address, holder: give::who(holder) });
            }
        }
        if self.endpoints.len() >= MAX_ENDPOINTS {
            return Err(GiveError::TooManyEndpoints);
        }
        Ok(())
    }

    fn host_name(&self, host: HostId) -> String {
        self.view.roster.get(&host).map_or_else(|| host.to_string(), |record| record.name.clone())
    }
}

/// Every block that some host holds.
pub fn blocks(view: &MeshView) -> impl Iterator<Item = (NetworkId, IpNet, HostId)> {
    view.decisions.values().filter_map(|decision| match (&decision.key, &decision.body) {
        (DecisionKey::Block(network, block), Some(DecisionBody::Block { owner })) => {
            Some((*network, *block, *owner))
        }
        _ => None,
    })
}

/// Every address that is leased, and to whom.
pub fn leases(view: &MeshView) -> impl Iterator<Item = (NetworkId, IpAddr, HostId)> {
    view.decisions.values().filter_map(|decision| match (&decision.key, &decision.body) {
        (DecisionKey::Lease(network, address), Some(DecisionBody::Lease { owner })) => {
            Some((*network, *address, *owner))
        }
        _ => None,
    })
}

/// The host that an address is leased to.
#[must_use]
pub fn lessee(view: &MeshView, network: NetworkId, address: IpAddr) -> Option<HostId> {
    match view.decisions.get(&DecisionKey::Lease(network, address))?.body {
        Some(DecisionBody::Lease { owner }) => Some(owner),
        _ => None,
    }
}

/// The host that may give an address out: it has the lease, or else the block.
#[must_use]
pub fn claimant(view: &MeshView, network: NetworkId, range: IpNet, address: IpAddr) -> Option<HostId> {
    lessee(view, network, address).or_else(|| holder(view, network, range, address))
}

/// The revision of the last decision about a key; 0 if there is none.
fn revision(view: &MeshView, key: &DecisionKey) -> u64 {
    view.decisions.get(key).map_or(0, |decision| decision.revision)
}

/// The host that holds the block of an address, if any does.
#[must_use]
pub fn holder(view: &MeshView, network: NetworkId, range: IpNet, address: IpAddr) -> Option<HostId> {
    let block = block_of(range, address)?;
    match view.decisions.get(&DecisionKey::Block(network, block))?.body {
        Some(DecisionBody::Block { owner }) => Some(owner),
        _ => None,
    }
}

/// The mesh as the disk knows it, before anybody has been reached. The records were verified before they were stored.
#[must_use]
pub fn view_of(stored: &Stored) -> MeshView {
    let mut view = MeshView::default();
    for record in stored.roster.iter().filter_map(|signed| signed.peek().ok()) {
        view.roster.insert(record.key.id(), record);
    }
    for record in &stored.facts {
        if let Ok(head) = record.head.peek() {
            view.facts.insert(head.owner, Arc::new((head.version, record.items.decoded().collect())));
        }
    }
    for decision in stored.decisions.iter().filter_map(|signed| signed.peek().ok()) {
        let newer = |known: &Decision| known.revision > decision.revision;
        if !view.decisions.get(&decision.key).is_some_and(newer) {
            view.decisions.insert(decision.key.clone(), decision);
        }
    }
    view
}

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
