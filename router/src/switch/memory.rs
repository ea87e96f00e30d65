//! What a lane has seen of one network by itself: MACs without a fact, and how much each source floods. Bounded, and it
//! forgets. `now` is any clock that only goes forward.

use std::collections::HashMap;
use std::time::Duration;

use weft_api::id::{HostId, Mac};

use super::allowance::{Allowances, Rate, is_due};
use super::table::Owner;
use crate::drop::DropReason;

/// MACs without a fact that are learned of one host; further ones are not, so frames to them are flooded.
pub const LEARNED_PER_HOST: usize = 256;
/// A learned MAC that was silent for so long is forgotten.
pub const LEARNED_LIFE: Duration = Duration::from_secs(300);
/// A learned MAC may change hosts so often within [`MOVE_WINDOW`]; then it is frozen where it is.
pub const MOVE_LIMIT: u8 = 5;
/// See [`MOVE_LIMIT`]; also how long a MAC stays frozen after the last attempt to move it.
pub const MOVE_WINDOW: Duration = Duration::from_secs(10);
/// Copies of flooded frames that one source may cause; more are dropped (`FloodLimit`).
pub const SOURCE_FLOODS: Rate = Rate { per_second: 20_000, burst: 10_000 };
/// Flooded frames that are taken of one other host; more are dropped (`MemberFloods`). Room for a source at its limit and
/// what else floods at the same time.
pub const MEMBER_FLOODS: Rate = Rate { per_second: 30_000, burst: 15_000 };

/// Frames about multicast groups that are heard of one endpoint; all that have no fact count as one. Of more it is dropped
/// (`MembershipLimit`).
pub const MEMBERSHIPS_HEARD: Rate = Rate { per_second: 50, burst: 200 };

/// Answers that one source gets to frames too big for the path; further ones die without ([`super::TooBig::Drop`]).
pub const TOO_BIG_TOLD: Rate = Rate { per_second: 20, burst: 100 };

/// The memory of one network.
#[derive(Debug)]
pub struct Memory {
    learned: HashMap<Mac, Learned>,
    /// How many of `learned` are of each host.
    counts: HashMap<Owner, usize>,
    learned_swept: Option<Duration>,
    frozen: Option<Frozen>,
    frozen_told: Option<Duration>,
    by_source: Allowances<Mac>,
    by_member: Allowances<HostId>,
    by_hearing: Allowances<Option<Mac>>,
    by_too_big: Allowances<Mac>,
}

/// A MAC that was to move once too often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frozen {
    /// Which.
    pub mac: Mac,
    /// Where it stays.
    pub stays: Owner,
    /// Where else it was seen.
    pub seen: Owner,
}

#[derive(Clone, Copy, Debug)]
struct Learned {
    owner: Owner,
    seen: Duration,
    moves: u8,
    moved: Duration,
}

impl Memory {
    /// Nothing seen.
    #[must_use]
    pub fn new() -> Self {
        Self {
            learned: HashMap::new(),
            counts: HashMap::new(),
            learned_swept: None,
            frozen: None,
            frozen_told: None,
            by_source: Allowances::new(SOURCE_FLOODS),
            by_member: Allowances::new(MEMBER_FLOODS),
            by_hearing: Allowances::new(MEMBERSHIPS_HEARD),
            by_too_big: Allowances::new(TOO_BIG_TOLD),
        }
    }

    /// Where a MAC without a fact was seen last, if it was lately.
    #[must_use]
    pub fn place_of(&self, mac: Mac, now: Duration) -> Option<Owner> {
        self.learned.get(&mac).filter(|l| l.is_alive(now)).map(|l| l.owner)
    }

    /// Notes that a MAC without a fact sends from `owner`.
    pub fn learn(&mut self, mac: Mac, owner: Owner, now: Duration) -> Result<(), DropReason> {
        let mut moves = (0, now);
        if let Some(known) = self.learned.get_mut(&mac) {
            if known.owner == owner {
                known.seen = now;
                return Ok(());
            }
            if known.is_alive(now) {
                if let Err(reason) = known.may_move(now) {
                    let frozen = Frozen { mac, stays: known.owner, seen: owner };
                    self.frozen = is_due(&mut self.frozen_told, now).then_some(frozen);
                    return Err(reason);
                }
                moves = (known.moves, known.moved);
            }
            // Better unknown, and flooded, than remembered where it no longer is.
            self.forget(mac);
        }
        if self.has_room(owner, now) {
            self.learned.insert(mac, Learned { owner, seen: now, moves: moves.0, moved: moves.1 });
            *self.counts.entry(owner).or_default() += 1;
        }
        Ok(())
    }

    /// A MAC that was frozen since this was asked before; not oftener than once a second.
    pub fn take_frozen(&mut self) -> Option<Frozen> {
        self.frozen.take()
    }

    /// Takes `copies` out of what `source` may flood.
    pub(super) fn flood(&mut self, source: Mac, copies: u32, now: Duration) -> Result<(), DropReason> {
        if self.by_source.take(source, copies, now) { Ok(()) } else { Err(DropReason::FloodLimit) }
    }

    /// Takes `frames` out of what another host may flood into this one.
    pub(super) fn flooded_by(&mut self, host: HostId, frames: u32, now: Duration) -> Result<(), DropReason> {
        if self.by_member.take(host, frames, now) { Ok(()) } else { Err(DropReason::MemberFloods) }
    }

    /// Takes one out of the answers that `source` gets.
    pub(super) fn tell_too_big(&mut self, source: Mac, now: Duration) -> bool {
        self.by_too_big.take(source, 1, now)
    }

    /// Takes one out of the frames about groups that are heard of a source, or of all that have no fact.
    pub(super) fn hear(&mut self, source: Option<Mac>, now: Duration) -> Result<(), DropReason> {
        if self.by_hearing.take(source, 1, now) { Ok(()) } else { Err(DropReason::MembershipLimit) }
    }

    fn forget(&mut self, mac: Mac) {
        if let Some(Learned { owner, .. }) = self.learned.remove(&mac) {
            match self.counts.get_mut(&owner) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(self.counts.remove(&owner)),
            }
        }
    }

    fn has_room(&mut self, owner: Owner, now: Duration) -> bool {
        let is_full = |counts: &HashMap<Owner, usize>| counts.get(&owner) >= Some(&LEARNED_PER_HOST);
        if is_full(&self.counts) && is_due(&mut self.learned_swept, now) {
            self.learned.retain(|_, l| l.is_alive(now));
            self.counts.clear();
            for learned in self.learned.values() {
                *self.counts.entry(learned.owner).or_default() += 1;
            }
        }
        !is_full(&self.counts)
    }
}

impl Learned {
    fn is_alive(&self, now: Duration) -> bool {
        now.saturating_sub(self.seen) < LEARNED_LIFE
    }

    fn may_move(&mut self, now: Duration) -> Result<(), DropReason> {
        if now.saturating_sub(self.moved) >= MOVE_WINDOW {
            self.moves = 0;
        }
        self.moved = now;
        if self.moves >= MOVE_LIMIT {
            return Err(DropReason::MovesTooOften);
        }
        self.moves += 1;
        Ok(())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);
    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn host(n: u8) -> Owner {
        Owner::Host(HostId([n; 8]))
    }

    fn mac(n: u16) -> Mac {
        let [a, b] = n.to_be_bytes();
        Mac([2, 9, 9, 9, a, b])
    }

    #[test]
    fn learns_moves_and_forgets() {
        let (mut memory, now) = (Memory::new(), NOW);
        assert_eq!(memory.place_of(A, now), None);
        memory.learn(A, host(1), now).unwrap();
        assert_eq!(memory.place_of(A, now), Some(host(1)));
        memory.learn(A, Owner::Here, now).unwrap();
        assert_eq!(memory.place_of(A, now), Some(Owner::Here));
        assert_eq!(memory.place_of(A, now + LEARNED_LIFE), None);
    }

    #[test]
    fn a_loop_freezes_a_mac() {
        let (mut memory, mut now) = (Memory::new(), NOW);
        memory.learn(A, host(0), now).unwrap();
        let moves = (1..100).map(|n| memory.learn(A, host(n % 2), now)).take_while(Result::is_ok).count();
        assert_eq!(moves, usize::from(MOVE_LIMIT));
        let stays = host(MOVE_LIMIT % 2);
        assert_eq!(memory.take_frozen(), Some(Frozen { mac: A, stays, seen: host((MOVE_LIMIT + 1) % 2) }));
        assert_eq!(memory.take_frozen(), None, "told once");
        let frozen = memory.place_of(A, now);
        now += MOVE_WINDOW / 2;
        assert_eq!(memory.learn(A, host(0), now), Err(DropReason::MovesTooOften));
        assert_eq!(memory.place_of(A, now), frozen);
        now += MOVE_WINDOW;
        assert_eq!(memory.learn(A, host(0), now), Ok(()), "thawed after a silence");
    }

    #[test]
    fn one_host_cannot_fill_the_memory() {
        let (mut memory, now) = (Memory::new(), NOW);
        for n in 0..2000 {
            memory.learn(mac(n), host(1), now).unwrap();
        }
        assert_eq!(memory.learned.len(), LEARNED_PER_HOST);
        assert_eq!(memory.counts, HashMap::from([(host(1), LEARNED_PER_HOST)]));
        memory.learn(A, host(2), now).unwrap();
        assert_eq!(memory.place_of(A, now), Some(host(2)));
        let later = now + LEARNED_LIFE;
        memory.learn(mac(1999), host(1), later).unwrap();
        assert_eq!(memory.place_of(mac(1999), later), Some(host(1)), "old ones make room");
    }
}
