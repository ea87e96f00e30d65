//! Leaving the mesh: a goodbye to the signer, then everything of ours on this machine is removed, the keys too.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::request::{Goodbye, HoldRange, RangeHeld, path};
use weft_api::roster::Standing;
use weft_docker_engine::Engine;
use weft_router_io::bridge::Bridges;

use crate::attach::Place;
use crate::book::Book;
use crate::deciding::Deciding;
use crate::docker::Docker;
use crate::firewall;
use crate::plugin;
use crate::state::{Identity, StateDir};

/// The signer may be away; then somebody must tell it.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(3);

/// Docker may be busy with other things.
const DOCKER_PATIENCE: Duration = Duration::from_secs(20);

/// What leaves.
#[derive(Clone)]
pub struct Leaving {
    /// Whose keys are destroyed.
    pub state: StateDir,
    /// Who says goodbye.
    pub identity: Identity,
    /// Whose containers are in the way.
    pub book: Arc<Book>,
    /// Whose bridges are removed.
    pub bridges: Bridges,
    /// Whose networks are removed.
    pub docker: watch::Receiver<Docker>,
    /// Who hears the goodbye; nobody while the mesh is not up.
    pub deciding: Option<Deciding>,
    /// Who would make anew what is removed.
    pub keeper: Option<AbortHandle>,
}

impl Leaving {
    /// Leaves; what could not be cleaned up, a sentence each. Without `force` nothing is done while containers are in the way,
    /// or on the founder.
    pub async fn leave(&self, force: bool) -> Result<Vec<String>, ApiError> {
        if !force {
            self.refuse_founder()?;
            self.refuse_containers().await?;
        }
        tracing::info!(mesh = %self.identity.mesh.name, force, "leaving the mesh");
        let mut remarks = Vec::new();
        if let Err(why) = self.say_goodbye().await {
            remarks.push(format!(
                "the mesh has not heard that this host has left ({why}): run weft host rm {} on another host",
                self.identity.host
            ));
        }
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        self.clean_docker(&mut remarks).await;
        self.clean_links(&mut remarks).await;
        if let Err(e) = firewall::remove().await {
            remarks.push(e.to_string());
        }
        self.state.clear().map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))?;
        Ok(remarks)
    }

    fn refuse_founder(&self) -> Result<(), ApiError> {
        if !self.identity.founder {
            return Ok(());
        }
        let sentence = format!(
            "this host founded \"{}\" and is the only one that decides for it: without it nobody can join and no network can be made; weft leave --force does it nevertheless",
            self.identity.mesh.name
        );
        Err(ApiError::new(ErrorKind::Conflict, sentence))
    }

    async fn refuse_containers(&self) -> Result<(), ApiError> {
        let mut users: Vec<String> = Vec::new();
        let engine = self.docker.borrow().engine().cloned();
        if let Some(engine) = engine {
            users = connected(&engine).await.unwrap_or_default();
        }
        for endpoint in self.book.endpoints() {
            if Place::of(&endpoint) == Some(Place::Host) {
                continue;
            }
            let name = if endpoint.container.is_empty() {
                format!("{:.12}", endpoint.id)
            } else {
                endpoint.container
            };
            if !users.contains(&name) {
                users.push(name);
            }
        }
        if users.is_empty() {
            return Ok(());
        }
        let sentence = format!(
            "containers use networks of the mesh: {}; stop and remove them first, or cut them off with weft leave --force",
            users.join(", ")
        );
        Err(ApiError::new(ErrorKind::Conflict, sentence))
    }

    async fn say_goodbye(&self) -> Result<(), String> {
        if self.identity.founder || self.was_removed() {
            return Ok(());
        }
        let deciding = self.deciding.as_ref().ok_or("weft up is not running")?;
        let key = self.state.host_key().map_err(|e| e.to_string())?;
        let goodbye = key.sign(&Goodbye { key: self.identity.key, mesh: self.identity.mesh.mesh });
        let said = tokio::time::timeout(GOODBYE_PATIENCE, deciding.post::<()>(path::GOODBYE, &goodbye)).await;
        said.map_err(|_| "no answer".to_owned())?.map_err(|e| e.message)
    }

    fn was_removed(&self) -> bool {
        let view = self.book.view();
        view.roster.get(&self.identity.id()).is_some_and(|record| record.standing == Standing::Removed)
    }

    async fn clean_docker(&self, remarks: &mut Vec<String>) {
        let engine = self.docker.borrow().engine().cloned();
        let Some(engine) = engine else {
            return remarks.push("Docker does not answer, so its networks of driver weft stay: remove them with docker network rm".into());
        };
        let removed = tokio::time::timeout(DOCKER_PATIENCE, async {
            let _our_own_doing = self.book.at_work(None);
            for network in engine.networks().await.map_err(|e| e.to_string())? {
                if let Err(e) = engine.remove_network(&network.id).await {
                    remarks.push(e.to_string());
                }
            }
            Ok::<_, String>(())
        });
        match removed.await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => remarks.push(why),
            Err(_) => remarks.push(
                "Docker takes long to remove its networks of driver weft: see docker network ls".into(),
            ),
        }
    }

    async fn clean_links(&self, remarks: &mut Vec<String>) {
        let ours = match self.bridges.list_ours().await {
            Ok(ours) => ours,
            Err(e) => return remarks.push(e.to_string()),
        };
        for link in ours {
            if let Err(e) = self.bridges.remove_leftover(&link).await {
                remarks.push(e.to_string());
            }
        }
    }
}

/// Leaves while no daemon runs: the same, without a goodbye. `state` must be locked by the caller. A half-written directory is
/// only cleared, and only by force.
pub async fn offline(state: &StateDir, plugin_socket: PathBuf, force: bool) -> Result<Vec<String>, ApiError> {
    let refuse = |e: &dyn std::fmt::Display| ApiError::new(ErrorKind::Conflict, e.to_string());
    let identity = match state.member() {
        Ok(identity) => identity,
        Err(e) if force && !state.is_empty() => {
            state.clear().map_err(|e| refuse(&e))?;
            return Ok(vec![format!("{e}: it is empty now")]);
        }
        Err(e) => return Err(refuse(&e)),
    };
    let ledger = Arc::new(state.open_ledger(identity.mesh.mesh).map_err(|e| refuse(&e))?);
    let stored = ledger.stored().map_err(|e| refuse(&e))?;
    let book = Arc::new(Book::open(identity.id(), ledger, &stored).map_err(|e| refuse(&e))?);
    let bridges = Bridges::open().map_err(|e| refuse(&e))?;
    // Docker waits 15 s for a plugin that is away, for each network.
    let served = plugin::serve(&plugin_socket, Arc::clone(&book), bridges.clone(), Arc::new(no_new_ranges));
    if let Err(e) = &served {
        tracing::debug!(error = %e, "leaving without the plugin's socket");
    }
    let docker = match Engine::connect().await {
        Ok(engine) => Docker::Ready(engine),
        Err(e) => Docker::Away(e.to_string()),
    };
    let (_keep, docker) = watch::channel(docker);
    let leaving =
        Leaving { state: state.clone(), identity, book, bridges, docker, deciding: None, keeper: None };
    let left = leaving.leave(force).await;
    if let Ok(Err(e)) = served.map(|place| place.leave()) {
        tracing::debug!(error = %e, "the plugin's socket is left over");
    }
    left
}

fn no_new_ranges(_: HoldRange) -> Pin<Box<dyn Future<Output = Result<RangeHeld, ApiError>> + Send>> {
    Box::pin(std::future::ready(Err(ApiError::new(ErrorKind::Unavailable, "this host leaves its mesh"))))
}

/// Containers that Docker has on networks of driver weft, running or not.
async fn connected(engine: &Engine) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for network in engine.networks().await.ok()? {
        names.extend(
            engine
                .containers(&network.id, &network.name)
                .await
                .ok()?
                .into_iter()
                .map(|container| container.name),
        );
    }
    names.sort();
    names.dedup();
    Some(names)
}
