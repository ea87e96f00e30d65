//! Networks that people make with `docker network create`: Docker tells their names only afterwards. Each is told to the mesh
//! under its name; one that cannot be the mesh's is removed from Docker again, or shown as what it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weft_api::error::ErrorKind;
use weft_api::id::NetworkId;
use weft_api::network::Network;
use weft_api::request::{CreateNetwork, path};
use weft_docker_engine::{DockerNetwork, Engine, RemoveError};
use weft_docker_plugin::DRIVER;

use crate::book::{Book, Decided, Stray};
use crate::deciding::Deciding;

/// A removal that waits until nobody uses the network is tried this often.
const EVERY: Duration = Duration::from_secs(5);

/// So many looks in a row must find the network unused, after it was found in use: a container that restarts is soon back.
const UNUSED_LOOKS: u32 = 6;

/// What a Docker network of driver weft is to the mesh.
pub enum Standing {
    /// The network of the mesh.
    Of(NetworkId),
    /// The mesh has removed it.
    Gone,
    /// It carries nothing, for this reason.
    Stray(String),
    /// It was removed from Docker.
    Removed,
}

/// Tells networks apart, one at a time.
pub struct Naming<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// What is known.
    pub book: &'a Arc<Book>,
    /// Who decides.
    pub deciding: &'a Deciding,
    /// Nobody who decides can be asked; set by the first question that finds out.
    pub away: Option<String>,
}

impl Naming<'_> {
    /// What this Docker network is, after it was named or removed if it had to be.
    pub async fn standing(&mut self, docker: &DockerNetwork) -> Standing {
        let Some(id) = docker.network.or_else(|| self.book.bound(&docker.id)) else {
            let why = format!("it is of no network of this mesh: docker network rm {}", docker.name);
            return Standing::Stray(why);
        };
        match self.book.decided(id) {
            Decided::Is(network) if network.name == docker.name || docker.network.is_some() => {
                Standing::Of(network.id)
            }
            Decided::Is(network) => {
                let why = format!("its range is that of network {}: use that one", network.name);
                self.lose(docker, id, why).await
            }
            Decided::Gone => Standing::Gone,
            Decided::Nothing if docker.network.is_some() => Standing::Gone,
            Decided::Nothing => self.name(docker, id).await,
        }
    }

    async fn name(&mut self, docker: &DockerNetwork, id: NetworkId) -> Standing {
        if docker.ipam != DRIVER {
            let why = format!("its addresses are of another IPAM driver: docker network rm {}", docker.name);
            return Standing::Stray(why);
        }
        if let Some(why) = &self.away {
            return Standing::Stray(why.clone());
        }
        let wish = CreateNetwork {
            name: docker.name.clone(),
            subnets: docker.subnets.iter().map(|subnet| subnet.range).collect(),
            gateways: docker.subnets.iter().map(|subnet| subnet.gateway).collect(),
            mtu: docker.mtu,
            mtu_option: docker.mtu_option,
            internal: docker.internal,
            held: Some(id),
            ..CreateNetwork::default()
        };
        match self.deciding.post::<Network>(path::NETWORKS, &wish).await {
            Ok(network) => {
                tracing::info!(network = network.name, %id, "a network made by docker is the mesh's now");
                Standing::Of(network.id)
            }
            Err(e) if matches!(e.kind, ErrorKind::Conflict | ErrorKind::Invalid) => {
                self.lose(docker, id, e.message).await
            }
            Err(e) => {
                let why = format!("the mesh does not know it yet: {}", e.message);
                self.away = Some(why.clone());
                Standing::Stray(why)
            }
        }
    }

    /// It cannot be the mesh's. Unless containers are on it, it goes; if the mesh has another network of this name, that one
    /// comes in its place.
    async fn lose(&self, docker: &DockerNetwork, id: NetworkId, why: String) -> Standing {
        tracing::warn!(
            network = docker.name,
            why,
            "a network made by docker cannot be the mesh's: removed from Docker"
        );
        let at_work = self.book.at_work(Some(id));
        let removed = self.engine.remove_network(&docker.id).await;
        drop(at_work);
        match removed {
            Ok(()) => {
                let twin = self.book.networks().into_iter().find(|network| network.name == docker.name);
                if let Some(Err(e)) = twin.map(|twin| self.book.bring_back(twin.id)) {
                    tracing::warn!(error = %e, "cannot be written down");
                }
                Standing::Removed
            }
            Err(RemoveError::InUse { containers, .. }) => Standing::Stray(format!(
                "conflict: {why}; it carries nothing: stop the containers on it ({}), and weft mends it",
                containers.join(", ")
            )),
            Err(RemoveError::Engine(e)) => Standing::Stray(format!("conflict: {why}; {e}")),
        }
    }
}

/// Writes down the strays of one look, and says what is new.
pub fn tell_strays(book: &Book, strays: BTreeMap<String, Stray>) {
    for stray in book.set_strays(strays) {
        tracing::warn!(network = stray.name, why = stray.why, "a Docker network carries nothing");
    }
}

/// Removes from the mesh what a person removed with `docker network rm`, once nobody uses it.
pub async fn withdraw(book: Arc<Book>, deciding: Deciding) {
    let mut changes = book.changes();
    let mut waiting: BTreeMap<NetworkId, u32> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let absent = book.absent();
        waiting.retain(|id, _| absent.contains_key(id));
        for (id, remove) in absent {
            if matches!(book.decided(id), Decided::Gone) {
                forget(&book, id);
            } else if remove {
                let looks = waiting.entry(id).or_insert(UNUSED_LOOKS);
                if book.in_use(id) {
                    *looks = 0;
                } else {
                    *looks = looks.saturating_add(1);
                }
                if *looks >= UNUSED_LOOKS {
                    remove_network(&book, &deciding, id).await;
                }
            }
        }
        let next = tokio::time::Instant::now() + EVERY;
        // Only news about what is taken away is worth a look before its time.
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if book.absent().iter().any(|(id, remove)| *remove && !waiting.contains_key(id)) {
                        break;
                    }
                }
                () = tokio::time::sleep_until(next) => break,
            }
        }
    }
}

async fn remove_network(book: &Book, deciding: &Deciding, id: NetworkId) {
    match deciding.delete(&format!("{}/{id}", path::NETWORKS)).await {
        Ok(()) => tracing::info!(network = %id, "removed from the mesh, as from Docker"),
        Err(e) if e.kind == ErrorKind::NotFound => forget(book, id),
        Err(e) => tracing::info!(network = %id, why = e.message, "not removed from the mesh yet"),
    }
}

fn forget(book: &Book, id: NetworkId) {
    if let Err(e) = book.bring_back(id) {
        tracing::warn!(error = %e, "cannot be written down");
    }
}
