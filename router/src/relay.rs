//! Relaying: a datagram of two other hosts by way of a neighbour (PROTOCOL 5). What it is, and where it goes next.
//!
//! An envelope becomes a relayed envelope. Its head is sealed anew for every hop; behind it is what the source sealed for the target:
//! ```text
//!  0        16          17       25       33                     49    65
//! | header | hop limit | source | target | the carried header   | tag | the carried chunks and tag, as they are ... |
//! ```
//! A notice or a bare QUIC packet goes in a chunk of an ordinary envelope, behind hop limit, source and target. Ids are the first 8
//! bytes of hosts' ids. What is carried is sealed for the target; whoever passes it on cannot open it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_api::id::HostId;

use crate::chunk::{CHUNK_HEAD_LEN, relayed_head};
use crate::drop::DropReason;
use crate::envelope::{HEADER_LEN, KIND_ENVELOPE, KIND_RELAYED, TAG_LEN};
use crate::session::Path;
use crate::switch::allowance::{Allowances, Rate};

/// Bytes of hop limit, source and target.
pub const RELAY_LEN: usize = 17;
/// Bytes of a chunk before what it carries.
pub const RELAY_CHUNK_LEN: usize = CHUNK_HEAD_LEN + RELAY_LEN;
/// Bytes that the head of a relayed envelope seals: the carried header too, so that index and counter are not seen on the way.
pub const RELAY_HEAD_LEN: usize = RELAY_LEN + HEADER_LEN;
/// Bytes of a relayed envelope before what it carries sealed: header, head and tag.
pub const RELAY_FRONT: usize = HEADER_LEN + RELAY_HEAD_LEN + TAG_LEN;
/// What a relay takes of every envelope; where the carried one begins before it is covered, and after it is uncovered.
pub const RELAY_OVERHEAD: usize = RELAY_FRONT - HEADER_LEN;
/// A relayed datagram of at most this length, a QUIC packet outside an envelope, gets through whatever a hop passes: in fragments.
/// A longer one does not, so that the source's probes find out what does.
pub const RELAY_ANYWAY: usize = 1200;
/// The hop limit at the source.
pub const MAX_HOPS: u8 = 8;
/// Datagrams that one neighbour may have relayed: several times what a lane carries, so that none keeps the others out.
pub const RELAY_RATE: Rate = Rate { per_second: 1_000_000, burst: 250_000 };

/// Who talks to whom, and how far it may still go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relayed {
    /// Each relay takes one off; with the last it ends.
    pub limit: u8,
    /// Who sealed what it carries, as the neighbour says.
    pub source: HostId,
    /// Who can open it.
    pub target: HostId,
}

impl Relayed {
    /// Of our own.
    #[must_use]
    pub fn new(source: HostId, target: HostId) -> Self {
        Self { limit: MAX_HOPS, source, target }
    }

    /// Reads the first [`RELAY_LEN`] bytes of a chunk's body; what it carries follows.
    #[inline]
    pub fn read(body: &[u8]) -> Result<Self, DropReason> {
        let (head, carried) = body.split_first_chunk::<RELAY_LEN>().ok_or(DropReason::ChunkTruncated)?;
        let [limit, s0, s1, s2, s3, s4, s5, s6, s7, target @ ..] = *head;
        if limit > MAX_HOPS || carried.is_empty() {
            return Err(DropReason::RelayGarbled);
        }
        let source = HostId([s0, s1, s2, s3, s4, s5, s6, s7]);
        Ok(Self { limit, source, target: HostId(target) })
    }

    /// Reads the opened head of a relayed envelope. It carries nothing but an envelope that is not relayed itself.
    #[inline]
    pub fn read_head(head: &[u8; RELAY_HEAD_LEN]) -> Result<Self, DropReason> {
        match head[RELAY_LEN] {
            KIND_ENVELOPE => Self::read(head),
            KIND_RELAYED => Err(DropReason::RelayNested),
            _ => Err(DropReason::RelayGarbled),
        }
    }

    /// Makes the head of a relayed envelope out of the header of the carried one, which begins at [`RELAY_OVERHEAD`]; to be sealed
    /// then.
    #[inline]
    pub fn cover(&self, front: &mut [u8; RELAY_FRONT]) {
        front.copy_within(RELAY_OVERHEAD.., HEADER_LEN + RELAY_LEN);
        self.readdress(front);
    }

    /// Says in an opened head how far it may still go; to be sealed again then.
    #[inline]
    pub fn readdress(&self, front: &mut [u8; RELAY_FRONT]) {
        front[HEADER_LEN..HEADER_LEN + RELAY_LEN].copy_from_slice(&self.body());
    }

    /// The bytes of a chunk before `len` carried bytes, the chunk's own head included.
    #[inline]
    #[must_use]
    pub fn chunk(&self, len: u16) -> [u8; RELAY_CHUNK_LEN] {
        let mut head = [0; RELAY_CHUNK_LEN];
        let (chunk, body) = head.split_at_mut(CHUNK_HEAD_LEN);
        chunk.copy_from_slice(&relayed_head(len + RELAY_LEN as u16));
        body.copy_from_slice(&self.body());
        head
    }

    /// Hop limit, source and target.
    #[inline]
    #[must_use]
    pub fn body(&self) -> [u8; RELAY_LEN] {
        let mut body = [0; RELAY_LEN];
        body[0] = self.limit;
        body[1..9].copy_from_slice(&self.source.0);
        body[9..].copy_from_slice(&self.target.0);
        body
    }
}

/// Puts the carried header of an opened head in the tag's place: from [`RELAY_OVERHEAD`] on there is the envelope that the source
/// sealed.
#[inline]
pub fn uncover(front: &mut [u8; RELAY_FRONT]) {
    front.copy_within(HEADER_LEN + RELAY_LEN..HEADER_LEN + RELAY_HEAD_LEN, RELAY_OVERHEAD);
}

/// What becomes of a relayed datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onward {
    /// It is for this host.
    Here,
    /// This neighbour gets it, like this.
    To(HostId, Relayed),
}

/// What a relay knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayTable {
    /// This host.
    pub me: HostId,
    /// Every member; of others nothing is relayed.
    pub members: BTreeSet<HostId>,
    /// The best first hops to members that this host has no session with.
    pub routes: BTreeMap<HostId, HostId>,
}

impl Default for RelayTable {
    /// Knows nobody, and relays for nobody.
    fn default() -> Self {
        Self { me: HostId([0; 8]), members: BTreeSet::new(), routes: BTreeMap::new() }
    }
}

impl RelayTable {
    /// Where a datagram that the neighbour `by` handed over goes. `path` tells what the session with a host goes by.
    #[inline]
    pub fn judge(
        &self,
        relayed: Relayed,
        by: HostId,
        path: impl Fn(HostId) -> Option<Path>,
    ) -> Result<Onward, DropReason> {
        if !self.members.contains(&relayed.source) || !self.members.contains(&relayed.target) {
            return Err(DropReason::RelayStranger);
        }
        if relayed.source == self.me {
            return Err(DropReason::RelayLoop);
        }
        if relayed.target == self.me {
            return Ok(Onward::Here);
        }
        if relayed.limit <= 1 {
            return Err(DropReason::RelayHops);
        }
        let back = |hop: HostId| hop == by || hop == relayed.source;
        let route = self.routes.get(&relayed.target).copied();
        let next = match path(relayed.target) {
            Some(Path::Udp(_) | Path::Tcp(_)) => relayed.target,
            // Two sessions may lead through each other's hosts; facts know a way that does not.
            Some(Path::Relay(hop)) if back(hop) => route.unwrap_or(hop),
            Some(Path::Relay(hop)) => hop,
            None => route.ok_or(DropReason::RelayNoRoute)?,
        };
        if back(next) {
            return Err(DropReason::RelayLoop);
        }
        if !path(next).is_some_and(Path::is_direct) {
            return Err(DropReason::RelayNoRoute);
        }
        Ok(Onward::To(next, Relayed { limit: relayed.limit - 1, ..relayed }))
    }
}

/// How many datagrams of a neighbour are taken out of its allowance at once.
const TAKEN_AT_ONCE: u32 = 64;

/// How much each neighbour may still have relayed.
#[derive(Debug)]
pub struct RelayLimits {
    each: Allowances<HostId>,
    /// Taken out of this neighbour's, and not yet used.
    held: (HostId, u32),
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self { each: Allowances::new(RELAY_RATE), held: (HostId([0; 8]), 0) }
    }
}

impl RelayLimits {
    /// Takes one datagram of a neighbour.
    #[inline]
    pub fn take(&mut self, by: HostId, now: Duration) -> Result<(), DropReason> {
        if self.held.0 == by && self.held.1 > 0 {
            self.held.1 -= 1;
            return Ok(());
        }
        self.each.put_back(&self.held.0, self.held.1);
        self.held = (by, 0);
        if self.each.take(by, TAKEN_AT_ONCE, now) {
            self.held.1 = TAKEN_AT_ONCE - 1;
            return Ok(());
        }
        if self.each.take(by, 1, now) { Ok(()) } else { Err(DropReason::RelayLimit) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::{Chunk, ChunkKind, Chunks};
    use crate::envelope::Header;

    fn id(n: u8) -> HostId {
        HostId([n; 8])
    }

    fn table(me: u8) -> RelayTable {
        RelayTable { me: id(me), members: (1..9).map(id).collect(), routes: BTreeMap::from([(id(8), id(4))]) }
    }

    fn relayed(limit: u8, source: u8, target: u8) -> Relayed {
        Relayed { limit, source: id(source), target: id(target) }
    }

    #[test]
    fn each_goes_where_its_session_goes() {
        let path = |host: HostId| match host.0[0] {
            1 | 3 | 4 => Some(Path::Udp(([192, 0, 2, 1], 1).into())),
            5 => Some(Path::Relay(id(4))),
            6 => Some(Path::Relay(id(7))),
            _ => None,
        };
        let judge = |r: Relayed, by| table(2).judge(r, id(by), path);
        assert_eq!(judge(relayed(8, 1, 2), 1), Ok(Onward::Here));
        assert_eq!(judge(relayed(8, 1, 3), 1), Ok(Onward::To(id(3), relayed(7, 1, 3))));
        assert_eq!(judge(relayed(8, 1, 5), 1), Ok(Onward::To(id(4), relayed(7, 1, 5))), "by its relay");
        assert_eq!(judge(relayed(8, 1, 8), 1), Ok(Onward::To(id(4), relayed(7, 1, 8))), "by the route");
        assert_eq!(judge(relayed(8, 1, 6), 1), Err(DropReason::RelayNoRoute), "its relay is no neighbour");
        assert_eq!(judge(relayed(8, 1, 7), 1), Err(DropReason::RelayNoRoute));
        assert_eq!(judge(relayed(8, 1, 5), 4), Err(DropReason::RelayLoop), "never back");
        assert_eq!(judge(relayed(8, 4, 5), 1), Err(DropReason::RelayLoop), "nor to the source");
        assert_eq!(judge(relayed(8, 2, 3), 1), Err(DropReason::RelayLoop), "our own");
        assert_eq!(judge(relayed(1, 1, 3), 1), Err(DropReason::RelayHops));
        assert_eq!(judge(relayed(1, 1, 2), 1), Ok(Onward::Here), "the last hop");
        assert_eq!(judge(relayed(8, 9, 3), 1), Err(DropReason::RelayStranger));
        assert_eq!(judge(relayed(8, 1, 9), 1), Err(DropReason::RelayStranger));
    }

    #[test]
    fn a_neighbour_has_its_share_and_no_more() {
        let mut limits = RelayLimits::default();
        let taken = (0..300_000).filter(|_| limits.take(id(1), Duration::ZERO).is_ok()).count();
        assert_eq!(taken, 250_000);
        assert_eq!(limits.take(id(1), Duration::ZERO), Err(DropReason::RelayLimit));
        assert_eq!(limits.take(id(2), Duration::ZERO), Ok(()), "the others have theirs");
        assert_eq!(limits.take(id(1), Duration::from_secs(1)), Ok(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body: Vec<u8>, limit: u8, fixed: [u8; 16]) {
            let _ = Relayed::read(&body);
            let whole = [&[limit][..], &fixed, &body].concat();
            match Relayed::read(&whole) {
                Ok(read) => prop_assert_eq!(&read.chunk(0)[CHUNK_HEAD_LEN..], &whole[..RELAY_LEN]),
                Err(_) => prop_assert!(limit > MAX_HOPS || body.is_empty()),
            }
        }

        #[test]
        fn any_head_is_read_or_has_a_name(limit in 0u8..12, ids: [u8; 16], kind in 0x0fu8..0x14, rest: [u8; 15]) {
            let head: [u8; RELAY_HEAD_LEN] = [&[limit][..], &ids, &[kind], &rest].concat().try_into().unwrap();
            match Relayed::read_head(&head) {
                Ok(read) => {
                    prop_assert!(kind == KIND_ENVELOPE && limit <= MAX_HOPS);
                    prop_assert_eq!(&read.body()[..], &head[..RELAY_LEN]);
                }
                Err(DropReason::RelayNested) => prop_assert_eq!(kind, KIND_RELAYED),
                Err(reason) => {
                    prop_assert_eq!(reason, DropReason::RelayGarbled);
                    prop_assert!(kind != KIND_ENVELOPE || limit > MAX_HOPS);
                }
            }
        }

        #[test]
        fn an_envelope_is_covered_readdressed_and_uncovered(
            limit in 1..=MAX_HOPS, source: [u8; 8], target: [u8; 8], lane in 0u8..64, index: u32, counter in 0u64..1 << 32,
            hop: [u8; HEADER_LEN], tag: [u8; TAG_LEN],
        ) {
            let carried = Header { lane, index, counter }.envelope();
            let relayed = Relayed { limit, source: HostId(source), target: HostId(target) };
            let mut front = [0; RELAY_FRONT];
            front[RELAY_OVERHEAD..].copy_from_slice(&carried);
            let head = |front: &[u8; RELAY_FRONT]| *front[HEADER_LEN..].first_chunk::<RELAY_HEAD_LEN>().unwrap();
            relayed.cover(&mut front);
            // Sealing writes these.
            front[..HEADER_LEN].copy_from_slice(&hop);
            front[HEADER_LEN + RELAY_HEAD_LEN..].copy_from_slice(&tag);
            prop_assert_eq!(Relayed::read_head(&head(&front)), Ok(relayed));
            let onward = Relayed { limit: limit - 1, ..relayed };
            onward.readdress(&mut front);
            prop_assert_eq!(Relayed::read_head(&head(&front)), Ok(onward));
            uncover(&mut front);
            prop_assert_eq!(&front[RELAY_OVERHEAD..], &carried[..]);
        }

        #[test]
        fn chunks_go_round(limit in 0..=MAX_HOPS, source: [u8; 8], target: [u8; 8], carried in prop::collection::vec(any::<u8>(), 1..300)) {
            let head = Relayed { limit, source: HostId(source), target: HostId(target) };
            let bytes = [&head.chunk(carried.len() as u16)[..], &carried].concat();
            let Some(Ok(Chunk { kind: ChunkKind::Relayed, body })) = Chunks::new().next_in(&bytes) else { panic!() };
            prop_assert_eq!(Relayed::read(&bytes[body.clone()]), Ok(head));
            prop_assert_eq!(&bytes[body][RELAY_LEN..], &carried[..]);
        }

        #[test]
        fn whatever_relays_believe_nothing_goes_round_for_ever(
            paths in prop::collection::vec(0u8..9, 81), source in 1u8..9, target in 1u8..9, first in 1u8..9,
        ) {
            // Host `a` believes that the session with `b` goes by paths[a][b]: 0 none, itself direct, another as a relay.
            let path = |a: u8, b: HostId| match paths[usize::from(a) * 9 + usize::from(b.0[0])] {
                0 => None,
                hop if hop == b.0[0] => Some(Path::Udp(([192, 0, 2, 1], 1).into())),
                hop => Some(Path::Relay(id(hop))),
            };
            let (mut at, mut by, mut carried) = (first, source, relayed(MAX_HOPS, source, target));
            let mut hops = 0;
            while let Ok(Onward::To(next, onward)) = table(at).judge(carried, id(by), |host| path(at, host)) {
                prop_assert_ne!(next, id(by));
                prop_assert_ne!(next, id(source));
                (by, at, carried, hops) = (at, next.0[0], onward, hops + 1);
            }
            prop_assert!(hops < MAX_HOPS);
        }
    }
}
