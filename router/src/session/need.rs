//! Which sessions are needed: those that the mesh keeps, and those that frames go by, for a while after the last.

use std::collections::BTreeSet;
use std::time::Duration;

use weft_api::id::HostId;

use super::connection::{Connection, Stage};
use super::peer::{Peer, Scene};
use super::{Action, Path, Sessions};
use crate::drop::DropReason;

/// A session that nothing keeps ends after so long without a frame.
pub const IDLE_AFTER: Duration = Duration::from_secs(5 * 60);
/// And so long after it began, or was kept, without any: what the mesh has tried and left costs no probes.
pub const LINGER: Duration = Duration::from_secs(30);
/// Sessions beside those that are kept; a frame for one more host starts none (`SessionsTooMany`).
pub const MAX_ON_DEMAND: usize = 1024;

/// Whether one peer's session is needed. Until it is said whom to keep, everybody's is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    kept: bool,
    until: Duration,
    /// The peer has begun it, and perhaps only it has frames: it is left to the peer to end it. That is no need to dial.
    spared: Duration,
}

impl Need {
    pub(super) fn new(kept: bool) -> Self {
        Self { kept, until: Duration::ZERO, spared: Duration::ZERO }
    }

    pub(super) fn holds(&self, now: Duration) -> bool {
        self.kept || now < self.until
    }

    /// When it ends if nothing needs it any more.
    pub(super) fn ends(&self) -> Option<Duration> {
        (!self.kept).then_some(self.until.max(self.spared))
    }

    /// What is over was over before anything that is due.
    pub(super) fn settle(&mut self, now: Duration) {
        if !self.holds(now) {
            self.until = Duration::ZERO;
        }
    }

    /// A session begins.
    pub(super) fn begin(&mut self, now: Duration, ours: bool) {
        self.linger(now);
        self.spared = if ours { Duration::ZERO } else { now + IDLE_AFTER };
    }

    /// The peer needs it no more. Nor do we, unless frames have gone by it: then the next one begins it again.
    pub(super) fn over(&mut self, now: Duration) {
        self.until = now;
    }

    /// What is under way may still need it.
    fn linger(&mut self, now: Duration) {
        self.until = self.until.max(now + LINGER);
    }

    /// Frames go by it.
    pub(super) fn use_it(&mut self, now: Duration) {
        self.until = now + IDLE_AFTER;
    }

    fn on_demand(&self, now: Duration) -> bool {
        !self.kept && now < self.until
    }
}

impl Sessions {
    /// Sessions with these hosts are kept; the others may end.
    pub(super) fn keep(&mut self, now: Duration, hosts: &BTreeSet<HostId>, actions: &mut Vec<Action>) {
        let before = self.kept.replace(hosts.clone());
        let changed: Vec<HostId> = match before {
            Some(before) => before.symmetric_difference(hosts).copied().collect(),
            None => self.peers.hosts().filter(|host| !hosts.contains(host)).collect(),
        };
        for host in changed {
            let relays = self.relays.of(now, host);
            let keep = hosts.contains(&host);
            self.with_peer(now, actions, host, |peer, scene| {
                if keep && !peer.need.holds(now) {
                    peer.begin(scene, relays);
                } else if !keep && peer.connections.iter().any(|c| c.stage != Stage::Dialling) {
                    peer.need.linger(now);
                }
                peer.need.kept = keep;
            });
        }
    }

    /// Frames go to the host, or wait to.
    pub(super) fn want(&mut self, now: Duration, host: HostId, actions: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(host) else { return };
        let begins = !peer.need.holds(now);
        let on_demand = || self.peers.iter().filter(|p| p.need.on_demand(now)).count();
        if begins && on_demand() >= MAX_ON_DEMAND {
            actions.extend([Action::Count(DropReason::SessionsTooMany), Action::Unreached(host)]);
            return;
        }
        let relays = self.relays.of(now, host);
        self.with_peer(now, actions, host, |peer, scene| {
            if begins {
                peer.begin(scene, relays);
            }
            peer.need.use_it(now);
            peer.demand(scene);
        });
    }

    /// Whether a session with the host begins only when something needs it.
    #[must_use]
    pub fn is_on_demand(&self, host: HostId) -> bool {
        self.peers.get(host).is_some_and(|p| !p.need.kept)
    }
}

impl Peer {
    /// Frames go to it, or wait to: without a session it is dialled at once.
    fn demand(&mut self, scene: &mut Scene<'_>) {
        if !self.wants_dial() {
            return;
        }
        self.awaited = true;
        self.dialling.demand(scene.now);
        self.dial(scene);
        if self.dialling.next().is_none() {
            self.give_up_waiting(scene);
        }
    }

    /// The last dial has failed: what waits for it waits no longer.
    pub(super) fn give_up_waiting(&mut self, scene: &mut Scene<'_>) {
        let goes_on = |c: &Connection| c.stage != Stage::Lingering;
        if self.awaited && !self.connections.iter().any(goes_on) {
            self.awaited = false;
            scene.act(Action::Unreached(self.host));
        }
    }

    /// It is needed from now on.
    fn begin(&mut self, scene: &mut Scene<'_>, relays: Vec<Path>) {
        self.set_relays(scene, relays);
        self.dialling.restart(scene.now);
    }
}
