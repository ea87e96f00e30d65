//! One path and what it passes: sizes are found, left and found again.

use proptest::prelude::*;
use weft_api::id::HostId;

use super::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const RTT: Duration = Duration::from_millis(10);
/// A relay's share of a datagram.
const RELAY: u16 = 49;

fn v4() -> Path {
    Path::Udp(([192, 0, 2, 1], 6783).into())
}

/// One path and what it passes, in bytes of a datagram.
struct World {
    mtu: Mtu,
    now: Duration,
    sequence: u32,
    passes: u16,
    interface: Option<u16>,
    silent: bool,
    loss: u32,
    random: u32,
    asked: Vec<u16>,
    arrive: Vec<(Duration, u32)>,
}

impl World {
    fn new(path: Path, passes: u16) -> Self {
        let mtu = Mtu::new(path);
        Self {
            mtu,
            now: S,
            sequence: 0,
            passes,
            interface: Some(passes),
            silent: false,
            loss: 0,
            random: 1,
            asked: Vec::new(),
            arrive: Vec::new(),
        }
    }

    fn loses(&mut self) -> bool {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.silent || (self.random >> 16) % 100 < self.loss
    }

    /// Until `end`; answers come after a round trip.
    fn run(&mut self, end: Duration) {
        for _ in 0..100_000 {
            let next = self.mtu.next().unwrap();
            self.arrive.sort_unstable();
            if let Some((at, number)) =
                self.arrive.first().copied().filter(|(at, _)| *at <= next.max(self.now))
            {
                if at > end {
                    break;
                }
                self.arrive.remove(0);
                self.now = at;
                self.mtu.answered(self.now, number);
                continue;
            }
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            let Some(ask) = self.mtu.tick(self.now, Some(RTT), &mut self.sequence) else { continue };
            self.asked.push(ask.size);
            let number = |body: [u8; PROBE_LEN]| {
                let Some(SizeProbe::Question(answer)) = SizeProbe::read(&body) else { panic!() };
                let Some(SizeProbe::Answer(number)) = SizeProbe::read(&answer) else { panic!() };
                number
            };
            if self.interface.is_some_and(|most| ask.size > most) {
                self.mtu.too_big(ask.size, self.interface);
            } else if ask.size <= self.passes && !self.loses() {
                self.arrive.push((self.now + RTT, number(ask.full)));
            }
            if !self.loses() {
                self.arrive.push((self.now + RTT, number(ask.short)));
            }
        }
        self.now = end;
    }
}

#[test]
fn what_the_interface_takes_is_found_in_one_round_trip() {
    for (underlay, headers, path) in [
        (1500, 28, v4()),
        (1280, 28, v4()),
        (9000, 28, v4()),
        (1454, 28, v4()),
        (1500, 48, Path::Udp("[2001:db8::1]:6783".parse().unwrap())),
        (1500, 28, Path::Udp("[::ffff:192.0.2.1]:6783".parse().unwrap())),
    ] {
        let mut world = World::new(path, underlay - headers);
        world.run(S + RTT);
        assert_eq!(world.mtu.size(), underlay - headers, "{underlay} {path:?}");
        let asked = world.asked.len();
        world.run(500 * S);
        assert!(world.asked.len() <= asked + 1, "quiet until it is time");
        world.run(700 * S);
        assert!(world.asked.len() > asked, "and then again");
    }
}

#[test]
fn what_lies_beyond_the_interface_is_found_within_seconds() {
    for (interface, underlay) in [(1500, 1400), (9000, 1500), (9000, 1280), (1500, 1492), (9000, 4000)] {
        let mut world = World::new(v4(), underlay - 28);
        world.interface = Some(interface - 28);
        world.run(4 * S);
        assert_eq!(world.mtu.size(), underlay - 28);
    }
}

#[test]
fn a_relay_takes_its_share() {
    let mut world = World::new(Path::Relay(HostId([3; 8])), 1500 - 28 - RELAY);
    assert_eq!(world.mtu.size(), 1280 - 48 - RELAY);
    world.interface = None;
    world.run(5 * S);
    assert_eq!(world.mtu.size(), 1423);
}

#[test]
fn full_datagrams_that_get_lost_make_it_fall_and_search() {
    let mut world = World::new(v4(), 1472);
    world.run(5 * S);
    world.passes = 1372;
    world.run(10 * S);
    assert_eq!(world.mtu.size(), 1472, "nothing full was sent: nobody notices");
    world.mtu.full(world.now);
    world.run(11 * S);
    assert!(world.mtu.size() < 1472);
    world.run(13 * S);
    assert_eq!(world.mtu.size(), 1372);
    world.passes = 1472;
    world.run(80 * S);
    assert_eq!(world.mtu.size(), 1472, "a minute after a fall it is tried whether more passes");
}

#[test]
fn the_kernels_refusal_counts_at_once() {
    let mut world = World::new(v4(), 1472);
    world.run(5 * S);
    (world.passes, world.interface) = (1372, Some(1372));
    world.mtu.too_big(1472, Some(1372));
    assert_eq!((world.mtu.size(), world.mtu.is_settled()), (1252, false));
    world.run(5 * S + RTT);
    assert_eq!((world.mtu.size(), world.mtu.is_settled()), (1372, true));
}

#[test]
fn a_path_that_is_dead_says_nothing_of_its_size() {
    let mut world = World::new(v4(), 1472);
    world.run(5 * S);
    world.silent = true;
    for second in 5..60 {
        world.mtu.full(world.now);
        world.run(second * S);
    }
    assert_eq!(world.mtu.size(), 1472);
    assert!(world.asked.len() < 60, "and little is asked");
}

#[test]
fn tcp_takes_whole_records_and_asks_nothing() {
    let mut mtu = Mtu::new(Path::Tcp(super::super::StreamId(1)));
    assert_eq!((mtu.size(), mtu.next()), (MAX_DATAGRAM as u16, None));
    mtu.full(S);
    assert_eq!(mtu.tick(2 * S, None, &mut 0), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body: Vec<u8>, nine: [u8; PROBE_LEN]) {
        let _ = SizeProbe::read(&body);
        let _ = SizeProbe::read(&nine);
    }

    #[test]
    fn it_is_never_more_than_passes_for_long_and_never_below_the_floor(
        underlays in prop::collection::vec((1280u16..9300, any::<bool>()), 1..6),
        loss in 0u32..10, random: u32,
    ) {
        let mut world = World::new(v4(), 1472);
        (world.loss, world.random) = (loss, random);
        for (underlay, interface) in underlays {
            world.passes = underlay - 28;
            world.interface = interface.then_some(world.passes);
            if world.mtu.size() > world.passes && interface {
                world.mtu.too_big(world.mtu.size(), world.interface);
            }
            for _ in 0..80 {
                world.mtu.full(world.now);
                let end = world.now + 100 * MS;
                world.run(end);
                prop_assert!(world.mtu.size() >= 1252);
            }
            prop_assert!(world.mtu.size() <= world.passes);
        }
        prop_assert!(world.asked.len() < 2000);
    }
}
