//! Who may send what to whom, case by case.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use proptest::prelude::*;
use weft_api::id::NetworkId;

use super::*;

const NOW: Duration = Duration::from_secs(9);
const OTHER: HostId = HostId([2; 8]);
const THIRD: HostId = HostId([3; 8]);

const LOCAL: Mac = Mac([0x02, 0x42, 10, 32, 0, 2]);
const REMOTE: Mac = Mac([0x02, 0x42, 10, 32, 1, 2]);
const AT_THIRD: Mac = Mac([0x02, 0x42, 10, 32, 2, 2]);
const NESTED: Mac = Mac([0x02, 1, 1, 1, 1, 1]);

const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 2);
const REMOTE_IP: Ipv4Addr = Ipv4Addr::new(10, 32, 1, 2);
const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);
const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn table() -> Table {
    let block = |range: &str, owner| Block { range: range.parse().unwrap(), owner };
    let mut table = Table::new(
        NetworkId(1),
        1340,
        vec![block("10.32.0.0/26", Owner::Here), block("10.32.1.0/26", Owner::Host(OTHER))],
    );
    table.hosts = [OTHER, THIRD].into();
    table.gateways = vec![GATEWAY_IP.into()];
    table.add_endpoint(LOCAL, &[LOCAL_IP.into()], Owner::Here);
    table.add_endpoint(REMOTE, &[REMOTE_IP.into()], Owner::Host(OTHER));
    table.add_endpoint(AT_THIRD, &[IpAddr::from([10, 32, 2, 2])], Owner::Host(THIRD));
    table
}

fn udp(destination: Mac, source: Mac, source_ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(source.0, destination.0)
        .ipv4(source_ip.octets(), [10, 32, 1, 9], 64)
        .udp(1, 2)
        .write(&mut frame, b"hello")
        .unwrap();
    frame
}

fn arp(source: Mac, sender_mac: Mac, sender_ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = [Mac::BROADCAST.0, source.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender_mac.0);
    frame.extend(sender_ip.octets());
    frame.extend([0; 6]);
    frame.extend([10, 32, 0, 9]);
    frame
}

static TABLE: LazyLock<Table> = LazyLock::new(table);

fn flood() -> Outbound<'static> {
    Outbound::Copies(&TABLE.hosts)
}

fn out(frame: &[u8]) -> Outbound<'static> {
    outbound(&TABLE, &mut Memory::new(), &Headers::of(frame).unwrap(), 1, NOW)
}

fn into(from: HostId, frame: &[u8]) -> Inbound {
    inbound(&TABLE, &mut Memory::new(), from, &Headers::of(frame).unwrap(), 1, NOW)
}

#[test]
fn out_of_this_host() {
    use DropReason::*;
    let multicast = Mac([0x01, 0, 0x5e, 0, 0, 0xfb]);
    let stp = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);
    let eapol = Mac([0x01, 0x80, 0xc2, 0, 0, 0x0f]);
    let mrp = Mac([0x01, 0x80, 0xc2, 0, 0, 0x21]);
    let cases = [
        ("known unicast", udp(REMOTE, LOCAL, LOCAL_IP), Outbound::To(OTHER)),
        ("known at the third", udp(AT_THIRD, LOCAL, LOCAL_IP), Outbound::To(THIRD)),
        ("broadcast", udp(Mac::BROADCAST, LOCAL, LOCAL_IP), flood()),
        ("multicast", udp(multicast, LOCAL, LOCAL_IP), flood()),
        ("unknown unicast", udp(NESTED, LOCAL, LOCAL_IP), flood()),
        ("nested source", udp(REMOTE, NESTED, OUTSIDE_IP), Outbound::To(OTHER)),
        ("routed through a container", udp(REMOTE, LOCAL, OUTSIDE_IP), Outbound::To(OTHER)),
        ("arp of its own", arp(LOCAL, LOCAL, LOCAL_IP), flood()),
        ("arp probe", arp(LOCAL, LOCAL, Ipv4Addr::UNSPECIFIED), flood()),
        ("a new address of its block", arp(LOCAL, LOCAL, Ipv4Addr::new(10, 32, 0, 9)), flood()),
        ("another group address of 802.1", udp(mrp, LOCAL, LOCAL_IP), flood()),
        ("to an endpoint here", udp(LOCAL, NESTED, OUTSIDE_IP), Outbound::Drop(StaysHere)),
        ("from the gateway", udp(REMOTE, Mac::GATEWAY, GATEWAY_IP), Outbound::Drop(GatewayStays)),
        ("to the gateway", udp(Mac::GATEWAY, LOCAL, LOCAL_IP), Outbound::Drop(GatewayStays)),
        ("stp", udp(stp, LOCAL, LOCAL_IP), Outbound::Drop(LinkLocal)),
        ("0f", udp(eapol, LOCAL, LOCAL_IP), Outbound::Drop(LinkLocal)),
        ("a remote endpoint's MAC", udp(AT_THIRD, REMOTE, REMOTE_IP), Outbound::Drop(SourceNotTheirs)),
        ("a remote endpoint's IP", udp(REMOTE, LOCAL, REMOTE_IP), Outbound::Drop(AddressNotTheirs)),
        ("another local's IP", udp(REMOTE, NESTED, LOCAL_IP), Outbound::Drop(AddressNotTheirs)),
        ("the gateway's IP", udp(REMOTE, LOCAL, GATEWAY_IP), Outbound::Drop(AddressNotTheirs)),
        ("arp for a remote's IP", arp(LOCAL, LOCAL, REMOTE_IP), Outbound::Drop(AddressNotTheirs)),
        ("arp in a remote's name", arp(LOCAL, REMOTE, OUTSIDE_IP), Outbound::Drop(AddressNotTheirs)),
        ("arp for the gateway", arp(LOCAL, LOCAL, GATEWAY_IP), Outbound::Drop(AddressNotTheirs)),
        (
            "an address of another's block",
            arp(LOCAL, LOCAL, Ipv4Addr::new(10, 32, 1, 7)),
            Outbound::Drop(AddressNotTheirs),
        ),
        ("group source", udp(REMOTE, multicast, LOCAL_IP), Outbound::Drop(SourceInvalid)),
        ("zero source", udp(REMOTE, Mac([0; 6]), LOCAL_IP), Outbound::Drop(SourceInvalid)),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(out(&frame), expected, "{name}");
    }
}

#[test]
fn into_this_host() {
    use DropReason::*;
    let stranger = HostId([9; 8]);
    let cases = [
        ("to an endpoint here", OTHER, udp(LOCAL, REMOTE, REMOTE_IP), Inbound::Deliver),
        ("broadcast", OTHER, udp(Mac::BROADCAST, REMOTE, REMOTE_IP), Inbound::Deliver),
        ("unknown, perhaps nested here", OTHER, udp(NESTED, REMOTE, REMOTE_IP), Inbound::Deliver),
        ("nested there", OTHER, udp(LOCAL, NESTED, OUTSIDE_IP), Inbound::Deliver),
        ("not of the network", stranger, udp(LOCAL, NESTED, OUTSIDE_IP), Inbound::Drop(NetworkNotTheirs)),
        ("never back", OTHER, udp(AT_THIRD, REMOTE, REMOTE_IP), Inbound::Drop(NotHere)),
        ("our endpoint's MAC", OTHER, udp(LOCAL, LOCAL, LOCAL_IP), Inbound::Drop(SourceNotTheirs)),
        ("a third's MAC", OTHER, udp(LOCAL, AT_THIRD, OUTSIDE_IP), Inbound::Drop(SourceNotTheirs)),
        ("our endpoint's IP", OTHER, udp(LOCAL, REMOTE, LOCAL_IP), Inbound::Drop(AddressNotTheirs)),
        ("arp for our IP", OTHER, arp(REMOTE, REMOTE, LOCAL_IP), Inbound::Drop(AddressNotTheirs)),
        ("arp for the gateway", OTHER, arp(REMOTE, REMOTE, GATEWAY_IP), Inbound::Drop(AddressNotTheirs)),
        (
            "arp for an address of our block",
            THIRD,
            arp(AT_THIRD, AT_THIRD, Ipv4Addr::new(10, 32, 0, 60)),
            Inbound::Drop(AddressNotTheirs),
        ),
        ("the gateway's MAC", OTHER, udp(LOCAL, Mac::GATEWAY, GATEWAY_IP), Inbound::Drop(GatewayStays)),
    ];
    for (name, from, frame, expected) in cases {
        assert_eq!(into(from, &frame), expected, "{name}");
    }
}

#[test]
fn claims_do_not_hide() {
    let mut ieee802 = arp(LOCAL, LOCAL, REMOTE_IP);
    ieee802[15] = 6;
    assert_eq!(out(&ieee802), Outbound::Drop(DropReason::AddressNotTheirs));
    // IPv6 with so many destination options, and a neighbour advertisement's type behind them.
    let behind = |count: usize| {
        let mut frame = [&REMOTE.0[..], &LOCAL.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 60, 255]].concat();
        frame.extend([[0xfe; 16], [0xff; 16]].concat());
        for n in 1..=count {
            frame.extend([if n == count { 58 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        [frame, vec![136; 40]].concat()
    };
    assert_eq!(out(&behind(8)), Outbound::To(OTHER));
    assert_eq!(out(&behind(9)), Outbound::Drop(DropReason::HeadersHidden));
}

#[test]
fn what_came_teaches_the_way_back() {
    let mut memory = Memory::new();
    let there = udp(LOCAL, NESTED, OUTSIDE_IP);
    let back = udp(NESTED, LOCAL, LOCAL_IP);
    let send = |memory: &mut Memory| outbound(&TABLE, memory, &Headers::of(&back).unwrap(), 1, NOW);
    assert_eq!(send(&mut memory), flood());
    let came = inbound(&TABLE, &mut memory, OTHER, &Headers::of(&there).unwrap(), 1, NOW);
    assert_eq!(came, Inbound::Deliver);
    assert_eq!(send(&mut memory), Outbound::To(OTHER));
    let forged = udp(LOCAL, Mac([0x02, 7, 7, 7, 7, 7]), LOCAL_IP);
    let came = inbound(&TABLE, &mut memory, OTHER, &Headers::of(&forged).unwrap(), 1, NOW);
    assert_eq!(came, Inbound::Drop(DropReason::AddressNotTheirs));
    assert_eq!(memory.place_of(Mac([0x02, 7, 7, 7, 7, 7]), NOW), None, "a dropped frame teaches nothing");
}

#[test]
fn groups_go_where_they_are_listened_to() {
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let mut table = table();
    table.add_groups(Owner::Host(OTHER), [IpAddr::from(group)]);
    table.add_groups(Owner::Here, [IpAddr::from([239, 1, 2, 4])]);
    table.end_groups();
    let to = |group: [u8; 4]| {
        let mac = Mac([1, 0, 0x5e, group[1], group[2], group[3]]);
        let mut frame = udp(mac, LOCAL, LOCAL_IP);
        frame[30..34].copy_from_slice(&group);
        frame
    };
    let report = |frame: &mut Vec<u8>| {
        frame[23] = 2;
        frame[34..42].copy_from_slice(&[0x16, 0, 0, 0, 239, 1, 2, 3]);
        frame.clone()
    };
    let mut memory = Memory::new();
    let mut out = |frame: &[u8]| {
        let verdict = outbound(&table, &mut memory, &Headers::of(frame).unwrap(), 1, NOW);
        match verdict {
            Outbound::Copies(hosts) => Ok((hosts.iter().copied().collect::<Vec<_>>(), false)),
            Outbound::Heard(hosts) => Ok((hosts.iter().copied().collect(), true)),
            Outbound::Drop(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    };
    let all = || Ok((vec![OTHER, THIRD], false));
    assert_eq!(out(&to([239, 1, 2, 3])), Ok((vec![OTHER], false)), "its only member");
    assert_eq!(out(&to([239, 1, 2, 4])), Err(DropReason::NobodyElse), "listened to here alone");
    assert_eq!(out(&to([239, 1, 2, 9])), all(), "nobody is known to listen");
    assert_eq!(out(&to([224, 0, 0, 251])), all());
    let mut to_all = to([239, 1, 2, 3]);
    to_all[..6].copy_from_slice(&Mac::BROADCAST.0);
    assert_eq!(out(&to_all), all(), "broadcast, whatever its IP address");
    let tagged = [&to([239, 1, 2, 3])[..12], &[0x81, 0, 0, 5], &to([239, 1, 2, 3])[12..]].concat();
    assert_eq!(out(&tagged), all(), "in a VLAN");
    assert_eq!(out(&report(&mut to([239, 1, 2, 3]))), Ok((vec![], true)), "no router anywhere");
    let heard = (0..1000).map(|_| out(&report(&mut to([239, 1, 2, 3])))).filter(Result::is_ok).count();
    assert_eq!(heard, MEMBERSHIPS_HEARD.burst as usize - 1);
}

#[test]
fn a_storm_of_a_member_is_limited() {
    let (table, mut memory) = (table(), Memory::new());
    let mut sends = |from, source, to| {
        let frame = udp(to, source, OUTSIDE_IP);
        inbound(&table, &mut memory, from, &Headers::of(&frame).unwrap(), 1, NOW)
    };
    let storm = (0..=MEMBER_FLOODS.burst).map(|_| sends(OTHER, REMOTE, Mac::BROADCAST));
    assert_eq!(storm.last(), Some(Inbound::Drop(DropReason::MemberFloods)));
    assert_eq!(sends(OTHER, REMOTE, NESTED), Inbound::Drop(DropReason::MemberFloods), "for nobody known");
    assert_eq!(sends(OTHER, REMOTE, LOCAL), Inbound::Deliver, "a frame for an endpoint passes");
    assert_eq!(sends(THIRD, AT_THIRD, Mac::BROADCAST), Inbound::Deliver, "another member");
}

#[test]
fn nobody_is_made_a_router_by_a_container() {
    let mut frame = [&[0x33, 0x33, 0, 0, 0, 1][..], &LOCAL.0, &[0x86, 0xdd]].concat();
    frame.extend([0x60, 0, 0, 0, 0, 16, 58, 255]);
    frame.extend([[0xfe; 16], [0xff; 16]].concat());
    frame.extend([[134; 1].as_slice(), &[0; 15]].concat());
    assert_eq!(out(&frame), Outbound::Drop(DropReason::RouterAdvertisement));
    frame[6..12].copy_from_slice(&REMOTE.0);
    assert_eq!(into(OTHER, &frame), Inbound::Drop(DropReason::RouterAdvertisement));
}

#[test]
fn lengths_are_the_networks() {
    let mut tagged = udp(REMOTE, LOCAL, LOCAL_IP);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let (plain, tagged) = (udp(REMOTE, LOCAL, LOCAL_IP), tagged);
    let fits = |frame: &[u8], len| Headers::of(frame).unwrap().check_len(len, &table());
    assert_eq!(fits(&plain, 1354), Ok(()));
    assert_eq!(fits(&plain, 1355), Err(DropReason::FrameTooLong));
    assert_eq!(fits(&tagged, 1358), Ok(()));
    assert_eq!(fits(&tagged, 1359), Err(DropReason::FrameTooLong));
}

proptest! {
    #[test]
    fn any_frame_has_a_verdict(frame in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(headers) = Headers::of(&frame) {
            let (table, mut memory) = (table(), Memory::new());
            outbound(&table, &mut memory, &headers, 1, NOW);
            inbound(&table, &mut memory, OTHER, &headers, 1, NOW);
        } else {
            prop_assert!(Layout::parse(&frame).is_none());
        }
    }

    #[test]
    fn no_host_speaks_for_another(destination in any::<[u8; 6]>(), local in any::<bool>()) {
        let (source, ip) = if local { (LOCAL, LOCAL_IP) } else { (AT_THIRD, [10, 32, 2, 2].into()) };
        let frame = udp(Mac(destination), source, ip);
        prop_assert!(matches!(into(OTHER, &frame), Inbound::Drop(_)));
    }
}
