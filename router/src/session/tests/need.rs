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
    world.run(IDLE_AFTER - 1000 * MS);
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
