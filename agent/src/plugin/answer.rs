//! The answer to each of Docker's calls. What is given is in the book, on the disk, before it is answered.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_api::error::ApiError;
use weft_api::id::{Mac, NetworkId};
use weft_api::network::{MAX_MTU, MIN_MTU, Network, Origin, Subnet};
use weft_api::request::{HoldRange, RangeHeld};
use weft_docker_plugin::{
    CreateEndpoint, CreateNetwork, EndpointRef, Join, PoolId, Refusal, Request, RequestAddress, RequestPool,
    Response,
};
use weft_router_io::bridge::{BridgeError, container_ifname};

use super::Wires;
use crate::book::{Book, GiveError, now};
use crate::state::ledger::{Endpoint, LedgerError};

/// How long a container waits for the block that was asked for when the last one became half full; less than
/// [`super::DEADLINE`] by what the rest of the call takes.
const BLOCK_PATIENCE: Duration = Duration::from_millis(1500);

/// How long a container waits for an address of a block that is not this host's; less than [`super::DEADLINE_ASKING`].
const LEASE_PATIENCE: Duration = Duration::from_secs(3);

/// Answers Docker.
pub struct Plugin<W> {
    book: Arc<Book>,
    wires: W,
    hold: Hold,
}

/// Asks the deciding host to hold a range, in bounded time; the only question of the plugin to anybody.
pub type Hold =
    Arc<dyn Fn(HoldRange) -> Pin<Box<dyn Future<Output = Result<RangeHeld, ApiError>> + Send>> + Send + Sync>;

impl<W: Wires> Plugin<W> {
    /// Answers out of this book.
    pub fn new(book: Arc<Book>, wires: W, hold: Hold) -> Self {
        Self { book, wires, hold }
    }

    /// The answer to one call.
    pub async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        match request {
            Request::RequestPool(wish) => self.pool(&wish).await,
            Request::ReleasePool(pool) => {
                self.book.let_go(pool.range);
                Ok(Response::Done)
            }
            Request::RequestAddress(wish) => self.address(wish).await,
            Request::ReleaseAddress { pool, address } => self.release(pool, address).await,
            Request::CreateNetwork(made) => self.create_network(made).await,
            Request::DeleteNetwork(docker) => {
                self.on_disk(move |book| delete_network(book, docker.as_str())).await.map_err(refusal)?;
                Ok(Response::Done)
            }
            Request::CreateEndpoint(wish) => self.create_endpoint(wish).await,
            Request::EndpointOperInfo(_) => Ok(Response::OperInfo),
            Request::DeleteEndpoint(at) => self.delete_endpoint(at).await,
            Request::Join(join) => self.join(join).await,
            // The veth goes with the endpoint: Docker still moves it out of the container after this call.
            Request::Leave(_) => Ok(Response::Done),
        }
    }

    async fn pool(&self, wish: &RequestPool) -> Result<Response, Refusal> {
        // Ranges of the mesh do not overlap: whoever names one names its network.
        let network = match (wish.network, wish.range) {
            (None, Some(range)) => self.book.network_with(range),
            (None, None) => None,
            (id, _) => Some(self.asked_for(id)?),
        };
        let Some(network) = network else { return self.hold(wish).await };
        let subnet = match wish.range {
            Some(range) => network.subnets.iter().find(|subnet| subnet.range == range),
            None => network.subnets.iter().find(|subnet| matches!(subnet.range, IpNet::V6(_)) == wish.v6),
        };
        let Some(subnet) = subnet else {
            let ranges: Vec<_> = network.subnets.iter().map(|subnet| subnet.range.to_string()).collect();
            return Err(Refusal::new(format!(
                "network {} of the mesh has the range {}: leave it to weft to make the Docker network",
                network.name,
                ranges.join(" and ")
            )));
        };
        if wish.sub_range.is_some_and(|sub| sub != subnet.range) {
            return Err(no_ip_range());
        }
        let pool = PoolId { network: network.id, range: subnet.range };
        Ok(Response::Pool { pool, gateway: subnet.gateway })
    }

    /// A person typed `docker network create`; the name comes later, by an event.
    async fn hold(&self, wish: &RequestPool) -> Result<Response, Refusal> {
        if wish.sub_range.is_some() {
            return Err(no_ip_range());
        }
        let asked = (self.hold)(HoldRange { range: wish.range, v6: wish.v6 }).await;
        let held = asked.map_err(|e| Refusal::new(e.message))?;
        let (network, range, gateway) = (held.network, held.range, held.gateway);
        self.book.hold(held);
        Ok(Response::Pool { pool: PoolId { network, range }, gateway })
    }

    /// The network that a pool is of. The two ranges of a network that Docker is making are asked for one by one, each under an
    /// id of its own; it gets the first one.
    fn of_pool(&self, pool: PoolId) -> NetworkId {
        if pool.range.addr().is_ipv4() || self.book.network(pool.network).is_some() {
            return pool.network;
        }
        self.book.network_with(pool.range).map_or(pool.network, |network| network.id)
    }

    async fn address(&self, wish: RequestAddress) -> Result<Response, Refusal> {
        let range = wish.pool.range;
        if wish.gateway {
            return self.gateway(wish.pool, wish.address);
        }
        if self.book.held(range).is_some() {
            return Err(Refusal::new("weft keeps no addresses aside: leave --aux-address out"));
        }
        let mut changes = self.book.changes();
        let patience = if wish.address.is_some() { LEASE_PATIENCE } else { BLOCK_PATIENCE };
        let limit = tokio::time::Instant::now() + patience;
        let mut waits = None;
        loop {
            changes.mark_unchanged();
            let network = self.of_pool(wish.pool);
            let given = self.on_disk(move |book| book.give(network, range, wish.address)).await;
            match given {
                // `docker run` right after `docker network create`.
                Err(GiveError::NoNetwork { .. })
                    if self.book.is_coming(network)
                        && matches!(tokio::time::timeout_at(limit, changes.changed()).await, Ok(Ok(()))) => {}
                Err(GiveError::Full { decided: false, .. })
                    if matches!(tokio::time::timeout_at(limit, changes.changed()).await, Ok(Ok(()))) => {}
                // `--ip` in a block that nobody holds becomes this host's; in another host's block it is asked for.
                Err(GiveError::Unheld { address, .. } | GiveError::Elsewhere { address, .. })
                    if {
                        waits = waits.or_else(|| self.book.wish(network, range, address));
                        waits.is_some()
                    } && matches!(tokio::time::timeout_at(limit, changes.changed()).await, Ok(Ok(()))) => {}
                Ok(address) => return with_prefix(address, range),
                Err(e) => return Err(refusal(e)),
            }
        }
    }

    /// The same on every host, so it is granted on every host.
    fn gateway(&self, pool: PoolId, wanted: Option<IpAddr>) -> Result<Response, Refusal> {
        if let (Some(held), Some(gateway)) = (self.book.held(pool.range), wanted) {
            self.book.choose_gateway(held.range, gateway);
            return with_prefix(gateway, pool.range);
        }
        let network = self.asked_for(Some(self.of_pool(pool)))?;
        let gateway = subnet(&network, pool.range)?.gateway;
        if wanted.is_some_and(|wanted| wanted != gateway) {
            return Err(Refusal::new(format!(
                "the gateway of network {} is {gateway} on every host: leave --gateway out",
                network.name
            )));
        }
        with_prefix(gateway, pool.range)
    }

    async fn release(&self, pool: PoolId, address: IpAddr) -> Result<Response, Refusal> {
        let network = self.of_pool(pool);
        self.on_disk(move |book| book.free(network, address)).await.map_err(refusal)?;
        Ok(Response::Done)
    }

    async fn create_network(&self, made: CreateNetwork) -> Result<Response, Refusal> {
        let docker = made.docker.as_str().to_owned();
        let joins = made.pools.first().and_then(|pool| self.book.network_with(pool.range));
        let network = match (made.network, joins) {
            (None, None) => return self.bind_unnamed(&made).await,
            (None, Some(network)) => {
                same_kind(&made, &network)?;
                network
            }
            (id, _) => self.asked_for(id)?,
        };
        if let Some(pool) = made.pools.iter().find(|pool| subnet(&network, pool.range).is_err()) {
            return Err(Refusal::new(format!(
                "network {} of the mesh has no range {}",
                network.name, pool.range
            )));
        }
        self.on_disk(move |book| book.bind(&docker, network.id)).await.map_err(refusal)?;
        Ok(Response::Done)
    }

    /// A network of its own, whose name Docker tells by an event.
    async fn bind_unnamed(&self, made: &CreateNetwork) -> Result<Response, Refusal> {
        if let Some(mtu) = made.mtu.filter(|mtu| !(MIN_MTU..=MAX_MTU).contains(mtu)) {
            return Err(Refusal::new(format!(
                "an MTU of {mtu} cannot be kept: choose {MIN_MTU} to {MAX_MTU}"
            )));
        }
        let mut id = None;
        for pool in &made.pools {
            let held = self.book.held(pool.range).ok_or_else(|| {
                let range = pool.range;
                Refusal::new(format!("weft has not given Docker the range {range}: run the command again"))
            })?;
            id.get_or_insert(held.network);
        }
        let id = id.ok_or_else(|| Refusal::new("a network of weft needs a range: add --ipam-driver weft"))?;
        let docker = made.docker.as_str().to_owned();
        let bound = self.on_disk(move |book| {
            // The network has no name yet, so an earlier object of it is one that Docker gave up making and never named.
            book.docker_ids(id)
                .iter()
                .filter(|earlier| **earlier != docker)
                .try_for_each(|e| book.unbind(e))?;
            book.bind(&docker, id)
        });
        bound.await.map_err(refusal)?;
        made.pools.iter().for_each(|pool| self.book.let_go(pool.range));
        Ok(Response::Done)
    }

    async fn create_endpoint(&self, wish: CreateEndpoint) -> Result<Response, Refusal> {
        let network = self.network_of(&wish.at)?;
        let addresses: Vec<IpAddr> = wish.addresses.iter().map(IpNet::addr).collect();
        let own = wish.mac;
        let mac = own.or_else(|| addresses.first().map(|ip| stable_mac(*ip)));
        let mac = mac.ok_or_else(|| {
            Refusal::new("Docker wants an endpoint without an address: give the network a range")
        })?;
        let endpoint = Endpoint {
            id: wish.at.endpoint.as_str().to_owned(),
            docker_network: wish.at.network.as_str().to_owned(),
            network: network.id,
            addresses,
            mac,
            container: String::new(),
            since: now(),
        };
        container_ifname(&endpoint.id).map_err(refusal)?;
        self.on_disk(move |book| book.add_endpoint(endpoint)).await.map_err(refusal)?;
        Ok(Response::Endpoint(if own.is_some() { None } else { Some(mac) }))
    }

    async fn join(&self, join: Join) -> Result<Response, Refusal> {
        let id = join.at.endpoint.as_str();
        let unknown = || Refusal::new(format!("weft has no endpoint {id:.12}: start the container anew"));
        let endpoint = self.book.endpoint(id).ok_or_else(unknown)?;
        let network = self.asked_for(Some(endpoint.network))?;
        let made = match self.wires.create_veth(network.id, id, endpoint.mac, network.mtu).await {
            // After a boot Docker may be quicker than we are with our own bridges.
            Err(BridgeError::NoLink { .. }) => {
                self.wires.ensure_bridge(&network).await.map_err(refusal)?;
                self.wires.create_veth(network.id, id, endpoint.mac, network.mtu).await
            }
            made => made,
        };
        let interface = made.map_err(refusal)?;
        tracing::info!(network = %network.name, endpoint = format!("{id:.12}"), addresses = ?endpoint.addresses, "container joins");
        Ok(Response::Join { interface })
    }

    async fn delete_endpoint(&self, at: EndpointRef) -> Result<Response, Refusal> {
        let id = at.endpoint.as_str().to_owned();
        if let Err(e) = self.wires.delete_veth(&id).await {
            // Docker cannot do anything about it; the comparison with its list finds what is left over.
            tracing::warn!(endpoint = format!("{id:.12}"), error = %e, "a veth is left over");
        }
        self.on_disk(move |book| book.remove_endpoint(&id)).await.map_err(refusal)?;
        Ok(Response::Done)
    }

    fn network_of(&self, at: &EndpointRef) -> Result<Network, Refusal> {
        let bound = self.book.bound(at.network.as_str());
        let unknown = || {
            Refusal::new(format!(
                "weft does not know Docker's network {:.12}: remove it, and weft makes it again",
                at.network.as_str()
            ))
        };
        self.asked_for(Some(bound.ok_or_else(unknown)?))
    }

    /// The network of the mesh that a call is about.
    fn asked_for(&self, network: Option<NetworkId>) -> Result<Network, Refusal> {
        let id =
            network.ok_or_else(|| Refusal::new("Docker did not say which network: report this as a bug"))?;
        self.book.network(id).ok_or_else(|| {
            Refusal::new(format!(
                "the mesh has no network with the id {id} (any more): weft network ls lists them"
            ))
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

fn no_ip_range() -> Refusal {
    Refusal::new("weft gives each host blocks of its own, so --ip-range cannot be kept: leave it out")
}

/// Docker makes a network with the range of one that the mesh has.
fn same_kind(made: &CreateNetwork, network: &Network) -> Result<(), Refusal> {
    let name = &network.name;
    let differs = if made.internal != network.internal {
        if network.internal {
            "it is internal: add --internal"
        } else {
            "it is not internal: leave --internal out"
        }
    } else if made.mtu.is_some_and(|mtu| mtu != network.mtu) {
        "it has another MTU: leave the option out"
    } else if made.pools.len() != network.subnets.len() {
        "it has not the same ranges: see weft network inspect"
    } else {
        return Ok(());
    };
    Err(Refusal::new(format!("the mesh has a network {name} with this range, and {differs}")))
}

/// `docker network rm` by a person, unless we do it ourselves.
fn delete_network(book: &Book, docker: &str) -> Result<(), LedgerError> {
    let bound = book.bound(docker);
    book.unbind(docker)?;
    match bound.and_then(|id| book.network(id)) {
        Some(network) if !book.is_at_work(network.id) && book.docker_ids(network.id).is_empty() => {
            let remove = matches!(network.origin, Origin::Docker { .. });
            tracing::info!(
                network = network.name,
                remove,
                "removed from Docker by a person: not on this host any more"
            );
            book.take_away(network.id, remove)
        }
        _ => Ok(()),
    }
}

fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(error.to_string())
}

fn subnet(network: &Network, range: IpNet) -> Result<&Subnet, Refusal> {
    network
        .subnets
        .iter()
        .find(|subnet| subnet.range == range)
        .ok_or_else(|| Refusal::new(format!("network {} of the mesh has no range {range}", network.name)))
}

fn stable_mac(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(v4) => Mac::of_ipv4(v4),
        IpAddr::V6(v6) => Mac::of_ipv6(v6),
    }
}

fn with_prefix(address: IpAddr, range: IpNet) -> Result<Response, Refusal> {
    IpNet::new(address, range.prefix_len())
        .map(Response::Address)
        .map_err(|_| Refusal::new(format!("{address} is of another family than {range}")))
}
