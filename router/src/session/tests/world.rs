//! The model: hosts, their machines, a wire that loses, and time that passes only when told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use weft_api::id::{BootId, HostId};
use weft_api::roster::Cipher;

use super::super::{
    Action, ConnectionId, Event, Hello, KEYS_LINGER, LinkView, MAX_EPOCHS, Path, Rekey, Sessions, Share, Why,
};
use crate::drop::DropReason;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const CIPHER: Cipher = Cipher::ChaCha20Poly1305;

/// A host of the model: its machine, and what `router/io` would hold.
pub(super) struct Host {
    pub sessions: Sessions,
    pub alive: bool,
    pub opens: HashMap<u32, Opening>,
    pub seals: HashMap<ConnectionId, Sealing>,
    pub chains: HashMap<ConnectionId, Chain>,
    /// Envelopes that could not be opened.
    pub lost: usize,
    pub used: BTreeMap<HostId, ConnectionId>,
    pub up: BTreeSet<HostId>,
    pub counts: Vec<DropReason>,
    pub dials: usize,
    pub wakes: Option<Duration>,
}

/// A key to open with.
pub(super) struct Opening {
    pub connection: ConnectionId,
    pub key: u64,
    pub heard: bool,
    /// A newer one was heard of; then this one goes.
    pub ends: Option<Duration>,
}

/// A key to seal with.
#[derive(Clone, Copy)]
pub(super) struct Sealing {
    pub index: u32,
    pub to: usize,
    pub key: u64,
}

/// Where a connection's keys come from.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    pub secret: u64,
    pub fresh: Option<u64>,
    pub public: u64,
}

/// What arrives somewhere, some time.
pub(super) enum Arrival {
    Handshake { dialler: usize, id: ConnectionId, target: usize, life: u64 },
    Greeting { wire: usize, to: usize, hello: Hello },
    Closed { wire: usize, to: usize, why: Why },
    Rekey { wire: usize, to: usize, said: Rekey },
    Envelope { from: usize, index: u32, key: u64, body: Option<Vec<u8>> },
    Notice { index: u32 },
    Wake,
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
    pub arrivals: HashMap<u64, Arrival>,
    pub sequence: u64,
    pub loss: u8,
    pub random: u64,
    pub cut: BTreeSet<(usize, usize)>,
    pub frames_every: Duration,
    pub frames: BTreeMap<(usize, usize), Duration>,
    /// When the last message of a stream arrives: they keep their order.
    pub streams: HashMap<(usize, usize), Duration>,
}

pub(super) fn id(n: usize) -> HostId {
    HostId([n as u8 + 1; 8])
}

fn number(host: HostId) -> u64 {
    u64::from(host.0[0]) - 1
}

fn share(epoch: u32, index: u32, key: u64) -> Share {
    let mut public = [0; 32];
    public[..8].copy_from_slice(&key.to_be_bytes());
    Share { epoch, index, public }
}

/// One way, as far as the model is concerned.
fn mix(a: u64, b: u64) -> u64 {
    (a ^ b.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ a.wrapping_add(b)
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
            sequence: 0,
            loss,
            random: seed,
            cut: BTreeSet::new(),
            frames_every: 20 * MS,
            frames: BTreeMap::new(),
            streams: HashMap::new(),
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
            seals: HashMap::new(),
            chains: HashMap::new(),
            lost: 0,
            used: BTreeMap::new(),
            up: BTreeSet::new(),
            counts: Vec::new(),
            dials: 0,
            wakes: None,
        }
    }

    /// Tells host `n` who is there and where.
    pub(super) fn start(&mut self, n: usize) {
        let all = self.hosts.len();
        let members: BTreeSet<HostId> = (0..all).map(id).collect();
        self.event(n, Event::Members(&members));
        for other in (0..all).filter(|o| *o != n) {
            self.event(n, Event::Addresses(id(other), &[path(other)]));
        }
    }

    pub(super) fn kill(&mut self, n: usize) {
        self.hosts[n].alive = false;
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

    pub(super) fn later(&mut self, delay: Duration, to: usize, arrival: Arrival) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, to)));
        self.arrivals.insert(self.sequence, arrival);
    }

    /// A lossy datagram.
    pub(super) fn datagram(&mut self, from: usize, to: usize, arrival: Arrival) {
        let cut = self.cut.contains(&(from.min(to), from.max(to)));
        if !cut && !self.chance(self.loss) {
            let delay = if self.chance(10) { 9 * MS } else { 2 * MS };
            self.later(delay, to, arrival);
        }
    }

    /// A message of a stream: what is lost costs a retransmit.
    pub(super) fn stream(&mut self, wire: usize, from: usize, message: impl FnOnce(usize) -> Arrival) {
        let Some(end) = self.wires[wire].ends.iter().position(|(h, _)| *h != from) else { return };
        let to = self.wires[wire].ends[end].0;
        if self.cut.contains(&(from.min(to), from.max(to))) {
            return;
        }
        let mut delay = 2 * MS;
        while self.chance(self.loss) {
            delay += 100 * MS;
        }
        let last = self.streams.entry((wire, to)).or_default();
        *last = (*last).max(self.now + delay);
        let delay = *last - self.now;
        self.later(delay, to, message(to));
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
            self.later(delay, n, Arrival::Wake);
        }
    }

    pub(super) fn act(&mut self, n: usize, action: Action) {
        let host = &mut self.hosts[n];
        match action {
            Action::Dial(id, _, to) => {
                host.dials += 1;
                let target = (0..self.hosts.len()).find(|h| path(*h) == to).unwrap();
                let mut delay = 4 * MS;
                while self.chance(self.loss) {
                    delay += 300 * MS;
                }
                let life = self.lives[n];
                self.later(delay, target, Arrival::Handshake { dialler: n, id, target, life });
            }
            Action::Close(id, why) => {
                if let Some(wire) = self.wire(n, id).filter(|w| self.wires[*w].open) {
                    self.wires[wire].open = false;
                    self.stream(wire, n, |to| Arrival::Closed { wire, to, why });
                }
            }
            Action::InstallReceive(id, peer, index) => {
                let wire = self.wire(n, id).unwrap();
                let first = Chain { secret: mix(wire as u64, 0), fresh: None, public: 0 };
                let host = &mut self.hosts[n];
                let chain = *host.chains.entry(id).or_insert(first);
                let key = mix(chain.secret, number(peer));
                let opening = Opening { connection: id, key, heard: false, ends: None };
                assert!(host.opens.insert(index, opening).is_none());
                assert!(host.opens.values().filter(|o| o.connection == id).count() <= MAX_EPOCHS);
            }
            Action::Greet(id, hello) => {
                let wire = self.wire(n, id).unwrap();
                self.stream(wire, n, |to| Arrival::Greeting { wire, to, hello });
            }
            Action::InstallSend(id, peer, index, _) => {
                let to = (0..self.hosts.len()).find(|h| self::id(*h) == peer).unwrap();
                let key = mix(self.hosts[n].chains[&id].secret, n as u64);
                self.hosts[n].seals.insert(id, Sealing { index, to, key });
            }
            Action::AskRekey(id, epoch) => self.say(n, id, Rekey::Ask(epoch)),
            Action::OfferKeys(id, epoch, index) => {
                let public = self.fresh_key();
                let chain = self.hosts[n].chains.get_mut(&id).unwrap();
                (chain.fresh, chain.public) = (Some(public), public);
                self.say(n, id, Rekey::Offer(share(epoch, index, public)));
            }
            Action::NextChain(id, theirs) => {
                let fresh = self.fresh_key();
                let chain = self.hosts[n].chains.get_mut(&id).unwrap();
                let [a, b, c, d, e, f, g, h, ..] = theirs;
                let theirs = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                chain.public = chain.fresh.take().unwrap_or(fresh);
                let shared = mix(chain.public.min(theirs), chain.public.max(theirs));
                chain.secret = mix(chain.secret, shared);
            }
            Action::AnswerKeys(id, epoch, index) => {
                let public = self.hosts[n].chains[&id].public;
                self.say(n, id, Rekey::Answer(share(epoch, index, public)));
            }
            Action::EraseReceive(id, index) => {
                let gone = host.opens.remove(&index).unwrap();
                assert_eq!(gone.connection, id);
                let ends = gone.ends.expect("the next key was heard of");
                assert!(ends <= self.now, "erased too early");
            }
            Action::Use(peer, id) => {
                assert!(host.seals.contains_key(&id), "no key to use");
                host.used.insert(peer, id);
            }
            Action::Unuse(peer) => assert!(host.used.remove(&peer).is_some()),
            Action::EraseKeys(id) => {
                host.opens.retain(|_, o| o.connection != id);
                host.seals.remove(&id);
                host.chains.remove(&id);
            }
            Action::SetPath(..) | Action::UseLane(..) => {}
            Action::Probe(id, _, body, _) | Action::ProbeLane(id, _, body) => {
                self.seal(n, id, Some(body.to_vec()))
            }
            Action::Notice(remote, index) => {
                let to = (0..self.hosts.len()).find(|h| path(*h) == remote.path()).unwrap();
                self.datagram(n, to, Arrival::Notice { index });
            }
            Action::LinkUp(peer) => assert!(host.up.insert(peer)),
            Action::LinkDown(peer) => assert!(host.up.remove(&peer)),
            Action::Count(reason) => host.counts.push(reason),
        }
    }

    pub(super) fn seal(&mut self, n: usize, connection: ConnectionId, body: Option<Vec<u8>>) {
        if let Some(Sealing { index, to, key }) = self.hosts[n].seals.get(&connection).copied() {
            self.datagram(n, to, Arrival::Envelope { from: n, index, key, body });
        }
    }

    fn say(&mut self, n: usize, connection: ConnectionId, said: Rekey) {
        if let Some(wire) = self.wire(n, connection).filter(|w| self.wires[*w].open) {
            self.stream(wire, n, |to| Arrival::Rekey { wire, to, said });
        }
    }

    fn fresh_key(&mut self) -> u64 {
        self.sequence += 1;
        mix(self.sequence, self.random)
    }

    /// An envelope, opened or not.
    fn envelope(&mut self, n: usize, from: usize, index: u32, key: u64, body: Option<Vec<u8>>) {
        let (host, now) = (&mut self.hosts[n], self.now);
        let Some(opening) = host.opens.get_mut(&index) else {
            host.lost += 1;
            return self.event(n, Event::UnknownIndex(path(from).to(id(from)), index));
        };
        if opening.key != key {
            host.lost += 1;
            return;
        }
        let (connection, first) = (opening.connection, !std::mem::replace(&mut opening.heard, true));
        if first {
            let older = host.opens.iter_mut().filter(|(i, o)| **i != index && o.connection == connection);
            older.for_each(|(_, o)| o.ends = o.ends.or(Some(now + KEYS_LINGER)));
            self.event(n, Event::FirstAuthentic(index));
        }
        match body {
            Some(body) => self.event(n, Event::Probe(index, path(from), &body)),
            None => drop(self.frames.insert((from, n), now)),
        }
    }

    /// No key is there that should be gone.
    pub(super) fn assert_no_stale_keys(&self) {
        for host in self.hosts.iter().filter(|h| h.alive) {
            let stale = host.opens.values().filter(|o| o.ends.is_some_and(|ends| ends + 2 * MS < self.now));
            assert_eq!(stale.count(), 0, "keys kept too long at {:?}", self.now);
        }
    }

    pub(super) fn arrive(&mut self, n: usize, arrival: Arrival) {
        if !self.hosts[n].alive {
            return;
        }
        match arrival {
            Arrival::Handshake { dialler, id: connection, target, life } => {
                let cut = self.cut.contains(&(dialler.min(target), dialler.max(target)));
                if cut || self.lives[dialler] != life || !self.hosts[dialler].alive {
                    return;
                }
                let theirs = self.hosts[target].sessions.new_connection();
                self.wires.push(Wire {
                    ends: [(dialler, connection), (target, theirs)],
                    lives: [life, self.lives[target]],
                    open: true,
                });
                self.event(dialler, Event::Reached(connection, id(target)));
                self.event(target, Event::Accepted(theirs, id(dialler), path(dialler)));
            }
            Arrival::Greeting { wire, to, hello } => {
                if let Some(connection) = self.end(wire, to) {
                    self.event(n, Event::Hello(connection, hello));
                }
            }
            Arrival::Closed { wire, to, why } => {
                self.wires[wire].open = false;
                let end = self.wires[wire].ends.iter().position(|(h, _)| *h == to).unwrap();
                if self.wires[wire].lives[end] == self.lives[to] {
                    let connection = self.wires[wire].ends[end].1;
                    self.event(n, Event::Lost(connection, Some(why)));
                }
            }
            Arrival::Rekey { wire, to, said } => {
                if let Some(connection) = self.end(wire, to) {
                    self.event(n, Event::Rekey(connection, said));
                }
            }
            Arrival::Envelope { from, index, key, body } => self.envelope(n, from, index, key, body),
            Arrival::Notice { index } => self.event(n, Event::Notice(index)),
            Arrival::Wake => self.event(n, Event::Tick),
        }
    }

    pub(super) fn end(&self, wire: usize, to: usize) -> Option<ConnectionId> {
        let wire = &self.wires[wire];
        let end = wire.ends.iter().position(|(h, _)| *h == to)?;
        (wire.open && wire.lives[end] == self.lives[to]).then_some(wire.ends[end].1)
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
                        self.seal(n, connection, None);
                    }
                }
            } else if next <= end {
                let Some(Reverse((at, sequence, to))) = self.queue.pop() else { break };
                self.now = self.now.max(at);
                let arrival = self.arrivals.remove(&sequence).unwrap();
                self.arrive(to, arrival);
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
                let age = self.now - self.frames[&(a, b)];
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

    pub(super) fn view(&self, of: usize, peer: usize) -> LinkView {
        self.hosts[of].sessions.links().find(|l| l.host == id(peer)).unwrap()
    }
}
