//! Bytes that no honest member sends: chunks, frames and pieces, each put together by hand as docs/protocol.md 5 and 6 draw them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_api::id::{Mac, NetworkId};

pub const FRAME: u8 = 1;
pub const FRAME_OPEN_CHECKSUM: u8 = 2;
pub const PIECE: u8 = 3;
pub const QUIC: u8 = 4;
pub const PROBE: u8 = 5;
pub const FRAGMENT: u8 = 7;
pub const RELAYED: u8 = 8;

/// An ethertype for local experiments (IEEE 802 9.2.4): a frame of it claims no address.
pub const STRANGE: u16 = 0x88b5;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The first byte of an envelope, and of one that is relayed.
pub const ENVELOPE: u8 = 0x10;
pub const RELAYED_ENVELOPE: u8 = 0x12;

/// As orders carry bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    chunk_that_says(body.len() as u16, kind, body)
}

/// A chunk whose length may lie.
pub fn chunk_that_says(len: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &len.to_be_bytes()[..], body].concat()
}

/// A chunk whose body begins with a network.
pub fn on(network: NetworkId, kind: u8, body: &[u8]) -> Vec<u8> {
    chunk(kind, &[&network.0.to_be_bytes()[..], body].concat())
}

pub fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0, &from.0, &ethertype.to_be_bytes()[..], payload].concat()
}

/// The same frame with a VLAN tag.
pub fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}

/// An IP packet in a frame.
pub fn packet(macs: (Mac, Mac), from: IpAddr, to: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let (ethertype, header) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (IPV4, ipv4(from, to, protocol, body.len())),
        (IpAddr::V6(from), IpAddr::V6(to)) => (IPV6, ipv6(from, to, protocol, body.len())),
        _ => panic!("{from} and {to} are of two kinds"),
    };
    ethernet(macs.0, macs.1, ethertype, &[&header, body].concat())
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, len: usize) -> Vec<u8> {
    let len = (20 + len as u16).to_be_bytes();
    let head = [0x45, 0, len[0], len[1], 0, 1, 0x40, 0, 64, protocol, 0, 0];
    [&head[..], &from.octets(), &to.octets()].concat()
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, len: usize) -> Vec<u8> {
    let len = (len as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], protocol, 255], &from.octets()[..], &to.octets()].concat()
}

/// An ARP reply (RFC 826) to everybody: `ip` is at `mac`.
pub fn arp(from: Mac, mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let body = [&head[..], &mac.0, &ip.octets(), &[0xff; 6], &ip.octets()].concat();
    ethernet(Mac::BROADCAST, from, ARP, &body)
}

/// A neighbour advertisement (RFC 4861 4.4): `ip` is at `mac`.
pub fn advertisement(to: Mac, from: Mac, source: Ipv6Addr, mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let body = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac.0].concat();
    packet((to, from), source.into(), Ipv6Addr::from(0xff02 << 112 | 1).into(), ICMPV6, &body)
}

/// The same packet behind so many destination options (RFC 8200 4.6) that hold nothing but padding.
pub fn behind_options(frame: &[u8], count: usize) -> Vec<u8> {
    let (headers, body) = frame.split_at(14 + 40);
    let mut made = headers.to_vec();
    let protocol = std::mem::replace(&mut made[20], 60);
    for n in 1..=count {
        made.extend([if n == count { protocol } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    made.extend(body);
    let len = (made.len() - 14 - 40) as u16;
    made[18..20].copy_from_slice(&len.to_be_bytes());
    made
}

/// The headers of a superframe: Ethernet, IPv4, TCP with these flags.
pub fn tcp_headers(macs: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr, flags: u8) -> Vec<u8> {
    let tcp = [0x1b, 0x58, 0x1b, 0x59, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0];
    packet(macs, from.into(), to.into(), TCP, &tcp)
}

/// The same with UDP.
pub fn udp_headers(macs: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    packet(macs, from.into(), to.into(), UDP, &[0x1b, 0x58, 0x1b, 0x59, 0, 8, 0, 0])
}

/// A piece and what it says of itself.
#[derive(Clone, Copy)]
pub struct Piece<'h> {
    pub kind: u8,
    pub index: u8,
    pub last: u8,
    pub gso_size: u16,
    pub offset: u16,
    pub headers: &'h [u8],
    pub payload: usize,
}

impl Piece<'_> {
    pub fn body(&self) -> Vec<u8> {
        let ([gso0, gso1], [at0, at1]) = (self.gso_size.to_be_bytes(), self.offset.to_be_bytes());
        let head = [self.kind, self.index, self.last, 0, 7, gso0, gso1, at0, at1];
        [&head[..], self.headers, &vec![0x70; self.payload]].concat()
    }
}
