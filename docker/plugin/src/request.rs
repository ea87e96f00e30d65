//! What Docker asks that somebody must decide.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::id::{Mac, NetworkId};

use crate::id::{DockerId, PoolId};

/// A call of Docker whose answer depends on state. What has always the same answer is [`crate::Incoming::Answered`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// IpamDriver.RequestPool -> [`crate::Response::Pool`]
    RequestPool(RequestPool),
    /// IpamDriver.ReleasePool -> [`crate::Response::Done`], also if unknown
    ReleasePool(PoolId),
    /// IpamDriver.RequestAddress -> [`crate::Response::Address`]
    RequestAddress(RequestAddress),
    /// IpamDriver.ReleaseAddress -> [`crate::Response::Done`], also if unknown
    ReleaseAddress {
        /// The pool.
        pool: PoolId,
        /// The address in it; also the gateway's, when the network goes.
        address: IpAddr,
    },
    /// NetworkDriver.CreateNetwork -> [`crate::Response::Done`]
    CreateNetwork(CreateNetwork),
    /// NetworkDriver.DeleteNetwork -> [`crate::Response::Done`], also if unknown; Docker cannot be refused
    DeleteNetwork(DockerId),
    /// NetworkDriver.CreateEndpoint -> [`crate::Response::Endpoint`]
    CreateEndpoint(CreateEndpoint),
    /// NetworkDriver.EndpointOperInfo (`docker network inspect`) -> [`crate::Response::OperInfo`]
    EndpointOperInfo(EndpointRef),
    /// NetworkDriver.DeleteEndpoint -> [`crate::Response::Done`], also if unknown
    DeleteEndpoint(EndpointRef),
    /// NetworkDriver.Join -> [`crate::Response::Join`]
    Join(Join),
    /// NetworkDriver.Leave -> [`crate::Response::Done`], also if unknown
    Leave(EndpointRef),
}

/// Wants a range for a network that is being made. Docker names neither the network nor who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestPool {
    /// `--ipam-opt weft.network=ID`: this network of the mesh is being given to Docker. `None`: a person typed
    /// `docker network create`.
    pub network: Option<NetworkId>,
    /// `--subnet`, or any.
    pub range: Option<IpNet>,
    /// `--ip-range`.
    pub sub_range: Option<IpNet>,
    /// Wants an IPv6 range.
    pub v6: bool,
}

/// Wants an address for a container that starts, or for the gateway. It does not say for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestAddress {
    /// From this pool.
    pub pool: PoolId,
    /// `--ip`, `--ip6`, a pin, or an explicit `--gateway`; `None`: any.
    pub address: Option<IpAddr>,
    /// It is for the gateway (`--gateway` was given): granted everywhere.
    pub gateway: bool,
}

/// Docker has made a network object. It does not tell its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateNetwork {
    /// Docker's id of it.
    pub docker: DockerId,
    /// `-o weft.network=ID`. `None`: a person typed `docker network create`.
    pub network: Option<NetworkId>,
    /// Its ranges, IPv4 first; all from our own RequestPool (one of another IPAM driver is refused by [`crate::receive`]).
    pub pools: Vec<Pool>,
    /// `--internal`
    pub internal: bool,
    /// `--ipv6`
    pub ipv6: bool,
    /// `-o weft.mtu=N`, or `-o com.docker.network.driver.mtu=N`
    pub mtu: Option<u16>,
}

/// A range as CreateNetwork tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// The range.
    pub range: IpNet,
    /// The gateway in it.
    pub gateway: Option<IpAddr>,
}

/// An endpoint of a network, in Docker's ids.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EndpointRef {
    /// The network.
    pub network: DockerId,
    /// The endpoint.
    pub endpoint: DockerId,
}

/// A container is being connected: its addresses are known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateEndpoint {
    /// Which.
    pub at: EndpointRef,
    /// Its addresses, IPv4 first, with the prefix length of the network.
    pub addresses: Vec<IpNet>,
    /// `--mac-address`; then the answer must not name one.
    pub mac: Option<Mac>,
}

/// A container's network namespace is ready for the interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// Which.
    pub at: EndpointRef,
    /// The namespace's path, `/var/run/docker/netns/...`; its last part is a random key, not the container's id.
    pub sandbox: String,
}
