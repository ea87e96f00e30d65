//! The handle that the agent holds: a running member of the mesh. It keeps sessions with every other member, stores and
//! spreads roster, facts and decisions, and tells the lane where frames go.
//!
//! `engine` carries out what the session layer decides (with `keys`, `streams` and `links`), `segment` looks after this host's
//! bridges, `connection` has the tasks of one connection, `keeper` takes records
//! and stores them, `store` is what is known.

mod config;
mod connection;
mod engine;
mod keeper;
mod keys;
mod links;
mod segment;
mod store;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use weft_api::decision::{Decision, DecisionKey};
use weft_api::error::ApiError;
use weft_api::fact::{FactVersion, Item, Items};
use weft_api::id::{HostId, HostKey, MeshKey, NetworkId};
use weft_api::report::Link;
use weft_api::request::Admitted;
use weft_api::roster::RosterRecord;
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::Succession;
use weft_api::token::JoinWish;
use weft_router::drop::DropCounters;
use weft_router::mesh::{self, Signatures, Start};
use weft_router::session::Why;
use weft_router::session::mtu::CHECK_INTERVAL;
use weft_router::switch::{Frozen, Table};

use crate::lane::{Granted, LaneEvent, LaneHandle};
use crate::quic::endpoint::{self, SettingsError};
use crate::quic::frames::STREAM_API;
use crate::quic::socket::VirtualSocket;
use crate::quic::tls;
use crate::tap::TapQueue;
use crate::tcp::Tcp;
use config::{listen, random};
use engine::{Engine, Parts};
use keeper::Keeper;
use segment::{Myself, Segments};
use store::Store;

pub use config::{NodeConfig, Persist, StartError, Stored, StoredRecord};
pub use segment::{Groups, Tied};

/// Events that wait for the agent; when full streams and wishes to join are refused (`AgentBusy`).
const EVENT_QUEUE: usize = 256;
/// A peer that takes no stream for so long is busy.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// A removed host's sessions are closed this much later, so that it hears why.
const FAREWELL: Duration = Duration::from_millis(250);
/// Links are measured for this host's facts so often.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// With nothing to wait for a clock still looks now and then.
const IDLE: Duration = Duration::from_secs(1);
const FINEST: Duration = Duration::from_millis(1);

/// What a host says of itself, in the very bytes that the mesh holds.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Which version.
    pub version: FactVersion,
    /// What it says, its links too.
    pub items: Items,
}

/// The mesh as this host knows it. Clones share what has not changed.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct MeshView {
    /// Every record, of removed members too.
    pub roster: Arc<BTreeMap<HostId, RosterRecord>>,
    /// The mesh key that signs them now.
    pub signer: Option<MeshKey>,
    /// How many times the mesh key has been rotated.
    pub rotations: u32,
    /// Other successors that were refused: the number, and the key.
    pub rivals: Vec<(u32, MeshKey)>,
    /// What members say of themselves, this host's own facts too; the last known of those that cannot be reached.
    pub facts: Arc<BTreeMap<HostId, HostFacts>>,
    /// What the controller says.
    pub decisions: Arc<BTreeMap<DecisionKey, Decision>>,
    /// Members to which there is a way, by a link or over other members; this host too.
    pub reachable: Arc<BTreeSet<HostId>>,
    /// The first hop towards those without a link to this host.
    pub through: Arc<BTreeMap<HostId, HostId>>,
}

/// What the agent must answer or know.
#[derive(Debug)]
pub enum NodeEvent {
    /// Another member opened a stream: HTTP/1.1 requests come on it.
    ApiStream {
        /// Who, proven by its key.
        from: HostId,
        /// Where to serve.
        stream: ApiStream,
    },
    /// A host wants to join: pass it to a signer. Without a reply within 10 s the joiner hears that the signer is away.
    Join {
        /// Signed by the token's key, unchecked but for its own shape and the joiner's key.
        wish: Signed<JoinWish>,
        /// The signer's answer.
        reply: oneshot::Sender<Result<Admitted, ApiError>>,
    },
    /// The roster says that this host is no member any more; all its sessions are closed.
    Removed,
    /// The lane's thread is gone, by a panic: no frame passes any more. The process should end and be started anew.
    LaneEnded,
}

/// Why no stream to a host can be had.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum StreamError {
    /// This host itself.
    #[error("host {0} is this host")]
    Itself(HostId),
    /// Not in the roster.
    #[error("host {0} is no member of the mesh")]
    NotAMember(HostId),
    /// No session at the moment.
    #[error("host {0} cannot be reached at the moment")]
    Unreachable(HostId),
    /// Too many streams are open, or the session ended meanwhile.
    #[error("host {0} takes no further stream at the moment")]
    Busy(HostId),
}

/// A running member. Clones are the same node; it stops when the last one is dropped.
#[derive(Clone)]
pub struct Node(Arc<Running>);

struct Running {
    engine: Arc<Engine>,
    segments: Arc<Segments>,
    tasks: Vec<AbortHandle>,
    /// What begins new sessions.
    begins: Vec<AbortHandle>,
}

impl Node {
    /// Listens, dials every member that it knows an address of, and starts the lane. Call it inside a tokio runtime.
    pub async fn start(
        config: NodeConfig,
        disk: Box<dyn Persist>,
    ) -> Result<(Self, mpsc::Receiver<NodeEvent>), StartError> {
        if config.mesh_key.id() != config.mesh.mesh {
            return Err(StartError::WrongMeshKey);
        }
        let me = HostKey(config.host_key.public()).id();
        let drops = Arc::new(DropCounters::new());
        let settings = |e: SettingsError| StartError::Quic(e.to_string());
        let dialler = endpoint::client(&config.host_key, tls::ALPN_MEMBER).map_err(settings)?;
        let [a, b, c, d, e, f, g, h, ..] = random()?;
        let start = Start {
            key: SigningKey::from_seed(*config.host_key.seed()),
            mesh_key: config.mesh_key,
            boot: config.boot_counter,
            successions: config.stored.successions,
            roster: config.stored.roster,
            facts: config.stored.facts,
            decisions: config.stored.decisions,
            hints: config.dial,
            limits: config.limits,
            seed: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            notary: Arc::new(Signatures),
        };
        let store = Arc::new(Store::open(start, &config.mesh.name, Arc::clone(&drops))?);
        let (sockets, listener) = listen(config.listen, config.lanes)?;
        let (lane, lane_events) = LaneHandle::start(sockets)?;
        let tcp = Tcp::new(lane.clone(), Arc::clone(&drops));
        let socket = VirtualSocket::new(lane.clone(), Arc::clone(&drops), random()?);
        let endpoint = endpoint::listen(&config.host_key, Arc::clone(&socket)).map_err(settings)?;
        let key = SigningKey::from_seed(*config.host_key.seed());
        let myself = Myself { mesh: config.mesh.mesh, host: me, key, boot: config.boot_counter };
        let segments = Arc::new(Segments::new(myself, lane.clone(), Arc::clone(&store), Arc::clone(&drops)));
        let (heard, heard_by_keeper) = mpsc::channel(keeper::QUEUE);
        let (events, events_of_agent) = mpsc::channel(EVENT_QUEUE);
        let engine = Engine::new(Parts {
            me,
            boot: config.boot,
            seed: random()?,
            mesh: config.mesh,
            mesh_key: config.mesh_key,
            lane,
            tcp,
            socket,
            endpoint,
            dialler,
            store: Arc::clone(&store),
            drops: Arc::clone(&drops),
            heard,
            events: events.clone(),
        });
        let keeper = Keeper { store, disk: Arc::from(disk), heard: heard_by_keeper, events };
        let tasks = vec![
            tokio::spawn(pump(Arc::clone(&engine), Arc::clone(&segments), lane_events)).abort_handle(),
            tokio::spawn(listen_around(Arc::clone(&segments), Arc::clone(&engine))).abort_handle(),
            tokio::spawn(keeper.run()).abort_handle(),
        ];
        let begins = vec![
            tokio::spawn(connection::accept_all(Arc::clone(&engine))).abort_handle(),
            tokio::spawn(streams::listen(&engine, listener)).abort_handle(),
            tokio::spawn(drive(Arc::clone(&engine))).abort_handle(),
        ];
        Ok((Self(Arc::new(Running { engine, segments, tasks, begins })), events_of_agent))
    }

    /// This host.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.0.engine.me
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.engine.lane.local_addr()
    }

    /// The mesh as known here, and its changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<MeshView>> {
        self.0.engine.store.view()
    }

    /// Says this of this host from now on: versioned, signed, stored and sent to everybody. The same again is no news.
    pub fn publish(&self, items: Vec<Item>) {
        self.0.engine.store.event(mesh::Event::Say(&items));
    }

    /// Takes successors of the mesh key made on this host (a signer's) and spreads them.
    pub fn insert_successions(&self, records: Vec<Signed<Succession>>) {
        self.0.engine.store.event(mesh::Event::MadeSuccessions(records));
    }

    /// Takes records made on this host (a signer's) and spreads them. What does not hold is counted, as if it had been heard.
    pub fn insert_roster(&self, records: Vec<Signed<RosterRecord>>) {
        self.0.engine.store.event(mesh::Event::MadeRoster(records));
    }

    /// Takes decisions made on this host (the controller's) and spreads them.
    pub fn insert_decisions(&self, decisions: Vec<Signed<Decision>>) {
        self.0.engine.store.event(mesh::Event::MadeDecisions(decisions));
    }

    /// A stream to another member's API.
    pub async fn open_stream(&self, host: HostId) -> Result<ApiStream, StreamError> {
        let engine = &self.0.engine;
        if host == engine.me {
            return Err(StreamError::Itself(host));
        }
        if engine.store.name(host).is_none() {
            return Err(StreamError::NotAMember(host));
        }
        let connection = engine.connection_to(host).await.ok_or(StreamError::Unreachable(host))?;
        let open = async {
            let (mut send, receive) = connection.open_bi().await.ok()?;
            send.write_all(&[STREAM_API]).await.ok()?;
            Some(ApiStream { send, receive })
        };
        timeout(OPEN_TIMEOUT, open).await.ok().flatten().ok_or(StreamError::Busy(host))
    }

    /// The networks that this host has, and what is known of them; replaces those of before. Whose bridges are tied is the node's
    /// to say.
    pub fn set_networks(&self, networks: Vec<Arc<Table>>) {
        self.0.segments.set_networks(&networks.iter().map(|table| table.network).collect());
        self.0.engine.set_networks(networks);
    }

    /// Queues that each tap needs: one for each lane.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.0.engine.lane.lanes()
    }

    /// The lanes read and write these queues of the network's tap from now on.
    pub fn attach_tap(&self, network: NetworkId, queues: Vec<TapQueue>) {
        self.0.engine.lane.attach_tap(network, queues);
    }

    /// The lanes let go of the network's tap.
    pub fn detach_tap(&self, network: NetworkId) {
        self.0.engine.lane.detach_tap(network);
    }

    /// The multicast groups that somebody on this host listens to, and their changes.
    #[must_use]
    pub fn groups(&self) -> watch::Receiver<Groups> {
        self.0.segments.groups()
    }

    /// The hosts whose bridges are tied to this host's outside weft.
    #[must_use]
    pub fn tied(&self) -> Tied {
        self.0.segments.tied()
    }

    /// MACs that were lately seen on two hosts in turn, and frozen on one.
    #[must_use]
    pub fn frozen(&self) -> Vec<(NetworkId, Frozen)> {
        self.0.segments.frozen()
    }

    /// A row for every other member.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        self.0.engine.links()
    }

    /// What was dropped or refused since the start, by reason.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = self.0.engine.lane.drops().by_label();
        for (label, n) in self.0.engine.drops.by_label() {
            *drops.entry(label).or_default() += n;
        }
        drops
    }

    /// What the kernel granted.
    #[must_use]
    pub fn offloads(&self) -> Granted {
        self.0.engine.lane.offloads()
    }

    /// Fresh keys for every session in use, as soon as can be; how many there are.
    pub fn rekey(&self) -> usize {
        self.0.engine.rekey_all()
    }

    /// Sessions that hold keys, old ones that are still heard included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.engine.open_connections()
    }

    /// Closes every session, so that the others know at once, and stops. Waits at most a second.
    pub async fn shutdown(self) {
        let engine = &self.0.engine;
        self.0.begins.iter().for_each(AbortHandle::abort);
        engine.endpoint.set_server_config(None);
        engine.goodbye();
        let _ = timeout(GOODBYE_TIMEOUT, engine.endpoint.wait_idle()).await;
        self.0.stop();
    }
}

impl Running {
    fn stop(&self) {
        self.tasks.iter().chain(&self.begins).for_each(AbortHandle::abort);
        self.engine.endpoint.close(quinn::VarInt::from_u32(Why::Goodbye as u32), b"");
        self.engine.tcp.stop();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks and listens on this host's own bridges.
async fn listen_around(segments: Arc<Segments>, engine: Arc<Engine>) {
    segments.run(&engine).await;
}

/// Lane events: QUIC packets go to quinn at once, what concerns bridges to the segments, the rest to the engine.
async fn pump(engine: Arc<Engine>, segments: Arc<Segments>, mut events: mpsc::Receiver<LaneEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            LaneEvent::Bare { from, bytes } => engine.socket.bare(from, bytes),
            LaneEvent::Quic { index, bytes, .. } => engine.socket.enveloped(index, bytes),
            LaneEvent::Groups { network, heard } => segments.heard(network, &heard),
            LaneEvent::Bridged { network, probe } => segments.bridged(network, &probe),
            LaneEvent::Frozen { network, frozen } => segments.froze(network, frozen),
            event => engine.lane_event(&event),
        }
    }
    // Its queue closes when the lane's thread is gone; that nobody listens any more means that the node stops too.
    let _ = engine.events.send(NodeEvent::LaneEnded).await;
}

/// The session layer's clock, and the mesh's changes. A removed host's sessions close a little later, so that it hears why.
async fn drive(engine: Arc<Engine>) {
    engine.mesh_changed();
    let mut farewell: Option<Instant> = None;
    let mut measure = tokio::time::interval(MEASURE_EVERY);
    let mut full = tokio::time::interval(CHECK_INTERVAL);
    loop {
        let now = Instant::now();
        // Nothing is timed finer, and a layer that asks for the past does not make the host spin.
        let wake = engine.next_wake().map_or(now + IDLE, Instant::from_std).max(now + FINEST);
        tokio::select! {
            () = sleep_until(wake) => engine.tick(),
            _ = measure.tick() => engine.measure(),
            _ = full.tick() => engine.look_for_full(),
            () = engine.touched.notified() => {}
            () = engine.store.changed.notified() => {
                if farewell.is_none() && engine.someone_was_removed() {
                    farewell = Some(Instant::now() + FAREWELL);
                }
                if farewell.is_none() {
                    engine.mesh_changed();
                }
            }
            () = sleep_until(farewell.unwrap_or(wake)), if farewell.is_some() => {
                farewell = None;
                engine.mesh_changed();
            }
        }
    }
}

/// A stream to or from another member; HTTP/1.1 runs on it. Ends when dropped.
#[derive(Debug)]
pub struct ApiStream {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl AsyncRead for ApiStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buf)
    }
}

impl AsyncWrite for ApiStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

#[cfg(test)]
mod tests;
