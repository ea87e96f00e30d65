//! Which sessions are needed: those that the mesh keeps, and those that frames go by, for a while after the last.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_api::id::HostId;

use super::{Action, Sessions, Why};
use crate::drop::DropReason;

/// A session that nothing keeps ends after so long without a frame.
pub const IDLE_AFTER: Duration = Duration::from_secs(5 * 60);
/// Sessions beside those that are kept; a frame for one more host starts none (`SessionsTooMany`).
pub const MAX_ON_DEMAND: usize = 1024;

/// Whether one peer's session is needed. Until it is said whom to keep, everybody's is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    kept: bool,
    until: Duration,
}

impl Default for Need {
    fn default() -> Self {
        Self { kept: true, until: Duration::ZERO }
    }
}

impl Need {
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.kept || now < self.until
    }

    /// When it ends if nothing needs it any more.
    pub(super) fn ends(&self) -> Option<Duration> {
        (!self.kept).then_some(self.until)
    }

    /// For a while.
    pub(super) fn use_it(&mut self, now: Duration) {
        self.until = now + IDLE_AFTER;
    }

    fn on_demand(&self, now: Duration) -> bool {
        !self.kept && now < self.until
    }
}

impl Sessions {
    /// Sessions with these hosts are kept; the others may end.
    pub(super) fn keep(&mut self, now: Duration, hosts: &BTreeSet<HostId>) {
        self.kept = Some(hosts.clone());
        for peer in self.peers.values_mut() {
            let keep = hosts.contains(&peer.host);
            if peer.need.kept && !keep {
                peer.need.use_it(now); // Whatever is under way may still need it.
                if peer.connections.is_empty() {
                    peer.need.until = now;
                }
            } else if keep && !peer.need.holds(now) {
                peer.dialling.restart(now);
            }
            peer.need.kept = keep;
        }
    }

    /// Frames go to the host, or wait to.
    pub(super) fn want(&mut self, now: Duration, host: HostId, actions: &mut Vec<Action>) {
        let on_demand = self.peers.values().filter(|p| p.need.on_demand(now)).count();
        let Some(peer) = self.peers.get_mut(&host) else { return };
        if !peer.need.holds(now) {
            if on_demand >= MAX_ON_DEMAND {
                return actions.push(Action::Count(DropReason::SessionsTooMany));
            }
            peer.dialling.restart(now);
        }
        peer.need.use_it(now);
    }

    /// Ends what nothing needs any more.
    pub(super) fn end_idle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let idle = self.peers.values().filter(|p| !p.connections.is_empty() && !p.need.holds(now));
        for host in idle.map(|p| p.host).collect::<Vec<_>>() {
            self.with_peer(now, actions, host, |peer, scene| peer.end_all(scene, Why::Idle));
        }
    }
}
