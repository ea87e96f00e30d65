//! What lies between the hosts: addresses, weather, cuts, filters that pass one way, NATs.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use crate::random::Random;

/// A NAT forgets whom its host has sent to after so long.
const NAT_FORGETS: Duration = Duration::from_secs(30);

/// TCP sends a lost segment again so soon, then after twice as long, and so on.
const STREAM_AGAIN: Duration = Duration::from_millis(200);

/// How datagrams fare that nothing stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Lost, of 1000.
    pub loss: u32,
    /// Arriving twice, of 1000.
    pub twice: u32,
    /// On the way for at least so long.
    pub delay: Duration,
    /// And for up to so much longer, so that they overtake each other.
    pub jitter: Duration,
    /// The longest that passes, IP header included.
    pub mtu: usize,
}

impl Weather {
    /// Nothing is lost.
    #[must_use]
    pub fn calm(self) -> Self {
        Self { loss: 0, twice: 0, jitter: Duration::ZERO, ..self }
    }
}

impl Default for Weather {
    fn default() -> Self {
        Self { loss: 0, twice: 0, delay: Duration::from_millis(5), jitter: Duration::ZERO, mtu: 1500 }
    }
}

/// A datagram that arrives.
#[derive(Clone, Debug)]
pub struct Passage {
    /// Where.
    pub to: usize,
    /// Whom it seems to come from.
    pub from: SocketAddr,
    /// After how long; twice if it was doubled.
    pub after: Vec<Duration>,
}

/// One outside port for its host, the same towards everybody; it lets in only whom the host has sent to.
#[derive(Clone, Debug)]
struct Nat {
    public: SocketAddr,
    open: HashMap<SocketAddr, Duration>,
}

/// The network under the mesh.
#[derive(Clone, Debug)]
pub struct Underlay {
    /// As it is now.
    pub weather: Weather,
    addresses: Vec<SocketAddr>,
    /// Who is seen at an address.
    at: HashMap<SocketAddr, usize>,
    nats: Vec<Option<Nat>>,
    stopped: BTreeSet<(usize, usize)>,
    /// Nothing passes between the hosts below this number and the rest.
    split: Option<usize>,
    /// Between these no UDP passes, for good.
    no_udp: BTreeSet<(usize, usize)>,
    /// How often anybody has moved: no address is used again.
    moves: usize,
    random: Random,
}

impl Underlay {
    /// Everybody reaches everybody.
    #[must_use]
    pub fn new(hosts: usize, weather: Weather, seed: u64) -> Self {
        let addresses: Vec<SocketAddr> = (0..hosts).map(|n| public(10, n, 6783)).collect();
        let at = addresses.iter().enumerate().map(|(n, address)| (*address, n)).collect();
        let nats = (0..hosts).map(|_| None).collect();
        Self {
            weather,
            addresses,
            at,
            nats,
            stopped: BTreeSet::new(),
            split: None,
            no_udp: BTreeSet::new(),
            moves: 0,
            random: Random::new(seed),
        }
    }

    /// Where a host says that it is.
    #[must_use]
    pub fn address(&self, n: usize) -> SocketAddr {
        self.addresses[n]
    }

    /// Puts a host behind a NAT of its own.
    pub fn hide(&mut self, n: usize) {
        self.at.remove(&self.seen(n));
        self.nats[n] = Some(Nat { public: public(198, n, 40_000), open: HashMap::new() });
        self.at.insert(self.seen(n), n);
    }

    /// Gives a host another address, and its NAT too.
    pub fn relocate(&mut self, n: usize) {
        self.moves += 1;
        self.at.remove(&self.seen(n));
        let number = self.moves * self.addresses.len() + n;
        self.addresses[n] = public(10, number, 6783);
        if self.nats[n].is_some() {
            self.nats[n] = Some(Nat { public: public(198, number, 40_000), open: HashMap::new() });
        }
        self.at.insert(self.seen(n), n);
    }

    /// No UDP passes between the two, neither way, whatever is mended.
    pub fn block_udp(&mut self, a: usize, b: usize) {
        self.no_udp.extend([(a, b), (b, a)]);
    }

    /// Nothing passes from the one to the other.
    pub fn stop(&mut self, from: usize, to: usize) {
        self.stopped.insert((from, to));
    }

    /// Nothing passes between the hosts below this number and the rest.
    pub fn split(&mut self, at: usize) {
        self.split = Some(at);
    }

    /// Nothing is stopped any more.
    pub fn mend(&mut self) {
        self.stopped.clear();
        self.split = None;
    }

    /// What becomes of a datagram of `len` bytes.
    pub fn send(&mut self, now: Duration, from: usize, to: SocketAddr, len: usize) -> Option<Passage> {
        let source = self.seen(from);
        if let Some(nat) = &mut self.nats[from] {
            nat.open.insert(to, now);
        }
        let target = *self.at.get(&to)?;
        let let_in = self.nats[target]
            .as_ref()
            .is_none_or(|nat| nat.open.get(&source).is_some_and(|at| now.saturating_sub(*at) < NAT_FORGETS));
        let weather = self.weather;
        if !let_in
            || target == from
            || self.stopped.contains(&(from, target))
            || self.split.is_some_and(|at| (from < at) != (target < at))
            || self.no_udp.contains(&(from, target))
            || len > weather.mtu
            || self.random.chance(weather.loss)
        {
            return None;
        }
        let copies = if self.random.chance(weather.twice) { 2 } else { 1 };
        let after = (0..copies).map(|_| weather.delay + self.random.up_to(weather.jitter)).collect();
        Some(Passage { to: target, from: source, after })
    }

    /// Who answers a dial by TCP. No NAT lets one in.
    #[must_use]
    pub fn stream_to(&self, from: usize, to: SocketAddr) -> Option<usize> {
        let is_there =
            |n: &usize| self.addresses[*n] == to && self.nats[*n].is_none() && self.joins(from, *n);
        (0..self.addresses.len()).find(is_there)
    }

    /// Whether a stream between the two passes anything.
    #[must_use]
    pub fn joins(&self, a: usize, b: usize) -> bool {
        let split = self.split.is_some_and(|at| (a < at) != (b < at));
        a != b && !split && !self.stopped.contains(&(a, b)) && !self.stopped.contains(&(b, a))
    }

    /// How long a segment takes one way, sent again until it arrives.
    pub fn resent(&mut self) -> Duration {
        let weather = self.weather;
        let (mut after, mut again) = (weather.delay + self.random.up_to(weather.jitter), STREAM_AGAIN);
        while self.random.chance(weather.loss) {
            (after, again) = (after + again, again * 2);
        }
        after
    }

    /// Whether another host that is told of this address can dial it.
    #[must_use]
    pub fn can_dial(&self, n: usize, address: SocketAddr) -> bool {
        self.nats[n].is_none() && self.addresses[n] == address
    }

    /// The address that others see a host at.
    fn seen(&self, n: usize) -> SocketAddr {
        self.nats[n].as_ref().map_or(self.addresses[n], |nat| nat.public)
    }
}

fn public(first: u8, n: usize, port: u16) -> SocketAddr {
    let [.., a, b] = (n as u32).to_be_bytes();
    ([first, 51, a, b], port).into()
}
