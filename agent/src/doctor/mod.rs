//! `weft doctor`: what usually breaks on a host, looked at one by one, with what to do about each; some of it can be mended
//! here. Works with and without a running daemon.

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::Serialize;
use weft_api::id::NetworkId;
use weft_api::report::{LinkState, NetworkState, Status};
use weft_client::Admin;
use weft_docker_engine::Engine;
use weft_router_io::bridge::{BridgeError, Bridges, Ours};

use crate::book::Book;
use crate::setup::{self, SetupError};
use crate::state::{Identity, StateDir, StateError};
use crate::{firewall, service};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it must be.
    Ok,
    /// It was not; it is now.
    Mended,
    /// weft works, but not as well as it could.
    Warning,
    /// Something does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What, in a word or two.
    pub check: &'static str,
    /// How it is.
    pub health: Health,
    /// A sentence, with what to do if it is not ok.
    pub says: String,
}

/// Looks at everything; with `fix` mends what it can.
pub async fn examine(state: &StateDir, admin: &Admin, fix: bool) -> Vec<Finding> {
    let mut doctor = Doctor { fix, findings: Vec::new() };
    match setup::check_machine() {
        Err(e @ SetupError::NotRoot) => {
            doctor.problem("root", e);
            return doctor.findings;
        }
        Err(e) => doctor.problem("tun", e),
        Ok(()) => doctor.ok("tun", "/dev/net/tun can be opened"),
    }
    let identity = doctor.mesh(state);
    let status = match &identity {
        Some(identity) => doctor.daemon(admin, identity).await,
        None => None,
    };
    let engine = doctor.docker().await;
    if let Some(status) = &status {
        doctor.told(status);
        doctor.links(admin).await;
    }
    // Listed before the networks are: nothing has an interface before the daemon knows it.
    let interfaces = interfaces().await;
    let networks = match (&identity, &status) {
        (None, _) => Ok(Networks::default()),
        (Some(_), Some(_)) => from_daemon(admin).await,
        (Some(identity), None) => from_disk(state, identity),
    };
    match networks {
        Ok(networks) => {
            doctor.firewall(&networks.here, identity.is_some()).await;
            doctor.leftovers(interfaces, &networks.known, engine.as_ref()).await;
        }
        Err(why) => doctor.warning("firewall", format!("not looked at, nor leftovers: {why}")),
    }
    doctor.findings
}

struct Doctor {
    fix: bool,
    findings: Vec<Finding>,
}

impl Doctor {
    fn mesh(&mut self, state: &StateDir) -> Option<Identity> {
        match state.member() {
            Ok(identity) => {
                self.ok("mesh", format!("{} of \"{}\"", identity.host, identity.mesh.name));
                Some(identity)
            }
            Err(e @ StateError::NoMesh(_)) => {
                self.warning("mesh", e);
                None
            }
            Err(e) => {
                self.problem("mesh", e);
                None
            }
        }
    }

    /// The daemon and its port.
    async fn daemon(&mut self, admin: &Admin, identity: &Identity) -> Option<Status> {
        let mut health = Health::Ok;
        if !admin.answers().await {
            if setup::port_is_taken(identity.port) {
                let port = identity.port;
                self.problem("port", format!("another program has UDP port {port}: stop it (ss -ulpn lists it), or choose another: weft up --port N"));
            }
            if !service::installed() {
                self.problem("daemon", "weft up is not running: start it");
                return None;
            }
            if !self.fix {
                self.problem(
                    "daemon",
                    "weft.service is not running: systemctl start weft, or weft doctor --fix",
                );
                return None;
            }
            if let Err(e) = service::start(admin).await {
                self.problem("daemon", e);
                return None;
            }
            health = Health::Mended;
        }
        match admin.status().await {
            Ok(status) => {
                self.say(
                    "daemon",
                    health,
                    format!("weft {} runs, on UDP port {}", status.version, identity.port),
                );
                Some(status)
            }
            Err(e) => {
                self.problem("daemon", e.message);
                None
            }
        }
    }

    async fn docker(&mut self) -> Option<Engine> {
        match setup::docker_version().await {
            Ok(Ok(version)) => self.ok("docker", format!("Docker {version} answers")),
            Ok(Err(e)) => {
                self.problem("docker", e);
                return None;
            }
            Err(e) => {
                self.problem("docker", e);
                return None;
            }
        }
        let engine = Engine::connect().await.ok()?;
        match engine.live_restore().await {
            Ok(true) => self.ok("live-restore", "containers run on while Docker restarts"),
            Ok(false) => self.warning(
                "live-restore",
                "containers end when Docker restarts: write \"live-restore\": true into /etc/docker/daemon.json and reload Docker",
            ),
            Err(e) => self.warning("live-restore", e),
        }
        Some(engine)
    }

    /// What the daemon itself finds wrong.
    fn told(&mut self, status: &Status) {
        match status.offloads.ok {
            true => self.ok("offloads", format!("the kernel grants {}", status.offloads.text)),
            false => self.warning(
                "offloads",
                format!("slower than it could be, {}: a newer kernel has them", status.offloads.text),
            ),
        }
        if !status.controller.ok {
            self.problem("controller", &status.controller.text);
        }
        for problem in &status.problems {
            self.problem("network", problem);
        }
    }

    async fn links(&mut self, admin: &Admin) {
        let links = match admin.links().await {
            Ok(links) => links,
            Err(e) => return self.problem("links", e.message),
        };
        let down: Vec<&str> =
            links.iter().filter(|l| l.state != LinkState::Up).map(|l| l.host.as_str()).collect();
        if down.is_empty() {
            return self.ok("links", format!("{} of {0} up", links.len()));
        }
        let hosts = down.join(", ");
        self.problem("links", format!("no link to {hosts}: see that weft up runs there, that its addresses are right (weft hosts), and that firewalls between let its UDP port through"));
    }

    async fn firewall(&mut self, networks: &BTreeSet<NetworkId>, member: bool) {
        let wrong = match firewall::in_place(networks).await {
            Ok(true) => return self.ok("firewall", "frames between containers are accepted"),
            Ok(false) if member => "accept rules are missing or too many",
            Ok(false) => "rules of a mesh that this host has left are there",
            Err(e) => return self.problem("firewall", e),
        };
        if !self.fix {
            return self.problem("firewall", format!("{wrong}: weft doctor --fix"));
        }
        let mended =
            if member { firewall::ensure(networks).await.map(drop) } else { firewall::remove().await };
        self.mended("firewall", wrong, mended);
    }

    /// Interfaces and Docker's networks of networks that the mesh has no more.
    async fn leftovers(
        &mut self,
        interfaces: Result<(Bridges, Vec<Ours>), BridgeError>,
        networks: &BTreeSet<NetworkId>,
        engine: Option<&Engine>,
    ) {
        let before = self.findings.len();
        match interfaces {
            Ok((bridges, ours)) => self.interfaces(&bridges, ours, networks).await,
            Err(e) => self.warning("leftovers", e),
        }
        if let Some(engine) = engine {
            match engine.networks().await {
                Ok(listed) => {
                    for left in listed.iter().filter(|n| n.network.is_some_and(|id| !networks.contains(&id)))
                    {
                        let what = format!("Docker's network {} is of no network of the mesh", left.name);
                        if self.fix {
                            let removed = engine.remove_network(&left.id).await;
                            self.mended("leftovers", &what, removed);
                        } else {
                            self.warning("leftovers", format!("{what}: weft doctor --fix"));
                        }
                    }
                }
                Err(e) => self.warning("leftovers", e),
            }
        }
        if self.findings.len() == before {
            self.ok("leftovers", "none");
        }
    }

    async fn interfaces(&mut self, bridges: &Bridges, ours: Vec<Ours>, networks: &BTreeSet<NetworkId>) {
        for left in ours {
            let name = match &left {
                Ours::Bridge(id) if !networks.contains(id) => id.bridge_name(),
                Ours::Tap(id) if !networks.contains(id) => id.tap_name(),
                _ => continue,
            };
            let what = format!("the interface {name} is of no network of the mesh");
            if self.fix {
                let removed = bridges.remove_leftover(&left).await;
                self.mended("leftovers", &what, removed);
            } else {
                self.warning("leftovers", format!("{what}: weft doctor --fix"));
            }
        }
    }

    fn mended<E: Display>(&mut self, check: &'static str, what: &str, done: Result<(), E>) {
        match done {
            Ok(()) => self.say(check, Health::Mended, format!("{what}: mended")),
            Err(e) => self.problem(check, format!("{what}, and cannot be mended: {e}")),
        }
    }

    fn ok(&mut self, check: &'static str, says: impl Display) {
        self.say(check, Health::Ok, says);
    }

    fn warning(&mut self, check: &'static str, says: impl Display) {
        self.say(check, Health::Warning, says);
    }

    fn problem(&mut self, check: &'static str, says: impl Display) {
        self.say(check, Health::Problem, says);
    }

    fn say(&mut self, check: &'static str, health: Health, says: impl Display) {
        self.findings.push(Finding { check, health, says: says.to_string() });
    }
}

async fn interfaces() -> Result<(Bridges, Vec<Ours>), BridgeError> {
    let bridges = Bridges::open()?;
    let ours = bridges.list_ours().await?;
    Ok((bridges, ours))
}

/// The networks of the mesh.
#[derive(Default)]
struct Networks {
    /// All.
    known: BTreeSet<NetworkId>,
    /// Those that must be on this host.
    here: BTreeSet<NetworkId>,
}

/// As the daemon knows them.
async fn from_daemon(admin: &Admin) -> Result<Networks, String> {
    let mut networks = Networks::default();
    for network in admin.networks().await.map_err(|e| e.message)? {
        networks.known.insert(network.id);
        if matches!(network.state, NetworkState::Here | NetworkState::Problem) {
            networks.here.insert(network.id);
        }
    }
    Ok(networks)
}

/// The same while no daemon runs.
fn from_disk(state: &StateDir, identity: &Identity) -> Result<Networks, String> {
    let _lock = state.lock().map_err(|e| e.to_string())?;
    let ledger = state.open_ledger(identity.mesh.mesh).map_err(|e| e.to_string())?;
    let stored = ledger.stored().map_err(|e| e.to_string())?;
    let book = Book::open(identity.id(), ledger.into(), &stored).map_err(|e| e.to_string())?;
    Ok(Networks {
        known: book.networks().into_iter().map(|network| network.id).collect(),
        here: book.networks_here().into_iter().map(|network| network.id).collect(),
    })
}
