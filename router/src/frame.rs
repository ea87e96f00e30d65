//! Where the headers of an Ethernet frame lie: VLAN tags, IPv4, IPv6 with extension headers, TCP, UDP.
//!
//! Lengths inside IP headers are not believed, because those of a superframe need not match it: the bytes at hand
//! decide. Nothing here allocates, and no input makes it panic.

mod neighbour;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use neighbour::{Arp, Claim, Neighbour, NeighbourKind};

/// A MAC address in the order of the wire.
pub type Mac = [u8; 6];

/// Destination, source and ethertype: the shortest thing that is a frame.
pub const ETHERNET_LEN: usize = 14;
/// Most VLAN tags walked; behind more of them a frame is "not understood" and travels as a plain frame.
pub const MAX_VLAN_TAGS: u8 = 4;
/// Most IPv6 extension headers walked; a longer chain has no `l4`.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

const IPV4_MIN_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_MIN_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// The IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// The IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

// Extension headers of IPv6 (RFC 8200 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Offsets of the headers of one frame, in bytes from its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The ethertype behind all VLAN tags (or the length field of an 802.3 frame).
    pub ethertype: u16,
    /// How many VLAN tags were walked.
    pub vlan_tags: u8,
    /// Where the bytes after that ethertype begin.
    pub payload_offset: u16,
    /// The IP header, if there is a whole one.
    pub ip: Option<Ip>,
}

/// An IP header with its options or extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// 4 or 6.
    pub version: IpVersion,
    /// Where the header begins.
    pub offset: u16,
    /// Its length, with IPv4 options or all walked IPv6 extension headers.
    pub header_len: u16,
    /// The protocol behind it (of an IPv6 chain that was not walked to its end: the first header not walked).
    pub protocol: u8,
    /// A fragment, the first one too, or an IPv6 packet with a fragment header.
    pub is_fragment: bool,
    /// The TCP or UDP header, if there is a whole one; never of a fragment, and never behind an IPv6 routing
    /// header that still has segments to go, since the checksum then covers another destination than the header's.
    pub l4: Option<L4>,
}

/// A TCP or UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4 {
    /// Which of the two.
    pub protocol: L4Protocol,
    /// Where the header begins.
    pub offset: u16,
    /// Where it ends, TCP options included.
    pub header_end: u16,
}

/// The version of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// The transport protocols whose segments we cut and glue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Layout {
    /// Walks the headers of `frame`. `None` if there is no whole Ethernet header, or a VLAN tag is cut off.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Layout> {
        let mut at = 12;
        let mut vlan_tags = 0;
        let mut ethertype = be16(frame, at)?;
        while matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ) && vlan_tags < MAX_VLAN_TAGS {
            at += 4;
            vlan_tags += 1;
            ethertype = be16(frame, at)?;
        }
        let start = at + 2;
        let ip = match ethertype {
            ETHERTYPE_IPV4 => parse_ipv4(frame, start),
            ETHERTYPE_IPV6 => parse_ipv6(frame, start),
            _ => None,
        };
        Some(Layout { ethertype, vlan_tags, payload_offset: start as u16, ip })
    }

    /// The TCP or UDP header, see [`Ip::l4`].
    #[inline]
    pub fn l4(&self) -> Option<L4> {
        self.ip.and_then(|ip| ip.l4)
    }

    /// The source address in the IP header of `frame`, which must be the one that was parsed.
    pub fn source_ip(&self, frame: &[u8]) -> Option<IpAddr> {
        self.ip_address(frame, 12, 8)
    }

    /// The destination address in the IP header of `frame`, which must be the one that was parsed.
    pub fn destination_ip(&self, frame: &[u8]) -> Option<IpAddr> {
        self.ip_address(frame, 16, 24)
    }

    /// Whether more IPv6 extension headers come than are walked, so that nobody knows what the frame claims behind them.
    /// Not of fragments, whose claims no receiver believes (RFC 6980).
    #[inline]
    #[must_use]
    pub fn hides(&self) -> bool {
        self.ip.is_some_and(|ip| ip.version == IpVersion::V6 && !ip.is_fragment && is_extension(ip.protocol))
    }

    fn ip_address(&self, frame: &[u8], at_v4: usize, at_v6: usize) -> Option<IpAddr> {
        let ip = self.ip?;
        let offset = usize::from(ip.offset);
        match ip.version {
            IpVersion::V4 => ipv4_at(frame, offset + at_v4).map(IpAddr::V4),
            IpVersion::V6 => ipv6_at(frame, offset + at_v6).map(IpAddr::V6),
        }
    }
}

/// The destination MAC of a frame; `None` if it is shorter than that.
#[inline]
pub fn destination_mac(frame: &[u8]) -> Option<Mac> {
    frame.first_chunk().copied()
}

/// The source MAC of a frame; `None` if it is shorter than that.
#[inline]
pub fn source_mac(frame: &[u8]) -> Option<Mac> {
    mac_at(frame, 6)
}

#[inline]
fn parse_ipv4(frame: &[u8], offset: usize) -> Option<Ip> {
    let header = frame.get(offset..offset + IPV4_MIN_LEN)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_len < IPV4_MIN_LEN || offset + header_len > frame.len() {
        return None;
    }
    let protocol = header[9];
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let l4 = if is_fragment { None } else { parse_l4(frame, protocol, offset + header_len) };
    Some(Ip {
        version: IpVersion::V4,
        offset: offset as u16,
        header_len: header_len as u16,
        protocol,
        is_fragment,
        l4,
    })
}

#[inline]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

#[inline]
fn parse_ipv6(frame: &[u8], offset: usize) -> Option<Ip> {
    let header = frame.get(offset..offset + IPV6_LEN)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut protocol = header[6];
    let mut at = offset + IPV6_LEN;
    let (mut is_fragment, mut elsewhere) = (false, false);
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(protocol) {
            break;
        }
        let Some(extension) = frame.get(at..at + 8) else { break };
        let units = usize::from(extension[1]);
        let len = match protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        if at + len > frame.len() {
            break;
        }
        is_fragment |= protocol == FRAGMENT;
        elsewhere |= protocol == ROUTING && extension[3] != 0;
        protocol = extension[0];
        at += len;
    }
    let l4 = if is_fragment || elsewhere { None } else { parse_l4(frame, protocol, at) };
    let header_len = (at - offset) as u16;
    Some(Ip { version: IpVersion::V6, offset: offset as u16, header_len, protocol, is_fragment, l4 })
}

#[inline]
fn parse_l4(frame: &[u8], protocol: u8, offset: usize) -> Option<L4> {
    let (protocol, len) = match protocol {
        PROTOCOL_TCP => {
            let len = usize::from(*frame.get(offset + 12)? >> 4) * 4;
            if len < TCP_MIN_LEN {
                return None;
            }
            (L4Protocol::Tcp, len)
        }
        PROTOCOL_UDP => (L4Protocol::Udp, UDP_LEN),
        _ => return None,
    };
    let header_end = offset + len;
    if header_end > frame.len() {
        return None;
    }
    Some(L4 { protocol, offset: offset as u16, header_end: header_end as u16 })
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..)?.first_chunk().copied()
}

#[inline]
pub(crate) fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?))
}

#[inline]
pub(crate) fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?))
}

#[cfg(test)]
mod tests;
