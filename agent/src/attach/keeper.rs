//! The task that attaches, detaches, and looks after both: what a namespace takes with it is forgotten, what this host lost
//! is made again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{Mac, NetworkId};
use weft_api::network::Network;
use weft_api::request::{Attach, Detach, Whom};
use weft_router_io::bridge::{BridgeError, Bridges, Netns, Ours, host_ifname};

use super::place::{HOST_NAME, Place, host_endpoint};
use super::{Order, check_wanted};
use crate::blocks;
use crate::book::{Book, GiveError, now};
use crate::docker::Docker;
use crate::state::ledger::{Endpoint, LedgerError};

/// A namespace that has ended is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Keeper {
    pub book: Arc<Book>,
    pub bridges: Bridges,
    pub docker: watch::Receiver<Docker>,
}

/// Where an endpoint is to be.
struct Target {
    /// `None`: this host.
    netns: Option<Netns>,
    /// In lists.
    name: String,
}

impl Target {
    fn place(&self) -> Place {
        self.netns.as_ref().map_or(Place::Host, |netns| Place::Namespace(netns.inode))
    }
}

impl Keeper {
    /// Until nobody can ask any more.
    pub async fn run(self, mut orders: mpsc::Receiver<Order>) {
        let mut next_look = Instant::now();
        loop {
            if Instant::now() >= next_look {
                self.look_around().await;
                next_look = Instant::now() + LOOK_EVERY;
            }
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Attach(wish, tell)) => {
                        let _asker_is_gone = tell.send(self.attach(wish).await);
                    }
                    Some(Order::Detach(wish, tell)) => {
                        let _asker_is_gone = tell.send(self.detach(&wish).await);
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(next_look) => {}
            }
        }
    }

    async fn attach(&self, wish: Attach) -> Result<Endpoint, ApiError> {
        check_wanted(&wish.addresses)?;
        let network = self.network(&wish.network)?;
        let target = self.target(&wish.whom).await?;
        if let Some(there) = self.there(network.id, target.place()) {
            if wish.addresses.iter().all(|wanted| there.addresses.contains(wanted)) {
                return Ok(there);
            }
            let sentence = format!(
                "{} is on network {} already, as {}: take it off first (weft {})",
                target.name,
                network.name,
                list(&there.addresses),
                if target.netns.is_some() { "detach" } else { "hide" }
            );
            return Err(ApiError::new(ErrorKind::Conflict, sentence));
        }
        let mut given = Vec::new();
        let done = self.attach_with(&network, target, &wish.addresses, &mut given).await;
        if done.is_err() {
            for address in given {
                self.on_disk(move |book| book.free(network.id, address)).await.map_err(|e| internal(&e))?;
            }
        }
        done
    }

    /// `given`: the addresses to take back if it fails.
    async fn attach_with(
        &self,
        network: &Network,
        target: Target,
        wanted: &[IpAddr],
        given: &mut Vec<IpAddr>,
    ) -> Result<Endpoint, ApiError> {
        if let Some(stray) = wanted.iter().find(|ip| !network.subnets.iter().any(|s| s.range.contains(*ip))) {
            let sentence =
                format!("{stray} lies outside network {}: choose an address of its range", network.name);
            return Err(ApiError::new(ErrorKind::Invalid, sentence));
        }
        for subnet in &network.subnets {
            let wanted = wanted.iter().find(|ip| subnet.range.contains(*ip)).copied();
            let address = blocks::give(&self.book, network.id, subnet.range, wanted).await;
            given.push(address.map_err(refused)?);
        }
        let place = target.place();
        let first = given.first().ok_or_else(|| internal(&"the network has no range"))?;
        let id = match place {
            Place::Host => host_endpoint(network.id),
            _ => random_id()?,
        };
        let mut endpoint = Endpoint {
            id,
            docker_network: if place == Place::Host { place } else { Place::OnItsWay }.to_string(),
            network: network.id,
            addresses: given.clone(),
            mac: stable_mac(*first),
            container: target.name,
            since: now(),
        };
        let entered = endpoint.clone();
        self.on_disk(move |book| book.add_endpoint(entered)).await.map_err(refused)?;
        let wired = self.wire(network, &endpoint, target.netns).await;
        if let Err(e) = wired {
            self.forget(&endpoint, false).await;
            return Err(internal(&e));
        }
        if place != Place::Host {
            endpoint.docker_network = place.to_string();
            let entered = endpoint.clone();
            self.on_disk(move |book| book.add_endpoint(entered)).await.map_err(refused)?;
        }
        tracing::info!(network = %network.name, who = %endpoint.container, addresses = ?endpoint.addresses, "attached");
        Ok(endpoint)
    }

    async fn detach(&self, wish: &Detach) -> Result<(), ApiError> {
        let network = self.network(&wish.network)?;
        let endpoint = match &wish.whom {
            // It may have stopped a moment ago.
            Whom::Container(name) if self.named(network.id, name).is_some() => self.named(network.id, name),
            whom => {
                let target = self.target(whom).await?;
                self.there(network.id, target.place())
            }
        };
        let Some(endpoint) = endpoint else {
            let sentence = match &wish.whom {
                Whom::Host => {
                    format!("this host is not exposed on network {}: weft ps lists who is", network.name)
                }
                Whom::Container(name) => format!(
                    "weft did not attach {name} to network {0}: if Docker did, docker network disconnect {0} {name}",
                    network.name
                ),
                Whom::Pid(pid) => format!(
                    "the namespace of process {pid} is not attached to network {}: weft ps lists who is",
                    network.name
                ),
            };
            return Err(ApiError::new(ErrorKind::NotFound, sentence));
        };
        self.forget(&endpoint, true).await;
        Ok(())
    }

    /// Takes away what is gone; gives this host back what it lost.
    async fn look_around(&self) {
        let own = self.book.endpoints().into_iter().filter_map(|e| Some((Place::of(&e)?, e)));
        let own: Vec<(Place, Endpoint)> = own.collect();
        if own.is_empty() {
            return;
        }
        let there: BTreeSet<Ours> = match self.bridges.list_ours().await {
            Ok(ours) => ours.into_iter().collect(),
            Err(e) => return tracing::warn!(error = %e, "the interfaces of this machine cannot be listed"),
        };
        for (place, endpoint) in own {
            let network = self.book.network(endpoint.network);
            let name = host_ifname(&endpoint.id).unwrap_or_default();
            let wired = there.contains(&Ours::Veth { name, network: Some(endpoint.network) });
            match (place, network) {
                (Place::Host, Some(network)) => {
                    if !there.contains(&Ours::Bridge(network.id)) {
                        continue;
                    }
                    let mended = if wired {
                        self.bridges.expose(&network, &endpoint.id, &endpoint.addresses).await
                    } else {
                        self.wire(&network, &endpoint, None).await
                    };
                    if let Err(e) = mended {
                        tracing::warn!(network = %network.name, error = %e, "this host is not in reach of the network");
                    }
                }
                (Place::Namespace(_), Some(_)) if wired => {}
                _ => {
                    tracing::info!(who = %endpoint.container, addresses = ?endpoint.addresses, "its namespace or network is gone: detached");
                    self.forget(&endpoint, true).await;
                }
            }
        }
    }

    /// The veth, and what is at its other end.
    async fn wire(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        netns: Option<Netns>,
    ) -> Result<(), BridgeError> {
        self.bridges.create_veth(network.id, &endpoint.id, endpoint.mac, network.mtu).await?;
        match netns {
            None => self.bridges.expose(network, &endpoint.id, &endpoint.addresses).await,
            Some(netns) => {
                let with_prefix = |ip: &IpAddr| {
                    let subnet = network.subnets.iter().find(|subnet| subnet.range.contains(ip));
                    let bits = subnet.map_or(0, |subnet| subnet.range.prefix_len());
                    IpNet::new(*ip, bits).unwrap_or(IpNet::from(*ip))
                };
                let addresses = endpoint.addresses.iter().map(with_prefix).collect();
                self.bridges.move_into(netns, &endpoint.id, addresses).await.map(drop)
            }
        }
    }

    /// Removes an endpoint, and its addresses too unless somebody else takes them back.
    async fn forget(&self, endpoint: &Endpoint, addresses: bool) {
        if let Err(e) = self.bridges.delete_veth(&endpoint.id).await {
            tracing::warn!(error = %e, "a veth is left over");
        }
        let (network, id) = (endpoint.network, endpoint.id.clone());
        let mut free = if addresses { endpoint.addresses.clone() } else { Vec::new() };
        let forgotten = self.on_disk(move |book| {
            book.remove_endpoint(&id)?;
            free.drain(..).try_for_each(|address| book.free(network, address).map(drop))
        });
        if let Err(e) = forgotten.await {
            tracing::warn!(error = %e, "an endpoint cannot be forgotten");
        }
    }

    async fn target(&self, whom: &Whom) -> Result<Target, ApiError> {
        let (pid, name) = match whom {
            Whom::Host => return Ok(Target { netns: None, name: HOST_NAME.to_owned() }),
            Whom::Pid(pid) => (*pid, format!("(pid {pid})")),
            Whom::Container(name) => {
                let engine = self.docker.borrow().engine().cloned();
                let away = "Docker does not answer, so no container can be found: start it, or use --pid";
                let engine = engine.ok_or_else(|| ApiError::new(ErrorKind::Unavailable, away))?;
                let running = engine.running(name).await;
                let running = running.map_err(|e| ApiError::new(ErrorKind::Unavailable, e.to_string()))?;
                let running = running.ok_or_else(|| {
                    let sentence =
                        format!("no container \"{name}\" runs on this host: docker ps lists those that do");
                    ApiError::new(ErrorKind::NotFound, sentence)
                })?;
                (running.pid, running.name)
            }
        };
        let netns = Netns::of(pid).map_err(|e| {
            let sentence =
                format!("process {pid} has no network namespace to be found ({e}): is it running?");
            ApiError::new(ErrorKind::NotFound, sentence)
        })?;
        if netns.is_own().map_err(|e| internal(&e))? {
            let sentence =
                format!("{name} has no network of its own but this host's: use weft expose NETWORK");
            return Err(ApiError::new(ErrorKind::Invalid, sentence));
        }
        Ok(Target { netns: Some(netns), name })
    }

    fn network(&self, name: &str) -> Result<Network, ApiError> {
        let mut networks = self.book.networks().into_iter();
        networks.find(|n| n.name == name || n.id.to_string() == name).ok_or_else(|| {
            let sentence = format!("the mesh has no network named \"{name}\": weft network ls lists them");
            ApiError::new(ErrorKind::NotFound, sentence)
        })
    }

    fn there(&self, network: NetworkId, place: Place) -> Option<Endpoint> {
        let mut endpoints = self.book.endpoints().into_iter();
        endpoints.find(|e| e.network == network && Place::of(e) == Some(place))
    }

    fn named(&self, network: NetworkId, name: &str) -> Option<Endpoint> {
        let mut endpoints = self.book.endpoints().into_iter();
        endpoints.find(|e| {
            e.network == network && e.container == name && matches!(Place::of(e), Some(Place::Namespace(_)))
        })
    }

    /// Writes to the disk outside the runtime's threads.
    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&Book) -> T + Send + 'static) -> T {
        let book = Arc::clone(&self.book);
        match tokio::task::spawn_blocking(move || work(&book)).await {
            Ok(done) => done,
            Err(died) => std::panic::resume_unwind(died.into_panic()),
        }
    }
}

fn stable_mac(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(v4) => Mac::of_ipv4(v4),
        IpAddr::V6(v6) => Mac::of_ipv6(v6),
    }
}

fn refused(error: GiveError) -> ApiError {
    let kind = match &error {
        GiveError::Ledger(LedgerError::Io { .. }) => ErrorKind::Internal,
        GiveError::Full { decided: false, .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Conflict,
    };
    ApiError::new(kind, error.to_string())
}

fn internal(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(ErrorKind::Internal, error.to_string())
}

/// 48 random bits, as many as an interface's name takes.
fn random_id() -> Result<String, ApiError> {
    let mut bits = [0; 6];
    aws_lc_rs::rand::fill(&mut bits).map_err(|_| internal(&"this machine gives no random numbers"))?;
    Ok(bits.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
