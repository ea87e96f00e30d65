//! Lanes that the kernel refuses something, and how they end.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use weft_api::id::{HostId, Mac};
use weft_api::roster::Cipher;
use weft_router::offload::{Gso, VnetHeader};
use weft_router::seal::{Chain, Direction};
use weft_router::session::Path as Way;
use weft_router::switch::{Owner, Table};

use super::*;
use crate::tables::Path;

const NETWORK: NetworkId = NetworkId(1);
const PEER: HostId = HostId([2; 8]);
const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 1]);
const REMOTE: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A TCP superframe of three segments, with the headers that matter.
fn superframe() -> Vec<u8> {
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: Gso::Tcp4 as u8,
        hdr_len: 54,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 16,
    };
    let mut frame = [&REMOTE.0[..], &LOCAL.0, &[8, 0]].concat();
    frame.extend([0x45, 0, 0x0b, 0xe0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.resize(54 + 3000, 7);
    [&vnet.to_bytes()[..], &frame].concat()
}

fn towards(peer: &UdpSocket) -> Arc<SendEpoch> {
    let path = Path { way: Way::Udp(peer.local_addr().unwrap()), datagram: 1472 };
    let key = Chain::first(&[1; 32]).seal_key(Cipher::Aes256Gcm, Direction::FromDialler);
    Arc::new(SendEpoch::new(PEER, 9, key, Some(path)))
}

fn tables(epoch: &Arc<SendEpoch>) -> Arc<Tables> {
    let mut table = Table::new(NETWORK, 1340, Vec::new());
    table.hosts.insert(PEER);
    table.add_endpoint(REMOTE, &[], Owner::Host(PEER));
    Arc::new(Tables {
        sends: HashMap::from([(PEER, Arc::clone(epoch))]),
        networks: HashMap::from([(NETWORK, Arc::new(table))]),
        ..Tables::default()
    })
}

/// The kernel refuses UDP_SEGMENT on a socket that computes no UDP checksums: a stand-in for a device that cannot.
#[test]
fn without_gso_the_lane_sends_one_by_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

    let (lane, mut events) = LaneHandle::start(vec![socket]).unwrap();
    assert!(lane.offloads().gso, "not yet known");
    lane.set_tables(tables(&towards(&peer)));
    let (tap, far) = UnixDatagram::pair().unwrap();
    lane.attach_tap(NETWORK, vec![TapQueue::from_fd(far.into(), Offloads::ALL).unwrap()]);

    for round in 0..2 {
        tap.send(&superframe()).unwrap();
        for counter in 0..3 {
            let mut buffer = [0; 2000];
            let len = peer.recv(&mut buffer).expect("each piece by itself");
            assert!(len > 1000);
            assert_eq!(buffer[15], round * 3 + counter, "a counter is used once");
        }
    }
    assert!(matches!(events.blocking_recv(), Some(LaneEvent::OffloadLost { what: "UDP_SEGMENT" })));
    assert!(!lane.offloads().gso);
    assert_eq!(lane.drops().by_label(), BTreeMap::new());
    assert!(events.try_recv().is_err(), "told once");
}

/// A lane beside lane 0 uses its own port and counters once the peer has shown that it hears them.
#[test]
fn further_lanes_go_by_lane_0_until_they_are_heard() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (lanes, mut events) = LaneHandle::start(listen("127.0.0.1:0".parse().unwrap(), 2).unwrap()).unwrap();
    let epoch = towards(&peer);
    lanes.set_tables(tables(&epoch));
    let (_first, far) = UnixDatagram::pair().unwrap();
    let (tap, far_of_1) = UnixDatagram::pair().unwrap();
    let queues = [far, far_of_1].map(|far| TapQueue::from_fd(far.into(), Offloads::ALL).unwrap());
    lanes.attach_tap(NETWORK, queues.into());
    let piece = || {
        let mut buffer = [0; 2000];
        let (_, from) = peer.recv_from(&mut buffer).expect("a piece in time");
        (from, buffer[1], buffer[15])
    };

    let port = lanes.local_addr().unwrap();
    for round in 0..2 {
        tap.send(&superframe()).unwrap();
        for counter in 0..3 {
            assert_eq!(piece(), (port, 0, round * 3 + counter));
        }
    }
    assert!(matches!(events.blocking_recv(), Some(LaneEvent::LaneWanted { index: 9, lane: 1 })));
    assert!(events.try_recv().is_err(), "told once");

    let probe = Aim { lane: 1, ..Aim::default() };
    assert!(lanes.send_aimed(&epoch, ControlChunk::Probe(vec![1; 9]), probe));
    let (own_port, lane, counter) = piece();
    assert_eq!((lane, counter), (1, 0));
    assert_ne!(own_port, port);

    epoch.set_heard(1, true);
    tap.send(&superframe()).unwrap();
    for counter in 1..4 {
        assert_eq!(piece(), (own_port, 1, counter));
    }
    assert!(events.try_recv().is_err(), "nothing is wanted");
    assert!(!lanes.send_aimed(&epoch, ControlChunk::Probe(vec![1; 9]), Aim { lane: 2, ..Aim::default() }));
}

#[test]
fn the_lane_ends_with_its_last_handle() {
    let (lane, mut events) = LaneHandle::start(vec![UdpSocket::bind("127.0.0.1:0").unwrap()]).unwrap();
    drop(lane.clone());
    assert!(matches!(events.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
    drop(lane);
    assert!(matches!(events.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}
