//! What this host notices on its own bridges: who listens to which multicast group, and MACs that were frozen. Asks and
//! remembers; the agent tells others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use weft_api::id::NetworkId;
use weft_router::switch::Frozen;
use weft_router::switch::group::{Heard, Memberships};

use crate::lane::LaneHandle;

/// The groups that this host takes of each network.
pub type Groups = BTreeMap<NetworkId, BTreeSet<IpAddr>>;

/// Changes are told this often at most, since each goes round the mesh.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// A frozen MAC that nobody tried to move for so long is forgotten.
const FROZEN_FOR: Duration = Duration::from_secs(30);
/// Frozen MACs of a network that are remembered.
const MAX_FROZEN: usize = 16;

/// The node's view of its own bridges.
pub(super) struct Segments {
    lane: LaneHandle,
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
}

impl Segments {
    pub(super) fn new(lane: LaneHandle) -> Self {
        let (start, state) = (Instant::now(), Mutex::default());
        Self { lane, start, state, touched: Notify::new(), groups: watch::Sender::new(Groups::new()) }
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
        self.touched.notify_one();
    }

    /// What a container said of groups.
    pub(super) fn heard(&self, network: NetworkId, heard: &[Heard]) {
        self.lock().memberships.hear(network, heard, self.start.elapsed());
        self.touched.notify_one();
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
    pub(super) async fn run(&self) {
        loop {
            let wake = self.step();
            tokio::select! {
                () = tokio::time::sleep_until((self.start + wake).into()) => {}
                () = self.touched.notified() => {}
            }
        }
    }

    /// Asks what is due, tells what changed; when the next step is due.
    fn step(&self) -> Duration {
        /// With no network here nothing is due.
        const IDLE: Duration = Duration::from_secs(3600);
        let now = self.start.elapsed();
        let mut state = self.lock();
        for (network, frame) in state.memberships.tick(now) {
            self.lane.write_tap(network, &frame);
        }
        let wake = state.memberships.next_wake().unwrap_or(now + IDLE);
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
