//! Questions for the address of another host's endpoint, by ARP (RFC 826) and neighbour discovery (RFC 4861): answered
//! here, as from that endpoint, so that none crosses the mesh. Only facts answer; who is not known is asked for everywhere.

use std::net::{IpAddr, Ipv6Addr};

use weft_api::id::Mac;

use super::{Headers, Outbound, Owner, Table};
use crate::drop::DropReason;
use crate::frame::{Arp, ETHERTYPE_ARP, ETHERTYPE_IPV6, NeighbourKind};
use crate::offload::checksum::Sum;

/// Hop limit of neighbour discovery; a lower one has passed a router (RFC 4861 7.1).
const ND_HOP_LIMIT: u8 = 255;
const PROTOCOL_ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// "Asked for", and "replaces what you had" (RFC 4861 4.4).
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What becomes of a frame to a group because it asks for one address. `None`: it asks for none, or for one that nobody
/// here knows, or for the asker's own, which the others shall hear of.
pub(super) fn to_question(table: &Table, headers: &Headers<'_>) -> Option<Outbound<'static>> {
    let Question { target, asker } = Question::of(headers)?;
    if table.gateways.contains(&target) {
        return Some(Outbound::Drop(DropReason::GatewayStays));
    }
    let holder = *table.addresses.get(&target)?;
    if holder == headers.source || holder == asker {
        return None;
    }
    Some(match table.endpoints.get(&holder)? {
        Owner::Here => Outbound::Drop(DropReason::StaysHere),
        Owner::Host(_) => Outbound::Answer(holder, DropReason::AnsweredHere),
    })
}

/// The answer to who announces another host's endpoint's address as its own: so it learns that the address is taken
/// (RFC 5227 2.4).
pub(super) fn to_announcement(table: &Table, headers: &Headers<'_>) -> Option<Outbound<'static>> {
    let arp = headers.layout.arp(headers.frame)?;
    match to_question(table, headers)? {
        Outbound::Answer(holder, _) if arp.is_gratuitous() => {
            Some(Outbound::Answer(holder, DropReason::AddressNotTheirs))
        }
        _ => None,
    }
}

struct Question {
    target: IpAddr,
    /// The MAC that the asker says it has.
    asker: Mac,
}

impl Question {
    /// Questions within a VLAN are none of ours: facts speak of the untagged Ethernet.
    fn of(headers: &Headers<'_>) -> Option<Self> {
        let Headers { layout, frame, source, .. } = headers;
        if layout.vlan_tags > 0 {
            return None;
        }
        if let Some(arp) = layout.arp(frame) {
            let asker = Mac(arp.sender_mac);
            return (arp.operation == 1).then_some(Self { target: arp.target_ip.into(), asker });
        }
        let message = layout.neighbour(frame).filter(|m| m.kind == NeighbourKind::Solicitation)?;
        let ip = usize::from(layout.ip?.offset);
        let is_valid = frame.get(ip + 7) == Some(&ND_HOP_LIMIT);
        let asker = message.link_mac.map_or(*source, Mac);
        is_valid.then_some(Self { target: message.target.into(), asker })
    }
}

/// The frame that answers the question in `headers` for the endpoint `holder`, to be written into the tap as if it came from
/// there. `None` if `headers` are no question.
#[must_use]
pub fn answer(headers: &Headers<'_>, holder: Mac) -> Option<Vec<u8>> {
    if let Some(arp) = headers.layout.arp(headers.frame) {
        return Some(arp_reply(headers.source, holder, &arp));
    }
    let asked = headers.layout.neighbour(headers.frame)?;
    Some(advertisement(headers.source, holder, asked.source, asked.target))
}

/// RFC 826.
fn arp_reply(to: Mac, holder: Mac, asked: &Arp) -> Vec<u8> {
    let mut frame = ethernet(to, holder, ETHERTYPE_ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(holder.0);
    frame.extend(asked.target_ip.octets());
    frame.extend(asked.sender_mac);
    frame.extend(asked.sender_ip.octets());
    frame
}

/// RFC 4861 4.4 and 7.2.4. Who checks an address of its own for duplicates has none yet: all nodes are told, but the frame
/// goes to the asker alone (RFC 6085).
fn advertisement(to: Mac, holder: Mac, asker: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let (destination, flags) = match asker.is_unspecified() {
        true => (ALL_NODES, OVERRIDE),
        false => (asker, SOLICITED | OVERRIDE),
    };
    let mut icmp = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([TARGET_LINK_ADDRESS, 1]);
    icmp.extend(holder.0);
    ipv6_icmp(ethernet(to, holder, ETHERTYPE_IPV6), target, destination, icmp)
}

/// `frame` and an ICMPv6 packet behind it, its checksum filled in (RFC 4443 2.3).
pub(super) fn ipv6_icmp(
    mut frame: Vec<u8>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    mut icmp: Vec<u8>,
) -> Vec<u8> {
    let len = icmp.len() as u16;
    let pseudo = Sum::of(&source.octets()).and(&destination.octets()).and_u16(len);
    let sum = pseudo.and_u16(PROTOCOL_ICMPV6.into()).and(&icmp).checksum();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([PROTOCOL_ICMPV6, ND_HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(icmp);
    frame
}

pub(super) fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    [&to.0[..], &from.0, &ethertype.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
