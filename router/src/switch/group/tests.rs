//! What is heard, what is asked and how long it is believed; queries are read by etherparse.

use std::collections::BTreeSet;
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket};
use proptest::prelude::*;
use weft_api::id::NetworkId;

use super::*;
use crate::frame::Layout;
use crate::offload::checksum::Sum;

const NET: NetworkId = NetworkId(1);
const START: Duration = Duration::from_secs(100);
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));

fn ip(group: &str) -> IpAddr {
    group.parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// As a kernel sends it, with the router alert option.
fn igmp(source: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut frame =
        [&[1, 0, 0x5e, 0, 0, 22, 2, 0, 0, 0, 0, 1, 8, 0][..], &[0x46, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0]]
            .concat();
    frame.extend(source);
    frame.extend([224, 0, 0, 22, 0x94, 4, 0, 0]);
    [&frame, body].concat()
}

fn mld(body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 22, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 0, 1];
    frame.extend([[0xfe; 16], [0xff; 16]].concat());
    frame.extend([58, 0, 5, 2, 0, 0, 1, 0]);
    [&frame, body].concat()
}

fn said(frame: &[u8]) -> Option<Vec<Heard>> {
    heard(&Layout::parse(frame).unwrap(), frame)
}

#[test]
fn which_groups_are_followed() {
    let followed = ["224.0.1.1", "239.255.255.255", "ff02::fb", "ff05::1:3", "ff0e::1"];
    let not =
        ["224.0.0.251", "10.0.0.1", "255.255.255.255", "ff02::1", "ff02::1:ff00:7", "ff01::5", "fd00::1"];
    assert!(followed.iter().all(|group| is_followed(ip(group))));
    assert!(not.iter().all(|group| !is_followed(ip(group))) && !is_followed(EVERY_GROUP));
}

#[test]
fn every_version_is_understood() {
    use Heard::*;
    let here = [10, 0, 0, 1];
    let group = [239, 1, 2, 3];
    let v2 = |kind: u8| said(&igmp(here, &[&[kind, 0, 0, 0][..], &group].concat()));
    assert_eq!(
        [v2(0x12), v2(0x16), v2(0x17)],
        [Joined(GROUP), Joined(GROUP), Left(GROUP)].map(|h| Some(vec![h]))
    );
    assert_eq!(v2(0x11), Some(vec![Router]));
    assert_eq!(said(&igmp([0; 4], &[0x11, 0, 0, 0, 0, 0, 0, 0])), Some(vec![]), "a snooping switch");
    assert_eq!(v2(0x13), None);

    let record = |kind: u8, sources: u8| {
        [&[kind, 0, 0, sources][..], &group, &vec![9; 4 * usize::from(sources)]].concat()
    };
    let records =
        [(1, 0), (1, 1), (2, 0), (3, 0), (3, 2), (4, 0), (5, 1), (5, 0), (6, 1)].map(|(k, n)| record(k, n));
    let report = [&[0x22, 0, 0, 0, 0, 0, 0, 9][..], &records.concat()].concat();
    let expected =
        [Left(GROUP), Joined(GROUP), Joined(GROUP), Left(GROUP), Joined(GROUP), Joined(GROUP), Joined(GROUP)];
    assert_eq!(said(&igmp(here, &report)), Some(expected.to_vec()));
    assert_eq!(said(&igmp(here, &report[..26])), Some(expected[..1].to_vec()), "whole ones");

    let v6 = ip("ff05::1:3");
    let IpAddr::V6(address) = v6 else { unreachable!() };
    let v1 = |kind: u8| said(&mld(&[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &address.octets()].concat()));
    assert_eq!([v1(130), v1(131), v1(132)], [Router, Joined(v6), Left(v6)].map(|h| Some(vec![h])));
    let v2 = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &address.octets()].concat();
    assert_eq!(said(&mld(&v2)), Some(vec![Joined(v6)]));
    assert_eq!(said(&mld(&[128, 0, 0, 0])), None, "a ping");
}

fn asked(memberships: &mut Memberships, now: Duration) -> Vec<Vec<u8>> {
    memberships.tick(now).into_iter().map(|(_, frame)| frame).collect()
}

fn started() -> Memberships {
    let mut memberships = Memberships::new();
    memberships.set_networks(&BTreeSet::from([NET]), START);
    assert_eq!(asked(&mut memberships, START).len(), 2);
    memberships
}

fn groups(memberships: &Memberships, now: Duration) -> Vec<IpAddr> {
    memberships.groups(now)[&NET].iter().copied().collect()
}

#[test]
fn queries_are_whole() {
    let mut memberships = started();
    memberships.hear(NET, &[Heard::Joined(GROUP), Heard::Joined(ip("ff05::1"))], START);
    memberships.hear(NET, &[Heard::Left(GROUP), Heard::Left(ip("ff05::1"))], START);
    let mut queries = asked(&mut memberships, START);
    queries.extend(asked(&mut memberships, START + seconds(60)));
    assert_eq!(queries.len(), 4);
    for query in queries {
        let packet = SlicedPacket::from_ethernet(&query).unwrap();
        match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!((header.time_to_live, usize::from(header.total_len)), (1, query.len() - 14));
                assert_eq!(Sum::of(&query[38..]).folded(), 0xffff);
            }
            NetSlice::Ipv6(ip) => {
                let (source, to) = (ip.header().source(), ip.header().destination());
                assert_eq!(ip.header().hop_limit(), 1);
                let pseudo = Sum::of(&source).and(&to).and_u16(28).and_u16(58);
                assert_eq!(pseudo.and(&query[62..]).folded(), 0xffff);
                assert_eq!(ip.header().source_addr().to_string(), "fe80::77:65ff:fe66:7401");
            }
            NetSlice::Arp(_) => panic!("a query is not ARP"),
        }
        assert!(said(&query).is_some(), "it is a query");
    }
}

#[test]
fn what_is_not_said_again_is_forgotten() {
    let mut memberships = started();
    assert_eq!(groups(&memberships, START), [EVERY_GROUP], "nobody has had the time to answer");
    memberships.hear(NET, &[Heard::Joined(GROUP)], START);
    let now = START + seconds(3);
    assert_eq!(asked(&mut memberships, now), Vec::<Vec<u8>>::new());
    assert_eq!(groups(&memberships, now), [GROUP]);
    memberships.hear(NET, &[Heard::Router], now);
    assert_eq!(groups(&memberships, now), [EVERY_GROUP, GROUP]);
    let now = START + seconds(400);
    asked(&mut memberships, now);
    assert!(groups(&memberships, now).is_empty());
}

#[test]
fn who_leaves_is_asked_whether_others_stay() {
    let mut memberships = started();
    memberships.hear(NET, &[Heard::Joined(GROUP)], START);
    let now = START + seconds(10);
    asked(&mut memberships, now);
    memberships.hear(NET, &[Heard::Left(GROUP)], now);
    assert_eq!(asked(&mut memberships, now).len(), 1);
    memberships.hear(NET, &[Heard::Joined(GROUP)], now + seconds(1));
    assert_eq!(asked(&mut memberships, now + seconds(5)).len(), 0, "another listens");
    assert_eq!(groups(&memberships, now + seconds(5)), [GROUP]);

    let now = now + seconds(6);
    memberships.hear(NET, &[Heard::Left(GROUP)], now);
    assert_eq!(asked(&mut memberships, now).len(), 1);
    memberships.hear(NET, &[Heard::Left(GROUP)], now + seconds(1));
    assert_eq!(asked(&mut memberships, now + seconds(1)).len(), 1);
    assert_eq!(asked(&mut memberships, now + seconds(2)).len(), 0);
    assert!(groups(&memberships, now + seconds(2)).is_empty());
}

#[test]
fn with_more_groups_than_are_named_all_are_taken() {
    let mut memberships = started();
    let now = START + seconds(10);
    asked(&mut memberships, now);
    let many = |net: u8| (0..=255).map(move |n| Heard::Joined(IpAddr::from([239, 9, net, n])));
    memberships.hear(NET, &many(0).collect::<Vec<_>>(), now);
    assert_eq!(groups(&memberships, now).len(), MAX_GROUPS_OF_A_NETWORK);
    memberships.hear(NET, &[Heard::Joined(GROUP)], now);
    assert_eq!(groups(&memberships, now)[0], EVERY_GROUP);
    let networks: BTreeSet<NetworkId> = (1..=9).map(NetworkId).collect();
    memberships.set_networks(&networks, now);
    networks.iter().for_each(|id| memberships.hear(*id, &many(1).collect::<Vec<_>>(), now));
    let all = memberships.groups(now + seconds(3));
    assert!(
        all.values().map(|g| g.iter().filter(|g| **g != EVERY_GROUP).count()).sum::<usize>() <= MAX_GROUPS
    );
    assert!(all[&NetworkId(9)].contains(&EVERY_GROUP));
}

proptest! {
    #[test]
    fn any_bytes_are_heard(kind: u8, v6: bool, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = [&[kind][..], &body].concat();
        let heard = said(&if v6 { mld(&body) } else { igmp([10, 0, 0, 1], &body) });
        for heard in heard.unwrap_or_default() {
            match heard {
                Heard::Joined(group) | Heard::Left(group) => prop_assert!(is_followed(group)),
                Heard::Router => {}
            }
        }
    }

    #[test]
    fn whatever_is_heard_it_wakes_later_and_stays_small(
        said in prop::collection::vec((0u8..3, any::<[u8; 2]>(), 0u64..40), 0..300),
    ) {
        let (mut memberships, mut now) = (started(), START);
        for (kind, [a, b], wait) in said {
            now += seconds(wait);
            let group = IpAddr::from([239, a, 0, b]);
            let heard = [Heard::Joined(group), Heard::Left(group), Heard::Router][usize::from(kind)];
            memberships.hear(NET, &[heard], now);
            memberships.tick(now);
            prop_assert!(memberships.next_wake() > Some(now), "no spinning");
            prop_assert!(memberships.groups(now)[&NET].len() <= MAX_GROUPS_OF_A_NETWORK + 1);
        }
    }
}
