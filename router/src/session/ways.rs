//! One peer's paths, as its events and its connections see them: what is listed, what is probed, what is taken.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use weft_api::id::HostId;

use super::connection::{Connection, Stage};
use super::mtu::{self, SizeProbe};
use super::peer::{Peer, Scene};
use super::streams::Reach;
use super::{Action, ConnectionId, Path, StreamId};

/// A peer is told anew where it is seen at most so often.
pub const SEEN_INTERVAL: Duration = Duration::from_secs(2);

impl Peer {
    /// An authentic envelope came from another address than the one before.
    pub(super) fn moved(&mut self, scene: &mut Scene<'_>, from: Path, len: usize) {
        self.paths.moved(scene.now, from, len);
    }

    /// These neighbours can relay.
    pub(super) fn keep_relays(&mut self, scene: &mut Scene<'_>, can: &BTreeSet<HostId>) {
        self.paths.keep_relays(scene.now, |host| can.contains(host));
        self.relays.retain(|path| matches!(path, Path::Relay(by) if can.contains(by)));
    }

    /// Where it may be reached, and the neighbours that may relay, the likeliest first.
    pub(super) fn set_relays(&mut self, scene: &mut Scene<'_>, relays: Vec<Path>) {
        if relays != self.relays {
            self.relays = relays;
            self.list_paths(scene);
        }
    }

    pub(super) fn set_addresses(&mut self, scene: &mut Scene<'_>, addresses: &[Path]) {
        self.dialling.set_addresses(scene.now, addresses);
        self.list_paths(scene);
    }

    pub(super) fn list_paths(&mut self, scene: &mut Scene<'_>) {
        self.dialling.set_relays(&self.relays);
        let listed = self.dialling.given().iter().chain(&self.relays).copied().chain(self.streams.paths());
        self.paths.list(scene.now, listed);
    }

    /// Opens a stream if UDP does not get through.
    pub(super) fn open_streams(&mut self, scene: &mut Scene<'_>) {
        let reach = match (self.paths.used(), self.paths.doubted()) {
            _ if !self.need.holds(scene.now) => Reach::Direct,
            (Some(path), None) if self.up && path.is_direct() => Reach::Direct,
            (Some(_), Some(doubt)) if self.up => Reach::Doubtful(doubt),
            (Some(_), None) if self.up => Reach::Relayed,
            _ => Reach::Not,
        };
        self.streams.follow(scene.now, scene.lower, reach);
        let addresses: Vec<SocketAddr> =
            self.dialling.given().iter().copied().filter_map(Path::udp).collect();
        if let Some(address) = self.streams.due(scene.now, &addresses, scene.jitter) {
            scene.act(Action::OpenStream(self.host, address));
        }
    }

    /// A stream of ours is open, or cannot be opened.
    pub(super) fn stream_opened(
        &mut self,
        scene: &mut Scene<'_>,
        address: SocketAddr,
        stream: Option<StreamId>,
    ) {
        self.streams.opened(address, stream);
        self.list_paths(scene);
        if let Some(stream) = stream {
            self.dial_if_wanted(scene, Path::Tcp(stream));
        }
    }

    /// A stream is over; perhaps one with this peer.
    pub(super) fn stream_ended(&mut self, scene: &mut Scene<'_>, stream: StreamId) {
        if self.streams.ended(stream) {
            self.list_paths(scene);
        }
        self.paths.ended(scene.now, Path::Tcp(stream));
    }

    /// Whether it has this stream for a path.
    pub(super) fn goes_by(&self, stream: StreamId) -> bool {
        self.paths.knows(Path::Tcp(stream)) || self.streams.paths().any(|path| path == Path::Tcp(stream))
    }

    /// Dials through relays that are unfinished.
    pub(super) fn relay_dials(&self) -> usize {
        let relayed = |c: &&Connection| c.stage == Stage::Dialling && !c.path.is_direct();
        self.connections.iter().filter(relayed).count()
    }

    /// Whether it is reached without a third host.
    pub(super) fn is_neighbour(&self) -> bool {
        self.up && self.paths.used().is_some_and(Path::is_direct)
    }

    /// Probes what is due: each connection along its path, and the other paths by the connection in use.
    pub(super) fn probe(&mut self, scene: &mut Scene<'_>) {
        let due = |c: &&Connection| c.next_probe(scene.lower).is_some_and(|at| at <= scene.now);
        let due: Vec<_> = self.connections.iter().filter(due).map(|c| (c.id, c.path)).collect();
        for (id, path) in due {
            self.ask(scene, id, path);
        }
        let Some(used) = self.used else { return };
        // Again, since asking once more may count as one loss too many: then other paths are due as well.
        for _ in 0..2 {
            for path in self.paths.tick(scene.now, scene.lower) {
                self.ask(scene, used, path);
            }
        }
    }

    pub(super) fn ask(&mut self, scene: &mut Scene<'_>, id: ConnectionId, path: Path) {
        let body = self.paths.question(scene.now, path);
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id && c.path == path) {
            connection.probed = Some(scene.now);
        }
        scene.act(Action::Probe(id, path, body, false));
    }

    /// Finds out how long datagrams may be, once the session works.
    pub(super) fn probe_size(&mut self, scene: &mut Scene<'_>) {
        let Some(used) = self.used.filter(|_| self.up) else { return };
        if let Some((path, ask)) = self.paths.ask_size(scene.now) {
            scene.act(Action::ProbeSize(used, path, ask.full, ask.size));
            scene.act(Action::Probe(used, path, ask.short, false));
        }
    }

    pub(super) fn size_probed(&mut self, scene: &mut Scene<'_>, index: u32, from: Path, probe: SizeProbe) {
        match probe {
            SizeProbe::Question(answer) => {
                if let Some(connection) = self.by_index(index).filter(|c| c.ready()) {
                    scene.act(Action::Probe(connection.id, from, answer, true));
                }
            }
            SizeProbe::Answer(number) => {
                self.paths.size_answered(scene.now, number);
                self.follow(scene);
            }
        }
    }

    /// This host's kernel refuses datagrams of `size` along a path.
    pub(super) fn too_big(&mut self, scene: &mut Scene<'_>, path: Path, size: u16, limit: Option<u16>) {
        self.paths.too_big(path, size, limit);
        self.follow(scene);
    }

    /// Takes the better path if there is one, with every connection that can go by it.
    pub(super) fn change_path(&mut self, scene: &mut Scene<'_>) {
        let better = self.paths.better(scene.now, scene.lower);
        if let Some(path) = better {
            self.paths.take(scene.now, path);
        }
        self.follow(scene);
        if let (Some(path), Some(used), true) = (better, self.used, scene.lower) {
            self.ask(scene, used, path); // So that the peer follows.
        }
    }

    /// Tells the peer where it is seen, if that is elsewhere than it was told: its NAT has changed its mind, or a relay is not
    /// between us any more.
    pub(super) fn tell_seen(&mut self, scene: &mut Scene<'_>) {
        let Some((id, address)) = self.untold().filter(|_| scene.now >= self.seen_from) else { return };
        self.seen_from = scene.now + SEEN_INTERVAL;
        self.connections.iter_mut().filter(|c| c.id == id).for_each(|c| c.told = Some(address));
        scene.act(Action::TellSeen(id, address));
    }

    /// An address that the connection in use goes to and the peer was not told.
    pub(super) fn untold(&self) -> Option<(ConnectionId, SocketAddr)> {
        let used = self.connections.iter().find(|c| Some(c.id) == self.used && c.works())?;
        let address = used.path.udp().filter(|_| self.paths.sound())?;
        (used.told != Some(address)).then_some((used.id, address))
    }

    pub(super) fn follow(&mut self, scene: &mut Scene<'_>) {
        let Some(path) = self.paths.used() else { return };
        for connection in self.connections.iter_mut().filter(|c| c.ready() && c.path != path) {
            (connection.path, connection.size) = (path, (mtu::floor(path), false));
            scene.actions.push(Action::SetPath(connection.id, path));
        }
        let Some(size) = self.paths.size() else { return };
        for connection in self.connections.iter_mut().filter(|c| c.ready() && c.size != size) {
            connection.size = size;
            scene.actions.push(Action::SetSize(connection.id, size.0, size.1));
        }
    }
}
