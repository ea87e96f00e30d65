//! Frames built by etherparse, by hand and by chance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::{Claim, ETHERTYPE_IPV6, IpVersion, L4Protocol, Layout, NeighbourKind};

const MAC_A: [u8; 6] = [2, 0x42, 10, 0, 0, 1];
const MAC_B: [u8; 6] = [2, 0x42, 10, 0, 0, 2];

fn build(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn finds_udp_behind_two_vlan_tags() {
    let builder = PacketBuilder::ethernet2(MAC_A, MAC_B)
        .double_vlan(7.try_into().unwrap(), 8.try_into().unwrap())
        .ipv6([1; 16], [2; 16], 64)
        .udp(53, 5353);
    let frame = build(builder, b"payload");
    let layout = Layout::parse(&frame).unwrap();
    let ip = layout.ip.unwrap();
    let l4 = layout.l4().unwrap();
    assert_eq!((layout.ethertype, layout.vlan_tags, ip.offset), (ETHERTYPE_IPV6, 2, 22));
    assert_eq!((ip.version, ip.header_len, l4.protocol), (IpVersion::V6, 40, L4Protocol::Udp));
    assert_eq!((l4.offset, l4.header_end), (62, 70));
    assert_eq!(layout.source_ip(&frame), Some(IpAddr::from([1u8; 16])));
    assert_eq!(layout.destination_ip(&frame), Some(IpAddr::from([2u8; 16])));
}

#[test]
fn walks_extension_headers_but_not_a_pending_route() {
    let frame = |segments_left: u8| {
        let mut frame = [&MAC_B[..], &MAC_A[..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 0, 64]].concat();
        frame.extend([1; 32]);
        frame.extend([43, 0, 1, 4, 0, 0, 0, 0]);
        frame.extend([17, 0, 4, segments_left, 0, 0, 0, 0]);
        frame.extend([0, 53, 0, 53, 0, 16, 0, 0]);
        frame.extend([0; 8]);
        frame
    };
    let layout = Layout::parse(&frame(0)).unwrap();
    assert_eq!(layout.ip.unwrap().header_len, 56);
    assert_eq!(layout.l4().unwrap().header_end, 78);
    assert_eq!(Layout::parse(&frame(1)).unwrap().l4(), None);
}

#[test]
fn a_fragment_has_no_l4() {
    let mut frame = build(PacketBuilder::ethernet2(MAC_A, MAC_B).ipv4([1; 4], [2; 4], 64).udp(1, 2), b"x");
    assert!(Layout::parse(&frame).unwrap().l4().is_some());
    frame[20] |= 0x20;
    let ip = Layout::parse(&frame).unwrap().ip.unwrap();
    assert!(ip.is_fragment && ip.l4.is_none());
}

#[test]
fn reads_what_arp_claims() {
    let mut frame = [&[0xff; 6][..], &MAC_A[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend(MAC_B);
    frame.extend([10, 0, 0, 2]);
    frame.extend([0; 6]);
    frame.extend([10, 0, 0, 9]);
    let layout = Layout::parse(&frame).unwrap();
    let arp = layout.arp(&frame).unwrap();
    assert_eq!(arp.target_ip, Ipv4Addr::new(10, 0, 0, 9));
    assert!(!arp.is_probe() && !arp.is_gratuitous());
    let claim = Claim { ip: Ipv4Addr::new(10, 0, 0, 2).into(), mac: MAC_B };
    assert_eq!(layout.arp_sender(&frame), Some(claim));
    frame[28..32].fill(0);
    assert!(layout.arp(&frame).unwrap().is_probe());
    assert_eq!(layout.arp_sender(&frame), None);
}

#[test]
fn reads_what_neighbour_discovery_claims() {
    let target = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
    let mut frame = [&MAC_B[..], &MAC_A[..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]].concat();
    frame.extend([1; 16]);
    frame.extend([2; 16]);
    frame.extend([136, 0, 0, 0, 0x60, 0, 0, 0]);
    frame.extend(target.octets());
    let bare = frame.clone();
    frame.extend([14, 1, 0, 0, 0, 0, 0, 0, 2, 1]);
    frame.extend(MAC_B);
    let layout = Layout::parse(&frame).unwrap();
    let message = layout.neighbour(&frame).unwrap();
    assert_eq!(message.kind, NeighbourKind::Advertisement);
    assert_eq!((message.target, message.link_mac), (target, Some(MAC_B)));
    assert_eq!(layout.nd_claim(&frame), Some(Claim { ip: target.into(), mac: MAC_B }));
    let layout = Layout::parse(&bare).unwrap();
    assert_eq!(layout.nd_claim(&bare), Some(Claim { ip: target.into(), mac: MAC_A }));
}

fn exercise(frame: &[u8]) -> Option<Layout> {
    let layout = Layout::parse(frame)?;
    let _ =
        (layout.source_ip(frame), layout.destination_ip(frame), layout.arp(frame), layout.neighbour(frame));
    let _ = (layout.arp_sender(frame), layout.nd_claim(frame), layout.ip_claim(frame));
    Some(layout)
}

proptest! {
    #[test]
    fn any_bytes_give_offsets_inside_them(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100]),
        version in any::<prop::sample::Index>(),
        next in prop::sample::select(vec![0u8, 6, 17, 43, 44, 51, 58, 60]),
    ) {
        exercise(&bytes);
        let mut frame = bytes;
        if frame.len() >= 40 {
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            frame[14] = if ethertype == 0x86dd { 0x60 } else { 0x45 + version.index(3) as u8 };
            let at = if ethertype == 0x86dd { 20 } else { 23 };
            frame[at] = next;
        }
        if let Some(l4) = exercise(&frame).and_then(|layout| layout.l4()) {
            prop_assert!(l4.offset < l4.header_end);
            prop_assert!(usize::from(l4.header_end) <= frame.len());
        }
    }

    #[test]
    fn agrees_with_etherparse(payload in prop::collection::vec(any::<u8>(), 0..100), tagged in any::<bool>()) {
        let builder = PacketBuilder::ethernet2(MAC_A, MAC_B);
        let frame = if tagged {
            build(builder.single_vlan(5.try_into().unwrap()).ipv4([1; 4], [2; 4], 64).udp(1, 2), &payload)
        } else {
            build(builder.ipv4([1; 4], [2; 4], 64).udp(1, 2), &payload)
        };
        let end = Layout::parse(&frame).unwrap().l4().unwrap().header_end;
        prop_assert_eq!(&frame[usize::from(end)..], &payload[..]);
    }
}
