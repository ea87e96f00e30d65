//! Links: whom to keep one with, what this host claims of its own, and who is reachable through whom.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use weft_api::fact::Item;
use weft_api::id::HostId;

use super::bucket::Rate;
use super::choice::Standing;
use super::facts::Claim;
use super::graph::{Graph, routes};
use super::tie::{Measure, Tie};
use super::{Action, Bond, Changed, Gossip, Mesh};

/// A claimed round trip or loss is said anew when it has changed by half, and not more often than this.
const REMEASURE: Duration = Duration::from_secs(60);
/// When a host starts or halves meet a host gets many links within a second or two: two changes are said at once, the next ones
/// together. Each goes to every host.
const CLAIMS: Rate = Rate { per_second: 1, burst: 2 };
/// Changes of far links are looked at together.
const SURVEY_AFTER: Duration = Duration::from_millis(50);
/// When a thousand hosts start or halves meet there is always another; it is a millisecond's work then.
const SURVEY_EVERY: Duration = Duration::from_millis(250);
/// And those of their measures alone.
const MEASURES_AFTER: Duration = Duration::from_secs(2);
/// Addresses that this host is seen at: so many of its facts, the latest ones.
const MAX_SEEN: usize = 4;
/// One member makes this host say another address of itself at most so often.
const SEEN_HOLD: Duration = Duration::from_secs(2);

/// Where a member sees this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    at: SocketAddr,
    since: Duration,
    /// When it is, or was, to be said.
    due: Duration,
}

impl Mesh {
    pub(super) fn connected(&mut self, now: Duration, host: HostId) {
        let tie = self.ties.entry(host).or_default();
        (tie.connected, tie.told) = (true, None);
        if self.bind(host) {
            self.greet(host);
        }
        self.claims_at = Some(now);
        self.choose_at = Some(now);
    }

    pub(super) fn disconnected(&mut self, now: Duration, host: HostId, actions: &mut Vec<Action>) {
        let Some(tie) = self.ties.remove(&host) else { return };
        let was_eager = tie.eager() && tie.bound();
        if tie.up {
            // Envelopes may pass yet; what was to be sent is lost.
            let left = self.ties.entry(host).or_default();
            (left.up, left.measured) = (true, tie.measured);
        }
        self.wants.lost(now, host);
        if was_eager {
            self.mend_tree();
        }
        self.claims_at = Some(now);
        self.choose_at = Some(now);
        self.survey(now, actions);
    }

    pub(super) fn link(&mut self, now: Duration, host: HostId, up: bool, actions: &mut Vec<Action>) {
        let tie = self.ties.entry(host).or_default();
        tie.up = up;
        if !up {
            (tie.claimed, tie.measured) = (None, Measure::default());
            if !tie.connected {
                self.ties.remove(&host);
            }
        }
        self.claims_at = Some(now);
        self.choose_at = Some(now);
        self.survey(now, actions);
    }

    pub(super) fn measured(&mut self, now: Duration, host: HostId, rtt: Option<Duration>, loss: f32) {
        let Some(tie) = self.ties.get_mut(&host).filter(|t| t.up) else { return };
        let rtt_us = rtt.map_or(0, |rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        let loss_percent = (loss.clamp(0.0, 1.0) * 100.0) as u8;
        tie.measured = Measure { rtt_us, loss_percent };
        if let Some((claimed, since)) = tie.claimed
            && differs(claimed, tie.measured)
        {
            let at = if claimed.rtt_us == 0 { now } else { now.max(since + REMEASURE) };
            self.claims_at = Some(self.claims_at.map_or(at, |due| due.min(at)));
        }
    }

    pub(super) fn seen_at(&mut self, now: Duration, host: HostId, address: SocketAddr) {
        let before = self.seen.get(&host).copied();
        if self.roster.member(host).is_none() || before.is_some_and(|sight| sight.at == address) {
            return;
        }
        let due = before
            .map_or(now, |sight| if sight.due > now { sight.due } else { now.max(sight.due + SEEN_HOLD) });
        self.seen.insert(host, Sight { at: address, since: now, due });
        self.claims_at = Some(self.claims_at.map_or(due, |at| at.min(due)));
    }

    /// What this host says of its links and the addresses that it is seen at.
    pub(super) fn claim_if_due(&mut self, now: Duration) {
        if self.claims_at.is_none_or(|at| at > now) {
            return;
        }
        self.claims_at = Some(self.claims.ready(1, CLAIMS)).filter(|at| *at > now);
        if self.claims_at.is_some() {
            return;
        }
        let mut items = Vec::new();
        for (host, tie) in self.ties.iter_mut().filter(|(_, t)| t.up && t.bound()) {
            let due = match tie.claimed {
                None => true,
                Some((was, since)) if differs(was, tie.measured) => {
                    was.rtt_us == 0 || since + REMEASURE <= now
                }
                Some(_) => false,
            };
            if due {
                tie.claimed = Some((tie.measured, now));
            }
            if let Some((Measure { rtt_us, loss_percent }, since)) = tie.claimed {
                items.push(Item::Neighbour { host: *host, rtt_us, loss_percent });
                if differs(tie.measured, Measure { rtt_us, loss_percent }) {
                    let at = since + REMEASURE;
                    self.claims_at = Some(self.claims_at.map_or(at, |due| due.min(at)));
                }
            }
        }
        self.seen.retain(|host, _| self.roster.member(*host).is_some());
        let mut seen: Vec<Sight> = self.seen.values().copied().collect();
        seen.sort_by_key(|sight| Reverse((sight.since, sight.at)));
        let mut latest: Vec<SocketAddr> = Vec::new();
        for sight in seen {
            if latest.len() < MAX_SEEN && !latest.contains(&sight.at) {
                latest.push(sight.at);
            }
        }
        items.extend(latest.into_iter().map(Item::Seen));
        if self.own.set_links(&items) {
            self.claims.charge(now, 1, CLAIMS);
        }
    }

    /// What the other end makes of the link.
    pub(super) fn bond_heard(&mut self, now: Duration, from: HostId, bond: Bond) {
        let bound = self.neighbours().count();
        let tie = self.ties.entry(from).or_default();
        let was = tie.bound();
        match bond {
            Bond::Wanted if was || bound < self.choice.most(&self.limits) => tie.theirs = true,
            Bond::Wanted => {
                tie.told = Some(Bond::Full);
                tie.say(Gossip::Neighbour(Bond::Full));
            }
            Bond::Spare => tie.theirs = false,
            Bond::Full => {
                (tie.theirs, tie.wanted) = (false, false);
                self.choice.full(now, from);
            }
        }
        if was != self.ties.get(&from).is_some_and(Tie::bound) {
            if was {
                self.mend_tree();
            } else {
                self.greet(from);
            }
            self.claims_at = Some(now);
        }
        self.choose_at = Some(now);
    }

    pub(super) fn choose_if_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.choose_at.is_none_or(|at| at > now) {
            return;
        }
        let random = self.draw();
        let mut choice = std::mem::replace(&mut self.choice, super::choice::Choice::new(self.me));
        let chosen = choice.choose(now, &self.limits, random, self.ways.len(), |host| Standing {
            up: self.ties.get(&host).is_some_and(|t| t.up && t.connected),
            reachable: self.ways.contains_key(&host),
            dialable: self.places(host).next().is_some(),
        });
        self.choose_at = choice.next(&self.limits);
        self.choice = choice;
        let mut mend = false;
        for (host, tie) in &mut self.ties {
            let was = tie.bound();
            tie.wanted = chosen.contains(host);
            if was && !tie.bound() {
                self.claims_at = Some(now);
                mend |= tie.eager();
            }
        }
        if mend {
            self.mend_tree();
        }
        let hosts: Vec<HostId> = self.ties.iter().filter(|(_, t)| t.connected).map(|(h, _)| *h).collect();
        for host in hosts {
            if self.bind(host) {
                self.greet(host);
                self.claims_at = Some(now);
            }
        }
        let mut kept = chosen;
        kept.extend(self.neighbours());
        if kept != self.kept {
            actions.push(Action::Keep(kept.clone()));
            self.kept = kept;
        }
    }

    /// Tells the other end what we make of the link, if that has changed. Whether the two gossip because of it.
    fn bind(&mut self, host: HostId) -> bool {
        let Some(tie) = self.ties.get_mut(&host).filter(|t| t.connected) else { return false };
        let bond = if tie.wanted { Bond::Wanted } else { Bond::Spare };
        if tie.told.unwrap_or(Bond::Spare) == bond || (tie.told == Some(Bond::Full) && bond == Bond::Spare) {
            return false;
        }
        tie.told = Some(bond);
        tie.say(Gossip::Neighbour(bond));
        bond == Bond::Wanted
    }

    /// Begins to gossip: what either has missed is found. Who is in no tree yet is pushed to until one end prunes.
    fn greet(&mut self, host: HostId) {
        let root = Gossip::Root(self.sums.root());
        let grown = self.ties.values().any(|t| t.tree && t.bound());
        if let Some(tie) = self.ties.get_mut(&host) {
            tie.grafted = !grown;
            tie.say(root);
        }
    }

    pub(super) fn survey_soon(&mut self, now: Duration) {
        let at = (now + SURVEY_AFTER).max(self.surveyed + SURVEY_EVERY);
        self.ways_at = Some(self.ways_at.map_or(at, |due| due.min(at)));
    }

    /// No link has come or gone.
    pub(super) fn survey_later(&mut self, now: Duration) {
        self.ways_at.get_or_insert(now + MEASURES_AFTER);
    }

    pub(super) fn survey_if_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.ways_at.is_some_and(|at| at <= now) {
            self.survey(now, actions);
        }
    }

    fn survey(&mut self, now: Duration, actions: &mut Vec<Action>) {
        (self.ways_at, self.surveyed) = (None, now);
        let links: BTreeMap<HostId, Claim> = self
            .ties
            .iter()
            .filter(|(_, t)| t.up)
            .map(|(host, t)| {
                let Measure { rtt_us, loss_percent } = t.measured;
                (*host, Claim { host: *host, rtt_us, loss_percent })
            })
            .collect();
        let graph = self.graph.take().unwrap_or_else(|| Graph::new(&self.facts, &self.roster));
        let bound: BTreeSet<HostId> = self.neighbours().filter(|host| links.contains_key(host)).collect();
        let tree = graph.tree(self.me, |host| bound.contains(&host));
        self.grow(now, &tree);
        let ways = graph.ways(self.me, &links, &self.roster);
        self.graph = Some(graph);
        if ways == self.ways {
            return;
        }
        let found: Vec<HostId> = ways.keys().filter(|h| !self.ways.contains_key(h)).copied().collect();
        for host in found {
            let random = self.draw();
            self.choice.found(now, random, host);
            self.choose_at = Some(now);
        }
        let (before, after) = (routes(&self.ways), routes(&ways));
        self.ways = ways;
        if before != after {
            actions.push(Action::Routes(after));
        }
        self.changed(now, Changed { reachable: true, ..Changed::default() }, actions);
    }
}

/// By half of the smaller one. Of 32 probes a few are lost by chance where one in twenty datagrams is.
fn differs(was: Measure, is: Measure) -> bool {
    let far = |a: u32, b: u32| 2 * u64::from(a.max(b)) > 3 * u64::from(a.min(b));
    far(was.rtt_us, is.rtt_us) || far(u32::from(was.loss_percent.max(20)), u32::from(is.loss_percent.max(20)))
}
