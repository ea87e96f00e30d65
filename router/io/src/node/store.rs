//! What this host knows of the mesh: carries out what `router::mesh` decides, but for the disk, which is the keeper's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use weft_api::id::{HostId, HostKey};
use weft_api::roster::RosterRecord;
use weft_api::sign::Signed;
use weft_api::succession::Succession;
use weft_router::drop::DropCounters;
use weft_router::mesh::{Action, Changed, Event, Mesh, Proof, Said, Start, ToStore, routes};
use weft_router::session::message::Message;
use weft_router::session::{ConnectionId, Path};
use weft_router::switch::ties::Probe;

use super::{HostFacts, MeshView, StartError};

/// Shared by keeper, engine and the writers of control streams. Its lock is never held across an await.
pub(super) struct Store {
    me: HostId,
    inner: Mutex<Inner>,
    view: watch::Sender<Arc<MeshView>>,
    drops: Arc<DropCounters>,
    start: Instant,
    /// Members, addresses, or whom to keep sessions with have changed.
    pub changed: Notify,
    /// Something is to be stored, or the next wake may have come closer.
    pub touched: Notify,
}

struct Inner {
    mesh: Mesh,
    writers: BTreeMap<HostId, (ConnectionId, Arc<Notify>)>,
    unstored: VecDeque<Vec<ToStore>>,
    orders: Orders,
}

/// What the session layer must be told.
#[derive(Default)]
pub(super) struct Orders {
    /// Who is a member.
    pub members: bool,
    /// Who has proven that it is no member.
    pub refused: BTreeSet<HostId>,
    /// Whose addresses have changed.
    pub moved: BTreeSet<HostId>,
    /// With whom to keep sessions.
    pub keep: Option<BTreeSet<HostId>>,
    /// First hops to members without a link.
    pub routes: Option<BTreeMap<HostId, HostId>>,
}

impl Store {
    /// From what the disk has kept; records that do not hold (any more) are counted and left out.
    pub(super) fn open(start: Start, mesh_name: &str, drops: Arc<DropCounters>) -> Result<Self, StartError> {
        let key = HostKey(start.key.public());
        let (mesh, refused) = Mesh::new(start);
        refused.into_iter().for_each(|reason| drops.count(reason));
        if mesh.roster().member(key.id()).is_none_or(|r| r.key != key) {
            return Err(StartError::NotAMember { mesh: mesh_name.to_owned() });
        }
        let everything = Changed { roster: true, facts: true, decisions: true, reachable: true };
        let view = MeshView::default().next(key.id(), &mesh, everything);
        let orders = Orders { members: true, ..Orders::default() };
        let inner = Inner { mesh, writers: BTreeMap::new(), unstored: VecDeque::new(), orders };
        let store = Self {
            me: key.id(),
            inner: Mutex::new(inner),
            view: watch::Sender::new(Arc::new(view)),
            drops,
            start: Instant::now(),
            changed: Notify::new(),
            touched: Notify::new(),
        };
        store.event(Event::Tick); // With whom to keep sessions is known before the first is dialled.
        Ok(store)
    }

    pub(super) fn view(&self) -> watch::Receiver<Arc<MeshView>> {
        self.view.subscribe()
    }

    /// Every member but this host; none if this host is none itself.
    pub(super) fn others(&self) -> BTreeSet<HostId> {
        let mut members = self.lock().mesh.roster().members();
        if members.remove(&self.me) { members } else { BTreeSet::new() }
    }

    /// Whether this host is still a member.
    pub(super) fn is_member(&self) -> bool {
        self.lock().mesh.roster().member(self.me).is_some()
    }

    /// The probe of a bridge, if a member of this mesh signed it.
    pub(super) fn verify_probe(&self, signed: &Signed<Probe>) -> Option<Probe> {
        let claimed = signed.peek().ok()?;
        let inner = self.lock();
        let (key, mesh) = (inner.mesh.roster().member(claimed.host)?.key, inner.mesh.roster().mesh());
        drop(inner);
        signed.verify(&key.0).ok().filter(|probe| probe.mesh == mesh)
    }

    /// The member that has this key.
    pub(super) fn member(&self, key: HostKey) -> Option<RosterRecord> {
        self.lock().mesh.roster().member(key.id()).filter(|r| r.key == key).cloned()
    }

    /// Whether the id of this key is known as another key's.
    pub(super) fn is_anothers_id(&self, key: HostKey) -> bool {
        self.lock().mesh.roster().get(key.id()).is_some_and(|r| r.key != key)
    }

    /// What proves this host a member to one that has not heard of it.
    pub(super) fn proof(&self) -> Option<Proof> {
        self.lock().mesh.proof()
    }

    /// A member's name.
    pub(super) fn name(&self, host: HostId) -> Option<String> {
        self.lock().mesh.roster().member(host).map(|r| r.name.clone())
    }

    /// What proves this host a member: the successions of the mesh key, and its own record under the last. `None` while that
    /// record has not come.
    pub(super) fn introduction(&self) -> Option<(Vec<Signed<Succession>>, Signed<RosterRecord>)> {
        let Proof { successions, record } = self.proof()?;
        Some((successions, record))
    }

    /// Where a host may be reached, the likeliest first.
    pub(super) fn addresses(&self, host: HostId) -> Vec<Path> {
        self.lock().mesh.addresses(host).into_iter().map(|a: SocketAddr| Path::Udp(a)).collect()
    }

    /// A host's messages go by this connection from now on.
    pub(super) fn connected(&self, host: HostId, connection: ConnectionId, writer: Arc<Notify>) {
        self.lock().writers.insert(host, (connection, writer));
        self.event(Event::Connected(host));
    }

    /// No connection of the host carries messages any more.
    pub(super) fn disconnected(&self, host: HostId) {
        self.lock().writers.remove(&host);
        self.event(Event::Disconnected(host));
    }

    /// What this connection sends next.
    pub(super) fn next_message(&self, host: HostId, connection: ConnectionId) -> Option<Message> {
        let mut inner = self.lock();
        if inner.writers.get(&host).is_none_or(|(c, _)| *c != connection) {
            return None;
        }
        inner.mesh.next_message(self.start.elapsed(), host).map(Message::Mesh)
    }

    /// What happened, and whatever follows from it.
    pub(super) fn event(&self, event: Event<'_>) {
        let mut inner = self.lock();
        let mut actions = Vec::new();
        inner.mesh.handle(self.start.elapsed(), event, &mut actions);
        let mut told = false;
        for action in actions {
            match action {
                Action::Store(records) => inner.unstored.push_back(records),
                Action::Send(host) => {
                    if let Some((_, writer)) = inner.writers.get(&host) {
                        writer.notify_one();
                    }
                }
                Action::Refuse(host) => told |= inner.orders.refused.insert(host),
                Action::Addresses(host) => told |= inner.orders.moved.insert(host),
                Action::Changed(changed) => {
                    inner.orders.members |= changed.roster;
                    told |= changed.roster;
                    let next = self.view.borrow().next(self.me, &inner.mesh, changed);
                    let before = self.view.send_replace(Arc::new(next));
                    tell_of_keys(&before, &self.view.borrow());
                }
                Action::Count(reason, n) => self.drops.add(reason, n),
                Action::Keep(hosts) => {
                    inner.orders.keep = Some(hosts);
                    told = true;
                }
                Action::Routes(routes) => {
                    inner.orders.routes = Some(routes);
                    told = true;
                }
            }
        }
        drop(inner);
        if told {
            self.changed.notify_one();
        }
        self.touched.notify_one();
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.lock().mesh.next_wake().map(|at| self.start + at)
    }

    /// What is to be stored; each batch is answered by one [`Event::Stored`].
    pub(super) fn unstored(&self) -> Vec<Vec<ToStore>> {
        self.lock().unstored.drain(..).collect()
    }

    /// What the session layer must be told since it was told last.
    pub(super) fn orders(&self) -> Orders {
        std::mem::take(&mut self.lock().orders)
    }

    /// A measure of a link.
    pub(super) fn measured(&self, host: HostId, rtt: Option<Duration>, loss: f32) {
        self.event(Event::Measured(host, rtt, loss));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MeshView {
    /// The view after a change; what has not changed is shared with this one.
    fn next(&self, me: HostId, mesh: &Mesh, changed: Changed) -> Self {
        let mut next = self.clone();
        if changed.roster {
            let records = mesh.roster().records().map(|(host, held)| (host, held.record.clone()));
            next.roster = Arc::new(records.collect());
            next.signer = Some(mesh.roster().chain().current());
            next.rotations = mesh.roster().chain().number();
            next.rivals = mesh.rivals().map(|rival| (rival.number, rival.key)).collect();
        }
        if changed.facts {
            let shown =
                |said: &Said| HostFacts { version: said.head.version, items: said.record.items.clone() };
            let facts = mesh.facts().records();
            next.facts = Arc::new(facts.map(|(host, said)| (host, shown(said))).collect());
        }
        if changed.decisions {
            let decisions = mesh.decisions().records();
            let decisions = decisions.map(|held| (held.record.key.clone(), held.record.clone()));
            next.decisions = Arc::new(decisions.collect());
        }
        if changed.reachable {
            next.reachable = Arc::new(mesh.ways().keys().copied().chain([me]).collect());
            next.through = Arc::new(routes(mesh.ways()));
        }
        next
    }
}

/// Who signs the roster is a person's affair.
fn tell_of_keys(before: &MeshView, now: &MeshView) {
    if before.rotations < now.rotations
        && let Some(key) = now.signer
    {
        tracing::info!(number = now.rotations, key = %key.fingerprint(), "the mesh key was rotated");
    }
    for (number, key) in now.rivals.iter().skip(before.rivals.len()) {
        let key = key.fingerprint();
        tracing::warn!(number, %key, "another successor of the mesh key was refused: somebody has used an old mesh key");
    }
}
