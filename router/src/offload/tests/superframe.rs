//! Superframes of every shape, and the frames that they stand for, all built by etherparse.

use std::ops::Range;

use etherparse::{
    IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    Ipv6RawExtHeader, PacketBuilder, SingleVlanHeader, TcpHeader, VlanHeader, VlanId,
};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};

use crate::frame::Layout;
use crate::offload::checksum::Sum;
use crate::offload::{Gso, VnetHeader};

/// A description from which both a superframe and its segments can be built.
#[derive(Clone, Debug)]
pub struct Spec {
    pub vlan_tags: u8,
    pub is_v6: bool,
    pub is_tcp: bool,
    /// Options of IPv4 or a destination options header of IPv6, in units of 8 bytes.
    pub ip_options: u8,
    /// TCP options, in units of 4 bytes.
    pub tcp_options: u8,
    pub psh_fin_cwr_ece: [bool; 4],
    pub sequence: u32,
    pub id: u16,
    pub len: usize,
    pub gso_size: u16,
}

pub fn any_spec() -> impl Strategy<Value = Spec> {
    let shape = (0..3u8, any::<bool>(), any::<bool>(), prop_oneof![Just(0u8), 0..5u8], 0..11u8);
    let values = (any::<[bool; 4]>(), prop_oneof![any::<u32>(), Just(u32::MAX - 5)], any::<u16>());
    let size = prop_oneof![1..1500u16, 1..30u16, Just(1448u16)];
    let len = prop_oneof![1..65_400usize, 1..5_000usize];
    (shape, values, size, len).prop_map(
        |((vlan_tags, is_v6, is_tcp, ip_options, tcp_options), (flags, sequence, id), size, len)| {
            let gso_size = size.max((len / 700) as u16).max(1);
            let psh_fin_cwr_ece = flags;
            Spec {
                vlan_tags,
                is_v6,
                is_tcp,
                ip_options,
                tcp_options,
                psh_fin_cwr_ece,
                sequence,
                id,
                len,
                gso_size,
            }
        },
    )
}

/// What a path does to `count` pieces: which arrive, in which order.
pub fn any_arrival(count: usize) -> impl Strategy<Value = Vec<usize>> {
    let in_order: Vec<usize> = (0..count).collect();
    let lossy = prop::collection::vec(0..10u8, count).prop_map(|fates| {
        let mut arrival: Vec<usize> = Vec::new();
        for (index, fate) in fates.into_iter().enumerate() {
            match fate {
                0 => {}
                1 => arrival.extend([index, index]),
                2 => arrival.insert(arrival.len().saturating_sub(1), index),
                _ => arrival.push(index),
            }
        }
        arrival
    });
    prop_oneof![Just(in_order.clone()), lossy, Just(in_order).prop_shuffle()]
}

impl Spec {
    pub fn payload(&self, range: Range<usize>) -> Vec<u8> {
        range.map(|at| (at * 7 + at / 253 + self.len) as u8).collect()
    }

    /// The frame with the payload of `range` and every checksum computed, segments being `gso_size` long.
    pub fn frame(&self, range: Range<usize>, gso_size: usize) -> Vec<u8> {
        let payload = self.payload(range.clone());
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2([2, 0x42, 10, 0, 0, 1], [2, 0x42, 10, 0, 0, 2]);
        let ip = self.ip((range.start / gso_size) as u16);
        let tag = |id: u16| SingleVlanHeader { vlan_id: VlanId::try_new(id).unwrap(), ..Default::default() };
        let step = match self.vlan_tags {
            0 => link.ip(ip),
            1 => link.vlan(VlanHeader::Single(tag(9))).ip(ip),
            _ => link.double_vlan(tag(9).vlan_id, tag(10).vlan_id).ip(ip),
        };
        if self.is_tcp {
            step.tcp_header(self.tcp(&range)).write(&mut frame, &payload).unwrap();
        } else {
            step.udp(4000, 5000).write(&mut frame, &payload).unwrap();
        }
        frame
    }

    /// All segments of `gso_size` bytes in `range`.
    pub fn segments(&self, range: Range<usize>, gso_size: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let end = range.end;
        range.step_by(gso_size).map(move |at| self.frame(at..end.min(at + gso_size), gso_size))
    }

    /// The superframe as the kernel would give it.
    pub fn superframe(&self) -> (VnetHeader, Vec<u8>) {
        let mut frame = self.frame(0..self.len, usize::from(self.gso_size));
        let layout = Layout::parse(&frame).unwrap();
        let (ip, l4) = (layout.ip.unwrap(), layout.l4().unwrap());
        let (ip_at, l4_at) = (usize::from(ip.offset), usize::from(l4.offset));
        let addresses = if self.is_v6 { ip_at + 8..ip_at + 40 } else { ip_at + 12..ip_at + 20 };
        let l4_len = (frame.len() - l4_at) as u16;
        let (number, csum_offset) = if self.is_tcp { (6, 16) } else { (17, 6) };
        let pseudo = Sum::of(&frame[addresses]).and_u16(l4_len).and_u16(number);
        let at = l4_at + usize::from(csum_offset);
        frame[at..at + 2].copy_from_slice(&pseudo.folded().to_be_bytes());
        let gso = match (self.is_tcp, self.is_v6) {
            (true, false) => Gso::Tcp4,
            (true, true) => Gso::Tcp6,
            (false, _) => Gso::Udp,
        };
        let ecn = if self.is_tcp && self.psh_fin_cwr_ece[2] { VnetHeader::GSO_ECN } else { 0 };
        let vnet = VnetHeader {
            flags: VnetHeader::NEEDS_CSUM,
            gso_type: gso as u8 | ecn,
            hdr_len: 1234,
            gso_size: self.gso_size,
            csum_start: l4.offset,
            csum_offset,
        };
        (vnet, frame)
    }

    fn ip(&self, segments_before: u16) -> IpHeaders {
        let options = vec![1u8; usize::from(self.ip_options) * 8];
        if self.is_v6 {
            let header = Ipv6Header {
                source: [0xfd; 16],
                destination: [0xfe; 16],
                hop_limit: 64,
                traffic_class: 2,
                flow_label: Ipv6FlowLabel::try_new(0xabcde).unwrap(),
                ..Default::default()
            };
            let mut extensions = Ipv6Extensions::default();
            if self.ip_options > 0 {
                let padding = &options[2..];
                let raw = Ipv6RawExtHeader::new_raw(IpNumber::TCP, padding).unwrap();
                extensions.destination_options = Some(raw);
            }
            return IpHeaders::Ipv6(header, extensions);
        }
        let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, [10, 0, 0, 2], [10, 0, 0, 1]).unwrap();
        header.identification = self.id.wrapping_add(segments_before);
        header.dont_fragment = true;
        header.options = options.as_slice().try_into().unwrap();
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn tcp(&self, range: &Range<usize>) -> TcpHeader {
        let [psh, fin, cwr, ece] = self.psh_fin_cwr_ece;
        let (is_first, is_last) = (range.start == 0, range.end == self.len);
        let mut header = TcpHeader::new(4000, 5000, self.sequence.wrapping_add(range.start as u32), 0x1000);
        header.ack = true;
        header.ece = ece;
        header.acknowledgment_number = 77;
        header.psh = psh && is_last;
        header.fin = fin && is_last;
        header.cwr = cwr && is_first;
        header.set_options_raw(&vec![1; usize::from(self.tcp_options) * 4]).unwrap();
        header
    }
}
