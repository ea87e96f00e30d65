//! Fragments: a chunk that fits no envelope of a path travels in parts, each in an envelope of its own (PROTOCOL 5). How it is cut,
//! and how the parts of many become whole again, within bounds.
//!
//! ```text
//!  0      3    5       6      7
//! | head | id | index | last | a part of a chunk, its own head included ...
//! ```
//! Big endian. The id is the sender lane's count, which wraps; parts are numbered from 0 to `last`, which is not 0.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::chunk::{CHUNK_HEAD_LEN, fragment_head};
use crate::drop::DropReason;
use crate::stream::MAX_DATAGRAM;

/// Bytes between the head of the chunk and the part.
pub const FRAGMENT_LEN: usize = 4;
/// Bytes before the part.
pub const FRAGMENT_HEAD_LEN: usize = CHUNK_HEAD_LEN + FRAGMENT_LEN;
/// Most parts of a chunk.
pub const MAX_PARTS: usize = 16;
/// Chunks of one session that wait for parts; with one more the oldest of them is lost (`FragmentLost`).
pub const MAX_OPEN_EACH: usize = 16;
/// Of all sessions; with one more the oldest is lost. With [`MAX_DATAGRAM`] it bounds the memory.
pub const MAX_OPEN: usize = 128;
/// What is not whole by then is lost.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// How a chunk of `len` bytes is cut where an envelope takes `room` bytes of chunks: what goes before each part, and which.
pub fn cut(
    id: u16,
    len: usize,
    room: usize,
) -> Result<impl Iterator<Item = ([u8; FRAGMENT_HEAD_LEN], Range<usize>)>, DropReason> {
    let each = room.saturating_sub(FRAGMENT_HEAD_LEN);
    let parts = len.checked_div(each).map_or(usize::MAX, |_| len.div_ceil(each));
    if len > MAX_DATAGRAM || !(2..=MAX_PARTS).contains(&parts) {
        return Err(DropReason::TooBigForPath);
    }
    Ok((0..parts).map(move |index| {
        let part = index * each..len.min((index + 1) * each);
        let [kind, len0, len1] = fragment_head((FRAGMENT_LEN + part.len()) as u16);
        let [id0, id1] = id.to_be_bytes();
        ([kind, len0, len1, id0, id1, index as u8, (parts - 1) as u8], part)
    }))
}

/// Chunks of which parts have come, of all sessions that one lane reads.
#[derive(Debug, Default)]
pub struct Reassembly {
    open: VecDeque<Open>,
    lost: u64,
}

#[derive(Debug)]
struct Open {
    session: u32,
    lane: u8,
    id: u16,
    since: Duration,
    /// By number; empty: not come.
    parts: Vec<Vec<u8>>,
}

impl Reassembly {
    /// Nothing has come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the body of a fragment from an authentic envelope of this session and sender lane. The whole chunk, with its head,
    /// once all parts are here.
    pub fn take(
        &mut self,
        now: Duration,
        (session, lane): (u32, u8),
        body: &[u8],
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let Some((&[id0, id1, index, last], part)) = body.split_first_chunk::<FRAGMENT_LEN>() else {
            return Err(DropReason::FragmentInvalid);
        };
        let (index, count) = (usize::from(index), usize::from(last) + 1);
        if !(2..=MAX_PARTS).contains(&count) || index >= count || part.is_empty() {
            return Err(DropReason::FragmentInvalid);
        }
        let id = u16::from_be_bytes([id0, id1]);
        self.expire(now);
        let same = |o: &Open| (o.session, o.lane, o.id) == (session, lane, id);
        let at = self.open.iter().position(same).unwrap_or_else(|| {
            self.make_room(session);
            self.open.push_back(Open { session, lane, id, since: now, parts: vec![Vec::new(); count] });
            self.open.len() - 1
        });
        let open = &mut self.open[at];
        let len: usize = open.parts.iter().map(Vec::len).sum();
        if open.parts.len() != count || !open.parts[index].is_empty() || len + part.len() > MAX_DATAGRAM {
            return Err(DropReason::FragmentInvalid);
        }
        open.parts[index] = part.to_vec();
        if open.parts.iter().any(Vec::is_empty) {
            return Ok(None);
        }
        Ok(self.open.remove(at).map(|whole| whole.parts.concat()))
    }

    /// How many chunks were lost since this was asked last, because parts of them did not come.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn expire(&mut self, now: Duration) {
        while self.open.front().is_some_and(|oldest| oldest.since + MAX_AGE <= now) {
            self.lose(0);
        }
    }

    fn make_room(&mut self, session: u32) {
        let mut own = self.open.iter().enumerate().filter(|(_, o)| o.session == session);
        let oldest = own.next().map(|(at, _)| at).filter(|_| own.count() + 1 >= MAX_OPEN_EACH);
        if let Some(at) = oldest {
            self.lose(at);
        } else if self.open.len() >= MAX_OPEN {
            self.lose(0);
        }
    }

    fn lose(&mut self, at: usize) {
        self.lost += u64::from(self.open.remove(at).is_some());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: (u32, u8) = (7, 1);

    fn bodies(id: u16, chunk: &[u8], room: usize) -> Vec<Vec<u8>> {
        let part = |(head, part): ([u8; FRAGMENT_HEAD_LEN], Range<usize>)| {
            assert!(FRAGMENT_HEAD_LEN + part.len() <= room);
            [&head[CHUNK_HEAD_LEN..], &chunk[part]].concat()
        };
        cut(id, chunk.len(), room).unwrap().map(part).collect()
    }

    #[test]
    fn one_session_does_not_push_out_the_others() {
        let mut all = Reassembly::new();
        let parts = bodies(1, &[5; 100], 60);
        assert_eq!(all.take(Duration::ZERO, FROM, &parts[0]), Ok(None));
        for id in 0..1000u16 {
            let other = bodies(id, &[6; 100], 60);
            assert_eq!(all.take(Duration::ZERO, (8, 0), &other[0]), Ok(None));
            assert!(all.open.len() <= 1 + MAX_OPEN_EACH);
        }
        assert_eq!(all.take_lost(), 1000 - MAX_OPEN_EACH as u64);
        assert_eq!(all.take(Duration::ZERO, FROM, &parts[1]), Ok(Some(vec![5; 100])));
        for session in 0..1000 {
            assert_eq!(all.take(Duration::ZERO, (session, 0), &parts[0]), Ok(None));
            assert!(all.open.len() <= MAX_OPEN);
        }
    }

    #[test]
    fn what_is_late_or_a_lie_is_not_put_together() {
        let mut all = Reassembly::new();
        let parts = bodies(1, &[5; 100], 60);
        assert_eq!(all.take(Duration::ZERO, FROM, &parts[0]), Ok(None));
        assert_eq!(all.take(Duration::ZERO, FROM, &parts[0]), Err(DropReason::FragmentInvalid), "twice");
        assert_eq!(all.take(Duration::ZERO, (7, 2), &parts[1]), Ok(None), "another lane counts for itself");
        let of_three = [&[0, 1, 1, 2][..], &[5; 9]].concat();
        assert_eq!(all.take(Duration::ZERO, FROM, &of_three), Err(DropReason::FragmentInvalid));
        assert_eq!(all.take(MAX_AGE, FROM, &parts[1]), Ok(None), "the first part is gone");
        assert_eq!(all.take_lost(), 2);
        for lie in [&[0, 1, 0, 0, 9][..], &[0, 1, 3, 2, 9], &[0, 1, 0, 1], &[0, 1, 0, 16, 9], &[1]] {
            assert_eq!(all.take(MAX_AGE, FROM, lie), Err(DropReason::FragmentInvalid));
        }
    }

    #[test]
    fn what_fits_or_never_will_is_not_cut() {
        for (len, room) in [(53, 60), (100, 7), (100, 0), (MAX_DATAGRAM + 1, 1400), (0, 60), (9000, 500)] {
            assert!(cut(1, len, room).is_err(), "{len} {room}");
        }
    }

    proptest! {
        #[test]
        fn parts_in_any_order_become_the_chunk(
            chunk in prop::collection::vec(any::<u8>(), 200..3000), room in 210usize..300, seed: u64,
        ) {
            prop_assume!(cut(9, chunk.len(), room).is_ok());
            let mut parts = bodies(9, &chunk, room);
            let mut all = Reassembly::new();
            let mut random = seed;
            while !parts.is_empty() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let part = parts.swap_remove((random >> 33) as usize % parts.len());
                let whole = all.take(Duration::ZERO, FROM, &part).unwrap();
                prop_assert_eq!(whole, parts.is_empty().then(|| chunk.clone()));
            }
            prop_assert!(all.open.is_empty());
        }

        #[test]
        fn any_bytes_stay_within_bounds(
            bodies in prop::collection::vec((0u32..3, 0u8..2, prop::collection::vec(0u8..20, 0..40)), 0..200),
        ) {
            let mut all = Reassembly::new();
            for (n, (session, lane, body)) in bodies.into_iter().enumerate() {
                let _ = all.take(Duration::from_millis(n as u64 * 9), (session, lane), &body);
                prop_assert!(all.open.len() <= MAX_OPEN);
                prop_assert!(all.open.iter().all(|o| o.parts.concat().len() <= MAX_DATAGRAM));
            }
        }
    }
}
