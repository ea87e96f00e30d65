//! `weft up`: what is started, in which order, and how it ends. The plugin first, so that Docker never waits for us; then the
//! mesh; then everything that keeps this host as it is decided. Bridges, veths and containers are left alone at the end.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::BootId;
use weft_api::request::{HoldRange, Join, path};
use weft_docker_plugin as plugin_protocol;
use weft_router::mesh::Limits;
use weft_router_io::bridge::{BridgeError, Bridges, Ours};
use weft_router_io::lane;
use weft_router_io::node::{Node, NodeConfig, NodeEvent, StartError, Stored};

use crate::api::Api;
use crate::attach::Attachments;
use crate::book::{Book, view_of};
use crate::deciding::{Controller, Deciding};
use crate::leave::Leaving;
use crate::state::{Identity, LedgerError, Lock, StateDir, StateError};
use crate::{
    blocks, clock, docker, leases, naming, networks, plugin, rekey, returns, socket, spread, stranded,
};

/// Streams of other members that are served at the same time; a further one is closed.
const MAX_STREAMS: usize = 64;

/// Who is being answered when the end comes has this long.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// What a run needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory.
    pub state: StateDir,
    /// The admin socket.
    pub admin: PathBuf,
    /// Docker's plugin socket.
    pub plugin: PathBuf,
    /// Threads that carry frames, at most [`lane::MAX_LANES`].
    pub lanes: usize,
    /// Up to so many hosts everybody keeps a session with everybody; the usual number without.
    pub full_mesh: Option<usize>,
}

impl Config {
    /// The usual sockets, and a lane for each processor.
    #[must_use]
    pub fn new(state: StateDir) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            state,
            admin: weft_client::SOCKET.into(),
            plugin: plugin_protocol::SOCKET.into(),
            lanes: processors.min(lane::MAX_LANES),
            full_mesh: None,
        }
    }
}

/// Why the daemon does not start, or stops.
#[derive(Debug, Error)]
pub enum RunError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// What this host must remember.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The kernel's bridges.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The mesh.
    #[error(transparent)]
    Node(#[from] StartError),
    /// A socket for this host.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No signals, no end.
    #[error("cannot wait for signals: {0}")]
    Signal(io::Error),
    /// Frames no longer pass; the log has the reason.
    #[error(
        "the lane's thread has ended, so no frame passes any more: see the log above, and start weft up again"
    )]
    LaneEnded,
    /// The kernel gives no random bytes.
    #[error("this machine gives no random numbers: check /dev/urandom")]
    NoRandom,
}

/// Runs until SIGTERM, SIGINT, or until this host has left the mesh. `lock` is the state directory's.
pub async fn run(
    config: Config,
    identity: Identity,
    lock: Lock,
    controller: Option<Arc<dyn Controller>>,
) -> Result<(), RunError> {
    let started = Instant::now();
    let mut ends = Ends::listen()?;
    let ledger = Arc::new(config.state.open_ledger(identity.mesh.mesh)?);
    let stored = with_own_decisions(ledger.stored()?, controller.as_deref());
    let book = Arc::new(Book::open(identity.id(), Arc::clone(&ledger), &stored)?);
    let bridges = Bridges::open()?;
    bury_the_dead(&book, &bridges).await?;
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |source| RunError::Socket { path, source }
    };
    let (decider, to_ask) = watch::channel(None);
    let place = plugin::serve(&config.plugin, Arc::clone(&book), bridges.clone(), holding(to_ask))
        .map_err(at(&config.plugin))?;
    let ended = async {
        let disk = Box::new(spread::Disk(Arc::clone(&ledger)));
        let node_config = node_config(&config, &identity, ledger.next_boot()?, stored)?;
        let (node, events) = Node::start(node_config, disk).await?;
        let of_every_host = rekey::routes(node.clone(), identity.host.clone()).merge(clock::routes());
        let deciding = Deciding::new(identity.id(), node.clone(), controller.as_deref(), of_every_host);
        let (tell_removed, removed) = watch::channel(false);
        let mut mesh = tokio::spawn(answer_mesh(
            events,
            deciding.clone(),
            leases::routes(Arc::clone(&book), deciding.clone()),
            tell_removed,
        ));
        let docker = docker::watch(Arc::clone(&book), bridges.clone(), deciding.clone());
        tokio::spawn(naming::withdraw(Arc::clone(&book), deciding.clone()));
        decider.send_replace(Some(deciding.clone()));
        let (present, keeper) =
            networks::keep(Arc::clone(&book), bridges.clone(), node.clone(), docker.clone());
        let stranded = stranded::keep(Arc::clone(&book), docker.clone(), present.clone());
        tokio::spawn(spread::into_book(Arc::clone(&book), node.clone()));
        tokio::spawn(blocks::keep(Arc::clone(&book), deciding.clone()));
        tokio::spawn(leases::borrow(Arc::clone(&book), deciding.clone()));
        tokio::spawn(leases::settle(Arc::clone(&book), deciding.clone()));
        tokio::spawn(returns::keep(Arc::clone(&book), deciding.clone()));
        tokio::spawn(spread::out_of_book(
            identity.clone(),
            Arc::clone(&book),
            node.clone(),
            bridges.clone(),
            present.clone(),
            controller.clone(),
        ));
        let signer = controller.clone();
        if let Some(controller) = controller {
            tokio::spawn(spread::into_controller(Arc::clone(&controller), node.clone()));
            tokio::spawn(spread::decisions(controller, node.clone()));
        }
        let attachments = Attachments::start(Arc::clone(&book), bridges.clone(), docker.clone());
        let leaving = Leaving {
            state: config.state.clone(),
            identity: identity.clone(),
            book: Arc::clone(&book),
            bridges,
            docker: docker.clone(),
            deciding: Some(deciding.clone()),
            keeper: Some(keeper),
        };
        let (left, has_left) = mpsc::channel(1);
        tracing::info!(mesh = %identity.mesh.name, host = %identity.host, id = %identity.id(), port = identity.port, "up");
        let api =
            Api { identity, signer, book, node: node.clone(), attachments, deciding, docker, present, stranded, leaving, left, started, removed };
        let listener = socket::bind(&config.admin).map_err(at(&config.admin))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let served = axum::serve(listener, api.routes()).with_graceful_shutdown(async {
            let _dropped_is_said = stopped.await;
        });
        let served = tokio::spawn(served.into_future());
        let ended = tokio::select! {
            () = ends.wait(has_left) => Ok(()),
            _ = &mut mesh => Err(RunError::LaneEnded),
        };
        drop(stop);
        let _who_still_asks_is_cut_off = tokio::time::timeout(LAST_ANSWERS, served).await;
        node.shutdown().await;
        tracing::info!("down: bridges, veths and containers stay as they are");
        ended
    }
    .await;
    for removed in [place.leave(), socket::remove(&config.admin)] {
        if let Err(e) = removed {
            tracing::debug!(error = %e, "a socket is left over");
        }
    }
    drop(lock);
    ended
}

/// Docker waits for a range so long.
const HOLD_PATIENCE: Duration = Duration::from_secs(3);

/// How the plugin asks who decides; it answers Docker before the mesh is up.
fn holding(mut decider: watch::Receiver<Option<Deciding>>) -> plugin::Hold {
    decider.mark_unchanged();
    Arc::new(move |wish: HoldRange| {
        let mut decider = decider.clone();
        Box::pin(async move {
            let asked = async {
                let deciding = match decider.wait_for(Option::is_some).await {
                    Ok(deciding) => deciding.clone(),
                    Err(_ended) => None,
                };
                let starting = || ApiError::new(ErrorKind::Unavailable, "weft up is ending: try again");
                deciding.ok_or_else(starting)?.post(path::RANGES, &wish).await
            };
            tokio::time::timeout(HOLD_PATIENCE, asked).await.unwrap_or_else(|_| {
                let sentence = "who decides for this mesh does not answer within 3 s, so no network can be made now: try again, and see weft status";
                Err(ApiError::new(ErrorKind::Unavailable, sentence))
            })
        })
    })
}

/// What a reboot has ended is forgotten before Docker asks for it again.
async fn bury_the_dead(book: &Book, bridges: &Bridges) -> Result<(), RunError> {
    let (mut alive, mut networks) = (BTreeSet::new(), BTreeSet::new());
    for ours in bridges.list_ours().await? {
        match ours {
            Ours::Veth { name, .. } => drop(alive.insert(name)),
            Ours::Bridge(network) => drop(networks.insert(network)),
            Ours::Tap(_) => {}
        }
    }
    book.bury(&alive, &networks)?;
    Ok(())
}

fn node_config(
    config: &Config,
    identity: &Identity,
    boot_counter: u64,
    stored: Stored,
) -> Result<NodeConfig, RunError> {
    let mut boot = BootId([0; 16]);
    aws_lc_rs::rand::fill(&mut boot.0).map_err(|_| RunError::NoRandom)?;
    Ok(NodeConfig {
        host_key: config.state.host_key()?,
        boot,
        boot_counter,
        mesh: identity.mesh.clone(),
        mesh_key: identity.mesh_key,
        listen: SocketAddr::new(any_address(), identity.port),
        limits: config.full_mesh.map_or_else(Limits::default, Limits::full_up_to),
        lanes: config.lanes,
        stored,
        dial: identity.dial.clone(),
    })
}

/// Both families on one socket, unless the kernel has no IPv6.
fn any_address() -> IpAddr {
    if Path::new("/proc/net/if_inet6").exists() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// On the deciding host the controller's file comes before what was heard back from the mesh; the mesh's may be newer if the
/// disk was restored from a backup, and then the controller adopts it.
fn with_own_decisions(mut stored: Stored, controller: Option<&dyn Controller>) -> Stored {
    let Some(controller) = controller else { return stored };
    spread::hear(controller, &view_of(&stored));
    if controller.signs() {
        stored.successions = controller.successions();
        stored.roster = controller.roster();
    }
    if controller.decides() {
        stored.decisions = controller.decisions();
    }
    stored
}

/// Answers for as long as the lane runs.
async fn answer_mesh(
    mut events: mpsc::Receiver<NodeEvent>,
    deciding: Deciding,
    routes: axum::Router,
    removed: watch::Sender<bool>,
) {
    let streams = Arc::new(Semaphore::new(MAX_STREAMS));
    while let Some(event) = events.recv().await {
        let permit = Arc::clone(&streams).try_acquire_owned();
        let (deciding, routes) = (deciding.clone(), routes.clone());
        match (event, permit) {
            (NodeEvent::ApiStream { from, stream }, Ok(permit)) => {
                tokio::spawn(async move {
                    deciding.serve(from, stream, routes).await;
                    drop(permit);
                });
            }
            (NodeEvent::Join { wish, reply }, Ok(permit)) => {
                tokio::spawn(async move {
                    let admitted = deciding.post(path::JOIN, &Join { wish }).await;
                    let _joiner_gave_up = reply.send(admitted);
                    drop(permit);
                });
            }
            (NodeEvent::ApiStream { from, .. }, Err(_)) => {
                tracing::warn!(%from, "too many requests of other members: one was closed");
            }
            (NodeEvent::Join { reply, .. }, Err(_)) => {
                let busy =
                    ApiError::new(ErrorKind::Unavailable, "the member that was asked is busy: try again");
                let _joiner_gave_up = reply.send(Err(busy));
            }
            (NodeEvent::LaneEnded, _) => return,
            (NodeEvent::Removed, _) => {
                tracing::warn!("this host was removed from the mesh: run weft leave --force");
                removed.send_replace(true);
            }
        }
    }
}

/// What ends the process.
struct Ends {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Ends {
    fn listen() -> Result<Self, RunError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(RunError::Signal)?,
            interrupt: signal(SignalKind::interrupt()).map_err(RunError::Signal)?,
        })
    }

    async fn wait(&mut self, mut left: mpsc::Receiver<()>) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("asked to stop (SIGTERM)"),
            _ = self.interrupt.recv() => tracing::info!("asked to stop (SIGINT)"),
            _ = left.recv() => tracing::info!("this host has left the mesh"),
        }
    }
}
