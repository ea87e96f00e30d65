//! The default pool: the range that a network gets when nobody names one. The first that overlaps nothing which is in the way.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::range::blocked_by_route;

/// Where IPv4 ranges come from, in order: (pool, prefix of a range of it). 10.32.0.0/12 first, away from what people
/// usually number by hand; the later ones serve machines whose routes cover all of 10.0.0.0/8.
const POOLS: [(Ipv4Net, u8); 6] = [
    (v4(10, 32, 12), 16),
    (v4(10, 48, 12), 16),
    (v4(10, 64, 10), 16),
    (v4(10, 128, 9), 16),
    (v4(172, 16, 12), 16),
    (v4(192, 168, 16), 20),
];

/// The first free IPv4 range. `in_the_way`: the ranges of other networks and the routes of machines; default routes
/// among them are ignored.
#[must_use]
pub fn free_v4(in_the_way: &[IpNet]) -> Option<IpNet> {
    let mut candidates =
        POOLS.iter().filter_map(|(pool, prefix)| pool.subnets(*prefix).ok()).flatten().map(IpNet::V4);
    candidates.find(|range| is_free(*range, in_the_way))
}

/// The first free IPv6 /64 of the mesh's own /48 (RFC 4193: `fd` and 40 bits of the mesh id, which is a hash).
#[must_use]
pub fn free_v6(mesh: &[u8; 32], in_the_way: &[IpNet]) -> Option<IpNet> {
    let own = unique_local(mesh);
    let near: Vec<IpNet> = in_the_way.iter().copied().filter(|r| blocked_by_route(own.into(), *r)).collect();
    if near.iter().any(|r| r.contains(&IpNet::V6(own))) {
        return None;
    }
    own.subnets(64).ok()?.map(IpNet::V6).find(|range| is_free(*range, &near))
}

fn is_free(range: IpNet, in_the_way: &[IpNet]) -> bool {
    !in_the_way.iter().any(|other| blocked_by_route(range, *other))
}

fn unique_local(mesh: &[u8; 32]) -> Ipv6Net {
    let [a, b, c, d, e, ..] = *mesh;
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&[0xfd, a, b, c, d, e]);
    Ipv6Net::new_assert(Ipv6Addr::from_octets(octets), 48)
}

const fn v4(a: u8, b: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::range;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn v4_text(in_the_way: &[&str]) -> Option<String> {
        free_v4(&nets(in_the_way)).map(|r| r.to_string())
    }

    #[test]
    fn the_first_free_range_in_order() {
        assert_eq!(v4_text(&[]).as_deref(), Some("10.32.0.0/16"));
        assert_eq!(v4_text(&["0.0.0.0/0", "10.32.0.0/16"]).as_deref(), Some("10.33.0.0/16"));
        assert_eq!(v4_text(&["10.33.4.0/24", "10.32.0.9/32"]).as_deref(), Some("10.34.0.0/16"));
        assert_eq!(v4_text(&["10.32.0.0/12"]).as_deref(), Some("10.48.0.0/16"));
        assert_eq!(v4_text(&["10.0.0.0/8", "172.16.0.0/15"]).as_deref(), Some("172.18.0.0/16"));
        assert_eq!(
            v4_text(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/24"]).as_deref(),
            Some("192.168.16.0/20")
        );
        assert_eq!(v4_text(&["0.0.0.0/1", "128.0.0.0/1"]), None);
    }

    #[test]
    fn the_mesh_has_its_own_v6_ranges() {
        let mesh = [0xab; 32];
        assert_eq!(free_v6(&mesh, &[]).unwrap().to_string(), "fdab:abab:abab::/64");
        let taken = nets(&["fdab:abab:abab::/64", "fdab:abab:abab:1:8000::/65", "::/0"]);
        assert_eq!(free_v6(&mesh, &taken).unwrap().to_string(), "fdab:abab:abab:2::/64");
        assert_eq!(free_v6(&mesh, &nets(&["fd00::/8"])), None);
    }

    proptest! {
        #[test]
        fn what_is_given_is_good_and_in_nobodys_way(routes in prop::collection::vec((any::<u32>(), 1u8..=32), 0..40)) {
            let routes: Vec<IpNet> = routes
                .into_iter()
                .map(|(bits, prefix)| Ipv4Net::new(Ipv4Addr::from_bits(bits), prefix).unwrap().trunc().into())
                .collect();
            if let Some(range) = free_v4(&routes) {
                prop_assert_eq!(range::check(range), Ok(()));
                prop_assert!(!routes.iter().any(|r| range::overlap(range, *r)));
            }
        }
    }
}
