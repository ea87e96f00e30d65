//! Which of a peer's connections is used, which make room for it, and when another must take its place.

use std::time::Duration;

use super::connection::{Connection, Stage};
use super::peer::{MAX_CONNECTIONS, POLITE, Peer, Scene};
use super::{Action, ConnectionId, Why};
use crate::drop::DropReason;

/// After a notice was looked into, the next ones are ignored for so long.
const NOTICE_HOLD: Duration = Duration::from_secs(5);
/// Between the confirmation of the one connection and the closing of the other, so that the peer has moved too.
const SETTLE: Duration = Duration::from_millis(500);

impl Peer {
    /// The connection to use: one that works, not worn, meant to take another's place, dialled by the lower id, the newest.
    pub(super) fn best(&self) -> Option<ConnectionId> {
        let by_lower = |c: &Connection| c.ours == self.lower;
        self.connections
            .iter()
            .filter(|c| c.ready())
            .max_by_key(|c| (c.confirmed, !c.worn, c.replaces, by_lower(c), c.id))
            .map(|c| c.id)
    }

    pub(super) fn choose(&mut self, scene: &mut Scene<'_>) {
        self.lower = scene.lower;
        let best = self.best();
        if best != self.used {
            match best {
                Some(id) => scene.act(Action::Use(self.host, id)),
                None => scene.act(Action::Unuse(self.host)),
            }
            let lost = best.is_none();
            self.used = best;
            self.awaited &= lost;
            match self.connections.iter().find(|c| Some(c.id) == best) {
                Some(connection) if !self.paths.sound() => {
                    self.paths.take(scene.now, connection.path);
                    self.list_paths(scene);
                }
                Some(_) => {}
                None => self.paths.rest(),
            }
            self.follow(scene);
            (self.renew, self.suspicion) = (false, None);
            self.found_dead &= lost;
            if lost {
                self.dialling.restart(if scene.lower { scene.now } else { scene.now + POLITE });
            }
        }
        let up = self.connections.iter().any(|c| Some(c.id) == best && c.confirmed);
        if up != self.up {
            self.up = up;
            scene.act(if up { Action::LinkUp(self.host) } else { Action::LinkDown(self.host) });
        }
        if up && self.settle.is_none() {
            self.settle = Some(scene.now + SETTLE);
        }
    }

    /// The used one works: dials are not needed any more, and the lower id closes what else there is.
    pub(super) fn close_superfluous(&mut self, scene: &mut Scene<'_>) {
        if !self.up || self.renew {
            return;
        }
        let used = self.used;
        let superfluous: Vec<(ConnectionId, Stage)> = self
            .connections
            .iter()
            .filter(|c| Some(c.id) != used && (c.stage == Stage::Dialling || (scene.lower && c.ready())))
            .map(|c| (c.id, c.stage))
            .collect();
        for (id, stage) in superfluous {
            if stage == Stage::Dialling {
                self.end(scene, id, Why::GivenUp);
            } else {
                scene.act(Action::Close(id, Why::Superseded));
                if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
                    connection.enter(Stage::Lingering, scene.now);
                }
            }
        }
        let ready = self.connections.iter().filter(|c| c.ready()).count();
        let greeting = self.connections.iter().any(|c| c.stage == Stage::Greeting);
        for connection in self.connections.iter_mut().filter(|c| c.ready() && ready == 1) {
            connection.replaces = false; // It has taken the place; the next may take its.
        }
        if ready > 1 || greeting {
            self.settle = Some(scene.now + SETTLE);
        }
    }

    pub(super) fn suspect(&mut self, scene: &mut Scene<'_>) {
        let Some((suspect, until)) = self.suspicion else { return };
        if !self.connections.iter().any(|c| c.id == suspect && c.ready()) {
            self.suspicion = None;
        } else if until <= scene.now {
            self.suspicion = None;
            self.notices_from = scene.now + NOTICE_HOLD;
            self.renew = true;
            self.dialling.restart(scene.now);
        }
    }

    /// Another connection must take this one's place.
    pub(super) fn renew(&mut self, scene: &mut Scene<'_>, id: ConnectionId) {
        self.connections.iter_mut().filter(|c| c.id == id).for_each(|c| c.worn = true);
        if !self.renew && self.used == Some(id) {
            self.renew = true;
            self.dialling.restart(scene.now);
        }
    }

    pub(super) fn make_room(&mut self, scene: &mut Scene<'_>) {
        let lingering = self.connections.iter().filter(|c| c.stage == Stage::Lingering);
        if lingering.clone().count() >= MAX_CONNECTIONS
            && let Some(oldest) = lingering.min_by_key(|c| c.since).map(|c| c.id)
        {
            self.erase(scene, oldest);
        }
        let live = self.connections.iter().filter(|c| c.stage != Stage::Lingering);
        if live.clone().count() >= MAX_CONNECTIONS
            && let Some(least) =
                live.filter(|c| Some(c.id) != self.used).min_by_key(|c| (c.confirmed, c.id)).map(|c| c.id)
        {
            scene.act(Action::Count(DropReason::ConnectionsTooMany));
            self.end(scene, least, Why::TooMany);
        }
    }
}
