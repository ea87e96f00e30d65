//! Docker's plugin protocol for network and IPAM drivers, translated: a method name and a body become a [`Request`]
//! with typed values, a [`Response`] or [`Refusal`] becomes a body. Pure: the socket and the HTTP are the agent's.
//!
//! In what order Engine 20.10.24 calls (captured; `golden/engine-20.10.24.jsonl` has the bodies):
//!
//! | a person does | Docker calls |
//! |---|---|
//! | first use after dockerd's start | Plugin.Activate, both GetCapabilities, GetDefaultAddressSpaces: all answered here, with an empty body |
//! | `network create --subnet R --gateway G` | per family: RequestPool (range, `--ipam-opt`), RequestAddress (G, gateway), RequestAddress of each `--aux-address`; then CreateNetwork (`-o`) |
//! | the same without `--gateway` | RequestPool, CreateNetwork: the gateway is the one in our RequestPool answer |
//! | `run --network N` | RequestAddress of each family (no address), CreateEndpoint (addresses), Join; EndpointOperInfo twice if N is internal. `-p` brings no call: Docker publishes on docker_gwbridge |
//! | `run --ip A`; any start of a container whose `IPAMConfig` has A | the same, RequestAddress has A |
//! | stop, kill, crash, `rm -f` | Leave, DeleteEndpoint, ReleaseAddress of each family (a second start asks anew, and may get another address) |
//! | `restart`, restart policy | stop's calls, then run's: the endpoint id is a new one |
//! | a start that fails after CreateEndpoint | Leave, DeleteEndpoint, ReleaseAddress |
//! | `network rm` | per family ReleaseAddress (of the gateway, asked for or not), ReleasePool; then DeleteNetwork |
//! | dockerd restart, live-restore | only the first four; nothing is replayed for what runs, and later calls use the old ids |
//! | dockerd start, container with `restart: always` that was stopped with it | run's calls |
//!
//! Neither names of networks nor of containers are told. Several containers' calls interleave.

#![forbid(unsafe_code)]

#[cfg(test)]
mod golden;
mod id;
mod options;
mod receive;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod wire;

pub use id::{DockerId, PoolId};
pub use options::{OPTION_MTU, OPTION_NETWORK, OPTION_WEFT_MTU};
pub use receive::{Incoming, receive};
pub use request::{
    CreateEndpoint, CreateNetwork, EndpointRef, Join, Pool, Request, RequestAddress, RequestPool,
};
pub use response::{Refusal, Response};

/// Where Docker looks for the driver named [`DRIVER`].
pub const SOCKET: &str = "/run/docker/plugins/weft.sock";

/// The name of the network driver and of the IPAM driver.
pub const DRIVER: &str = "weft";

/// Docker's bodies are a few hundred bytes; a longer one than this is refused, and its reader need not keep it.
pub const MAX_BODY: usize = 256 * 1024;

/// The `Content-Type` of every answer.
pub const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
