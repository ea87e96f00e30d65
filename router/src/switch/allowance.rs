//! Token buckets: how much each of many may cause in a second. Bounded, and it forgets who was quiet.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Those who are counted each by itself; further ones share one allowance.
pub const COUNTED_EACH: usize = 1024;
/// A full table is swept no more often than this, so that a stream of new names costs no sweep each.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How much one may cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// In a second, for long.
    pub per_second: u32,
    /// At once, after a silence.
    pub burst: u32,
}

/// What each of many has left of its [`Rate`].
#[derive(Debug)]
pub(crate) struct Allowances<K> {
    rate: Rate,
    each: HashMap<K, Allowance>,
    swept: Option<Duration>,
    others: Option<Allowance>,
}

impl<K: Eq + Hash> Allowances<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, each: HashMap::new(), swept: None, others: None }
    }

    /// Takes `n` out of what `who` has left; `false`, with nothing taken, if that is less.
    pub(crate) fn take(&mut self, who: K, n: u32, now: Duration) -> bool {
        let rate = self.rate;
        if let Some(own) = self.each.get_mut(&who) {
            return own.take(rate, n, now);
        }
        if self.each.len() >= COUNTED_EACH && is_due(&mut self.swept, now) {
            self.each.retain(|_, allowance| !allowance.is_full(rate, now));
        }
        let full = || Allowance::full(rate, now);
        match self.each.len() < COUNTED_EACH {
            true => self.each.entry(who).or_insert_with(full).take(rate, n, now),
            false => self.others.get_or_insert_with(full).take(rate, n, now),
        }
    }

    /// Puts back what was taken and not used.
    pub(crate) fn put_back(&mut self, who: &K, n: u32) {
        let burst = self.rate.burst;
        if let Some(of) = self.each.get_mut(who).or(self.others.as_mut()) {
            of.left = of.left.saturating_add(n).min(burst);
        }
    }
}

/// Whether a table may be swept at `now`; notes that it is.
pub(super) fn is_due(swept: &mut Option<Duration>, now: Duration) -> bool {
    let due = swept.is_none_or(|at| now.saturating_sub(at) >= SWEEP_EVERY);
    if due {
        *swept = Some(now);
    }
    due
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: u32,
    since: Duration,
}

impl Allowance {
    fn full(rate: Rate, now: Duration) -> Self {
        Self { left: rate.burst, since: now }
    }

    fn is_full(&self, rate: Rate, now: Duration) -> bool {
        self.at(rate, now).left == rate.burst
    }

    fn at(&self, rate: Rate, now: Duration) -> Self {
        let earned = now.saturating_sub(self.since).as_micros() * u128::from(rate.per_second);
        let earned = u32::try_from(earned / 1_000_000).unwrap_or(rate.burst);
        if earned == 0 {
            return *self;
        }
        Self { left: self.left.saturating_add(earned).min(rate.burst), since: now }
    }

    fn take(&mut self, rate: Rate, n: u32, now: Duration) -> bool {
        *self = self.at(rate, now);
        let enough = self.left >= n;
        if enough {
            self.left -= n;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { per_second: 20_000, burst: 10_000 };
    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn each_has_its_own() {
        let mut allowances = Allowances::new(RATE);
        assert!(allowances.take(0, RATE.burst, NOW));
        assert!(!allowances.take(0, 1, NOW));
        assert!(allowances.take(1, 1, NOW), "another");
        let later = NOW + Duration::from_millis(10);
        assert!(allowances.take(0, RATE.per_second / 100, later));
        assert!(!allowances.take(0, 1, later));
        allowances.put_back(&0, 2);
        assert!(allowances.take(0, 2, later));
        assert!(!allowances.take(0, 1, later));
    }

    #[test]
    fn many_share_one() {
        let mut allowances = Allowances::new(RATE);
        let taken = (0..50_000).filter(|n| allowances.take(*n, RATE.burst, NOW)).count();
        assert_eq!(taken, COUNTED_EACH + 1);
        assert_eq!(allowances.each.len(), COUNTED_EACH);
        assert!(allowances.take(99_999, 1, NOW + Duration::from_secs(2)), "who was quiet makes room");
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(wishes in prop::collection::vec((0u32..3000, 0u64..50_000), 1..200)) {
            let (mut allowances, mut now, mut taken) = (Allowances::new(RATE), NOW, 0u64);
            for (n, wait_us) in wishes {
                now += Duration::from_micros(wait_us);
                taken += u64::from(if allowances.take((), n, now) { n } else { 0 });
            }
            let earned = (now - NOW).as_micros() as u64 * u64::from(RATE.per_second) / 1_000_000;
            prop_assert!(taken <= u64::from(RATE.burst) + earned);
        }
    }
}
