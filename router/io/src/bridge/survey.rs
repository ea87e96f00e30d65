//! What is there: interfaces that weft left behind, and the machine's own routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use weft_api::id::NetworkId;

use super::attach::EXPOSED;
use super::port::HOST_SIDE;
use super::{BridgeError, Bridges, error, name_of};

/// An interface that weft made, now or in an earlier life.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ours {
    /// The bridge of a network.
    Bridge(NetworkId),
    /// The tap of a network.
    Tap(NetworkId),
    /// The host's side of a container's veth.
    Veth {
        /// Its name: compare with [`super::host_ifname`] of the endpoints that should be there.
        name: String,
        /// The network whose bridge it is on; `None` if on none.
        network: Option<NetworkId>,
    },
}

impl Bridges {
    /// Everything that weft made in this namespace, sorted.
    pub async fn list_ours(&self) -> Result<Vec<Ours>, BridgeError> {
        let links = self.links().await?;
        let bridges: Vec<(u32, NetworkId)> =
            links.iter().filter_map(|l| Some((l.header.index, bridge_network(name_of(l)?)?))).collect();
        let mut ours: Vec<Ours> = links.iter().filter_map(|l| ours(l, &bridges)).collect();
        ours.sort();
        Ok(ours)
    }

    /// Removes the veth with this name on the host; for leftovers of [`Bridges::list_ours`].
    pub async fn remove_leftover(&self, leftover: &Ours) -> Result<(), BridgeError> {
        let name = match leftover {
            Ours::Bridge(network) => network.bridge_name(),
            Ours::Tap(network) => network.tap_name(),
            Ours::Veth { name, .. } => name.clone(),
        };
        self.remove(&name).await.map(drop)
    }

    /// The ranges that this machine has routes to, sorted, nearest prefixes first within a family: no network may be
    /// put on top of them. Of the main table, without default routes, loopback, link-local, multicast and our own bridges.
    pub async fn host_routes(&self) -> Result<Vec<IpNet>, BridgeError> {
        let skipped: BTreeSet<u32> = self
            .links()
            .await?
            .iter()
            .filter(|l| l.header.flags.contains(LinkFlags::Loopback) || name_of(l).is_some_and(is_our_name))
            .map(|l| l.header.index)
            .collect();
        let mut ranges = BTreeSet::new();
        for family in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let one_at_a_time = self.listing.lock().await;
            let routes: Vec<RouteMessage> = self
                .netlink
                .route()
                .get(family)
                .execute()
                .try_collect()
                .await
                .map_err(|e| error::netlink("list the routes of this machine".into(), e))?;
            drop(one_at_a_time);
            ranges.extend(routes.iter().filter(|r| !leaves_by(r, &skipped)).filter_map(range));
        }
        let mut ranges: Vec<IpNet> = ranges.into_iter().collect();
        ranges.sort_by_key(|r| (r.addr().is_ipv6(), std::cmp::Reverse(r.prefix_len()), r.addr()));
        Ok(ranges)
    }

    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, BridgeError> {
        let one_at_a_time = self.listing.lock().await;
        let links = self.netlink.link().get().execute().try_collect().await;
        drop(one_at_a_time);
        links.map_err(|e| error::netlink("list the interfaces of this machine".into(), e))
    }
}

fn bridge_network(name: &str) -> Option<NetworkId> {
    name.strip_prefix("wft-")?.parse().ok()
}

fn tap_network(name: &str) -> Option<NetworkId> {
    name.strip_prefix("wtp-")?.parse().ok()
}

pub(super) fn is_our_name(name: &str) -> bool {
    bridge_network(name).is_some() || tap_network(name).is_some() || name.starts_with(EXPOSED)
}

fn ours(link: &LinkMessage, bridges: &[(u32, NetworkId)]) -> Option<Ours> {
    let name = name_of(link)?;
    if let Some(network) = bridge_network(name) {
        return Some(Ours::Bridge(network));
    }
    if let Some(network) = tap_network(name) {
        return Some(Ours::Tap(network));
    }
    if !name.starts_with(HOST_SIDE)
        || super::kind(link) != Some(rtnetlink::packet_route::link::InfoKind::Veth)
    {
        return None;
    }
    let master = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    });
    let network = bridges.iter().find(|(index, _)| Some(*index) == master).map(|(_, network)| *network);
    Some(Ours::Veth { name: name.to_owned(), network })
}

fn leaves_by(route: &RouteMessage, interfaces: &BTreeSet<u32>) -> bool {
    route.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(index) if interfaces.contains(index)))
}

/// The destination of a route that a network must not overlap.
fn range(route: &RouteMessage) -> Option<IpNet> {
    let table = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let main = table.unwrap_or(u32::from(route.header.table)) == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !main || route.header.kind != RouteType::Unicast || route.header.destination_prefix_length == 0 {
        return None;
    }
    let ip = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let special = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast(),
    };
    if special { None } else { IpNet::new(ip, route.header.destination_prefix_length).ok() }
}
