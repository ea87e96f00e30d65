//! Who is no member as far as is known here: a while to become one, few at a time, and never a key or a frame before.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::*;
use super::world::{CIPHER, MS, World, id, path};

/// Host 1 knows nobody, and host 0 dials it.
fn unheard() -> World {
    let mut world = World::new(2, 0, 3);
    world.event(1, Event::Members(&BTreeSet::from([id(1)])));
    world.start(0);
    world.run(300 * MS);
    assert!(world.hosts[1].used.is_empty() && world.hosts[1].opens.is_empty());
    world
}

#[test]
fn who_turns_out_to_be_a_member_is_greeted_without_another_dial() {
    let mut world = unheard();
    let wires = world.wires.len();
    world.event(1, Event::Members(&BTreeSet::from([id(0), id(1)])));
    world.run(500 * MS);
    world.assert_settled();
    assert_eq!(world.wires.len(), wires);
}

#[test]
fn who_is_refused_or_proves_nothing_is_told_so_and_dials_again() {
    for refused in [true, false] {
        let mut world = unheard();
        if refused {
            world.event(1, Event::Refused(id(0)));
        } else {
            world.run(STRANGER_PATIENCE);
        }
        assert_eq!(world.hosts[1].counts, [DropReason::NotAMember]);
        assert!(world.hosts[1].opens.is_empty());
        let dials = world.hosts[0].dials;
        world.run(10_000 * MS);
        assert!(world.hosts[0].dials > dials, "perhaps it is heard of by then");
        assert!(world.hosts[1].used.is_empty() && world.hosts[0].up.is_empty());
        world.event(1, Event::Members(&BTreeSet::from([id(0), id(1)])));
        world.run(10_000 * MS);
        world.assert_settled();
    }
}

proptest! {
    /// Steps: a host dials, says hello, is refused, is lost; or time passes.
    #[test]
    fn strangers_are_few_and_get_nothing(
        steps in prop::collection::vec((0u8..6, 1usize..9, 0u64..2000), 0..200), late in 1usize..9,
    ) {
        let mut sessions = Sessions::new(id(0), BootId([1; 16]), CIPHER, [1; 32]);
        let (mut now, mut dialled, mut open) = (MS, Vec::new(), BTreeSet::new());
        sessions.handle(now, Event::Members(&BTreeSet::from([id(0)])), &mut Vec::new());
        let hello = Hello { boot: BootId([2; 16]), index: 7, cipher: CIPHER, replaces: false, seen: None };
        for (kind, host, pause) in steps {
            now += MS * u32::try_from(pause).unwrap();
            let mut actions = Vec::new();
            let one = dialled.get(host * 7 % dialled.len().max(1)).copied();
            let event = match (kind, one) {
                (0..=2, _) | (_, None) => {
                    let connection = sessions.new_connection();
                    dialled.push((connection, host));
                    open.insert(connection);
                    Event::Accepted(connection, id(host), path(host))
                }
                (3, Some((connection, _))) => Event::Hello(connection, hello),
                (4, Some((connection, _))) => {
                    open.remove(&connection);
                    Event::Lost(connection, None)
                }
                (_, Some((_, host))) => Event::Refused(id(host)),
            };
            sessions.handle(now, event, &mut actions);
            for action in actions {
                match action {
                    Action::Close(connection, Why::NotAMember) => drop(open.remove(&connection)),
                    Action::Count(DropReason::NotAMember | DropReason::StrangersTooMany) => {}
                    other => prop_assert!(false, "{:?} for a stranger", other),
                }
            }
            prop_assert!(open.len() <= MAX_STRANGERS);
            let of = |host| dialled.iter().filter(|(c, h)| *h == host && open.contains(c)).count();
            prop_assert!((1..9).all(|host| of(host) <= STRANGERS_OF_ONE));
        }
        let mut actions = Vec::new();
        sessions.handle(now, Event::Members(&BTreeSet::from([id(0), id(late)])), &mut actions);
        let greeted = actions.iter().filter(|a| matches!(a, Action::Greet(..))).count();
        prop_assert_eq!(greeted, dialled.iter().filter(|(c, h)| *h == late && open.contains(c)).count());
        actions.clear();
        sessions.handle(now + STRANGER_PATIENCE, Event::Tick, &mut actions);
        let ended = actions.iter().filter(|a| matches!(a, Action::Close(_, Why::NotAMember))).count();
        prop_assert_eq!(ended + greeted, open.len(), "nobody waits for ever");
    }
}
