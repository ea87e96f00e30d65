//! How busy the machine was, as the kernel accounts it: everything that is not idle, so that work in the kernel counts for
//! whoever caused it.

use std::fs;

use anyhow::Context;

/// The unit of /proc/stat (USER_HZ), which Linux keeps at 100 per second towards programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// The state of the machine's clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Busy {
    busy: u64,
    idle: u64,
}

impl Busy {
    /// Now.
    pub fn now() -> anyhow::Result<Busy> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Busy::parse(&text).context("/proc/stat has no cpu line")
    }

    /// CPU seconds spent since an earlier moment, all processors together.
    pub fn since(&self, earlier: &Busy) -> f64 {
        self.busy.saturating_sub(earlier.busy) as f64 / TICKS_PER_SECOND
    }

    /// The part of the machine that was busy since an earlier moment, 0 to 1.
    pub fn part_since(&self, earlier: &Busy) -> f64 {
        let (busy, idle) = (self.busy.saturating_sub(earlier.busy), self.idle.saturating_sub(earlier.idle));
        busy as f64 / (busy + idle).max(1) as f64
    }

    /// user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already, and what the hypervisor steals is
    /// nobody's work here.
    fn parse(text: &str) -> Option<Busy> {
        let line = text.lines().find_map(|l| l.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, ..] = ticks[..] else { return None };
        Some(Busy { busy: user + nice + system + irq + softirq, idle: idle + iowait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_stolen_time_is_not_work() {
        let before = Busy::parse("cpu  100 0 50 1000 7 1 2 99 0 0\ncpu0 1 1\n").unwrap();
        let after = Busy::parse("cpu  200 1 150 1500 7 2 3 200 0 0\n").unwrap();
        assert_eq!(after.since(&before), 2.03);
        assert!((after.part_since(&before) - 203.0 / 703.0).abs() < 1e-9);
        assert_eq!(Busy::parse("cpu  1 2 3"), None);
    }
}
