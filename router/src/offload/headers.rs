//! The headers of a superframe: what may be one, and what is put right in a copy of them that heads a part of it.

use thiserror::Error;

use super::checksum::Sum;
use super::vnet::{Gso, Offloads, VnetHeader};
use crate::frame::{Ip, IpVersion, L4Protocol, Layout, PROTOCOL_TCP, PROTOCOL_UDP};

/// Longest headers, Ethernet to TCP options, of a superframe that we carry as one. Linux's own stay below 150 bytes
/// unless an application adds IPv6 options of hundreds.
pub const MAX_HEADERS: usize = 512;
/// Longest IP packet of a superframe, which its length fields can hold.
pub const MAX_PACKET: usize = 65_535;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const URG: u8 = 0x20;
pub(super) const CWR: u8 = 0x80;

/// What is segmented; the numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4 = 1,
    /// TCP over IPv6.
    Tcp6 = 2,
    /// UDP over IPv4.
    Udp4 = 3,
    /// UDP over IPv6.
    Udp6 = 4,
}

impl Kind {
    pub(super) fn from_wire(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Tcp4),
            2 => Some(Kind::Tcp6),
            3 => Some(Kind::Udp4),
            4 => Some(Kind::Udp6),
            _ => None,
        }
    }

    pub(super) fn is_tcp(self) -> bool {
        matches!(self, Kind::Tcp4 | Kind::Tcp6)
    }

    fn is_v4(self) -> bool {
        matches!(self, Kind::Tcp4 | Kind::Udp4)
    }

    pub(super) fn gso(self) -> Gso {
        match self {
            Kind::Tcp4 => Gso::Tcp4,
            Kind::Tcp6 => Gso::Tcp6,
            Kind::Udp4 | Kind::Udp6 => Gso::Udp,
        }
    }

    /// What a tap must have granted to take superframes of this kind.
    pub fn offloads(self) -> Offloads {
        Offloads::CSUM.with(match self {
            Kind::Tcp4 => Offloads::TSO4,
            Kind::Tcp6 => Offloads::TSO6,
            Kind::Udp4 => Offloads::USO4,
            Kind::Udp6 => Offloads::USO6,
        })
    }

    /// Where the checksum lies in the L4 header.
    pub(super) fn checksum_offset(self) -> u16 {
        if self.is_tcp() { 16 } else { 6 }
    }
}

/// Why bytes cannot head a superframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadersError {
    /// No TCP or UDP header, a fragment, or a chain of headers that we do not walk.
    #[error("the superframe has no TCP or UDP header that we understand")]
    NotUnderstood,
    /// More than [`MAX_HEADERS`].
    #[error("the headers of the superframe take {0} bytes; at most {MAX_HEADERS} are carried")]
    TooLong(u16),
    /// SYN, RST or URG, which no stack sets on more than one segment.
    #[error("the superframe has TCP flags {0:#04x}, which no stack sets on more than one segment")]
    ImpossibleFlags(u8),
}

/// The checked headers of a superframe. `ip < l4 < len <= MAX_HEADERS`, and all of it was inside the parsed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Headers {
    pub kind: Kind,
    pub ip: u16,
    pub l4: u16,
    pub len: u16,
}

/// A part of a superframe that gets headers of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// How many segments of the superframe lie before it.
    pub first_segment: u16,
    /// How many bytes of payload lie before it.
    pub offset: u32,
    /// How many bytes of payload it has.
    pub len: usize,
    /// Whether it holds the end.
    pub is_last: bool,
}

impl Headers {
    /// Parses and checks the headers at the start of `frame`.
    #[inline]
    pub fn of(frame: &[u8]) -> Result<Headers, HeadersError> {
        let Some(Layout { ip: Some(Ip { version, offset: ip, l4: Some(l4), .. }), .. }) =
            Layout::parse(frame)
        else {
            return Err(HeadersError::NotUnderstood);
        };
        let kind = match (l4.protocol, version) {
            (L4Protocol::Tcp, IpVersion::V4) => Kind::Tcp4,
            (L4Protocol::Tcp, IpVersion::V6) => Kind::Tcp6,
            (L4Protocol::Udp, IpVersion::V4) => Kind::Udp4,
            (L4Protocol::Udp, IpVersion::V6) => Kind::Udp6,
        };
        if usize::from(l4.header_end) > MAX_HEADERS {
            return Err(HeadersError::TooLong(l4.header_end));
        }
        let headers = Headers { kind, ip, l4: l4.offset, len: l4.header_end };
        let flags = headers.tcp_flags(frame);
        if flags & (SYN | RST | URG) != 0 {
            return Err(HeadersError::ImpossibleFlags(flags));
        }
        Ok(headers)
    }

    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Bytes of the IP packet that are not payload.
    pub fn packet_overhead(&self) -> usize {
        usize::from(self.len - self.ip)
    }

    /// The low eight TCP flags; none of UDP.
    #[inline]
    pub fn tcp_flags(&self, bytes: &[u8]) -> u8 {
        if self.kind.is_tcp() { bytes[usize::from(self.l4) + 13] } else { 0 }
    }

    /// What the tap is told about a frame with these headers; `gso_size` is `None` for a single segment.
    pub fn vnet(&self, gso_size: Option<u16>, ecn: bool) -> VnetHeader {
        let gso_type = if gso_size.is_none() { Gso::None } else { self.kind.gso() } as u8;
        VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: if gso_size.is_some() && ecn { gso_type | VnetHeader::GSO_ECN } else { gso_type },
            hdr_len: self.len,
            gso_size: gso_size.unwrap_or(0),
            csum_start: self.l4,
            csum_offset: self.kind.checksum_offset(),
        }
    }

    /// Makes of a superframe's own headers those of `part`: lengths, IPv4 id and header checksum, TCP sequence and
    /// flags, UDP length, and the pseudo header's sum as checksum "not computed".
    #[inline]
    pub fn rewrite(&self, headers: &mut [u8], part: Part) {
        let (ip, l4) = (usize::from(self.ip), usize::from(self.l4));
        let l4_len = (self.len() - l4 + part.len) as u16;
        let addresses = if self.kind.is_v4() {
            put_u16(headers, ip + 2, (self.packet_overhead() + part.len) as u16);
            let id = get_u16(headers, ip + 4).wrapping_add(part.first_segment);
            put_u16(headers, ip + 4, id);
            put_u16(headers, ip + 10, 0);
            let header_end = ip + usize::from(headers[ip] & 0x0f) * 4;
            let sum = Sum::of(&headers[ip..header_end]).checksum();
            put_u16(headers, ip + 10, sum);
            ip + 12..ip + 20
        } else {
            put_u16(headers, ip + 4, (self.packet_overhead() - 40 + part.len) as u16);
            ip + 8..ip + 40
        };
        let protocol = if self.kind.is_tcp() {
            let sequence = &mut headers[l4 + 4..l4 + 8];
            let first = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
            sequence.copy_from_slice(&first.wrapping_add(part.offset).to_be_bytes());
            if part.offset > 0 {
                headers[l4 + 13] &= !CWR;
            }
            if !part.is_last {
                headers[l4 + 13] &= !(PSH | FIN);
            }
            PROTOCOL_TCP
        } else {
            put_u16(headers, l4 + 4, l4_len);
            PROTOCOL_UDP
        };
        let pseudo = Sum::of(&headers[addresses]).and_u16(l4_len).and_u16(protocol.into());
        put_u16(headers, l4 + usize::from(self.kind.checksum_offset()), pseudo.folded());
    }
}

#[inline]
pub(super) fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(super) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
