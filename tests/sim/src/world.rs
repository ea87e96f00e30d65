//! Hosts over an underlay on virtual time: nothing happens but what was scheduled, and the same seed is the same world.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weft_api::decision::Decision;
use weft_api::fact::FactRecord;
use weft_api::id::{BootId, HostId, HostKey, MeshKey};
use weft_api::roster::{Cipher, RosterRecord};
use weft_api::sign::Signed;
use weft_router::mesh::{self, AnyRecord, Limits, Mesh, Start, ToStore};
use weft_router::session::probe::PROBE_LEN;
use weft_router::session::{self, ConnectionId, Path, Remote, Sessions};

use crate::frames::{Place, Sent};
use crate::host::{Host, SharedNotary, decisions, host_key, items, member, mesh_key};
use crate::queue::Queue;
use crate::random::Random;
use crate::tcp::{Stream, StreamDue};
use crate::underlay::{Underlay, Weather};
use crate::wire::{Said, Wire};

/// The same as the product's clock: nothing is sooner.
pub(crate) const MS: Duration = Duration::from_millis(1);
/// The disk takes so long.
const DISK: Duration = Duration::from_millis(2);
/// The mesh is told of round trips so often.
const MEASURE: Duration = Duration::from_secs(1);
/// Tables follow facts so much later.
const TABLES: Duration = Duration::from_millis(20);

/// What becomes due.
#[derive(Clone)]
pub(crate) enum Due {
    /// A timer of a host.
    Wake,
    Measure,
    Tables,
    Stored,
    /// A dial's first packet, until it is answered or given up; when it is sent again after this.
    Dial(ConnectionId, Duration, Duration),
    /// What a stream's end has not been told is heard.
    Again(usize, usize),
    /// Something about streams.
    Stream(StreamDue),
    /// A datagram.
    Arrives(Remote, Datagram),
}

/// What travels.
#[derive(Clone)]
pub(crate) enum Datagram {
    Initial { dialler: usize, id: ConnectionId, life: u32 },
    Answer { listener: usize, listener_life: u32, id: ConnectionId, life: u32 },
    Stream { wire: usize, end: usize, number: u64, said: Said },
    Heard { wire: usize, end: usize, below: u64, number: u64 },
    Envelope { sender: usize, index: u32, counter: u64, body: Body },
    Notice { index: u32 },
    Relayed(Box<Relayed>),
}

/// What is sealed.
#[derive(Clone)]
pub(crate) enum Body {
    /// A probe, and the length of datagram that it is padded to.
    Probe([u8; PROBE_LEN], usize),
    Frame(usize, Rc<[u8]>),
}

/// A datagram inside an envelope of a neighbour's session.
#[derive(Clone)]
pub(crate) struct Relayed {
    pub limit: u8,
    pub source: usize,
    pub target: HostId,
    pub by: usize,
    pub inner: Datagram,
}

/// Bytes, IP headers included, by [`Traffic::KINDS`].
#[derive(Clone, Copy, Default, Debug)]
pub struct Traffic(pub [u64; 7]);

impl Traffic {
    /// What they were for.
    pub const KINDS: [&str; 7] =
        ["probes", "pushes", "announcements", "questions", "answers", "acknowledgements", "handshakes"];
}

/// Hosts, what lies between them, and what was seen.
pub struct World {
    /// Virtual.
    pub now: Duration,
    /// By number.
    pub hosts: Vec<Host>,
    /// Between them.
    pub underlay: Underlay,
    /// Every frame that was sent.
    pub sent: Vec<Sent>,
    /// Bytes that were sent, IP headers included, by what they were for.
    pub traffic: Traffic,
    /// What must never happen, and did: a sentence each.
    pub broken: Vec<String>,
    pub(crate) networks: usize,
    pub(crate) ids: Vec<HostId>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) streams: Vec<Stream>,
    /// Whom each host was told of by a person, and where that was then.
    told: Vec<Vec<(HostId, SocketAddr)>>,
    pub(crate) met: HashSet<(usize, u32, ConnectionId)>,
    /// Too big for every host to have tables and a disk of its own.
    pub(crate) thin: bool,
    roster: Vec<Signed<RosterRecord>>,
    limits: Limits,
    notary: Arc<SharedNotary>,
    random: Random,
    queue: Queue<(usize, u32, Due)>,
}

impl World {
    /// Members of one mesh that have not yet met. Host n knows the address of host 0, and of the one before it.
    #[must_use]
    pub fn new(hosts: usize, networks: usize, weather: Weather, seed: u64) -> Self {
        Self::with_limits(hosts, networks, weather, seed, Limits::default())
    }

    /// The same, with as many neighbours as that.
    #[must_use]
    pub fn with_limits(hosts: usize, networks: usize, weather: Weather, seed: u64, limits: Limits) -> Self {
        let mut world = Self { limits, ..Self::empty(hosts, networks, weather, seed) };
        for n in 0..hosts {
            let host = world.start(n, 1, Vec::new(), Vec::new());
            world.hosts.push(host);
        }
        world
    }

    /// Without any host yet.
    pub(crate) fn empty(hosts: usize, networks: usize, weather: Weather, seed: u64) -> Self {
        let ids: Vec<HostId> = (0..hosts).map(|n| HostKey(host_key(n).public()).id()).collect();
        let mut world = Self {
            now: Duration::ZERO,
            hosts: Vec::new(),
            underlay: Underlay::new(hosts, weather, seed),
            sent: Vec::new(),
            traffic: Traffic::default(),
            broken: Vec::new(),
            networks,
            ids,
            wires: Vec::new(),
            streams: Vec::new(),
            told: Vec::new(),
            met: HashSet::new(),
            thin: false,
            roster: (0..hosts).map(member).collect(),
            limits: Limits::default(),
            notary: Arc::default(),
            random: Random::new(!seed),
            queue: Queue::default(),
        };
        world.told = (0..hosts).map(|n| world.hints(n)).collect();
        world
    }

    /// Starts every host.
    pub fn begin(&mut self) {
        (0..self.hosts.len()).for_each(|n| self.wake_up(n));
        let decided = decisions(self.hosts.len(), self.networks);
        self.mesh(0, mesh::Event::MadeDecisions(decided));
    }

    /// A host whose disk has this.
    pub(crate) fn start(
        &mut self,
        n: usize,
        life: u32,
        facts: Vec<FactRecord>,
        decisions: Vec<Signed<Decision>>,
    ) -> Host {
        let start = Start {
            key: host_key(n),
            mesh_key: MeshKey(mesh_key().public()),
            boot: u64::from(life),
            successions: Vec::new(),
            roster: self.roster.clone(),
            facts,
            decisions,
            hints: self.told[n].clone(),
            limits: self.limits,
            seed: self.random.draw(),
            notary: Arc::clone(&self.notary) as _,
        };
        let mut boot = [n as u8; 16];
        boot[..4].copy_from_slice(&life.to_be_bytes());
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.random.draw().to_be_bytes());
        let sessions = Sessions::new(self.ids[n], BootId(boot), Cipher::Aegis128L, seed);
        Host::new(sessions, Mesh::new(start).0, life)
    }

    /// What a person would tell a host now.
    fn hints(&self, n: usize) -> Vec<(HostId, SocketAddr)> {
        let others = BTreeSet::from([0, n.saturating_sub(1)]);
        others.iter().filter(|o| **o != n).map(|o| (self.ids[*o], self.underlay.address(*o))).collect()
    }

    /// A person finds that a host has lost the others, and starts it with where they are now.
    pub fn guide(&mut self, n: usize) {
        self.told[n] = self.hints(n);
        self.restart(n);
    }

    /// The hosts that host 0 may find, or that may find it, or one of those: by addresses that are known to one of two and true.
    #[must_use]
    pub fn may_meet(&self) -> BTreeSet<usize> {
        let knows = |a: usize, b: usize| {
            let known = self.hosts[a].mesh.addresses(self.ids[b]);
            known.iter().any(|address| self.underlay.can_dial(b, *address))
        };
        let (mut met, mut new) = (BTreeSet::from([0]), vec![0]);
        while let Some(a) = new.pop() {
            let found = |b: &usize| !met.contains(b) && (knows(a, *b) || knows(*b, a));
            let found: Vec<usize> = (0..self.hosts.len()).filter(found).collect();
            met.extend(&found);
            new.extend(found);
        }
        met
    }

    /// What a host does first.
    fn wake_up(&mut self, n: usize) {
        self.join_up(n);
        self.later(n, TABLES, Due::Tables);
        self.say(n);
    }

    /// Without saying anything of itself yet.
    pub(crate) fn join_up(&mut self, n: usize) {
        let members: BTreeSet<HostId> = self.ids.iter().copied().collect();
        self.session(n, session::Event::Members(&members));
        self.mesh(n, mesh::Event::Tick);
        for other in 0..self.ids.len() {
            self.tell_addresses(n, self.ids[other]);
        }
        self.later(n, MEASURE, Due::Measure);
    }

    /// A host says what is true of it now.
    pub fn say(&mut self, n: usize) {
        let items = items(self.underlay.address(n), &self.hosts[n].endpoints, self.networks);
        self.mesh(n, mesh::Event::Say(&items));
        if !self.thin {
            self.hosts[n].make_tables(self.ids[n], self.networks);
        }
    }

    /// It is gone in the middle of whatever it did.
    pub fn kill(&mut self, n: usize) {
        self.hosts[n].alive = false;
    }

    /// It comes up again with what its disk has; its containers run on.
    pub fn restart(&mut self, n: usize) {
        let (life, endpoints) = (self.hosts[n].life + 1, self.hosts[n].endpoints.clone());
        let disk = std::mem::take(&mut self.hosts[n].disk);
        let (mut facts, mut decided) = (Vec::new(), Vec::new());
        for record in disk.values() {
            match record {
                AnyRecord::Facts(said) => facts.push(said.record.clone()),
                AnyRecord::Decision(held) => decided.push(held.signed.clone()),
                AnyRecord::Succession(_) | AnyRecord::Roster(_) => {}
            }
        }
        let mut host = self.start(n, life, facts, decided);
        (host.endpoints, host.disk, host.sent) = (endpoints, disk, self.hosts[n].sent);
        self.hosts[n] = host;
        self.wake_up(n);
    }

    /// It has another address from now on, whether it runs or not.
    pub fn relocate(&mut self, n: usize) {
        self.underlay.relocate(n);
        self.cut_streams(n);
        if self.hosts[n].alive {
            self.say(n);
        }
    }

    /// A container starts, or ends.
    pub fn set_endpoint(&mut self, place: Place, runs: bool) {
        let endpoints = &mut self.hosts[place.host].endpoints;
        let changed = if runs { endpoints.insert(place) } else { endpoints.remove(&place) };
        if changed && self.hosts[place.host].alive {
            self.say(place.host);
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, (n, life, due))) = self.queue.pop(end) {
            self.now = self.now.max(at);
            if self.hosts[n].alive && self.hosts[n].life == life {
                self.happen(n, due);
            }
        }
        self.now = end;
    }

    /// Lets time pass until it holds; how long that took, or `None` if it does not in time.
    pub fn until(&mut self, limit: Duration, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while !holds(self) {
            if self.now - start >= limit {
                return None;
            }
            self.run(50 * MS);
        }
        Some(self.now - start)
    }

    /// The hosts that run.
    #[must_use]
    pub fn alive(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|n| self.hosts[*n].alive).collect()
    }

    /// Whether every host that runs knows of every other what that says of itself now.
    #[must_use]
    pub fn agree(&self) -> bool {
        let alive = self.alive();
        let version =
            |at: usize, of: usize| self.hosts[at].mesh.facts().get(self.ids[of]).map(|s| s.head.version);
        let decided = |n: usize| self.hosts[n].mesh.decisions().records().count();
        let knows = |n: &usize| {
            decided(*n) == decided(0) && alive.iter().all(|of| version(*n, *of) == version(*of, *of))
        };
        alive.iter().all(knows)
    }

    /// Whether every host that runs finds a way to every other.
    #[must_use]
    pub fn all_reachable(&self) -> bool {
        let alive = self.alive();
        let finds = |n: &usize| {
            let others = alive.iter().filter(|o| *o != n);
            others.clone().all(|o| self.hosts[*n].mesh.ways().contains_key(&self.ids[*o]))
        };
        alive.iter().all(finds)
    }

    /// Whether frames of the one to the other have a session to go by.
    #[must_use]
    pub fn has_session(&self, from: usize, to: usize) -> bool {
        self.hosts[from].used.contains_key(&self.ids[to])
    }

    /// The round trip from the one to the other, as that has measured it.
    #[must_use]
    pub fn rtt(&self, from: usize, to: usize) -> Option<Duration> {
        self.hosts[from].link(self.ids[to])?.rtt
    }

    /// Whether frames would have a session to go by, between any two that run.
    #[must_use]
    pub fn all_joined(&self) -> bool {
        let alive = self.alive();
        alive
            .iter()
            .all(|n| alive.iter().filter(|o| *o != n).all(|o| self.hosts[*n].up.contains(&self.ids[*o])))
    }

    /// How many things were scheduled.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.queue.scheduled()
    }

    pub(crate) fn later(&mut self, n: usize, delay: Duration, due: Due) {
        let life = self.hosts.get(n).map_or(1, |h| h.life);
        self.queue.push(self.now + delay, (n, life, due));
    }

    fn happen(&mut self, n: usize, due: Due) {
        match due {
            Due::Wake => {
                if self.hosts[n].wakes.is_none_or(|at| at > self.now) {
                    return; // An earlier one has come instead.
                }
                self.hosts[n].wakes = None;
                self.session(n, session::Event::Tick);
                self.mesh(n, mesh::Event::Tick);
            }
            Due::Measure => self.measure(n),
            Due::Tables => {
                self.hosts[n].tables_due = None;
                self.hosts[n].make_tables(self.ids[n], self.networks);
            }
            Due::Stored => self.mesh(n, mesh::Event::Stored(true)),
            Due::Dial(id, until, again) => self.dial(n, id, until, again),
            Due::Stream(due) => self.stream(n, due),
            Due::Again(wire, end) => self.send_again(n, wire, end),
            Due::Arrives(from, datagram) => {
                self.came_by(from);
                self.arrive(n, from, datagram);
            }
        }
    }

    fn measure(&mut self, n: usize) {
        let host = &self.hosts[n];
        let links: Vec<_> = host.linked.iter().filter_map(|peer| host.sessions.link(*peer)).collect();
        for link in links {
            self.mesh(n, mesh::Event::Measured(link.host, link.rtt, link.loss));
        }
        self.later(n, MEASURE, Due::Measure);
    }

    /// Something happens to a host's mesh layer.
    pub(crate) fn mesh(&mut self, n: usize, event: mesh::Event<'_>) {
        let mut actions = Vec::new();
        self.hosts[n].mesh.handle(self.now, event, &mut actions);
        for action in actions {
            self.act_on_mesh(n, action);
        }
        self.set_alarm(n);
    }

    fn act_on_mesh(&mut self, n: usize, action: mesh::Action) {
        match action {
            mesh::Action::Store(records) => {
                for record in records.into_iter().filter(|_| !self.thin) {
                    match record {
                        ToStore::Record(record) => drop(self.hosts[n].disk.insert(record.id().key, record)),
                        ToStore::FactsGone(host) => {
                            self.hosts[n].disk.remove(&mesh::RecordKey::Facts(host));
                        }
                        ToStore::RosterGone(host) => {
                            self.hosts[n].disk.remove(&mesh::RecordKey::Roster(host));
                        }
                    }
                }
                self.later(n, DISK, Due::Stored);
            }
            mesh::Action::Send(host) => self.send_gossip(n, host),
            mesh::Action::Keep(hosts) => self.session(n, session::Event::Keep(&hosts)),
            mesh::Action::Routes(routes) => self.session(n, session::Event::Routes(&routes)),
            mesh::Action::Addresses(host) => self.tell_addresses(n, host),
            mesh::Action::Changed(changed) => {
                if (changed.facts || changed.decisions || changed.roster)
                    && self.hosts[n].tables_due.is_none()
                    && !self.thin
                {
                    self.hosts[n].tables_due = Some(self.now + TABLES);
                    self.later(n, TABLES, Due::Tables);
                }
            }
            mesh::Action::Count(reason, count) => *self.hosts[n].counts.entry(reason).or_default() += count,
        }
    }

    fn tell_addresses(&mut self, n: usize, host: HostId) {
        if host == self.ids[n] {
            return;
        }
        let paths: Vec<Path> = self.hosts[n].mesh.addresses(host).into_iter().map(Path::Udp).collect();
        self.session(n, session::Event::Addresses(host, &paths));
    }

    /// Wakes a host when its layers want it.
    pub(crate) fn set_alarm(&mut self, n: usize) {
        let host = &self.hosts[n];
        let Some(at) = host.mesh.next_wake().into_iter().chain(host.sessions.next_wake()).min() else {
            return;
        };
        let at = at.max(self.now + MS);
        if host.wakes.is_none_or(|pending| pending <= self.now || at < pending) {
            self.hosts[n].wakes = Some(at);
            self.later(n, at - self.now, Due::Wake);
        }
    }

    /// Whom a wire joins to this host.
    pub(crate) fn other_end(&self, wire: usize, n: usize) -> usize {
        let wire = &self.wires[wire];
        wire.ends[1 - wire.end(n)].host
    }
}
