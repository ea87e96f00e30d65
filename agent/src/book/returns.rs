//! What this host could give back: blocks in which nothing is in use, and leases that no container has. Docker's own records
//! count: an address that a stopped container has in its record is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use weft_api::decision::DecisionKey;
use weft_api::id::NetworkId;
use weft_api::request::GiveUp;

use super::{Book, MAX_ENDPOINTS, Pages, leases, revision};
use crate::state::ledger::{Change, LedgerError};

impl Book {
    /// What Docker's records of a network's containers say, running or not: their addresses (`--ip`) and names.
    pub fn pin(&self, network: NetworkId, pinned: &BTreeMap<IpAddr, String>) -> Result<(), LedgerError> {
        let _one_at_a_time = self.writing();
        let pages = self.pages();
        let known = || pages.pins.iter().filter(|((n, _), _)| *n == network);
        let mut changes: Vec<Change> = known()
            .filter(|((_, address), _)| !pinned.contains_key(address))
            .map(|((_, address), _)| Change::Unpin(network, *address))
            .collect();
        for (address, container) in pinned.iter().take(MAX_ENDPOINTS) {
            if pages.pins.get(&(network, *address)) != Some(container) {
                changes.push(Change::Pin(network, *address, container.clone()));
            }
        }
        drop(pages);
        self.enter(changes)?;
        self.pages().surveyed.insert(network, Instant::now());
        Ok(())
    }

    /// The addresses that stand in Docker's records.
    #[must_use]
    pub fn pins(&self) -> BTreeSet<(NetworkId, IpAddr)> {
        self.pages().pins.keys().copied().collect()
    }

    /// When Docker's records of a network were last read.
    #[must_use]
    pub fn surveyed(&self, network: NetworkId) -> Option<Instant> {
        self.pages().surveyed.get(&network).copied()
    }

    /// The networks of the mesh, and those that were and of which something is still given here.
    #[must_use]
    pub fn networks_known(&self) -> BTreeSet<NetworkId> {
        let pages = self.pages();
        let given = pages.given.keys().chain(pages.pins.keys()).map(|(network, _)| *network);
        given.chain(pages.networks.keys().copied()).collect()
    }

    /// What could be given back at this moment.
    #[must_use]
    pub fn idle(&self) -> Vec<GiveUp> {
        let pages = self.pages();
        let mut idle = pages.idle_leases();
        idle.extend(
            pages.spaces.iter().flat_map(|((network, range), _)| pages.idle_blocks(*network, *range)),
        );
        idle
    }

    /// This host uses it no more, if it still does not; then it may be given back.
    pub fn give_up(&self, what: &GiveUp) -> Result<bool, LedgerError> {
        let _one_at_a_time = self.writing();
        if !self.idle().contains(what) {
            return Ok(false);
        }
        self.enter(vec![Change::GiveUp(what.key.clone(), what.revision)])?;
        Ok(true)
    }

    /// What was given up here and is still decided to be this host's.
    #[must_use]
    pub fn given_up(&self) -> Vec<GiveUp> {
        let pages = self.pages();
        let given_up = pages.given_up.iter().filter(|(key, _)| pages.gave_up(key));
        given_up.map(|(key, revision)| GiveUp { key: key.clone(), revision: *revision }).collect()
    }
}

impl Pages {
    fn idle_leases(&self) -> Vec<GiveUp> {
        let idle = |at: &(NetworkId, IpAddr)| {
            !self.given.contains_key(at)
                && !self.pins.contains_key(at)
                && !self.wished.iter().any(|(n, _, address)| (*n, *address) == *at)
        };
        let mine = leases(&self.view).filter(|(_, _, owner)| *owner == self.me);
        mine.filter(|(network, address, _)| idle(&(*network, *address)))
            .map(|(network, address, _)| DecisionKey::Lease(network, address))
            .filter(|key| !self.gave_up(key))
            .map(|key| GiveUp { revision: revision(&self.view, &key), key })
            .collect()
    }

    /// The blocks of a range; not those that keep containers from waiting for another host, unless the network is not here.
    fn idle_blocks(&self, network: NetworkId, range: IpNet) -> Vec<GiveUp> {
        let Some(space) = self.spaces.get(&(network, range)) else { return Vec::new() };
        let wished = |block: &IpNet| {
            self.wished.iter().any(|(n, _, address)| *n == network && block.contains(address))
        };
        let leased = |block: &IpNet| leases(&self.view).any(|(n, at, _)| n == network && block.contains(&at));
        let spare = space.spare_blocks(self.absent.contains_key(&network)).into_iter();
        spare
            .filter(|block| !wished(block) && !leased(block))
            .map(|block| DecisionKey::Block(network, block))
            .map(|key| GiveUp { revision: revision(&self.view, &key), key })
            .collect()
    }
}
