//! The Docker engine of this host as the agent sees it: there or away, and its list compared with the book whenever something
//! happens. An engine that is away is a state, not an error: it is waited for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weft_api::id::NetworkId;
use weft_docker_engine::{Engine, EngineError, Event, RemoveError};

use crate::book::{Book, Listed, Stray};
use crate::deciding::Deciding;
use crate::naming::{Naming, Standing, tell_strays};
use crate::plugin::Wires;

/// Between two attempts to reach an engine that is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Without an event the list is compared this often: what was given in vain is freed.
const SURVEY_EVERY: Duration = Duration::from_secs(30);

/// While a network waits for its name to reach the mesh, or a container for its own (Docker lists one that is connected while
/// it runs only after it has told of it), the list is compared this often.
const UNNAMED_EVERY: Duration = Duration::from_secs(1);

/// An engine that takes calls and does not answer is found out by asking this often.
const PULSE_EVERY: Duration = Duration::from_secs(2);

/// Whether Docker can be used.
#[derive(Clone, Debug)]
pub enum Docker {
    /// It answers.
    Ready(Engine),
    /// It does not; the sentence is for people.
    Away(String),
}

impl Docker {
    /// The engine, if it answers.
    #[must_use]
    pub fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Ready(engine) => Some(engine),
            Self::Away(_) => None,
        }
    }
}

/// Connects, and connects again, for as long as the process runs.
pub fn watch<W: Wires>(book: Arc<Book>, wires: W, deciding: Deciding) -> watch::Receiver<Docker> {
    let (state, watched) =
        watch::channel(Docker::Away("Docker has not been asked yet: wait a second".into()));
    tokio::spawn(async move {
        while !state.is_closed() {
            match Engine::connect().await {
                Ok(engine) => {
                    let why = tokio::select! {
                        why = follow(&state, &engine, &book, &wires, &deciding) => why,
                        why = pulse(&engine) => why,
                    };
                    away(&state, why);
                }
                Err(e) => away(&state, e.to_string()),
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    watched
}

/// Until the engine does not answer; why.
async fn pulse(engine: &Engine) -> String {
    loop {
        tokio::time::sleep(PULSE_EVERY).await;
        if let Err(e) = engine.ping().await {
            return e.to_string();
        }
    }
}

/// Until the engine goes away, or answers with an error: it may be another one by then, which speaks another version of the
/// API. Why.
async fn follow<W: Wires>(
    state: &watch::Sender<Docker>,
    engine: &Engine,
    book: &Arc<Book>,
    wires: &W,
    deciding: &Deciding,
) -> String {
    let gone = || "Docker does not answer: start it, weft waits for it".to_owned();
    let mut events = engine.events();
    let mut every = SURVEY_EVERY;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = tokio::time::sleep(every) => Some(Event::Resync),
        };
        match event {
            None | Some(Event::Away) => return gone(),
            Some(Event::Resync) => {
                if let Err(e) = ready(state, engine).await {
                    return e.to_string();
                }
            }
            Some(Event::ContainerDied { .. } | Event::ContainerDestroyed { .. }) => {
                continue;
            }
            Some(
                Event::Connected { .. }
                | Event::Disconnected { .. }
                | Event::ContainerStarted { .. }
                | Event::ContainerRenamed { .. }
                | Event::NetworkCreated { .. }
                | Event::NetworkDestroyed { .. },
            ) => {}
        }
        // Events come in swarms: what came while the last survey ran is answered by one.
        let mut lost = false;
        while let Ok(event) = events.try_recv() {
            lost |= event == Event::Away;
        }
        if lost {
            return gone();
        }
        every = match survey(engine, book, wires, deciding).await {
            Ok(true) if book.endpoints().iter().all(|e| !e.container.is_empty()) => SURVEY_EVERY,
            Ok(_) => UNNAMED_EVERY,
            Err(e) => return e.to_string(),
        };
    }
}

/// The engine is there, unless it cannot even list its networks.
async fn ready(state: &watch::Sender<Docker>, engine: &Engine) -> Result<(), EngineError> {
    if state.borrow().engine().is_some() {
        return Ok(());
    }
    engine.networks().await?;
    let version = engine.version();
    tracing::info!(engine = %version.engine, api = %version.api, "Docker is there");
    state.send_replace(Docker::Ready(engine.clone()));
    Ok(())
}

/// Docker's list of each network of ours against the book; false if one still waits for the mesh.
async fn survey<W: Wires>(
    engine: &Engine,
    book: &Arc<Book>,
    wires: &W,
    deciding: &Deciding,
) -> Result<bool, EngineError> {
    let (mut strays, mut of_mesh) = (BTreeMap::new(), Vec::new());
    let mut naming = Naming { engine, book, deciding, away: None };
    let mut elsewhere = book.networks_known();
    for listed in engine.networks().await? {
        for id in listed.network.into_iter().chain(book.bound(&listed.id)) {
            elsewhere.remove(&id);
        }
        match naming.standing(&listed).await {
            Standing::Of(network) => {
                elsewhere.remove(&network);
                of_mesh.push((listed, network));
            }
            Standing::Gone => {
                let network = listed.network.or_else(|| book.bound(&listed.id));
                let _our_own_doing = book.at_work(network);
                forget(engine, &listed.id, &listed.name).await?;
            }
            Standing::Stray(why) => {
                let stray = Stray { name: listed.name, subnets: listed.subnets, why };
                strays.insert(listed.id, stray);
            }
            Standing::Removed => {}
        }
    }
    let all_named = naming.away.is_none();
    tell_strays(book, strays);
    for (listed, network) in of_mesh {
        let containers = engine.containers(&listed.id, &listed.name).await?;
        let pinned = containers.iter().flat_map(|c| c.pinned.iter().map(|ip| (*ip, c.name.clone())));
        pin(book, network, pinned.collect()).await;
        let running = containers.into_iter().filter(|c| c.running && !c.endpoint.is_empty());
        let running: Vec<Listed> =
            running.map(|c| Listed { endpoint: c.endpoint, name: c.name, addresses: c.addresses }).collect();
        compare(book, wires, Some(listed.id), network, running).await;
    }
    // What Docker has no more has no containers either.
    for network in elsewhere {
        pin(book, network, BTreeMap::new()).await;
        compare(book, wires, None, network, Vec::new()).await;
    }
    Ok(all_named)
}

async fn pin(book: &Arc<Book>, network: NetworkId, pinned: BTreeMap<IpAddr, String>) {
    let book = Arc::clone(book);
    match tokio::task::spawn_blocking(move || book.pin(network, &pinned)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!(error = %e, "what Docker has in its records cannot be written down"),
        Err(e) => tracing::warn!(error = %e, "reading Docker's records died"),
    }
}

async fn compare<W: Wires>(
    book: &Arc<Book>,
    wires: &W,
    docker: Option<String>,
    network: NetworkId,
    running: Vec<Listed>,
) {
    let book = Arc::clone(book);
    let compared = tokio::task::spawn_blocking(move || {
        if let Some(docker) = docker {
            book.bind(&docker, network)?;
        }
        book.compare(network, &running)
    });
    match compared.await {
        Ok(Ok(gone)) => {
            for endpoint in gone {
                if let Err(e) = wires.delete_veth(&endpoint.id).await {
                    tracing::warn!(error = %e, "a veth is left over");
                }
            }
        }
        Ok(Err(e)) => tracing::warn!(error = %e, "what Docker lists cannot be written down"),
        Err(e) => tracing::warn!(error = %e, "the comparison with Docker's list died"),
    }
}

/// Docker has a network that the mesh no longer has.
async fn forget(engine: &Engine, id: &str, name: &str) -> Result<(), EngineError> {
    match engine.remove_network(id).await {
        Ok(()) => {
            tracing::info!(network = name, "removed from Docker: the mesh has it no more");
            Ok(())
        }
        Err(RemoveError::InUse { .. }) => Ok(()),
        Err(RemoveError::Engine(e)) if e.is_passing() => Err(e),
        Err(RemoveError::Engine(e)) => {
            tracing::warn!(network = name, error = %e, "Docker keeps a network that the mesh has no more");
            Ok(())
        }
    }
}

fn away(state: &watch::Sender<Docker>, why: String) {
    state.send_if_modified(|now| {
        let same = matches!(now, Docker::Away(known) if *known == why);
        if !same {
            tracing::info!(why, "Docker is away");
            *now = Docker::Away(why);
        }
        !same
    });
}
