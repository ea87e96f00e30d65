//! What the admin API tells, made of what is known here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_api::fact::{Item, Items};
use weft_api::id::{HostId, NetworkId};
use weft_api::network::{DEFAULT_MTU, Network};
use weft_api::report::{
    Block, Endpoint, Host, Lease, Link, Network as NetworkReport, NetworkState, Part, Skew, Status,
};
use weft_api::roster::{RosterRecord, Standing};
use weft_router::offload::Offloads;
use weft_router::switch::{Frozen, Owner, Table};
use weft_router_io::lane::Granted;
use weft_router_io::node::MeshView;

use super::Api;
use crate::book::{blocks, leases};
use crate::clock;
use crate::deciding::decider;
use crate::docker::Docker;
use crate::facts::is_pinned;
use crate::tables;

impl Api {
    /// How this host and its mesh are.
    pub fn status(&self) -> Status {
        let view = self.book.view();
        let me = self.identity.id();
        let unreachable: Vec<String> =
            members(&view).filter(|(id, _)| !self.reaches(&view, *id)).map(|(_, r)| r.name.clone()).collect();
        let hosts = members(&view).count();
        Status {
            mesh: self.identity.mesh.name.clone(),
            host: view.roster.get(&me).map_or_else(|| self.identity.host.clone(), |r| r.name.clone()),
            id: me,
            founder: self.identity.founder,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hosts,
            reachable: hosts - unreachable.len(),
            unreachable,
            docker: self.docker_part(),
            firewall: part(self.present.borrow().firewall.clone()),
            offloads: offloads(&self.node.offloads()),
            controller: self.controller_part(&view),
            problems: self.problems(),
            drops: self.node.drops(),
            uptime: self.started.elapsed().as_secs(),
        }
    }

    /// The members, this host first.
    pub fn hosts(&self) -> Vec<Host> {
        let view = self.book.view();
        let mut hosts: Vec<Host> = members(&view).map(|(id, record)| self.host(&view, id, record)).collect();
        hosts.sort_by_key(|host| (!host.this, host.name.clone()));
        hosts
    }

    /// The links to the other members, by name.
    pub fn links(&self) -> Vec<Link> {
        let mut links = self.node.links();
        links.sort_by(|a, b| a.host.cmp(&b.host));
        links
    }

    /// The clocks of members that can be reached, by name.
    pub async fn clocks(&self) -> Vec<Skew> {
        let view = self.book.view();
        let others = members(&view).filter(|(id, _)| *id != self.identity.id() && self.reaches(&view, *id));
        let others = others.map(|(id, record)| (id, record.name.clone())).collect();
        clock::compare(&self.node, others).await
    }

    /// The containers of all hosts, by network and address.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let (view, me) = (self.book.view(), self.identity.id());
        let networks: BTreeMap<NetworkId, String> =
            self.book.networks().into_iter().map(|network| (network.id, network.name)).collect();
        let name = |id: NetworkId| networks.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let pins = self.book.pins();
        for endpoint in self.book.endpoints() {
            endpoints.push(Endpoint {
                pinned: is_pinned(&endpoint, &pins),
                container: named(&endpoint.container, || format!("{:.12}", endpoint.id)),
                network: name(endpoint.network),
                addresses: endpoint.addresses,
                mac: endpoint.mac,
                host: host_name(&view, me),
                reachable: true,
            });
        }
        let divided: BTreeMap<NetworkId, Table> = self
            .book
            .networks()
            .iter()
            .map(|network| (network.id, tables::divide(me, network, &view)))
            .collect();
        for (host, record) in members(&view).filter(|(host, _)| *host != me) {
            let (reachable, items) = (self.reaches(&view, host), items(&view, host));
            for mut endpoint in items.endpoints() {
                // As the switch does: what lies outside its host's blocks is no claim.
                let table = divided.get(&endpoint.network);
                let theirs = |ip| table.and_then(|table| table.owner_of(ip)) == Some(Owner::Host(host));
                endpoint.addresses.retain(|ip| theirs(*ip));
                if endpoint.addresses.is_empty() {
                    continue;
                }
                endpoints.push(Endpoint {
                    pinned: items.contain(&Item::Pinned(endpoint.network, endpoint.mac)),
                    container: named(&endpoint.container, || "-".into()),
                    network: name(endpoint.network),
                    addresses: endpoint.addresses,
                    mac: endpoint.mac,
                    host: record.name.clone(),
                    reachable,
                });
            }
        }
        endpoints.sort_by(|a, b| (&a.network, &a.addresses).cmp(&(&b.network, &b.addresses)));
        endpoints
    }

    /// The networks, by name.
    pub fn networks(&self) -> Vec<NetworkReport> {
        let view = self.book.view();
        let mut networks: Vec<NetworkReport> =
            self.book.networks().into_iter().map(|network| self.network(&view, network)).collect();
        networks.extend(self.book.strays().into_iter().map(|(docker, stray)| NetworkReport {
            name: stray.name,
            id: self.book.bound(&docker).unwrap_or(NetworkId(0)),
            subnets: stray.subnets,
            mtu: DEFAULT_MTU,
            internal: false,
            hosts: Vec::new(),
            endpoints: 0,
            blocks: Vec::new(),
            leases: Vec::new(),
            state: NetworkState::Conflict,
            problem: Some(stray.why),
        }));
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        networks
    }

    fn network(&self, view: &MeshView, network: Network) -> NetworkReport {
        let me = self.identity.id();
        let present = self.present.borrow().clone();
        let mut used: Vec<IpAddr> = Vec::new();
        let mut endpoints = 0;
        for endpoint in self.book.endpoints().iter().filter(|e| e.network == network.id) {
            endpoints += 1;
            used.extend(&endpoint.addresses);
        }
        let mut hosts = Vec::new();
        for (host, record) in members(view) {
            let here = host == me;
            let has = if here {
                present.ready.contains(&network.id)
            } else {
                items(view, host).contain(&Item::Network(network.id))
            };
            if has {
                hosts.push(record.name.clone());
            }
            if !here {
                for endpoint in items(view, host).endpoints().filter(|e| e.network == network.id) {
                    endpoints += 1;
                    used.extend(&endpoint.addresses);
                }
            }
        }
        hosts.sort();
        let blocks = blocks(view).filter(|(n, ..)| *n == network.id).map(|(_, range, owner)| Block {
            range,
            host: host_name(view, owner),
            used: used.iter().filter(|ip| range.contains(*ip)).count(),
        });
        let leases = leases(view).filter(|(n, ..)| *n == network.id).map(|(_, address, owner)| Lease {
            address,
            host: host_name(view, owner),
            used: used.contains(&address),
        });
        let problem = present.problems.get(&network.id);
        NetworkReport {
            leases: leases.collect(),
            blocks: blocks.collect(),
            state: match problem {
                _ if self.book.absent().contains_key(&network.id) => NetworkState::Detached,
                Some(_) => NetworkState::Problem,
                None => NetworkState::Here,
            },
            problem: present.problems.get(&network.id).cloned(),
            name: network.name,
            id: network.id,
            subnets: network.subnets,
            mtu: network.mtu,
            internal: network.internal,
            hosts,
            endpoints,
        }
    }

    fn host(&self, view: &MeshView, id: HostId, record: &RosterRecord) -> Host {
        let items = items(view, id);
        Host {
            name: record.name.clone(),
            id,
            this: id == self.identity.id(),
            founder: record.roles.founder,
            controller: record.roles.controller,
            signer: record.roles.signer,
            reachable: self.reaches(view, id),
            through: view.through.get(&id).map(|hop| host_name(view, *hop)),
            addresses: items
                .decoded()
                .filter_map(|item| match item {
                    Item::Address(address) => Some(address),
                    _ => None,
                })
                .collect(),
            endpoints: items.endpoints().count(),
            version: items.decoded().find_map(|item| match item {
                Item::Version(version) => Some(version),
                _ => None,
            }),
        }
    }

    fn docker_part(&self) -> Part {
        match &*self.docker.borrow() {
            Docker::Ready(_) => part(None),
            Docker::Away(why) => part(Some(why.clone())),
        }
    }

    fn controller_part(&self, view: &MeshView) -> Part {
        let Some(host) = decider(view) else {
            return part(Some("nobody is known to decide for this mesh: no joins, no new networks".into()));
        };
        if self.reaches(view, host) {
            return part(None);
        }
        let name = host_name(view, host);
        part(Some(format!(
            "{name}, which decides, cannot be reached: no joins and no new networks until it is back"
        )))
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if *self.removed.borrow() {
            problems.push(
                "this host was removed from the mesh: run weft leave --force, then weft join with a new token".into(),
            );
        }
        let present = self.present.borrow();
        for (network, problem) in &present.problems {
            let name = self.book.network(*network).map_or_else(|| network.to_string(), |n| n.name);
            problems.push(format!("network {name}: {problem}"));
        }
        let view = self.book.view();
        problems.extend(keys(&view, self.signer.as_deref().is_some_and(|signer| !signer.signs())));
        let place = |owner| match owner {
            Owner::Here => "this host".to_owned(),
            Owner::Host(host) => host_name(&view, host),
        };
        for (network, Frozen { mac, stays, seen }) in self.node.frozen() {
            let name = self.book.network(network).map_or_else(|| network.to_string(), |n| n.name);
            let (stays, seen) = (place(stays), place(seen));
            problems.push(format!("network {name}: {mac} sends from {stays} and from {seen} in turn, and is frozen on {stays}: two bridges joined outside weft, or two machines with one MAC"));
        }
        for (network, hosts) in self.node.tied() {
            let name = self.book.network(network).map_or_else(|| network.to_string(), |n| n.name);
            let hosts: Vec<String> = hosts.iter().map(|host| host_name(&view, *host)).collect();
            let (hosts, bridge) = (hosts.join(", "), network.bridge_name());
            problems.push(format!("network {name}: its bridge {bridge} is tied outside weft to that of {hosts}, which is a loop, so nothing is flooded between them through the mesh: take a foreign interface out of the bridge (ip link show master {bridge})"));
        }
        for stray in self.book.strays().into_values() {
            problems.push(format!("Docker's network {}: {}", stray.name, stray.why));
        }
        problems.extend(self.stranded.borrow().iter().cloned());
        problems
    }

    pub(super) fn reaches(&self, view: &MeshView, host: HostId) -> bool {
        host == self.identity.id() || view.reachable.contains(&host)
    }
}

/// What is wrong with the mesh keys. `old`: this host signs with one that was rotated.
fn keys(view: &MeshView, old: bool) -> Vec<String> {
    let known = view.signer.map_or_else(String::new, |key| format!(" ({})", key.fingerprint()));
    let rivals = view.rivals.iter().map(|(number, key)| {
        let key = key.fingerprint();
        format!("somebody has rotated an old mesh key: key {number} of the mesh is another one here{known} than {key}, which is refused; who made that one has made a mesh of its own, which its hosts leave by weft leave --force and weft join")
    });
    let old = old.then(|| {
        let sentence = "this host holds an old mesh key, which was rotated: weft mesh key export on a signer (weft hosts), then weft mesh key import here, to admit and remove hosts here again";
        sentence.to_owned()
    });
    rivals.chain(old).collect()
}

pub(super) fn members(view: &MeshView) -> impl Iterator<Item = (HostId, &RosterRecord)> {
    let records = view.roster.iter().filter(|(_, record)| record.standing == Standing::Member);
    records.map(|(id, record)| (*id, record))
}

pub(super) fn items(view: &MeshView, host: HostId) -> Items {
    view.facts.get(&host).map_or_else(Items::default, |facts| facts.items.clone())
}

pub(super) fn host_name(view: &MeshView, host: HostId) -> String {
    view.roster.get(&host).map_or_else(|| host.to_string(), |record| record.name.clone())
}

fn named(name: &str, otherwise: impl FnOnce() -> String) -> String {
    if name.is_empty() { otherwise() } else { name.to_owned() }
}

fn part(wrong: Option<String>) -> Part {
    Part { ok: wrong.is_none(), text: wrong.unwrap_or_else(|| "ok".into()) }
}

/// `all`, or what the kernel did not grant.
fn offloads(granted: &Granted) -> Part {
    let mut missing = Vec::new();
    if !granted.gso {
        missing.push("UDP GSO");
    }
    if !granted.gro {
        missing.push("UDP GRO");
    }
    for (offload, name) in [
        (Offloads::CSUM, "tap checksums"),
        (Offloads::TSO4, "TSO4"),
        (Offloads::TSO6, "TSO6"),
        (Offloads::USO4, "USO4"),
        (Offloads::USO6, "USO6"),
    ] {
        if granted.taps.values().any(|tap| !tap.has(offload)) {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        Part { ok: true, text: "all".into() }
    } else {
        Part { ok: false, text: format!("without {}", missing.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_offloads_are_named() {
        let mut granted = Granted { gso: true, gro: true, taps: BTreeMap::new() };
        assert_eq!(offloads(&granted).text, "all");
        granted.gso = false;
        granted.taps.insert(NetworkId(1), Offloads::ALL);
        granted.taps.insert(NetworkId(2), Offloads::CSUM.with(Offloads::TSO4).with(Offloads::TSO6));
        let part = offloads(&granted);
        assert!(!part.ok);
        assert_eq!(part.text, "without UDP GSO, USO4, USO6");
    }
}
