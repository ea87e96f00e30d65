//! Session machines on a model wire and virtual time: whatever is lost, restarted or dialled at once, they agree in the end.

mod keys;
mod need;
mod rekey;
mod strangers;
mod streams;
mod topologies;
mod underlay;
mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use world::{CIPHER, MS, Wire, World, id, path};

/// So many cases of a property, unless `PROPTEST_CASES` says how many.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

#[test]
fn two_that_dial_each_other_keep_the_connection_of_the_lower_id() {
    let mut world = World::new(2, 0, 7);
    world.start(0);
    world.start(1);
    world.run(2000 * MS);
    world.assert_settled();
    assert_eq!(world.wires.len(), 2, "both dialled");
    let kept = world.wires.iter().find(|w| w.open).unwrap();
    assert_eq!(kept.ends[0].0, 0, "dialled by the lower id");
    world.run(20_000 * MS);
    world.assert_settled();
    assert_eq!(world.wires.len(), 2, "and nobody dials again");
    for (of, peer) in [(0, 1), (1, 0)] {
        let view = world.view(of, peer);
        assert!(view.rtt.is_some_and(|rtt| rtt >= 4 * MS && rtt < 20 * MS), "{view:?}");
        assert_eq!(view.state, LinkState::Up);
    }
    assert_eq!(world.hosts[0].opens.len(), 1, "keys of the other are erased");
}

#[test]
fn a_restarted_host_is_back_at_once_and_its_old_session_is_gone() {
    let mut world = World::new(3, 0, 3);
    (0..3).for_each(|n| world.start(n));
    world.run(5000 * MS);
    world.assert_settled();
    for n in 0..3 {
        world.kill(n);
        world.run(500 * MS);
        world.restart(n);
        world.run(400 * MS);
        for other in (0..3).filter(|o| *o != n) {
            for pair in [(n, other), (other, n)] {
                let age = world.now - world.frames[&pair];
                assert!(age < 50 * MS, "{pair:?}: no frame for {age:?}");
            }
        }
        world.run(3000 * MS);
        world.assert_settled();
    }
}

#[test]
fn the_dead_are_noticed_in_time_and_dialled_with_patience() {
    let mut world = World::new(2, 0, 3);
    (0..2).for_each(|n| world.start(n));
    world.run(KEYS_LINGER + 5000 * MS);
    world.kill(1);
    world.run(3200 * MS - PROBE_INTERVAL);
    assert!(world.hosts[0].up.contains(&id(1)));
    world.run(400 * MS + PROBE_INTERVAL);
    assert!(!world.hosts[0].up.contains(&id(1)), "down after 3.5 s");
    assert_eq!(world.hosts[0].opens.len(), 0, "its keys are erased");
    let before = world.hosts[0].dials;
    world.run(120_000 * MS);
    let dials = world.hosts[0].dials - before;
    assert!((15..60).contains(&dials), "{dials} dials in two minutes");
}

#[test]
fn a_cut_heals() {
    let mut world = World::new(3, 0, 3);
    world.start_all();
    world.run(3000 * MS);
    world.cut(0, 2);
    world.cut(1, 2);
    world.run(10_000 * MS);
    assert!(!world.hosts[0].up.contains(&id(2)) && world.hosts[2].up.is_empty());
    assert!(world.hosts[1].up.contains(&id(0)));
    world.cut.clear();
    world.run(8000 * MS);
    world.assert_settled();
}

#[test]
fn a_session_that_one_side_forgot_is_replaced_because_of_the_notice() {
    for forgetful in 0..2 {
        let mut world = World::new(2, 0, 3);
        (0..2).for_each(|n| world.start(n));
        world.run(3000 * MS);
        // It restarts without an address of the other: only the other can dial.
        world.kill(forgetful);
        let life = world.lives[forgetful];
        world.hosts[forgetful] = world.fresh(forgetful, life);
        let members: BTreeSet<HostId> = (0..2).map(id).collect();
        world.event(forgetful, Event::Members(&members));
        world.run(2000 * MS);
        world.assert_settled();
    }
}

#[test]
fn a_notice_alone_ends_nothing() {
    let mut world = World::new(2, 0, 3);
    (0..2).for_each(|n| world.start(n));
    world.run(5000 * MS);
    let wires = world.wires.len();
    for _ in 0..50 {
        let used = world.hosts[0].used[&id(1)];
        let index = world.hosts[0].seals[&used].index;
        world.event(0, Event::Notice(index));
        world.event(0, Event::Notice(index ^ 1));
        world.run(200 * MS);
        world.assert_settled();
    }
    assert_eq!(world.wires.len(), wires);
    assert!(world.hosts[0].counts.contains(&DropReason::NoticeIgnored));
}

#[test]
fn a_removed_member_is_closed_and_refused() {
    let mut world = World::new(3, 0, 3);
    (0..3).for_each(|n| world.start(n));
    world.run(KEYS_LINGER + 3000 * MS);
    let members = BTreeSet::from([id(0), id(1)]);
    world.event(0, Event::Members(&members));
    world.event(1, Event::Members(&members));
    assert!(!world.hosts[0].up.contains(&id(2)) && world.hosts[0].opens.len() == 1);
    world.run(10_000 * MS);
    assert!(world.hosts[2].up.is_empty());
    assert!(world.hosts[0].counts.contains(&DropReason::NotAMember));
    assert!(world.hosts[0].up.contains(&id(1)));
}

#[test]
fn a_dial_that_reaches_another_is_the_others_connection() {
    let mut world = World::new(3, 0, 3);
    let members: BTreeSet<HostId> = (0..3).map(id).collect();
    (0..3).for_each(|n| world.event(n, Event::Members(&members)));
    world.event(0, Event::Addresses(id(1), &[path(2), path(0)]));
    world.run(2000 * MS);
    assert!(world.hosts[0].up.contains(&id(2)) && !world.hosts[0].up.contains(&id(1)));
    assert!(world.hosts[0].counts.contains(&DropReason::DialledItself));
}

#[test]
fn greetings_out_of_turn_and_of_another_suite_are_refused() {
    let mut world = World::new(2, 0, 3);
    (0..2).for_each(|n| world.start(n));
    world.run(3000 * MS);
    let used = world.hosts[0].used[&id(1)];
    let hello = Hello { boot: BootId([9; 16]), index: 1, cipher: CIPHER, replaces: true, seen: None };
    world.event(0, Event::Hello(used, hello));
    assert!(world.hosts[0].counts.contains(&DropReason::MessageGarbled));
    assert!(world.hosts[0].used.is_empty());
    let id9 = world.hosts[0].sessions.new_connection();
    world.wires.push(Wire { ends: [(1, ConnectionId(999)), (0, id9)], lives: [0, 0], open: true });
    world.event(0, Event::Accepted(id9, id(1), path(1)));
    world.event(0, Event::Hello(id9, Hello { cipher: Cipher::Aegis128L, ..hello }));
    assert!(world.hosts[0].counts.contains(&DropReason::CipherDiffers));
}

#[test]
fn connections_of_one_host_are_bounded() {
    let mut sessions = Sessions::new(id(0), BootId([1; 16]), CIPHER, [1; 32]);
    let mut actions = Vec::new();
    sessions.handle(MS, Event::Members(&BTreeSet::from([id(1)])), &mut actions);
    for i in 0..1000 {
        let connection = sessions.new_connection();
        sessions.handle(MS, Event::Accepted(connection, id(1), path(1)), &mut actions);
        let hello =
            Hello { boot: BootId([2; 16]), index: i, cipher: CIPHER, replaces: i % 3 == 0, seen: None };
        sessions.handle(MS, Event::Hello(connection, hello), &mut actions);
        sessions.handle(MS, Event::Lost(connection, Some(Why::Superseded)), &mut actions);
        let connection = sessions.new_connection();
        sessions.handle(MS, Event::Accepted(connection, id(1), path(1)), &mut actions);
    }
    let installed = actions.iter().filter(|a| matches!(a, Action::InstallReceive(..))).count();
    let erased = actions.iter().filter(|a| matches!(a, Action::EraseKeys(..))).count();
    assert!(installed - erased <= 2 * MAX_CONNECTIONS, "{installed} installed, {erased} erased");
}

#[test]
fn codes_go_round() {
    for code in 1..=11 {
        assert_eq!(Why::from_code(code).map(|w| w as u64), Some(code));
    }
    assert_eq!(Why::from_code(0), None);
    assert_eq!(Why::from_code(12), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_they_settle(
        n in 2usize..6, loss in 0u8..25, seed: u64,
        blows in prop::collection::vec((0u8..4, 0usize..5, 0usize..5, 0u64..6000), 0..12),
    ) {
        let mut world = World::new(n, loss, seed);
        for host in 0..n {
            world.start(host);
            world.run(Duration::from_millis(seed % 50));
        }
        for (kind, a, b, pause) in blows {
            let (a, b) = (a % n, b % n);
            match kind {
                0 => world.kill(a),
                1 => { world.kill(a); world.restart(a) }
                2 if a != b => { world.cut.insert((a.min(b), a.max(b))); }
                _ => world.cut.clear(),
            }
            world.run(Duration::from_millis(pause));
        }
        world.cut.clear();
        world.loss = 0;
        for host in 0..n {
            if !world.hosts[host].alive {
                world.restart(host);
            }
        }
        world.run(Duration::from_secs(16));
        world.assert_settled();
    }

    #[test]
    fn any_probe_or_greeting_is_heard_without_panic(
        steps in prop::collection::vec((0u8..15, 0u64..9, any::<u32>(), prop::collection::vec(any::<u8>(), 0..12)), 0..60),
    ) {
        let mut sessions = Sessions::new(id(0), BootId([1; 16]), CIPHER, [1; 32]);
        let mut actions = Vec::new();
        let (members, more) = (BTreeSet::from([id(1), id(2)]), (1..4).map(id).collect());
        sessions.handle(MS, Event::Members(&members), &mut actions);
        let mut now = MS;
        for (kind, connection, index, body) in steps {
            now += Duration::from_millis(u64::from(index) % 2000);
            let index = actions.iter().rev().find_map(|a| match a {
                Action::InstallReceive(_, _, index) => Some(*index),
                _ => None,
            }).unwrap_or(index);
            let connection = ConnectionId(connection);
            let event = match kind {
                0 => Event::Reached(connection, id(body.len() % 3)),
                1 => { let c = sessions.new_connection(); Event::Accepted(c, id(body.len() % 4), path(1)) }
                2 => Event::Hello(connection, Hello { boot: BootId([body.len() as u8; 16]), index, cipher: CIPHER, replaces: index % 2 == 0, seen: None }),
                3 => Event::Lost(connection, Why::from_code(body.len() as u64)),
                4 => Event::Probe(index, path(1), &body),
                5 => Event::Notice(index),
                6 => Event::Worn(index),
                7 => Event::RekeyAll,
                8 => Event::Rekey(connection, Rekey::Ask(index % 4)),
                9 => Event::Rekey(connection, Rekey::Offer(Share { epoch: index % 4, index, public: [3; 32] })),
                10 => Event::Rekey(connection, Rekey::Answer(Share { epoch: index % 4, index, public: [3; 32] })),
                11 => Event::FirstAuthentic(index),
                12 => Event::Refused(id(body.len() % 4)),
                13 => Event::Members(if body.len() % 2 == 0 { &more } else { &members }),
                _ => Event::Tick,
            };
            sessions.handle(now, event, &mut actions);
        }
    }
}
