//! Which neighbours may relay to a member: the first hop that facts name, then others in turn, since facts may be late or missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_api::id::HostId;

use super::Path;

/// Relays of one peer that are tried at a time.
pub const MAX_RELAYS: usize = 3;
/// The others take turns so often.
const TURN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Relays {
    routes: BTreeMap<HostId, HostId>,
    neighbours: BTreeSet<HostId>,
}

impl Relays {
    pub(super) fn set_routes(&mut self, routes: &BTreeMap<HostId, HostId>) {
        self.routes.clone_from(routes);
    }

    /// The members that are linked directly.
    pub(super) fn set_neighbours(&mut self, neighbours: BTreeSet<HostId>) {
        self.neighbours = neighbours;
    }

    /// The relays to try for `host`, the likeliest first.
    pub(super) fn of(&self, now: Duration, host: HostId) -> Vec<Path> {
        let first = self.routes.get(&host).filter(|hop| self.neighbours.contains(hop));
        let others = self.neighbours.iter().filter(|n| **n != host && Some(*n) != first);
        let n = others.clone().count().max(1);
        let turn = (now.as_secs() / TURN.as_secs()) as usize * (MAX_RELAYS - 1) % n;
        let in_turn = others.clone().cycle().skip(turn).take(n.min(others.count()));
        first.into_iter().chain(in_turn).take(MAX_RELAYS).map(|hop| Path::Relay(*hop)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> HostId {
        HostId([n; 8])
    }

    #[test]
    fn the_route_comes_first_and_everybody_has_a_turn() {
        let mut relays = Relays::default();
        assert_eq!(relays.of(TURN, id(9)), []);
        relays.set_neighbours((1..9).map(id).collect());
        relays.set_routes(&BTreeMap::from([(id(20), id(5)), (id(21), id(77))]));
        let mut tried = BTreeSet::new();
        for turn in 0..4 {
            let of = relays.of(TURN * turn, id(20));
            assert_eq!((of.len(), of[0]), (MAX_RELAYS, Path::Relay(id(5))));
            tried.extend(of);
        }
        assert_eq!(tried.len(), 8, "all eight within four turns");
        assert!(!relays.of(TURN, id(21)).contains(&Path::Relay(id(77))), "no neighbour");
        assert!(!relays.of(TURN, id(3)).contains(&Path::Relay(id(3))), "not through itself");
    }
}
