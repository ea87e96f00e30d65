//! What this host has given: addresses and endpoints, each on the disk before Docker hears of it. With it, what decisions
//! and facts say, so that every question of Docker is answered from here. Calls block for one write to the disk at most.

mod compare;
mod give;
mod here;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tokio::sync::watch;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::network::Network;
use weft_api::request::WantBlock;
use weft_ipam::block::block_of;
use weft_ipam::space::Space;
use weft_router_io::node::{MeshView, Stored};

pub use compare::{GRACE, Listed};
pub use give::GiveError;
pub use here::{AtWork, Decided, Stray};

use crate::state::ledger::{Change, Endpoint, Ledger, LedgerError};

/// A host publishes each of its endpoints in one record, which has room for so many; a further container is refused.
pub const MAX_ENDPOINTS: usize = 4096;

/// So many containers wait at once for an address whose block nobody holds; a further one is refused.
const MAX_WISHES: usize = 256;

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

/// A container that waits for an address.
#[derive(Debug)]
pub struct Wish<'a> {
    book: &'a Book,
    wished: (NetworkId, IpNet, IpAddr),
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let mut pages = self.book.pages();
        if let Some(at) = pages.wished.iter().position(|wished| *wished == self.wished) {
            pages.wished.swap_remove(at);
        }
    }
}

#[derive(Debug)]
struct Pages {
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
    /// Addresses that containers wait for, whose blocks nobody holds.
    wished: Vec<(NetworkId, IpNet, IpAddr)>,
    /// Why this host got no further block of a range.
    no_block: BTreeMap<(NetworkId, IpNet), NoBlock>,
}

/// Why a host has not got another block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoBlock {
    /// In words.
    pub why: String,
    /// The deciding host has said no; otherwise it could not be asked.
    pub decided: bool,
}

impl Book {
    /// The book as the ledger has it.
    pub fn open(me: HostId, ledger: Arc<Ledger>, stored: &Stored) -> Result<Self, LedgerError> {
        let remembered = ledger.remembered()?;
        let mut pages = Pages {
            view: Arc::default(),
            networks: BTreeMap::new(),
            spaces: BTreeMap::new(),
            inherited: remembered.given.iter().map(|(n, ip, _)| (*n, *ip)).collect(),
            given: remembered.given.into_iter().map(|(n, ip, since)| ((n, ip), since)).collect(),
            endpoints: remembered.endpoints.into_iter().map(|e| (e.id.clone(), e)).collect(),
            bound: remembered.bound.into_iter().collect(),
            absent: remembered.absent.into_iter().collect(),
            wished: Vec::new(),
            no_block: BTreeMap::new(),
        };
        pages.learn(me, Arc::new(view_of(stored)));
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
        self.pages().learn(self.me, view);
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

    /// The blocks that this host should ask for: of ranges whose blocks here are half full.
    #[must_use]
    pub fn wants(&self) -> Vec<WantBlock> {
        let pages = self.pages();
        let wanting = pages.spaces.iter().filter(|(_, space)| space.wants_block());
        wanting
            .map(|((network, range), space)| WantBlock {
                network: *network,
                range: *range,
                have: space.blocks().collect(),
                address: None,
            })
            .chain(pages.wished.iter().filter_map(|(network, range, address)| {
                let space = pages.spaces.get(&(*network, *range))?;
                let unheld = holder(&pages.view, *network, *range, *address).is_none();
                let have = space.blocks().collect();
                unheld.then_some(WantBlock {
                    network: *network,
                    range: *range,
                    have,
                    address: Some(*address),
                })
            }))
            .collect()
    }

    /// A container waits for this address, whose block nobody holds yet; ends with what is returned. `None`: too many wait.
    #[must_use]
    pub fn wish(&self, network: NetworkId, range: IpNet, address: IpAddr) -> Option<Wish<'_>> {
        let mut pages = self.pages();
        if pages.wished.len() >= MAX_WISHES {
            return None;
        }
        pages.wished.push((network, range, address));
        drop(pages);
        self.changed();
        Some(Wish { book: self, wished: (network, range, address) })
    }

    /// This host gets no further block of the range, for this reason; `None`: nothing stands against it any more. Whether that
    /// is news.
    pub fn no_block(&self, network: NetworkId, range: IpNet, reason: Option<NoBlock>) -> bool {
        let mut pages = self.pages();
        let changed = match reason {
            Some(reason) => pages.no_block.insert((network, range), reason.clone()) != Some(reason),
            None => pages.no_block.remove(&(network, range)).is_some(),
        };
        drop(pages);
        if changed {
            self.changed();
        }
        changed
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
    fn learn(&mut self, me: HostId, view: Arc<MeshView>) {
        let networks = view.decisions.values().filter_map(|d| match &d.body {
            Some(DecisionBody::Network(network)) => Some((network.id, network.clone())),
            _ => None,
        });
        self.networks = networks.collect();
        self.spaces.clear();
        for network in self.networks.values() {
            for subnet in &network.subnets {
                self.spaces.insert((network.id, subnet.range), Space::new(subnet.range, subnet.gateway));
            }
        }
        for (network, block, owner) in blocks(&view).filter(|(_, _, owner)| *owner == me) {
            if let Some(space) = self.space_of(network, block.addr())
                && let Err(e) = space.add_block(block)
            {
                tracing::warn!(%block, %owner, error = %e, "a block cannot be used");
            }
        }
        let given: Vec<_> = self.given.keys().copied().collect();
        for (network, address) in given {
            if let Some(space) = self.space_of(network, address) {
                // An address of a block that was taken away is still its container's.
                let _outside_of_blocks = space.claim(address);
            }
        }
        self.no_block.retain(|key, _| self.spaces.contains_key(key));
        self.view = view;
    }

    /// What is on the disk now.
    fn apply(&mut self, change: Change) {
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
