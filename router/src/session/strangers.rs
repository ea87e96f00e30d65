//! Hosts that have proven their key and are no members, as far as has been heard here. Each has a while to prove that it is one:
//! the mesh layer judges what it presents, and either the roster has it then or it is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_api::id::HostId;

use super::{Action, ConnectionId, Hello, Path, Why};
use crate::drop::DropReason;

/// Connections of strangers at a time; further ones are closed (`StrangersTooMany`).
pub const MAX_STRANGERS: usize = 16;
/// Those of one host among them.
pub const STRANGERS_OF_ONE: usize = 4;

/// One has so long, which is less than a dial has: it hears why.
pub const STRANGER_PATIENCE: Duration = Duration::from_secs(2);

/// A connection of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stranger {
    pub id: ConnectionId,
    pub host: HostId,
    pub path: Path,
    /// As in [`super::peer::Peer::greet`].
    pub dialled: Option<bool>,
    /// What it said first.
    pub hello: Option<Hello>,
    pub since: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Strangers(Vec<Stranger>);

impl Strangers {
    /// Waits for its proof.
    pub(super) fn hold(&mut self, stranger: Stranger, actions: &mut Vec<Action>) {
        let of_it = self.0.iter().filter(|s| s.host == stranger.host).count();
        if self.0.len() >= MAX_STRANGERS || of_it >= STRANGERS_OF_ONE {
            let reason = DropReason::StrangersTooMany;
            return actions.extend([Action::Close(stranger.id, Why::NotAMember), Action::Count(reason)]);
        }
        self.0.push(stranger);
    }

    pub(super) fn hello(&mut self, id: ConnectionId, hello: Hello) {
        let stranger = self.0.iter_mut().find(|s| s.id == id);
        stranger.into_iter().for_each(|s| s.hello = s.hello.or(Some(hello)));
    }

    pub(super) fn lost(&mut self, id: ConnectionId) {
        self.0.retain(|s| s.id != id);
    }

    /// What it presented proves nothing.
    pub(super) fn refuse(&mut self, host: HostId, actions: &mut Vec<Action>) {
        self.close(|s| s.host == host, actions);
    }

    /// Those that have become members, the first first.
    pub(super) fn that_are(&mut self, members: &BTreeSet<HostId>) -> Vec<Stranger> {
        self.0.extract_if(.., |s| members.contains(&s.host)).collect()
    }

    /// Closes who has had its time.
    pub(super) fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.close(|s| s.since + STRANGER_PATIENCE <= now, actions);
    }

    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.0.iter().map(|s| s.since + STRANGER_PATIENCE).min()
    }

    fn close(&mut self, which: impl Fn(&Stranger) -> bool, actions: &mut Vec<Action>) {
        for stranger in self.0.extract_if(.., |s| which(s)) {
            actions
                .extend([Action::Close(stranger.id, Why::NotAMember), Action::Count(DropReason::NotAMember)]);
        }
    }
}
