//! ARP and IPv6 neighbour discovery: who is asked for, and which IP address a frame claims for which MAC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    ETHERTYPE_ARP, IpVersion, Layout, Mac, PROTOCOL_ICMPV6, be16, ipv4_at, ipv6_at, mac_at, source_mac,
};

/// "This IP address is at this MAC", as a frame says; whether it may is for the switch to judge (PROTOCOL 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address claimed; never unspecified.
    pub ip: IpAddr,
    /// The MAC it is claimed for.
    pub mac: Mac,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 is a request, 2 a reply.
    pub operation: u16,
    /// Who speaks.
    pub sender_mac: Mac,
    /// Its address; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Whom it speaks to; zeros in a request.
    pub target_mac: Mac,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// A request that asks whether its target is in use (RFC 5227).
    pub fn is_probe(&self) -> bool {
        self.operation == 1 && self.sender_ip.is_unspecified()
    }

    /// An announcement of the sender's own address (RFC 5227).
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip
    }
}

/// What a neighbour discovery message is (RFC 4861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourKind {
    /// Type 135: who has `target`?
    Solicitation,
    /// Type 136: `target` is here.
    Advertisement,
}

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Which of the two.
    pub kind: NeighbourKind,
    /// Source of the packet; `::` while an address is being checked for duplicates.
    pub source: Ipv6Addr,
    /// The address asked for or announced.
    pub target: Ipv6Addr,
    /// The MAC in the link-layer address option of that kind.
    pub link_mac: Option<Mac>,
}

impl Layout {
    /// The ARP packet in `frame`, which must be the one that was parsed.
    pub fn arp(&self, frame: &[u8]) -> Option<Arp> {
        /// Hardware type Ethernet, or IEEE 802, which Linux takes for the same (RFC 5494).
        const IPV4_ON: [[u8; 6]; 2] = [[0, 1, 8, 0, 6, 4], [0, 6, 8, 0, 6, 4]];
        if self.ethertype != ETHERTYPE_ARP {
            return None;
        }
        let arp = frame.get(usize::from(self.payload_offset)..)?;
        if !IPV4_ON.contains(arp.first_chunk()?) {
            return None;
        }
        Some(Arp {
            operation: be16(arp, 6)?,
            sender_mac: mac_at(arp, 8)?,
            sender_ip: ipv4_at(arp, 14)?,
            target_mac: mac_at(arp, 18)?,
            target_ip: ipv4_at(arp, 24)?,
        })
    }

    /// The neighbour solicitation or advertisement in `frame`, which must be the one that was parsed. Fragments are
    /// none (RFC 6980).
    pub fn neighbour(&self, frame: &[u8]) -> Option<Neighbour> {
        let (icmp, source) = self.icmpv6(frame)?;
        let (kind, wanted_option) = match *icmp.first()? {
            135 => (NeighbourKind::Solicitation, SOURCE_LINK_ADDRESS),
            136 => (NeighbourKind::Advertisement, TARGET_LINK_ADDRESS),
            _ => return None,
        };
        let link_mac = link_mac(icmp.get(24..)?, wanted_option);
        Some(Neighbour { kind, source, target: ipv6_at(icmp, 8)?, link_mac })
    }

    /// What an ARP packet claims of its sender; a probe claims nothing.
    pub fn arp_sender(&self, frame: &[u8]) -> Option<Claim> {
        let arp = self.arp(frame)?;
        (!arp.sender_ip.is_unspecified()).then_some(Claim { ip: arp.sender_ip.into(), mac: arp.sender_mac })
    }

    /// What an IPv6 neighbour discovery message of any type claims: that an address is at the MAC of its link-layer
    /// address option, or without one at the frame's source MAC. The address is the target of advertisements and
    /// redirects, of all others the source.
    pub fn nd_claim(&self, frame: &[u8]) -> Option<Claim> {
        let (icmp, source) = self.icmpv6(frame)?;
        let (ip, options, wanted) = match *icmp.first()? {
            133 => (source, 8, SOURCE_LINK_ADDRESS),
            134 => (source, 16, SOURCE_LINK_ADDRESS),
            135 => (source, 24, SOURCE_LINK_ADDRESS),
            136 => (ipv6_at(icmp, 8)?, 24, TARGET_LINK_ADDRESS),
            137 => (ipv6_at(icmp, 8)?, 40, TARGET_LINK_ADDRESS),
            _ => return None,
        };
        let mac = link_mac(icmp.get(options..)?, wanted).or_else(|| source_mac(frame))?;
        (!ip.is_unspecified()).then_some(Claim { ip: ip.into(), mac })
    }

    /// Whether `frame`, which must be the one that was parsed, makes its sender a router (RFC 4861 4.2).
    pub fn is_router_advertisement(&self, frame: &[u8]) -> bool {
        self.icmpv6(frame).is_some_and(|(icmp, _)| icmp.first() == Some(&134))
    }

    /// What any IP packet claims: that its source address is at the frame's source MAC.
    pub fn ip_claim(&self, frame: &[u8]) -> Option<Claim> {
        let ip = self.source_ip(frame)?;
        (!ip.is_unspecified()).then_some(Claim { ip, mac: source_mac(frame)? })
    }

    fn icmpv6<'f>(&self, frame: &'f [u8]) -> Option<(&'f [u8], Ipv6Addr)> {
        let ip = self.ip?;
        if ip.version != IpVersion::V6 || ip.protocol != PROTOCOL_ICMPV6 || ip.is_fragment {
            return None;
        }
        let offset = usize::from(ip.offset);
        Some((frame.get(offset + usize::from(ip.header_len)..)?, ipv6_at(frame, offset + 8)?))
    }
}

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;

/// The MAC in the first option of type `wanted`; Linux, too, takes the first.
fn link_mac(mut options: &[u8], wanted: u8) -> Option<Mac> {
    while let [kind, units, rest @ ..] = options {
        if *kind == wanted && *units == 1 {
            return rest.first_chunk().copied();
        }
        let len = usize::from(*units) * 8;
        if len == 0 {
            return None;
        }
        options = options.get(len..)?;
    }
    None
}
