//! What this host says of itself: where it can be reached, which routes its machine has, which networks it has, and which
//! containers are on them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use weft_api::fact::{Endpoint as EndpointFact, Item, MAX_ROUTES};
use weft_api::id::NetworkId;
use weft_router_io::node::Groups;

use crate::state::ledger::Endpoint;

/// More addresses than this are not said; a joining host tries them one after the other.
pub const MAX_ADDRESSES: usize = 16;

/// The machine as it is now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// Where others can reach it.
    pub addresses: Vec<SocketAddr>,
    /// What its routes cover, nearest prefixes first.
    pub routes: Vec<IpNet>,
}

/// The whole of it. `networks`: those whose bridge and tap are up. `groups`: what is listened to on them. `pins`: what stands in
/// Docker's records.
#[must_use]
pub fn items(
    machine: &Machine,
    networks: &BTreeSet<NetworkId>,
    endpoints: &[Endpoint],
    groups: &Groups,
    pins: &BTreeSet<(NetworkId, IpAddr)>,
) -> Vec<Item> {
    let mut items = vec![Item::Version(env!("CARGO_PKG_VERSION").to_owned())];
    items.extend(machine.addresses.iter().take(MAX_ADDRESSES).copied().map(Item::Address));
    items.extend(machine.routes.iter().take(MAX_ROUTES).copied().map(Item::Route));
    items.extend(networks.iter().copied().map(Item::Network));
    let groups = groups.iter().filter(|(network, _)| networks.contains(network));
    items.extend(groups.flat_map(|(network, groups)| {
        groups.iter().map(|group| Item::Group { network: *network, group: *group })
    }));
    items.extend(endpoints.iter().map(|endpoint| {
        Item::Endpoint(EndpointFact {
            network: endpoint.network,
            mac: endpoint.mac,
            addresses: endpoint.addresses.clone(),
            container: endpoint.container.clone(),
        })
    }));
    let pinned = endpoints.iter().filter(|endpoint| is_pinned(endpoint, pins));
    items.extend(pinned.map(|endpoint| Item::Pinned(endpoint.network, endpoint.mac)));
    items
}

/// Whether an address of the endpoint stands in Docker's record of its container.
#[must_use]
pub fn is_pinned(endpoint: &Endpoint, pins: &BTreeSet<(NetworkId, IpAddr)>) -> bool {
    endpoint.addresses.iter().any(|address| pins.contains(&(endpoint.network, *address)))
}

/// Where others can reach this host: what the person said, or else the addresses of its interfaces.
#[must_use]
pub fn reachable_at(advertise: &[IpAddr], interfaces: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let addresses = if advertise.is_empty() { interfaces } else { advertise };
    addresses.iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(*ip, port)).collect()
}

#[cfg(test)]
mod tests {
    use weft_api::id::Mac;

    use super::*;

    #[test]
    fn everything_is_said_once() {
        let machine = Machine {
            addresses: vec!["192.0.2.1:6783".parse().unwrap()],
            routes: vec!["192.0.2.0/24".parse().unwrap()],
        };
        let endpoint = Endpoint {
            id: "e".into(),
            docker_network: "n".into(),
            network: NetworkId(1),
            addresses: vec!["10.32.0.2".parse().unwrap()],
            mac: Mac([2; 6]),
            container: "web".into(),
            since: 0,
        };
        let heard = BTreeSet::from(["239.1.2.3".parse().unwrap()]);
        let groups = Groups::from([(NetworkId(1), heard.clone()), (NetworkId(2), heard)]);
        let pins = BTreeSet::from([(NetworkId(1), "10.32.0.2".parse().unwrap())]);
        let items = items(&machine, &BTreeSet::from([NetworkId(1)]), &[endpoint], &groups, &pins);
        assert_eq!(items.len(), 7, "{items:?}");
        assert!(items.contains(&Item::Network(NetworkId(1))));
        assert!(items.iter().any(|item| matches!(item, Item::Endpoint(e) if e.container == "web")));
        assert!(items.contains(&Item::Pinned(NetworkId(1), Mac([2; 6]))));
    }

    #[test]
    fn what_the_person_says_replaces_the_guess() {
        let interfaces = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let at = |advertise: &[IpAddr]| {
            reachable_at(advertise, &interfaces, 7000).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(at(&[]), ["192.0.2.1:7000", "[2001:db8::1]:7000"]);
        assert_eq!(at(&["198.51.100.7".parse().unwrap()]), ["198.51.100.7:7000"]);
    }
}
