//! How many notices about unknown indexes are sent: few, and fewer to one address, so that nobody makes this host shout.

use std::collections::VecDeque;
use std::time::Duration;

use super::Remote;

/// At most so many notices a second, to everybody together.
const PER_SECOND: u32 = 32;
/// At most one notice to an address in this time.
const SAME_REMOTE: Duration = Duration::from_millis(500);
/// Addresses remembered; when full the oldest is forgotten.
const REMEMBERED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct NoticeLimit {
    second: Duration,
    sent: u32,
    recent: VecDeque<(Remote, Duration)>,
}

impl NoticeLimit {
    /// Whether a notice may go to `remote` now; if so it is noted.
    pub(super) fn allows(&mut self, now: Duration, remote: Remote) -> bool {
        if now.saturating_sub(self.second) >= Duration::from_secs(1) {
            (self.second, self.sent) = (now, 0);
        }
        self.recent.retain(|(_, at)| now.saturating_sub(*at) < SAME_REMOTE);
        if self.sent >= PER_SECOND || self.recent.iter().any(|(r, _)| *r == remote) {
            return false;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((remote, now));
        self.sent += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_few_and_all_together_get_few() {
        let remote = |port| Remote::Udp(([192, 0, 2, 1], port).into());
        let mut limit = NoticeLimit::default();
        assert!(limit.allows(Duration::ZERO, remote(1)));
        assert!(!limit.allows(Duration::from_millis(499), remote(1)));
        assert!(limit.allows(Duration::from_millis(500), remote(1)));
        let allowed = (0..1000).filter(|i| limit.allows(Duration::from_millis(600), remote(100 + i))).count();
        assert_eq!(allowed, PER_SECOND as usize - 2);
        assert!(limit.allows(Duration::from_millis(1700), remote(9)));
    }
}
