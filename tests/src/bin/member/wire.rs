//! The socket towards the victim. quinn talks to it over loopback as if it were the victim; here packets go into envelopes and
//! come out of them as docs/protocol.md 3 to 5 say, probes are answered, and anything else can be sealed beside them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use weft_router::chunk::{Chunk, ChunkKind, Chunks, probe_head, quic_head};
use weft_router::envelope::{HEADER_LEN, Header, Shape, TAG_LEN};
use weft_router::relay::{RELAY_FRONT, RELAY_HEAD_LEN};
use weft_router::seal::{OpenKey, SealKey};
use weft_router::session::probe::Probe;

/// A thread looks so often whether the session is over.
const LOOK: Duration = Duration::from_millis(100);

/// Both sockets, and the keys once there are any.
pub struct Wire {
    /// Connected to the victim.
    outer: UdpSocket,
    /// Connected to quinn's.
    inner: UdpSocket,
    keys: OnceLock<Keys>,
    heard: AtomicBool,
    over: AtomicBool,
}

/// A session's.
pub struct Keys {
    pub seal: SealKey,
    pub open: OpenKey,
    /// The index that the victim takes envelopes under.
    pub theirs: u32,
    counter: AtomicU64,
}

impl Keys {
    pub fn new(seal: SealKey, open: OpenKey, theirs: u32) -> Self {
        let counter = AtomicU64::new(0);
        Self { seal, open, theirs, counter }
    }

    fn sealed(&self, counter: u64, chunks: &[u8]) -> Vec<u8> {
        let mut datagram = [&[0; HEADER_LEN], chunks, &[0; TAG_LEN]].concat();
        self.seal.seal(Header { lane: 0, index: self.theirs, counter }, &mut datagram);
        datagram
    }
}

impl Wire {
    /// Between the victim and the socket of quinn at `quinn`. Returns where quinn finds the victim.
    pub fn open(victim: SocketAddr, quinn: SocketAddr) -> io::Result<(Arc<Self>, SocketAddr)> {
        let outer = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        outer.connect(victim)?;
        let inner = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        inner.connect(quinn)?;
        let address = inner.local_addr()?;
        for socket in [&outer, &inner] {
            socket.set_read_timeout(Some(LOOK))?;
        }
        let (heard, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let wire = Arc::new(Self { outer, inner, keys: OnceLock::new(), heard, over });
        let (out, back) = (Arc::clone(&wire), Arc::clone(&wire));
        std::thread::spawn(move || out.carry(&out.inner, |wire, packet| wire.quic(packet)));
        std::thread::spawn(move || back.carry(&back.outer, Wire::arrived));
        Ok((wire, address))
    }

    /// From now on everything is sealed. Asks the victim for an echo, which confirms the session.
    pub fn set_keys(&self, keys: Keys) {
        self.keys.get_or_init(|| keys);
        self.probe(Probe::Question { own: 1, used: true }, false);
    }

    /// Whether the victim has sealed something for us.
    pub fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Seals these bytes as the chunks of an envelope and sends it.
    pub fn seal(&self, chunks: &[u8]) {
        if let Some(keys) = self.keys.get() {
            let counter = keys.counter.fetch_add(1, Ordering::Relaxed);
            self.raw(&keys.sealed(counter, chunks));
        }
    }

    /// The same under a counter that one must not use.
    pub fn seal_as(&self, counter: u64, chunks: &[u8]) {
        if let Some(keys) = self.keys.get() {
            self.raw(&keys.sealed(counter, chunks));
        }
    }

    /// Seals these bytes as the head of a relayed envelope and sends it with what comes behind them.
    pub fn relay(&self, head: &[u8; RELAY_HEAD_LEN], behind: &[u8]) {
        if let Some(keys) = self.keys.get() {
            let counter = keys.counter.fetch_add(1, Ordering::Relaxed);
            let mut front = [0; RELAY_FRONT];
            front[HEADER_LEN..HEADER_LEN + RELAY_HEAD_LEN].copy_from_slice(head);
            keys.seal.seal_head(Header { lane: 0, index: keys.theirs, counter }, &mut front);
            self.raw(&[&front[..], behind].concat());
        }
    }

    /// Ends the threads.
    pub fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn carry(&self, from: &UdpSocket, take: impl Fn(&Self, &mut [u8])) {
        let mut buffer = vec![0; 65_536];
        while !self.over.load(Ordering::Relaxed) {
            if let Ok(len) = from.recv(&mut buffer) {
                take(self, &mut buffer[..len]);
            }
        }
    }

    fn quic(&self, packet: &[u8]) {
        match self.keys.get() {
            Some(_) => self.seal(&[&quic_head(packet.len() as u16)[..], packet].concat()),
            None => self.raw(packet),
        }
    }

    fn arrived(&self, datagram: &mut [u8]) {
        match (Shape::of(datagram), self.keys.get()) {
            (Ok(Shape::Bare), _) => drop(self.inner.send(datagram)),
            (Ok(Shape::Envelope(header)), Some(keys)) => {
                if let Ok(chunks) = keys.open.open(header, datagram) {
                    self.heard.store(true, Ordering::Relaxed);
                    self.chunks(chunks);
                }
            }
            _ => {}
        }
    }

    fn chunks(&self, chunks: &[u8]) {
        let mut walk = Chunks::new();
        while let Some(chunk) = walk.next_in(chunks) {
            let Ok(Chunk { kind, body }) = chunk else { continue };
            match kind {
                ChunkKind::Quic => drop(self.inner.send(&chunks[body])),
                ChunkKind::Probe | ChunkKind::Answer => {
                    let reply = match Probe::read(&chunks[body]) {
                        Ok(Probe::Question { own: answered, .. }) => Probe::Answer { answered, own: 1 },
                        Ok(Probe::Answer { own: answered, .. }) => Probe::Close { answered },
                        Ok(Probe::Close { .. }) | Err(_) => continue,
                    };
                    self.probe(reply, true);
                }
                ChunkKind::Frame { .. }
                | ChunkKind::Piece { .. }
                | ChunkKind::Fragment
                | ChunkKind::Relayed => {}
            }
        }
    }

    fn probe(&self, probe: Probe, answer: bool) {
        let body = probe.bytes();
        self.seal(&[&probe_head(answer, body.len() as u16)[..], &body].concat());
    }

    /// What does not go out is lost, as on any wire.
    fn raw(&self, datagram: &[u8]) {
        let _ = self.outer.send(datagram);
    }
}
