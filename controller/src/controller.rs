//! The handle of the controller: commands come in one after the other; each is decided, stored, signed and only then answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use thiserror::Error;
use tokio::sync::watch;
use weft_api::decision::Decision;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::fact::MAX_ROUTES;
use weft_api::id::{HostId, HostKey, MeshId, MeshKey, NetworkId, TokenId};
use weft_api::request::{Admitted, HoldRange, NewToken, RangeHeld, TokenMade};
use weft_api::roster::{Cipher, MeshRecord, RosterRecord};
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::Succession;
use weft_api::token::Token;
use weft_controller_state::hold::HOLD_SECS;
use weft_controller_state::{Command, Event, Hold, Observed, Refusal, State, World};

use crate::published::Published;
use crate::rotation::needs_the_key;
use crate::routes;
use crate::store::{self, Store, StoreError};

/// Unix seconds; tests bring their own.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The machine's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// What the controller signs with.
#[derive(Debug)]
pub struct ControllerKeys {
    /// Signs the roster and the mesh record.
    pub mesh_key: SigningKey,
    /// Signs decisions; the key of the host that the controller runs on.
    pub host_key: SigningKey,
}

/// What the founder of a mesh chooses.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The mesh's name.
    pub mesh_name: String,
    /// What seals envelopes.
    pub cipher: Cipher,
    /// The founder's own name.
    pub host_name: String,
    /// Where the founder can be reached.
    pub addresses: Vec<SocketAddr>,
}

/// A mesh cannot be founded here.
#[derive(Debug, Error)]
pub enum FoundError {
    /// What was chosen cannot be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The controller's file does not fit.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It says that another host decides.
    #[error(
        "the controller's file in {dir} was written by another host than the key beside it ({host}) names: put the files of one host together there"
    )]
    OtherHost {
        /// The state directory.
        dir: String,
        /// The host of the key.
        host: HostId,
    },
    /// The mesh key beside it is another than the one that it signs with.
    #[error(
        "mesh.key in {dir} is another key than the one that signed the controller's file beside it: put the files of one host together there"
    )]
    OtherKey {
        /// The state directory.
        dir: String,
    },
}

/// Decides for the mesh. Cheap to clone; calls block for one write to the disk at most.
#[derive(Clone)]
pub struct Controller(Arc<Inner>);

struct Inner {
    me: HostKey,
    mesh: MeshId,
    clock: Clock,
    /// Held while one command is decided, stored and signed; never across an await.
    core: Mutex<Core>,
    changes: watch::Sender<u64>,
}

pub(crate) struct Core {
    pub keys: ControllerKeys,
    pub state: State,
    pub store: Store,
    pub world: World,
    pub published: Published,
}

impl Controller {
    /// Makes a mesh: its record, its first member, and the file that keeps them, whole or not at all.
    pub fn found(
        dir: &Path,
        keys: ControllerKeys,
        founding: Founding,
        clock: Clock,
    ) -> Result<Self, FoundError> {
        let mesh = MeshRecord { mesh: mesh_of(&keys), name: founding.mesh_name, cipher: founding.cipher };
        let command = Command::Found {
            mesh: mesh.clone(),
            key: HostKey(keys.host_key.public()),
            name: founding.host_name,
            addresses: founding.addresses,
        };
        let events = State::default().decide(&World { now: clock(), ..World::default() }, command)?;
        let (store, state) = Store::create(dir, mesh.mesh, &events)?;
        Ok(Self::start(keys, clock, &mesh, store, state))
    }

    /// Makes another signer of a mesh that exists: a file with the roster as this host knows it, whole or not at all. `successions`: those
    /// that lead to `keys.mesh_key`.
    pub fn appoint(
        dir: &Path,
        keys: ControllerKeys,
        mesh: MeshRecord,
        successions: Vec<Signed<Succession>>,
        roster: Vec<RosterRecord>,
        clock: Clock,
    ) -> Result<Self, FoundError> {
        let key = HostKey(keys.host_key.public());
        let command = Command::Appoint { mesh: mesh.clone(), successions, roster, key };
        let events = State::default().decide(&World { now: clock(), ..World::default() }, command)?;
        let (store, state) = Store::create(dir, mesh.mesh, &events)?;
        Ok(Self::start(keys, clock, &mesh, store, state))
    }

    /// Opens what [`Controller::found`] or [`Controller::appoint`] made.
    pub fn open(dir: &Path, keys: ControllerKeys, clock: Clock) -> Result<Self, OpenError> {
        let (store, state) = Store::open(dir)?;
        let host = HostKey(keys.host_key.public());
        let other = || OpenError::OtherHost { dir: dir.display().to_string(), host: host.id() };
        let mesh = state.mesh().ok_or_else(other)?.clone();
        // The key may be an old one, and this host no signer any more: it can become one again.
        if state.record(&host).is_none_or(|r| !r.roles.signer && r.under.key <= state.key_number()) {
            return Err(other());
        }
        let signs = state.successions().last().and_then(|signed| signed.peek().ok()).map(|last| last.key);
        let key = MeshKey(keys.mesh_key.public());
        if signs.is_some_and(|last| last != key) {
            return Err(OpenError::OtherKey { dir: dir.display().to_string() });
        }
        if signs.is_none() && key.id() != mesh.mesh {
            let (found, expected) = (mesh.mesh, key.id());
            return Err(StoreError::OtherMesh { path: dir.join(store::FILE), found, expected }.into());
        }
        Ok(Self::start(keys, clock, &mesh, store, state))
    }

    pub(crate) fn start(
        keys: ControllerKeys,
        clock: Clock,
        mesh: &MeshRecord,
        store: Store,
        state: State,
    ) -> Self {
        let published = Published::new(&keys, mesh, &state);
        let (changes, _) = watch::channel(store.sequence());
        let me = HostKey(keys.host_key.public());
        let core = Mutex::new(Core { keys, state, store, world: World::default(), published });
        Self(Arc::new(Inner { me, mesh: mesh.mesh, clock, core, changes }))
    }

    /// The API: of who decides POST and DELETE of networks, tokens and hosts, GET of tokens, POST of blocks, leases, what is given up, join
    /// and goodbye; of another signer what concerns tokens, hosts, join and goodbye. Each request
    /// must carry an `Extension` of [`weft_api::request::Caller`]. Answers are the noun in JSON, or 204 without a body, or an
    /// [`ApiError`] with its status.
    pub fn routes(&self) -> axum::Router {
        routes::routes(self.clone())
    }

    /// Whether it decides, beside admitting and removing members.
    #[must_use]
    pub fn decides(&self) -> bool {
        self.read(|state| state.record(&self.0.me).is_some_and(|record| record.roles.controller))
    }

    /// Rises whenever [`Controller::decisions`] or [`Controller::roster`] says something new.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Every decision, signed; those that something is gone included.
    #[must_use]
    pub fn decisions(&self) -> Vec<Signed<Decision>> {
        self.core().published.decisions.values().cloned().collect()
    }

    /// Every roster record, signed; those of removed hosts included.
    #[must_use]
    pub fn roster(&self) -> Vec<Signed<RosterRecord>> {
        self.core().published.roster.values().cloned().collect()
    }

    /// What a host hears that has joined: all of one moment.
    #[must_use]
    pub(crate) fn admitted(&self) -> Admitted {
        let core = self.core();
        Admitted {
            mesh: core.published.mesh.clone(),
            successions: core.state.successions().to_vec(),
            roster: core.published.roster.values().cloned().collect(),
        }
    }

    /// What every member agrees on, signed.
    #[must_use]
    pub fn mesh(&self) -> Signed<MeshRecord> {
        self.core().published.mesh.clone()
    }

    /// What a host's facts say now: the routes of its machine, without those of weft's own bridges, and its containers on each
    /// network. Replaces what was known of it; ignored of who is no member.
    pub fn observe(&self, host: HostId, mut routes: Vec<IpNet>, endpoints: BTreeMap<NetworkId, usize>) {
        routes.truncate(MAX_ROUTES);
        let mut core = self.core();
        if core.state.member(host).is_some() {
            core.world.hosts.insert(host, Observed { routes, endpoints });
        }
    }

    /// What the mesh says in our name, its signatures checked (as the mesh's view has it). If it is newer than what is stored here,
    /// because the disk was restored from a backup, it is adopted. How many events came of it.
    pub fn hear<'a>(
        &self,
        roster: impl IntoIterator<Item = &'a RosterRecord>,
        decisions: impl IntoIterator<Item = &'a Decision>,
    ) -> Result<usize, ApiError> {
        let signer = self.0.me;
        let ours = decisions.into_iter().filter(|decision| decision.signer == signer);
        // Nearly always the mesh says what is known: copy only what is not.
        let command = self.read(|state| Command::Hear {
            roster: roster
                .into_iter()
                .filter(|said| state.record(&said.key) != Some(*said))
                .cloned()
                .collect(),
            decisions: ours
                .filter(|said| state.decided(&said.key).is_none_or(|known| known.revision < said.revision))
                .cloned()
                .collect(),
        });
        self.run(command, |_, events| events.len())
    }

    /// Where this host can be reached from now on, so that others know where to ask; ignored where nothing is decided.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) -> Result<(), ApiError> {
        if !self.decides() {
            return Ok(());
        }
        let host = self.0.me.id();
        self.run(Command::Place { host, addresses }, |_, _| ())
    }

    /// Makes a token. Its text is in the answer and nowhere else.
    pub fn new_token(&self, wish: NewToken) -> Result<TokenMade, ApiError> {
        let mut token = Token { id: TokenId([0; 16]), seed: [0; 32], mesh: self.0.mesh };
        for bytes in [&mut token.id.0[..], &mut token.seed[..]] {
            aws_lc_rs::rand::fill(bytes).map_err(|_| {
                ApiError::new(ErrorKind::Internal, "this machine gives no random numbers: check /dev/urandom")
            })?;
        }
        let command = Command::NewToken {
            id: token.id,
            key: token.key().public(),
            once: wish.once,
            valid_secs: wish.valid_secs,
        };
        let expires = self.run(command, |_, events| {
            events.iter().find_map(|event| match event {
                Event::TokenMade { expires, .. } => Some(*expires),
                _ => None,
            })
        })?;
        Ok(TokenMade { id: token.id, token: token.reveal(), expires: expires.unwrap_or_default() })
    }

    /// Holds a range for a network that this host is about to name.
    pub(crate) fn hold(&self, host: HostId, wish: &HoldRange) -> Result<RangeHeld, ApiError> {
        let mut guard = self.core();
        let core = &mut *guard;
        let now = (self.0.clock)();
        core.world.now = now;
        core.world.holds.retain(|_, hold| hold.until > now);
        let held = core.state.hold(&core.world, host, wish)?;
        if core.state.network(held.network).is_none() {
            let hold = core.world.holds.entry(held.network);
            hold.or_insert(Hold { range: held.range, host, until: 0 }).until = now + HOLD_SECS;
        }
        Ok(held)
    }

    /// Decides, stores, applies, signs, announces; then answers out of the new state and what has happened.
    pub(crate) fn run<T>(
        &self,
        command: Command,
        answer: impl FnOnce(&State, &[Event]) -> T,
    ) -> Result<T, ApiError> {
        let mut guard = self.core();
        let core = &mut *guard;
        core.world.now = (self.0.clock)();
        if needs_the_key(&command) && !core.state.signs(&self.0.me) {
            return Err(Refusal::OldKey.into());
        }
        let events = core.state.decide(&core.world, command)?;
        if events.is_empty() {
            return Ok(answer(&core.state, &events));
        }
        core.store_events(&events)?;
        let news = core.published.update(&core.keys, self.0.mesh, &core.state, &events);
        core.world.hosts.retain(|host, _| core.state.member(*host).is_some());
        core.world.drop_named(&core.state);
        let (answer, sequence) = (answer(&core.state, &events), core.store.sequence());
        drop(guard);
        events.iter().for_each(log);
        if news {
            self.announce(sequence);
        }
        Ok(answer)
    }

    pub(crate) fn announce(&self, sequence: u64) {
        self.0.changes.send_replace(sequence);
    }

    pub(crate) fn me(&self) -> HostKey {
        self.0.me
    }

    pub(crate) fn mesh_id(&self) -> MeshId {
        self.0.mesh
    }

    /// Reads out of the state.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.core().state)
    }

    /// A panic between two commands cannot leave half of one: the state is replaced whole, after it is stored.
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// What has been decided lies on the disk when this returns; otherwise nothing was changed.
    pub(crate) fn store_events(&mut self, events: &[Event]) -> Result<(), ApiError> {
        let mut next = self.state.clone();
        events.iter().for_each(|event| next.apply(event));
        self.store.append(events, &next).map_err(|e| {
            tracing::warn!(error = %e, "a decision could not be stored");
            ApiError::new(ErrorKind::Internal, format!("nothing was changed: {e}"))
        })?;
        self.state = next;
        Ok(())
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Controller({})", self.0.mesh)
    }
}

fn mesh_of(keys: &ControllerKeys) -> MeshId {
    MeshKey(keys.mesh_key.public()).id()
}

fn log(event: &Event) {
    match event {
        Event::Founded(mesh) => tracing::info!(mesh = %mesh.name, "mesh founded"),
        Event::Rotated { .. } | Event::KeyTaken(_) => tracing::info!("mesh key changed"),
        Event::Enrolled(record) => {
            tracing::info!(host = %record.name, id = %record.key.id(), standing = ?record.standing, "roster changed");
        }
        Event::TokenMade { id, expires, once, .. } => tracing::info!(%id, expires, once, "token made"),
        Event::TokenRemoved(id) => tracing::info!(%id, "token removed"),
        Event::TokenUsed { id, by } => tracing::info!(%id, by = %by.id(), "token used"),
        Event::Decided { revision, key, body } => {
            tracing::info!(revision, ?key, gone = body.is_none(), "decided");
        }
    }
}
