//! What this host has given: addresses and endpoints, each on the disk before Docker hears of it. With it, what decisions
//! and facts say, so that every question of Docker is answered from here. Calls block for one write to the disk at most.

mod compare;
mod give;
mod here;
mod loans;
mod pages;
mod returns;
#[cfg(test)]
pub(crate) mod tests;
mod view;
mod wishes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use weft_api::id::{HostId, NetworkId};
use weft_api::network::Network;
use weft_router_io::node::{MeshView, Stored};

pub use compare::{GRACE, Listed};
pub use give::GiveError;
pub use here::{AtWork, Decided, Stray};
pub use loans::LoanError;
use pages::Pages;
use view::revision;
pub use view::{blocks, claimant, holder, leases, lessee, view_of};
pub use wishes::{Borrow, NoBlock, Wish};

use crate::state::ledger::{Change, Endpoint, Ledger, LedgerError};

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

impl Book {
    /// The book as the ledger has it.
    pub fn open(me: HostId, ledger: Arc<Ledger>, stored: &Stored) -> Result<Self, LedgerError> {
        let mut pages = Pages::of(me, ledger.remembered()?);
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

/// Unix seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
