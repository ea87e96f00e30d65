//! Frames, and what the switch makes of them in both directions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weft_api::id::{Mac, NetworkId};
use weft_router::frame::Layout;
use weft_router::offload::plain::{self, Checksum};
use weft_router::offload::{Offloads, VnetHeader};
use weft_router::switch::group::{Memberships, heard};
use weft_router::switch::{
    Block, Headers, Inbound, Memory, Outbound, Owner, Table, answer, inbound, outbound, ties,
};

use crate::cast::host;
use crate::input::{Input, with_length};

const NETWORK: NetworkId = NetworkId(3);
const HERE: Mac = Mac([2, 0x42, 10, 32, 0, 2]);
const THERE: Mac = Mac([2, 0x42, 10, 32, 0, 66]);

fn table() -> Table {
    let there = Owner::Host(host(1));
    let range = |text: &str| text.parse().expect("a range");
    let blocks = vec![
        Block { range: range("10.32.0.0/26"), owner: Owner::Here },
        Block { range: range("10.32.0.64/26"), owner: there },
        Block { range: range("fd00::/120"), owner: Owner::Here },
        Block { range: range("fd00::100/120"), owner: there },
    ];
    let mut table = Table::new(NETWORK, 1340, blocks);
    table.hosts = [host(1), host(2)].into();
    table.gateways =
        vec![Ipv4Addr::new(10, 32, 0, 1).into(), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into()];
    let v6 = |low| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, low));
    table.add_endpoint(HERE, &[Ipv4Addr::new(10, 32, 0, 2).into(), v6(2)], Owner::Here);
    table.add_endpoint(THERE, &[Ipv4Addr::new(10, 32, 0, 66).into(), v6(0x102)], there);
    table.add_groups(there, [IpAddr::from([239, 1, 2, 3])]);
    table.end_groups();
    table
}

/// Steps: who sends (0: a container here), how much time passes, the frame after its length.
pub(crate) fn frames(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (table, mut memory, mut memberships) = (table(), Memory::new(), Memberships::new());
    let mut now = Duration::ZERO;
    memberships.set_networks(&[NETWORK].into(), now);
    while !input.is_empty() {
        let from = input.u8() % 4;
        now += Duration::from_millis(input.u8().into());
        let frame = input.bytes();
        arrived(frame);
        let Ok(headers) = Headers::of(frame) else { continue };
        let _ = headers.check_len(frame.len(), &table);
        if from == 0 {
            if let Some(heard) = heard(headers.layout(), frame) {
                assert!(heard.len() <= frame.len());
                memberships.hear(NETWORK, &heard, now);
            }
            match outbound(&table, &mut memory, &headers, 1, now) {
                Outbound::Answer(holder, _) => {
                    let reply = answer(&headers, holder).expect("a question that has an answer");
                    let reply = Headers::of(&reply).expect("the answer is a frame");
                    assert!(reply.layout().ip.is_none_or(|ip| !ip.is_fragment));
                }
                Outbound::Copies(hosts) | Outbound::Heard(hosts) => assert!(hosts.is_subset(&table.hosts)),
                Outbound::To(to) => assert!(table.hosts.contains(&to) || to == host(3)),
                Outbound::Probe => drop(ties::read(frame).map(|p| p.peek().map(|p| p.sequence))),
                Outbound::Drop(_) => {}
            }
        } else {
            let verdict = inbound(&table, &mut memory, host(from.into()), &headers, 1, now);
            let source = &frame[6..12];
            let forged = source == HERE.0 || source == Mac::GATEWAY.0 || (source == THERE.0 && from != 1);
            assert!(!forged || verdict != Inbound::Deliver, "a source that is not theirs was delivered");
            assert!(from != 3 || verdict != Inbound::Deliver, "a host without the network was heard");
        }
        for (_, query) in memberships.tick(now) {
            assert!(Headers::of(&query).is_ok());
        }
        assert!(memberships.groups(now).values().all(|groups| groups.len() <= 256));
    }
}

/// What a lane does with a frame of another host before it is written, and with one of our tap before it is sealed.
pub(crate) fn arrived(frame: &[u8]) {
    let layout = Layout::parse(frame);
    if let Some(layout) = &layout {
        let _ = (layout.source_ip(frame), layout.destination_ip(frame), layout.ip_claim(frame));
        let _ = (layout.arp(frame), layout.neighbour(frame), layout.is_router_advertisement(frame));
        let _ = (layout.arp_sender(frame), layout.nd_claim(frame), layout.hides());
    }
    for offloads in [Offloads::ALL, Offloads::NONE] {
        let mut own = frame.to_vec();
        let Ok(vnet) = plain::arrive(Checksum::NotComputed, layout.as_ref(), &mut own, offloads) else {
            continue;
        };
        assert!(offloads.has(Offloads::CSUM) || vnet == VnetHeader::default());
        let end = usize::from(vnet.csum_start) + usize::from(vnet.csum_offset) + 2;
        assert!(vnet.flags == 0 || end <= frame.len(), "the kernel would be told to write outside the frame");
        assert_eq!(own.len(), frame.len());
    }
    if let Some((vnet, frame)) = VnetHeader::parse(frame) {
        let mut own = frame.to_vec();
        let layout = Layout::parse(frame);
        let _ = plain::settle(&vnet, layout.as_ref(), &mut own);
    }
}

/// Frames of every kind that the switch looks into.
pub(crate) fn plain() -> Vec<Vec<u8>> {
    let ethernet =
        |to: Mac, from: Mac, ethertype: u16| [&to.0[..], &from.0, &ethertype.to_be_bytes()].concat();
    let v4 = |from: [u8; 4], to: [u8; 4], protocol: u8, body: &[u8]| {
        let len = u8::try_from(20 + body.len()).expect("short");
        let head = [0x45, 0, 0, len, 0, 1, 0, 0, 64, protocol, 0, 0];
        [&head[..], &from, &to, body].concat()
    };
    let v6 = |from: u8, to: [u8; 16], protocol: u8, body: &[u8]| {
        let len = u8::try_from(body.len()).expect("short");
        let mut source = [0; 16];
        (source[0], source[15]) = (0xfd, from);
        [&[0x60, 0, 0, 0, 0, len, protocol, 255][..], &source, &to, body].concat()
    };
    let all = Mac([0xff; 6]);
    let arp = |operation: u8, from: [u8; 4], to: [u8; 4]| {
        [&[0, 1, 8, 0, 6, 4, 0, operation][..], &HERE.0, &from, &[0; 6], &to].concat()
    };
    let node = |low: u8, multicast: bool| {
        let mut ip = [0; 16];
        (ip[0], ip[1], ip[15]) = if multicast { (0xff, 2, low) } else { (0xfd, 0, low) };
        ip
    };
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &node(2, false), &[1, 1], &HERE.0].concat();
    let igmp = [0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3];
    let mld = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &node(77, true)].concat();
    let udp = [0, 53, 1, 0, 0, 12, 0, 0, 1, 2, 3, 4];
    let (a, b) = ([10, 32, 0, 2], [10, 32, 0, 66]);
    vec![
        [ethernet(THERE, HERE, 0x0800), v4(a, b, 17, &udp)].concat(),
        [ethernet(HERE, THERE, 0x0800), v4(b, a, 17, &udp)].concat(),
        [ethernet(HERE, THERE, 0x8100), vec![0, 5, 0x08, 0], v4(b, a, 17, &udp)].concat(),
        [ethernet(THERE, HERE, 0x86dd), v6(2, node(3, false), 17, &udp)].concat(),
        [
            ethernet(THERE, HERE, 0x86dd),
            v6(2, node(3, false), 0, &[&[17, 0, 5, 2, 0, 0, 0, 0], &udp[..]].concat()),
        ]
        .concat(),
        [ethernet(all, HERE, 0x0806), arp(1, a, b)].concat(),
        [ethernet(all, HERE, 0x0806), arp(1, a, a)].concat(),
        [ethernet(all, HERE, 0x0806), arp(2, b, a)].concat(),
        [ethernet(Mac([0x33, 0x33, 0xff, 0, 0, 2]), HERE, 0x86dd), v6(2, node(2, true), 58, &solicitation)]
            .concat(),
        [ethernet(Mac([1, 0, 0x5e, 0, 0, 22]), HERE, 0x0800), v4(a, [224, 0, 0, 22], 2, &igmp)].concat(),
        [ethernet(Mac([0x33, 0x33, 0, 0, 0, 22]), HERE, 0x86dd), v6(2, node(22, true), 58, &mld)].concat(),
        [ethernet(Mac([1, 0, 0x5e, 1, 2, 3]), HERE, 0x0800), v4(a, [239, 1, 2, 3], 17, &udp)].concat(),
    ]
}

pub(crate) fn samples() -> Vec<Vec<u8>> {
    let step = |from: u8, frame: &[u8]| [&[from, 1][..], &with_length(frame)].concat();
    let mut seeds: Vec<Vec<u8>> =
        plain().iter().flat_map(|frame| [step(0, frame), step(1, frame), step(2, frame)]).collect();
    let probe = ties::Probe { mesh: crate::cast::mesh(), host: host(2), network: NETWORK, sequence: (1, 1) };
    seeds.push(step(0, &ties::frame(&crate::cast::key(2).sign(&probe))));
    seeds.push(seeds.concat());
    seeds
}
