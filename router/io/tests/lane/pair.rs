//! A lane with socket pairs for taps, two of them with the test in the middle of the wire, and the frames that they are given.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use tokio::sync::mpsc::Receiver;
use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::roster::Cipher;
use weft_router::drop::DropReason;
use weft_router::offload::{Gso, Offloads, VnetHeader};
use weft_router::seal::{Chain, Direction};
use weft_router::session::Path as Way;
use weft_router::switch::{Owner, Table};
use weft_router_io::lane::{LaneEvent, LaneHandle};
use weft_router_io::tables::{Path, ReceiveEpoch, SendEpoch, Tables};
use weft_router_io::tap::TapQueue;

pub(crate) const NETWORK: NetworkId = NetworkId(7);
pub(crate) const A: HostId = HostId([1; 8]);
pub(crate) const B: HostId = HostId([2; 8]);
pub(crate) const INDEX_AT_A: u32 = 0xa;
pub(crate) const INDEX_AT_B: u32 = 0xb;
pub(crate) const DATAGRAM: u16 = 1472;
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for a lane on a busy machine to do what it should not.
pub(crate) const SILENCE: Duration = Duration::from_millis(200);

pub(crate) fn ip(side: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 32, side, 2)
}

pub(crate) fn mac(side: u8) -> Mac {
    Mac::of_ipv4(ip(side))
}

/// A lane and what stands where its bridge would be.
pub(crate) struct Side {
    pub(crate) lane: LaneHandle,
    pub(crate) events: Receiver<LaneEvent>,
    pub(crate) tap: UnixDatagram,
    pub(crate) sends: Arc<SendEpoch>,
    pub(crate) receives: Arc<ReceiveEpoch>,
}

/// `a` sends to the wire, whence the test carries to `b`, and the other way round.
pub(crate) struct Pair {
    pub(crate) a: Side,
    pub(crate) b: Side,
    pub(crate) wire: UdpSocket,
}

impl Pair {
    pub(crate) fn new(cipher: Cipher) -> Self {
        let wire = UdpSocket::bind("127.0.0.1:0").unwrap();
        wire.set_read_timeout(Some(PATIENCE)).unwrap();
        let at = wire.local_addr().unwrap();
        let chain = Chain::first(&[5; 32]);
        let keys = |from: Direction| (chain.seal_key(cipher, from), chain.open_key(cipher, from.reversed()));
        let (seal, open) = keys(Direction::FromDialler);
        let a = Side::new(
            0,
            SendEpoch::new(B, INDEX_AT_B, seal, Some(Path { way: Way::Udp(at), datagram: DATAGRAM })),
            ReceiveEpoch::new(B, INDEX_AT_A, open),
        );
        let (seal, open) = keys(Direction::FromListener);
        let b = Side::new(
            1,
            SendEpoch::new(A, INDEX_AT_A, seal, Some(Path { way: Way::Udp(at), datagram: DATAGRAM })),
            ReceiveEpoch::new(A, INDEX_AT_B, open),
        );
        Self { a, b, wire }
    }

    /// The next datagram that either lane sent.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let (len, _) = self.wire.recv_from(&mut buffer).expect("a datagram in time");
        buffer[..len].to_vec()
    }

    pub(crate) fn give(&self, to: &Side, datagram: &[u8]) {
        self.wire.send_to(datagram, to.address()).unwrap();
    }
}

impl Side {
    pub(crate) fn new(side: u8, sends: SendEpoch, receives: ReceiveEpoch) -> Self {
        let (lane, events) = LaneHandle::start(vec![UdpSocket::bind("127.0.0.1:0").unwrap()]).unwrap();
        let (tap, far) = UnixDatagram::pair().unwrap();
        tap.set_read_timeout(Some(PATIENCE)).unwrap();
        let side = Self { lane, events, tap, sends: Arc::new(sends), receives: Arc::new(receives) }
            .with_table(table(side));
        side.lane.attach_tap(NETWORK, vec![TapQueue::from_fd(far.into(), Offloads::ALL).unwrap()]);
        side
    }

    pub(crate) fn with_table(self, table: Table) -> Self {
        self.set_table(table);
        self
    }

    pub(crate) fn set_table(&self, table: Table) {
        self.lane.set_tables(Arc::new(Tables {
            sends: HashMap::from([(self.sends.host(), Arc::clone(&self.sends))]),
            receives: HashMap::from([(self.receives.index(), Arc::clone(&self.receives))]),
            networks: HashMap::from([(NETWORK, Arc::new(table))]),
            ..Tables::default()
        }));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.lane.local_addr().unwrap()
    }

    pub(crate) fn write(&self, vnet: VnetHeader, frame: &[u8]) {
        self.tap.send(&[&vnet.to_bytes(), frame].concat()).unwrap();
    }

    pub(crate) fn read(&self) -> (VnetHeader, Vec<u8>) {
        let mut buffer = vec![0; 70_000];
        let len = self.tap.recv(&mut buffer).expect("a frame in time");
        let (vnet, frame) = VnetHeader::parse(&buffer[..len]).unwrap();
        (vnet, frame.to_vec())
    }

    pub(crate) fn read_or_nothing(&self) -> Option<(VnetHeader, Vec<u8>)> {
        let mut buffer = vec![0; 70_000];
        let len = self.tap.recv(&mut buffer).ok()?;
        VnetHeader::parse(&buffer[..len]).map(|(vnet, frame)| (vnet, frame.to_vec()))
    }

    pub(crate) fn reads_nothing(&self) {
        self.tap.set_read_timeout(Some(SILENCE)).unwrap();
        assert!(self.tap.recv(&mut [0; 100]).is_err(), "nothing should come out of the tap");
        self.tap.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    pub(crate) fn event(&mut self) -> LaneEvent {
        let since = Instant::now();
        loop {
            match self.events.try_recv() {
                Ok(LaneEvent::FirstAuthentic { .. }) => {}
                Ok(event) => return event,
                Err(_) => assert!(since.elapsed() < PATIENCE, "an event in time"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until exactly these were dropped.
    pub(crate) fn drops(&self, expected: &[(DropReason, u64)]) {
        let expected: BTreeMap<String, u64> =
            expected.iter().map(|(reason, n)| (reason.label().to_owned(), *n)).collect();
        eventually(&format!("{expected:?} dropped"), || {
            let drops = self.lane.drops().by_label();
            assert!(
                drops.iter().all(|(name, n)| expected.get(name) >= Some(n)),
                "{drops:?}, not {expected:?}"
            );
            drops == expected
        });
    }
}

pub(crate) fn eventually(what: &str, check: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, check);
}

pub(crate) fn eventually_within(limit: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let since = Instant::now();
    while !check() {
        assert!(since.elapsed() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn table(side: u8) -> Table {
    let other = 1 - side;
    let mut table = Table::new(NETWORK, 1340, Vec::new());
    table.hosts.insert([A, B][usize::from(other)]);
    table.add_endpoint(mac(side), &[IpAddr::V4(ip(side))], Owner::Here);
    table.add_endpoint(mac(other), &[IpAddr::V4(ip(other))], Owner::Host([A, B][usize::from(other)]));
    table
}

pub(crate) fn udp(destination: Mac, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(0).0, destination.0)
        .ipv4(ip(0).octets(), ip(1).octets(), 64)
        .udp(1000, 2000)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// As the kernel gives it: with the pseudo header's sum for a checksum.
pub(crate) fn open_udp(id: u16, payload: &[u8]) -> (VnetHeader, Vec<u8>) {
    let mut frame = udp(mac(1), payload);
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    let checksum =
        etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header().calc_header_checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    let mut sum: u32 = frame[26..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    sum += 17 + frame.len() as u32 - 34;
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    frame[40..42].copy_from_slice(&folded.to_be_bytes());
    (
        VnetHeader { flags: VnetHeader::NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..VnetHeader::default() },
        frame,
    )
}

pub(crate) fn superframe(payload: &[u8], segment: u16) -> (VnetHeader, Vec<u8>) {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(0).0, mac(1).0)
        .ipv4(ip(0).octets(), ip(1).octets(), 64)
        .tcp(1000, 2000, 1, 4096)
        .ack(1)
        .write(&mut frame, payload)
        .unwrap();
    let vnet = VnetHeader {
        flags: VnetHeader::NEEDS_CSUM,
        gso_type: Gso::Tcp4 as u8,
        hdr_len: 54,
        gso_size: segment,
        csum_start: 34,
        csum_offset: 16,
    };
    (vnet, frame)
}

pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}
