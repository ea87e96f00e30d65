//! The model: hosts, their machines, and time that passes only when told. What lies between them is in [`super::underlay`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use weft_api::id::{BootId, HostId};
use weft_api::roster::Cipher;

use super::super::{
    Action, ConnectionId, Event, Hello, LinkView, Path, Rekey, Remote, Sessions, StreamId, Why,
};
use super::keys::{Chain, Opening, Sealing};
use super::underlay::{Nat, Relayed};
use crate::drop::DropReason;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const CIPHER: Cipher = Cipher::ChaCha20Poly1305;

/// QUIC sends a first packet, or one of a stream, again so soon.
const AGAIN: Duration = Duration::from_millis(150);
const GIVE_UP: Duration = Duration::from_secs(3);

/// A host of the model: its machine, and what `router/io` would hold.
pub(super) struct Host {
    pub sessions: Sessions,
    pub alive: bool,
    pub opens: HashMap<u32, Opening>,
    pub newest_from: HashMap<u32, SocketAddr>,
    pub seals: HashMap<ConnectionId, Sealing>,
    pub chains: HashMap<ConnectionId, Chain>,
    /// Envelopes that could not be opened.
    pub lost: usize,
    pub remotes: HashMap<ConnectionId, Remote>,
    pub used: BTreeMap<HostId, ConnectionId>,
    pub up: BTreeSet<HostId>,
    pub counts: Vec<DropReason>,
    pub unreached: Vec<HostId>,
    pub probes: usize,
    pub dials: usize,
    /// What it was told since the greeting of where it is seen.
    pub seen: Vec<SocketAddr>,
    pub wakes: Option<Duration>,
}

/// What arrives somewhere, some time.
#[derive(Clone)]
pub(super) enum Arrival {
    /// A timer: the dialler's first packet is sent once more.
    Dial {
        id: ConnectionId,
        life: u64,
        until: Duration,
    },
    /// The first packet of a dial.
    Initial {
        id: ConnectionId,
        life: u64,
    },
    /// The listener has answered it.
    Answer {
        listener: usize,
        listener_life: u64,
        from: Remote,
        id: ConnectionId,
        life: u64,
    },
    /// A timer: the message is sent once more.
    Message {
        number: u64,
        until: Duration,
    },
    /// A packet of a stream.
    Delivered {
        number: u64,
    },
    /// A sealed datagram: a probe or a frame.
    Envelope {
        from: usize,
        sealing: Sealing,
        body: Option<Vec<u8>>,
    },
    Notice {
        index: u32,
    },
    Relayed(Box<Relayed>),
    /// A stream that the host wanted.
    Opened {
        peer: HostId,
        address: SocketAddr,
        stream: Option<StreamId>,
    },
    Ended(StreamId),
    Wake,
}

/// What a stream carries.
#[derive(Clone)]
pub(super) enum Message {
    Greeting(Hello),
    Closed(Why),
    Rekey(Rekey),
    Seen(SocketAddr),
}

/// One QUIC connection: the hosts, and their names of it.
pub(super) struct Wire {
    pub ends: [(usize, ConnectionId); 2],
    pub lives: [u64; 2],
    pub open: bool,
}

pub(super) struct World {
    pub now: Duration,
    pub hosts: Vec<Host>,
    pub lives: Vec<u64>,
    pub wires: Vec<Wire>,
    pub queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    pub arrivals: HashMap<u64, (Remote, Arrival)>,
    pub messages: BTreeMap<u64, (usize, usize, Message)>,
    pub met: HashSet<(usize, u64, ConnectionId)>,
    pub sequence: u64,
    pub loss: u8,
    /// Hosts take so long to answer, at times.
    pub busy: Duration,
    /// Hosts have an IPv6 address too.
    pub dual_stack: bool,
    /// A link that loses more than the others, in percent.
    pub lossy: Option<(usize, usize, u8)>,
    pub random: u64,
    pub cut: BTreeSet<(usize, usize)>,
    /// Nothing passes from the one to the other.
    pub blocked: BTreeSet<(usize, usize)>,
    /// That a connection is closed is never heard.
    pub wordless: bool,
    /// Nor any notice.
    pub noticeless: bool,
    pub addresses: Vec<SocketAddr>,
    pub nats: Vec<Option<Nat>>,
    pub frames_every: Duration,
    pub frames: BTreeMap<(usize, usize), Duration>,
    pub relayed: u64,
    /// UDP does not pass between these.
    pub no_udp: BTreeSet<(usize, usize)>,
    /// The ends of each TCP stream; `None` when it is over.
    pub streams: Vec<Option<(usize, usize)>>,
    /// When the last record of a stream came or comes to an end of it.
    pub arrived: HashMap<(StreamId, usize), Duration>,
}

pub(super) fn id(n: usize) -> HostId {
    HostId([n as u8 + 1; 8])
}

/// The other address of a host with two.
pub(super) fn second(n: usize) -> SocketAddr {
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16 + 1], 6783).into()
}

pub(super) fn path(n: usize) -> Path {
    Path::Udp(([192, 0, 2, n as u8 + 1], 6783).into())
}

impl World {
    pub(super) fn new(n: usize, loss: u8, seed: u64) -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            hosts: Vec::new(),
            lives: vec![0; n],
            wires: Vec::new(),
            queue: BinaryHeap::new(),
            arrivals: HashMap::new(),
            messages: BTreeMap::new(),
            met: HashSet::new(),
            sequence: 0,
            loss,
            busy: Duration::ZERO,
            dual_stack: false,
            lossy: None,
            random: seed,
            cut: BTreeSet::new(),
            blocked: BTreeSet::new(),
            wordless: false,
            noticeless: false,
            addresses: (0..n).map(|n| ([192, 0, 2, n as u8 + 1], 6783).into()).collect(),
            nats: (0..n).map(|_| None).collect(),
            frames_every: 20 * MS,
            frames: BTreeMap::new(),
            relayed: 0,
            no_udp: BTreeSet::new(),
            streams: Vec::new(),
            arrived: HashMap::new(),
        };
        for i in 0..n {
            let host = world.fresh(i, 0);
            world.hosts.push(host);
        }
        world
    }

    pub(super) fn fresh(&mut self, n: usize, life: u64) -> Host {
        let mut boot = [n as u8; 16];
        boot[..8].copy_from_slice(&life.to_be_bytes());
        let mut seed = [n as u8; 32];
        seed[8..16].copy_from_slice(&(life + self.random).to_be_bytes());
        Host {
            sessions: Sessions::new(id(n), BootId(boot), CIPHER, seed),
            alive: true,
            opens: HashMap::new(),
            newest_from: HashMap::new(),
            seals: HashMap::new(),
            chains: HashMap::new(),
            lost: 0,
            remotes: HashMap::new(),
            used: BTreeMap::new(),
            up: BTreeSet::new(),
            counts: Vec::new(),
            unreached: Vec::new(),
            probes: 0,
            dials: 0,
            seen: Vec::new(),
            wakes: None,
        }
    }

    /// Tells host `n` who is there and where.
    pub(super) fn start(&mut self, n: usize) {
        let all = self.hosts.len();
        let members: BTreeSet<HostId> = (0..all).map(id).collect();
        self.event(n, Event::Members(&members));
        for other in (0..all).filter(|o| *o != n) {
            let second = self.dual_stack.then_some(Path::Udp(second(other)));
            let all: Vec<Path> = [Path::Udp(self.seen(other))].into_iter().chain(second).collect();
            self.event(n, Event::Addresses(id(other), &all));
        }
    }

    pub(super) fn start_all(&mut self) {
        (0..self.hosts.len()).for_each(|n| self.start(n));
    }

    pub(super) fn kill(&mut self, n: usize) {
        self.hosts[n].alive = false;
        self.end_streams(n);
        self.lives[n] += 1;
    }

    pub(super) fn restart(&mut self, n: usize) {
        let life = self.lives[n];
        self.hosts[n] = self.fresh(n, life);
        self.start(n);
    }

    pub(super) fn chance(&mut self, of_100: u8) -> bool {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 100 < u64::from(of_100)
    }

    pub(super) fn later(&mut self, delay: Duration, to: usize, from: Remote, arrival: Arrival) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, to)));
        self.arrivals.insert(self.sequence, (from, arrival));
    }

    /// A timer of a host.
    fn timer(&mut self, delay: Duration, n: usize, arrival: Arrival) {
        let itself = Remote::Udp(self.addresses[n]);
        self.later(delay, n, itself, arrival);
    }

    /// A message of a stream: what is lost is sent again.
    pub(super) fn stream(&mut self, wire: usize, from: usize, message: Message) {
        self.sequence += 1;
        let number = self.sequence;
        self.messages.insert(number, (wire, from, message));
        self.timer(Duration::ZERO, from, Arrival::Message { number, until: self.now + GIVE_UP });
    }

    pub(super) fn wire(&self, n: usize, connection: ConnectionId) -> Option<usize> {
        let life = self.lives[n];
        self.wires.iter().position(|w| (0..2).any(|e| w.ends[e] == (n, connection) && w.lives[e] == life))
    }

    pub(super) fn event(&mut self, n: usize, event: Event<'_>) {
        let mut actions = Vec::new();
        self.hosts[n].sessions.handle(self.now, event, &mut actions);
        for action in actions {
            self.act(n, action);
        }
        let Some(at) = self.hosts[n].sessions.next_wake() else { return };
        if self.hosts[n].wakes.is_none_or(|pending| pending <= self.now || at < pending) {
            let delay = at.saturating_sub(self.now).max(MS);
            self.hosts[n].wakes = Some(self.now + delay);
            self.timer(delay, n, Arrival::Wake);
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        let host = &mut self.hosts[n];
        match action {
            Action::Dial(id, peer, path) => {
                host.dials += 1;
                host.remotes.insert(id, path.to(peer));
                let (life, until) = (self.lives[n], self.now + GIVE_UP);
                self.timer(Duration::ZERO, n, Arrival::Dial { id, life, until });
            }
            Action::Close(id, why) => {
                if let Some(wire) = self.wire(n, id).filter(|w| self.wires[*w].open) {
                    self.wires[wire].open = false;
                    if !self.wordless {
                        self.stream(wire, n, Message::Closed(why));
                    }
                }
            }
            Action::Greet(id, hello) => {
                let wire = self.wire(n, id).unwrap();
                self.stream(wire, n, Message::Greeting(hello));
            }
            Action::TellSeen(id, address) => {
                let wire = self.wire(n, id).unwrap();
                self.stream(wire, n, Message::Seen(address));
            }
            Action::SetPath(id, path) => {
                let wire = self.wire(n, id).unwrap();
                let peer = self.wires[wire].ends.iter().find(|(h, _)| *h != n).unwrap().0;
                self.hosts[n].remotes.insert(id, path.to(self::id(peer)));
            }
            Action::Use(peer, id) => {
                assert!(host.seals.contains_key(&id), "no key to use");
                host.used.insert(peer, id);
            }
            Action::Unuse(peer) => assert!(host.used.remove(&peer).is_some()),
            Action::UseLane(..) => {}
            Action::Unreached(peer) => host.unreached.push(peer),
            Action::OpenStream(peer, address) => self.open_stream(n, peer, address),
            Action::ProbeLane(id, _, body) => {
                let remote = self.hosts[n].remotes[&id];
                self.seal(n, id, remote, Some(body.to_vec()));
            }
            Action::SetSize(..) => {}
            Action::Probe(id, path, body, _) | Action::ProbeSize(id, path, body, _) => {
                host.probes += 1;
                let wire = self.wire(n, id).unwrap();
                let peer = self.wires[wire].ends.iter().find(|(h, _)| *h != n).unwrap().0;
                self.seal(n, id, path.to(self::id(peer)), Some(body.to_vec()));
            }
            Action::Notice(..) if self.noticeless => {}
            Action::Notice(remote, index) => self.datagram(n, remote, Arrival::Notice { index }),
            Action::LinkUp(peer) => assert!(host.up.insert(peer)),
            Action::LinkDown(peer) => assert!(host.up.remove(&peer)),
            Action::Count(reason) => host.counts.push(reason),
            about_keys => self.key_action(n, about_keys),
        }
    }

    fn seal(&mut self, n: usize, connection: ConnectionId, to: Remote, body: Option<Vec<u8>>) {
        if let Some(sealing) = self.hosts[n].seals.get(&connection).copied() {
            self.datagram(n, to, Arrival::Envelope { from: n, sealing, body });
        }
    }

    pub(super) fn arrive(&mut self, n: usize, from: Remote, arrival: Arrival) {
        if !self.hosts[n].alive {
            return;
        }
        match arrival {
            Arrival::Dial { id, life, until } => {
                let stale = self.lives[n] != life || self.met.contains(&(n, life, id)) || self.now >= until;
                if let Some(remote) = self.hosts[n].remotes.get(&id).copied().filter(|_| !stale) {
                    self.datagram(n, remote, Arrival::Initial { id, life });
                    self.timer(AGAIN, n, Arrival::Dial { id, life, until });
                }
            }
            Arrival::Initial { id, life } => {
                let listener_life = self.lives[n];
                self.datagram(n, from, Arrival::Answer { listener: n, listener_life, from, id, life });
            }
            Arrival::Answer { listener, listener_life, from, id: connection, life } => {
                let dead = self.lives[n] != life || self.lives[listener] != listener_life;
                if !dead && self.hosts[listener].alive && self.met.insert((n, life, connection)) {
                    self.meet(n, connection, listener, from);
                }
            }
            Arrival::Message { number, until } => self.send_message(n, number, until),
            Arrival::Delivered { number } => {
                if let Some((wire, from, message)) = self.messages.remove(&number) {
                    self.hear(n, wire, message);
                    if let Some(next) = self.first_message(wire, from) {
                        self.transmit(from, next);
                    }
                }
            }
            Arrival::Envelope { from: sender, sealing, body } => {
                self.envelope(n, from, sender, sealing, body)
            }
            Arrival::Notice { index } => self.event(n, Event::Notice(index)),
            Arrival::Relayed(relayed) => self.relay(n, *relayed),
            Arrival::Opened { peer, address, stream } => {
                self.event(n, Event::StreamOpened(peer, address, stream));
            }
            Arrival::Ended(stream) => self.event(n, Event::StreamEnded(stream)),
            Arrival::Wake => self.event(n, Event::Tick),
        }
    }

    /// A handshake is over.
    fn meet(&mut self, dialler: usize, connection: ConnectionId, listener: usize, from: Remote) {
        let theirs = self.hosts[listener].sessions.new_connection();
        let lives = [self.lives[dialler], self.lives[listener]];
        self.wires.push(Wire { ends: [(dialler, connection), (listener, theirs)], lives, open: true });
        self.hosts[listener].remotes.insert(theirs, from);
        self.event(dialler, Event::Reached(connection, id(listener)));
        self.event(listener, Event::Accepted(theirs, id(dialler), from.path()));
    }

    /// A stream keeps the order of its messages.
    fn first_message(&self, wire: usize, from: usize) -> Option<u64> {
        let of_stream = |(number, (w, f, _)): (&u64, &(usize, usize, Message))| {
            ((*w, *f) == (wire, from)).then_some(*number)
        };
        self.messages.iter().find_map(of_stream)
    }

    fn send_message(&mut self, n: usize, number: u64, until: Duration) {
        let Some((wire, from, _)) = self.messages.get(&number) else { return };
        let (wire, from) = (*wire, *from);
        let end = self.wires[wire].ends.iter().position(|(h, _)| *h == from).unwrap();
        if self.wires[wire].lives[end] != self.lives[n] || self.now >= until {
            self.messages.remove(&number);
            return;
        }
        if self.first_message(wire, from) == Some(number) {
            self.transmit(n, number);
        }
        self.timer(AGAIN, n, Arrival::Message { number, until });
    }

    fn transmit(&mut self, n: usize, number: u64) {
        let wire = self.messages[&number].0;
        let connection = self.wires[wire].ends.iter().find(|(h, _)| *h == n).unwrap().1;
        if let Some(remote) = self.hosts[n].remotes.get(&connection).copied() {
            self.datagram(n, remote, Arrival::Delivered { number });
        }
    }

    fn hear(&mut self, n: usize, wire: usize, message: Message) {
        let Some(end) = self.wires[wire].ends.iter().position(|(h, _)| *h == n) else { return };
        if self.wires[wire].lives[end] != self.lives[n] {
            return;
        }
        let connection = self.wires[wire].ends[end].1;
        match message {
            Message::Greeting(hello) if self.wires[wire].open => {
                self.event(n, Event::Hello(connection, hello))
            }
            Message::Greeting(_) => {}
            Message::Rekey(said) if self.wires[wire].open => self.event(n, Event::Rekey(connection, said)),
            Message::Rekey(_) => {}
            Message::Seen(address) => self.hosts[n].seen.push(address),
            Message::Closed(why) => self.event(n, Event::Lost(connection, Some(why))),
        }
    }

    /// Lets time pass. Every host sends a frame to every other now and then.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut frames_at = self.now;
        while self.now < end {
            let next = self.queue.peek().map_or(end, |Reverse((at, ..))| *at);
            if frames_at <= next.min(end) && self.frames_every > Duration::ZERO {
                self.now = self.now.max(frames_at);
                frames_at += self.frames_every;
                for n in (0..self.hosts.len()).filter(|n| self.hosts[*n].alive).collect::<Vec<_>>() {
                    for connection in self.hosts[n].used.values().copied().collect::<Vec<_>>() {
                        let remote = self.hosts[n].remotes[&connection];
                        self.seal(n, connection, remote, None);
                    }
                }
            } else if next <= end {
                let Some(Reverse((at, sequence, to))) = self.queue.pop() else { break };
                self.now = self.now.max(at);
                let (from, arrival) = self.arrivals.remove(&sequence).unwrap();
                self.arrive(to, from, arrival);
            } else {
                self.now = end;
            }
        }
    }

    /// One open connection for each pair of living hosts, used by both, and frames pass both ways.
    pub(super) fn assert_settled(&self) {
        let alive: Vec<usize> = (0..self.hosts.len()).filter(|n| self.hosts[*n].alive).collect();
        for &a in &alive {
            for &b in alive.iter().filter(|b| **b != a) {
                assert!(self.hosts[a].up.contains(&id(b)), "{a} -> {b} down at {:?}", self.now);
                let wire = self.wire(a, self.hosts[a].used[&id(b)]).unwrap();
                assert_eq!(Some(wire), self.wire(b, self.hosts[b].used[&id(a)]), "{a} and {b} agree");
                let age = self.silence(a, b);
                assert!(age < 300 * MS, "{a} -> {b}: no frame for {age:?}");
                let open = |w: &&Wire| {
                    w.open
                        && [(a, b), (b, a)].contains(&(w.ends[0].0, w.ends[1].0))
                        && (0..2).all(|e| w.lives[e] == self.lives[w.ends[e].0])
                };
                assert_eq!(self.wires.iter().filter(open).count(), 1, "{a} and {b} keep one connection");
            }
        }
    }

    /// Since the last frame of `a` came to `b`.
    pub(super) fn silence(&self, a: usize, b: usize) -> Duration {
        self.now - self.frames.get(&(a, b)).copied().unwrap_or_default()
    }

    pub(super) fn view(&self, of: usize, peer: usize) -> LinkView {
        self.hosts[of].sessions.links().find(|l| l.host == id(peer)).unwrap()
    }
}
