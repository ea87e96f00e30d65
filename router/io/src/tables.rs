//! What a lane reads: sessions by host and by index, and networks. One snapshot, replaced whole by the control side.
//!
//! Epochs are shared: counters, replay windows and byte counts live and die with their key, whatever snapshot names it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use weft_api::id::{HostId, NetworkId};
use weft_router::drop::{DropCounters, DropReason};
use weft_router::envelope::{COUNTER_STOP, COUNTER_WORN, MAX_LANES};
use weft_router::relay::RelayTable;
use weft_router::replay::ReplayWindow;
use weft_router::seal::{OpenKey, SealKey};
use weft_router::session;
use weft_router::switch::Table;

/// Indexes of erased keys that are remembered, so that what comes late has a name.
const MAX_EXPIRED: usize = 256;

/// Everything a lane looks up.
#[derive(Default, Clone)]
pub struct Tables {
    /// The epoch to seal with, per host that has a session.
    pub sends: HashMap<HostId, Arc<SendEpoch>>,
    /// The epochs that envelopes may come under, by our session index.
    pub receives: HashMap<u32, Arc<ReceiveEpoch>>,
    /// The networks that this host has.
    pub networks: HashMap<NetworkId, Arc<Table>>,
    /// Keys that are gone.
    pub expired: Expired,
    /// What is relayed, and where to.
    pub relay: Arc<RelayTable>,
}

impl Tables {
    /// Why there is no key for an index.
    #[must_use]
    pub fn why_unknown(&self, index: u32) -> DropReason {
        if self.expired.0.contains(&index) { DropReason::KeyExpired } else { DropReason::UnknownIndex }
    }
}

/// Our indexes whose keys were replaced and erased, the oldest first.
#[derive(Default, Clone, Debug)]
pub struct Expired(VecDeque<u32>);

impl Expired {
    /// One more; the oldest is forgotten.
    pub fn add(&mut self, index: u32) {
        if self.0.len() == MAX_EXPIRED {
            self.0.pop_front();
        }
        self.0.push_back(index);
    }
}

/// Where a session's envelopes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// What carries them. An address is validated, since the kernel turns GSO off over a bad one.
    pub way: session::Path,
    /// The longest envelope that passes.
    pub datagram: u16,
}

/// How much went one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of their UDP payload.
    pub bytes: u64,
}

/// A key to seal with and what belongs to it.
pub struct SendEpoch {
    host: HostId,
    index: u32,
    key: SealKey,
    counters: [AtomicU64; MAX_LANES],
    /// Frames were sealed with it since it was asked last.
    carried: AtomicBool,
    /// Bits: lanes that the peer hears, and lanes that had frames for it since that was last found out.
    heard: AtomicU64,
    wanted: AtomicU64,
    /// Datagrams longer than any path passes were sent since it was asked last, and whether one was refused.
    full: AtomicBool,
    refused: AtomicBool,
    /// The path's size is found out.
    settled: AtomicBool,
    fragments: AtomicU16,
    path: ArcSwapOption<Path>,
    sent: TrafficCounter,
    drops: DropCounters,
}

impl SendEpoch {
    /// Towards `host`, which chose `index`. Without a path everything is dropped (`NoPath`) until [`Self::set_path`].
    #[must_use]
    pub fn new(host: HostId, index: u32, key: SealKey, path: Option<Path>) -> Self {
        Self {
            host,
            index,
            key,
            counters: [const { AtomicU64::new(0) }; MAX_LANES],
            carried: AtomicBool::new(false),
            heard: AtomicU64::new(1),
            wanted: AtomicU64::new(0),
            full: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            fragments: AtomicU16::new(0),
            path: ArcSwapOption::from_pointee(path),
            sent: TrafficCounter::default(),
            drops: DropCounters::new(),
        }
    }

    /// The peer.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The session index that the peer chose.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The path in use.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        self.path.load().as_deref().copied()
    }

    /// From the next batch on envelopes go here.
    pub fn set_path(&self, path: Option<Path>) {
        self.path.store(path.map(Arc::new));
        self.settled.store(false, Ordering::Relaxed);
    }

    /// From the next batch on envelopes along the same path are at most so long. `settled`: senders may be told of it.
    pub fn set_size(&self, datagram: u16, settled: bool) {
        self.set_path(self.path().map(|path| Path { datagram, ..path }));
        self.settled.store(settled, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
    }

    /// From the next batch on frames of `lane`, not 0, go by it, or by lane 0 again. Until then the lane tells again that it
    /// has frames for the peer, once.
    pub fn set_heard(&self, lane: u8, heard: bool) {
        let bit = bit(lane);
        if heard {
            self.heard.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.heard.fetch_and(!bit, Ordering::Relaxed);
        }
        self.wanted.fetch_and(!bit, Ordering::Relaxed);
    }

    /// Whether the peer hears this lane.
    #[inline]
    pub(crate) fn hears(&self, lane: u8) -> bool {
        self.heard.load(Ordering::Relaxed) & bit(lane) != 0
    }

    /// Notes that a lane has frames for the peer; `true` if that is news.
    #[inline]
    pub(crate) fn wants(&self, lane: u8) -> bool {
        let bit = bit(lane);
        self.wanted.load(Ordering::Relaxed) & bit == 0
            && self.wanted.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Goes on where `before`, an earlier key for the same peer, goes: the path, and the lanes that the peer hears.
    pub(crate) fn follow(&self, before: &Self) {
        self.set_path(before.path());
        self.settled.store(before.is_settled(), Ordering::Relaxed);
        self.heard.store(before.heard.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What was sent under this key.
    #[must_use]
    pub fn sent(&self) -> Traffic {
        self.sent.get()
    }

    /// What died on the way out.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    pub(crate) fn key(&self) -> &SealKey {
        &self.key
    }

    pub(crate) fn carry(&self) {
        if !self.carried.load(Ordering::Relaxed) {
            self.carried.store(true, Ordering::Relaxed);
        }
    }

    /// Whether frames were sealed with it since this was asked last.
    pub(crate) fn take_carried(&self) -> bool {
        self.carried.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn send_full(&self) {
        if !self.full.load(Ordering::Relaxed) {
            self.full.store(true, Ordering::Relaxed);
        }
    }

    /// Whether datagrams longer than any path passes were sent since this was asked last.
    pub(crate) fn take_full(&self) -> bool {
        self.refused.store(false, Ordering::Relaxed);
        self.full.swap(false, Ordering::Relaxed)
    }

    /// Notes that the kernel refuses a datagram as too long; `true` if that is news.
    pub(crate) fn refuse(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// Whether the size of the path is found out.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// What the fragments of the next chunk are known by.
    pub(crate) fn next_fragment(&self) -> u16 {
        self.fragments.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn count_sent(&self, datagrams: u64, bytes: u64) {
        self.sent.add(datagrams, bytes);
    }

    /// The next counter of `lane`, used up by this call whatever happens then. `true` with those that ask for new keys.
    pub(crate) fn use_counter(&self, lane: u8) -> Result<(u64, bool), DropReason> {
        self.use_counters(lane, 1).map(|(counters, worn)| (counters.start, worn))
    }

    /// The same for the next `n`: one atomic step for many envelopes, which would each wait for what was just copied.
    pub(crate) fn use_counters(&self, lane: u8, n: u64) -> Result<(Range<u64>, bool), DropReason> {
        let cell = self.counters.get(usize::from(lane)).ok_or(DropReason::LaneOutOfRange)?;
        let first = cell.fetch_add(n, Ordering::Relaxed);
        let end = first.saturating_add(n);
        if end > COUNTER_STOP {
            cell.store(COUNTER_STOP, Ordering::Relaxed);
            return Err(DropReason::CounterSpent);
        }
        let worn = first.saturating_sub(1) / COUNTER_WORN != (end - 1) / COUNTER_WORN;
        Ok((first..end, worn))
    }

    /// Takes back the rest of what [`Self::use_counters`] gave, if nobody has taken more since. Nothing was sealed with it.
    pub(crate) fn give_back(&self, lane: u8, unused: Range<u64>) {
        if let Some(cell) = self.counters.get(usize::from(lane)).filter(|_| !unused.is_empty()) {
            let _taken_since =
                cell.compare_exchange(unused.end, unused.start, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A key to open with and what belongs to it.
pub struct ReceiveEpoch {
    host: HostId,
    index: u32,
    key: OpenKey,
    windows: [OnceLock<Mutex<LaneWindow>>; MAX_LANES],
    authentic: AtomicBool,
    received: TrafficCounter,
    drops: DropCounters,
}

impl ReceiveEpoch {
    /// From `host`, under the `index` that we chose.
    #[must_use]
    pub fn new(host: HostId, index: u32, key: OpenKey) -> Self {
        Self {
            host,
            index,
            key,
            windows: [const { OnceLock::new() }; MAX_LANES],
            authentic: AtomicBool::new(false),
            received: TrafficCounter::default(),
            drops: DropCounters::new(),
        }
    }

    /// The peer.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The session index that we chose.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether an authentic envelope has come.
    #[must_use]
    pub fn is_authentic(&self) -> bool {
        self.authentic.load(Ordering::Relaxed)
    }

    /// Authentic envelopes received under this key.
    #[must_use]
    pub fn received(&self) -> Traffic {
        self.received.get()
    }

    /// What died on the way in.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    pub(crate) fn key(&self) -> &OpenKey {
        &self.key
    }

    pub(crate) fn count_received(&self, datagrams: u64, bytes: u64) {
        self.received.add(datagrams, bytes);
    }

    /// The window of a sender lane, for as long as `f` runs. The lock is uncontended: one lane of ours reads one of theirs,
    /// unless the kernel just moved the tuple.
    pub(crate) fn with_window<T>(
        &self,
        lane: u8,
        f: impl FnOnce(&mut LaneWindow) -> Result<T, DropReason>,
    ) -> Result<T, DropReason> {
        let window = self.windows.get(usize::from(lane)).ok_or(DropReason::LaneOutOfRange)?;
        let window = window.get_or_init(|| Mutex::new(LaneWindow::default()));
        f(&mut window.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on from `before`, an earlier key of the same peer: a peer that moves with its first envelope under this key has moved.
    pub(crate) fn follow(&self, before: &Self) {
        let known = before.with_window(0, |window| Ok(window.newest_from));
        let _never_fails = self.with_window(0, |window| {
            window.newest_from = known?;
            Ok(())
        });
    }

    /// An authentic envelope has come, and the control side knows.
    pub(crate) fn set_authentic(&self) {
        self.authentic.store(true, Ordering::Relaxed);
    }
}

/// What is known of one sender lane.
#[derive(Default)]
pub(crate) struct LaneWindow {
    replay: ReplayWindow,
    newest_from: Option<SocketAddr>,
}

impl LaneWindow {
    /// See [`ReplayWindow::check`].
    pub(crate) fn check(&self, counter: u64) -> Result<(), DropReason> {
        self.replay.check(counter)
    }

    /// See [`ReplayWindow::accept`]. `from` if it shows where the peer sends from; `true` if that, the newest so far, is another
    /// address than the newest before.
    pub(crate) fn accept(&mut self, counter: u64, from: Option<SocketAddr>) -> Result<bool, DropReason> {
        let newest = self.replay.accept(counter)?;
        let Some(from) = from else { return Ok(false) };
        if !newest || self.newest_from == Some(from) {
            return Ok(false);
        }
        Ok(self.newest_from.replace(from).is_some())
    }
}

fn bit(lane: u8) -> u64 {
    1u64.checked_shl(u32::from(lane)).unwrap_or(0)
}

#[derive(Default)]
struct TrafficCounter {
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl TrafficCounter {
    fn add(&self, datagrams: u64, bytes: u64) {
        self.datagrams.fetch_add(datagrams, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> Traffic {
        Traffic {
            datagrams: self.datagrams.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_api::roster::Cipher;
    use weft_router::seal::{Chain, Direction};

    use super::*;

    fn epoch() -> SendEpoch {
        let key = Chain::first(&[1; 32]).seal_key(Cipher::ChaCha20Poly1305, Direction::FromDialler);
        SendEpoch::new(HostId([1; 8]), 7, key, None)
    }

    #[test]
    fn counters_wear_and_stop() {
        let epoch = epoch();
        assert_eq!(epoch.use_counter(3), Ok((0, false)));
        assert_eq!(epoch.use_counter(3), Ok((1, false)));
        assert_eq!(epoch.use_counter(0), Ok((0, false)), "each lane has its own");
        epoch.counters[3].store(COUNTER_WORN, Ordering::Relaxed);
        assert_eq!(epoch.use_counter(3), Ok((COUNTER_WORN, true)));
        assert_eq!(epoch.use_counter(3), Ok((COUNTER_WORN + 1, false)));
        epoch.counters[3].store(5 * COUNTER_WORN, Ordering::Relaxed);
        assert_eq!(epoch.use_counter(3), Ok((5 * COUNTER_WORN, true)), "and again");
        epoch.counters[3].store(COUNTER_STOP - 1, Ordering::Relaxed);
        assert_eq!(epoch.use_counter(3), Ok((COUNTER_STOP - 1, false)));
        for _ in 0..3 {
            assert_eq!(epoch.use_counter(3), Err(DropReason::CounterSpent));
        }
        assert_eq!(epoch.use_counter(64), Err(DropReason::LaneOutOfRange));
    }

    #[test]
    fn counters_are_taken_together_and_the_rest_given_back() {
        let epoch = epoch();
        assert_eq!(epoch.use_counters(1, 4), Ok((0..4, false)));
        epoch.give_back(1, 2..4);
        assert_eq!(epoch.use_counters(1, 4), Ok((2..6, false)));
        assert_eq!(epoch.use_counter(1), Ok((6, false)));
        epoch.give_back(1, 3..6);
        assert_eq!(epoch.use_counter(1), Ok((7, false)), "somebody has taken more since");
        epoch.give_back(1, 8..8);
        epoch.counters[1].store(COUNTER_WORN - 2, Ordering::Relaxed);
        assert_eq!(epoch.use_counters(1, 2), Ok((COUNTER_WORN - 2..COUNTER_WORN, false)));
        assert_eq!(epoch.use_counters(1, 2).map(|(_, worn)| worn), Ok(true));
        epoch.counters[1].store(COUNTER_WORN - 1, Ordering::Relaxed);
        assert_eq!(epoch.use_counters(1, 2).map(|(_, worn)| worn), Ok(true), "in the middle");
        epoch.counters[1].store(COUNTER_STOP - 1, Ordering::Relaxed);
        assert_eq!(epoch.use_counters(1, 2), Err(DropReason::CounterSpent));
        assert_eq!(epoch.use_counter(1), Err(DropReason::CounterSpent));
    }

    #[test]
    fn who_moves_between_two_keys_has_moved() {
        let key = || Chain::first(&[1; 32]).open_key(Cipher::ChaCha20Poly1305, Direction::FromDialler);
        let [before, next] = [1, 2].map(|index| ReceiveEpoch::new(HostId([1; 8]), index, key()));
        let [old, new] = ["192.0.2.1:1", "192.0.2.2:1"].map(|a| a.parse().unwrap());
        let accept =
            |epoch: &ReceiveEpoch, counter, from| epoch.with_window(0, |w| w.accept(counter, Some(from)));
        assert_eq!(accept(&before, 0, old), Ok(false));
        next.follow(&before);
        assert_eq!((accept(&next, 0, new), accept(&next, 1, new)), (Ok(true), Ok(false)));
    }

    #[test]
    fn paths_change() {
        let epoch = epoch();
        assert_eq!(epoch.path(), None);
        let way = session::Path::Udp("192.0.2.1:6783".parse().unwrap());
        let path = Path { way, datagram: 1452 };
        epoch.set_path(Some(path));
        assert_eq!(epoch.path(), Some(path));
    }
}
