//! Ten hosts over the models and over QUIC itself: whatever happened to them, in the end they have decided the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use weft_router::session::mtu::SEARCH_AGAIN;
use weft_sim::World;
use weft_sim::decided::Way;
use weft_sim::frames::Place;
use weft_sim::random::Random;
use weft_sim::underlay::Weather;

const SEC: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const HOSTS: usize = 10;
/// What is dead is known to be by then.
const NOTICED: Duration = Duration::from_secs(8);
/// Everybody knows everything within this, as in every random world.
const PATIENCE: Duration = Duration::from_secs(60);
/// Then everybody has looked for better paths for so long.
const REST: Duration = Duration::from_secs(75);
/// And has found out what those pass.
const SIZING: Duration = Duration::from_secs(10);

/// What happens to a world.
#[derive(Clone, Copy, Debug)]
enum Step {
    Run(u64),
    Frame(usize, usize),
    Broadcast(usize),
    Cut(usize, usize),
    OneWay(usize, usize),
    Split(usize),
    Mend,
    Kill(usize),
    Restart(usize),
    Move(usize),
    Rekey(usize),
}

/// A world, and what happens to it.
#[derive(Clone, Default, Debug)]
struct Plan {
    seed: u64,
    weather: Weather,
    /// Behind NATs.
    hidden: Vec<usize>,
    /// Between these no UDP passes.
    no_udp: Vec<(usize, usize)>,
    /// From the one to the other nothing passes, to the end.
    one_way: Vec<(usize, usize)>,
    /// Until sizes of datagrams that were lost by chance have been tried again.
    long: bool,
    steps: Vec<Step>,
}

fn place(host: usize) -> Place {
    Place { host, network: 0, nth: 0 }
}

fn apply(world: &mut World, step: Step) {
    match step {
        Step::Run(ms) => world.run(Duration::from_millis(ms)),
        Step::Frame(a, b) => world.send_frame(place(a), Some(place(b))),
        Step::Broadcast(a) => world.send_frame(place(a), None),
        Step::Cut(a, b) => {
            world.underlay.stop(a, b);
            world.underlay.stop(b, a);
        }
        Step::OneWay(a, b) => world.underlay.stop(a, b),
        Step::Split(at) => world.underlay.split(at),
        Step::Mend => world.underlay.mend(),
        Step::Kill(a) => world.kill(a),
        Step::Restart(a) => world.restart(a),
        Step::Move(a) => world.relocate(a),
        Step::Rekey(a) => world.rekey(a),
    }
}

/// How hosts stand that have not settled.
fn standing(world: &World) -> String {
    let lines = world.alive().into_iter().map(|n| {
        let host = &world.hosts[n];
        format!("{n}: {:?}, {:?}\n", world.decided(n).ways, host.counts)
    });
    lines.collect()
}

/// A world in which everything has happened, that has come to rest, and in which every frame then came exactly once.
fn run(plan: &Plan, quinn: bool) -> Result<World, String> {
    let mut world = World::new(HOSTS, 1, plan.weather, plan.seed);
    if quinn {
        world.use_quinn();
    }
    plan.hidden.iter().for_each(|n| world.underlay.hide(*n));
    plan.no_udp.iter().for_each(|(a, b)| world.underlay.block_udp(*a, *b));
    plan.one_way.iter().for_each(|(a, b)| world.underlay.stop(*a, *b));
    world.begin();
    (0..HOSTS).for_each(|host| world.set_endpoint(place(host), true));
    world.run(5 * SEC);
    for step in &plan.steps {
        apply(&mut world, *step);
    }
    world.underlay.mend();
    plan.one_way.iter().for_each(|(a, b)| world.underlay.stop(*a, *b));
    world.underlay.weather = world.underlay.weather.calm();
    (0..HOSTS)
        .filter(|n| !world.alive().contains(n))
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|n| world.restart(n));
    while let Some(lost) = world.lost() {
        world.guide(lost);
    }
    world.run(NOTICED);
    let settled = |w: &World| w.agree() && w.all_reachable() && w.all_joined() && w.same_roots();
    let took = world.until(PATIENCE, settled);
    let took = took.ok_or_else(|| format!("not settled after {PATIENCE:?}:\n{}", standing(&world)))?;
    world.run(if plan.long { REST + SEARCH_AGAIN } else { REST });
    let end = world.now + SIZING;
    while world.now < end {
        world.fill_paths();
        world.run(SEC);
    }
    world.until(PATIENCE, settled).ok_or("it does not stay settled")?;
    let first = world.sent.len();
    for a in 0..HOSTS {
        world.send_frame(place(a), None);
        (0..HOSTS).filter(|b| *b != a).for_each(|b| world.send_frame(place(a), Some(place(b))));
        world.run(20 * MS);
    }
    world.run(SEC);
    for (number, sent) in world.sent.iter().enumerate().skip(first) {
        let should: BTreeSet<usize> = match sent.to {
            Some(to) => [to.host].into(),
            None => (0..HOSTS).filter(|n| *n != sent.from.host).collect(),
        };
        let got: BTreeSet<usize> = sent.got.keys().copied().collect();
        if got != should || sent.got.values().any(|times| *times != 1) {
            let (from, to) = (sent.from.host, sent.to.map(|to| to.host));
            return Err(format!(
                "frame {number} of {from} to {to:?} came to {:?}\n{}",
                sent.got,
                standing(&world)
            ));
        }
    }
    if !world.broken.is_empty() {
        return Err(format!("{:#?}", world.broken));
    }
    println!("  {} settled in {took:?}, {} events", if quinn { "QUIC" } else { "models" }, world.events());
    Ok(world)
}

/// Runs a plan over both; what they have decided is the same. The world over QUIC.
fn same(name: &str, plan: &Plan) -> World {
    let start = Instant::now();
    println!("{name}: WEFT_SEED={}", plan.seed);
    let worlds = [false, true].map(|quinn| {
        run(plan, quinn).unwrap_or_else(|why| panic!("{name}, QUIC itself {quinn}: {why}\n{plan:#?}"))
    });
    let [models, quinn] = worlds;
    for n in 0..HOSTS {
        let (mut model, real) = (models.decided(n), quinn.decided(n));
        // A size that was lost thrice in a row, by chance, is given up for ten minutes.
        if plan.weather.loss > 0 && !plan.long {
            assert!(model.sizes.keys().eq(real.sizes.keys()));
            model.sizes.clone_from(&real.sizes);
        }
        assert_eq!(model, real, "host {n} of {name}, as a model and with QUIC itself: {plan:#?}");
        assert_eq!(real.members.len(), HOSTS);
        assert_eq!(real.facts.len(), HOSTS);
    }
    println!("  {:?} of real time", start.elapsed());
    quinn
}

fn rough(mtu: usize) -> Weather {
    Weather { loss: 80, twice: 30, delay: 20 * MS, jitter: 30 * MS, mtu }
}

#[test]
fn a_quiet_world() {
    let world = same("quiet", &Plan { seed: 1, ..Plan::default() });
    for n in 0..HOSTS {
        let decided = world.decided(n);
        assert!(decided.ways.values().all(|way| *way == Way::Udp) && decided.ways.len() == HOSTS - 1);
        assert!(decided.sizes.values().all(|size| *size == 1472), "{:?}", decided.sizes);
        assert_eq!(decided.neighbours.len(), HOSTS - 1);
    }
}

#[test]
fn loss_doubling_and_reordering_while_keys_change() {
    let frames = |from: usize| (0..HOSTS).filter(move |to| *to != from).map(move |to| Step::Frame(from, to));
    let mut steps = vec![Step::Run(3000)];
    for n in 0..HOSTS {
        steps.extend([Step::Rekey(n), Step::Run(200), Step::Broadcast(n), Step::Run(800)]);
        steps.extend(frames(n));
    }
    same("rough", &Plan { seed: 2, weather: rough(1500), steps, long: true, ..Plan::default() });
}

#[test]
fn links_are_cut_and_mended() {
    let steps = vec![
        Step::Cut(2, 7),
        Step::Run(6000),
        Step::Frame(2, 7),
        Step::Split(5),
        Step::Run(12_000),
        Step::OneWay(8, 9),
        Step::Broadcast(1),
        Step::Mend,
        Step::Run(500),
        Step::Cut(0, 1),
        Step::Run(9000),
    ];
    same(
        "cut",
        &Plan { seed: 3, weather: Weather { loss: 20, ..Weather::default() }, steps, ..Plan::default() },
    );
}

#[test]
fn nats_and_a_host_that_roams() {
    let steps = vec![
        Step::Run(2000),
        Step::Move(1),
        Step::Frame(3, 1),
        Step::Run(5000),
        Step::Move(3),
        Step::Broadcast(3),
        Step::Run(4000),
    ];
    let weather = Weather { twice: 20, jitter: 10 * MS, ..Weather::default() };
    same("NATs", &Plan { seed: 4, weather, hidden: vec![3, 6], steps, ..Plan::default() });
}

#[test]
fn one_way_filters_and_udp_that_does_not_pass() {
    let mut no_udp: Vec<_> = (0..HOSTS).filter(|n| *n != 8).map(|n| (8, n)).collect();
    no_udp.push((1, 4));
    let weather = Weather { mtu: 1280, ..Weather::default() };
    let steps = vec![Step::Frame(2, 5), Step::Run(8000), Step::Frame(5, 2), Step::Run(1000)];
    let plan = Plan { seed: 5, weather, no_udp, one_way: vec![(2, 5), (0, 7)], steps, ..Plan::default() };
    let world = same("filters", &plan);
    assert_eq!(world.decided(2).ways[&5], Way::Relayed);
    assert_eq!(world.decided(7).ways[&0], Way::Relayed);
    assert_eq!(world.decided(4).ways[&1], Way::Tcp);
    assert!(world.decided(8).ways.values().all(|way| *way == Way::Tcp));
    assert_eq!(world.decided(3).sizes[&4], 1252);
}

#[test]
fn hosts_die_and_start_again() {
    let steps = vec![
        Step::Kill(0),
        Step::Run(6000),
        Step::Restart(4),
        Step::Frame(3, 4),
        Step::Run(300),
        Step::Restart(0),
        Step::Run(1000),
        Step::Kill(9),
        Step::Restart(4),
        Step::Run(2000),
    ];
    let plan = Plan { seed: 6, weather: rough(9000), long: true, steps, ..Plan::default() };
    let world = same("restarts", &plan);
    assert!(world.decided(2).sizes.values().all(|size| *size == 8972), "{:?}", world.decided(2).sizes);
}

/// A world of this seed, whatever it be.
fn random(seed: u64) -> Plan {
    let mut random = Random::new(seed);
    let weather = Weather {
        loss: [0, 20, 100][random.below(3)],
        twice: random.below(50) as u32,
        delay: (1 + random.below(50) as u32) * MS,
        jitter: random.below(40) as u32 * MS,
        mtu: [1280, 1500, 9000][random.below(3)],
    };
    let two = |random: &mut Random| {
        let a = random.below(HOSTS);
        (a, (a + 1 + random.below(HOSTS - 1)) % HOSTS)
    };
    let hidden = (0..random.below(3)).map(|_| 1 + random.below(HOSTS - 1)).collect();
    let no_udp = (0..random.below(4)).map(|_| two(&mut random)).collect();
    let one_way = (0..random.below(3)).map(|_| two(&mut random)).collect();
    let mut steps = Vec::new();
    for _ in 0..random.below(25) {
        let (a, b) = two(&mut random);
        steps.push(match random.below(12) {
            0 | 1 => Step::Frame(a, b),
            2 => Step::Broadcast(a),
            3 | 4 => Step::Cut(a, b),
            5 => Step::OneWay(a, b),
            6 => Step::Split(1 + random.below(HOSTS - 1)),
            7 => Step::Mend,
            8 => Step::Kill(a),
            9 => Step::Restart(a),
            10 => Step::Move(a),
            _ => Step::Rekey(a),
        });
        steps.push(Step::Run(random.below(4000) as u64));
    }
    Plan { seed, weather, hidden, no_udp, one_way, long: false, steps }
}

/// `WEFT_SEED` says which world comes first, `WEFT_WORLDS` how many come.
#[test]
fn random_worlds() {
    let number = |name: &str, otherwise| std::env::var(name).ok().map_or(otherwise, |n| n.parse().unwrap());
    let first = number("WEFT_SEED", 1000);
    for seed in first..first + number("WEFT_WORLDS", 6) {
        same("random", &random(seed));
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let plan = random(7);
    let [one, other] = [(); 2].map(|()| run(&plan, true).unwrap());
    assert_eq!((one.events(), one.traffic.0), (other.events(), other.traffic.0));
}
