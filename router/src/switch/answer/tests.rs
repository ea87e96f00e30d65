//! Who is answered and with what, case by case and for any question; the answers are read by etherparse.

use std::net::Ipv4Addr;
use std::sync::LazyLock;
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use weft_api::id::{HostId, NetworkId};

use super::super::{Block, Memory, outbound};
use super::*;
use crate::frame::{ETHERNET_LEN, Layout};

const OTHER: HostId = HostId([2; 8]);
const LOCAL: Mac = Mac([0x02, 0x42, 10, 32, 0, 2]);
const SECOND: Mac = Mac([0x02, 0x42, 10, 32, 0, 3]);
const REMOTE: Mac = Mac([0x02, 0x42, 10, 32, 1, 2]);
const LOCAL_4: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 2);
const SECOND_4: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 3);
const REMOTE_4: Ipv4Addr = Ipv4Addr::new(10, 32, 1, 2);
const GATEWAY_4: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);
const NOBODY_4: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 9);
const LOCAL_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const REMOTE_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 2);

fn table() -> Table {
    let block = |range: &str, owner| Block { range: range.parse().unwrap(), owner };
    let blocks = vec![block("10.32.0.0/26", Owner::Here), block("10.32.1.0/26", Owner::Host(OTHER))];
    let mut table = Table::new(NetworkId(1), 1340, blocks);
    table.hosts = [OTHER].into();
    table.gateways = vec![GATEWAY_4.into()];
    table.add_endpoint(LOCAL, &[LOCAL_4.into(), LOCAL_6.into()], Owner::Here);
    table.add_endpoint(SECOND, &[SECOND_4.into()], Owner::Here);
    table.add_endpoint(REMOTE, &[REMOTE_4.into(), REMOTE_6.into()], Owner::Host(OTHER));
    table
}

fn arp(operation: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(Mac::BROADCAST, LOCAL, ETHERTYPE_ARP);
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(LOCAL.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn solicitation(source: Ipv6Addr, target: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Mac([0x33, 0x33, 0xff, a, b, c]);
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target.octets());
    if !source.is_unspecified() {
        icmp.extend([1, 1]);
        icmp.extend(LOCAL.0);
    }
    let mut frame = ipv6_icmp(ethernet(group, LOCAL, ETHERTYPE_IPV6), source, to, icmp);
    frame[ETHERNET_LEN + 7] = hop_limit;
    frame
}

static TABLE: LazyLock<Table> = LazyLock::new(table);

fn flood() -> Outbound<'static> {
    Outbound::Copies(&TABLE.hosts)
}

fn verdict(frame: &[u8]) -> Outbound<'static> {
    outbound(&TABLE, &mut Memory::new(), &Headers::of(frame).unwrap(), 1, Duration::from_secs(9))
}

#[test]
fn who_is_answered() {
    use DropReason::*;
    let answered = Outbound::Answer(REMOTE, AnsweredHere);
    let none = Ipv4Addr::UNSPECIFIED;
    let tagged =
        [&arp(1, LOCAL_4, REMOTE_4)[..12], &[0x81, 0, 0, 5], &arp(1, LOCAL_4, REMOTE_4)[12..]].concat();
    let unicast = [&REMOTE.0[..], &arp(1, LOCAL_4, REMOTE_4)[6..]].concat();
    let cases = [
        ("a remote endpoint", arp(1, LOCAL_4, REMOTE_4), answered),
        ("by who has a nested address", arp(1, NOBODY_4, REMOTE_4), answered),
        ("a probe of a remote's address", arp(1, none, REMOTE_4), answered),
        (
            "an announcement of a remote's",
            arp(1, REMOTE_4, REMOTE_4),
            Outbound::Answer(REMOTE, AddressNotTheirs),
        ),
        ("a reply that claims a remote's", arp(2, REMOTE_4, REMOTE_4), Outbound::Drop(AddressNotTheirs)),
        ("in a remote's name", arp(1, REMOTE_4, NOBODY_4), Outbound::Drop(AddressNotTheirs)),
        ("an endpoint here", arp(1, LOCAL_4, SECOND_4), Outbound::Drop(StaysHere)),
        ("the gateway", arp(1, LOCAL_4, GATEWAY_4), Outbound::Drop(GatewayStays)),
        ("nobody known", arp(1, LOCAL_4, NOBODY_4), flood()),
        ("a probe of nobody's", arp(1, none, NOBODY_4), flood()),
        ("a probe of its own", arp(1, none, LOCAL_4), flood()),
        ("an announcement of its own", arp(1, LOCAL_4, LOCAL_4), flood()),
        ("in a VLAN", tagged, flood()),
        ("a question to one alone", unicast, Outbound::To(OTHER)),
        ("ND: a remote endpoint", solicitation(LOCAL_6, REMOTE_6, 255), answered),
        ("ND: a remote's, checked", solicitation(Ipv6Addr::UNSPECIFIED, REMOTE_6, 255), answered),
        ("ND: its own, checked", solicitation(Ipv6Addr::UNSPECIFIED, LOCAL_6, 255), flood()),
        ("ND: from afar", solicitation(LOCAL_6, REMOTE_6, 254), flood()),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(verdict(&frame), expected, "{name}");
    }
}

/// The answer, whose IPv6 packet etherparse finds right.
fn answered(frame: &[u8], holder: Mac) -> Vec<u8> {
    let answer = answer(&Headers::of(frame).unwrap(), holder).unwrap();
    check(&answer);
    answer
}

fn check(answer: &[u8]) {
    let packet = SlicedPacket::from_ethernet(answer).unwrap();
    if let Some(NetSlice::Ipv6(ip)) = &packet.net {
        assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    }
}

#[test]
fn advertisements_are_whole() {
    let asked = solicitation(LOCAL_6, REMOTE_6, 255);
    let answer = answered(&asked, REMOTE);
    let layout = Layout::parse(&answer).unwrap();
    let said = layout.neighbour(&answer).unwrap();
    assert_eq!(
        (said.kind, said.target, said.link_mac),
        (NeighbourKind::Advertisement, REMOTE_6, Some(REMOTE.0))
    );
    assert_eq!((&answer[..6], &answer[6..12]), (&LOCAL.0[..], &REMOTE.0[..]));
    assert_eq!(layout.destination_ip(&answer), Some(LOCAL_6.into()));
    assert_eq!(answer[ETHERNET_LEN + 44], SOLICITED | OVERRIDE);
    let checked = answered(&solicitation(Ipv6Addr::UNSPECIFIED, REMOTE_6, 255), REMOTE);
    assert_eq!(Layout::parse(&checked).unwrap().destination_ip(&checked), Some(ALL_NODES.into()));
    assert_eq!((&checked[..6], checked[ETHERNET_LEN + 44]), (&LOCAL.0[..], OVERRIDE));
}

proptest! {
    #[test]
    fn any_answer_is_one(holder: [u8; 6], target: u32, target_6: u128, asker: u128, dad: bool) {
        let holder = Mac(holder);
        let frame = arp(1, LOCAL_4, Ipv4Addr::from(target));
        let said = answered(&frame, holder);
        let said = Layout::parse(&said).unwrap().arp(&said).unwrap();
        prop_assert_eq!((said.operation, said.sender_mac, said.sender_ip), (2, holder.0, target.into()));
        prop_assert_eq!((said.target_mac, said.target_ip), (LOCAL.0, LOCAL_4));
        let asker = if dad { Ipv6Addr::UNSPECIFIED } else { asker.into() };
        let said = answered(&solicitation(asker, target_6.into(), 255), holder);
        let said = Layout::parse(&said).unwrap().neighbour(&said).unwrap();
        prop_assert_eq!((said.target, said.link_mac), (target_6.into(), Some(holder.0)));
    }

    #[test]
    fn any_frame_is_answered_or_not(mut frame in prop::collection::vec(any::<u8>(), 14..120), kind in 0..3) {
        match kind {
            0 => frame[12..14].copy_from_slice(&[8, 6]),
            1 => frame[12..14].copy_from_slice(&[0x86, 0xdd]),
            _ => {}
        }
        let headers = Headers::of(&frame).unwrap();
        let _ = (to_question(&TABLE, &headers), to_announcement(&TABLE, &headers), answer(&headers, REMOTE));
    }
}
