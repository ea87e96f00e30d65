//! `weft doctor`: what usually breaks on a host, looked at one by one, with what to do about each; some of it can be mended
//! here. Works with and without a running daemon.

mod daemon;
mod firewall;
mod leftovers;
mod links;
mod nft;

use std::collections::BTreeSet;
use std::fmt::Display;

use serde::Serialize;
use weft_api::id::NetworkId;
use weft_api::report::NetworkState;
use weft_client::Admin;
use weft_router_io::bridge::host_ifname;

use crate::book::Book;
use crate::setup::{self, DEFAULT_PORT, SetupError};
use crate::state::{Identity, StateDir};

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
    let mut all_reached = false;
    if let Some(status) = &status {
        doctor.told(status);
        all_reached = doctor.links(admin).await;
    }
    // Listed before the networks are: nothing has an interface before the daemon knows it.
    let interfaces = leftovers::interfaces().await;
    let networks = match (&identity, &status) {
        (None, _) => Ok(Networks { veths: Some(BTreeSet::new()), ..Networks::default() }),
        (Some(_), Some(_)) => from_daemon(admin).await,
        (Some(identity), None) => from_disk(state, identity),
    };
    match networks {
        Ok(networks) => {
            let port = identity.as_ref().map_or(DEFAULT_PORT, |identity| identity.port);
            doctor.rules(&networks.here, identity.is_some()).await;
            doctor.tables(&networks.here, port, all_reached).await;
            doctor.managers(port).await;
            doctor.leftovers(interfaces, &networks, engine.as_ref()).await;
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

/// The networks of the mesh.
#[derive(Default)]
struct Networks {
    /// All.
    known: BTreeSet<NetworkId>,
    /// Those that must be on this host.
    here: BTreeSet<NetworkId>,
    /// The host's sides of the veths of containers; `None` while the daemon runs, which looks after them itself.
    veths: Option<BTreeSet<String>>,
    /// This host is a member of a mesh.
    member: bool,
}

/// As the daemon knows them.
async fn from_daemon(admin: &Admin) -> Result<Networks, String> {
    let mut networks = Networks { member: true, ..Networks::default() };
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
        veths: Some(book.endpoints().iter().filter_map(|e| host_ifname(&e.id).ok()).collect()),
        member: true,
    })
}
