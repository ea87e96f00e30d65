//! Sessions end when nothing needs them, and begin with the first frame.

use std::collections::BTreeSet;

use super::*;

#[test]
fn what_nothing_needs_ends_and_a_frame_begins_it_again() {
    let mut world = World::new(3, 0, 3);
    (0..3).for_each(|n| world.start(n));
    world.run(3000 * MS);
    let nobody = BTreeSet::new();
    for n in 0..3 {
        let kept = if n == 2 { BTreeSet::from([id(0)]) } else { nobody.clone() };
        world.event(n, Event::Keep(&kept));
    }
    world.event(0, Event::Keep(&BTreeSet::from([id(2)])));
    world.run(LINGER - 1000 * MS);
    assert!(world.hosts[0].up.contains(&id(1)), "for a while after the last need");
    world.run(2000 * MS);
    assert!(!world.hosts[0].up.contains(&id(1)) && !world.hosts[1].up.contains(&id(0)));
    assert!(world.hosts[0].up.contains(&id(2)) && world.hosts[2].up.contains(&id(0)), "kept");
    let dials = world.hosts[0].dials + world.hosts[1].dials;
    world.run(60_000 * MS);
    assert_eq!(world.hosts[0].dials + world.hosts[1].dials, dials, "nobody dials for nothing");
    world.event(1, Event::Wanted(id(0)));
    world.run(100 * MS);
    assert!(world.hosts[0].up.contains(&id(1)) && world.hosts[1].up.contains(&id(0)));
    assert!(!world.hosts[1].up.contains(&id(2)));
}

#[test]
fn who_only_listens_leaves_the_end_to_who_began_it() {
    for sender in 0..2 {
        let mut world = World::new(2, 0, 3);
        (0..2).for_each(|n| world.event(n, Event::Keep(&BTreeSet::new())));
        world.start_all();
        world.event(sender, Event::Wanted(id(1 - sender)));
        world.run(500 * MS);
        let wires = world.wires.len();
        for _ in 0..100 {
            world.event(sender, Event::Wanted(id(1 - sender)));
            world.run(2500 * MS);
            assert!(world.hosts[sender].up.contains(&id(1 - sender)));
        }
        assert_eq!(world.wires.len(), wires, "no handshake in four minutes of frames one way");
        world.run(IDLE_AFTER + 1000 * MS);
        assert!(world.hosts.iter().all(|h| h.up.is_empty()), "over at both ends");
    }
}

/// Hosts 0 and 2 are linked with 1, and nobody needs a session between them.
fn row() -> World {
    let mut world = World::new(3, 0, 3);
    (0..3).for_each(|n| world.start(n));
    for n in 0..3 {
        let kept = if n == 1 { BTreeSet::from([id(0), id(2)]) } else { BTreeSet::from([id(1)]) };
        world.event(n, Event::Keep(&kept));
    }
    world.run(IDLE_AFTER + 4000 * MS);
    assert!(!world.hosts[0].up.contains(&id(2)));
    world
}

#[test]
fn the_first_frame_goes_by_a_neighbour_at_once_where_no_address_leads() {
    let mut world = row();
    world.cut.extend([(0, 2), (2, 0)]);
    let dials = world.hosts[0].dials;
    world.event(0, Event::Wanted(id(2)));
    assert_eq!(world.hosts[0].dials, dials + 2, "its address, and a neighbour");
    world.run(40 * MS);
    assert!(world.hosts[0].used.contains_key(&id(2)), "by the neighbour");
    assert_eq!(world.hosts[0].unreached, []);
}

#[test]
fn frames_for_who_cannot_be_reached_do_not_wait_for_ever() {
    let mut world = row();
    world.kill(2);
    world.event(0, Event::Wanted(id(2)));
    world.run(DIAL_TIMEOUT * 2);
    assert_eq!(world.hosts[0].unreached, [id(2)], "told once, when the last dial had failed");
    let dials = world.hosts[0].dials;
    for _ in 0..40 {
        world.event(0, Event::Wanted(id(2)));
        world.run(250 * MS);
    }
    let more = world.hosts[0].dials - dials;
    assert!(more <= 16, "{more} dials in ten seconds");
}
