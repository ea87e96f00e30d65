//! Facts and decisions -> what the switch needs of a network. An endpoint counts only if its address lies in a block or
//! a lease of the host that claims it (PROTOCOL 7); what is on this host outranks what others say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_api::fact::Item;
use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::network::Network;
use weft_api::roster::Standing;
use weft_router::switch::{Block, Owner, Table};
use weft_router_io::node::MeshView;

use crate::book::{blocks, leases, lessee};
use crate::state::ledger::Endpoint;

/// The table of a network. `own`: the endpoints of this host, on any network. `heard`: the multicast groups of it that are
/// listened to here.
#[must_use]
pub fn table(
    me: HostId,
    network: &Network,
    view: &MeshView,
    own: &[Endpoint],
    heard: Option<&BTreeSet<IpAddr>>,
) -> Table {
    let held = blocks(view).filter(|(n, ..)| *n == network.id);
    let blocks = held.map(|(_, range, owner)| Block { range, owner: owner_of(me, owner) }).collect();
    let mut table = Table::new(network.id, network.mtu, blocks);
    let leased = leases(view).filter(|(n, ..)| *n == network.id);
    table.leases = leased.map(|(_, address, owner)| (address, owner_of(me, owner))).collect();
    table.gateways = network.subnets.iter().map(|subnet| subnet.gateway).collect();
    for endpoint in own.iter().filter(|e| e.network == network.id) {
        table.add_endpoint(endpoint.mac, &endpoint.addresses, Owner::Here);
    }
    let mut chosen = Vec::new();
    for (host, items) in others(me, view) {
        if items.contains(&Item::Network(network.id)) {
            table.hosts.insert(host);
            table.add_groups(Owner::Host(host), items.iter().filter_map(|item| group(item, network.id)));
        }
        for (mac, addresses) in claims(&table, network.id, host, items) {
            if is_stable(mac, &addresses) {
                add(&mut table, mac, &addresses, host);
            } else {
                chosen.push((host, mac, addresses));
            }
        }
    }
    table.add_groups(Owner::Here, heard.into_iter().flatten().copied());
    table.end_groups();
    // A MAC that follows from an address of one's own block is nobody else's; one that a person chose comes after.
    for (host, mac, addresses) in chosen {
        add(&mut table, mac, &addresses, host);
    }
    table
}

fn group(item: &Item, of: NetworkId) -> Option<IpAddr> {
    match item {
        Item::Group { network, group } if *network == of => Some(*group),
        _ => None,
    }
}

/// What the other members say.
fn others(me: HostId, view: &MeshView) -> impl Iterator<Item = (HostId, &Vec<Item>)> {
    let member = |host: &HostId| view.roster.get(host).is_some_and(|r| r.standing == Standing::Member);
    let facts = view.facts.iter().filter(move |(host, _)| **host != me && member(host));
    facts.map(|(host, facts)| (*host, &facts.1))
}

/// Whether an address is this host's to give, by the decisions.
pub fn may_claim(view: &MeshView, network: NetworkId, host: HostId, ip: IpAddr) -> bool {
    if let Some(lessee) = lessee(view, network, ip) {
        return lessee == host;
    }
    blocks(view).any(|(of, range, owner)| of == network && owner == host && range.contains(&ip))
}

/// The endpoints that a host may claim, with those of their addresses that are its own to give.
fn claims(table: &Table, network: NetworkId, host: HostId, items: &[Item]) -> Vec<(Mac, Vec<IpAddr>)> {
    let may = |ip: &IpAddr| table.owner_of(*ip) == Some(Owner::Host(host)) && !table.gateways.contains(ip);
    let claim = |item: &Item| match item {
        Item::Endpoint(e) if e.network == network && !e.mac.is_group() && e.mac != Mac::GATEWAY => {
            let addresses: Vec<IpAddr> = e.addresses.iter().copied().filter(may).collect();
            (!addresses.is_empty()).then_some((e.mac, addresses))
        }
        _ => None,
    };
    items.iter().filter_map(claim).collect()
}

fn is_stable(mac: Mac, addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|ip| match ip {
        IpAddr::V4(v4) => Mac::of_ipv4(*v4) == mac,
        IpAddr::V6(v6) => Mac::of_ipv6(*v6) == mac,
    })
}

/// Whoever is in the table first stays: this host, then the lowest id.
fn add(table: &mut Table, mac: Mac, addresses: &[IpAddr], host: HostId) {
    if !table.endpoints.contains_key(&mac) {
        table.add_endpoint(mac, addresses, Owner::Host(host));
    }
}

fn owner_of(me: HostId, owner: HostId) -> Owner {
    if owner == me { Owner::Here } else { Owner::Host(owner) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_api::decision::{Decision, DecisionBody, DecisionKey};
    use weft_api::fact::{Endpoint as Fact, FactVersion};
    use weft_api::id::{HostKey, MeshId};
    use weft_api::network::{Origin, Subnet};
    use weft_api::roster::{Roles, RosterRecord};

    use super::*;

    const NET: NetworkId = NetworkId(1);

    fn key(n: u8) -> HostKey {
        HostKey([n; 32])
    }

    fn network() -> Network {
        let subnet = Subnet { range: "10.32.0.0/16".parse().unwrap(), gateway: "10.32.0.1".parse().unwrap() };
        Network {
            id: NET,
            name: "app".into(),
            subnets: vec![subnet],
            mtu: 1340,
            internal: false,
            origin: Origin::Weft,
        }
    }

    fn mac(ip: &str) -> Mac {
        Mac::of_ipv4(ip.parse().unwrap())
    }

    fn fact(mac: Mac, ip: &str) -> Item {
        let addresses = vec![ip.parse().unwrap()];
        Item::Endpoint(Fact { network: NET, mac, addresses, container: "x".into() })
    }

    /// Hosts 1 to 3 hold the first three blocks of the range; host 1 is this one.
    fn view(facts: &[(u8, Vec<Item>)]) -> MeshView {
        let mut view = MeshView::default();
        for n in 1..=3 {
            let record = RosterRecord {
                mesh: MeshId([0; 32]),
                key: key(n),
                name: format!("h{n}"),
                roles: Roles::default(),
                serial: 1,
                standing: Standing::Member,
                under: weft_api::roster::Under::default(),
            };
            view.roster.insert(key(n).id(), record);
            let block =
                DecisionKey::Block(NET, format!("10.32.0.{}/26", u32::from(n - 1) * 64).parse().unwrap());
            let decision = Decision {
                mesh: MeshId([0; 32]),
                revision: u64::from(n),
                signer: key(1),
                key: block.clone(),
                body: Some(DecisionBody::Block { owner: key(n).id() }),
            };
            view.decisions.insert(block, decision);
        }
        for (n, items) in facts {
            view.facts.insert(key(*n).id(), Arc::new((FactVersion::default(), items.clone())));
        }
        view
    }

    fn made(facts: &[(u8, Vec<Item>)], own: &[Endpoint]) -> Table {
        table(key(1).id(), &network(), &view(facts), own, None)
    }

    #[test]
    fn only_addresses_of_ones_own_block_count() {
        let items = vec![
            Item::Network(NET),
            fact(mac("10.32.0.70"), "10.32.0.70"),
            fact(mac("10.32.0.130"), "10.32.0.130"),
            fact(Mac([2, 0, 0, 0, 0, 9]), "10.32.0.5"),
            fact(Mac::BROADCAST, "10.32.0.71"),
            fact(Mac::GATEWAY, "10.32.0.72"),
        ];
        let table = made(&[(2, items)], &[]);
        assert_eq!(table.endpoints.len(), 1, "{table:?}");
        assert_eq!(table.endpoints[&mac("10.32.0.70")], Owner::Host(key(2).id()));
        assert_eq!(table.addresses.len(), 1);
        assert!(table.hosts.contains(&key(2).id()) && !table.hosts.contains(&key(3).id()));
        assert_eq!(table.owner_of("10.32.0.3".parse().unwrap()), Some(Owner::Here));
    }

    #[test]
    fn nobody_takes_anothers_mac() {
        let victim = fact(mac("10.32.0.140"), "10.32.0.140");
        let thief = fact(mac("10.32.0.140"), "10.32.0.70");
        let table = made(&[(2, vec![thief]), (3, vec![victim])], &[]);
        assert_eq!(table.endpoints[&mac("10.32.0.140")], Owner::Host(key(3).id()));
        assert!(!table.addresses.contains_key(&"10.32.0.70".parse().unwrap()));
    }

    #[test]
    fn this_host_outranks_the_others() {
        let chosen = Mac([2, 1, 1, 1, 1, 1]);
        let own = Endpoint {
            id: "e".into(),
            docker_network: "n".into(),
            network: NET,
            addresses: vec!["10.32.0.2".parse().unwrap()],
            mac: chosen,
            container: String::new(),
            since: 0,
        };
        let table = made(&[(2, vec![fact(chosen, "10.32.0.70")])], &[own]);
        assert_eq!(table.endpoints[&chosen], Owner::Here);
    }

    #[test]
    fn groups_are_where_they_are_listened_to() {
        let listens = |group: &str| Item::Group { network: NET, group: group.parse().unwrap() };
        let second = vec![Item::Network(NET), listens("239.1.1.1"), listens("224.0.0.251")];
        let third = vec![Item::Network(NET), listens("0.0.0.0")];
        let absent = vec![listens("239.1.1.1")];
        let here = BTreeSet::from(["239.1.1.2".parse().unwrap()]);
        let view = view(&[(2, second), (3, third)]);
        let table = table(key(1).id(), &network(), &view, &[], Some(&here));
        let hosts = |group: &str| table.groups.get(&group.parse().unwrap()).map(|g| (g.hosts.len(), g.here));
        assert_eq!(hosts("239.1.1.1"), Some((2, false)), "the one that listens, and the one that takes all");
        assert_eq!(hosts("239.1.1.2"), Some((1, true)));
        assert_eq!((hosts("224.0.0.251"), table.every_group.len()), (None, 1), "that one goes to everybody");
        let table = super::table(key(1).id(), &network(), &super::tests::view(&[(2, absent)]), &[], None);
        assert!(table.groups.is_empty(), "who has not the network listens to nothing of it");
    }

    #[test]
    fn removed_hosts_say_nothing() {
        let mut view = view(&[(2, vec![Item::Network(NET), fact(mac("10.32.0.70"), "10.32.0.70")])]);
        view.roster.get_mut(&key(2).id()).unwrap().standing = Standing::Removed;
        let table = table(key(1).id(), &network(), &view, &[], None);
        assert!(table.hosts.is_empty() && table.endpoints.is_empty());
    }
}
