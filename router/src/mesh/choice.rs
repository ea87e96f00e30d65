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
/// How often it is looked whether another is to be chosen.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An unreachable host is tried so often,
const TRY_EVERY: Duration = Duration::from_secs(1);
/// unless more than so many others do as well: where halves meet, some links between them are enough.
const TRY_TOGETHER: usize = 16;
/// It is given up after this, or when somebody else has reached it.
const TRY_FOR: Duration = Duration::from_secs(4);
/// When halves have met every host has better choices among those that it finds: it moves to them within so long. The links that
/// have joined the halves stay for that time.
const RETURN_WITHIN: Duration = Duration::from_secs(5 * 60);

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
    /// Until when; after that it takes nobody's place before it has a link.
    passed_over: BTreeMap<HostId, Duration>,
    /// Found again; chosen before the others from then on.
    returning: BTreeMap<HostId, Duration>,
    tried: BTreeMap<HostId, Duration>,
    next_try: Duration,
    next_look: Duration,
}

impl Choice {
    pub(super) fn new(me: HostId) -> Self {
        Self {
            me,
            order: Vec::new(),
            awaited: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            returning: BTreeMap::new(),
            tried: BTreeMap::new(),
            next_try: PATIENCE,
            next_look: Duration::ZERO,
        }
    }

    /// The other members.
    pub(super) fn set_members(&mut self, members: &BTreeSet<HostId>) {
        let others = members.iter().filter(|h| **h != self.me);
        self.order = others.map(|h| (rendezvous(self.me, *h), *h)).collect();
        self.order.sort_unstable();
        self.awaited.retain(|h, _| members.contains(h));
        self.passed_over.retain(|h, _| members.contains(h));
        self.returning.retain(|h, _| members.contains(h));
        self.tried.retain(|h, _| members.contains(h));
    }

    /// It has enough neighbours, and we are none of its choice.
    pub(super) fn full(&mut self, now: Duration, host: HostId) {
        self.passed_over.insert(host, now + PASSED_OVER);
    }

    /// A way to it was found. `random` is fresh.
    pub(super) fn found(&mut self, now: Duration, random: u64, host: HostId) {
        if self.passed_over.remove(&host).is_some() {
            let part = u32::from(random.to_be_bytes()[0]);
            self.returning.insert(host, now + RETURN_WITHIN * part / 255);
        }
        if let Some(until) = self.tried.get_mut(&host) {
            *until = now + RETURN_WITHIN;
        }
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
        self.returning.retain(|_, at| *at > now);
        self.next_look = now + LOOK_EVERY;
        self.try_one(now, random, reachable, &standing);
        let (mut chosen, mut places, mut again) = (BTreeSet::new(), 0, 0);
        let (order, returning) = (&self.order, &self.returning);
        let early = order.iter().filter(|(_, host)| !returning.contains_key(host));
        let late = order.iter().filter(|(_, host)| returning.contains_key(host));
        for (_, host) in early.chain(late) {
            if places >= limits.choices {
                break;
            }
            let is = standing(*host);
            let passed_over = self.passed_over.get(host).copied();
            let is_again = passed_over.is_some() && !is.up;
            let waits = passed_over > Some(now) || (is_again && again >= limits.choices);
            if waits || !(is.up || is.dialable || is.reachable) {
                continue;
            }
            if is.up {
                self.awaited.remove(host);
                self.passed_over.remove(host);
            } else if *self.awaited.entry(*host).or_insert(now) + PATIENCE <= now {
                self.awaited.remove(host);
                self.passed_over.insert(*host, now + PASSED_OVER);
                continue;
            }
            chosen.insert(*host);
            if is_again {
                again += 1;
            } else {
                places += 1;
            }
        }
        self.awaited.retain(|host, _| chosen.contains(host));
        chosen.extend(self.tried.keys());
        chosen
    }

    /// When [`Self::choose`] may choose otherwise.
    pub(super) fn next(&self, limits: &Limits) -> Option<Duration> {
        (!self.everybody(limits)).then_some(self.next_look)
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
        self.tried.retain(|host, until| {
            let is = standing(*host);
            *until > now && (is.up || !is.reachable)
        });
        if now < self.next_try {
            return;
        }
        let others = u32::try_from(reachable / TRY_TOGETHER).unwrap_or(u32::MAX);
        self.next_try = now + TRY_EVERY * others.max(1);
        if reachable >= self.order.len() {
            return;
        }
        let (len, tried) = (self.order.len(), &self.tried);
        let first =
            random.checked_rem(len as u64).and_then(|at| usize::try_from(at).ok()).unwrap_or_default();
        let mut others = self.order.iter().cycle().skip(first).take(len).map(|(_, h)| *h);
        let lost = |host: HostId| {
            let is = standing(host);
            !is.reachable && is.dialable
        };
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
        assert!(dialled >= 30, "the only unreachable one is tried 4 s of 6: {dialled}");
    }

    #[test]
    fn who_is_awaited_again_takes_nobodys_place() {
        let mut choice = Choice::new(host(0));
        choice.set_members(&members(100));
        let lost: BTreeSet<HostId> = choice.order.iter().take(20).map(|(_, host)| *host).collect();
        let apart = |h: HostId| if lost.contains(&h) { AWAY } else { UP };
        let mut look = |second: u64| {
            let chosen = choice.choose(Duration::from_secs(second), &LIMITS, second, 79, apart);
            let (again, kept): (BTreeSet<_>, BTreeSet<_>) =
                chosen.into_iter().partition(|h| lost.contains(h));
            (again.len(), kept)
        };
        (0..30).for_each(|second| drop(look(second)));
        let (_, kept) = look(30);
        assert_eq!(kept.len(), 4);
        let mut most = 0;
        for second in 31..300 {
            let (again, still) = look(second);
            assert_eq!(still, kept, "nobody is left for somebody who does not answer");
            most = most.max(again);
        }
        assert!((4..=5).contains(&most), "{most}; four, and one that is tried");
    }

    #[test]
    fn who_comes_back_is_chosen_again_little_by_little() {
        let mut choice = Choice::new(host(0));
        choice.set_members(&members(100));
        let best = choice.choose(Duration::ZERO, &LIMITS, 0, 98, |_| UP);
        let lost: Vec<HostId> = best.iter().take(2).copied().collect();
        let apart = |h: HostId| if lost.contains(&h) { AWAY } else { UP };
        let mut second = 0;
        let mut look = |choice: &mut Choice, standing: &dyn Fn(HostId) -> Standing| {
            second += 1;
            let now = Duration::from_secs(second);
            (now, choice.choose(now, &LIMITS, second, 96, standing))
        };
        (0..30).for_each(|_| drop(look(&mut choice, &apart)));
        let (now, _) = look(&mut choice, &apart);
        for (n, host) in lost.iter().enumerate() {
            choice.found(now, (n as u64 + 1) << 62, *host);
        }
        let met = |h: HostId| Standing { up: !lost.contains(&h), ..UP };
        let (_, chosen) = look(&mut choice, &met);
        assert!(chosen.is_disjoint(&lost.iter().copied().collect()), "nobody moves at once");
        let mut moved: BTreeMap<HostId, Duration> = BTreeMap::new();
        while moved.len() < 2 {
            let (now, chosen) = look(&mut choice, &met);
            for host in lost.iter().filter(|h| chosen.contains(h)) {
                moved.entry(*host).or_insert(now);
            }
            assert!(now < Duration::from_secs(400), "but in the end");
        }
        let [first, second] = [moved[&lost[0]], moved[&lost[1]]];
        assert!(first + Duration::from_secs(60) < second, "{moved:?}");
    }

    #[test]
    fn a_try_that_joins_halves_is_kept_and_one_that_somebody_else_was_quicker_with_is_not() {
        for (joins, now) in [(true, UP), (false, Standing { up: false, ..UP })] {
            let mut choice = Choice::new(host(0));
            choice.set_members(&members(100));
            let lost: BTreeSet<HostId> = members(100).into_iter().skip(50).collect();
            let apart = |h: HostId| if lost.contains(&h) { AWAY } else { UP };
            let mut second = 10;
            let mut chosen = BTreeSet::new();
            while choice.tried.is_empty() {
                second += 1;
                chosen = choice.choose(Duration::from_secs(second), &LIMITS, second, 49, apart);
            }
            let tried = *choice.tried.keys().next().unwrap();
            assert!(chosen.contains(&tried));
            lost.iter().for_each(|h| choice.found(Duration::from_secs(second), second, *h));
            let met = |h: HostId| if h == tried { now } else { UP };
            let later = choice.choose(Duration::from_secs(second + 60), &LIMITS, second, 99, met);
            assert_eq!(later.contains(&tried), joins);
        }
    }
}
