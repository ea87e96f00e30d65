//! What the book has in memory: what is on the disk, and the spaces of addresses that this and the mesh's decisions make.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::network::Network;
use weft_ipam::space::Space;
use weft_router_io::node::MeshView;

use super::{GiveError, MAX_ENDPOINTS, NoBlock, blocks, give};
use crate::state::ledger::{Change, Endpoint, Loan, Remembered};

#[derive(Debug)]
pub(super) struct Pages {
    pub(super) me: HostId,
    pub(super) view: Arc<MeshView>,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    pub(super) spaces: BTreeMap<(NetworkId, IpNet), Space>,
    /// Since when, Unix seconds.
    pub(super) given: BTreeMap<(NetworkId, IpAddr), u64>,
    /// Of these, what an earlier life of this process gave.
    pub(super) inherited: BTreeSet<(NetworkId, IpAddr)>,
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    pub(super) bound: BTreeMap<String, NetworkId>,
    /// Networks that this host does not have; true: nobody shall.
    pub(super) absent: BTreeMap<NetworkId, bool>,
    /// Addresses of this host's blocks that other hosts asked for.
    pub(super) lent: BTreeMap<(NetworkId, IpAddr), Loan>,
    /// What this host has given up, up to which revision.
    pub(super) given_up: BTreeMap<DecisionKey, u64>,
    /// What stands in Docker's records of containers, by their names.
    pub(super) pins: BTreeMap<(NetworkId, IpAddr), String>,
    /// When those of a network were read last.
    pub(super) surveyed: BTreeMap<NetworkId, Instant>,
    /// Addresses that containers wait for, which are not this host's.
    pub(super) wished: Vec<(NetworkId, IpNet, IpAddr)>,
    /// Of these, why the holder does not lend them.
    pub(super) not_lent: BTreeMap<(NetworkId, IpAddr), String>,
    /// Why this host got no further block of a range.
    pub(super) no_block: BTreeMap<(NetworkId, IpNet), NoBlock>,
}

impl Pages {
    /// What is on the disk; nothing of the mesh yet.
    pub(super) fn of(me: HostId, remembered: Remembered) -> Self {
        Self {
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
        }
    }

    pub(super) fn learn(&mut self, view: Arc<MeshView>) {
        let before = std::mem::replace(&mut self.view, view);
        if Arc::ptr_eq(&before.decisions, &self.view.decisions) {
            return;
        }
        let networks = self.view.decisions.values().filter_map(|d| match &d.body {
            Some(DecisionBody::Network(network)) => Some((network.id, network.clone())),
            _ => None,
        });
        self.networks = networks.collect();
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
    pub(super) fn blocks_here(&self) -> impl Iterator<Item = (NetworkId, IpNet)> {
        blocks(&self.view)
            .filter(|(_, _, owner)| *owner == self.me)
            .map(|(network, block, _)| (network, block))
    }

    /// What is on the disk now.
    pub(super) fn apply(&mut self, change: Change) {
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

    pub(super) fn space_of(&mut self, network: NetworkId, address: IpAddr) -> Option<&mut Space> {
        let mut spaces = self.spaces.iter_mut();
        spaces.find(|((n, range), _)| *n == network && range.contains(&address)).map(|(_, space)| space)
    }

    pub(super) fn check_endpoint(&self, endpoint: &Endpoint) -> Result<(), GiveError> {
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

    pub(super) fn host_name(&self, host: HostId) -> String {
        self.view.roster.get(&host).map_or_else(|| host.to_string(), |record| record.name.clone())
    }
}
