//! Hosts over an underlay on virtual time: nothing happens but what was scheduled, and the same seed is the same world.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_api::id::{HostId, HostKey};
use weft_router::mesh::{self, Limits, ToStore};
use weft_router::session::{self, Path, Remote};

use crate::datagram::{Datagram, Traffic};
use crate::frames::Sent;
use crate::host::{Host, SharedNotary, Stored, decisions, host_key};
use crate::model::{Late, Model};
use crate::queue::Queue;
use crate::random::Random;
use crate::signer::Signer;
use crate::tcp::{Stream, StreamDue};
use crate::underlay::{Underlay, Weather};

/// The same as the product's clock: nothing is sooner.
pub(crate) const MS: Duration = Duration::from_millis(1);
/// The disk takes so long.
const DISK: Duration = Duration::from_millis(2);
/// The mesh is told of round trips so often.
pub(crate) const MEASURE: Duration = Duration::from_secs(1);
/// Tables follow facts so much later.
pub(crate) const TABLES: Duration = Duration::from_millis(20);

/// What becomes due.
#[derive(Clone)]
pub(crate) enum Due {
    /// A timer of a host.
    Wake,
    Measure,
    Tables,
    Stored,
    /// Something in the model of QUIC.
    Model(Late),
    /// A timer of QUIC itself.
    Quic,
    /// Something about streams.
    Stream(StreamDue),
    /// A datagram.
    Arrives(Remote, Datagram),
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
    pub(crate) keys: Vec<HostKey>,
    pub(crate) ids: Vec<HostId>,
    pub(crate) model: Model,
    /// QUIC is no model.
    pub(crate) quinn: bool,
    /// What quinn takes for the time when everything begins.
    pub(crate) base: Instant,
    /// Connections that have something to do: of whom, and which.
    pub(crate) stirred: BTreeSet<(usize, usize)>,
    pub(crate) streams: Vec<Stream>,
    /// Whom each host was told of by a person, and where that was then.
    pub(crate) told: Vec<Vec<(HostId, SocketAddr)>>,
    /// Too big for every host to have tables and a disk of its own.
    pub(crate) thin: bool,
    pub(crate) signer: Signer,
    pub(crate) limits: Limits,
    pub(crate) notary: Arc<SharedNotary>,
    pub(crate) random: Random,
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
            let stored = Stored { roster: world.signer.roster.clone(), ..Stored::default() };
            let mut host = world.start(n, 1, stored);
            host.store_roster();
            world.hosts.push(host);
        }
        world
    }

    /// Without any host yet.
    pub(crate) fn empty(hosts: usize, networks: usize, weather: Weather, seed: u64) -> Self {
        let keys: Vec<HostKey> = (0..hosts).map(|n| HostKey(host_key(n).public())).collect();
        let mut world = Self {
            now: Duration::ZERO,
            hosts: Vec::new(),
            underlay: Underlay::new(hosts, weather, seed),
            sent: Vec::new(),
            traffic: Traffic::default(),
            broken: Vec::new(),
            networks,
            ids: keys.iter().map(HostKey::id).collect(),
            keys,
            model: Model::default(),
            quinn: false,
            base: Instant::now(),
            stirred: BTreeSet::new(),
            streams: Vec::new(),
            told: Vec::new(),
            thin: false,
            signer: Signer::new(hosts),
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

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.drive_quic();
        while let Some((at, (n, life, due))) = self.queue.pop(end) {
            self.now = self.now.max(at);
            if self.hosts[n].alive && self.hosts[n].life == life {
                self.happen(n, due);
                self.drive_quic();
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

    /// Whether every host that runs has every member's record under the newest mesh key.
    #[must_use]
    pub fn one_roster(&self) -> bool {
        let newest = self.signer.number();
        let is_whole = |n: &usize| {
            let roster = self.hosts[*n].mesh.roster();
            roster.members().len() == self.ids.len()
                && roster.records().all(|(_, held)| held.record.under.key == newest)
        };
        self.alive().iter().all(is_whole)
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
            Due::Stream(due) => self.stream(n, due),
            Due::Model(late) => self.late_model(n, late),
            Due::Quic => self.tick_quic(n),
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
            mesh::Action::Refuse(host) => self.session(n, session::Event::Refused(host)),
            mesh::Action::Changed(changed) => {
                if changed.roster {
                    self.members_heard(n);
                }
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

    /// The roster may have others. Nobody is ever removed here: who was a member stays one.
    fn members_heard(&mut self, n: usize) {
        let members = self.hosts[n].mesh.roster().members();
        let before = std::mem::replace(&mut self.hosts[n].members, members.clone());
        if let Some(lost) = before.difference(&members).next() {
            self.broken.push(format!("host {n} takes {lost} for no member any more"));
        }
        if before != members {
            self.session(n, session::Event::Members(&members));
            members.into_iter().for_each(|member| self.tell_addresses(n, member));
        }
    }

    pub(crate) fn tell_addresses(&mut self, n: usize, host: HostId) {
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
}
