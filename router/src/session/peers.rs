//! All peers, and what is found among them without looking at each: who is due, whose a connection or an index is, who is linked
//! directly. A peer is changed by [`Peers::change`] alone, which keeps all of this true.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use weft_api::id::HostId;

use super::ConnectionId;
use super::peer::Peer;

/// What an event may know a peer by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Name {
    /// A connection.
    Connection(ConnectionId),
    /// An index of ours.
    Ours(u32),
    /// An index of the peer's, which two peers may share.
    Theirs(u32),
}

#[derive(Debug)]
struct Slot {
    peer: Peer,
    due: Option<Duration>,
    names: Vec<Name>,
    relay_dials: usize,
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: BTreeMap<HostId, Slot>,
    due: BTreeSet<(Duration, HostId)>,
    names: BTreeSet<(Name, HostId)>,
    /// Dials through relays that are unfinished.
    relay_dials: usize,
    neighbours: BTreeSet<HostId>,
    neighbours_changed: bool,
}

impl Peers {
    pub(super) fn add(&mut self, peer: Peer) {
        let host = peer.host;
        self.slots.entry(host).or_insert(Slot { peer, due: None, names: Vec::new(), relay_dials: 0 });
        self.change(host, |_, _| ());
    }

    /// One that has no connection any more.
    pub(super) fn remove(&mut self, host: HostId) {
        let Some(slot) = self.slots.remove(&host) else { return };
        slot.due.map(|at| self.due.remove(&(at, host)));
        for name in slot.names {
            self.names.remove(&(name, host));
        }
        self.relay_dials -= slot.relay_dials;
        self.neighbours_changed |= self.neighbours.remove(&host);
    }

    /// Does something with a peer; the second argument is how many dials through relays are unfinished, of all peers.
    pub(super) fn change<R>(&mut self, host: HostId, act: impl FnOnce(&mut Peer, usize) -> R) -> Option<R> {
        let slot = self.slots.get_mut(&host)?;
        let result = act(&mut slot.peer, self.relay_dials);
        let due = slot.peer.next_wake();
        if due != slot.due {
            slot.due.map(|at| self.due.remove(&(at, host)));
            due.map(|at| self.due.insert((at, host)));
            slot.due = due;
        }
        if !slot.peer.names().eq(slot.names.iter().copied()) {
            for name in &slot.names {
                self.names.remove(&(*name, host));
            }
            slot.names = slot.peer.names().collect();
            self.names.extend(slot.names.iter().map(|name| (*name, host)));
        }
        let relay_dials = slot.peer.relay_dials();
        self.relay_dials = self.relay_dials - slot.relay_dials + relay_dials;
        slot.relay_dials = relay_dials;
        self.neighbours_changed |= if slot.peer.is_neighbour() {
            self.neighbours.insert(host)
        } else {
            self.neighbours.remove(&host)
        };
        Some(result)
    }

    pub(super) fn get(&self, host: HostId) -> Option<&Peer> {
        self.slots.get(&host).map(|slot| &slot.peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.values().map(|slot| &slot.peer)
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.slots.keys().copied()
    }

    /// Whose it is; of two the lower.
    pub(super) fn named(&self, name: Name) -> Option<HostId> {
        let first = (Bound::Included((name, HostId([0; 8]))), Bound::Unbounded);
        self.names.range(first).next().filter(|(found, _)| *found == name).map(|(_, host)| *host)
    }

    /// Those that are due, by id.
    pub(super) fn due(&self, now: Duration) -> Vec<HostId> {
        let mut due: Vec<HostId> =
            self.due.range(..=(now, HostId([255; 8]))).map(|(_, host)| *host).collect();
        due.sort_unstable();
        due
    }

    /// When the first is due.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The members that are linked directly, if they are others than when this was asked last.
    pub(super) fn new_neighbours(&mut self) -> Option<&BTreeSet<HostId>> {
        std::mem::take(&mut self.neighbours_changed).then_some(&self.neighbours)
    }
}
