//! The paths to one peer: which are known, how well each works, which is used, and when the others are tried (PROTOCOL 5).
//!
//! A path that is used and stays silent is *in doubt*: every path is tried at once, and the best that answers is taken unless the
//! old one answers too. A peer that sends from elsewhere makes a doubt that asks only there, at first. Without doubt the lower id
//! leaves a path for one that is clearly better, says so in its probes, and the higher id follows: both ends go by one path.

mod doubt;
mod known;

use std::time::Duration;

use super::connection::{PROBE_INTERVAL, SUSPECT_AFTER, SUSPECT_INTERVAL};
use super::mtu::Ask;
use super::probe::{PROBE_LEN, Probe};
use super::{MAX_ADDRESSES, Path};
use crate::chunk::CHUNK_HEAD_LEN;
use crate::drop::DropReason;
use crate::envelope::OVERHEAD;
use doubt::Doubt;
use known::Known;

/// Paths of one peer that are known; further ones are ignored.
pub const MAX_PATHS: usize = MAX_ADDRESSES + 16;
/// While a third host or TCP carries, what is nearer is tried so often: the direct path is found soon after it is mended.
pub const SEARCH_INTERVAL: Duration = Duration::from_secs(2);
/// While the path in use is good, the other addresses are compared with it so often; those that never answer ever less.
pub const COMPARE_INTERVAL: Duration = Duration::from_secs(10);
/// A path that nothing speaks for any more is kept so long.
pub const PATH_LINGER: Duration = Duration::from_secs(10);

/// In doubt, paths are tried quickly for so long; then as when searching.
const HURRY: Duration = Duration::from_secs(3);
/// So many round trips make a path that may be taken without need.
const PROOFS: u32 = 3;
/// After so many probes without an answer in a row, and [`SUSPECT_AFTER`], a path must prove itself anew.
const DEAD: u32 = 2;
/// A path that was left because another was better is judged by its past for so long.
const GRUDGE: Duration = Duration::from_secs(60);
/// A path is left for one of its own kind at most so often.
const HOLD: Duration = Duration::from_secs(10);
/// Above this share of lost probes a direct path is compared with relays.
const LOSSY: f32 = 0.2;
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

/// The paths to one peer.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: Vec<Known>,
    used: Option<Path>,
    /// When it was taken.
    taken: Duration,
    doubt: Option<Doubt>,
    /// By what the peer asked as by the one that it uses, and when.
    theirs: Option<(Path, Duration)>,
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

    /// Replaces what facts and routes name, while there is a session.
    pub(super) fn list(&mut self, now: Duration, listed: impl Iterator<Item = Path> + Clone) {
        if self.used.is_none() {
            return; // A thousand members have no session.
        }
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
            self.doubt = Some(Doubt::that_it_is_gone(now));
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
            self.doubt = Some(Doubt::that_it_is_gone(now));
        }
    }

    /// Since when the one in use is in doubt.
    pub(super) fn doubted(&self) -> Option<Duration> {
        self.doubt.map(|doubt| doubt.since)
    }

    /// An authentic envelope of `len` bytes, more than a probe, came by it, newer than all before.
    pub(super) fn moved(&mut self, now: Duration, path: Path, len: usize) {
        if self.earns(now, path, len) {
            self.spoken_for(now, path);
        }
    }

    /// So many bytes came by it. `false`: there is no room for it.
    fn earns(&mut self, now: Duration, path: Path, len: usize) -> bool {
        let known = self.know(now, path);
        known.map(|k| k.credit = (k.credit + AMPLIFY * len).min(MAX_CREDIT)).is_some()
    }

    /// The peer goes by it: what is used is in doubt if it is another.
    fn spoken_for(&mut self, now: Duration, path: Path) {
        self.known.iter_mut().filter(|k| k.path == path).for_each(|k| k.since = now);
        let elsewhere = matches!(self.used, Some(used @ Path::Udp(_)) if used != path);
        if elsewhere && matches!(path, Path::Udp(_)) && self.doubt.is_none() {
            self.doubt = Some(Doubt::that_it_moved(now, path));
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
                let silent = self.known.iter_mut().filter(|k| k.path != path && k.round < Some(doubt.since));
                silent.for_each(|k| k.rounds = 0);
            }
            None => {
                let left = self.known.iter_mut().find(|k| Some(k.path) == self.used && k.path != path);
                left.into_iter().for_each(|k| k.grudge = now + GRUDGE);
            }
        }
        (self.used, self.taken, self.doubt) = (Some(path), now, None);
    }

    /// There is no session any more. What a path was worth while the last one died says nothing of the next.
    pub(super) fn rest(&mut self) {
        *self = Self { sequence: self.sequence, ..Self::default() };
    }

    /// A question to send along a path.
    pub(super) fn question(&mut self, now: Duration, path: Path) -> [u8; PROBE_LEN] {
        let own = self.send(now, path);
        Probe::Question { own, used: self.used == Some(path) }.bytes()
    }

    /// A probe that came by a path.
    pub(super) fn hear(&mut self, now: Duration, from: Path, body: &[u8]) -> Result<Heard, DropReason> {
        match Probe::read(body)? {
            Probe::Question { own: answered, used } => {
                if self.earns(now, from, PROBE_DATAGRAM) && used {
                    self.theirs = Some((from, now));
                    self.spoken_for(now, from);
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
            self.doubt = Some(Doubt::that_it_is_silent(now));
        }
        self.forget(now);
        let due = |k: &&Known| self.next_try(k, lower).is_some_and(|at| at <= now);
        self.known.iter().filter(due).map(|k| k.path).collect()
    }

    /// The path that should be taken instead of the one in use.
    pub(super) fn better(&self, now: Duration, lower: bool) -> Option<Path> {
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
        if !lower {
            return self.followed().filter(|path| *path != used);
        }
        let current = self.get(used)?;
        let fresh = |k: &&Known| {
            let recent = k.round.is_some_and(|at| now.saturating_sub(at) < COMPARE_INTERVAL * 3 / 2);
            // A few lost probes speak for no detour that happens to be known.
            let compares = k.rank() <= current.rank() || current.echo.loss() > LOSSY;
            k.rounds >= PROOFS && k.unanswered <= 1 && recent && compares
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

    /// Where the peer says that it goes since ours was taken, if that works both ways.
    fn followed(&self) -> Option<Path> {
        let (path, said) = self.theirs.filter(|(_, said)| *said >= self.taken)?;
        self.get(path).filter(|k| k.round >= Some(said)).map(|k| k.path)
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
        let lingers = |k: &Known| (k.tried.is_some() || k.credit > 0) && now < k.since + PATH_LINGER;
        self.known.retain(|k| k.listed || Some(k.path) == used || lingers(k));
    }

    fn send(&mut self, now: Duration, path: Path) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        if let Some(known) = self.know(now, path) {
            let soon = known.tried.is_some_and(|tried| now < tried + PROBE_INTERVAL);
            known.echo.sent(now, sequence, soon && known.unanswered > 0);
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
        let silent = known.round.is_none_or(|round| now > round + SUSPECT_AFTER);
        if silent && known.unanswered > DEAD {
            known.rounds = 0;
        }
        known.rounds = known.rounds.saturating_add(1);
        if known.rounds == PROOFS && now >= known.grudge {
            known.echo.renew(PROOFS as usize); // It was gone, and is back.
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
        self.doubt.map(|doubt| doubt.since + chance)
    }

    fn answers_in_doubt(&self, known: &Known) -> bool {
        let since = self.doubt.map(|doubt| doubt.since.max(self.taken));
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
            let hurry = known.tried.is_none_or(|tried| tried < doubt.since + HURRY);
            let first = is_used || doubt.first == Some(known.path);
            let from = if first { doubt.since } else { doubt.all };
            return after(if hurry { SUSPECT_INTERVAL } else { SEARCH_INTERVAL }).map(|at| at.max(from));
        }
        if is_used {
            // The connection itself is probed along it; what is lost is asked again before it makes a doubt.
            let patience = known.echo.rtt().map_or(SUSPECT_INTERVAL, |rtt| (rtt * 2).max(SUSPECT_INTERVAL));
            let again = if lower { patience } else { patience * 2 };
            return if known.unanswered > 0 { after(again) } else { None };
        }
        if lower && (1..PROOFS).contains(&known.rounds) && known.unanswered <= 1 {
            return after(SUSPECT_INTERVAL);
        }
        let comparing = lower.then_some(COMPARE_INTERVAL * 2u32.pow(known.unanswered.min(3)));
        let interval = match (used.path, known.path) {
            (Path::Udp(_), Path::Relay(_) | Path::Tcp(_)) if used.echo.loss() > LOSSY => {
                lower.then_some(PROBE_INTERVAL)
            }
            (Path::Udp(_), Path::Relay(_) | Path::Tcp(_)) => None,
            (Path::Udp(_), Path::Udp(_)) => comparing,
            // Either end: only one may be let through, or know the stream.
            (_, Path::Udp(_)) | (Path::Relay(_), Path::Tcp(_)) => Some(SEARCH_INTERVAL),
            _ => comparing,
        };
        interval.and_then(after)
    }
}

#[cfg(test)]
mod tests;
