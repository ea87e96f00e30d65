//! How often something may happen: a bucket, kept as the time at which it would be full again.

use std::time::Duration;

/// So many a second in the long run, so many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes `n`, if there are so many. What costs more than a whole burst waits for a full bucket.
    pub(super) fn takes(&mut self, now: Duration, n: u32, rate: Rate) -> bool {
        let ready = self.ready(n, rate) <= now;
        if ready {
            self.charge(now, n, rate);
        }
        ready
    }

    /// Takes `n` even if there are not so many: others wait the longer.
    pub(super) fn charge(&mut self, now: Duration, n: u32, rate: Rate) {
        self.full_at = self.full_at.max(now) + Duration::from_secs(1) * n / rate.per_second;
    }

    /// When `n` can be taken.
    pub(super) fn ready(&self, n: u32, rate: Rate) -> Duration {
        let spare = rate.burst.saturating_sub(n);
        self.full_at.saturating_sub(Duration::from_secs(1) * spare / rate.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate { per_second: 10, burst: 5 });
        let mut taken = 0;
        for ms in 0..1000 {
            taken += u32::from(bucket.takes(Duration::from_millis(ms), 1, rate));
        }
        assert!((14..=15).contains(&taken), "{taken}");
        let full = Duration::from_secs(9);
        assert!(bucket.takes(full, 50, rate), "more than a burst, but the bucket was full");
        assert!(!bucket.takes(full + Duration::from_secs(4), 1, rate));
        assert!(bucket.takes(bucket.ready(1, rate), 1, rate));
    }
}
