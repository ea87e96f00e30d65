//! A member with a true session seals chunks that no honest one makes, frames under borrowed addresses, and pieces of superframes
//! that cannot be. The victim refuses each by its name; its own containers and the other hosts notice nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weft_api::id::{HostId, HostKey, Mac, NetworkId};

use crate::attack_member::Stage;
use crate::fixture::deadline;
use crate::forged::{
    ENVELOPE, FRAGMENT, FRAME, FRAME_OPEN_CHECKSUM, PIECE, PROBE, Piece, QUIC, RELAYED, RELAYED_ENVELOPE,
    STRANGE, advertisement, arp, behind_options, chunk, chunk_that_says, ethernet, hex, on, packet, tagged,
    tcp_headers, udp_headers,
};

const COUNT: u64 = 20;
/// What the victim's container waits for.
const MARK: &[u8] = b"mallory-was-here";

/// What is sealed, and the name under which it is counted.
type Attack = (&'static str, &'static str, Vec<u8>);

/// An endpoint, as forged frames need it.
#[derive(Clone, Copy)]
struct Who {
    mac: Mac,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

#[test]
fn a_hostile_member_gets_no_forged_frame_through() {
    if weft_lab::skip() {
        return;
    }
    Stage::set(|stage| {
        let network = stage.network;
        let frame = ethernet(who(&stage.victim).mac, who(&stage.own).mac, STRANGE, MARK);
        let mut ear = stage.victim.traffic_daemon(&["frame-wait", &stage.victim.iface, &hex(MARK), "10"]);
        assert!(ear.wait_log("waiting", Duration::from_secs(5)));
        stage.attacker.obey(&format!("seal 3 {}", hex(&on(network, FRAME, &frame))));
        assert_eq!(ear.wait(deadline(12.0)), Some(0), "an honest frame of the session arrives");

        let (me, victim, third) = (who(&stage.own), who(&stage.victim), who(&stage.third));
        let frames = [frames(network, me, victim, third), pieces(network, me, victim, third)].concat();
        let all = [chunks(), relays(stage), frames].concat();
        for (what, label, chunks) in all {
            let order = format!("seal {COUNT} {}", hex(&chunks));
            stage.attacker.is_counted(stage.host, what, &order, label, COUNT);
        }
        for (what, label, bytes) in relayed_envelopes(stage) {
            let order = format!("relay {COUNT} {}", hex(&bytes));
            stage.attacker.is_counted(stage.host, what, &order, label, COUNT);
        }
        let order = format!("counter {} {}", 1u64 << 32, hex(&on(network, FRAME, &frame)));
        stage.attacker.is_counted(stage.host, "a counter beyond the stop", &order, "counter_beyond_stop", 1);
        // One of the attacks above, each of which was counted: the session's very first datagrams may come before its keys and be lost.
        let order = format!("counter 100 {}", hex(&on(network, FRAME, &frame)));
        stage.attacker.is_counted(stage.host, "a counter used before", &order, "replayed", 1);

        // Bounded without a name: MACs that nobody has said are learned, few of one host; superframes are begun and never ended.
        for n in 0..2000u16 {
            let [a, b] = n.to_be_bytes();
            let frame = ethernet(victim.mac, Mac([2, 0xee, 0, 0, a, b]), STRANGE, &[0; 50]);
            stage.attacker.obey(&format!("seal 1 {}", hex(&on(network, FRAME, &frame))));
        }
        let headers = tcp_headers((victim.mac, me.mac), me.v4, victim.v4, 0x10);
        for index in [0, 100, 254] {
            let piece = Piece {
                kind: 1,
                index,
                last: 255,
                gso_size: 200,
                offset: u16::from(index) * 200,
                headers: &headers,
                payload: 200,
            };
            stage.attacker.obey(&format!("seal 500 {}", hex(&on(network, PIECE, &piece.body()))));
        }
        let garbage = [&[0x40][..], &[0xa5; 1100]].concat();
        stage.attacker.obey(&format!("seal 500 {}", hex(&chunk(QUIC, &garbage))));
        let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 1150]].concat();
        stage.attacker.obey(&format!("seal 500 {}", hex(&chunk(QUIC, &initial))));
    });
}

fn chunks() -> Vec<Attack> {
    vec![
        ("a chunk of an unknown kind", "chunk_unknown", chunk(99, &[1; 30])),
        ("a fragment", "fragment_invalid", chunk(FRAGMENT, &[1, 1, 2, 1, 9])),
        ("a chunk longer than its envelope", "chunk_truncated", chunk_that_says(1000, FRAME, &[0; 40])),
        ("a chunk without its length", "chunk_truncated", vec![FRAME, 0]),
        ("a frame without its network", "chunk_truncated", chunk(FRAME, &[0, 0, 1])),
        ("a piece without its network", "chunk_truncated", chunk(PIECE, &[])),
        ("400 chunks in one envelope", "chunk_unknown", chunk(98, &[]).repeat(400)),
        ("a probe that is too long", "probe_too_long", chunk(PROBE, &[1; 129])),
        ("a probe that is too short", "probe_garbled", chunk(PROBE, &[1; 3])),
        ("a probe that is neither question nor answer", "probe_garbled", chunk(PROBE, &[77; 9])),
        ("a QUIC packet that is too long", "control_too_long", chunk(QUIC, &[0x40; 2049])),
    ]
}

/// Datagrams to be relayed that no honest member hands over, in chunks.
fn relays(stage: &Stage<'_>) -> Vec<Attack> {
    let relayed = |head: Vec<u8>| chunk(RELAYED, &[&head[..], &[0x40; 50]].concat());
    let [me, victim, _] = ids(stage);
    let nested = [&leading(8, me, victim)[..], &[RELAYED_ENVELOPE], &[0; 120]].concat();
    let mut all = vec![
        ("a relayed datagram without its target", "chunk_truncated", chunk(RELAYED, &[1; 10])),
        ("a relayed datagram of nothing", "relay_garbled", chunk(RELAYED, &[1; 17])),
        ("a relayed envelope in a relayed chunk", "relay_nested", chunk(RELAYED, &nested)),
    ];
    all.extend(misled(stage).map(|(what, label, head)| (what, label, relayed(head))));
    all
}

/// The same as heads of relayed envelopes, and envelopes that are none.
fn relayed_envelopes(stage: &Stage<'_>) -> Vec<Attack> {
    let [me, victim, third] = ids(stage);
    let carries = |head: Vec<u8>, kind: u8, behind: usize| {
        // Of the carried header: kind, lane, zero, index, counter.
        [&head[..], &[kind, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1], &vec![0x40; behind]].concat()
    };
    let here = || leading(8, me, victim);
    let mut all = vec![
        ("a relayed envelope of nothing", "too_short", carries(here(), ENVELOPE, 16)),
        ("a relayed envelope for nobody's session", "unknown_index", carries(here(), ENVELOPE, 50)),
        ("a relayed one in a relayed one", "relay_nested", carries(here(), RELAYED_ENVELOPE, 100)),
        ("another one, for the third", "relay_nested", carries(leading(8, me, third), RELAYED_ENVELOPE, 100)),
        ("a notice as a relayed envelope", "relay_garbled", carries(here(), 0x11, 50)),
        ("a QUIC packet as a relayed envelope", "relay_garbled", carries(here(), 0x40, 50)),
    ];
    all.extend(misled(stage).map(|(what, label, head)| (what, label, carries(head, ENVELOPE, 50))));
    all
}

/// Where datagrams do not go.
fn misled(stage: &Stage<'_>) -> [(&'static str, &'static str, Vec<u8>); 7] {
    let [me, victim, third] = ids(stage);
    let nobody = HostId([7; 8]);
    [
        ("a hop limit above the highest", "relay_garbled", leading(255, me, third)),
        ("a datagram for a stranger", "relay_stranger", leading(8, me, nobody)),
        ("a datagram of a stranger", "relay_stranger", leading(8, nobody, third)),
        ("a hop limit that ends here", "relay_hops", leading(1, me, third)),
        ("a hop limit that ended before", "relay_hops", leading(0, me, third)),
        ("a datagram of the victim itself", "relay_loop", leading(8, victim, third)),
        ("a datagram that goes back", "relay_loop", leading(8, third, me)),
    ]
}

/// The attacker, the victim, the third host.
fn ids(stage: &Stage<'_>) -> [HostId; 3] {
    [HostKey(stage.key.public()), stage.victim_key, stage.third_key].map(|key| key.id())
}

/// Hop limit, source and target.
fn leading(limit: u8, source: HostId, target: HostId) -> Vec<u8> {
    [&[limit][..], &source.0, &target.0].concat()
}

fn frames(network: NetworkId, me: Who, victim: Who, third: Who) -> Vec<Attack> {
    let strange = |to: Mac, from: Mac| ethernet(to, from, STRANGE, &[0; 50]);
    let from_v4 = |from: Who, source: Ipv4Addr| {
        packet((victim.mac, from.mac), source.into(), victim.v4.into(), 17, &[0; 30])
    };
    let from_v6 =
        |source: Ipv6Addr| packet((victim.mac, me.mac), source.into(), IpAddr::V6(victim.v6), 17, &[0; 30]);
    let nobodys = Ipv4Addr::from(u32::from(third.v4) + 1);
    let gateway = Ipv4Addr::from(u32::from(me.v4) & 0xffff_0000 | 1);
    let lie = advertisement(victim.mac, me.mac, me.v6, me.mac, third.v6);
    let mut ieee802 = arp(me.mac, me.mac, third.v4);
    ieee802[15] = 6;
    let frame = |bytes: &[u8]| on(network, FRAME, bytes);
    let open = |bytes: &[u8]| on(network, FRAME_OPEN_CHECKSUM, bytes);
    let unknown = on(NetworkId(0xdead), FRAME, &strange(victim.mac, me.mac));
    vec![
        ("a network that nobody has", "network_unknown", unknown),
        ("half an Ethernet header", "frame_too_short", frame(&[2; 10])),
        ("a VLAN tag that is cut off", "frame_too_short", frame(&tagged(&strange(victim.mac, me.mac))[..16])),
        (
            "a frame longer than the MTU",
            "frame_too_long",
            frame(&[&strange(victim.mac, me.mac)[..], &[0; 1300]].concat()),
        ),
        ("source: zero", "source_invalid", frame(&strange(victim.mac, Mac([0; 6])))),
        ("source: a group", "source_invalid", frame(&strange(victim.mac, Mac([1, 0, 0x5e, 0, 0, 1])))),
        ("source: the gateway", "gateway_stays", frame(&strange(victim.mac, Mac::GATEWAY))),
        ("destination: the gateway", "gateway_stays", frame(&strange(Mac::GATEWAY, me.mac))),
        (
            "destination: the bridge's protocols",
            "link_local",
            frame(&strange(Mac([1, 0x80, 0xc2, 0, 0, 0]), me.mac)),
        ),
        ("source: the victim's own container", "source_not_theirs", frame(&strange(victim.mac, victim.mac))),
        ("source: a third host's container", "source_not_theirs", frame(&strange(victim.mac, third.mac))),
        ("destination: a third host's container", "not_here", frame(&strange(third.mac, me.mac))),
        ("IPv4 of the victim's own container", "address_not_theirs", frame(&from_v4(me, victim.v4))),
        ("IPv4 of a third host's container", "address_not_theirs", frame(&from_v4(me, third.v4))),
        ("IPv4 of a third host's block", "address_not_theirs", frame(&from_v4(me, nobodys))),
        ("IPv4 of the gateway", "address_not_theirs", frame(&from_v4(me, gateway))),
        ("the same behind a VLAN tag", "address_not_theirs", frame(&tagged(&from_v4(me, third.v4)))),
        ("the same behind two", "address_not_theirs", frame(&tagged(&tagged(&from_v4(me, third.v4))))),
        ("IPv6 of the victim's own container", "address_not_theirs", frame(&from_v6(victim.v6))),
        ("IPv6 of a third host's container", "address_not_theirs", frame(&from_v6(third.v6))),
        ("ARP: another's address is here", "address_not_theirs", frame(&arp(me.mac, me.mac, third.v4))),
        ("ARP: the gateway is here", "address_not_theirs", frame(&arp(me.mac, me.mac, gateway))),
        ("ARP: our address is at another's MAC", "address_not_theirs", frame(&arp(me.mac, third.mac, me.v4))),
        (
            "ND: another's address is here",
            "address_not_theirs",
            frame(&advertisement(victim.mac, me.mac, me.v6, me.mac, third.v6)),
        ),
        ("the same behind 8 extension headers", "address_not_theirs", frame(&behind_options(&lie, 8))),
        ("the same behind 9", "headers_hidden", frame(&behind_options(&lie, 9))),
        ("ARP of IEEE 802 hardware", "address_not_theirs", frame(&ieee802)),
        ("\"checksum not computed\" of ARP", "checksum_impossible", open(&arp(me.mac, me.mac, me.v4))),
        (
            "\"checksum not computed\" of no protocol",
            "checksum_impossible",
            open(&strange(victim.mac, me.mac)),
        ),
    ]
}

fn pieces(network: NetworkId, me: Who, victim: Who, third: Who) -> Vec<Attack> {
    let macs = (victim.mac, me.mac);
    let headers = tcp_headers(macs, me.v4, victim.v4, 0x10);
    let udp = udp_headers(macs, me.v4, victim.v4);
    let [syn, rst, urgent] = [0x02, 0x14, 0x30].map(|flags| tcp_headers(macs, me.v4, victim.v4, flags));
    let icmp = packet(macs, me.v4.into(), victim.v4.into(), 1, &[8; 40]);
    let mac_of_third = tcp_headers((victim.mac, third.mac), me.v4, victim.v4, 0x10);
    let ip_of_third = tcp_headers(macs, third.v4, victim.v4, 0x10);
    let good =
        Piece { kind: 1, index: 0, last: 1, gso_size: 500, offset: 0, headers: &headers, payload: 1000 };
    let piece = |piece: Piece<'_>| on(network, PIECE, &piece.body());
    let invalid = [
        ("piece: cut off in its header", on(network, PIECE, &good.body()[..8])),
        ("piece: cut off in the copy of the headers", on(network, PIECE, &good.body()[..40])),
        ("piece: no payload", piece(Piece { payload: 0, ..good })),
        ("piece: kind 0", piece(Piece { kind: 0, ..good })),
        ("piece: kind 9", piece(Piece { kind: 9, ..good })),
        ("piece: headers of another kind", piece(Piece { kind: 2, ..good })),
        ("piece: headers of UDP, said to be TCP", piece(Piece { headers: &udp, ..good })),
        ("piece: headers of ICMP", piece(Piece { headers: &icmp, ..good })),
        ("piece: SYN on many segments", piece(Piece { headers: &syn, ..good })),
        ("piece: RST on many segments", piece(Piece { headers: &rst, ..good })),
        ("piece: URG on many segments", piece(Piece { headers: &urgent, ..good })),
        ("piece: segments of 0 bytes", piece(Piece { gso_size: 0, ..good })),
        ("piece: segments longer than the MTU", piece(Piece { gso_size: 1301, payload: 1301, ..good })),
        ("piece: segments of 65535 bytes", piece(Piece { gso_size: 0xffff, ..good })),
        ("piece: no whole segments", piece(Piece { payload: 999, ..good })),
        ("piece: number beyond the last", piece(Piece { index: 2, ..good })),
        ("piece: number 255 of 0", piece(Piece { index: 255, last: 0, ..good })),
        (
            "piece: number 255 past 64 KB",
            piece(Piece { index: 255, last: 255, offset: 65_280, payload: 256, gso_size: 256, ..good }),
        ),
        ("piece: offset of another number", piece(Piece { offset: 500, ..good })),
        ("piece: offset 65535", piece(Piece { index: 1, offset: 0xffff, ..good })),
        (
            "piece: 65 datagrams of UDP",
            piece(Piece { kind: 3, headers: &udp, gso_size: 10, payload: 650, last: 0, ..good }),
        ),
    ];
    let mut all: Vec<Attack> = invalid.map(|(what, chunks)| (what, "piece_invalid", chunks)).into();
    let unknown = on(NetworkId(0xdead), PIECE, &good.body());
    all.push(("piece: of a network that nobody has", "network_unknown", unknown));
    let borrowed = piece(Piece { headers: &mac_of_third, ..good });
    all.push(("piece: source a third host's container", "source_not_theirs", borrowed));
    let borrowed = piece(Piece { headers: &ip_of_third, ..good });
    all.push(("piece: IPv4 of a third host's container", "address_not_theirs", borrowed));
    all
}

fn who(container: &crate::fixture::Container<'_>) -> Who {
    Who {
        mac: container.mac.parse().unwrap(),
        v4: container.v4.parse().unwrap(),
        v6: container.v6.parse().unwrap(),
    }
}
