//! Frames for hosts without a session wait here, in order, until there is one: a bounded room, and every way out of it has a name.
//! The first to come stay: a conversation begins with them, and what follows is sent again if it is missed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use weft_api::id::HostId;

use crate::drop::DropReason;

/// Frames, or superframes, that wait for one host; a further one is dropped (`WaitingFull`).
pub const MAX_FRAMES: usize = 64;
/// Bytes that wait for one host; a frame beyond is dropped (`WaitingFull`).
pub const MAX_BYTES: usize = 256 << 10;
/// Hosts that are waited for; a frame for one more is dropped (`WaitingFull`).
pub const MAX_HOSTS: usize = 1024;
/// Bytes that wait in all; a frame beyond is dropped (`WaitingFull`).
pub const MAX_BYTES_IN_ALL: usize = 4 << 20;
/// What has waited for so long is dropped (`WaitedTooLong`): longer than a dial may take.
pub const MAX_WAIT: Duration = Duration::from_secs(5);

/// What waits, by host. `F` is a frame and all that sending it takes.
#[derive(Debug)]
pub struct WaitingRoom<F> {
    queues: BTreeMap<HostId, Queue<F>>,
    bytes: usize,
    /// Nothing is too old before.
    due: Duration,
}

#[derive(Debug)]
struct Queue<F> {
    frames: VecDeque<Waiting<F>>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<F> {
    since: Duration,
    len: usize,
    frame: F,
}

impl<F> Default for WaitingRoom<F> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), bytes: 0, due: Duration::ZERO }
    }
}

impl<F> Default for Queue<F> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), bytes: 0 }
    }
}

impl<F> WaitingRoom<F> {
    /// A frame of `len` bytes waits from now on, if there is room; only then it is made.
    pub fn enter(
        &mut self,
        now: Duration,
        host: HostId,
        len: usize,
        frame: impl FnOnce() -> F,
    ) -> Result<(), DropReason> {
        let own = self.queues.get(&host);
        let (frames, bytes) = own.map_or((0, 0), |queue| (queue.frames.len(), queue.bytes));
        let is_full = frames == MAX_FRAMES
            || bytes + len > MAX_BYTES
            || self.bytes + len > MAX_BYTES_IN_ALL
            || (own.is_none() && self.queues.len() == MAX_HOSTS);
        if is_full {
            return Err(DropReason::WaitingFull);
        }
        if self.queues.is_empty() {
            self.due = now + MAX_WAIT;
        }
        let queue = self.queues.entry(host).or_default();
        queue.frames.push_back(Waiting { since: now, len, frame: frame() });
        queue.bytes += len;
        self.bytes += len;
        Ok(())
    }

    /// There is a way to the host: what waited for it, in the order in which it came.
    pub fn leave(&mut self, host: HostId) -> impl Iterator<Item = F> {
        let queue = self.queues.remove(&host);
        self.bytes -= queue.as_ref().map_or(0, |q| q.bytes);
        queue.into_iter().flat_map(|q| q.frames).map(|w| w.frame)
    }

    /// There is no way to the host: how many are dropped (`NotReached`).
    pub fn give_up(&mut self, host: HostId) -> u64 {
        self.leave(host).count() as u64
    }

    /// Drops what has waited too long; how much that is (`WaitedTooLong`).
    pub fn expire(&mut self, now: Duration) -> u64 {
        if self.queues.is_empty() || now < self.due {
            return 0;
        }
        let (mut dropped, mut bytes) = (0, 0);
        self.queues.retain(|_, queue| {
            while let Some(oldest) = queue.frames.pop_front_if(|w| w.since + MAX_WAIT <= now) {
                queue.bytes -= oldest.len;
                bytes += oldest.len;
                dropped += 1;
            }
            !queue.frames.is_empty()
        });
        self.bytes -= bytes;
        let oldest = self.queues.values().filter_map(|q| q.frames.front()).map(|w| w.since).min();
        self.due = oldest.unwrap_or(now) + MAX_WAIT;
        dropped
    }

    /// When [`Self::expire`] is due.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        (!self.queues.is_empty()).then_some(self.due)
    }

    /// Whom frames wait for.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.queues.keys().copied()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    fn host(n: u16) -> HostId {
        let [a, b] = n.to_be_bytes();
        HostId([a, b, 0, 0, 0, 0, 0, 0])
    }

    #[test]
    fn sixty_four_wait_in_order_and_the_next_is_refused() {
        let mut room = WaitingRoom::default();
        for n in 0..MAX_FRAMES {
            room.enter(SEC, host(1), 1400, || n).unwrap();
        }
        let refused = room.enter(SEC, host(1), 1, || unreachable!("there is no room"));
        assert_eq!(refused, Err(DropReason::WaitingFull));
        room.enter(SEC, host(2), 1, || 1000).unwrap();
        assert!(room.leave(host(1)).eq(0..MAX_FRAMES));
        assert_eq!(room.hosts().collect::<Vec<_>>(), [host(2)]);
        room.enter(SEC, host(1), 1, || 7).unwrap();
        assert_eq!((room.give_up(host(1)), room.give_up(host(1))), (1, 0));
    }

    #[test]
    fn bytes_and_hosts_are_bounded() {
        let mut room = WaitingRoom::default();
        for n in 0..MAX_BYTES / 65_536 {
            room.enter(SEC, host(0), 65_536, || n).unwrap();
        }
        assert_eq!(room.enter(SEC, host(0), 1, || 0), Err(DropReason::WaitingFull));
        for n in 1..MAX_HOSTS as u16 {
            room.enter(SEC, host(n), 1, || 0).unwrap();
        }
        assert_eq!(room.enter(SEC, host(2000), 1, || 0), Err(DropReason::WaitingFull), "one host more");
        let big = (1..MAX_HOSTS as u16).filter(|n| room.enter(SEC, host(*n), 200_000, || 0).is_ok()).count();
        assert_eq!(big, (MAX_BYTES_IN_ALL - MAX_BYTES) / 200_000);
    }

    #[test]
    fn what_is_too_old_goes_and_is_told_of() {
        let mut room = WaitingRoom::default();
        assert_eq!((room.next_expiry(), room.expire(SEC)), (None, 0));
        room.enter(SEC, host(1), 1, || 'a').unwrap();
        room.enter(2 * SEC, host(2), 1, || 'b').unwrap();
        room.enter(3 * SEC, host(1), 1, || 'c').unwrap();
        assert_eq!(room.next_expiry(), Some(SEC + MAX_WAIT));
        assert_eq!(room.expire(SEC + MAX_WAIT), 1);
        assert_eq!(room.next_expiry(), Some(2 * SEC + MAX_WAIT));
        assert_eq!(room.expire(2 * SEC + MAX_WAIT), 1);
        assert!(room.leave(host(1)).eq(['c']));
        assert!(room.is_empty() && room.next_expiry().is_none());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_without_a_name(
            steps in prop::collection::vec((0..4u8, 0..5u16, 0..70_000usize, 0..2000u64), 0..400),
        ) {
            let (mut room, mut now) = (WaitingRoom::default(), Duration::ZERO);
            let (mut entered, mut left, mut dropped) = (0u64, 0u64, 0u64);
            for (what, of, len, ms) in steps {
                now += Duration::from_millis(ms);
                dropped += room.expire(now);
                match what {
                    0 | 1 => entered += u64::from(room.enter(now, host(of), len, || now).is_ok()),
                    2 => for since in room.leave(host(of)) {
                        prop_assert!(now - since < MAX_WAIT);
                        left += 1;
                    },
                    _ => dropped += room.give_up(host(of)),
                }
                let waits: u64 = room.queues.values().map(|q| q.frames.len() as u64).sum();
                prop_assert_eq!(entered, left + dropped + waits);
                prop_assert_eq!(room.bytes, room.queues.values().map(|q| q.bytes).sum::<usize>());
                prop_assert!(room.bytes <= MAX_BYTES_IN_ALL && room.queues.values().all(|q| !q.frames.is_empty() && q.bytes <= MAX_BYTES));
            }
        }
    }
}
