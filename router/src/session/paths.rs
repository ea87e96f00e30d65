//! The paths to one peer: which are known, how well each works, which is used, and when the others are tried (PROTOCOL 5).
//!
//! A path that is used and stays silent, or whose peer sends from elsewhere, is *in doubt*: every path is tried at once, and the
//! best that answers is taken unless the old one answers too. Without doubt a path is left only for one that is clearly better.

use std::time::Duration;

use super::connection::{PROBE_INTERVAL, SUSPECT_AFTER, SUSPECT_INTERVAL};
use super::mtu::{Ask, Mtu};
use super::probe::{Echo, PROBE_LEN, Probe};
use super::{MAX_ADDRESSES, Path};
use crate::chunk::CHUNK_HEAD_LEN;
use crate::drop::DropReason;
use crate::envelope::OVERHEAD;

/// Paths of one peer that are known; further ones are ignored.
pub const MAX_PATHS: usize = MAX_ADDRESSES + 16;
/// While a third host or TCP carries, an address is tried so often: the direct path is found soon after it is mended.
pub const SEARCH_INTERVAL: Duration = Duration::from_secs(2);
/// While the path in use is good, the other addresses are compared with it so often; those that never answer ever less.
pub const COMPARE_INTERVAL: Duration = Duration::from_secs(10);
/// A path that nothing speaks for any more is kept so long.
pub const PATH_LINGER: Duration = Duration::from_secs(10);

/// In doubt, paths are tried quickly for so long; then as when searching.
const HURRY: Duration = Duration::from_secs(3);
/// So many round trips make a path that may be taken without need.
const PROOFS: u32 = 3;
/// After so many probes without an answer in a row a path must prove itself anew.
const DEAD: u32 = 2;
/// A path that was left because another was better is judged by its past for so long.
const GRUDGE: Duration = Duration::from_secs(60);
/// A path is left for one of its own kind at most so often.
const HOLD: Duration = Duration::from_secs(10);
/// Above this share of lost probes a direct path is compared with relays.
const LOSSY: f32 = 0.2;
/// A lost probe weighs like so much more round trip.
const LOSS_COST: Duration = Duration::from_millis(500);
/// What TCP and a relay cost beside their round trip, so that UDP to the peer itself is preferred.
const TCP_COST: Duration = Duration::from_millis(10);
const RELAY_COST: Duration = Duration::from_millis(100);
/// Differences below this are noise.
const NOISE: Duration = Duration::from_millis(2);
/// Bytes of a sealed probe.
const PROBE_DATAGRAM: usize = OVERHEAD + CHUNK_HEAD_LEN + PROBE_LEN;
/// To an address that only an envelope speaks for, so many times the bytes that came from it.
const AMPLIFY: usize = 3;
const MAX_CREDIT: usize = 16 * PROBE_DATAGRAM;

/// What a probe asks for, or proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Send this along the path that the question came by.
    Reply([u8; PROBE_LEN]),
    /// The same; and the path of our question works both ways.
    Answered([u8; PROBE_LEN]),
    /// The path of our answer works both ways.
    Closed,
    /// A repeated or very old one.
    Late,
}

#[derive(Debug)]
struct Known {
    path: Path,
    /// Facts or routes name it.
    listed: bool,
    echo: Echo,
    /// Round trips since it came alive.
    rounds: u32,
    /// The last one.
    round: Option<Duration>,
    tried: Option<Duration>,
    /// Probes since the last round trip.
    unanswered: u32,
    /// When something last spoke for it.
    since: Duration,
    /// Bytes that may be sent to it while only envelopes speak for it.
    credit: usize,
    /// Until then what it lost is not forgotten.
    grudge: Duration,
    mtu: Mtu,
}

/// The paths to one peer.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: Vec<Known>,
    used: Option<Path>,
    /// When it was taken.
    taken: Duration,
    doubt: Option<Duration>,
    sequence: u32,
}

impl Paths {
    /// The one in use.
    pub(super) fn used(&self) -> Option<Path> {
        self.used
    }

    /// Whether the one in use answers.
    pub(super) fn sound(&self) -> bool {
        self.used.is_some() && self.doubt.is_none()
    }

    /// Round trip and loss of the one in use.
    pub(super) fn quality(&self) -> (Option<Duration>, f32) {
        self.used.and_then(|p| self.get(p)).map_or((None, 0.0), |k| (k.echo.rtt(), k.echo.loss()))
    }

    /// The longest datagram that passes along the one in use, and whether that was found out to the end.
    pub(super) fn size(&self) -> Option<(u16, bool)> {
        self.used.and_then(|p| self.get(p)).map(|k| (k.mtu.size(), k.mtu.is_settled()))
    }

    /// Long datagrams go along the one in use.
    pub(super) fn full(&mut self, now: Duration) {
        self.used_one().into_iter().for_each(|k| k.mtu.full(now));
    }

    /// What is to be asked of the size of the one in use.
    pub(super) fn ask_size(&mut self, now: Duration) -> Option<(Path, Ask)> {
        let mut sequence = self.sequence;
        let known = self.used_one()?;
        let ask = known.mtu.tick(now, known.echo.rtt(), &mut sequence).map(|ask| (known.path, ask));
        self.sequence = sequence;
        ask
    }

    /// The answer to one of these questions came.
    pub(super) fn size_answered(&mut self, now: Duration, number: u32) {
        self.known.iter_mut().any(|k| k.mtu.answered(now, number));
    }

    /// This host's kernel refuses datagrams of `size` along a path.
    pub(super) fn too_big(&mut self, path: Path, size: u16, limit: Option<u16>) {
        let known = self.known.iter_mut().find(|k| k.path == path);
        known.into_iter().for_each(|k| k.mtu.too_big(size, limit));
    }

    /// When [`Self::ask_size`] is due.
    pub(super) fn next_size(&self) -> Option<Duration> {
        self.used.and_then(|p| self.get(p))?.mtu.next()
    }

    /// Replaces what facts and routes name.
    pub(super) fn list(&mut self, now: Duration, listed: impl Iterator<Item = Path> + Clone) {
        for known in &mut self.known {
            known.listed = listed.clone().any(|p| p == known.path);
        }
        for path in listed {
            if let Some(known) = self.know(now, path) {
                known.listed = true;
            }
        }
        self.forget(now);
    }

    /// These neighbours can relay; what went by another is in doubt at once.
    pub(super) fn keep_relays(&mut self, now: Duration, can: impl Fn(&super::HostId) -> bool) {
        let gone = |path: Path| matches!(path, Path::Relay(by) if !can(&by));
        self.known.retain(|k| !gone(k.path) || Some(k.path) == self.used);
        if self.used.is_some_and(gone) && self.doubt.is_none() {
            self.doubt = Some(now.saturating_sub(SUSPECT_INTERVAL));
        }
    }

    /// Whether it is one of these.
    pub(super) fn knows(&self, path: Path) -> bool {
        self.used == Some(path) || self.get(path).is_some()
    }

    /// A stream ended; if it was in use, that is in doubt at once.
    pub(super) fn ended(&mut self, now: Duration, path: Path) {
        self.known.retain(|k| k.path != path || Some(k.path) == self.used);
        if self.used == Some(path) && self.doubt.is_none() {
            self.doubt = Some(now.saturating_sub(SUSPECT_INTERVAL));
        }
    }

    /// Since when the one in use is in doubt.
    pub(super) fn doubted(&self) -> Option<Duration> {
        self.doubt
    }

    /// An authentic envelope of `len` bytes came by it, newer than all before. What is used is in doubt if it is another.
    pub(super) fn moved(&mut self, now: Duration, path: Path, len: usize) {
        let Some(known) = self.know(now, path) else { return };
        known.since = now;
        known.credit = (known.credit + AMPLIFY * len).min(MAX_CREDIT);
        if matches!(self.used, Some(used @ Path::Udp(_)) if used != path) && self.doubt.is_none() {
            self.doubt = Some(now);
        }
    }

    /// Goes by it from now on.
    pub(super) fn take(&mut self, now: Duration, path: Path) {
        if self.know(now, path).is_none() {
            let stale =
                (0..self.known.len()).min_by_key(|at| (self.known[*at].listed, self.known[*at].since));
            stale.map(|at| self.known.swap_remove(at));
            self.know(now, path);
        }
        match self.doubt {
            // All were asked: what a path was worth before it fell silent says nothing.
            Some(doubt) => {
                let silent = self.known.iter_mut().filter(|k| k.path != path && k.round < Some(doubt));
                silent.for_each(|k| k.rounds = 0);
            }
            None => {
                let left = self.known.iter_mut().find(|k| Some(k.path) == self.used && k.path != path);
                left.into_iter().for_each(|k| k.grudge = now + GRUDGE);
            }
        }
        (self.used, self.taken, self.doubt) = (Some(path), now, None);
    }

    /// There is no session any more.
    pub(super) fn rest(&mut self) {
        (self.used, self.doubt) = (None, None);
        self.known.retain(|k| k.listed);
        self.known.iter_mut().for_each(|k| (k.rounds, k.round, k.unanswered) = (0, None, 0));
    }

    /// A question to send along a path.
    pub(super) fn question(&mut self, now: Duration, path: Path) -> [u8; PROBE_LEN] {
        let own = self.send(now, path);
        Probe::Question { own }.bytes()
    }

    /// A probe that came by a path.
    pub(super) fn hear(&mut self, now: Duration, from: Path, body: &[u8]) -> Result<Heard, DropReason> {
        match Probe::read(body)? {
            Probe::Question { own: answered } => {
                if let Some(known) = self.know(now, from) {
                    known.credit = (known.credit + AMPLIFY * PROBE_DATAGRAM).min(MAX_CREDIT);
                }
                let own = self.send(now, from);
                Ok(Heard::Reply(Probe::Answer { answered, own }.bytes()))
            }
            Probe::Answer { answered, own } if self.came_round(now, answered) => {
                Ok(Heard::Answered(Probe::Close { answered: own }.bytes()))
            }
            Probe::Close { answered } if self.came_round(now, answered) => Ok(Heard::Closed),
            Probe::Answer { .. } | Probe::Close { .. } => Ok(Heard::Late),
        }
    }

    /// Looks at the clock. Returns the paths to be probed now beside what the connections probe themselves.
    pub(super) fn tick(&mut self, now: Duration, lower: bool) -> Vec<Path> {
        if self.used.is_none() {
            return Vec::new();
        }
        if self.doubt.is_none() && self.doubts().is_some_and(|at| at <= now) {
            self.doubt = Some(now);
        }
        self.forget(now);
        let due = |k: &&Known| self.next_try(k, lower).is_some_and(|at| at <= now);
        self.known.iter().filter(due).map(|k| k.path).collect()
    }

    /// The path that should be taken instead of the one in use.
    pub(super) fn better(&self, now: Duration) -> Option<Path> {
        let used = self.used?;
        let others = self.known.iter().filter(|k| k.path != used);
        let cheapest = |a: &&Known, b: &&Known| a.cost().cmp(&b.cost());
        if self.doubt.is_some() {
            let answers = |k: &&Known| self.answers_in_doubt(k);
            return others
                .filter(answers)
                .min_by(cheapest)
                .filter(|_| self.decides() <= Some(now))
                .map(|k| k.path);
        }
        let current = self.get(used)?;
        let fresh = |k: &&Known| {
            let recent = k.round.is_some_and(|at| now.saturating_sub(at) < COMPARE_INTERVAL * 3 / 2);
            k.rounds >= PROOFS && k.unanswered <= 1 && recent
        };
        let best = others.filter(fresh).min_by(cheapest)?;
        let wins = if best.rank() < current.rank() {
            best.cost() < current.cost()
        } else {
            best.cost() * 13 / 10 + NOISE < current.least_cost() && now.saturating_sub(self.taken) >= HOLD
        };
        wins.then_some(best.path)
    }

    /// When [`Self::tick`] is due.
    pub(super) fn next_wake(&self, lower: bool) -> Option<Duration> {
        self.used?;
        let tries = self.known.iter().filter_map(|k| self.next_try(k, lower)).min();
        let decides = if self.known.iter().any(|k| self.answers_in_doubt(k)) { self.decides() } else { None };
        let doubts = if self.doubt.is_none() { self.doubts() } else { None };
        [tries, decides, doubts].into_iter().flatten().min()
    }

    fn get(&self, path: Path) -> Option<&Known> {
        self.known.iter().find(|k| k.path == path)
    }

    fn used_one(&mut self) -> Option<&mut Known> {
        let used = self.used?;
        self.known.iter_mut().find(|k| k.path == used)
    }

    fn know(&mut self, now: Duration, path: Path) -> Option<&mut Known> {
        let at = match self.known.iter().position(|k| k.path == path) {
            Some(at) => at,
            None if self.known.len() >= MAX_PATHS => return None,
            None => {
                self.known.push(Known::new(path, now));
                self.known.len() - 1
            }
        };
        self.known.get_mut(at)
    }

    fn forget(&mut self, now: Duration) {
        let used = self.used;
        self.known.retain(|k| k.listed || Some(k.path) == used || now < k.since + PATH_LINGER);
    }

    fn send(&mut self, now: Duration, path: Path) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        if let Some(known) = self.know(now, path) {
            known.echo.sent(now, sequence);
            known.tried = Some(now);
            known.unanswered = known.unanswered.saturating_add(1);
            known.credit = known.credit.saturating_sub(PROBE_DATAGRAM);
        }
        sequence
    }

    fn came_round(&mut self, now: Duration, sequence: u32) -> bool {
        let mut known = self.known.iter_mut();
        let Some(known) = known.find_map(|k| k.echo.came_back(now, sequence).then_some(k)) else {
            return false;
        };
        if known.unanswered > DEAD {
            known.rounds = 0;
        }
        known.rounds = known.rounds.saturating_add(1);
        if known.rounds == PROOFS && now >= known.grudge {
            known.echo.forget_losses(); // It was gone, and is back.
        }
        (known.round, known.since, known.unanswered) = (Some(now), now, 0);
        if Some(known.path) == self.used {
            self.doubt = None;
        }
        true
    }

    /// When the silence of the path in use becomes suspicious.
    fn doubts(&self) -> Option<Duration> {
        let round = self.used.and_then(|p| self.get(p)).and_then(|k| k.round).unwrap_or_default();
        self.used.map(|_| round.max(self.taken) + SUSPECT_AFTER)
    }

    /// In doubt: when another path may be taken, after the one in use had its chance.
    fn decides(&self) -> Option<Duration> {
        let chance = self.quality().0.map_or(SUSPECT_INTERVAL, |rtt| (rtt * 2).max(SUSPECT_INTERVAL));
        self.doubt.map(|at| at + chance)
    }

    fn answers_in_doubt(&self, known: &Known) -> bool {
        let since = self.doubt.map(|doubt| doubt.max(self.taken));
        Some(known.path) != self.used && since.is_some_and(|since| known.round >= Some(since))
    }

    /// When a path is to be probed; the lower id does what one end alone can do.
    fn next_try(&self, known: &Known, lower: bool) -> Option<Duration> {
        let used = self.used.and_then(|p| self.get(p))?;
        let is_used = known.path == used.path;
        if !known.listed && known.round.is_none() && !is_used && known.credit < PROBE_DATAGRAM {
            return None;
        }
        let after = |interval| Some(known.tried.map_or(self.taken, |tried| tried + interval));
        if let Some(doubt) = self.doubt {
            let hurry = known.tried.is_none_or(|tried| tried < doubt + HURRY);
            return after(if hurry { SUSPECT_INTERVAL } else { SEARCH_INTERVAL }).map(|at| at.max(doubt));
        }
        if is_used {
            return None; // The connection itself is probed along it.
        }
        if (1..PROOFS).contains(&known.rounds) && known.unanswered <= 1 {
            return after(SUSPECT_INTERVAL);
        }
        let comparing = lower.then_some(COMPARE_INTERVAL * 2u32.pow(known.unanswered.min(3)));
        let interval = match (used.path, known.path) {
            (Path::Udp(_), Path::Relay(_) | Path::Tcp(_)) if used.echo.loss() > LOSSY => {
                lower.then_some(PROBE_INTERVAL)
            }
            (Path::Udp(_), Path::Relay(_) | Path::Tcp(_)) => None,
            (Path::Udp(_), Path::Udp(_)) => comparing,
            (_, Path::Udp(_)) => Some(SEARCH_INTERVAL),
            _ => comparing,
        };
        interval.and_then(after)
    }
}

impl Known {
    fn new(path: Path, now: Duration) -> Self {
        Self {
            path,
            listed: false,
            echo: Echo::default(),
            rounds: 0,
            round: None,
            tried: None,
            unanswered: 0,
            since: now,
            credit: 0,
            grudge: Duration::ZERO,
            mtu: Mtu::new(path),
        }
    }

    fn rank(&self) -> u8 {
        match self.path {
            Path::Udp(_) => 0,
            Path::Tcp(_) => 1,
            Path::Relay(_) => 2,
        }
    }

    fn cost(&self) -> Duration {
        self.cost_of(self.echo.rtt())
    }

    /// What it costs at least: under load round trips say more about the hosts than about the path.
    fn least_cost(&self) -> Duration {
        self.cost_of(self.echo.shortest())
    }

    fn cost_of(&self, round_trip: Option<Duration>) -> Duration {
        let kind = match self.path {
            Path::Udp(_) => Duration::ZERO,
            Path::Tcp(_) => TCP_COST,
            Path::Relay(_) => RELAY_COST,
        };
        round_trip.unwrap_or(LOSS_COST) + LOSS_COST.mul_f32(self.echo.loss()) + kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn path(last: u8) -> Path {
        Path::Udp(([192, 0, 2, last], 6783).into())
    }

    fn echo(paths: &mut Paths, now: Duration, path: Path, took: Duration) {
        let Ok(Probe::Question { own }) = Probe::read(&paths.question(now, path)) else { unreachable!() };
        let answer = Probe::Answer { answered: own, own: 1 }.bytes();
        assert!(matches!(paths.hear(now + took, path, &answer), Ok(Heard::Answered(_))));
    }

    /// Probes the path in use each second, another each ten, for as long as that stays so; returns the seconds.
    fn stays(used: impl Fn(u32) -> Duration, other: impl Fn(u32) -> Duration) -> u32 {
        let mut paths = Paths::default();
        paths.list(Duration::ZERO, [path(1), path(2)].into_iter());
        paths.take(Duration::ZERO, path(1));
        for second in 1..600 {
            let now = Duration::from_secs(second.into());
            echo(&mut paths, now, path(1), used(second));
            if second % 10 == 0 {
                echo(&mut paths, now, path(2), other(second));
            }
            if paths.better(now + 900 * MS).is_some() {
                return second;
            }
        }
        600
    }

    #[test]
    fn what_was_silent_in_doubt_must_prove_itself_anew() {
        let stream = Path::Tcp(super::super::StreamId(1));
        let mut paths = Paths::default();
        paths.list(Duration::ZERO, [path(1), path(2), stream].into_iter());
        paths.take(Duration::ZERO, path(1));
        for n in 0..PROOFS {
            let now = MS * 10 * n;
            [path(1), path(2), stream].into_iter().for_each(|path| echo(&mut paths, now, path, MS));
        }
        let doubt = SUSPECT_AFTER + 100 * MS;
        paths.tick(doubt, true);
        paths.question(doubt, path(2));
        echo(&mut paths, doubt, stream, MS);
        let now = doubt + 2 * SUSPECT_INTERVAL;
        assert_eq!(paths.better(now), Some(stream));
        paths.take(now, stream);
        assert_eq!(paths.better(now + MS), None, "the other address was as silent");
    }

    #[test]
    fn what_waits_on_a_busy_host_moves_nobody() {
        let busy = |n: u32| 5 * MS + n.wrapping_mul(2_654_435_761) % 97 * MS;
        assert_eq!(stays(busy, |n| busy(n + 7)), 600);
        let at_times = |n: u32| if n.is_multiple_of(4) { 5 * MS } else { 60 * MS };
        assert_eq!(stays(at_times, |_| 5 * MS), 600, "as short at its best");
        let took = stays(|_| 40 * MS, |_| 20 * MS);
        assert!((30..60).contains(&took), "a shorter one is taken, after {took} s");
        assert!(
            stays(|n| if n < 100 { 5 * MS } else { 40 * MS }, |_| 20 * MS) < 120,
            "one that became longer"
        );
    }
}
