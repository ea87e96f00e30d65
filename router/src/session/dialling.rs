//! Which address of a peer is dialled next, and when: quickly at first, then ever more slowly, never all at once.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use weft_api::id::HostId;

use super::Path;

/// Addresses of one peer that are tried; further ones are ignored.
pub const MAX_ADDRESSES: usize = 16;
/// A dial that is not finished after this is given up.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Dials of one peer that may be unfinished at a time.
pub const MAX_PENDING: usize = 4;

/// Unfinished dials through relays, to all peers together: when many hosts start at once they must not drown each other.
pub const MAX_RELAY_DIALS: usize = 8;

/// So long the addresses are dialled alone.
const DIRECT_ALONE: Duration = Duration::from_millis(750);
/// Addresses that are dialled before the first relay.
const DIRECT_FIRST: usize = 2;
/// Dialled at once when frames wait: two addresses and [`RELAYS_AT_ONCE`] neighbours, so that none waits for another.
const AT_ONCE: usize = DIRECT_FIRST + RELAYS_AT_ONCE;
/// The likeliest may be one whose own way leads back here.
const RELAYS_AT_ONCE: usize = 2;
/// Between two addresses of one round.
const STAGGER: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The dialling of one peer.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    given: Vec<Path>,
    /// Neighbours that may relay.
    relays: Vec<Path>,
    /// Where it answered last; tried first.
    proven: Option<Path>,
    cursor: usize,
    rounds: u32,
    next: Duration,
    relays_from: Duration,
    /// Dials that are still to be made at once, and when that was last demanded.
    at_once: usize,
    demanded: Option<Duration>,
}

impl Dialling {
    /// Replaces the addresses; a new one is tried at once.
    pub(super) fn set_addresses(&mut self, now: Duration, addresses: &[Path]) {
        let mut given: Vec<Path> = Vec::new();
        for address in addresses {
            if given.len() < MAX_ADDRESSES && !given.contains(address) {
                given.push(*address);
            }
        }
        if given.iter().any(|a| !self.given.contains(a)) {
            self.restart(self.next.min(now + STAGGER));
        }
        self.given = given;
    }

    /// Replaces the neighbours that may relay.
    pub(super) fn set_relays(&mut self, relays: &[Path]) {
        self.relays = relays.to_vec();
    }

    /// The addresses.
    pub(super) fn given(&self) -> &[Path] {
        &self.given
    }

    /// It answered there.
    pub(super) fn prove(&mut self, path: Path) {
        if matches!(path, Path::Udp(_)) {
            self.proven = Some(path);
        }
    }

    /// From the first address again, not before `at`.
    pub(super) fn restart(&mut self, at: Duration) {
        (self.cursor, self.rounds, self.next) = (0, 0, at);
        self.relays_from = at + DIRECT_ALONE;
        self.at_once = 0;
    }

    /// Frames wait: the likeliest are dialled now, a relay among them. Again only after a while, since frames may go on to wait
    /// for a host that is gone.
    pub(super) fn demand(&mut self, now: Duration) {
        if self.demanded.is_some_and(|at| now < at + LONGEST_PAUSE) {
            return;
        }
        self.demanded = Some(now);
        (self.cursor, self.next, self.relays_from) = (0, now, now);
        self.at_once = AT_ONCE;
    }

    /// When [`Self::due`] has an address again.
    pub(super) fn next(&self) -> Option<Duration> {
        (!self.addresses().is_empty()).then_some(self.next)
    }

    /// The address to dial now. Those in `pending` are passed over; so are relays unless they are allowed.
    pub(super) fn due(
        &mut self,
        now: Duration,
        pending: &[Path],
        relays: bool,
        jitter: Jitter,
    ) -> Option<Path> {
        let addresses = self.addresses();
        if addresses.is_empty() || now < self.next {
            return None;
        }
        if pending.len() >= MAX_PENDING {
            self.next = now + STAGGER; // By then one may have ended.
            return None;
        }
        let mut found = None;
        while found.is_none() && self.cursor < addresses.len() {
            let address = addresses[self.cursor];
            let has_turn = address.is_direct() || (relays && now >= self.relays_from);
            found = Some(address).filter(|a| has_turn && !pending.contains(a));
            self.cursor += 1;
        }
        let most = match found {
            Some(path) if path.is_direct() => AT_ONCE,
            Some(_) => RELAYS_AT_ONCE,
            None => 0,
        };
        self.at_once = self.at_once.min(most).saturating_sub(1);
        self.next = if self.at_once > 0 { now } else { now + STAGGER };
        if self.cursor >= addresses.len() {
            self.at_once = 0;
            let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.rounds.min(8))).min(LONGEST_PAUSE);
            self.next = now + jitter.of(pause, self.rounds);
            (self.cursor, self.rounds) = (0, self.rounds.saturating_add(1));
        }
        found
    }

    /// Relays have their turn early: a host has many addresses that lead nowhere.
    fn addresses(&self) -> Vec<Path> {
        let direct = self.given.iter().filter(|a| Some(**a) != self.proven);
        let mut addresses: Vec<Path> = self.proven.iter().chain(direct).copied().collect();
        for (n, relay) in self.relays.iter().enumerate() {
            addresses.insert((DIRECT_FIRST + 2 * n).min(addresses.len()), *relay);
        }
        addresses
    }
}

/// Pauses differ from host to host and from time to time: a quarter up or down.
#[derive(Clone, Copy)]
pub(super) struct Jitter {
    pub(super) seed: u64,
    pub(super) host: HostId,
}

impl Jitter {
    pub(super) fn of(self, pause: Duration, round: u32) -> Duration {
        let hash =
            digest(&SHA256, &[&self.seed.to_be_bytes()[..], &self.host.0, &round.to_be_bytes()].concat());
        let part = u32::from(hash.as_ref()[0]);
        pause * 3 / 4 + pause * part / 510
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JITTER: Jitter = Jitter { seed: 1, host: HostId([1; 8]) };

    fn path(last: u8) -> Path {
        Path::Udp(([192, 0, 2, last], 6783).into())
    }

    #[test]
    fn every_address_gets_its_turn_the_proven_one_first() {
        let mut dialling = Dialling::default();
        assert_eq!(dialling.due(Duration::ZERO, &[], true, JITTER), None);
        dialling.set_addresses(Duration::ZERO, &[path(1), path(2), path(2), path(3)]);
        dialling.prove(path(3));
        let mut now = Duration::ZERO;
        let mut order = Vec::new();
        while order.len() < 4 {
            order.extend(dialling.due(now, &[], true, JITTER));
            now = dialling.next().unwrap();
        }
        assert_eq!(order, [path(3), path(1), path(2), path(3)]);
    }

    #[test]
    fn frames_that_wait_have_addresses_and_a_relay_dialled_at_once() {
        let relays = [7, 8, 9].map(|n| Path::Relay(HostId([n; 8])));
        for (addresses, at_once, relayed) in [(0, 2, 2), (1, 3, 2), (2, 4, 2), (3, 4, 1)] {
            let given: Vec<Path> = (0..addresses).map(path).collect();
            let mut dialling = Dialling::default();
            dialling.set_addresses(Duration::ZERO, &given);
            dialling.set_relays(&relays);
            let now = Duration::from_secs(1);
            dialling.restart(now);
            dialling.demand(now);
            let mut dialled: Vec<Path> = Vec::new();
            while let Some(path) = dialling.due(now, &dialled, true, JITTER) {
                dialled.push(path);
            }
            assert_eq!(dialled.len(), at_once, "{addresses} addresses: {dialled:?}");
            let by: Vec<_> = dialled.iter().filter(|path| !path.is_direct()).collect();
            assert!(by.into_iter().eq(&relays[..relayed]), "{addresses} addresses: {dialled:?}");
            dialling.demand(now + STAGGER);
            assert!(dialling.next().unwrap() > now + STAGGER / 2, "not again so soon");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_equal_for_all() {
        let mut dialling = Dialling::default();
        dialling.set_addresses(Duration::ZERO, &[path(1)]);
        let (mut now, mut pauses) = (Duration::ZERO, Vec::new());
        for _ in 0..20 {
            assert_eq!(dialling.due(now, &[], true, JITTER), Some(path(1)));
            pauses.push(dialling.next().unwrap() - now);
            now = dialling.next().unwrap();
        }
        assert!(pauses[0] <= FIRST_PAUSE * 5 / 4, "{pauses:?}");
        assert!(pauses.iter().all(|p| *p <= LONGEST_PAUSE * 5 / 4), "{pauses:?}");
        assert!(pauses[19] >= LONGEST_PAUSE * 3 / 4);
        assert_ne!(Jitter { seed: 2, ..JITTER }.of(LONGEST_PAUSE, 1), JITTER.of(LONGEST_PAUSE, 1));
    }

    #[test]
    fn pending_addresses_are_passed_over_and_bounded() {
        let mut dialling = Dialling::default();
        let addresses: Vec<Path> = (0..40).map(path).collect();
        dialling.set_addresses(Duration::ZERO, &addresses);
        assert_eq!(dialling.due(Duration::ZERO, &[path(0)], true, JITTER), Some(path(1)));
        let pending: Vec<Path> = (0..4).map(path).collect();
        assert_eq!(dialling.due(Duration::from_secs(9), &pending, true, JITTER), None);
        assert_eq!(dialling.given.len(), MAX_ADDRESSES);
    }
}
