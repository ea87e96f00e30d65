//! Whole meshes on virtual time: whatever is lost, cut or restarted, everybody knows the same in the end, soon and for few bytes.

mod hostile;
mod proof;
mod rotation;
mod tie;
mod tree;
mod world;

use std::sync::Arc;

use proptest::prelude::*;
use weft_api::fact::FactVersion;
use weft_api::id::MeshKey;
use weft_api::roster::RosterRecord;
use weft_api::sign::Signed;

use super::*;
use world::{MS, World, id};

const SEC: Duration = Duration::from_secs(1);
/// A mesh in which a host has a few neighbours, as in a large one.
const FEW: Limits = Limits { everybody: 8, choices: 4, neighbours: 16 };

/// Host 0 as it begins, with this roster and nothing else.
fn start(roster: Vec<Signed<RosterRecord>>) -> Start {
    Start {
        key: world::key(0),
        mesh_key: MeshKey(world::mesh_key().public()),
        boot: 1,
        successions: Vec::new(),
        roster,
        facts: Vec::new(),
        decisions: Vec::new(),
        hints: Vec::new(),
        limits: Limits::default(),
        seed: 1,
        notary: Arc::new(Signatures),
    }
}

/// Everybody but the first knows the first one's address only.
fn one_address(n: usize) -> Vec<usize> {
    if n == 0 { Vec::new() } else { vec![0] }
}

fn everybodys(n: usize) -> impl Fn(usize) -> Vec<usize> {
    move |me| (0..n).filter(|o| *o != me).collect()
}

#[test]
fn one_members_address_is_enough_to_learn_all() {
    for (n, limits) in [(20, Limits::default()), (60, FEW)] {
        let mut world = World::new(n, limits, 1, one_address);
        let took = world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
        println!("{n} hosts, one address known: {took:?}");
        world.run(10 * SEC);
        assert!(world.agree() && world.all_reachable());
        for host in &world.hosts {
            let known: Vec<_> = (0..n).filter(|o| !host.mesh.addresses(id(*o)).is_empty()).collect();
            assert_eq!(known.len(), n);
        }
    }
}

#[test]
fn a_change_reaches_everybody_about_once_and_costs_little() {
    for (n, limits, most_sent) in [(30, Limits::default(), 25.0), (60, FEW, 16.0)] {
        let mut world = World::new(n, limits, 1, everybodys(n));
        world.loss = 5;
        world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
        for change in 0..60 {
            world.say(change % n, &format!("warm {change}"));
            world.run(300 * MS);
        }
        world.until("all agree", 5 * SEC, World::agree);
        world.hosts.iter_mut().for_each(|h| (h.sent, h.pushed) = (0, 0));
        let (start, changes) = (world.now, 180);
        let mut slowest = Duration::ZERO;
        for change in 0..changes {
            world.say(change * 7 % n, &format!("change {change}"));
            let took = world.until("the change is known", 2 * SEC, World::agree);
            slowest = slowest.max(took);
            world.run((333 * MS).saturating_sub(took));
        }
        let seconds = (world.now - start).as_secs_f64();
        let copies = world.hosts.iter().map(|h| h.pushed).sum::<usize>() as f64 / ((n - 1) * changes) as f64;
        let sent = |h: &world::Host| h.sent as f64 * 8.0 / 1000.0 / seconds;
        let most = world.hosts.iter().map(sent).fold(0.0, f64::max);
        let mean = world.hosts.iter().map(sent).sum::<f64>() / n as f64;
        println!(
            "{n} hosts, 5 % loss, {:.1} changes/s: slowest {slowest:?}, {copies:.2} copies a host, {mean:.1} kbit/s a host, {most:.1} at most",
            changes as f64 / seconds
        );
        assert!(copies < 1.1, "{copies}");
        assert!(mean < most_sent, "{mean} kbit/s");
        let counts: Vec<_> = world.hosts.iter().filter(|h| !h.counts.is_empty()).map(|h| &h.counts).collect();
        assert!(counts.is_empty(), "{counts:?}");
    }
}

#[test]
fn a_death_is_known_everywhere_and_what_it_said_stays() {
    for (n, limits) in [(20, Limits::default()), (60, FEW)] {
        let mut world = World::new(n, limits, 3, everybodys(n));
        world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
        world.run(5 * SEC);
        for dead in [3, 11] {
            world.kill(dead);
            let took = world.until("the death is known", 6 * SEC, World::all_reachable);
            println!("{n} hosts: a death is known everywhere after {took:?}");
            assert!(world.alive().iter().all(|h| world.hosts[*h].mesh.facts().get(id(dead)).is_some()));
        }
        world.restart(3, true);
        let took = world.until("it is back", 10 * SEC, |w| w.agree() && w.all_reachable());
        println!("{n} hosts: back after {took:?}");
    }
}

#[test]
fn halves_of_a_mesh_change_apart_and_heal() {
    for (n, limits) in [(24, Limits::default()), (60, FEW)] {
        let mut world = World::new(n, limits, 5, everybodys(n));
        world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
        let half = n / 2;
        for a in 0..half {
            (half..n).for_each(|b| world.cut(a, b));
        }
        for change in 0..80 {
            world.say(change * 7 % n, &format!("apart {change}"));
            world.run(500 * MS);
        }
        let root = |w: &World, n: usize| w.hosts[n].mesh.sums.root();
        world.until("the halves agree", 10 * SEC, |w| {
            (1..half).all(|n| root(w, n) == root(w, 0)) && (half..n).all(|n| root(w, n) == root(w, half))
        });
        assert_ne!(root(&world, 0), root(&world, half));
        assert!(!world.hosts[0].mesh.ways().contains_key(&id(half)), "out of reach");
        assert!(world.hosts[0].mesh.facts().get(id(half)).is_some(), "but not gone");
        world.cut.clear();
        let took = world.until("healed", 5 * SEC, |w| w.agree() && w.all_reachable());
        println!("{n} hosts: two halves agree {took:?} after the cut is mended");
    }
}

#[test]
fn an_owner_jumps_past_what_others_have_of_an_earlier_life() {
    let mut world = World::new(6, Limits::default(), 1, everybodys(6));
    world.restart(2, true);
    world.restart(2, true);
    world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
    let before = world.hosts[0].mesh.facts().get(id(2)).unwrap().head.version;
    world.restart(2, false);
    world.until("heard again", 10 * SEC, |w| {
        let known = w.hosts[0].mesh.facts().get(id(2)).unwrap();
        known.head.version > before && known.record == w.hosts[2].mesh.facts().get(id(2)).unwrap().record
    });
    assert!(before > FactVersion { boot: 1, sequence: 1 });
}

#[test]
fn a_host_says_where_it_is_seen_now_but_not_at_every_word_of_one_member() {
    let mut world = World::new(4, Limits::default(), 1, everybodys(4));
    world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
    world.run(10 * SEC);
    let at = |port: u16| SocketAddr::from(([198, 51, 100, 1], port));
    let known = |w: &World, port| w.hosts[2].mesh.addresses(id(0)).contains(&at(port));
    let version = |w: &World| w.hosts[2].mesh.facts().get(id(0)).unwrap().head.version.sequence;
    world.event(0, Event::Seen(id(1), at(1)));
    world.until("it is known", SEC, |w| known(w, 1));
    world.event(0, Event::Seen(id(3), at(2)));
    world.until("both are known", SEC, |w| known(w, 1) && known(w, 2));
    let before = version(&world);
    for port in 3..203 {
        world.event(0, Event::Seen(id(1), at(port)));
        world.run(50 * MS);
    }
    let said = version(&world) - before;
    assert!((4..8).contains(&said), "{said} times in 10 s");
    world.until("the last one is known", 3 * SEC, |w| known(w, 202));
    assert!(known(&world, 2) && !known(&world, 1), "each member's last word counts");
}

#[test]
fn who_is_in_the_middle_is_the_way() {
    let mut world = World::new(3, Limits::default(), 1, everybodys(3));
    world.cut(0, 2);
    world.until("reachable", 10 * SEC, World::all_reachable);
    assert_eq!(world.hosts[0].routes, BTreeMap::from([(id(2), id(1))]));
    assert_eq!(world.hosts[2].routes, BTreeMap::from([(id(0), id(1))]));
    assert!(world.hosts[1].routes.is_empty());
    world.kill(1);
    world.run(6 * SEC);
    assert!(world.hosts[0].mesh.ways().is_empty() && world.hosts[0].routes.is_empty());
}

#[test]
fn a_removed_member_is_forgotten_everywhere() {
    let mut world = World::new(12, FEW, 1, everybodys(12));
    world.until("all agree", 30 * SEC, |w| w.agree() && w.all_reachable());
    let removed = world::member(4, 2, weft_api::roster::Standing::Removed);
    world.hosts[4].alive = false;
    world.event(0, Event::MadeRoster(vec![removed]));
    let gone = |w: &World| {
        w.alive().iter().all(|n| {
            let host = &w.hosts[*n];
            host.mesh.facts().get(id(4)).is_none() && !host.disk.contains_key(&RecordKey::Facts(id(4)))
        })
    };
    world.until("gone", 5 * SEC, gone);
    world.run(20 * SEC);
    assert!(gone(&world) && world.all_reachable());
}

#[derive(Clone, Debug)]
enum Step {
    Say(usize),
    Cut(usize, usize),
    Mend,
    Kill(usize),
    Restart(usize, bool),
    Run(u64),
}

fn step(n: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..n).prop_map(Step::Say),
        2 => (0..n, 0..n).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => Just(Step::Mend),
        1 => (0..n).prop_map(Step::Kill),
        1 => (0..n, any::<bool>()).prop_map(|(n, disk)| Step::Restart(n, disk)),
        4 => (0..4000u64).prop_map(Step::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_they_agree_in_the_end(
        n in 2usize..14, few: bool, seed: u64, loss in 0u8..25, steps in prop::collection::vec(step(14), 0..40),
    ) {
        let limits = if few { Limits { everybody: 4, choices: 3, neighbours: 8 } } else { Limits::default() };
        let mut world = World::new(n, limits, seed, one_address);
        world.loss = loss;
        for (count, step) in steps.into_iter().enumerate() {
            match step {
                Step::Say(h) if world.hosts[h % n].alive => world.say(h % n, &count.to_string()),
                Step::Cut(a, b) if a % n != b % n => world.cut(a % n, b % n),
                Step::Mend => world.cut.clear(),
                Step::Kill(h) if world.hosts[h % n].alive => world.kill(h % n),
                Step::Restart(h, disk) => {
                    if world.hosts[h % n].alive {
                        world.kill(h % n);
                        world.run(4 * SEC);
                    }
                    world.restart(h % n, disk);
                }
                Step::Run(ms) => world.run(Duration::from_millis(ms)),
                _ => {}
            }
        }
        world.cut.clear();
        for h in 0..n {
            if !world.hosts[h].alive {
                world.restart(h, true);
            }
        }
        world.until("all agree", 120 * SEC, |w| w.agree() && w.all_reachable());
        for (h, host) in world.hosts.iter().enumerate() {
            for (record, disk) in host.mesh.facts().records().map(|(o, s)| (s, &host.disk[&RecordKey::Facts(o)])) {
                prop_assert_eq!(AnyRecord::Facts(Arc::clone(record)).id(), disk.id(), "{} holds what it stored", h);
            }
        }
    }
}
