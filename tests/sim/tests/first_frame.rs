//! A first frame to a host without a session: it waits for the session, and is there within three round trips of its path.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use weft_router::mesh::Limits;
use weft_sim::World;
use weft_sim::frames::Place;
use weft_sim::underlay::Weather;

const SEC: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const HOSTS: usize = 12;
/// Few neighbours, so that most hosts have no session with each other.
const FEW: Limits = Limits { everybody: 4, choices: 2, neighbours: 8 };
/// The clock of a host is no finer than a millisecond, and a frame meets it at both ends and in between.
const CLOCK: Duration = Duration::from_millis(4);

fn place(host: usize) -> Place {
    Place { host, network: 0, nth: 0 }
}

/// A mesh that has come to rest, in which nobody has sent a frame.
fn world(delay: Duration, seed: u64) -> World {
    let weather = Weather { delay, ..Weather::default() };
    let mut world = World::with_limits(HOSTS, 1, weather, seed, FEW);
    world.begin();
    (0..HOSTS).for_each(|host| world.set_endpoint(place(host), true));
    world.until(60 * SEC, |w| w.agree() && w.all_reachable()).expect("a mesh");
    // What begins with a mesh ends when nothing needs it.
    world.run(330 * SEC);
    world
}

/// Those that have no session.
fn strangers(world: &World) -> Vec<(usize, usize)> {
    let pairs = (0..HOSTS).flat_map(|a| (0..HOSTS).map(move |b| (a, b)));
    pairs.filter(|(a, b)| a != b && !world.has_session(*a, *b)).collect()
}

/// How long a frame takes from the one to the other, and the round trip of the path that carried it.
fn first_frame(world: &mut World, a: usize, b: usize) -> (Duration, Duration) {
    let (number, start) = (world.sent.len(), world.now);
    for _ in 0..3 {
        world.send_frame(place(a), Some(place(b)));
    }
    while world.sent[number].got.is_empty() && world.now < start + 5 * SEC {
        world.run(MS);
    }
    let took = world.now - start;
    world.run(SEC);
    for sent in &world.sent[number..] {
        assert_eq!(sent.got.get(&b), Some(&1), "{a} -> {b} after {took:?}: {:?}", world.hosts[a].counts);
    }
    assert!(world.broken.is_empty(), "{:?}", world.broken);
    (took, world.rtt(a, b).unwrap())
}

#[test]
fn by_an_address_that_is_known() {
    for (delay, seed) in [(5 * MS, 1), (40 * MS, 2)] {
        let mut world = world(delay, seed);
        let mut measured = 0;
        for (a, b) in strangers(&world) {
            if world.has_session(a, b) {
                continue;
            }
            let (took, rtt) = first_frame(&mut world, a, b);
            assert!(took <= 6 * delay + CLOCK, "{a} -> {b}: {took:?} at a round trip of {rtt:?}");
            measured += 1;
        }
        println!("{measured} first frames, each within three times {:?}", 2 * delay);
        assert!(measured >= 10);
    }
}

#[test]
fn through_a_neighbour_where_no_address_leads() {
    for (delay, seed) in [(5 * MS, 3), (40 * MS, 4)] {
        let mut world = world(delay, seed);
        let (mut measured, mut slowest) = (0, 0.0f64);
        for (a, b) in strangers(&world) {
            world.underlay.stop(a, b);
            world.underlay.stop(b, a);
        }
        for (a, b) in strangers(&world) {
            if world.has_session(a, b) {
                continue;
            }
            let (took, rtt) = first_frame(&mut world, a, b);
            assert!(rtt >= 4 * delay, "{a} -> {b} goes by a neighbour: {rtt:?}");
            assert!(took <= 3 * rtt + CLOCK, "{a} -> {b}: {took:?} at a round trip of {rtt:?}");
            slowest = slowest.max(took.as_secs_f64() / rtt.as_secs_f64());
            measured += 1;
        }
        println!("{measured} first frames through neighbours, the slowest after {slowest:.2} round trips");
        assert!(measured >= 10);
    }
}
