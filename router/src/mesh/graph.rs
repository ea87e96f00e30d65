//! The graph of links that both ends claim: who is alive, and by which way; and the tree in it that news travel along. Hosts that know
//! the same find the same tree, without a word about it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use weft_api::id::HostId;

use super::Roster;
use super::choice::mix;
use super::facts::{Claim, Facts};

/// What each hop costs beside its round trip, microseconds: of two ways as quick the shorter one is better.
const HOP_US: u64 = 1000;
/// The round trip of a link that was not measured yet, to the tree: it does not grow into links that have just come up.
const UNMEASURED_US: u64 = 100_000;
/// In the tree a link counts up to so many times its cost, as chance would have it. Else where everybody is linked with everybody
/// one host would push to all.
const SPREAD: u64 = 16;

/// The members without a link of their own to us, and the first hop towards each (PROTOCOL 5).
#[must_use]
pub fn routes(ways: &BTreeMap<HostId, HostId>) -> BTreeMap<HostId, HostId> {
    ways.iter().filter(|(host, hop)| host != hop).map(|(host, hop)| (*host, *hop)).collect()
}

/// The members that have said something, by id, and the links that both ends claim.
#[derive(Debug)]
pub(super) struct Graph {
    hosts: Vec<HostId>,
    /// Those of one host after those of the other: it is built anew with every link in a mesh of a thousand.
    links: Vec<Link>,
    /// Where those of each host begin, and where the last ones end.
    starts: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    to: usize,
    /// To a way.
    cost: u64,
    /// To the tree.
    weight: u64,
}

impl Graph {
    pub(super) fn new(facts: &Facts, roster: &Roster) -> Self {
        let members = facts.records().filter(|(host, _)| roster.member(*host).is_some());
        let (hosts, claims): (Vec<HostId>, Vec<&[Claim]>) =
            members.map(|(host, said)| (host, &said.links[..])).unzip();
        let mut pairs: Vec<(usize, Link)> = Vec::new();
        for (at, host) in hosts.iter().enumerate() {
            for claim in claims[at].iter().filter(|c| c.host > *host) {
                let Ok(to) = hosts.binary_search(&claim.host) else { continue };
                let Some(back) = claims[to].iter().find(|c| c.host == *host) else { continue };
                // The worse of their measures counts.
                let (rtt_us, loss) =
                    (claim.rtt_us.max(back.rtt_us), claim.loss_percent.max(back.loss_percent));
                let cost = cost(rtt_us, loss);
                let chance = 1 + mix(number(*host) ^ mix(number(claim.host))) % SPREAD;
                let rtt = if rtt_us == 0 { UNMEASURED_US } else { rtt_us.into() };
                let weight = (HOP_US + rtt) * chance;
                pairs.push((at, Link { to, cost, weight }));
            }
        }
        let mut starts = vec![0; hosts.len() + 1];
        for (at, link) in &pairs {
            starts[*at + 1] += 1;
            starts[link.to + 1] += 1;
        }
        for at in 0..hosts.len() {
            starts[at + 1] += starts[at];
        }
        let mut links = vec![Link { to: 0, cost: 0, weight: 0 }; 2 * pairs.len()];
        let mut free = starts.clone();
        let mut put = |at: usize, link: Link| {
            links[free[at]] = link;
            free[at] += 1;
        };
        for (at, link) in pairs {
            put(at, link);
            put(link.to, Link { to: at, ..link });
        }
        Self { hosts, links, starts }
    }

    fn links_of(&self, at: usize) -> &[Link] {
        &self.links[self.starts[at]..self.starts[at + 1]]
    }

    /// Every member that can be reached, and the first hop of the best way there: by round trips, lossy links counted longer
    /// (each lost probe of a hundred as 2 % more). `links` are our own that are up. A host with a link to us is its own first
    /// hop. Equal ways: the lower hop.
    pub(super) fn ways(
        &self,
        me: HostId,
        links: &BTreeMap<HostId, Claim>,
        roster: &Roster,
    ) -> BTreeMap<HostId, HostId> {
        let mut hops: Vec<Option<HostId>> = vec![None; self.hosts.len()];
        let mut settled = vec![false; self.hosts.len()];
        let mut queue = BinaryHeap::new();
        let mut ways = BTreeMap::new();
        if let Ok(me) = self.hosts.binary_search(&me) {
            settled[me] = true;
        }
        // Own links come first, whatever they cost: a host with a link is its own first hop.
        for (host, claim) in links.iter().filter(|(h, _)| **h != me && roster.member(**h).is_some()) {
            ways.insert(*host, *host);
            if let Ok(at) = self.hosts.binary_search(host) {
                hops[at] = Some(*host);
                queue.push(Reverse((cost(claim.rtt_us, claim.loss_percent), *host, at)));
            }
        }
        while let Some(Reverse((far, hop, at))) = queue.pop() {
            if std::mem::replace(&mut settled[at], true) {
                continue;
            }
            hops[at].get_or_insert(hop);
            for link in self.links_of(at).iter().filter(|link| !settled[link.to]) {
                queue.push(Reverse((far + link.cost, hop, link.to)));
            }
        }
        let mut found: BTreeMap<HostId, HostId> =
            self.hosts.iter().zip(hops).filter_map(|(host, hop)| Some((*host, hop?))).collect();
        found.append(&mut ways);
        found
    }

    /// Our neighbours in the tree of the least weights from a root that everybody in reach finds: the first by a hash. Of our own links
    /// only those with `mine` count.
    pub(super) fn tree(&self, me: HostId, mine: impl Fn(HostId) -> bool) -> BTreeSet<HostId> {
        let Ok(me) = self.hosts.binary_search(&me) else { return BTreeSet::new() };
        let open = |a: usize, b: usize| match (a == me, b == me) {
            (true, _) => mine(self.hosts[b]),
            (_, true) => mine(self.hosts[a]),
            _ => true,
        };
        let (mut reached, mut found, mut next) = (vec![false; self.hosts.len()], vec![me], 0);
        reached[me] = true;
        while let Some(at) = found.get(next).copied() {
            next += 1;
            for link in self.links_of(at).iter().filter(|link| open(at, link.to)) {
                if !std::mem::replace(&mut reached[link.to], true) {
                    found.push(link.to);
                }
            }
        }
        let root = found.into_iter().min_by_key(|at| mix(number(self.hosts[*at]))).unwrap_or(me);
        let mut settled = vec![false; self.hosts.len()];
        let mut queue = BinaryHeap::from([Reverse((0, root, root))]);
        let mut neighbours = BTreeSet::new();
        while let Some(Reverse((far, at, from))) = queue.pop() {
            if std::mem::replace(&mut settled[at], true) {
                continue;
            }
            if at != from && (at == me || from == me) {
                neighbours.insert(self.hosts[if at == me { from } else { at }]);
            }
            for link in self.links_of(at).iter().filter(|link| !settled[link.to] && open(at, link.to)) {
                queue.push(Reverse((far + link.weight, link.to, at)));
            }
        }
        neighbours
    }
}

fn number(host: HostId) -> u64 {
    u64::from_be_bytes(host.0)
}

fn cost(rtt_us: u32, loss_percent: u8) -> u64 {
    (u64::from(rtt_us) + HOP_US) * (50 + u64::from(loss_percent.min(100))) / 50
}
