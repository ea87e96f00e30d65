//! The header that the kernel puts before every frame of our tap, and expects before every frame we write.

use crate::frame::{IpVersion, L4Protocol, Layout};

/// `struct virtio_net_hdr` (10 bytes, little endian on a tap set so) with its fields as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`VnetHeader::NEEDS_CSUM`] and others that we do not use.
    pub flags: u8,
    /// A [`Gso`], perhaps with [`VnetHeader::GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of headers; from the kernel only a hint, so we never use it.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where a checksum that is not computed starts to count.
    pub csum_start: u16,
    /// Where it goes, from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Bytes on the tap.
    pub const LEN: usize = 10;
    /// The flag "checksum not computed": the field holds the pseudo header's sum.
    pub const NEEDS_CSUM: u8 = 1;
    /// The bit of `gso_type` that says that CWR is set on the first segment.
    pub const GSO_ECN: u8 = 0x80;

    /// The header and what follows it; `None` if `bytes` is shorter than a header.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<(VnetHeader, &[u8])> {
        let (header, frame) = bytes.split_first_chunk::<{ VnetHeader::LEN }>()?;
        let le16 = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let vnet = VnetHeader {
            flags: header[0],
            gso_type: header[1],
            hdr_len: le16(2),
            gso_size: le16(4),
            csum_start: le16(6),
            csum_offset: le16(8),
        };
        Some((vnet, frame))
    }

    /// The bytes to write before the frame.
    #[inline]
    pub fn to_bytes(self) -> [u8; VnetHeader::LEN] {
        let mut bytes = [0; VnetHeader::LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        bytes
    }

    /// Whether a checksum of the frame is still to be computed.
    #[inline]
    pub fn needs_checksum(&self) -> bool {
        self.flags & VnetHeader::NEEDS_CSUM != 0
    }

    /// The header of the same frame, one segment of TCP, as of a superframe that has no other; `None` of any other frame.
    #[must_use]
    pub fn of_one_segment(self, layout: &Layout) -> Option<VnetHeader> {
        let l4 = layout.l4().filter(|l4| l4.protocol == L4Protocol::Tcp)?;
        let gso = if layout.ip?.version == IpVersion::V4 { Gso::Tcp4 } else { Gso::Tcp6 };
        let (gso_type, gso_size) = (gso as u8, u16::MAX);
        Some(VnetHeader { gso_type, gso_size, hdr_len: l4.header_end, ..self })
    }

    /// Whether the frame is a superframe, of a kind known to us or not.
    #[inline]
    pub fn is_superframe(&self) -> bool {
        self.gso_type & !VnetHeader::GSO_ECN != Gso::None as u8
    }
}

/// The values of `gso_type` that we know (`VIRTIO_NET_HDR_GSO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Gso {
    /// Not a superframe.
    None = 0,
    /// TCP over IPv4.
    Tcp4 = 1,
    /// TCP over IPv6.
    Tcp6 = 4,
    /// UDP over either (USO).
    Udp = 5,
}

/// What TUNSETOFFLOAD granted on our own tap; the bits are the kernel's `TUN_F_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u8);

impl Offloads {
    /// Nothing: every frame is one segment with its checksum computed.
    pub const NONE: Offloads = Offloads(0);
    /// Checksums may be left to the reader. Without it none of the others counts.
    pub const CSUM: Offloads = Offloads(0x01);
    /// TCP superframes over IPv4.
    pub const TSO4: Offloads = Offloads(0x02);
    /// TCP superframes over IPv6.
    pub const TSO6: Offloads = Offloads(0x04);
    /// TCP superframes with CWR.
    pub const TSO_ECN: Offloads = Offloads(0x08);
    /// UDP superframes over IPv4.
    pub const USO4: Offloads = Offloads(0x20);
    /// UDP superframes over IPv6.
    pub const USO6: Offloads = Offloads(0x40);
    /// All of them.
    pub const ALL: Offloads = Offloads(0x6f);

    /// The argument for TUNSETOFFLOAD.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Offloads) -> Offloads {
        Offloads(self.0 | other.0)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn without(self, other: Offloads) -> Offloads {
        Offloads(self.0 & !other.0)
    }

    /// Whether everything in `other` is in this set.
    #[inline]
    pub const fn has(self, other: Offloads) -> bool {
        self.0 & other.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::VnetHeader;

    proptest! {
        #[test]
        fn bytes_there_and_back(bytes in any::<[u8; VnetHeader::LEN]>(), frame in any::<[u8; 3]>()) {
            let all = [&bytes[..], &frame[..]].concat();
            let (vnet, rest) = VnetHeader::parse(&all).unwrap();
            prop_assert_eq!(vnet.to_bytes(), bytes);
            prop_assert_eq!(rest, frame);
            prop_assert_eq!(VnetHeader::parse(&bytes[..9]), None);
        }
    }
}
