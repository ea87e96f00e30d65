//! Which networks this host has. All of the mesh's, but for those that a person took away here; and those that Docker is making
//! and the mesh does not know yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::NetworkId;
use weft_api::network::{Network, Subnet};
use weft_api::request::RangeHeld;

use super::Book;
use crate::state::ledger::{Change, LedgerError};

/// So many ranges are remembered for networks that Docker is making; the oldest is forgotten, and its `docker network create`
/// refused.
const MAX_HELD: usize = 64;

/// What the decisions say of a network's id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decided {
    /// It exists.
    Is(Network),
    /// It was removed.
    Gone,
    /// Nothing: Docker made it, and the mesh has not heard its name yet.
    Nothing,
}

/// A Docker network of ours that carries nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stray {
    /// Its name in Docker.
    pub name: String,
    /// Its ranges.
    pub subnets: Vec<Subnet>,
    /// Why, and what to do.
    pub why: String,
}

/// What is in memory only.
#[derive(Debug, Default)]
pub(super) struct Making {
    /// In the order in which they were asked for.
    held: Vec<RangeHeld>,
    strays: BTreeMap<String, Stray>,
    /// Networks whose Docker object is being removed or made anew by us, so often; `None`: all of them.
    at_work: Vec<Option<NetworkId>>,
}

/// While it lives, what Docker removes of this network is our own doing.
#[derive(Debug)]
pub struct AtWork {
    making: Arc<Mutex<Making>>,
    network: Option<NetworkId>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = making.at_work.iter().position(|network| *network == self.network) {
            making.at_work.remove(at);
        }
    }
}

impl Book {
    /// What the mesh has decided about this id.
    #[must_use]
    pub fn decided(&self, network: NetworkId) -> Decided {
        let pages = self.pages();
        match pages.view.decisions.get(&DecisionKey::Network(network)).map(|decision| &decision.body) {
            Some(Some(DecisionBody::Network(network))) => Decided::Is(network.clone()),
            Some(_) => Decided::Gone,
            None => Decided::Nothing,
        }
    }

    /// The network with exactly this range.
    #[must_use]
    pub fn network_with(&self, range: IpNet) -> Option<Network> {
        let networks = self.networks();
        networks.into_iter().find(|network| network.subnets.iter().any(|subnet| subnet.range == range))
    }

    /// The networks that this host has: what is taken away stays while containers are on it.
    #[must_use]
    pub fn networks_here(&self) -> Vec<Network> {
        let pages = self.pages();
        let used = |id| pages.endpoints.values().any(|endpoint| endpoint.network == id);
        let here = |network: &&Network| !pages.absent.contains_key(&network.id) || used(network.id);
        pages.networks.values().filter(here).cloned().collect()
    }

    /// The networks that this host does not have, and whether they shall go from the whole mesh.
    #[must_use]
    pub fn absent(&self) -> BTreeMap<NetworkId, bool> {
        self.pages().absent.clone()
    }

    /// This host does not have the network any more; `remove`: nobody shall, once it is unused.
    pub fn take_away(&self, network: NetworkId, remove: bool) -> Result<(), LedgerError> {
        let _one_at_a_time = self.writing();
        self.enter(vec![Change::Absent(network, remove)])
    }

    /// This host has the network, or the network is gone.
    pub fn bring_back(&self, network: NetworkId) -> Result<(), LedgerError> {
        let _one_at_a_time = self.writing();
        if !self.pages().absent.contains_key(&network) {
            return Ok(());
        }
        self.enter(vec![Change::Present(network)])
    }

    /// Whether a container runs on the network anywhere, as far as facts say.
    #[must_use]
    pub fn in_use(&self, network: NetworkId) -> bool {
        let pages = self.pages();
        let elsewhere = pages.view.facts.iter().filter(|(host, _)| **host != self.me);
        pages.endpoints.values().any(|endpoint| endpoint.network == network)
            || elsewhere
                .flat_map(|(_, facts)| facts.items.endpoints())
                .any(|endpoint| endpoint.network == network)
    }

    /// Docker got this range for a network that it is about to make.
    pub fn hold(&self, held: RangeHeld) {
        let mut making = self.making();
        making.held.retain(|other| other.range != held.range);
        if making.held.len() >= MAX_HELD {
            making.held.remove(0);
        }
        making.held.push(held);
    }

    /// The range that Docker was given for a network without a name.
    #[must_use]
    pub fn held(&self, range: IpNet) -> Option<RangeHeld> {
        self.making().held.iter().find(|held| held.range == range).cloned()
    }

    /// The person chose this gateway in a range that is held.
    pub fn choose_gateway(&self, range: IpNet, gateway: IpAddr) {
        if let Some(held) = self.making().held.iter_mut().find(|held| held.range == range) {
            held.gateway = gateway;
        }
    }

    /// Docker has made the network, or has given up.
    pub fn let_go(&self, range: IpNet) {
        self.making().held.retain(|held| held.range != range);
    }

    /// Docker has the network, and the mesh will know it soon.
    #[must_use]
    pub fn is_coming(&self, network: NetworkId) -> bool {
        self.decided(network) == Decided::Nothing
            && self.pages().bound.values().any(|bound| *bound == network)
    }

    /// What Docker removes of this network (`None`: of any) while the guard lives is our own doing.
    #[must_use]
    pub fn at_work(&self, network: Option<NetworkId>) -> AtWork {
        self.making().at_work.push(network);
        AtWork { making: Arc::clone(&self.making), network }
    }

    /// Whether it is.
    #[must_use]
    pub fn is_at_work(&self, network: NetworkId) -> bool {
        self.making().at_work.iter().any(|at| at.is_none_or(|at| at == network))
    }

    /// Docker's networks of ours that carry nothing, by Docker's id.
    #[must_use]
    pub fn strays(&self) -> BTreeMap<String, Stray> {
        self.making().strays.clone()
    }

    /// What is known of them now; whether any is new, by name and reason.
    pub fn set_strays(&self, strays: BTreeMap<String, Stray>) -> Vec<Stray> {
        let before = std::mem::replace(&mut self.making().strays, strays.clone());
        strays
            .into_iter()
            .filter(|(id, stray)| before.get(id) != Some(stray))
            .map(|(_, stray)| stray)
            .collect()
    }

    fn making(&self) -> std::sync::MutexGuard<'_, Making> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
