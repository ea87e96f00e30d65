//! Where UDP does not get through TCP does, within limits, and UDP again when it can; keys outlive both changes.

use super::*;
use world::{Arrival, MS, World, id};

/// UDP is stopped, silence is believed, a stream is opened and used.
const TAKEN_OVER: Duration = Duration::from_millis(3500);
/// UDP passes again, and is used again.
const FOUND_AGAIN: Duration = Duration::from_secs(5);
/// TCP's least timeout (Linux).
const RETRANSMIT: Duration = Duration::from_millis(200);

impl World {
    /// Opens a stream if the other machine lets it in.
    pub(super) fn open_stream(&mut self, n: usize, peer: HostId, address: std::net::SocketAddr) {
        let there =
            (0..self.hosts.len()).find(|to| self.addresses[*to] == address && self.nats[*to].is_none());
        let reaches = |to: &usize| {
            let way = [(n, *to), (*to, n)];
            self.hosts[*to].alive && way.iter().all(|w| !self.cut.contains(w) && !self.blocked.contains(w))
        };
        let (delay, stream) = match there.filter(reaches) {
            Some(to) => {
                self.streams.push(Some((n, to)));
                (4 * MS, Some(StreamId(self.streams.len() as u64)))
            }
            None => (3000 * MS, None),
        };
        self.later(delay, n, Remote::Udp(address), Arrival::Opened { peer, address, stream });
    }

    /// Nothing of a stream is lost or overtakes: what the wire loses is sent again, and all behind it waits.
    pub(super) fn record(&mut self, from: usize, stream: StreamId, arrival: Arrival) {
        let Some((a, b)) = self.streams[stream.0 as usize - 1] else { return };
        if self.cut.contains(&(a.min(b), a.max(b))) {
            return;
        }
        let to = a + b - from;
        let mut delay = 2 * MS;
        while self.chance(self.loss_between(from, to)) {
            delay += RETRANSMIT;
        }
        let last = self.arrived.entry((stream, to)).or_default();
        *last = (*last).max(self.now + delay);
        let delay = *last - self.now;
        self.later(delay, to, Remote::Tcp(stream), arrival);
    }

    /// A machine is off: the others are told.
    pub(super) fn end_streams(&mut self, n: usize) {
        for at in 0..self.streams.len() {
            let Some((a, b)) = self.streams[at].filter(|(a, b)| [*a, *b].contains(&n)) else { continue };
            self.streams[at] = None;
            let stream = StreamId(at as u64 + 1);
            self.later(2 * MS, a + b - n, Remote::Tcp(stream), Arrival::Ended(stream));
        }
    }

    fn assert_by(&self, is_it: impl Fn(Path) -> bool) {
        for (of, peer) in [(0, 1), (1, 0)] {
            let path = self.view(of, peer).path;
            assert!(path.is_some_and(&is_it), "{of}: {path:?} at {:?}", self.now);
        }
    }
}

fn by_tcp(path: Path) -> bool {
    matches!(path, Path::Tcp(_))
}

fn by_udp(path: Path) -> bool {
    matches!(path, Path::Udp(_))
}

#[test]
fn a_session_moves_to_tcp_and_back_without_a_handshake() {
    let mut world = World::new(2, 0, 3);
    world.start_all();
    world.run(5000 * MS);
    world.assert_by(by_udp);
    let wires = world.wires.len();
    for _ in 0..3 {
        world.no_udp.insert((0, 1));
        let mut gap = Duration::ZERO;
        for _ in 0..300 {
            world.run(20 * MS);
            gap = gap.max(world.silence(0, 1)).max(world.silence(1, 0));
        }
        assert!(gap < TAKEN_OVER, "{gap:?}");
        world.assert_by(by_tcp);
        world.assert_settled();
        world.run(60_000 * MS);
        world.assert_by(by_tcp);
        world.no_udp.clear();
        world.run(FOUND_AGAIN);
        world.assert_by(by_udp);
        world.assert_settled();
    }
    assert_eq!(world.wires.len(), wires);
    assert!(world.streams.len() <= 3 * 2 * MAX_STREAMS, "{}", world.streams.len());
}

#[test]
fn hosts_without_udp_find_each_other() {
    let mut world = World::new(2, 0, 3);
    world.no_udp.insert((0, 1));
    world.start_all();
    world.run(STREAM_AFTER + 500 * MS);
    world.assert_by(by_tcp);
    world.run(3000 * MS);
    world.assert_settled();
    world.no_udp.clear();
    world.run(FOUND_AGAIN);
    world.assert_by(by_udp);
    world.assert_settled();
}

#[test]
fn one_open_direction_is_enough() {
    for hidden in [0, 1] {
        let mut world = World::new(2, 0, 3);
        world.no_udp.insert((0, 1));
        world.hide(hidden);
        world.start_all();
        world.run(4000 * MS);
        world.assert_by(by_tcp);
        world.assert_settled();
    }
}

/// Whichever end can open the stream: it is the other that may have to choose it.
#[test]
fn one_open_direction_is_enough_when_a_relay_was_first() {
    for hidden in [0, 1] {
        for seed in 0..20 {
            let mut world = World::new(3, 0, seed);
            world.hide(hidden);
            world.start_all();
            world.run(6000 * MS);
            world.assert_by(by_udp);
            world.no_udp.insert((0, 1));
            world.run(5000 * MS);
            world.assert_by(by_tcp);
            world.assert_settled();
            world.run(60_000 * MS);
            world.assert_by(by_tcp);
        }
    }
}

#[test]
fn the_death_of_a_stream_ends_no_session() {
    let mut world = World::new(2, 0, 3);
    world.start_all();
    world.run(3000 * MS);
    world.no_udp.insert((0, 1));
    world.run(6000 * MS);
    let wires = world.wires.len();
    for _ in 0..5 {
        for at in 0..world.streams.len() {
            if world.streams[at].take().is_some() {
                let stream = StreamId(at as u64 + 1);
                (0..2).for_each(|n| world.event(n, Event::StreamEnded(stream)));
            }
        }
        let mut gap = Duration::ZERO;
        for _ in 0..250 {
            world.run(20 * MS);
            gap = gap.max(world.silence(0, 1)).max(world.silence(1, 0));
        }
        assert!(gap < 1000 * MS, "{gap:?}");
        world.assert_by(by_tcp);
        world.assert_settled();
    }
    assert_eq!(world.wires.len(), wires);
}

#[test]
fn a_restart_without_udp_is_followed() {
    let mut world = World::new(2, 0, 3);
    world.no_udp.insert((0, 1));
    world.start_all();
    world.run(4000 * MS);
    world.kill(1);
    world.run(5000 * MS);
    assert!(!world.hosts[0].up.contains(&id(1)));
    world.restart(1);
    world.run(4000 * MS);
    world.assert_by(by_tcp);
    world.assert_settled();
}

#[test]
fn a_dead_host_is_not_dialled_without_end() {
    let mut world = World::new(2, 0, 3);
    world.start_all();
    world.run(3000 * MS);
    world.kill(1);
    let before = world.sequence;
    world.run(60_000 * MS);
    let opened = world.streams.len();
    assert_eq!(opened, 0, "nobody is there");
    assert!(world.sequence - before < 5000, "{} events in a minute", world.sequence - before);
}
