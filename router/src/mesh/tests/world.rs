//! Hosts, links and disks on virtual time. Streams keep their order; what is lost costs a retransmit.

use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::{Arc, LazyLock, Mutex};

use weft_api::fact::Item;
use weft_api::id::{HostKey, MeshKey};
use weft_api::roster::{Roles, RosterRecord, Standing};
use weft_api::sign::{SigningKey, verify_bytes};

use super::super::*;
use crate::session::message::Message;

pub(super) const MS: Duration = Duration::from_millis(1);
/// After a link is cut its ends know so much later (PROTOCOL 6).
const DOWN_AFTER: Duration = Duration::from_millis(3500);
const REDIAL: Duration = Duration::from_secs(1);
/// IP, UDP, envelope, chunk, QUIC.
const OVERHEAD: usize = 28 + 32 + 3 + 30;

/// Verifies once for all hosts.
#[derive(Default, Debug)]
pub(super) struct Shared(Mutex<HashMap<u128, Arc<dyn Any + Send + Sync>>>);

impl Notary for Shared {
    fn verify(&self, key: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
        verify_bytes(key, bytes, signature).is_ok()
    }
    fn recall(&self, mark: u128) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.lock().unwrap().get(&mark).cloned()
    }
    fn keep(&self, mark: u128, held: &Arc<dyn Any + Send + Sync>) {
        self.0.lock().unwrap().insert(mark, Arc::clone(held));
    }
}

pub(super) fn mesh_key() -> SigningKey {
    SigningKey::from_seed([255; 32])
}

pub(super) fn key(n: usize) -> SigningKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SigningKey::from_seed(seed)
}

pub(super) fn id(n: usize) -> HostId {
    static IDS: LazyLock<Vec<HostId>> =
        LazyLock::new(|| (0..100).map(|n| HostKey(key(n).public()).id()).collect());
    IDS[n]
}

pub(super) fn address(n: usize) -> SocketAddr {
    let [.., a, b] = (n as u32).to_be_bytes();
    ([10, 0, a, b], 6783).into()
}

pub(super) fn member(n: usize, serial: u64, standing: Standing) -> Signed<RosterRecord> {
    let mesh = MeshKey(mesh_key().public()).id();
    let key = HostKey(key(n).public());
    let roles = Roles { controller: n == 0, ..Roles::default() };
    mesh_key().sign(&RosterRecord {
        mesh,
        key,
        name: format!("h{n}"),
        roles,
        serial,
        standing,
        under: weft_api::roster::Under::default(),
    })
}

pub(super) struct Host {
    pub mesh: Mesh,
    pub alive: bool,
    pub boot: u64,
    pub disk: BTreeMap<RecordKey, AnyRecord>,
    pub kept: BTreeSet<HostId>,
    pub routes: BTreeMap<HostId, HostId>,
    pub counts: BTreeMap<DropReason, u64>,
    pub sent: usize,
    /// Facts that were pushed to it.
    pub pushed: usize,
    wakes: Option<Duration>,
}

enum Arrival {
    Wake,
    Message(usize, u64, Gossip),
    Dial(usize),
    Silent(usize),
}

pub(super) struct World {
    pub hosts: Vec<Host>,
    pub now: Duration,
    pub loss: u8,
    pub delay: Duration,
    pub cut: BTreeSet<(usize, usize)>,
    limits: Limits,
    hints: Vec<Vec<usize>>,
    notary: Arc<Shared>,
    ids: BTreeMap<HostId, usize>,
    /// Sessions, and which one of the pair it is.
    sessions: BTreeMap<(usize, usize), u64>,
    lives: u64,
    last: BTreeMap<(usize, usize), Duration>,
    queue: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    arrivals: HashMap<u64, Arrival>,
    sequence: u64,
    random: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    /// Everybody is a member; each knows the addresses of those that `knows` says.
    pub(super) fn new(n: usize, limits: Limits, seed: u64, knows: impl Fn(usize) -> Vec<usize>) -> Self {
        let mut world = Self {
            hosts: Vec::new(),
            now: Duration::ZERO,
            loss: 0,
            delay: 10 * MS,
            cut: BTreeSet::new(),
            limits,
            hints: (0..n).map(knows).collect(),
            notary: Arc::default(),
            ids: (0..n).map(|n| (id(n), n)).collect(),
            sessions: BTreeMap::new(),
            lives: 0,
            last: BTreeMap::new(),
            queue: BinaryHeap::new(),
            arrivals: HashMap::new(),
            sequence: 0,
            random: seed,
        };
        let roster: Vec<_> = (0..n).map(|n| member(n, 1, Standing::Member)).collect();
        for n in 0..n {
            let mesh = world.mesh(n, 1, (Vec::new(), roster.clone()), Vec::new());
            world.hosts.push(Host {
                mesh,
                alive: true,
                boot: 1,
                disk: BTreeMap::new(),
                kept: BTreeSet::new(),
                routes: BTreeMap::new(),
                counts: BTreeMap::new(),
                sent: 0,
                pushed: 0,
                wakes: None,
            });
        }
        (0..n).for_each(|n| world.say(n, "begin"));
        world
    }

    fn mesh(
        &self,
        n: usize,
        boot: u64,
        (successions, roster): (Vec<Signed<Succession>>, Vec<Signed<RosterRecord>>),
        facts: Vec<weft_api::fact::FactRecord>,
    ) -> Mesh {
        let start = Start {
            key: key(n),
            mesh_key: MeshKey(mesh_key().public()),
            boot,
            successions,
            roster,
            facts,
            decisions: Vec::new(),
            hints: self.hints[n].iter().map(|o| (id(*o), address(*o))).collect(),
            limits: self.limits,
            seed: self.random ^ n as u64,
            notary: Arc::clone(&self.notary) as _,
        };
        Mesh::new(start).0
    }

    pub(super) fn say(&mut self, n: usize, what: &str) {
        self.event(n, Event::Say(&[Item::Address(address(n)), Item::Version(what.to_owned())]));
    }

    pub(super) fn kill(&mut self, n: usize) {
        self.hosts[n].alive = false;
        for other in 0..self.hosts.len() {
            self.silence(n, other);
        }
    }

    /// With what its disk has, or with none of it.
    pub(super) fn restart(&mut self, n: usize, with_disk: bool) {
        for other in 0..self.hosts.len() {
            self.end(n, other);
        }
        let (mut successions, mut roster, mut facts) = (Vec::new(), Vec::new(), Vec::new());
        if !with_disk {
            (self.hosts[n].boot, self.hosts[n].disk) = (0, BTreeMap::new());
        }
        for record in self.hosts[n].disk.values() {
            match record {
                AnyRecord::Succession(held) => successions.push(held.signed.clone()),
                AnyRecord::Roster(held) => roster.push(held.signed.clone()),
                AnyRecord::Facts(said) => facts.push(said.record.clone()),
                AnyRecord::Decision(_) => {}
            }
        }
        let known: BTreeSet<HostId> = roster.iter().map(|r| r.peek().unwrap().key.id()).collect();
        roster.extend(
            (0..self.hosts.len())
                .filter(|n| !known.contains(&id(*n)))
                .map(|n| member(n, 1, Standing::Member)),
        );
        self.hosts[n].boot += 1;
        self.hosts[n].mesh = self.mesh(n, self.hosts[n].boot, (successions, roster), facts);
        (self.hosts[n].alive, self.hosts[n].wakes) = (true, None);
        self.hosts[n].kept.clear();
        self.say(n, "again");
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        if self.cut.insert(pair(a, b)) {
            self.silence(a, b);
        }
    }

    fn silence(&mut self, a: usize, b: usize) {
        if self.sessions.contains_key(&pair(a, b)) {
            self.later(DOWN_AFTER, a, Arrival::Silent(b));
        }
    }

    fn end(&mut self, a: usize, b: usize) {
        if self.sessions.remove(&pair(a, b)).is_some() {
            for (n, other) in
                [(a, b), (b, a)].into_iter().filter(|(n, _)| self.hosts[*n].alive).collect::<Vec<_>>()
            {
                self.event(n, Event::LinkDown(id(other)));
                self.event(n, Event::Disconnected(id(other)));
                if self.hosts[n].kept.contains(&id(other)) {
                    self.later(REDIAL, n, Arrival::Dial(other));
                }
            }
        }
    }

    pub(super) fn chance(&mut self, of_100: u8) -> bool {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 100 < u64::from(of_100)
    }

    fn later(&mut self, delay: Duration, to: usize, arrival: Arrival) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, to)));
        self.arrivals.insert(self.sequence, arrival);
    }

    pub(super) fn event(&mut self, n: usize, event: Event<'_>) {
        let mut actions = Vec::new();
        self.hosts[n].mesh.handle(self.now, event, &mut actions);
        for action in actions {
            self.act(n, action);
        }
        let Some(at) = self.hosts[n].mesh.next_wake() else { return };
        if self.hosts[n].wakes.is_none_or(|pending| pending <= self.now || at < pending) {
            let delay = at.saturating_sub(self.now).max(MS);
            self.hosts[n].wakes = Some(self.now + delay);
            self.later(delay, n, Arrival::Wake);
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        match action {
            Action::Store(records) => {
                for record in records {
                    match record {
                        ToStore::Record(record) => {
                            self.hosts[n].disk.insert(record.id().key, record);
                        }
                        ToStore::FactsGone(host) => {
                            self.hosts[n].disk.remove(&RecordKey::Facts(host));
                        }
                        ToStore::RosterGone(host) => {
                            self.hosts[n].disk.remove(&RecordKey::Roster(host));
                        }
                    }
                }
                self.event(n, Event::Stored(true));
            }
            Action::Send(host) => self.pull(n, host),
            Action::Keep(hosts) => {
                for host in hosts.difference(&self.hosts[n].kept.clone()) {
                    let other = self.ids[host];
                    self.later(MS, n, Arrival::Dial(other));
                }
                self.hosts[n].kept = hosts;
            }
            Action::Routes(routes) => self.hosts[n].routes = routes,
            Action::Count(reason, count) => *self.hosts[n].counts.entry(reason).or_default() += count,
            Action::Addresses(_) | Action::Refuse(_) | Action::Changed(_) => {}
        }
    }

    fn pull(&mut self, from: usize, host: HostId) {
        let to = self.ids[&host];
        while let Some(gossip) = self.hosts[from].mesh.next_message(self.now, host) {
            let Some(life) = self.sessions.get(&pair(from, to)).copied() else { continue };
            let message = Message::Mesh(gossip);
            let bytes = message.encode();
            self.hosts[from].sent += bytes.len() + OVERHEAD * (1 + bytes.len() / 1300);
            assert_eq!(Message::decode(&bytes[4..]).as_ref(), Ok(&message), "what is sent can be read");
            let Message::Mesh(gossip) = message else { unreachable!() };
            if let Gossip::Push(records) = &gossip {
                self.hosts[to].pushed += records.facts.len();
            }
            if self.cut.contains(&pair(from, to)) {
                continue;
            }
            let mut delay = self.delay + self.delay * (bytes.len() as u32) / 100_000;
            while self.chance(self.loss) {
                delay += 3 * self.delay + 50 * MS;
            }
            let at = (self.now + delay).max(self.last.get(&(from, to)).copied().unwrap_or_default());
            self.last.insert((from, to), at);
            self.later(at - self.now, to, Arrival::Message(from, life, gossip));
        }
    }

    fn arrive(&mut self, n: usize, arrival: Arrival) {
        if let Arrival::Silent(other) = arrival {
            return self.end(n, other);
        }
        if !self.hosts[n].alive {
            return;
        }
        match arrival {
            Arrival::Wake => {
                if self.hosts[n].wakes.is_some_and(|at| at <= self.now) {
                    self.hosts[n].wakes = None;
                }
                self.event(n, Event::Tick);
            }
            Arrival::Message(from, life, gossip) => {
                if self.sessions.get(&pair(from, n)) == Some(&life) {
                    self.event(n, Event::Heard(id(from), &gossip));
                }
            }
            Arrival::Dial(other) => self.dial(n, other),
            Arrival::Silent(_) => {}
        }
    }

    fn dial(&mut self, n: usize, other: usize) {
        if self.sessions.contains_key(&pair(n, other)) || !self.hosts[n].kept.contains(&id(other)) {
            return;
        }
        let known = self.hosts[n].mesh.addresses(id(other)).contains(&address(other));
        if !known || !self.hosts[other].alive || self.cut.contains(&pair(n, other)) {
            return self.later(REDIAL, n, Arrival::Dial(other));
        }
        self.lives += 1;
        self.sessions.insert(pair(n, other), self.lives);
        let rtt = Some(2 * self.delay);
        for (a, b) in [(n, other), (other, n)] {
            self.event(a, Event::Connected(id(b)));
            self.event(a, Event::LinkUp(id(b)));
            self.event(a, Event::Measured(id(b), rtt, 0.0));
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, ..))) = self.queue.peek()
            && *at <= end
        {
            let Some(Reverse((at, sequence, to))) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            let arrival = self.arrivals.remove(&sequence).unwrap();
            self.arrive(to, arrival);
        }
        self.now = end;
    }

    /// Runs until it holds; how long that took.
    pub(super) fn until(&mut self, what: &str, limit: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !holds(self) {
            assert!(self.now - start < limit, "not after {limit:?}: {what}\n{}", self.differences());
            self.run(20 * MS);
        }
        self.now - start
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|n| self.hosts[*n].alive).collect()
    }

    /// Everybody alive knows the same, and what each says newest.
    pub(super) fn agree(&self) -> bool {
        let root = |n: &usize| self.hosts[*n].mesh.sums.root();
        let alive = self.alive();
        alive.iter().all(|n| root(n) == root(&alive[0]))
    }

    /// Everybody alive finds a way to everybody alive, and to nobody else.
    pub(super) fn all_reachable(&self) -> bool {
        let alive = self.alive();
        alive.iter().all(|n| {
            let ways = self.hosts[*n].mesh.ways();
            alive.iter().filter(|o| *o != n).all(|o| ways.contains_key(&id(*o)))
                && ways.len() == alive.len() - 1
        })
    }

    fn differences(&self) -> String {
        let line = |n: &usize| {
            let host = &self.hosts[*n];
            let links: Vec<usize> = host.mesh.neighbours().map(|h| self.ids[&h]).collect();
            format!(
                "{n}: root {:x}, {} facts, {} ways, neighbours {links:?}, {:?}\n",
                host.mesh.sums.root(),
                host.mesh.facts.records().count(),
                host.mesh.ways().len(),
                host.counts
            )
        };
        self.alive().iter().map(line).collect()
    }
}
