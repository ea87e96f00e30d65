//! Queries into a bridge: who listens? As a snooping switch asks that is no router: IGMPv3 from 0.0.0.0 (RFC 4541 2.1.1), so
//! that a router on the network stays the one elected, and MLDv2 from a link-local address. Older hosts understand both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weft_api::id::Mac;

use crate::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::offload::checksum::Sum;

const ROBUSTNESS: u8 = 2;
/// The router alert option of IPv4 (RFC 2113), and the hop-by-hop header of IPv6 with it (RFC 2711) before ICMPv6.
const ALERT_V4: [u8; 4] = [0x94, 4, 0, 0];
const ALERT_V6: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// Asks for every group, in both families; the answers come within `response`, at most 12 s.
pub(super) fn general(response: Duration, interval: Duration) -> [Vec<u8>; 2] {
    [
        igmp(Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(224, 0, 0, 1), response, interval),
        mld(Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), response, interval),
    ]
}

/// Asks whether anybody still listens to `group`.
pub(super) fn specific(group: IpAddr, response: Duration, interval: Duration) -> Vec<u8> {
    match group {
        IpAddr::V4(group) => igmp(group, group, response, interval),
        IpAddr::V6(group) => mld(group, group, response, interval),
    }
}

/// RFC 3376 4.1.
fn igmp(group: Ipv4Addr, to: Ipv4Addr, response: Duration, interval: Duration) -> Vec<u8> {
    let tenths = (response.as_millis() / 100) as u8;
    let mut query = vec![0x11, tenths, 0, 0];
    query.extend(group.octets());
    query.extend([ROBUSTNESS, interval.as_secs() as u8, 0, 0]);
    let sum = Sum::of(&query).checksum();
    query[2..4].copy_from_slice(&sum.to_be_bytes());

    let len = (24 + query.len()) as u16;
    let mut ip = vec![0x46, 0xc0];
    ip.extend(len.to_be_bytes());
    ip.extend([0, 0, 0, 0, 1, 2, 0, 0]);
    ip.extend(Ipv4Addr::UNSPECIFIED.octets());
    ip.extend(to.octets());
    ip.extend(ALERT_V4);
    let sum = Sum::of(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let [_, a, b, c] = to.octets();
    [ethernet([1, 0, 0x5e, a & 0x7f, b, c], ETHERTYPE_IPV4), ip, query].concat()
}

/// RFC 3810 5.1.
fn mld(group: Ipv6Addr, to: Ipv6Addr, response: Duration, interval: Duration) -> Vec<u8> {
    let from = link_local(Mac::GATEWAY);
    let mut query = vec![130, 0, 0, 0];
    query.extend((response.as_millis() as u16).to_be_bytes());
    query.extend([0, 0]);
    query.extend(group.octets());
    query.extend([ROBUSTNESS, interval.as_secs() as u8, 0, 0]);
    let pseudo = Sum::of(&from.octets()).and(&to.octets()).and_u16(query.len() as u16).and_u16(58);
    let sum = pseudo.and(&query).checksum();
    query[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(((ALERT_V6.len() + query.len()) as u16).to_be_bytes());
    ip.extend([0, 1]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    ip.extend(ALERT_V6);
    let [.., a, b, c, d] = to.octets();
    [ethernet([0x33, 0x33, a, b, c, d], ETHERTYPE_IPV6), ip, query].concat()
}

fn ethernet(to: [u8; 6], ethertype: u16) -> Vec<u8> {
    [&to[..], &Mac::GATEWAY.0, &ethertype.to_be_bytes()].concat()
}

/// The address that a kernel gives itself for a MAC (RFC 4291 appendix A).
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
