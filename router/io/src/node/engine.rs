//! The session layer of a node and what it decides about: connections, keys, tables of the lane. One lock, never held across an await.

mod act;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;
use weft_api::id::{BootId, HostId, HostKey, MeshKey};
use weft_api::roster::MeshRecord;
use weft_router::drop::{DropCounters, DropReason};
use weft_router::mesh::{self, Gossip, Proof};
use weft_router::relay::RelayTable;
use weft_router::session::{ConnectionId, DIAL_TIMEOUT, Event, Hello, LinkView, Path, Rekey, Sessions, Why};
use weft_router::switch::Table;

use super::keys::Live;
use super::links::Past;
use super::segment::Tied;
use super::store::{Orders, Store};
use super::{NodeEvent, connection, keys};
use crate::join::Doorman;
use crate::lane::{LaneEvent, LaneHandle};
use crate::quic::bindings::AFTER_CLOSE;
use crate::quic::endpoint::Strangers;
use crate::quic::socket::{Held, VirtualSocket};
use crate::tables::{SendEpoch, Tables};
use crate::tcp::Tcp;

/// Hosts that join at a time; further ones are closed (`AgentBusy`).
const MAX_JOINS: usize = 8;
/// A session that is waited for is looked for so often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What every part of a node shares.
pub(super) struct Engine {
    pub me: HostId,
    pub mesh: MeshRecord,
    pub mesh_key: MeshKey,
    pub lane: LaneHandle,
    pub tcp: Arc<Tcp>,
    pub socket: Arc<VirtualSocket>,
    pub endpoint: quinn::Endpoint,
    pub dialler: quinn::ClientConfig,
    pub store: Arc<Store>,
    pub drops: Arc<DropCounters>,
    pub heard: mpsc::Sender<(HostId, Gossip)>,
    pub events: mpsc::Sender<NodeEvent>,
    /// The session layer's next wake may have come closer.
    pub touched: Notify,
    pub start: Instant,
    /// Incoming handshakes that are not finished.
    pub strangers: Arc<Strangers>,
    joins: Arc<Semaphore>,
    pub itself: Weak<Engine>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub sessions: Sessions,
    pub dials: HashMap<ConnectionId, AbortHandle>,
    pub live: HashMap<ConnectionId, Live>,
    pub tables: Tables,
    pub past: BTreeMap<HostId, Past>,
    pub tied: Tied,
    /// Sessions that are up and go by no third host.
    pub linked: BTreeSet<HostId>,
    /// Nothing new begins.
    pub stopping: bool,
}

impl State {
    /// What the connection's envelopes are sealed with, once there is such a key.
    fn send_epoch(&self, id: ConnectionId) -> Option<&Arc<SendEpoch>> {
        self.live.get(&id)?.keys.as_ref()?.send.as_ref()
    }
}

/// What an [`Engine`] is made of.
pub(super) struct Parts {
    pub me: HostId,
    pub boot: BootId,
    pub seed: [u8; 32],
    pub mesh: MeshRecord,
    pub mesh_key: MeshKey,
    pub lane: LaneHandle,
    pub tcp: Arc<Tcp>,
    pub socket: Arc<VirtualSocket>,
    pub endpoint: quinn::Endpoint,
    pub dialler: quinn::ClientConfig,
    pub store: Arc<Store>,
    pub drops: Arc<DropCounters>,
    pub heard: mpsc::Sender<(HostId, Gossip)>,
    pub events: mpsc::Sender<NodeEvent>,
}

impl Engine {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let sessions = Sessions::new(parts.me, parts.boot, parts.mesh.cipher, parts.seed);
        let state = State {
            sessions,
            dials: HashMap::new(),
            live: HashMap::new(),
            tables: Tables::default(),
            past: BTreeMap::new(),
            tied: Tied::new(),
            linked: BTreeSet::new(),
            stopping: false,
        };
        Arc::new_cyclic(|itself| Self {
            me: parts.me,
            mesh: parts.mesh,
            mesh_key: parts.mesh_key,
            strangers: Arc::default(),
            joins: Arc::new(Semaphore::new(MAX_JOINS)),
            lane: parts.lane,
            tcp: parts.tcp,
            socket: parts.socket,
            endpoint: parts.endpoint,
            dialler: parts.dialler,
            store: parts.store,
            drops: parts.drops,
            heard: parts.heard,
            events: parts.events,
            touched: Notify::new(),
            start: Instant::now(),
            itself: Weak::clone(itself),
            state: Mutex::new(state),
        })
    }

    /// Time has passed.
    pub(super) fn tick(&self) {
        self.event(&mut self.lock(), Event::Tick);
    }

    /// When [`Self::tick`] is due.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.lock().sessions.next_wake().map(|at| self.start + at)
    }

    /// Members or addresses have changed.
    pub(super) fn mesh_changed(&self) {
        let members = self.store.others();
        let Orders { members: all, refused, moved, keep, routes } = self.store.orders();
        let mut state = self.lock();
        if all {
            self.event(&mut state, Event::Members(&members));
        }
        for host in refused {
            self.event(&mut state, Event::Refused(host));
        }
        // Before their addresses, or all of a large mesh were dialled at the start.
        if let Some(keep) = keep {
            self.event(&mut state, Event::Keep(&keep));
        }
        for host in members.iter().filter(|h| all || moved.contains(h)) {
            self.event(&mut state, Event::Addresses(*host, &self.store.addresses(*host)));
        }
        if let Some(routes) = &routes {
            self.event(&mut state, Event::Routes(routes));
        }
        if all || routes.is_some() {
            self.relay_for(&mut state, &members, routes);
        }
    }

    /// Tells the mesh how far its links are, and the session layer where frames go.
    pub(super) fn measure(&self) {
        let mut state = self.lock();
        let links: Vec<_> = state.sessions.links().filter(LinkView::is_direct).collect();
        links.into_iter().for_each(|l| self.store.measured(l.host, l.rtt, l.loss));
        let carried = state.tables.sends.values().filter(|send| send.take_carried()).map(|send| send.host());
        for host in carried.collect::<Vec<_>>() {
            self.event(&mut state, Event::Wanted(host));
        }
    }

    /// Tells the session layer to whom long datagrams go.
    pub(super) fn look_for_full(&self) {
        let mut state = self.lock();
        let full = state.tables.sends.values().filter(|send| send.take_full()).map(|send| send.host());
        for host in full.collect::<Vec<_>>() {
            self.event(&mut state, Event::Full(host));
        }
    }

    /// Tells the mesh which links there are: sessions that go by no third host.
    fn tell_links(&self, state: &mut State) {
        let now: BTreeMap<HostId, LinkView> =
            state.sessions.links().filter(LinkView::is_direct).map(|l| (l.host, l)).collect();
        for host in state.linked.iter().filter(|h| !now.contains_key(h)) {
            self.store.event(mesh::Event::LinkDown(*host));
        }
        for (host, link) in now.iter().filter(|(h, _)| !state.linked.contains(h)) {
            self.store.event(mesh::Event::LinkUp(*host));
            self.store.measured(*host, link.rtt, link.loss);
        }
        state.linked = now.into_keys().collect();
    }

    /// The lanes relay between members, and for nobody else.
    fn relay_for(
        &self,
        state: &mut State,
        others: &BTreeSet<HostId>,
        routes: Option<BTreeMap<HostId, HostId>>,
    ) {
        let members = others.iter().copied().chain([self.me]).collect();
        let routes = routes.unwrap_or_else(|| state.tables.relay.routes.clone());
        state.tables.relay = Arc::new(RelayTable { me: self.me, members, routes });
        self.publish(state);
    }

    /// Whether a peer is no member any more, and has not been closed yet.
    pub(super) fn someone_was_removed(&self) -> bool {
        let members = self.store.others();
        self.lock().sessions.links().any(|l| !members.contains(&l.host))
    }

    /// What the lane tells, QUIC packets aside.
    pub(super) fn lane_event(&self, event: &LaneEvent) {
        let mut state = self.lock();
        match event {
            LaneEvent::Probe { index, from, body, .. } => {
                self.event(&mut state, Event::Probe(*index, from.path(), body));
            }
            LaneEvent::FirstAuthentic { index, .. } => {
                self.envelope_if_ready(&state, *index);
                self.event(&mut state, Event::FirstAuthentic(*index));
            }
            LaneEvent::UnknownIndex { from, index, .. } => {
                self.event(&mut state, Event::UnknownIndex(*from, *index));
            }
            LaneEvent::Wanted { host } => self.event(&mut state, Event::Wanted(*host)),
            LaneEvent::Notice { index, .. } => self.event(&mut state, Event::Notice(*index)),
            LaneEvent::Worn { index, .. } => self.event(&mut state, Event::Worn(*index)),
            LaneEvent::LaneWanted { index, lane } => {
                self.event(&mut state, Event::LaneWanted(*index, *lane));
            }
            LaneEvent::TooBig { host, way, size, limit } => {
                let limit = limit.or_else(|| keys::route_takes(*way));
                self.event(&mut state, Event::TooBig(*host, *way, *size, limit));
            }
            LaneEvent::OffloadLost { what } => {
                tracing::warn!("the kernel refuses {what}; going on without it")
            }
            LaneEvent::Moved { index, from, len } => {
                self.event(&mut state, Event::Moved(*index, *from, *len));
            }
            LaneEvent::Bare { .. }
            | LaneEvent::Quic { .. }
            | LaneEvent::Groups { .. }
            | LaneEvent::Bridged { .. }
            | LaneEvent::Frozen { .. } => {}
        }
    }

    /// A dial of ours reached somebody.
    pub(super) fn reached(&self, id: ConnectionId, key: HostKey, connection: quinn::Connection, held: Held) {
        let mut state = self.lock();
        state.dials.remove(&id);
        if self.refuses(state.stopping, key, &connection) {
            keep_for_a_while(connection, Arc::new(held));
            return self.event(&mut state, Event::Lost(id, None));
        }
        self.come_alive(&mut state, id, key, true, connection, held);
        self.event(&mut state, Event::Reached(id, key.id()));
    }

    /// A dial of ours failed.
    pub(super) fn failed(&self, id: ConnectionId) {
        let mut state = self.lock();
        state.dials.remove(&id);
        self.event(&mut state, Event::Lost(id, None));
    }

    /// Somebody dialled us.
    pub(super) fn accepted(&self, key: HostKey, connection: quinn::Connection, held: Held, path: Path) {
        let mut state = self.lock();
        if self.refuses(state.stopping, key, &connection) {
            // What quinn says now must still find its way.
            return keep_for_a_while(connection, Arc::new(held));
        }
        let id = state.sessions.new_connection();
        self.come_alive(&mut state, id, key, false, connection, held);
        self.event(&mut state, Event::Accepted(id, key.id(), path));
    }

    /// The peer's first message.
    pub(super) fn hello(&self, id: ConnectionId, hello: Hello) {
        let mut state = self.lock();
        let live = state.live.get(&id).filter(|live| self.store.member(live.key).is_some());
        if let (Some(live), Some(seen)) = (live, hello.seen) {
            self.seen(live.host, seen);
        }
        self.event(&mut state, Event::Hello(id, hello));
    }

    /// What a peer presents of itself, before its first message.
    pub(super) fn presented(&self, key: HostKey, proof: &Proof) {
        self.store.event(mesh::Event::Presented(key, proof));
    }

    /// A peer sees this host there.
    pub(super) fn seen(&self, by: HostId, address: SocketAddr) {
        self.store.event(mesh::Event::Seen(by, address));
    }

    /// What the peer says about the keys of a connection.
    pub(super) fn rekey(&self, id: ConnectionId, said: Rekey) {
        self.event(&mut self.lock(), Event::Rekey(id, said));
    }

    /// Fresh keys for every session that is in use; how many there are.
    pub(super) fn rekey_all(&self) -> usize {
        let mut state = self.lock();
        self.event(&mut state, Event::RekeyAll);
        state.sessions.links().filter(|l| l.connection.is_some()).count()
    }

    /// A connection ended.
    pub(super) fn lost(&self, id: ConnectionId, why: Option<Why>) {
        let mut state = self.lock();
        if let Some(live) = state.live.get_mut(&id) {
            live.closed = true;
        }
        self.event(&mut state, Event::Lost(id, why));
        if state.live.get(&id).is_some_and(|l| l.keys.is_none()) {
            state.live.remove(&id);
        }
    }

    /// The connection that a host's streams go by.
    pub(super) fn connection_of(&self, host: HostId) -> Option<quinn::Connection> {
        let state = self.lock();
        let id = state.sessions.used(host)?;
        state.live.get(&id).map(|l| l.connection.clone())
    }

    /// The same; a session that nothing has needed begins now, and is waited for.
    pub(super) async fn connection_to(&self, host: HostId) -> Option<quinn::Connection> {
        let is_on_demand = self.lock().sessions.is_on_demand(host);
        let limit = Instant::now() + DIAL_TIMEOUT;
        loop {
            let connection = self.connection_of(host);
            if connection.is_some() || !is_on_demand || Instant::now() >= limit {
                return connection;
            }
            self.event(&mut self.lock(), Event::Wanted(host));
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Replaces the networks that the lane knows.
    pub(super) fn set_networks(&self, networks: Vec<Arc<Table>>) {
        let mut state = self.lock();
        let tied = |mut table: Arc<Table>| {
            if let Some(hosts) = state.tied.get(&table.network)
                && table.tied != *hosts
            {
                Arc::make_mut(&mut table).tied = hosts.clone();
            }
            (table.network, table)
        };
        let networks = networks.into_iter().map(tied).collect();
        state.tables.networks = networks;
        self.publish(&state);
    }

    /// The hosts whose bridges are tied to this one's outside weft.
    pub(super) fn set_tied(&self, tied: Tied) {
        let mut state = self.lock();
        for (id, table) in &mut state.tables.networks {
            let hosts = tied.get(id).cloned().unwrap_or_default();
            if table.tied != hosts {
                Arc::make_mut(table).tied = hosts;
            }
        }
        state.tied = tied;
        self.publish(&state);
    }

    /// What a joiner is answered with; `None` while there are too many, or this host is no member.
    pub(super) fn doorman(&self) -> Option<Doorman> {
        let place = Arc::clone(&self.joins).try_acquire_owned();
        match (place, self.store.introduction()) {
            (Ok(place), Some((successions, own))) if self.store.is_member() => Some(Doorman {
                mesh_key: self.mesh_key,
                successions,
                own,
                events: self.events.clone(),
                _place: place,
            }),
            _ => {
                self.drops.count(DropReason::AgentBusy);
                None
            }
        }
    }

    /// Tells every peer that this host stops.
    pub(super) fn goodbye(&self) {
        let mut state = self.lock();
        state.stopping = true;
        state.dials.drain().for_each(|(_, dial)| dial.abort());
        for live in state.live.values().filter(|l| !l.closed) {
            close(&live.connection, Why::Goodbye);
        }
    }

    /// Connections that are not closed.
    pub(super) fn open_connections(&self) -> usize {
        self.lock().live.values().filter(|l| !l.closed).count()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever can be no member is told so; who is none as far as is known here may prove that it is one. The session layer knows
    /// hosts by id only; here the whole key is compared.
    fn refuses(&self, stopping: bool, key: HostKey, connection: &quinn::Connection) -> bool {
        let why = if stopping {
            Why::Goodbye
        } else if key.id() == self.me {
            self.drops.count(DropReason::DialledItself);
            Why::Itself
        } else if self.store.is_anothers_id(key) {
            self.drops.count(DropReason::NotAMember);
            Why::NotAMember
        } else {
            return false;
        };
        close(connection, why);
        true
    }

    fn come_alive(
        &self,
        state: &mut State,
        id: ConnectionId,
        key: HostKey,
        ours: bool,
        connection: quinn::Connection,
        held: Held,
    ) {
        let Some(engine) = self.itself.upgrade() else { return };
        let held = Arc::new(held);
        keep_for_a_while(connection.clone(), Arc::clone(&held));
        let (tell, told) = mpsc::channel(connection::TELL_QUEUE);
        let (writer, greeted) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let live = Live {
            connection: connection.clone(),
            held,
            key,
            host: key.id(),
            ours,
            closed: false,
            keys: None,
            writer: Arc::clone(&writer),
            greeted: Arc::clone(&greeted),
            tell,
        };
        state.live.insert(id, live);
        connection::start(connection::Speaker { engine, id, key, connection, writer, greeted }, told);
    }

    pub(super) fn publish(&self, state: &State) {
        self.lane.set_tables(Arc::new(state.tables.clone()));
    }
}

pub(super) fn close(connection: &quinn::Connection, why: Why) {
    connection.close(quinn::VarInt::from_u32(why as u32), b"");
}

/// Keeps a connection's virtual address until a while after it is closed, so that the peer hears why.
fn keep_for_a_while(connection: quinn::Connection, held: Arc<Held>) {
    tokio::spawn(async move {
        connection.closed().await;
        drop(connection);
        tokio::time::sleep(AFTER_CLOSE).await;
        drop(held);
    });
}
