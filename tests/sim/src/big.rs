//! A mesh of a thousand hosts: what a change, a death, an hour apart and plain time cost it. Every host has the product's own
//! session layer and mesh; they share one copy of each record. Tables of the switch are made on a few hosts only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use weft_api::fact::{FactRecord, FactVersion, Item, Items};
use weft_api::id::{HostId, NetworkId};
use weft_router::session::IDLE_AFTER;
use weft_router::switch::Owner;

use crate::World;
use crate::frames::Place;
use crate::host::{Stored, decisions, host_key, items, mesh_id, network};
use crate::random::Random;
use crate::underlay::Weather;
use crate::world::MS;

/// What a host sends at most in plain time, 3 changes a second in the whole mesh, bits a second.
pub const PLAIN: f64 = 20_000.0;
/// And while halves of the mesh catch up, bits in any second.
pub const CATCH_UP: f64 = 10_000_000.0;
/// A change is known everywhere within this,
pub const KNOWN: Duration = Duration::from_secs(2);
/// a death within this,
pub const DEAD: Duration = Duration::from_secs(6);
/// and everything after two halves have met again.
pub const HEALED: Duration = Duration::from_secs(5);

const SEC: Duration = Duration::from_secs(1);
/// Of each host's endpoints every other one is on the second.
pub(crate) const NETWORKS: usize = 2;
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// What hosts send is looked at so long after halves have met, or until they are one.
const CATCHES_UP: Duration = Duration::from_secs(5);
/// After halves have met, hosts move to better neighbours for so long.
const RETURNED: Duration = Duration::from_secs(5 * 60 + 10);
/// Hosts that say something before the others.
const FIRST: usize = 40;
/// Hosts whose tables are looked at.
const LOOKED_AT: usize = 3;

/// A big mesh.
pub struct Big {
    /// Its hosts.
    pub world: World,
    places: Vec<Vec<Place>>,
    random: Random,
    changes: u64,
}

/// What was sent in some time.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Bits a second of a host, all together.
    pub mean: f64,
    /// Of the host that sent most.
    pub most: f64,
    /// Of the mean, by [`Traffic::KINDS`](crate::Traffic::KINDS).
    pub kinds: [f64; 7],
}

/// How two halves became one.
#[derive(Clone, Debug)]
pub struct Healed {
    /// Everybody knows what anybody had said before the halves met.
    pub known: Duration,
    /// Everybody finds a way to everybody.
    pub reached: Duration,
    /// The most that one host sent in a second, bits.
    pub most: f64,
    /// What went wrong: facts lost, addresses in use twice. A sentence each.
    pub wrong: Vec<String>,
    /// When hosts have moved to better neighbours everybody knows the same.
    pub rests: bool,
}

impl Big {
    /// Every host has on its disk what every host said before all of them went down.
    #[must_use]
    pub fn new(hosts: usize, endpoints: usize, seed: u64) -> Self {
        let weather =
            Weather { loss: 0, twice: 0, delay: Duration::from_millis(10), jitter: 5 * MS, mtu: 1500 };
        let mut world = World::empty(hosts, NETWORKS, weather, seed);
        world.thin = true;
        let places: Vec<Vec<Place>> =
            (0..hosts).map(|host| (0..endpoints).map(|n| place(host, n)).collect()).collect();
        let facts: Vec<FactRecord> = (0..hosts)
            .map(|n| {
                let said = items(world.underlay.address(n), &places[n].iter().copied().collect(), NETWORKS);
                let said = Items::new(said.iter().map(Item::encode).collect());
                let version = FactVersion { boot: 1, sequence: 1 };
                FactRecord::sign(&host_key(n), mesh_id(), world.ids[n], version, said)
            })
            .collect();
        let roster = world.signer.roster.clone();
        let stored = Stored { roster, facts, decisions: decisions(hosts, NETWORKS), ..Stored::default() };
        for (n, places) in places.iter().enumerate() {
            let mut host = world.start(n, 2, stored.clone());
            host.endpoints = places.iter().copied().collect();
            world.hosts.push(host);
        }
        Self { world, places, random: Random::new(seed), changes: 0 }
    }

    /// All hosts start within a second or two; how long until all know all, and find a way to all.
    pub fn settle(&mut self) -> Option<Duration> {
        let hosts = self.world.hosts.len();
        for n in 0..hosts {
            self.world.join_up(n);
        }
        self.world.run(2 * SEC);
        for n in 0..hosts {
            self.world.say(n);
            // The first make the tree that the others are heard along.
            self.world.run(if n < FIRST { SEC / FIRST as u32 } else { SEC / hosts as u32 });
        }
        let took = self.until(|world| world.whole());
        self.world.run(IDLE_AFTER + 10 * SEC); // Sessions of the beginning end.
        took
    }

    /// A container starts or ends somewhere, again and again; each time how long it is until every host knows.
    pub fn spread(&mut self, times: usize) -> Vec<Option<Duration>> {
        let mut took = Vec::new();
        for _ in 0..times {
            let owner = self.change(|_| true);
            let id = self.world.ids[owner];
            let version =
                |world: &World, n: usize| world.hosts[n].mesh.facts().get(id).map(|s| s.head.version);
            let said = version(&self.world, owner);
            let mut waiting = self.world.alive();
            took.push(self.until(|world| {
                waiting.retain(|n| version(world, *n) < said);
                waiting.is_empty()
            }));
            self.world.run(2 * SEC);
        }
        took
    }

    /// So many changes a second in all, for some time; what is sent.
    pub fn steady(&mut self, time: Duration, per_second: u32) -> Sent {
        let sent = |world: &World| world.hosts.iter().map(|h| h.sent).collect::<Vec<_>>();
        let (before, traffic) = (sent(&self.world), self.world.traffic);
        self.live(time, per_second, |_| true);
        let bits = |bytes: u64| bytes as f64 * 8.0 / time.as_secs_f64();
        let each: Vec<f64> = sent(&self.world).iter().zip(&before).map(|(a, b)| bits(a - b)).collect();
        let hosts = self.world.alive().len() as f64;
        let kinds: Vec<u64> = self.world.traffic.0.iter().zip(traffic.0).map(|(a, b)| a - b).collect();
        let kinds = std::array::from_fn(|n| bits(kinds[n]) / hosts);
        Sent { mean: each.iter().sum::<f64>() / hosts, most: each.iter().copied().fold(0.0, f64::max), kinds }
    }

    /// Hosts die, one after the other; each time how long it is until no host finds a way there.
    pub fn death(&mut self, times: usize) -> Vec<Option<Duration>> {
        let mut took = Vec::new();
        for _ in 0..times {
            let alive = self.world.alive();
            let dead = alive[1 + self.random.below(alive.len() - 1)];
            self.world.kill(dead);
            let id = self.world.ids[dead];
            let mut waiting = self.world.alive();
            took.push(self.until(|world| {
                waiting.retain(|n| world.hosts[*n].mesh.ways().contains_key(&id));
                waiting.is_empty()
            }));
            self.world.run(10 * SEC);
        }
        took
    }

    /// Two halves that do not hear each other, and in each of them life goes on; then they meet.
    pub fn part(&mut self, time: Duration, per_second: u32) -> Option<Healed> {
        self.world.underlay.split(self.world.hosts.len() / 2);
        self.live(time, per_second, |_| true);
        let said: Vec<(HostId, FactVersion)> =
            self.world.alive().into_iter().filter_map(|n| self.own(n)).collect();
        self.world.underlay.mend();
        let (start, mut most) = (self.world.now, 0.0f64);
        let (mut known, mut reached) = (None, None);
        let mut waiting = self.world.alive();
        let mut before: Vec<u64> = self.world.hosts.iter().map(|h| h.sent).collect();
        let mut second = start;
        while known.is_none() || reached.is_none() || self.world.now - start < CATCHES_UP {
            if self.world.now - start > PATIENCE {
                return None;
            }
            self.world.run(50 * MS);
            let world = &self.world;
            if world.now - second >= SEC {
                let sent = world.hosts.iter().zip(&before).map(|(h, b)| (h.sent - b) as f64 * 8.0);
                most = sent.fold(most, f64::max);
                (second, before) = (world.now, world.hosts.iter().map(|h| h.sent).collect());
            }
            waiting.retain(|n| !world.knows(*n, &said));
            if waiting.is_empty() {
                known.get_or_insert(world.now - start);
            }
            if world.reach() {
                reached.get_or_insert(world.now - start);
            }
        }
        let wrong = self.wrong();
        self.world.run(RETURNED);
        let rests = self.until(|world| world.whole()).is_some();
        Some(Healed { known: known?, reached: reached?, most, wrong, rests })
    }

    /// What two hosts that were asked disagree on with what is true: facts lost, addresses in use twice; and what the switch would
    /// make of it.
    #[must_use]
    pub fn wrong(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let alive = self.world.alive();
        let truth: BTreeSet<Place> =
            alive.iter().flat_map(|n| self.world.hosts[*n].endpoints.iter().copied()).collect();
        let owners: BTreeMap<HostId, usize> = alive.iter().map(|n| (self.world.ids[*n], *n)).collect();
        for _ in 0..LOOKED_AT {
            let at = alive[self.random.below(alive.len())];
            let mut used: BTreeMap<(NetworkId, IpAddr), usize> = BTreeMap::new();
            for (owner, said) in self.world.hosts[at].mesh.facts().records() {
                let Some(owner) = owners.get(&owner).copied() else { continue };
                for item in said.record.items.decoded() {
                    let Item::Endpoint(endpoint) = item else { continue };
                    for address in endpoint.addresses {
                        if let Some(other) = used.insert((endpoint.network, address), owner) {
                            wrong.push(format!(
                                "hosts {other} and {owner} both use {address}, says host {at}"
                            ));
                        }
                    }
                }
            }
            let lost = truth
                .iter()
                .filter(|p| used.get(&(network(p.network).id, p.address().into())) != Some(&p.host));
            wrong.extend(lost.map(|place| format!("host {at} has lost {place:?}")));
            if used.len() > truth.len() {
                wrong.push(format!("host {at} knows {} endpoints too many", used.len() - truth.len()));
            }
            let me = self.world.ids[at];
            let host = &mut self.world.hosts[at];
            host.make_tables(me, NETWORKS);
            let leads = |place: &&Place| {
                let owner = host.tables.get(place.network).and_then(|(t, _)| t.endpoints.get(&place.mac()));
                match owner {
                    Some(Owner::Here) => place.host == at,
                    Some(Owner::Host(owner)) => owners.get(owner) == Some(&place.host),
                    None => false,
                }
            };
            let astray = truth.iter().filter(|place| !leads(place)).count();
            host.tables.clear();
            if astray > 0 {
                wrong.push(format!("the switch of host {at} leads astray to {astray} endpoints"));
            }
        }
        wrong
    }

    /// How often something was changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn live(&mut self, time: Duration, per_second: u32, may: impl Fn(usize) -> bool) {
        let end = self.world.now + time;
        while self.world.now < end {
            if per_second > 0 {
                self.change(&may);
            }
            self.world.run((SEC / per_second.max(1)).min(end - self.world.now));
        }
    }

    /// A container starts or ends on some host; which.
    fn change(&mut self, may: impl Fn(usize) -> bool) -> usize {
        loop {
            let n = self.random.below(self.places.len());
            if !self.world.hosts[n].alive || !may(n) || self.places[n].is_empty() {
                continue;
            }
            let place = self.places[n][self.random.below(self.places[n].len())];
            let runs = self.world.hosts[n].endpoints.contains(&place);
            self.world.set_endpoint(place, !runs);
            self.changes += 1;
            return n;
        }
    }

    /// What a host says now.
    fn own(&self, n: usize) -> Option<(HostId, FactVersion)> {
        let id = self.world.ids[n];
        self.world.hosts[n].mesh.facts().get(id).map(|said| (id, said.head.version))
    }

    fn until(&mut self, mut holds: impl FnMut(&World) -> bool) -> Option<Duration> {
        let start = self.world.now;
        while !holds(&self.world) {
            if self.world.now - start > PATIENCE {
                return None;
            }
            self.world.run(10 * MS);
        }
        Some(self.world.now - start)
    }
}

/// The nth container of a host.
pub(crate) fn place(host: usize, n: usize) -> Place {
    Place { host, network: n % NETWORKS, nth: (n / NETWORKS) as u8 }
}

impl World {
    /// Everybody knows the same, and finds a way to everybody.
    fn whole(&self) -> bool {
        let alive = self.alive();
        let root = alive.first().map(|n| self.hosts[*n].mesh.root());
        alive.iter().all(|n| Some(self.hosts[*n].mesh.root()) == root) && self.reach()
    }

    fn reach(&self) -> bool {
        let alive = self.alive();
        alive.iter().all(|n| self.hosts[*n].mesh.ways().len() + 1 >= alive.len())
    }

    /// Whether a host knows all of this, or something newer.
    fn knows(&self, n: usize, said: &[(HostId, FactVersion)]) -> bool {
        let facts = self.hosts[n].mesh.facts();
        said.iter().all(|(host, version)| facts.get(*host).is_some_and(|s| s.head.version >= *version))
    }
}
