//! What the mesh's decisions say of addresses: who holds a block, who has a lease; and the mesh as the disk knows it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::id::{HostId, NetworkId};
use weft_ipam::block::block_of;
use weft_router_io::node::{HostFacts, MeshView, Stored};

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
pub(super) fn revision(view: &MeshView, key: &DecisionKey) -> u64 {
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
    let (roster, facts) = (Arc::make_mut(&mut view.roster), Arc::make_mut(&mut view.facts));
    let decisions = Arc::make_mut(&mut view.decisions);
    for record in stored.roster.iter().filter_map(|signed| signed.peek().ok()) {
        roster.insert(record.key.id(), record);
    }
    for record in &stored.facts {
        if let Ok(head) = record.head.peek() {
            facts.insert(head.owner, HostFacts { version: head.version, items: record.items.clone() });
        }
    }
    for decision in stored.decisions.iter().filter_map(|signed| signed.peek().ok()) {
        let newer = |known: &Decision| known.revision > decision.revision;
        if !decisions.get(&decision.key).is_some_and(newer) {
            decisions.insert(decision.key.clone(), decision);
        }
    }
    view
}
