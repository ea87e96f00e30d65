//! What a frame of a container says of groups: reports, leaves, and that a multicast router lives there.

use std::net::IpAddr;

use super::is_followed;
use crate::frame::{IpVersion, Layout, ipv4_at, ipv6_at};

const PROTOCOL_IGMP: u8 = 2;
const PROTOCOL_PIM: u8 = 103;
const PROTOCOL_ICMPV6: u8 = 58;

/// One thing said of groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Somebody listens to this group, to all of its senders or to some.
    Joined(IpAddr),
    /// Somebody does not any more; others may.
    Left(IpAddr),
    /// A multicast router is there, so it wants everything: it asks (a query), or speaks PIM.
    Router,
}

/// What the frame that was parsed says; `None`: it is of another kind. In a VLAN it counts as another kind, since what is
/// followed is the untagged Ethernet.
#[must_use]
pub fn heard(layout: &Layout, frame: &[u8]) -> Option<Vec<Heard>> {
    let ip = layout.ip.filter(|ip| layout.vlan_tags == 0 && !ip.is_fragment)?;
    let body = frame.get(usize::from(ip.offset + ip.header_len)..)?;
    let mut said = Vec::new();
    match (ip.version, ip.protocol, *body.first()?) {
        (_, PROTOCOL_PIM, _) => said.push(Heard::Router),
        // Who asks from 0.0.0.0 is a snooping switch like this (RFC 4541 2.1.1).
        (IpVersion::V4, PROTOCOL_IGMP, 0x11) => {
            said.extend(layout.source_ip(frame).filter(|ip| !ip.is_unspecified()).map(|_| Heard::Router));
        }
        (IpVersion::V4, PROTOCOL_IGMP, 0x12 | 0x16) => said.extend(group_v4(body, 4).map(Heard::Joined)),
        (IpVersion::V4, PROTOCOL_IGMP, 0x17) => said.extend(group_v4(body, 4).map(Heard::Left)),
        (IpVersion::V4, PROTOCOL_IGMP, 0x22) => records(body, 4, group_v4, &mut said),
        (IpVersion::V6, PROTOCOL_ICMPV6, 130) => said.push(Heard::Router),
        (IpVersion::V6, PROTOCOL_ICMPV6, 131) => said.extend(group_v6(body, 8).map(Heard::Joined)),
        (IpVersion::V6, PROTOCOL_ICMPV6, 132) => said.extend(group_v6(body, 8).map(Heard::Left)),
        (IpVersion::V6, PROTOCOL_ICMPV6, 143) => records(body, 16, group_v6, &mut said),
        _ => return None,
    }
    Some(said)
}

fn group_v4(body: &[u8], at: usize) -> Option<IpAddr> {
    ipv4_at(body, at).map(IpAddr::V4).filter(|group| is_followed(*group))
}

fn group_v6(body: &[u8], at: usize) -> Option<IpAddr> {
    ipv6_at(body, at).map(IpAddr::V6).filter(|group| is_followed(*group))
}

/// The group records of IGMPv3 (RFC 3376 4.2.4) and MLDv2 (RFC 3810 5.2.5), as many as there are whole ones.
fn records(body: &[u8], address: usize, group: fn(&[u8], usize) -> Option<IpAddr>, said: &mut Vec<Heard>) {
    let mut rest = body.get(8..).unwrap_or_default();
    let count = body.get(6..8).map_or(0, |n| u16::from_be_bytes([n[0], n[1]]));
    for _ in 0..count {
        let [kind, auxiliary, sources0, sources1, ..] = *rest else { return };
        let sources = usize::from(u16::from_be_bytes([sources0, sources1]));
        let len = 4 + address * (1 + sources) + 4 * usize::from(auxiliary);
        let Some(next) = rest.get(len..) else { return };
        if let Some(group) = group(rest, 4) {
            match (kind, sources) {
                // Listening to no sender is not listening.
                (1 | 3, 0) => said.push(Heard::Left(group)),
                (1..=4, _) | (5, 1..) => said.push(Heard::Joined(group)),
                _ => {}
            }
        }
        rest = next;
    }
}
