//! Which hosts this one keeps links with: everybody in a small mesh; in a large one a few by rendezvous hash, so that every host is
//! somebody's choice, and now and then one that nobody has reached for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_api::id::HostId;

use super::Limits;

/// A choice that has no link after this is passed over.
const PATIENCE: Duration = Duration::from_secs(5);
/// What was passed over, or has enough neighbours itself, is tried again after this.
const PASSED_OVER: Duration = Duration::from_secs(60);
/// An unreachable host is tried so often.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// The link of one that was tried is kept for so long, to exchange what each has missed.
const TRY_FOR: Duration = Duration::from_secs(10);

/// How a member is, as the choice must know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// There is a link.
    pub up: bool,
    /// There is a way, by a link or over others.
    pub reachable: bool,
    /// Something is known by which it could be dialled.
    pub dialable: bool,
}

#[derive(Debug)]
pub(super) struct Choice {
    me: HostId,
    /// By rendezvous hash.
    order: Vec<(u64, HostId)>,
    /// Chosen, no link yet.
    awaited: BTreeMap<HostId, Duration>,
    passed_over: BTreeMap<HostId, Duration>,
    tried: BTreeMap<HostId, Duration>,
    next_try: Duration,
}

impl Choice {
    pub(super) fn new(me: HostId) -> Self {
        Self {
            me,
            order: Vec::new(),
            awaited: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            tried: BTreeMap::new(),
            next_try: PATIENCE,
        }
    }

    /// The other members.
    pub(super) fn set_members(&mut self, members: &BTreeSet<HostId>) {
        let others = members.iter().filter(|h| **h != self.me);
        self.order = others.map(|h| (rendezvous(self.me, *h), *h)).collect();
        self.order.sort_unstable();
        self.awaited.retain(|h, _| members.contains(h));
        self.passed_over.retain(|h, _| members.contains(h));
        self.tried.retain(|h, _| members.contains(h));
    }

    /// It has enough neighbours, and we are none of its choice.
    pub(super) fn full(&mut self, now: Duration, host: HostId) {
        self.passed_over.insert(host, now + PASSED_OVER);
    }

    /// A way to it was found: it may be chosen at once.
    pub(super) fn found(&mut self, host: HostId) {
        self.passed_over.remove(&host);
    }

    /// Whom to keep a link with. `random` is fresh for each call; so many members are reachable.
    pub(super) fn choose(
        &mut self,
        now: Duration,
        limits: &Limits,
        random: u64,
        reachable: usize,
        standing: impl Fn(HostId) -> Standing,
    ) -> BTreeSet<HostId> {
        if self.everybody(limits) {
            return self.order.iter().map(|(_, h)| *h).collect();
        }
        self.passed_over.retain(|_, until| *until > now);
        self.try_one(now, random, reachable, &standing);
        let mut chosen = BTreeSet::new();
        for (_, host) in &self.order {
            if chosen.len() >= limits.choices {
                break;
            }
            let is = standing(*host);
            if self.passed_over.contains_key(host) || !(is.up || is.dialable || is.reachable) {
                continue;
            }
            if is.up {
                self.awaited.remove(host);
            } else if *self.awaited.entry(*host).or_insert(now) + PATIENCE <= now {
                self.awaited.remove(host);
                self.passed_over.insert(*host, now + PASSED_OVER);
                continue;
            }
            chosen.insert(*host);
        }
        self.awaited.retain(|host, _| chosen.contains(host));
        chosen.extend(self.tried.keys());
        chosen
    }

    /// When [`Self::choose`] may choose otherwise.
    pub(super) fn next(&self, limits: &Limits) -> Option<Duration> {
        (!self.everybody(limits)).then_some(self.next_try)
    }

    /// How many to gossip with at most.
    pub(super) fn most(&self, limits: &Limits) -> usize {
        if self.everybody(limits) { limits.everybody.max(limits.neighbours) } else { limits.neighbours }
    }

    fn everybody(&self, limits: &Limits) -> bool {
        self.order.len() < limits.everybody
    }

    fn try_one(
        &mut self,
        now: Duration,
        random: u64,
        reachable: usize,
        standing: &impl Fn(HostId) -> Standing,
    ) {
        self.tried.retain(|_, until| *until > now);
        if now < self.next_try {
            return;
        }
        self.next_try = now + TRY_EVERY;
        if reachable >= self.order.len() {
            return;
        }
        let lost = |host: HostId| {
            let is = standing(host);
            !is.reachable && is.dialable
        };
        // Half as many as there are seconds for each: the rest has come up, or nobody is there.
        let unanswered = self.tried.keys().filter(|h| lost(**h)).count();
        let oldest = self.tried.iter().filter(|(h, _)| lost(**h)).min_by_key(|(_, until)| **until);
        if let Some(host) = oldest.map(|(h, _)| *h).filter(|_| unanswered >= 4) {
            self.tried.remove(&host);
        }
        let (len, tried) = (self.order.len(), &self.tried);
        let first =
            random.checked_rem(len as u64).and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
        let mut others = self.order.iter().cycle().skip(first).take(len).map(|(_, h)| *h);
        if let Some(host) = others.find(|h| lost(*h) && !tried.contains_key(h)) {
            self.tried.insert(host, now + TRY_FOR);
        }
    }
}

/// Rendezvous hashing (Thaler and Ravishankar 1998): every host orders the others in a way of its own.
fn rendezvous(me: HostId, other: HostId) -> u64 {
    mix(u64::from_be_bytes(me.0) ^ mix(u64::from_be_bytes(other.0)))
}

/// The finalizer of SplitMix64.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { everybody: 32, choices: 4, neighbours: 16 };
    const UP: Standing = Standing { up: true, reachable: true, dialable: true };
    const AWAY: Standing = Standing { up: false, reachable: false, dialable: true };

    fn host(n: u64) -> HostId {
        HostId(mix(n + 1).to_be_bytes())
    }

    fn members(n: u64) -> BTreeSet<HostId> {
        (0..n).map(host).collect()
    }

    #[test]
    fn a_small_mesh_is_full() {
        let mut choice = Choice::new(host(0));
        choice.set_members(&members(32));
        assert_eq!(choice.choose(Duration::ZERO, &LIMITS, 0, 0, |_| AWAY).len(), 31);
        choice.set_members(&members(33));
        assert_eq!(choice.choose(Duration::ZERO, &LIMITS, 0, 0, |_| UP).len(), 4);
    }

    #[test]
    fn every_host_of_a_thousand_is_somebodys_choice_and_nobody_is_everybodys() {
        let all = members(1000);
        let mut degree: BTreeMap<HostId, usize> = BTreeMap::new();
        for me in &all {
            let mut choice = Choice::new(*me);
            choice.set_members(&all);
            for chosen in choice.choose(Duration::ZERO, &LIMITS, 0, 0, |_| UP) {
                *degree.entry(*me).or_default() += 1;
                *degree.entry(chosen).or_default() += 1;
            }
        }
        let (least, most) = (degree.values().min().unwrap(), degree.values().max().unwrap());
        println!("links of a host: {least} to {most}");
        assert!(*least >= 4 && *most <= 20, "{least} to {most}; few are refused");
    }

    #[test]
    fn who_cannot_be_reached_is_passed_over_and_tried_now_and_then() {
        let mut choice = Choice::new(host(0));
        choice.set_members(&members(100));
        let first = choice.choose(Duration::ZERO, &LIMITS, 0, 0, |_| UP);
        let gone = *first.first().unwrap();
        let standing = |h: HostId| if h == gone { AWAY } else { UP };
        let (mut dialled, mut kept) = (0, 0);
        for second in 0..50 {
            let chosen = choice.choose(Duration::from_secs(second), &LIMITS, second, 98, standing);
            dialled += usize::from(chosen.contains(&gone));
            let others: Vec<_> = chosen.iter().filter(|h| **h != gone).collect();
            kept += usize::from(others.len() == 4);
            assert!(others.len() >= 3, "one is awaited");
        }
        assert!(kept >= 40, "another has its place: {kept}");
        assert!(dialled >= 40, "the only unreachable one is always tried: {dialled}");
    }
}
