//! Facts and decisions -> what the switch needs of a network. An endpoint counts only if its address lies in a block or
//! a lease of the host that claims it (PROTOCOL 7); what is on this host outranks what others say. A host that says something
//! new changes its own entries, and the others stay as they are.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_api::fact::{Item, Items};
use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::network::Network;
use weft_api::roster::Standing;
use weft_router::switch::{Block, Owner, Table};
use weft_router_io::node::{Groups, MeshView};

use crate::book::{blocks, leases};
use crate::state::ledger::Endpoint;

/// The tables of the networks that this host has.
#[derive(Default)]
pub struct Tables {
    view: Arc<MeshView>,
    made: BTreeMap<NetworkId, Made>,
}

impl Tables {
    /// What is known now; `true` if some table is another. `own`: the endpoints of this host, on any network. `heard`: the
    /// multicast groups that are listened to here.
    pub fn learn(
        &mut self,
        me: HostId,
        networks: &[&Network],
        view: Arc<MeshView>,
        own: &[Endpoint],
        heard: &Groups,
    ) -> bool {
        let before = std::mem::replace(&mut self.view, view);
        let view = &self.view;
        let news = news(me, &before, view);
        let decided = !Arc::ptr_eq(&before.decisions, &view.decisions);
        let had = self.made.len();
        self.made.retain(|id, _| networks.iter().any(|network| network.id == *id));
        let mut changed = self.made.len() != had;
        for network in networks {
            let here = Here::of(network.id, own, heard);
            let holds = |made: &&mut Made| {
                let divided = || divide(me, network, view).is_divided_like(&made.table);
                made.network == **network && (!decided || divided())
            };
            let made = self.made.get_mut(&network.id).filter(holds);
            match made.and_then(|made| made.follow(me, view, &news, &here)) {
                Some(followed) => changed |= followed,
                None => {
                    self.made.insert(network.id, Made::new(me, network, view, here));
                    changed = true;
                }
            }
        }
        changed
    }

    /// Each of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Table>> {
        self.made.values().map(|made| Arc::clone(&made.table)).collect()
    }
}

/// The table of a network, made of nothing but this.
#[must_use]
pub fn table(me: HostId, network: &Network, view: &MeshView, own: &[Endpoint], heard: &Groups) -> Table {
    Arc::unwrap_or_clone(Made::new(me, network, view, Here::of(network.id, own, heard)).table)
}

/// Who may claim which address of a network, by the decisions: its table without an endpoint.
#[must_use]
pub fn divide(me: HostId, network: &Network, view: &MeshView) -> Table {
    let held = blocks(view).filter(|(n, ..)| *n == network.id);
    let blocks = held.map(|(_, range, owner)| Block { range, owner: owner_of(me, owner) }).collect();
    let mut table = Table::new(network.id, network.mtu, blocks);
    let leased = leases(view).filter(|(n, ..)| *n == network.id);
    table.leases = leased.map(|(_, address, owner)| (address, owner_of(me, owner))).collect();
    table.gateways = network.subnets.iter().map(|subnet| subnet.gateway).collect();
    table
}

/// What changes the tables: a host, what it said, and what it says now. Who is no member says nothing.
type News = (HostId, Items, Items);

fn news(me: HostId, before: &MeshView, now: &MeshView) -> Vec<News> {
    if Arc::ptr_eq(&before.facts, &now.facts) && Arc::ptr_eq(&before.roster, &now.roster) {
        return Vec::new();
    }
    let had: BTreeMap<HostId, &Items> = others(me, before).collect();
    let has: BTreeMap<HostId, &Items> = others(me, now).collect();
    let gone = had.iter().filter(|(host, _)| !has.contains_key(host));
    let gone = gone.map(|(host, items)| (*host, (*items).clone(), Items::default()));
    let told = has.iter().filter(|(host, items)| had.get(host) != Some(items));
    let told = told.map(|(host, items)| {
        (*host, had.get(host).map_or_else(Items::default, |items| (*items).clone()), (*items).clone())
    });
    gone.chain(told).collect()
}

/// What the other members say.
fn others(me: HostId, view: &MeshView) -> impl Iterator<Item = (HostId, &Items)> {
    let member = |host: &HostId| view.roster.get(host).is_some_and(|r| r.standing == Standing::Member);
    let facts = view.facts.iter().filter(move |(host, _)| **host != me && member(host));
    facts.map(|(host, facts)| (*host, &facts.items))
}

/// What is on this host.
struct Here {
    own: BTreeSet<Claim>,
    heard: BTreeSet<IpAddr>,
}

impl Here {
    fn of(network: NetworkId, own: &[Endpoint], heard: &Groups) -> Self {
        let own = own.iter().filter(|endpoint| endpoint.network == network);
        let claim = |endpoint: &Endpoint| Claim { mac: endpoint.mac, addresses: endpoint.addresses.clone() };
        Self { own: own.map(claim).collect(), heard: heard.get(&network).cloned().unwrap_or_default() }
    }
}

/// An endpoint, with those of its addresses that are its host's to give.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    mac: Mac,
    addresses: Vec<IpAddr>,
}

impl Claim {
    /// Whether the MAC follows from an address; else a person chose it.
    fn is_stable(&self) -> bool {
        self.addresses.iter().any(|ip| match ip {
            IpAddr::V4(v4) => Mac::of_ipv4(*v4) == self.mac,
            IpAddr::V6(v6) => Mac::of_ipv6(*v6) == self.mac,
        })
    }
}

/// The endpoints that a host may claim.
fn claims(table: &Table, host: HostId, items: &Items) -> BTreeSet<Claim> {
    let may = |ip: &IpAddr| table.owner_of(*ip) == Some(Owner::Host(host)) && !table.gateways.contains(ip);
    let said = items
        .endpoints()
        .filter(|e| e.network == table.network && !e.mac.is_group() && e.mac != Mac::GATEWAY);
    let claims = said.map(|mut endpoint| {
        endpoint.addresses.retain(may);
        Claim { mac: endpoint.mac, addresses: endpoint.addresses }
    });
    claims.filter(|claim| !claim.addresses.is_empty()).collect()
}

/// A table, and what it was made of beside the view.
struct Made {
    network: Network,
    here: Here,
    table: Arc<Table>,
    /// MACs that are claimed twice, or with an address that is: what becomes of them is not for one host to change.
    disputed: HashSet<Mac>,
}

impl Made {
    fn new(me: HostId, network: &Network, view: &MeshView, here: Here) -> Self {
        let table = Arc::new(divide(me, network, view));
        let own: Vec<Claim> = here.own.iter().cloned().collect();
        let mut made = Self { network: network.clone(), here, table, disputed: HashSet::new() };
        made.add(own.into_iter().map(|claim| (claim, Owner::Here)));
        let mut chosen = Vec::new();
        for (host, items) in others(me, view) {
            let (stable, others): (Vec<_>, Vec<_>) =
                claims(&made.table, host, items).into_iter().partition(Claim::is_stable);
            made.add(stable.into_iter().map(|claim| (claim, Owner::Host(host))));
            chosen.extend(others.into_iter().map(|claim| (claim, Owner::Host(host))));
        }
        // A MAC that follows from an address of one's own block is nobody else's; one that a person chose comes after.
        made.add(chosen);
        made.regroup(me, view);
        made
    }

    /// Goes on from what it was made of; whether it is another now. `None`: it must be made anew.
    fn follow(&mut self, me: HostId, view: &MeshView, news: &[News], here: &Here) -> Option<bool> {
        let id = self.network.id;
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        let mut compare = |owner, had: &BTreeSet<Claim>, has: &BTreeSet<Claim>| {
            gone.extend(had.difference(has).cloned());
            come.extend(has.difference(had).map(|claim| (claim.clone(), owner)));
        };
        compare(Owner::Here, &self.here.own, &here.own);
        let mut regroups = self.here.heard != here.heard;
        for (host, before, now) in news {
            compare(
                Owner::Host(*host),
                &claims(&self.table, *host, before),
                &claims(&self.table, *host, now),
            );
            let present = Item::Network(id);
            regroups |= before.contain(&present) != now.contain(&present);
            regroups |= !before.groups(id).eq(now.groups(id));
        }
        if !regroups && gone.is_empty() && come.is_empty() {
            return Some(false);
        }
        let disputed = |claim: &Claim| self.disputed.contains(&claim.mac);
        if gone.iter().any(disputed) || come.iter().any(|(claim, _)| disputed(claim)) {
            return None;
        }
        let table = Arc::make_mut(&mut self.table);
        for claim in gone {
            table.endpoints.remove(&claim.mac);
            for ip in &claim.addresses {
                table.addresses.remove(ip);
            }
        }
        if !self.add(come) {
            return None;
        }
        self.here = Here { own: here.own.clone(), heard: here.heard.clone() };
        if regroups {
            self.regroup(me, view);
        }
        Some(true)
    }

    /// Whoever is in the table first stays: this host, then the lowest id. `false` if somebody was there.
    fn add(&mut self, claims: impl IntoIterator<Item = (Claim, Owner)>) -> bool {
        let table = Arc::make_mut(&mut self.table);
        let disputes = self.disputed.len();
        for (Claim { mac, addresses }, owner) in claims {
            if table.endpoints.contains_key(&mac) {
                self.disputed.insert(mac);
                continue;
            }
            for other in addresses.iter().filter_map(|ip| table.addresses.get(ip)) {
                self.disputed.extend([mac, *other]);
            }
            table.add_endpoint(mac, &addresses, owner);
        }
        self.disputed.len() == disputes
    }

    /// Who has the network, and where its groups are listened to.
    fn regroup(&mut self, me: HostId, view: &MeshView) {
        let table = Arc::make_mut(&mut self.table);
        let present = Item::Network(table.network);
        table.hosts.clear();
        table.groups.clear();
        table.every_group.clear();
        for (host, items) in others(me, view).filter(|(_, items)| items.contain(&present)) {
            table.hosts.insert(host);
            table.add_groups(Owner::Host(host), items.groups(table.network));
        }
        table.add_groups(Owner::Here, self.here.heard.iter().copied());
        table.end_groups();
    }
}

fn owner_of(me: HostId, owner: HostId) -> Owner {
    if owner == me { Owner::Here } else { Owner::Host(owner) }
}
