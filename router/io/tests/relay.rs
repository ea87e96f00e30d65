//! Three lanes in a row: what the first seals for the last passes the one in the middle, which cannot open it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::{BTreeMap, HashMap};
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use tokio::sync::mpsc::Receiver;
use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::roster::Cipher;
use weft_router::chunk::probe_head;
use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, Header, TAG_LEN};
use weft_router::offload::{Gso, Offloads, VnetHeader};
use weft_router::relay::{MAX_HOPS, RELAY_FRONT, RELAY_OVERHEAD, RelayTable, Relayed};
use weft_router::seal::{Chain, Direction, SealKey};
use weft_router::session::{Path as Way, Remote};
use weft_router::switch::{Owner, Table};
use weft_router_io::lane::{ControlChunk, LaneEvent, LaneHandle};
use weft_router_io::tables::{Path, ReceiveEpoch, SendEpoch, Tables};
use weft_router_io::tap::TapQueue;

const NETWORK: NetworkId = NetworkId(7);
const DATAGRAM: u16 = 1472;
const PATIENCE: Duration = Duration::from_secs(10);

/// A host of the row.
struct Side {
    lane: LaneHandle,
    events: Receiver<LaneEvent>,
    tap: UnixDatagram,
    tables: Tables,
}

fn id(n: usize) -> HostId {
    HostId([n as u8 + 1; 8])
}

fn mac(n: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, n as u8])
}

fn index(from: usize, to: usize) -> u32 {
    (from * 10 + to) as u32
}

fn chain(a: usize, b: usize) -> Chain {
    Chain::first(&[(a * 3 + b) as u8; 32])
}

fn row() -> Vec<Side> {
    let mut sides: Vec<Side> = (0..3).map(side).collect();
    let addresses: Vec<_> = sides.iter().map(|s| s.lane.local_addr().unwrap()).collect();
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let chain = chain(a, b);
        for (n, peer, from) in [(a, b, Direction::FromDialler), (b, a, Direction::FromListener)] {
            let path = match (n, peer) {
                (0, 2) | (2, 0) => {
                    Path { way: Way::Relay(id(1)), datagram: DATAGRAM - RELAY_OVERHEAD as u16 }
                }
                _ => Path { way: Way::Udp(addresses[peer]), datagram: DATAGRAM },
            };
            let seal = chain.seal_key(Cipher::Aes256Gcm, from);
            let open = chain.open_key(Cipher::Aes256Gcm, from.reversed());
            let send = SendEpoch::new(id(peer), index(n, peer), seal, Some(path));
            let receive = ReceiveEpoch::new(id(peer), index(peer, n), open);
            let tables = &mut sides[n].tables;
            tables.sends.insert(id(peer), Arc::new(send));
            tables.receives.insert(index(peer, n), Arc::new(receive));
        }
    }
    sides.iter().for_each(|s| s.lane.set_tables(Arc::new(s.tables.clone())));
    sides
}

fn side(n: usize) -> Side {
    let (lane, events) = LaneHandle::start(vec![UdpSocket::bind("127.0.0.1:0").unwrap()]).unwrap();
    let (tap, far) = UnixDatagram::pair().unwrap();
    tap.set_read_timeout(Some(PATIENCE)).unwrap();
    lane.attach_tap(NETWORK, vec![TapQueue::from_fd(far.into(), Offloads::ALL).unwrap()]);
    let mut table = Table::new(NETWORK, 1340, Vec::new());
    for other in [0, 2] {
        let owner = if other == n { Owner::Here } else { Owner::Host(id(other)) };
        table.add_endpoint(mac(other), &[], owner);
        if other != n {
            table.hosts.insert(id(other));
        }
    }
    let relay = RelayTable { me: id(n), members: (0..4).map(id).collect(), routes: BTreeMap::new() };
    let tables = Tables {
        networks: HashMap::from([(NETWORK, Arc::new(table))]),
        relay: Arc::new(relay),
        ..Tables::default()
    };
    Side { lane, events, tap, tables }
}

impl Side {
    fn write(&self, vnet: VnetHeader, frame: &[u8]) {
        self.tap.send(&[&vnet.to_bytes(), frame].concat()).unwrap();
    }

    fn read(&self) -> (VnetHeader, Vec<u8>) {
        let mut buffer = vec![0; 70_000];
        let len = self.tap.recv(&mut buffer).expect("a frame in time");
        let (vnet, frame) = VnetHeader::parse(&buffer[..len]).unwrap();
        (vnet, frame.to_vec())
    }

    /// The next event that is not about a new key.
    fn event(&mut self) -> LaneEvent {
        let since = Instant::now();
        loop {
            match self.events.try_recv() {
                Ok(LaneEvent::FirstAuthentic { .. } | LaneEvent::LaneWanted { .. }) => {}
                Ok(event) => return event,
                Err(_) => assert!(since.elapsed() < PATIENCE, "an event in time"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn dropped(&self, reason: DropReason) {
        self.dropped_more(reason, 0);
    }

    fn dropped_more(&self, reason: DropReason, before: u64) {
        let since = Instant::now();
        while self.lane.drops().get(reason) <= before {
            assert!(since.elapsed() < PATIENCE, "{reason:?} in {:?}", self.lane.drops().by_label());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn superframe(from: usize, to: usize, len: usize) -> (VnetHeader, Vec<u8>) {
    let payload: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(from).0, mac(to).0)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1000, 2000, 1, 4096)
        .ack(1)
        .write(&mut frame, &payload)
        .unwrap();
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: Gso::Tcp4 as u8,
        hdr_len: 54,
        gso_size: 1286,
        csum_start: 34,
        csum_offset: 16,
    };
    (vnet, frame)
}

#[test]
fn frames_and_superframes_pass_the_one_in_the_middle() {
    let sides = row();
    for (from, to) in [(0, 2), (2, 0)] {
        for len in [100, 1286 * 20, 60_000] {
            let (mut vnet, frame) = superframe(from, to, len);
            if len == 100 {
                vnet = VnetHeader { gso_type: 0, gso_size: 0, ..vnet };
            }
            sides[from].write(vnet, &frame);
            let mut got = 0;
            while got < len {
                got += sides[to].read().1.len() - 54;
            }
            assert_eq!(got, len, "superframes come as they are, or in parts");
        }
    }
    for side in &sides {
        assert_eq!(side.lane.drops().by_label(), BTreeMap::new());
    }
    let through = sides[1].tables.sends[&id(2)].sent();
    assert!(through.datagrams >= 60 && through.bytes > 85_000, "{through:?}");
}

#[test]
fn control_chunks_and_bare_packets_know_the_way_back() {
    let mut sides = row();
    let to_last = Arc::clone(&sides[0].tables.sends[&id(2)]);
    sides[0].lane.send_sealed(&to_last, ControlChunk::Probe(vec![5; 9]));
    let there = Remote::Relayed { by: id(1), host: id(0) };
    assert!(
        matches!(sides[2].event(), LaneEvent::Probe { from, body, .. } if from == there && body == [5; 9])
    );
    sides[2].lane.send_bare(there, &[0xc3; 1200]).unwrap();
    let back = Remote::Relayed { by: id(1), host: id(2) };
    assert!(
        matches!(sides[0].event(), LaneEvent::Bare { from, bytes } if from == back && bytes == [0xc3; 1200])
    );
    sides[0].lane.send_notice(back, 77).unwrap();
    assert!(matches!(sides[2].event(), LaneEvent::Notice { from, index: 77 } if from == there));
}

#[test]
fn what_is_not_relayed_has_a_name() {
    let sides = row();
    let to_middle = Arc::clone(&sides[0].tables.sends[&id(1)]);
    let say = |limit: u8, source: usize, target: usize, carried: &[u8]| {
        let head = Relayed { limit, source: id(source), target: id(target) }.body();
        sides[0].lane.send_sealed(&to_middle, ControlChunk::Relayed([&head[..], carried].concat()));
    };
    say(MAX_HOPS, 0, 9, b"x");
    sides[1].dropped(DropReason::RelayStranger);
    say(MAX_HOPS, 9, 2, b"x");
    say(MAX_HOPS + 1, 0, 2, b"x");
    sides[1].dropped(DropReason::RelayGarbled);
    say(MAX_HOPS, 0, 2, b"");
    say(1, 0, 2, b"x");
    sides[1].dropped(DropReason::RelayHops);
    say(MAX_HOPS, 2, 0, b"x");
    sides[1].dropped(DropReason::RelayLoop);
    say(MAX_HOPS, 0, 3, b"x");
    sides[1].dropped(DropReason::RelayNoRoute);
    say(MAX_HOPS, 0, 1, &[5; 40]);
    sides[1].dropped(DropReason::UnknownKind);
    assert_eq!(sides[1].tables.sends[&id(2)].sent().datagrams, 0, "nothing went on");
    // What has come through a relay asks for another one.
    let to_last = Arc::clone(&sides[0].tables.sends[&id(2)]);
    let head = Relayed::new(id(0), id(1)).body();
    sides[0].lane.send_sealed(&to_last, ControlChunk::Relayed([&head[..], b"x"].concat()));
    sides[2].dropped(DropReason::RelayNested);
    assert_eq!(sides[2].tables.sends[&id(1)].sent().datagrams, 0, "nothing went back");
}

/// The first of the row by hand: its keys, and a socket that says what it wants.
struct Forger {
    socket: UdpSocket,
    to_last: SealKey,
    to_middle: SealKey,
    counter: u64,
}

impl Forger {
    fn new(sides: &[Side]) -> Self {
        let key = |to| chain(0, to).seal_key(Cipher::Aes256Gcm, Direction::FromDialler);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(sides[1].lane.local_addr().unwrap()).unwrap();
        Self { socket, to_last: key(2), to_middle: key(1), counter: 1000 }
    }

    /// A header under a counter of its own.
    fn header(&mut self, to: usize) -> Header {
        self.counter += 1;
        Header { lane: 0, index: index(0, to), counter: self.counter }
    }

    /// A probe for the last, padded to an envelope of `len` bytes.
    fn probe(&mut self, len: usize) -> Vec<u8> {
        let mut envelope = [&[0; HEADER_LEN][..], &probe_head(false, 1), &[77]].concat();
        envelope.resize(len.max(envelope.len() + TAG_LEN), 0);
        let header = self.header(2);
        self.to_last.seal(header, &mut envelope);
        envelope
    }

    /// The same in the middle's cover.
    fn covered(&mut self, relayed: Relayed, envelope: &[u8]) -> Vec<u8> {
        let mut datagram = [&[0; RELAY_OVERHEAD][..], envelope].concat();
        let header = self.header(1);
        let front: &mut [u8; RELAY_FRONT] = datagram.first_chunk_mut().unwrap();
        relayed.cover(front);
        self.to_middle.seal_head(header, front);
        datagram
    }

    fn whole(&mut self, len: usize) -> Vec<u8> {
        let envelope = self.probe(len);
        self.covered(Relayed::new(id(0), id(2)), &envelope)
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
    }
}

impl Side {
    /// The probe comes, and says who brought it.
    fn probed(&mut self, len: usize) {
        let there = Remote::Relayed { by: id(1), host: id(0) };
        let event = self.event();
        let LaneEvent::Probe { from, body, datagram, .. } = &event else { panic!("{event:?}") };
        assert_eq!((*from, &body[..], usize::from(*datagram)), (there, &[77][..], len));
    }
}

#[test]
fn whoever_changes_what_a_relay_passes_on_has_it_dropped_by_name() {
    let mut sides = row();
    let mut forger = Forger::new(&sides);
    let good = forger.whole(100);
    forger.send(&good);
    sides[2].probed(100);
    forger.send(&good);
    sides[1].dropped(DropReason::Replayed);

    // The head is the hop's affair, all of it.
    for at in [1, 12, HEADER_LEN, HEADER_LEN + 16, HEADER_LEN + 20, RELAY_FRONT - 1] {
        let mut bad = forger.whole(100);
        bad[at] ^= 1;
        let before = sides[1].lane.drops().get(DropReason::NotAuthentic);
        forger.send(&bad);
        sides[1].dropped_more(DropReason::NotAuthentic, before);
    }
    forger.send(&good[..RELAY_FRONT + TAG_LEN]);
    sides[1].dropped(DropReason::TooShort);
    assert_eq!(sides[2].lane.drops().by_label(), BTreeMap::new());

    // The rest is the target's.
    let (at_middle, at_last) = (sides[1].lane.drops().by_label(), &sides[2].lane);
    let mut changed: Vec<Vec<u8>> = [RELAY_FRONT, RELAY_FRONT + 5, RELAY_OVERHEAD + 99]
        .map(|at| {
            let mut bad = forger.whole(100);
            bad[at] ^= 1;
            bad
        })
        .into();
    let other = forger.whole(100);
    changed.push(forger.whole(100)[..RELAY_OVERHEAD + 99].to_vec());
    changed.push([&forger.whole(100)[..], &[0]].concat());
    changed.push([&forger.whole(100)[..RELAY_FRONT], &other[RELAY_FRONT..]].concat());
    for (n, bad) in (0..).zip(changed) {
        forger.send(&bad);
        let since = Instant::now();
        while at_last.drops().get(DropReason::NotAuthentic) == n {
            assert!(since.elapsed() < PATIENCE, "change {n}: {:?}", at_last.drops().by_label());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(sides[1].lane.drops().by_label(), at_middle, "the relay cannot know");
    forger.send(&other);
    sides[2].probed(100);
}

#[test]
fn what_an_envelope_is_not_relayed_for_has_a_name() {
    let sides = row();
    let mut forger = Forger::new(&sides);
    let say = |forger: &mut Forger, limit, source: usize, target: usize, envelope: &[u8]| {
        let covered = forger.covered(Relayed { limit, source: id(source), target: id(target) }, envelope);
        forger.send(&covered);
    };
    let good = forger.probe(60);
    for (limit, source, target, reason) in [
        (MAX_HOPS, 0, 9, DropReason::RelayStranger),
        (MAX_HOPS + 1, 0, 2, DropReason::RelayGarbled),
        (1, 0, 2, DropReason::RelayHops),
        (MAX_HOPS, 2, 0, DropReason::RelayLoop),
        (MAX_HOPS, 0, 3, DropReason::RelayNoRoute),
        (MAX_HOPS, 0, 1, DropReason::UnknownIndex),
    ] {
        say(&mut forger, limit, source, target, &good);
        sides[1].dropped(reason);
    }
    let nested = forger.covered(Relayed::new(id(0), id(2)), &good);
    say(&mut forger, MAX_HOPS, 0, 2, &nested);
    sides[1].dropped(DropReason::RelayNested);
    let before = sides[1].lane.drops().get(DropReason::RelayGarbled);
    say(&mut forger, MAX_HOPS, 0, 2, &[&[0xc3], &good[1..]].concat());
    sides[1].dropped_more(DropReason::RelayGarbled, before);
    assert_eq!(sides[1].tables.sends[&id(2)].sent().datagrams, 0, "nothing went on");

    // In a chunk that the middle passes on without a look.
    let to_middle = Arc::clone(&sides[0].tables.sends[&id(1)]);
    let head = Relayed::new(id(0), id(2)).body();
    sides[0].lane.send_sealed(&to_middle, ControlChunk::Relayed([&head[..], &nested].concat()));
    sides[2].dropped(DropReason::RelayNested);
}

#[test]
fn a_train_goes_on_as_it_came_and_what_is_too_long_for_the_next_hop_is_dropped() {
    let mut sides = row();
    let mut forger = Forger::new(&sides);
    let onward = Arc::clone(&sides[1].tables.sends[&id(2)]);
    for len in [1300, 1300, 700, 1300, 40, 1300] {
        let datagram = forger.whole(len);
        forger.send(&datagram);
        sides[2].probed(len);
    }
    onward.set_size(1232, true);
    let long = forger.whole(1300);
    forger.send(&long);
    sides[1].dropped(DropReason::TooBigForPath);
    // Whatever a hop passes: in fragments, and the target hears the same.
    let anyway = forger.whole(1200);
    forger.send(&anyway);
    sides[2].probed(1200);
    assert_eq!(onward.sent().datagrams, 6 + 2);
    onward.set_size(1472, true);
    let long = forger.whole(1300);
    forger.send(&long);
    sides[2].probed(1300);
}
