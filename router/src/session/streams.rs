//! When TCP streams to a peer are opened: UDP stays unanswered, or the path in use has fallen silent. A stream is one more path;
//! whether it is used, and left for UDP again, is decided where paths are compared.

use std::net::SocketAddr;
use std::time::Duration;

use super::connection::SUSPECT_INTERVAL;
use super::dialling::Jitter;
use super::{Path, StreamId};

/// The first dial by UDP is unanswered for so long: TCP is tried.
pub const STREAM_AFTER: Duration = Duration::from_secs(1);
/// Streams of ours that may be open to one peer, and being opened.
pub const MAX_STREAMS: usize = 4;

/// Between two addresses of one round.
const STAGGER: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The lower id begins; the other end leaves it so much time.
const POLITE: Duration = Duration::from_millis(200);

/// How a peer is reached at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Directly, and it answers; or nobody needs it.
    Direct,
    /// By a path that has been in doubt since then.
    Doubtful(Duration),
    /// Through others.
    Relayed,
    /// Not at all.
    Not,
}

/// The streams that we open to one peer.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Vec<StreamId>,
    opening: Vec<SocketAddr>,
    /// How many may be open or being opened.
    most: usize,
    cursor: usize,
    rounds: u32,
    next: Duration,
}

impl Streams {
    /// Whether more are wanted, as the peer is reached now.
    pub(super) fn follow(&mut self, now: Duration, lower: bool, reach: Reach) {
        let (most, first) = match reach {
            Reach::Direct => (0, now),
            Reach::Doubtful(since) => (MAX_STREAMS, since + SUSPECT_INTERVAL),
            Reach::Relayed => (1, now + STREAM_AFTER),
            Reach::Not => (MAX_STREAMS, now + STREAM_AFTER),
        };
        if self.most == 0 && most > 0 {
            (self.cursor, self.rounds) = (0, 0);
            self.next = first + if lower { Duration::ZERO } else { POLITE };
        }
        self.most = most;
    }

    /// The address to open a stream to now.
    pub(super) fn due(
        &mut self,
        now: Duration,
        addresses: &[SocketAddr],
        jitter: Jitter,
    ) -> Option<SocketAddr> {
        if self.next().is_none_or(|at| now < at) {
            return None;
        }
        if addresses.is_empty() {
            self.next = now + STREAM_AFTER; // Perhaps one is known by then.
            return None;
        }
        let address = addresses.get(self.cursor).copied().filter(|a| !self.opening.contains(a));
        self.cursor += 1;
        self.next = now + STAGGER;
        if self.cursor >= addresses.len() {
            let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.rounds.min(8))).min(LONGEST_PAUSE);
            self.next = now + jitter.of(pause, self.rounds);
            (self.cursor, self.rounds) = (0, self.rounds.saturating_add(1));
        }
        self.opening.extend(address);
        address
    }

    /// When [`Self::due`] may have an address.
    pub(super) fn next(&self) -> Option<Duration> {
        (self.open.len() + self.opening.len() < self.most).then_some(self.next)
    }

    /// What came of it.
    pub(super) fn opened(&mut self, address: SocketAddr, stream: Option<StreamId>) {
        self.opening.retain(|a| *a != address);
        self.open.extend(stream);
    }

    /// A stream ended; whether it was one of these.
    pub(super) fn ended(&mut self, stream: StreamId) -> bool {
        let before = self.open.len();
        self.open.retain(|s| *s != stream);
        self.open.len() < before
    }

    /// As paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = Path> + Clone {
        self.open.iter().map(|stream| Path::Tcp(*stream))
    }
}

#[cfg(test)]
mod tests {
    use weft_api::id::HostId;

    use super::*;

    const JITTER: Jitter = Jitter { seed: 1, host: HostId([1; 8]) };
    const MS: Duration = Duration::from_millis(1);

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 6783).into()
    }

    #[test]
    fn nothing_is_opened_while_udp_answers_or_has_its_second() {
        let (mut streams, addresses) = (Streams::default(), [address(1)]);
        streams.follow(Duration::ZERO, true, Reach::Direct);
        assert_eq!((streams.next(), streams.due(99_000 * MS, &addresses, JITTER)), (None, None));
        streams.follow(100_000 * MS, true, Reach::Not);
        assert_eq!(streams.due(100_999 * MS, &addresses, JITTER), None);
        streams.follow(100_999 * MS, true, Reach::Not);
        assert_eq!(streams.due(101_000 * MS, &addresses, JITTER), Some(address(1)));
    }

    #[test]
    fn a_path_that_falls_silent_is_given_less_time() {
        let mut streams = Streams::default();
        streams.follow(5000 * MS, true, Reach::Doubtful(5000 * MS));
        assert_eq!(streams.due(5250 * MS, &[address(1)], JITTER), Some(address(1)));
    }

    #[test]
    fn every_address_has_its_turn_and_streams_are_bounded() {
        let (mut streams, addresses) = (Streams::default(), [address(1), address(2), address(3)]);
        let (mut now, mut tried) = (Duration::ZERO, Vec::new());
        streams.follow(now, false, Reach::Not);
        while let Some(at) = streams.next().filter(|_| tried.len() < 20) {
            assert!(at <= now + LONGEST_PAUSE * 5 / 4);
            now = at;
            if let Some(address) = streams.due(now, &addresses, JITTER) {
                tried.push(address);
                streams.opened(address, None);
            }
        }
        assert_eq!((&tried[..4], tried.len()), (&[address(1), address(2), address(3), address(1)][..], 20));
        for n in 0..MAX_STREAMS as u64 {
            streams.opened(address(1), Some(StreamId(n)));
        }
        assert_eq!(streams.next(), None);
        assert!(streams.ended(StreamId(2)) && !streams.ended(StreamId(2)));
        assert!(streams.next().is_some());
        assert_eq!(streams.paths().count(), MAX_STREAMS - 1);
    }
}
