//! Who is alive, and by which way: reachable in the graph of links that both ends claim.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use weft_api::id::HostId;

use super::Roster;
use super::facts::{Claim, Facts};

/// What each hop costs beside its round trip, microseconds: of two ways as quick the shorter one is better.
const HOP_US: u64 = 1000;

/// Every member that can be reached, and the first hop of the best way there: by round trips, lossy links counted longer
/// (each lost probe of a hundred as 2 % more). `links` are our own that are up. A host with a link to us is its own first
/// hop. Equal ways: the lower hop.
#[must_use]
pub fn ways(
    me: HostId,
    links: &BTreeMap<HostId, Claim>,
    facts: &Facts,
    roster: &Roster,
) -> BTreeMap<HostId, HostId> {
    let mut ways = BTreeMap::new();
    let mut queue = BinaryHeap::new();
    // Own links come first, whatever they cost: a host with a link is its own first hop.
    for (host, claim) in links.iter().filter(|(h, _)| **h != me && roster.member(**h).is_some()) {
        ways.insert(*host, *host);
        queue.push(Reverse((cost(claim), *host, *host)));
    }
    let mut settled = BTreeMap::new();
    while let Some(Reverse((far, hop, host))) = queue.pop() {
        if settled.contains_key(&host) {
            continue;
        }
        settled.insert(host, far);
        ways.entry(host).or_insert(hop);
        for (next, claim) in confirmed(host, facts) {
            if next != me && !settled.contains_key(&next) && roster.member(next).is_some() {
                queue.push(Reverse((far + cost(&claim), hop, next)));
            }
        }
    }
    ways
}

/// The members without a link of their own to us, and the first hop towards each (PROTOCOL 5).
#[must_use]
pub fn routes(ways: &BTreeMap<HostId, HostId>) -> BTreeMap<HostId, HostId> {
    ways.iter().filter(|(host, hop)| host != hop).map(|(host, hop)| (*host, *hop)).collect()
}

/// The links of a host that the other end claims too; the worse of both ends' measures.
fn confirmed(host: HostId, facts: &Facts) -> impl Iterator<Item = (HostId, Claim)> {
    let claims = facts.get(host).map_or(&[][..], |said| &said.links);
    claims.iter().filter_map(move |claim| {
        let back = facts.get(claim.host)?.links.iter().find(|c| c.host == host)?;
        let rtt_us = claim.rtt_us.max(back.rtt_us);
        let loss_percent = claim.loss_percent.max(back.loss_percent);
        Some((claim.host, Claim { host: claim.host, rtt_us, loss_percent }))
    })
}

fn cost(claim: &Claim) -> u64 {
    (u64::from(claim.rtt_us) + HOP_US) * (50 + u64::from(claim.loss_percent.min(100))) / 50
}
