//! Random worlds: whatever happened, nothing came twice or to the wrong host, and in the end everybody knows everything and is reached.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use weft_sim::World;
use weft_sim::frames::Place;
use weft_sim::underlay::Weather;

const SEC: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const NETWORKS: usize = 2;
/// After the last disturbance everybody must know everything within this: the longest pause of dialling, and the dial itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is dead is known to be by then, at one end at least, which then says so or dials anew.
const NOTICED: Duration = Duration::from_secs(4);

/// The same worlds each time, unless `WEFT_SEED` says others.
fn seed() -> u64 {
    let seed = std::env::var("WEFT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    seed
}

/// So many worlds, unless `WEFT_WORLDS` says how many.
fn worlds() -> u32 {
    std::env::var("WEFT_WORLDS").ok().and_then(|worlds| worlds.parse().ok()).unwrap_or(200)
}

/// What happens to a world.
#[derive(Clone, Debug)]
enum Step {
    Run(u64),
    Start(usize, u8),
    Stop(usize, u8),
    Frame(usize, usize),
    Broadcast(usize),
    Cut(usize, usize),
    OneWay(usize, usize),
    Split(usize),
    Mend,
    Kill(usize),
    Restart(usize),
    Move(usize),
    Rotate,
}

fn step() -> impl Strategy<Value = Step> {
    let host = || 0..30usize;
    prop_oneof![
        6 => (0..4000u64).prop_map(Step::Run),
        3 => (host(), 0..3u8).prop_map(|(h, n)| Step::Start(h, n)),
        1 => (host(), 0..3u8).prop_map(|(h, n)| Step::Stop(h, n)),
        4 => (host(), host()).prop_map(|(a, b)| Step::Frame(a, b)),
        2 => host().prop_map(Step::Broadcast),
        2 => (host(), host()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => (host(), host()).prop_map(|(a, b)| Step::OneWay(a, b)),
        1 => host().prop_map(Step::Split),
        1 => Just(Step::Mend),
        1 => host().prop_map(Step::Kill),
        1 => host().prop_map(Step::Restart),
        1 => host().prop_map(Step::Move),
        1 => Just(Step::Rotate),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    (0..150u32, 0..50u32, 1..60u64, 0..40u64, prop_oneof![Just(1280usize), Just(1500), Just(9000)]).prop_map(
        |(loss, twice, delay, jitter, mtu)| Weather {
            loss,
            twice,
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
            mtu,
        },
    )
}

fn place(world: &World, host: usize, nth: u8) -> Place {
    Place { host: host % world.hosts.len(), network: usize::from(nth) % NETWORKS, nth }
}

fn apply(world: &mut World, step: &Step) {
    let n = world.hosts.len();
    match *step {
        Step::Run(ms) => world.run(Duration::from_millis(ms)),
        Step::Start(host, nth) => world.set_endpoint(place(world, host, nth), true),
        Step::Stop(host, nth) => world.set_endpoint(place(world, host, nth), false),
        Step::Frame(a, b) => {
            let from = world.hosts[a % n].endpoints.first().copied();
            let to =
                world.hosts[b % n].endpoints.iter().find(|p| from.is_some_and(|f| f.network == p.network));
            if let (Some(from), Some(to)) = (from, to.copied()) {
                world.send_frame(from, Some(to));
            }
        }
        Step::Broadcast(a) => {
            if let Some(from) = world.hosts[a % n].endpoints.first().copied() {
                world.send_frame(from, None);
            }
        }
        Step::Cut(a, b) => {
            world.underlay.stop(a % n, b % n);
            world.underlay.stop(b % n, a % n);
        }
        Step::OneWay(a, b) => world.underlay.stop(a % n, b % n),
        Step::Split(at) => {
            for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))) {
                if (a <= at % n) != (b <= at % n) {
                    world.underlay.stop(a, b);
                }
            }
        }
        Step::Mend => world.underlay.mend(),
        Step::Kill(a) => world.kill(a % n),
        Step::Restart(a) => world.restart(a % n),
        Step::Move(a) => world.relocate(a % n),
        Step::Rotate => world.rotate(),
    }
}

/// How a world stands, for a person.
fn standing(world: &World) -> String {
    let mut text = String::new();
    for n in world.alive() {
        let host = &world.hosts[n];
        let line = format!(
            "{n}: {} ways, {} facts, {:?}",
            host.mesh.ways().len(),
            host.mesh.facts().records().count(),
            host.counts
        );
        writeln!(text, "{line}").unwrap();
    }
    text
}

/// The disturbances are over: everybody comes to know everything, and every frame then arrives exactly once.
fn settles(world: &mut World) -> Result<Duration, TestCaseError> {
    world.underlay.weather = world.underlay.weather.calm();
    for n in 0..world.hosts.len() {
        if !world.hosts[n].alive {
            world.restart(n);
        }
    }
    // One of those that no address leads to is told where another is; it brings the others that it can find.
    while let Some(lost) = world.lost() {
        world.guide(lost);
    }
    world.run(NOTICED);
    let settled = |w: &World| w.agree() && w.one_roster() && w.all_reachable() && w.all_joined();
    let took = world.until(PATIENCE, settled);
    let took = took.ok_or_else(|| {
        let (agree, reach, joined) = (world.agree(), world.all_reachable(), world.all_joined());
        let roster = world.one_roster();
        TestCaseError::fail(format!(
            "after {PATIENCE:?}: agree {agree}, one roster {roster}, reach {reach}, joined {joined}\n{}",
            standing(world)
        ))
    })?;
    world.run(2 * SEC);
    let first = world.sent.len();
    let places: Vec<Place> = world.hosts.iter().flat_map(|h| h.endpoints.iter().copied()).collect();
    for (at, from) in places.iter().enumerate() {
        world.send_frame(*from, None);
        for to in places.iter().cycle().skip(at + 1).take(5.min(places.len())) {
            if to.network == from.network && to.host != from.host {
                world.send_frame(*from, Some(*to));
            }
        }
        world.run(20 * MS);
    }
    world.run(SEC);
    for (number, sent) in world.sent.iter().enumerate().skip(first) {
        let should: Vec<usize> = match sent.to {
            Some(to) => vec![to.host],
            None => (0..world.hosts.len()).filter(|n| *n != sent.from.host).collect(),
        };
        let got: Vec<usize> = sent.got.keys().copied().collect();
        prop_assert_eq!(
            got,
            should,
            "frame {} {:?} -> {:?}\n{}",
            number,
            sent.from,
            sent.to,
            standing(world)
        );
    }
    prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
    Ok(took)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: worlds(), max_shrink_iters: 100, failure_persistence: None, rng_seed: RngSeed::Fixed(seed()), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_frames_and_facts_are_right(
        hosts in prop_oneof![6 => 2usize..=10, 2 => 11usize..=20, 1 => 21usize..=30], seed: u64, weather in weather(), hidden in prop::collection::vec(1usize..30, 0..4),
        blocked in prop::collection::vec((0usize..30, prop::option::of(0usize..30)), 0..3), steps in prop::collection::vec(step(), 0..60),
        newcomers: bool,
    ) {
        let mut world = World::new(hosts, NETWORKS, weather, seed);
        for n in hidden.into_iter().filter(|n| *n < hosts) {
            world.underlay.hide(n);
        }
        for (a, b) in blocked {
            let others = (0..hosts).filter(|other| b.is_none_or(|b| b % hosts == *other));
            others.for_each(|other| world.underlay.block_udp(a % hosts, other));
        }
        if newcomers {
            world.make_newcomers();
        }
        world.begin();
        for host in 0..hosts {
            world.set_endpoint(Place { host, network: 0, nth: 0 }, true);
        }
        world.run(5 * SEC);
        for step in &steps {
            apply(&mut world, step);
            prop_assert!(world.broken.is_empty(), "{:?}", world.broken);
        }
        world.underlay.mend();
        settles(&mut world)?;
    }
}

#[test]
fn a_quiet_world_settles_at_once() {
    for (hosts, hidden) in [(2, 0), (3, 0), (8, 0), (8, 1), (4, 2), (30, 0)] {
        let start = std::time::Instant::now();
        let mut world = World::new(hosts, NETWORKS, Weather::default(), 1);
        (1..=hidden).for_each(|n| world.underlay.hide(n));
        world.begin();
        for host in 0..hosts {
            world.set_endpoint(Place { host, network: 0, nth: 0 }, true);
        }
        let took = settles(&mut world).map_err(|e| e.to_string());
        println!("{hosts} hosts, {hidden} behind NATs: {took:?}, {:?} of real time", start.elapsed());
        took.unwrap();
    }
}

/// Host 0 has admitted both, and is away: the later one knows the other, which has never heard of it.
#[test]
fn one_members_address_is_enough_for_who_was_never_heard_of() {
    for rotate in [false, true] {
        let mut world = World::new(3, NETWORKS, Weather::default(), 1);
        world.make_newcomers();
        for away in [1, 2] {
            world.underlay.stop(0, away);
            world.underlay.stop(away, 0);
        }
        world.begin();
        let met = world.until(SEC, |w| w.has_session(1, 2) && w.has_session(2, 1));
        assert!(met.is_some(), "{}", standing(&world));
        if rotate {
            world.rotate();
        }
        world.run(10 * SEC);
        world.underlay.mend();
        settles(&mut world).map_err(|e| e.to_string()).unwrap();
    }
}
