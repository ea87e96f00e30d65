//! One peer: its connections and which of them is used. Restart, two that dial each other, suspicion.

use std::time::Duration;

use weft_api::id::{BootId, HostId};
use weft_api::report::LinkState;
use weft_api::roster::Cipher;

use super::connection::{Connection, Stage};
use super::dialling::{Dialling, Jitter, MAX_RELAY_DIALS};
use super::indexes::Indexes;
use super::lanes::{LaneProbe, Lanes, Step};
use super::mtu::{self, SizeProbe};
use super::need::Need;
use super::paths::{Heard, Paths};
use super::peers::Name;
use super::streams::Streams;
use super::{Action, ConnectionId, Hello, LinkView, Path, Why};
use crate::drop::DropReason;

/// Connections with one peer that are kept, lingering ones aside; beyond that the least useful is closed.
pub const MAX_CONNECTIONS: usize = 8;
/// Keys that were replaced, and those of a connection that was, open what is still under way for so long.
pub const KEYS_LINGER: Duration = Duration::from_secs(10);

/// A notice was received and the probe is not answered: after this a second connection is dialled.
const NOTICE_PATIENCE: Duration = Duration::from_secs(1);
/// A host that said goodbye dials when it is back; until then it is left alone for a while.
const AFTER_GOODBYE: Duration = Duration::from_secs(2);
/// A new member dials everybody itself, the lower id redials first: the other waits so long.
pub(super) const POLITE: Duration = Duration::from_millis(400);

/// What an event of a peer is handled with.
pub(super) struct Scene<'a> {
    pub now: Duration,
    /// Our id is the lower one.
    pub lower: bool,
    pub boot: BootId,
    pub cipher: Cipher,
    pub jitter: Jitter,
    pub connections: &'a mut u64,
    /// Dials through relays that are unfinished, of all peers.
    pub relay_dials: usize,
    pub indexes: &'a mut Indexes,
    pub actions: &'a mut Vec<Action>,
}

impl Scene<'_> {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn with_lanes(
        &mut self,
        connection: &mut Connection,
        act: impl FnOnce(Duration, &mut Lanes, &mut Vec<Step>),
    ) {
        let mut steps = Vec::new();
        connection.lanes.follow(connection.path, &mut steps);
        act(self.now, &mut connection.lanes, &mut steps);
        let id = connection.id;
        self.actions.extend(steps.into_iter().map(|step| match step {
            Step::Ask(lane, body) => Action::ProbeLane(id, lane, body),
            Step::Hear(lane, heard) => Action::UseLane(id, lane, heard),
        }));
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub host: HostId,
    pub connections: Vec<Connection>,
    pub dialling: Dialling,
    pub paths: Paths,
    pub relays: Vec<Path>,
    pub streams: Streams,
    pub used: Option<ConnectionId>,
    pub up: bool,
    pub need: Need,
    /// Frames wait for a session.
    pub awaited: bool,
    /// The session in use should be replaced by a new one.
    pub renew: bool,
    /// The last session was found dead here, perhaps not by the peer: the next takes the place of what the peer may still have.
    pub found_dead: bool,
    /// A notice said that this connection is unknown to the peer; its probe must be answered before then.
    pub suspicion: Option<(ConnectionId, Duration)>,
    pub notices_from: Duration,
    /// When superfluous connections are closed.
    pub settle: Option<Duration>,
    /// Until then it is not told anew where it is seen.
    pub seen_from: Duration,
    /// Our id is the lower one, as of the last event.
    pub lower: bool,
}

impl Peer {
    /// `late`: it was added while we ran, so it is it that dials.
    pub(super) fn new(now: Duration, host: HostId, late: bool, kept: bool) -> Self {
        let mut dialling = Dialling::default();
        dialling.restart(if late { now + POLITE } else { now });
        Self {
            host,
            connections: Vec::new(),
            dialling,
            paths: Paths::default(),
            relays: Vec::new(),
            streams: Streams::default(),
            used: None,
            up: false,
            need: Need::new(kept),
            awaited: false,
            renew: false,
            found_dead: false,
            suspicion: None,
            notices_from: Duration::ZERO,
            settle: None,
            seen_from: Duration::ZERO,
            lower: false,
        }
    }

    /// Takes a dial out, to be greeted as whoever it has reached.
    pub(super) fn take_dial(&mut self, id: ConnectionId) -> Option<(Path, bool)> {
        let at = self.connections.iter().position(|c| c.id == id && c.stage == Stage::Dialling)?;
        let dial = self.connections.swap_remove(at);
        Some((dial.path, dial.replaces))
    }

    /// Both keys are proven. `dialled` says whether we dialled, and whether to replace a session.
    pub(super) fn greet(
        &mut self,
        scene: &mut Scene<'_>,
        id: ConnectionId,
        path: Path,
        dialled: Option<bool>,
        index: u32,
    ) {
        self.need.begin(scene.now, dialled.is_some());
        self.make_room(scene);
        let mut connection = Connection::new(id, path, dialled.is_some(), Stage::Greeting, scene.now);
        connection.epochs.open(scene.now, index);
        connection.replaces = dialled.unwrap_or(false);
        let seen = path.udp();
        connection.told = seen;
        let replaces = connection.replaces;
        let hello = Hello { boot: scene.boot, index, cipher: scene.cipher, replaces, seen };
        self.connections.push(connection);
        scene.act(Action::InstallReceive(id, self.host, index));
        scene.act(Action::Greet(id, hello));
    }

    pub(super) fn hello(&mut self, scene: &mut Scene<'_>, id: ConnectionId, hello: &Hello) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return };
        if connection.stage != Stage::Greeting {
            scene.act(Action::Count(DropReason::MessageGarbled));
            self.end(scene, id, Why::Garbled);
            return self.choose(scene);
        }
        if hello.cipher != scene.cipher {
            scene.act(Action::Count(DropReason::CipherDiffers));
            return self.end(scene, id, Why::CipherDiffers);
        }
        connection.boot = Some(hello.boot);
        connection.theirs = Some(hello.index);
        connection.replaces |= hello.replaces;
        connection.enter(Stage::Ready, scene.now);
        let path = connection.path;
        connection.size = (mtu::floor(path), false);
        let older: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|c| c.boot.is_some_and(|b| b != hello.boot))
            .map(|c| c.id)
            .collect();
        if older.iter().any(|old| Some(*old) == self.used) {
            self.paths.rest();
        }
        for old in older {
            self.end(scene, old, Why::Restarted);
        }
        scene.act(Action::InstallSend(id, self.host, hello.index, path));
        if self.connections.iter().any(|c| c.id == id && c.asked) {
            self.ask(scene, id, path);
        }
        self.choose(scene);
    }

    pub(super) fn lost(&mut self, scene: &mut Scene<'_>, id: ConnectionId, why: Option<Why>) {
        let other = self.connections.iter().any(|c| c.id != id && c.ready());
        let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) else { return };
        match connection.stage {
            Stage::Lingering => {}
            Stage::Ready if other && why == Some(Why::Superseded) => {
                connection.enter(Stage::Lingering, scene.now);
                // The peer closes the one only when the echo has come round on the other.
                let host_has = self.best();
                if let Some(other) = self.connections.iter_mut().find(|c| Some(c.id) == host_has) {
                    other.confirmed = true;
                }
                self.choose(scene);
            }
            Stage::Dialling => {
                self.connections.retain(|c| c.id != id);
                self.give_up_waiting(scene);
            }
            Stage::Greeting | Stage::Ready => {
                self.erase(scene, id);
                self.choose(scene);
                match why {
                    Some(Why::Goodbye) => self.dialling.restart(scene.now + AFTER_GOODBYE),
                    Some(Why::Idle) => self.need.over(scene.now),
                    _ => {}
                }
            }
        }
    }

    pub(super) fn heard(&mut self, scene: &mut Scene<'_>, index: u32) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.epochs.opens(index)) {
            connection.heard = scene.now;
        }
    }

    pub(super) fn probed(&mut self, scene: &mut Scene<'_>, index: u32, from: Path, body: &[u8]) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.epochs.opens(index)) else { return };
        if let Some(probe) = LaneProbe::read(body) {
            return Self::lane_probed(scene, connection, probe);
        }
        if let Some(probe) = SizeProbe::read(body) {
            return self.size_probed(scene, index, from, probe);
        }
        if !connection.ready() {
            connection.asked = true; // It knows our index, we do not know its yet.
            return;
        }
        let heard = match self.paths.hear(scene.now, from, body) {
            Ok(heard) => heard,
            Err(reason) => return scene.act(Action::Count(reason)),
        };
        connection.heard = scene.now;
        let (id, path) = (connection.id, connection.path);
        if let Heard::Reply(reply) | Heard::Answered(reply) = heard {
            scene.act(Action::Probe(id, from, reply, true));
        }
        if matches!(heard, Heard::Answered(_) | Heard::Closed) {
            let first = !std::mem::replace(&mut connection.confirmed, true);
            self.suspicion = self.suspicion.filter(|(suspect, _)| *suspect != id);
            if first {
                self.dialling.prove(path);
                self.choose(scene);
            }
            self.change_path(scene);
        }
    }

    fn lane_probed(scene: &mut Scene<'_>, connection: &mut Connection, probe: LaneProbe) {
        match probe {
            LaneProbe::Question(answer) if connection.ready() => {
                scene.act(Action::Probe(connection.id, connection.path, answer, true));
            }
            LaneProbe::Question(_) => {}
            LaneProbe::Answer(lane, number) => {
                scene.with_lanes(connection, |now, lanes, steps| lanes.answered(now, lane, number, steps));
            }
        }
    }

    pub(super) fn lane_wanted(&mut self, scene: &mut Scene<'_>, theirs: u32, lane: u8) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.theirs == Some(theirs) && c.ready())
        {
            scene.with_lanes(connection, |now, lanes, steps| lanes.wanted(now, lane, steps));
        }
    }

    /// Somebody says that the peer does not know this index of its own.
    pub(super) fn notice(&mut self, scene: &mut Scene<'_>, index: u32) {
        let suspect = self.connections.iter_mut().find(|c| c.theirs == Some(index) && c.ready());
        match suspect {
            Some(connection) if self.suspicion.is_none() && scene.now >= self.notices_from => {
                let (id, path) = (connection.id, connection.path);
                self.suspicion = Some((id, scene.now + NOTICE_PATIENCE));
                self.ask(scene, id, path);
            }
            _ => scene.act(Action::Count(DropReason::NoticeIgnored)),
        }
    }

    pub(super) fn end_all(&mut self, scene: &mut Scene<'_>, why: Why) {
        while let Some(connection) = self.connections.first() {
            let id = connection.id;
            self.end(scene, id, why);
        }
        self.choose(scene);
    }

    /// Whatever is due.
    pub(super) fn tick(&mut self, scene: &mut Scene<'_>) {
        self.lower = scene.lower;
        self.need.settle(scene.now);
        self.end_overdue(scene);
        self.suspect(scene);
        self.rekey_due(scene);
        self.change_path(scene); // Another path has other probes.
        self.probe(scene);
        self.probe_size(scene);
        self.tell_seen(scene);
        for connection in self.connections.iter_mut().filter(|c| c.ready()) {
            scene.with_lanes(connection, |now, lanes, steps| lanes.tick(now, steps));
        }
        if self.settle.is_some_and(|at| at <= scene.now) {
            self.settle = None;
            self.close_superfluous(scene);
        }
        self.dial(scene);
        self.open_streams(scene);
    }

    pub(super) fn next_wake(&self) -> Option<Duration> {
        let connections = self.connections.iter().flat_map(|c| {
            let lanes = if c.ready() { c.lanes.next() } else { None };
            [Some(c.ends()), c.next_probe(self.lower), c.epochs.next_wake(c.works()), lanes]
        });
        let dial = if self.wants_dial() { self.dialling.next() } else { None };
        let dial = dial.filter(|at| self.need.holds(*at));
        let idle = self.need.ends().filter(|_| !self.connections.is_empty());
        let paths = self.paths.next_wake(self.lower);
        let streams = self.streams.next();
        let size = self.paths.next_size().filter(|_| self.up);
        let seen = self.untold().map(|_| self.seen_from);
        let rest = [self.suspicion.map(|(_, at)| at), self.settle, dial, paths, idle, streams, size, seen];
        connections.chain(rest).flatten().min()
    }

    /// What it is known by.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        self.connections.iter().flat_map(|c| {
            let known = [Some(Name::Connection(c.id)), c.theirs.map(Name::Theirs)];
            known.into_iter().flatten().chain(c.epochs.indexes().map(Name::Ours))
        })
    }

    /// Whether its connections are there for nothing.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        !self.connections.is_empty() && self.need.ends().is_some_and(|at| at <= now)
    }

    pub(super) fn view(&self) -> LinkView {
        let used = self.connections.iter().find(|c| Some(c.id) == self.used);
        let state = match used {
            Some(_) if self.up => LinkState::Up,
            Some(_) => LinkState::Connecting,
            None if self.connections.is_empty() => LinkState::Down,
            None => LinkState::Connecting,
        };
        let (rtt, loss) = self.paths.quality();
        LinkView {
            host: self.host,
            state,
            connection: self.used,
            path: used.or(self.connections.first()).map(|c| c.path),
            rtt,
            loss,
            since: used.map(|c| c.epochs.since()),
        }
    }

    pub(super) fn by_index(&mut self, index: u32) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.epochs.opens(index))
    }

    fn end_overdue(&mut self, scene: &mut Scene<'_>) {
        let overdue: Vec<(ConnectionId, Stage)> =
            self.connections.iter().filter(|c| c.ends() <= scene.now).map(|c| (c.id, c.stage)).collect();
        if overdue.is_empty() {
            return;
        }
        for (id, stage) in overdue {
            match stage {
                Stage::Dialling | Stage::Greeting => self.end(scene, id, Why::GivenUp),
                Stage::Ready => {
                    self.end(scene, id, Why::Silent);
                    self.found_dead = true;
                }
                Stage::Lingering => self.erase(scene, id),
            }
        }
        self.give_up_waiting(scene);
        self.choose(scene);
    }

    pub(super) fn wants_dial(&self) -> bool {
        let suffices = |c: &Connection| c.ready() && (!self.renew || c.replaces);
        !self.connections.iter().any(|c| c.stage == Stage::Greeting || suffices(c))
    }

    pub(super) fn dial(&mut self, scene: &mut Scene<'_>) {
        if !self.wants_dial() || !self.need.holds(scene.now) {
            return;
        }
        loop {
            let dialling = self.connections.iter().filter(|c| c.stage == Stage::Dialling);
            let pending: Vec<Path> = dialling.map(|c| c.path).collect();
            let relays = scene.relay_dials < MAX_RELAY_DIALS;
            let Some(path) = self.dialling.due(scene.now, &pending, relays, scene.jitter) else { return };
            scene.relay_dials += usize::from(!path.is_direct());
            self.dial_along(scene, path);
        }
    }

    /// Dials if there is a need.
    pub(super) fn dial_if_wanted(&mut self, scene: &mut Scene<'_>, path: Path) {
        if self.wants_dial() {
            self.dial_along(scene, path);
        }
    }

    fn dial_along(&mut self, scene: &mut Scene<'_>, path: Path) {
        *scene.connections += 1;
        let id = ConnectionId(*scene.connections);
        let mut connection = Connection::new(id, path, true, Stage::Dialling, scene.now);
        connection.replaces = self.renew || self.found_dead;
        self.connections.push(connection);
        scene.act(Action::Dial(id, self.host, path));
    }

    /// Closes a connection and forgets it and its keys at once. The caller chooses anew.
    pub(super) fn end(&mut self, scene: &mut Scene<'_>, id: ConnectionId, why: Why) {
        let lingers = self.connections.iter().any(|c| c.id == id && c.stage == Stage::Lingering);
        if !lingers {
            scene.act(Action::Close(id, why));
        }
        self.erase(scene, id);
    }

    pub(super) fn erase(&mut self, scene: &mut Scene<'_>, id: ConnectionId) {
        let had_keys = self.connections.iter().any(|c| c.id == id && c.epochs.any());
        self.connections.retain(|c| c.id != id);
        if had_keys {
            scene.act(Action::EraseKeys(id));
        }
    }
}
