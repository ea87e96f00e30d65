//! The longest datagram that passes along a path, found by probes of our own (PROTOCOL 5): upward when the path is taken and every
//! ten minutes, downward when the kernel refuses a datagram, or when full ones are lost while short ones pass.

use std::time::Duration;

use super::Path;
use super::probe::PROBE_LEN;
use crate::relay::{RELAY_ANYWAY, RELAY_OVERHEAD};
use crate::stream::MAX_DATAGRAM;

/// What the underlay is taken to pass, IP header included, until probes say more: IPv6 promises it (RFC 8200 5).
pub const LEAST_UNDERLAY: u16 = 1280;
/// So often it is tried whether more passes.
pub const SEARCH_AGAIN: Duration = Duration::from_secs(600);
/// After less passes than before, whether more passes again.
pub const SEARCH_AFTER_FALL: Duration = Duration::from_secs(60);
/// While full datagrams are sent, so often it is tried whether they pass.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of IP and UDP headers in front of a datagram.
const HEADERS_V4: u16 = 28;
const HEADERS_V6: u16 = 48;
/// Full datagrams were sent at most so long ago.
const FULL_LINGER: Duration = Duration::from_millis(2500);
/// A size is given up after so many probes of it were lost while short ones came back.
const STRIKES: u8 = 3;
/// After so many times when neither came back nothing is concluded, and all is left for a while.
const BLANKS: u8 = 5;
const REST: Duration = Duration::from_secs(10);
/// What is slower than the short probe by so much is lost.
const GRACE: Duration = Duration::from_millis(100);
/// Without any answer: three round trips, within these.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
const PATIENCE_UNKNOWN: Duration = Duration::from_millis(500);

/// Underlays that there are: Ethernet and what tunnels leave of it, jumbo frames.
const STEPS: [u16; 22] = [
    1300, 1320, 1340, 1360, 1380, 1400, 1420, 1430, 1440, 1450, 1460, 1470, 1480, 1492, ETHERNET, 2000, 3000,
    4000, 6000, 8000, 9000, 9216,
];
const ETHERNET: u16 = 1500;

const QUESTION: u8 = 6;
const ANSWER: u8 = 7;

/// What passes along any path of this kind.
#[must_use]
pub fn floor(path: Path) -> u16 {
    match path {
        Path::Tcp(_) => MAX_DATAGRAM as u16,
        Path::Udp(_) | Path::Relay(_) => LEAST_UNDERLAY - Mtu::headers(path)[0],
    }
}

/// What a probe's body says of sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SizeProbe {
    /// The peer asks: send this answer.
    Question([u8; PROBE_LEN]),
    /// The answer to our question of this number.
    Answer(u32),
}

impl SizeProbe {
    /// Reads a probe's body; `None` if it is about something else.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let body: &[u8; PROBE_LEN] = body.try_into().ok()?;
        let [kind, 0, 0, 0, 0, a, b, c, d] = *body else { return None };
        match kind {
            QUESTION => Some(Self::Question([ANSWER, 0, 0, 0, 0, a, b, c, d])),
            ANSWER => Some(Self::Answer(u32::from_be_bytes([a, b, c, d]))),
            _ => None,
        }
    }

    fn question(number: u32) -> [u8; PROBE_LEN] {
        let [a, b, c, d] = number.to_be_bytes();
        [QUESTION, 0, 0, 0, 0, a, b, c, d]
    }
}

/// Two questions to send: one padded to a datagram of `size`, and a short one right behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub size: u16,
    pub full: [u8; PROBE_LEN],
    pub short: [u8; PROBE_LEN],
}

/// What is known of one path's size.
#[derive(Debug)]
pub(super) struct Mtu {
    path: Path,
    /// What passes.
    found: u16,
    /// From here on nothing passes, as far as this search knows.
    over: u16,
    /// What the route of this host takes, as its kernel says: tried first.
    limit: Option<u16>,
    searching: bool,
    fell: bool,
    settled: bool,
    search_at: Duration,
    trial: Option<Trial>,
    /// When `found` was last tried.
    checked: Duration,
    full_until: Duration,
}

#[derive(Debug)]
struct Trial {
    size: u16,
    full: u32,
    short: u32,
    /// When it is lost.
    ends: Duration,
    grace: Duration,
    short_came: bool,
    strikes: u8,
    blanks: u8,
}

impl Mtu {
    pub(super) fn new(path: Path) -> Self {
        Self {
            path,
            found: floor(path),
            over: u16::MAX,
            limit: None,
            searching: false,
            fell: false,
            settled: matches!(path, Path::Tcp(_)),
            search_at: Duration::ZERO,
            trial: None,
            checked: Duration::ZERO,
            full_until: Duration::ZERO,
        }
    }

    /// The longest datagram that passes.
    pub(super) fn size(&self) -> u16 {
        self.found
    }

    /// Whether that was found out to the end. What is not may be more in a moment.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Datagrams longer than those that always pass are being sent.
    pub(super) fn full(&mut self, now: Duration) {
        self.full_until = now + FULL_LINGER;
    }

    /// What is to be asked now. `sequence` counts the peer's questions.
    pub(super) fn tick(&mut self, now: Duration, rtt: Option<Duration>, sequence: &mut u32) -> Option<Ask> {
        if matches!(self.path, Path::Tcp(_)) || self.trial.as_ref().is_some_and(|t| t.ends > now) {
            return None;
        }
        let (mut strikes, mut blanks) = (0, 0);
        let mut again = None;
        if let Some(trial) = self.trial.take() {
            strikes = trial.strikes + u8::from(trial.short_came);
            blanks = trial.blanks + u8::from(!trial.short_came);
            if strikes == STRIKES {
                self.lost(trial.size);
                (strikes, blanks) = (0, 0);
            } else if blanks == BLANKS {
                (self.searching, self.search_at, self.checked) = (false, now + REST, now + REST);
                return None;
            } else {
                again = Some(trial.size);
            }
        }
        let size = again.or_else(|| self.wanted(now))?;
        let mut number = || {
            *sequence = sequence.wrapping_add(1);
            *sequence
        };
        let (full, short) = (number(), number());
        let patience = rtt.map_or(PATIENCE_UNKNOWN, |rtt| (rtt * 3).clamp(PATIENCE.0, PATIENCE.1));
        let grace = GRACE.max(rtt.unwrap_or_default() / 2);
        let ends = now + patience;
        self.trial = Some(Trial { size, full, short, ends, grace, short_came: false, strikes, blanks });
        Some(Ask { size, full: SizeProbe::question(full), short: SizeProbe::question(short) })
    }

    /// An answer came; whether it was to one of these questions.
    pub(super) fn answered(&mut self, now: Duration, number: u32) -> bool {
        let Some(trial) = &mut self.trial else { return false };
        if number == trial.short && !trial.short_came {
            (trial.short_came, trial.ends) = (true, now + trial.grace);
            return true;
        }
        let passed = number == trial.full;
        if passed {
            self.found = self.found.max(trial.size);
            self.checked = now;
            self.trial = None;
        }
        passed
    }

    /// The kernel of this host refuses datagrams of `size`; the route takes `limit`, as far as it knows.
    pub(super) fn too_big(&mut self, size: u16, limit: Option<u16>) {
        self.trial = self.trial.take().filter(|t| t.size < size);
        self.over = self.over.min(size);
        self.limit = limit.filter(|limit| *limit < size);
        if self.found >= self.over {
            self.fall();
        }
    }

    /// When [`Self::tick`] is due.
    pub(super) fn next(&self) -> Option<Duration> {
        if matches!(self.path, Path::Tcp(_)) {
            return None;
        }
        let check = self.checked + CHECK_INTERVAL;
        Some(match &self.trial {
            Some(trial) => trial.ends,
            None if self.searching => Duration::ZERO,
            None if self.found > floor(self.path) && check < self.full_until => check.min(self.search_at),
            None => self.search_at,
        })
    }

    /// The size to try, if any.
    fn wanted(&mut self, now: Duration) -> Option<u16> {
        if !self.searching && self.search_at <= now {
            (self.searching, self.fell, self.over, self.limit) = (true, false, u16::MAX, None);
        }
        if self.searching {
            if let Some(size) = self.candidate() {
                return Some(size);
            }
            (self.searching, self.settled) = (false, true);
            self.search_at = now + if self.fell { SEARCH_AFTER_FALL } else { SEARCH_AGAIN };
        }
        let due = self.checked + CHECK_INTERVAL <= now && now < self.full_until;
        (due && self.found > floor(self.path)).then_some(self.found)
    }

    /// Between what passes and what does not: what the interface takes, else the most, else Ethernet's, else by halves.
    fn candidate(&self) -> Option<u16> {
        // Relays pass shorter ones in fragments.
        let least = if self.path.is_direct() { 0 } else { RELAY_ANYWAY as u16 };
        let is_open = |size: &u16| (self.found.max(least) + 1..self.over).contains(size);
        let headers = Self::headers(self.path);
        let mut open: Vec<u16> =
            STEPS.iter().flat_map(|step| headers.map(|around| step - around)).filter(is_open).collect();
        open.sort_unstable();
        open.dedup();
        let limit = self.limit.filter(is_open);
        let most = open.last().copied().filter(|_| self.over == u16::MAX);
        let ethernet = headers.map(|around| ETHERNET - around).into_iter().rev().find(|size| is_open(size));
        limit.or(most).or(ethernet).or(open.get(open.len() / 2).copied())
    }

    fn lost(&mut self, size: u16) {
        self.over = self.over.min(size);
        if self.found >= self.over {
            self.over = size;
            self.fall();
        }
    }

    fn fall(&mut self) {
        self.found = floor(self.path);
        (self.searching, self.fell, self.settled) = (true, true, false);
    }

    /// Bytes in front of a datagram, the most first. Beyond a neighbour that relays it may be either IP.
    fn headers(path: Path) -> [u16; 2] {
        match path {
            Path::Udp(address) if address.ip().to_canonical().is_ipv4() => [HEADERS_V4; 2],
            Path::Udp(_) | Path::Tcp(_) => [HEADERS_V6; 2],
            Path::Relay(_) => [HEADERS_V6, HEADERS_V4].map(|headers| headers + RELAY_OVERHEAD as u16),
        }
    }
}

#[cfg(test)]
mod tests;
