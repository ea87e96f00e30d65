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
    let others = facts.records().filter(|(host, _)| *host != me && roster.member(*host).is_some());
    let nodes: Vec<Node<'_>> = others.map(|(host, said)| Node { host, links: &said.links }).collect();
    let find = |host: HostId| nodes.binary_search_by_key(&host, |node| node.host).ok();
    let mut hops: Vec<Option<HostId>> = vec![None; nodes.len()];
    let mut settled = vec![false; nodes.len()];
    let mut queue = BinaryHeap::new();
    let mut ways = BTreeMap::new();
    // Own links come first, whatever they cost: a host with a link is its own first hop.
    for (host, claim) in links.iter().filter(|(h, _)| **h != me && roster.member(**h).is_some()) {
        ways.insert(*host, *host);
        if let Some(at) = find(*host) {
            hops[at] = Some(*host);
            queue.push(Reverse((cost(claim), *host, at)));
        }
    }
    while let Some(Reverse((far, hop, at))) = queue.pop() {
        if std::mem::replace(&mut settled[at], true) {
            continue;
        }
        hops[at].get_or_insert(hop);
        let host = nodes[at].host;
        for claim in nodes[at].links {
            let Some(next) = find(claim.host).filter(|next| !settled[*next]) else { continue };
            // Both ends claim it; the worse of their measures counts.
            let Some(back) = nodes[next].links.iter().find(|c| c.host == host) else { continue };
            let rtt_us = claim.rtt_us.max(back.rtt_us);
            let loss_percent = claim.loss_percent.max(back.loss_percent);
            queue.push(Reverse((far + cost(&Claim { host, rtt_us, loss_percent }), hop, next)));
        }
    }
    let found = nodes.iter().zip(hops).filter_map(|(node, hop)| Some((node.host, hop?)));
    ways.extend(found);
    ways
}

/// A host and the links that it claims.
struct Node<'a> {
    host: HostId,
    links: &'a [Claim],
}

/// The members without a link of their own to us, and the first hop towards each (PROTOCOL 5).
#[must_use]
pub fn routes(ways: &BTreeMap<HostId, HostId>) -> BTreeMap<HostId, HostId> {
    ways.iter().filter(|(host, hop)| host != hop).map(|(host, hop)| (*host, *hop)).collect()
}

fn cost(claim: &Claim) -> u64 {
    (u64::from(claim.rtt_us) + HOP_US) * (50 + u64::from(claim.loss_percent.min(100))) / 50
}
