//! The networks of the mesh on this host: a bridge, a tap that the lane reads, a network object in Docker, and a rule in the
//! firewall. Decisions say what must be there; what is missing is made, again and again until it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use weft_api::id::NetworkId;
use weft_api::network::Network;
use weft_docker_engine::Engine;
use weft_router_io::bridge::{Bridges, Ours, host_ifname};
use weft_router_io::node::Node;
use weft_router_io::tap::TapQueue;

use crate::book::Book;
use crate::docker::Docker;
use crate::firewall;

/// Everything is looked at this often, whether something has changed or not: people remove bridges.
const EVERY: Duration = Duration::from_secs(10);

/// The firewall is looked at this often: until its rules are back, frames between containers are dropped.
const RULES_EVERY: Duration = Duration::from_secs(3);

/// What went wrong is tried again this much later.
const AGAIN: Duration = Duration::from_secs(1);

/// A new network is said to be here once Docker has it too, so that `docker run` works wherever it is listed; but a slow
/// engine does not hold it back longer than this.
const DOCKER_PATIENCE: Duration = Duration::from_millis(1500);

/// How the networks of this host are; told to people and published as facts.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Present {
    /// Their bridge and tap are up.
    pub ready: BTreeSet<NetworkId>,
    /// What does not work, a sentence each.
    pub problems: BTreeMap<NetworkId, String>,
    /// What is wrong with the firewall, if anything.
    pub firewall: Option<String>,
}

/// Keeps the networks as decided, in a task of its own, until the process ends or the task is aborted.
pub fn keep(
    book: Arc<Book>,
    bridges: Bridges,
    node: Node,
    docker: watch::Receiver<Docker>,
) -> (watch::Receiver<Present>, AbortHandle) {
    let (present, watched) = watch::channel(Present::default());
    let keeper = Keeper {
        book,
        bridges,
        node,
        docker,
        present,
        taps: BTreeSet::new(),
        accepted: None,
        in_docker: Arc::default(),
    };
    (watched, tokio::spawn(keeper.run()).abort_handle())
}

struct Keeper {
    book: Arc<Book>,
    bridges: Bridges,
    node: Node,
    docker: watch::Receiver<Docker>,
    present: watch::Sender<Present>,
    /// Networks whose tap the lane has.
    taps: BTreeSet<NetworkId>,
    /// Networks that the firewall accepts.
    accepted: Option<BTreeSet<NetworkId>>,
    in_docker: Arc<InDocker>,
}

/// How far Docker has got; asked in tasks of their own, since the engine may take its time.
#[derive(Default)]
struct InDocker(Mutex<BTreeMap<NetworkId, Asked>>);

#[derive(Default)]
struct Asked {
    underway: bool,
    made: Option<Network>,
    problem: Option<String>,
}

impl Keeper {
    async fn run(mut self) {
        let mut changes = self.book.changes();
        let mut next_look = Instant::now();
        let mut next_rules = Instant::now();
        loop {
            changes.mark_unchanged();
            let looked = Instant::now() >= next_look;
            if looked {
                next_look = Instant::now() + EVERY;
                self.look_around().await;
            }
            if Instant::now() >= next_rules {
                next_rules = Instant::now() + RULES_EVERY;
                self.accepted = None;
            }
            let well = self.step().await;
            let wake = if well { next_look.min(next_rules) } else { Instant::now() + AGAIN };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                changed = self.docker.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What another engine, or the same after a restart, has is not known; and it has made its rules anew.
                    self.in_docker.clear();
                    next_rules = Instant::now();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Finds what was removed behind our back, and what an earlier life left.
    async fn look_around(&mut self) {
        let there: BTreeSet<Ours> = match self.bridges.list_ours().await {
            Ok(ours) => ours.into_iter().collect(),
            Err(e) => return tracing::warn!(error = %e, "the interfaces of this machine cannot be listed"),
        };
        let complete = |id: &NetworkId| there.contains(&Ours::Bridge(*id)) && there.contains(&Ours::Tap(*id));
        for network in self.taps.iter().filter(|id| !complete(id)) {
            tracing::warn!(%network, "somebody removed the bridge or the tap: made again");
            self.node.detach_tap(*network);
        }
        self.taps.retain(complete);
        // Asked after the list was made: an endpoint is in the book before it has a veth, and as long as it has one.
        let veths: BTreeSet<String> =
            self.book.endpoints().iter().filter_map(|endpoint| host_ifname(&endpoint.id).ok()).collect();
        let is_leftover = |ours: &&Ours| match ours {
            Ours::Bridge(id) => self.book.network(*id).is_none(),
            Ours::Veth { name, .. } => !veths.contains(name),
            Ours::Tap(_) => false,
        };
        for leftover in there.iter().filter(is_leftover) {
            match self.bridges.remove_leftover(leftover).await {
                Ok(()) => tracing::info!(?leftover, "removed what an earlier life left"),
                Err(e) => tracing::warn!(?leftover, error = %e, "cannot be removed"),
            }
        }
    }

    /// One step towards what is decided; whether all is well.
    async fn step(&mut self) -> bool {
        let networks = self.book.networks_here();
        let wanted: BTreeSet<NetworkId> = networks.iter().map(|network| network.id).collect();
        let mut next = Present::default();
        for id in self.taps.clone().difference(&wanted) {
            self.remove(*id).await;
        }
        self.in_docker.retain(&wanted);
        for network in &networks {
            let known_to_docker = !self.book.docker_ids(network.id).is_empty();
            if let Err(why) = self.ensure(network).await {
                next.problems.insert(network.id, why);
                continue;
            }
            let engine = self.docker.borrow().engine().cloned();
            if let Some(engine) = engine
                && self.in_docker.begin(network)
            {
                let asked = tokio::spawn(ask(
                    engine,
                    Arc::clone(&self.in_docker),
                    Arc::clone(&self.book),
                    network.clone(),
                ));
                if !known_to_docker {
                    let _slow_engines_finish_alone = tokio::time::timeout(DOCKER_PATIENCE, asked).await;
                }
            }
            if let Some(why) = self.in_docker.problem(network.id) {
                next.problems.insert(network.id, why);
            }
            next.ready.insert(network.id);
        }
        if self.accepted.as_ref() != Some(&wanted) {
            match firewall::ensure(&wanted).await {
                Ok(state) => {
                    if state == firewall::State::Mended {
                        tracing::info!("the firewall's accept rules were put right");
                    }
                    self.accepted = Some(wanted);
                }
                Err(e) => next.firewall = Some(e.to_string()),
            }
        }
        let well = next.problems.is_empty() && next.firewall.is_none();
        self.tell(next);
        well
    }

    fn tell(&self, next: Present) {
        let before = self.present.borrow().clone();
        for (network, problem) in &next.problems {
            if before.problems.get(network) != Some(problem) {
                tracing::warn!(%network, problem, "a network does not work here");
            }
        }
        if let (Some(problem), true) = (&next.firewall, next.firewall != before.firewall) {
            tracing::warn!(problem, "the firewall is not as it must be");
        }
        for network in next.ready.difference(&before.ready) {
            tracing::info!(%network, "network is up here");
        }
        if before != next {
            self.present.send_replace(next);
        }
    }

    /// Bridge and tap.
    async fn ensure(&mut self, network: &Network) -> Result<(), String> {
        if self.taps.contains(&network.id) {
            return Ok(());
        }
        self.bridges.ensure_bridge(network).await.map_err(|e| e.to_string())?;
        let name = network.id.tap_name();
        let queues = (0..self.node.lanes()).map(|_| TapQueue::open(&name)).collect::<Result<_, _>>();
        let queues = queues.map_err(|e| e.to_string())?;
        self.bridges.add_tap_port(network.id).await.map_err(|e| e.to_string())?;
        self.node.attach_tap(network.id, queues);
        self.taps.insert(network.id);
        Ok(())
    }

    /// The mesh, or this host, has it no more.
    async fn remove(&mut self, network: NetworkId) {
        self.node.detach_tap(network);
        self.taps.remove(&network);
        tracing::info!(%network, "network is gone");
        if let Some(engine) = self.docker.borrow().engine().cloned() {
            let (docker_ids, bridges) = (self.book.docker_ids(network), self.bridges.clone());
            let at_work = self.book.at_work(Some(network));
            tokio::spawn(async move {
                let _our_own_doing = at_work;
                for id in docker_ids {
                    if let Err(e) = engine.remove_network(&id).await {
                        tracing::warn!(%network, error = %e, "Docker keeps a network that is gone");
                    }
                }
                if let Err(e) = bridges.remove_bridge(network).await {
                    tracing::warn!(%network, error = %e, "the bridge of a network that is gone is left over");
                }
            });
        }
    }
}

async fn ask(engine: Engine, in_docker: Arc<InDocker>, book: Arc<Book>, network: Network) {
    let (id, name) = (network.id, network.name.clone());
    let at_work = book.at_work(Some(id));
    let ensured = engine.ensure_network(&network, &book.docker_ids(id)).await;
    drop(at_work);
    let (made, problem) = match ensured {
        Ok(made) => {
            if made.created {
                tracing::info!(network = name, "Docker has the network now");
            }
            (Some(network), None)
        }
        Err(e) => (None, Some(e.to_string())),
    };
    in_docker.with(|all| all.insert(id, Asked { underway: false, made, problem }));
}

impl InDocker {
    /// Whether Docker must be asked now: it does not have the network so, and nobody is asking.
    fn begin(&self, network: &Network) -> bool {
        self.with(|all| {
            let asked = all.entry(network.id).or_default();
            let begins = !asked.underway && asked.made.as_ref() != Some(network);
            asked.underway |= begins;
            begins
        })
    }

    fn problem(&self, network: NetworkId) -> Option<String> {
        self.with(|all| all.get(&network).and_then(|asked| asked.problem.clone()))
    }

    fn retain(&self, networks: &BTreeSet<NetworkId>) {
        self.with(|all| all.retain(|id, _| networks.contains(id)));
    }

    fn clear(&self) {
        self.with(BTreeMap::clear);
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<NetworkId, Asked>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
