//! Two lanes over loopback, with socket pairs for taps and the test in the middle of the wire: what arrives, and under which
//! name all else is dropped. Needs no privilege.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Instant;

use weft_api::id::Mac;
use weft_api::roster::Cipher;
use weft_router::drop::DropReason;
use weft_router::offload::{Gso, Offloads, VnetHeader};
use weft_router::session::{Path as Way, Remote};
use weft_router::switch::Owner;
use weft_router::switch::group::Heard;
use weft_router_io::lane::{Aim, ControlChunk, LaneEvent};
use weft_router_io::tables::{Path, Tables};
use weft_router_io::tap::TapQueue;

#[path = "lane/pair.rs"]
mod pair;
#[path = "lane/waiting.rs"]
mod waiting;

use pair::*;

#[test]
fn frames_arrive_under_every_suite() {
    for cipher in Cipher::ALL {
        let mut pair = Pair::new(cipher);
        for frame in [udp(mac(1), b"hello"), udp(Mac::BROADCAST, &bytes(1298))] {
            pair.a.write(VnetHeader::default(), &frame);
            let datagram = pair.take();
            assert!(!datagram.windows(frame.len()).any(|w| w == frame), "sealed");
            pair.give(&pair.b, &datagram);
            assert_eq!(pair.b.read(), (VnetHeader::default(), frame));
        }
        let LaneEvent::FirstAuthentic { index, from } = pair.b.events.try_recv().unwrap() else {
            panic!("the first event is the first authentic envelope");
        };
        assert_eq!((index, from), (INDEX_AT_B, Remote::Udp(pair.wire.local_addr().unwrap())));
        eventually("counted when the batch is over", || {
            pair.a.sends.sent().datagrams == 2 && pair.b.receives.received() == pair.a.sends.sent()
        });
        pair.a.drops(&[]);
        pair.b.drops(&[]);
    }
}

#[test]
fn a_superframe_arrives_as_one() {
    let pair = Pair::new(Cipher::Aegis128L);
    let (vnet, frame) = superframe(&bytes(20_000), 1288);
    pair.a.write(vnet, &frame);
    let train: Vec<_> = (0..16).map(|_| pair.take()).collect();
    let mut glued = Vec::new();
    train.iter().for_each(|datagram| pair.give(&pair.b, datagram));
    while glued.len() < 20_000 {
        let (vnet, frame) = pair.b.read();
        assert!(vnet.needs_checksum());
        assert!(!vnet.is_superframe() || vnet.gso_size == 1288);
        glued.extend_from_slice(&frame[54..]);
    }
    assert_eq!(glued, frame[54..], "the payload, in as many superframes as there were batches");
    pair.b.drops(&[]);
}

#[test]
fn a_short_last_piece_is_padded_where_the_train_has_room() {
    let pair = Pair::new(Cipher::Aegis128L);
    // 47 datagrams of 1390 bytes are the longest train; the short one still fits behind them, but not at their length.
    for (whole, padded) in [(10, false), (46, true), (47, false)] {
        let payload = bytes(whole * 1288 + 50);
        let (vnet, frame) = superframe(&payload, 1288);
        pair.a.write(vnet, &frame);
        let train: Vec<_> = (0..=whole).map(|_| pair.take()).collect();
        assert_eq!(train[whole].len() == train[0].len(), padded, "{whole} pieces before it");
        train.iter().for_each(|datagram| pair.give(&pair.b, datagram));
        let mut glued = Vec::new();
        while glued.len() < payload.len() {
            glued.extend_from_slice(&pair.b.read().1[54..]);
        }
        assert_eq!(glued, payload);
    }
    pair.a.drops(&[]);
    pair.b.drops(&[]);
}

#[test]
fn a_lost_piece_costs_its_own_segments() {
    let pair = Pair::new(Cipher::Aegis128L);
    let (vnet, frame) = superframe(&bytes(5000), 1000);
    pair.a.write(vnet, &frame);
    for piece in 0..5 {
        let datagram = pair.take();
        if piece != 2 {
            pair.give(&pair.b, &datagram);
        }
    }
    let mut got = BTreeMap::new();
    while got.values().map(Vec::len).sum::<usize>() < 4000 {
        let (_, part) = pair.b.read();
        let sequence = u32::from_be_bytes(part[38..42].try_into().unwrap());
        got.insert(sequence as usize - 1, part[54..].to_vec());
    }
    for (at, part) in got {
        assert_eq!(part, frame[54 + at..][..part.len()]);
        assert!(!(2000..3000).contains(&at));
    }
}

#[test]
fn small_udp_is_merged() {
    let pair = Pair::new(Cipher::Aegis128L);
    // Held back until the lane is busy elsewhere is not needed: frames written before the tap is attached are one batch.
    pair.a.lane.detach_tap(NETWORK);
    let (tap, far) = UnixDatagram::pair().unwrap();
    let frames: Vec<_> = (0..10).map(|id| open_udp(id, &bytes(64)).1).collect();
    for frame in &frames {
        tap.send(&[&open_udp(0, b"x").0.to_bytes(), &frame[..]].concat()).unwrap();
    }
    pair.a.lane.attach_tap(NETWORK, vec![TapQueue::from_fd(far.into(), Offloads::ALL).unwrap()]);
    let datagram = pair.take();
    pair.give(&pair.b, &datagram);
    let (vnet, frame) = pair.b.read();
    assert_eq!((vnet.gso_type, vnet.gso_size), (Gso::Udp as u8, 64));
    assert_eq!(frame[42..], bytes(64).repeat(10));
    pair.b.drops(&[]);
}

#[test]
fn small_frames_share_an_envelope() {
    let pair = Pair::new(Cipher::Aegis128L);
    pair.a.lane.detach_tap(NETWORK);
    let (tap, far) = UnixDatagram::pair().unwrap();
    let frames: Vec<_> = (0..40).map(|n| udp(mac(1), &bytes(100 + n))).collect();
    for frame in &frames {
        tap.send(&[&VnetHeader::default().to_bytes(), &frame[..]].concat()).unwrap();
    }
    pair.a.lane.attach_tap(NETWORK, vec![TapQueue::from_fd(far.into(), Offloads::ALL).unwrap()]);
    let mut seen = 0;
    while seen < frames.len() {
        pair.give(&pair.b, &pair.take());
        pair.b.tap.set_read_timeout(Some(SILENCE)).unwrap();
        let mut buffer = [0; 2000];
        while let Ok(len) = pair.b.tap.recv(&mut buffer) {
            assert_eq!(buffer[VnetHeader::LEN..len], frames[seen][..], "in order");
            seen += 1;
        }
    }
    std::thread::sleep(SILENCE);
    assert!(pair.a.sends.sent().datagrams <= 6, "{:?} for 40 frames", pair.a.sends.sent());
}

#[test]
fn replayed_flipped_unknown_and_junk_have_their_names() {
    let mut pair = Pair::new(Cipher::Aegis128L);
    let frame = udp(mac(1), b"once");
    pair.a.write(VnetHeader::default(), &frame);
    let good = pair.take();
    let mut flipped = good.clone();
    flipped[30] ^= 1;
    pair.give(&pair.b, &flipped);
    pair.b.drops(&[(DropReason::NotAuthentic, 1)]);
    pair.give(&pair.b, &good);
    assert_eq!(pair.b.read().1, frame);
    pair.give(&pair.b, &good);
    pair.b.drops(&[(DropReason::NotAuthentic, 1), (DropReason::Replayed, 1)]);
    assert_eq!(pair.b.receives.drops().get(DropReason::Replayed), 1, "at the link, too");

    let mut unknown = good.clone();
    unknown[4] = 9;
    pair.give(&pair.b, &unknown);
    let LaneEvent::UnknownIndex { index, len, from } = pair.b.event() else { panic!("an unknown index") };
    assert_eq!((index, len), (0x0900_000b, good.len()));
    pair.b.lane.send_notice(from, index).unwrap();
    let notice = pair.take();
    assert_eq!(notice.len(), 16);
    pair.give(&pair.a, &notice);
    assert!(matches!(pair.a.event(), LaneEvent::Notice { index: 0x0900_000b, .. }));

    let mut lane = good.clone();
    lane[1] = 64;
    let mut zero = good.clone();
    zero[2] = 1;
    for junk in [&[][..], &[5; 80], &good[..20], &lane, &zero] {
        pair.give(&pair.b, junk);
    }
    pair.give(&pair.b, &[0xc0; 30]);
    assert!(matches!(pair.b.event(), LaneEvent::Bare { bytes, .. } if bytes == [0xc0; 30]));
    pair.b.drops(&[
        (DropReason::NotAuthentic, 1),
        (DropReason::Replayed, 1),
        (DropReason::UnknownIndex, 1),
        (DropReason::Empty, 1),
        (DropReason::UnknownKind, 1),
        (DropReason::TooShort, 1),
        (DropReason::LaneOutOfRange, 1),
        (DropReason::HeaderNotZero, 1),
    ]);
    pair.b.reads_nothing();
}

#[test]
fn the_switch_is_asked_on_both_ends() {
    let pair = Pair::new(Cipher::Aes256Gcm);
    let mut forged = udp(mac(0), b"forged");
    forged[6..12].copy_from_slice(&mac(1).0);
    pair.a.write(VnetHeader::default(), &forged);
    pair.a.drops(&[(DropReason::SourceNotTheirs, 1)]);

    // A host that lies to its own switch, and a superframe, which is judged when it is whole.
    let mut lying = table(0);
    lying.add_endpoint(mac(1), &[IpAddr::V4(ip(1))], Owner::Here);
    lying.add_endpoint(mac(0), &[IpAddr::V4(ip(0))], Owner::Host(B));
    pair.a.set_table(lying);
    let (vnet, mut frame) = superframe(&bytes(3000), 1000);
    frame[..6].copy_from_slice(&mac(0).0);
    frame[6..12].copy_from_slice(&mac(1).0);
    frame[26..30].copy_from_slice(&ip(1).octets());
    pair.a.write(vnet, &frame);
    for _ in 0..3 {
        pair.give(&pair.b, &pair.take());
    }
    eventually("judged", || pair.b.lane.drops().get(DropReason::SourceNotTheirs) > 0);
    assert_eq!(pair.b.lane.drops().by_label().keys().collect::<Vec<_>>(), ["source_not_theirs"]);
    pair.b.reads_nothing();
}

#[test]
fn a_question_for_a_remote_endpoint_is_answered_into_the_tap() {
    let pair = Pair::new(Cipher::Aegis128L);
    let mut asks = [&Mac::BROADCAST.0[..], &mac(0).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac(0).0].concat();
    asks.extend([ip(0).octets(), [0; 4]].concat());
    asks.extend([[0; 2].as_slice(), &ip(1).octets()].concat());
    pair.a.write(VnetHeader::default(), &asks);
    let (vnet, said) = pair.a.read();
    assert_eq!((vnet, &said[..6], &said[6..12]), (VnetHeader::default(), &mac(0).0[..], &mac(1).0[..]));
    assert_eq!((said[21], &said[28..32]), (2, &ip(1).octets()[..]), "a reply of who was asked for");
    pair.a.drops(&[(DropReason::AnsweredHere, 1)]);
    assert_eq!(pair.a.sends.sent().datagrams, 0);
}

#[test]
fn what_containers_say_of_groups_is_told() {
    let mut pair = Pair::new(Cipher::Aegis128L);
    let mut report =
        [&[1, 0, 0x5e, 1, 2, 3][..], &mac(0).0, &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0]].concat();
    report.extend(ip(0).octets());
    report.extend([239, 1, 2, 3, 0x16, 0, 0, 0, 239, 1, 2, 3]);
    pair.a.write(VnetHeader::default(), &report);
    let LaneEvent::Groups { network: NETWORK, heard } = pair.a.event() else { panic!("what was said") };
    assert_eq!(heard, [Heard::Joined(IpAddr::from([239, 1, 2, 3]))]);
    pair.a.drops(&[(DropReason::MembershipNoted, 1)]);
    pair.a.lane.write_tap(NETWORK, b"a question of our own");
    assert_eq!(pair.a.read(), (VnetHeader::default(), b"a question of our own".to_vec()));
}

#[test]
fn what_cannot_leave_has_a_name() {
    let pair = Pair::new(Cipher::ChaCha20Poly1305);
    pair.a.sends.set_path(None);
    pair.a.write(VnetHeader::default(), &udp(mac(1), b"no path"));
    pair.a.drops(&[(DropReason::NoPath, 1)]);
    pair.a.sends.set_path(Some(Path { way: Way::Udp(pair.b.address()), datagram: 60 }));
    pair.a.write(VnetHeader::default(), &udp(mac(1), &bytes(700)));
    pair.a.drops(&[(DropReason::NoPath, 1), (DropReason::TooBigForPath, 1)]);
    pair.a.write(VnetHeader::default(), &udp(mac(1), &bytes(1400)));
    pair.a.write(VnetHeader::default(), &[1; 9]);
    let before = [(DropReason::NoPath, 1), (DropReason::TooBigForPath, 1)];
    let and = [(DropReason::FrameTooLong, 1), (DropReason::FrameTooShort, 1)];
    pair.a.drops(&[before, and].concat());
    pair.b.lane.detach_tap(NETWORK);
    pair.a.write(VnetHeader::default(), &udp(mac(1), b"no tap"));
    pair.b.drops(&[(DropReason::NoTap, 1)]);
    pair.a.lane.set_tables(Arc::default());
    pair.a.write(VnetHeader::default(), &udp(mac(1), b"no network"));
    let gone = [(DropReason::NetworkUnknown, 1)];
    pair.a.drops(&[&before[..], &and, &gone].concat());
}

#[test]
fn what_fits_no_envelope_travels_in_fragments_or_its_sender_is_told() {
    let mut pair = Pair::new(Cipher::Aegis128L);
    pair.a.sends.set_path(Some(Path { way: Way::Udp(pair.b.address()), datagram: 600 }));
    let frame = udp(mac(1), &bytes(1300));
    for _ in 0..20 {
        pair.a.write(VnetHeader::default(), &frame);
        assert_eq!(pair.b.read(), (VnetHeader::default(), frame.clone()));
    }
    let (vnet, open) = open_udp(7, &bytes(1300));
    pair.a.write(vnet, &open);
    assert_eq!(pair.b.read(), (vnet, open), "its checksum still open");
    let epoch = Arc::clone(&pair.a.sends);
    assert!(pair.a.lane.send_sealed(&epoch, ControlChunk::Quic(vec![0xc3; 1200])));
    assert!(
        matches!(pair.b.event(), LaneEvent::Quic { index: INDEX_AT_B, bytes, .. } if bytes == [0xc3; 1200])
    );
    pair.a.drops(&[]);

    let mut table = table(0);
    table.gateways = vec![IpAddr::V4(Ipv4Addr::new(10, 32, 0, 254))];
    pair.a.set_table(table);
    pair.a.sends.set_size(600, true);
    eventually("an answer from the gateway", || {
        pair.a.write(VnetHeader::default(), &frame);
        pair.a.tap.set_read_timeout(Some(SILENCE)).unwrap();
        let mut buffer = [0; 2048];
        pair.a.tap.recv(&mut buffer).is_ok_and(|len| {
            let frame = &buffer[VnetHeader::LEN..len];
            frame[..6] == mac(0).0 && frame[34..36] == [3, 4] && frame[40..42] == [2, 0x23]
        })
    });
}

#[test]
fn control_chunks_cross_sealed() {
    let mut pair = Pair::new(Cipher::Aegis128L);
    let epoch = Arc::clone(&pair.a.sends);
    assert!(pair.a.lane.send_sealed(&epoch, ControlChunk::Quic(vec![0xc3; 1200])));
    pair.give(&pair.b, &pair.take());
    assert!(
        matches!(pair.b.event(), LaneEvent::Quic { index: INDEX_AT_B, bytes, .. } if bytes == [0xc3; 1200])
    );

    let aim = Aim { datagram: Some(1400), ..Aim::default() };
    assert!(pair.a.lane.send_aimed(&epoch, ControlChunk::Probe(b"ask".to_vec()), aim));
    let padded = pair.take();
    assert_eq!(padded.len(), 1400);
    pair.give(&pair.b, &padded);
    let LaneEvent::Probe { body, answer, datagram, .. } = pair.b.event() else { panic!("a probe") };
    assert_eq!((&body[..], answer, datagram), (&b"ask"[..], false, 1400));

    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    let from_elsewhere = |pair: &mut Pair, chunk| {
        let aim = Aim { path: elsewhere.local_addr().ok().map(Way::Udp), ..Aim::default() };
        assert!(pair.a.lane.send_aimed(&epoch, chunk, aim));
        let mut buffer = [0; 100];
        let len = elsewhere.recv(&mut buffer).unwrap();
        elsewhere.send_to(&buffer[..len], pair.b.address()).unwrap();
    };
    from_elsewhere(&mut pair, ControlChunk::Answer(b"here".to_vec()));
    assert!(
        matches!(pair.b.event(), LaneEvent::Probe { answer: true, .. }),
        "who looks around has not moved"
    );
    from_elsewhere(&mut pair, ControlChunk::Quic(vec![0xc3; 20]));
    let moved = pair.b.event();
    assert!(
        matches!(moved, LaneEvent::Moved { index: INDEX_AT_B, from, .. } if Some(from) == elsewhere.local_addr().ok())
    );
    assert!(matches!(pair.b.event(), LaneEvent::Quic { .. }));
    pair.a.drops(&[]);
    pair.b.drops(&[]);
}
