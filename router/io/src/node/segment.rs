//! What this host notices on its own bridges: who listens to which multicast group, MACs that were frozen, and bridges of
//! other hosts that are tied to its own outside weft. Asks and remembers; the agent tells others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use weft_api::id::{HostId, MeshId, NetworkId};
use weft_api::sign::{Signed, SigningKey};
use weft_router::drop::DropCounters;
use weft_router::switch::Frozen;
use weft_router::switch::group::{Heard, Memberships};
use weft_router::switch::ties::{self, PROBE_EVERY, Probe, Ties};

use super::engine::Engine;
use super::store::Store;

use crate::lane::LaneHandle;

/// The groups that this host takes of each network.
pub type Groups = BTreeMap<NetworkId, BTreeSet<IpAddr>>;

/// The hosts whose bridges are tied to this host's, network by network.
pub type Tied = BTreeMap<NetworkId, BTreeSet<HostId>>;

/// Changes are told this often at most, since each goes round the mesh.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A frozen MAC that nobody tried to move for so long is forgotten.
const FROZEN_FOR: Duration = Duration::from_secs(30);
/// Frozen MACs of a network that are remembered.
const MAX_FROZEN: usize = 16;

/// Who asks.
pub(super) struct Myself {
    pub mesh: MeshId,
    pub host: HostId,
    pub key: SigningKey,
    /// Rises on disk with every start of the process.
    pub boot: u64,
}

/// The node's view of its own bridges.
pub(super) struct Segments {
    me: Myself,
    lane: LaneHandle,
    store: Arc<Store>,
    drops: Arc<DropCounters>,
    start: Instant,
    state: Mutex<State>,
    /// Something was heard, or networks changed.
    touched: Notify,
    groups: watch::Sender<Groups>,
}

#[derive(Default)]
struct State {
    memberships: Memberships,
    told: Option<Duration>,
    frozen: BTreeMap<NetworkId, Vec<(Frozen, Duration)>>,
    networks: BTreeSet<NetworkId>,
    next_probe: Duration,
    probes: u64,
    ties: Ties,
    tied: Tied,
}

impl Segments {
    pub(super) fn new(me: Myself, lane: LaneHandle, store: Arc<Store>, drops: Arc<DropCounters>) -> Self {
        let (start, state) = (Instant::now(), Mutex::default());
        let groups = watch::Sender::new(Groups::new());
        Self { me, lane, store, drops, start, state, touched: Notify::new(), groups }
    }

    pub(super) fn groups(&self) -> watch::Receiver<Groups> {
        self.groups.subscribe()
    }

    /// The networks that this host has.
    pub(super) fn set_networks(&self, networks: &BTreeSet<NetworkId>) {
        let now = self.start.elapsed();
        let mut state = self.lock();
        state.memberships.set_networks(networks, now);
        state.frozen.retain(|network, _| networks.contains(network));
        state.ties.retain(|network| networks.contains(&network));
        if state.networks != *networks {
            state.networks.clone_from(networks);
            state.next_probe = now;
        }
        self.touched.notify_one();
    }

    /// What a container said of groups.
    pub(super) fn heard(&self, network: NetworkId, heard: &[Heard]) {
        self.lock().memberships.hear(network, heard, self.start.elapsed());
        self.touched.notify_one();
    }

    /// A probe came out of a bridge of this host.
    pub(super) fn bridged(&self, network: NetworkId, probe: &Signed<Probe>) {
        let now = self.start.elapsed();
        let heard = self.lock().ties.hear(self.me.host, network, now, || self.store.verify_probe(probe));
        match heard {
            Ok(()) => self.touched.notify_one(),
            Err(reason) => self.drops.count(reason),
        }
    }

    /// The hosts whose bridges are tied to this host's now.
    pub(super) fn tied(&self) -> Tied {
        self.lock().ties.tied(self.start.elapsed())
    }

    /// A lane froze a MAC.
    pub(super) fn froze(&self, network: NetworkId, frozen: Frozen) {
        let now = self.start.elapsed();
        let mut state = self.lock();
        let all = state.frozen.entry(network).or_default();
        all.retain(|(f, since)| f.mac != frozen.mac && now.saturating_sub(*since) < FROZEN_FOR);
        if all.len() < MAX_FROZEN {
            tracing::warn!(%network, mac = %frozen.mac, "a MAC is seen on two hosts in turn: frozen on one");
            all.push((frozen, now));
        }
    }

    /// The MACs that are frozen now.
    pub(super) fn frozen(&self) -> Vec<(NetworkId, Frozen)> {
        let now = self.start.elapsed();
        let state = self.lock();
        let lately = |since: Duration| now.saturating_sub(since) < FROZEN_FOR;
        let all = state.frozen.iter().flat_map(|(network, all)| all.iter().map(|f| (*network, *f)));
        all.filter(|(_, (_, since))| lately(*since)).map(|(network, (f, _))| (network, f)).collect()
    }

    /// For as long as the node runs.
    pub(super) async fn run(&self, engine: &Engine) {
        loop {
            let wake = self.step(engine);
            tokio::select! {
                () = tokio::time::sleep_until((self.start + wake).into()) => {}
                () = self.touched.notified() => {}
            }
        }
    }

    /// Asks what is due, tells what changed; when the next step is due.
    fn step(&self, engine: &Engine) -> Duration {
        let now = self.start.elapsed();
        let mut state = self.lock();
        for (network, frame) in state.memberships.tick(now) {
            self.lane.write_tap(network, &frame);
        }
        self.probe(&mut state, now);
        let tied = state.ties.tied(now);
        if tied != state.tied {
            tracing::warn!(?tied, "bridges tied together outside weft");
            state.tied.clone_from(&tied);
            engine.set_tied(tied);
        }
        let ends = [state.memberships.next_wake(), state.ties.next_end(now)];
        let wake = ends.into_iter().flatten().fold(state.next_probe, Duration::min);
        match state.told.map(|told| told + TELL_EVERY).filter(|due| now < *due) {
            Some(due) => due.min(wake),
            None => {
                let groups = state.memberships.groups(now);
                let told = self.groups.send_if_modified(|told| {
                    let is_news = *told != groups;
                    *told = groups;
                    is_news
                });
                state.told = told.then_some(now);
                wake
            }
        }
    }

    /// Asks every bridge, if it is due, whether another host reads it.
    fn probe(&self, state: &mut State, now: Duration) {
        if now < state.next_probe {
            return;
        }
        state.next_probe = now + PROBE_EVERY;
        for network in &state.networks {
            state.probes += 1;
            let Myself { mesh, host, boot, .. } = self.me;
            let probe = Probe { mesh, host, network: *network, sequence: (boot, state.probes) };
            self.lane.write_tap(*network, &ties::frame(&self.me.key.sign(&probe)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
