//! What Docker is answered.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use thiserror::Error;
use weft_api::id::Mac;

use crate::id::PoolId;

/// An answer; [`Response::to_body`] makes the bytes. HTTP status 200.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// Done, or was so already.
    Done,
    /// The drivers that this socket is.
    Implements,
    /// NetworkDriver.GetCapabilities
    NetworkCapabilities,
    /// IpamDriver.GetCapabilities
    IpamCapabilities,
    /// The names of our address spaces.
    AddressSpaces,
    /// A range is reserved.
    Pool {
        /// What Docker will call it.
        pool: PoolId,
        /// The gateway, the same on every host; with it Docker asks for no gateway address.
        gateway: IpAddr,
    },
    /// An address is given; with the prefix length of the network's range.
    Address(IpNet),
    /// The endpoint is there. The address that its interface gets; `None` if the request had one.
    Endpoint(Option<Mac>),
    /// Nothing to tell about an endpoint.
    OperInfo,
    /// Docker moves this interface into the container and names it `eth0`, `eth1`, ...
    Join {
        /// The name of the container's side of the veth, on the host.
        interface: String,
    },
}

impl Response {
    /// The body.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        line(&self.to_json())
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Done => json!({}),
            Self::Implements => json!({"Implements": ["NetworkDriver", "IpamDriver"]}),
            Self::NetworkCapabilities => json!({"Scope": "local", "ConnectivityScope": "global"}),
            Self::IpamCapabilities => json!({"RequiresMACAddress": false, "RequiresRequestReplay": false}),
            Self::AddressSpaces => json!({
                "LocalDefaultAddressSpace": crate::receive::LOCAL_SPACE,
                "GlobalDefaultAddressSpace": crate::receive::GLOBAL_SPACE,
            }),
            Self::Pool { pool, gateway } => json!({
                "PoolID": pool.to_string(),
                "Pool": pool.range.to_string(),
                "Data": {"com.docker.network.gateway": format!("{gateway}/{}", pool.range.prefix_len())},
            }),
            Self::Address(address) => json!({"Address": address.to_string(), "Data": {}}),
            Self::Endpoint(Some(mac)) => json!({"Interface": {"MacAddress": mac.to_string()}}),
            Self::Endpoint(None) => json!({"Interface": {}}),
            Self::OperInfo => json!({"Value": {}}),
            // Without a gateway Docker adds docker_gwbridge: default route, NAT, published ports.
            Self::Join { interface } => json!({"InterfaceName": {"SrcName": interface, "DstPrefix": "eth"}}),
        }
    }
}

/// One sentence for the person whose `docker` command failed. HTTP status 200 too: Docker reads the body.
/// It shows it after `Error response from daemon: remote: `.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    /// A refusal that says this; cut at [`Refusal::MAX`] bytes.
    pub fn new(sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        let end = (0..=Self::MAX.min(sentence.len())).rfind(|&i| sentence.is_char_boundary(i)).unwrap_or(0);
        Self(sentence[..end].to_owned())
    }

    /// Of a call that is longer than [`crate::MAX_BODY`].
    #[must_use]
    pub fn too_long(method: &str, bytes: usize) -> Self {
        Self::new(format!(
            "Docker's call {method:.80} is {bytes} bytes long, and weft reads {} of one: leave out the option that makes it so long",
            crate::MAX_BODY
        ))
    }

    /// The longest sentence, in bytes.
    pub const MAX: usize = 1000;

    /// The body.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        // Docker reads `Err` from a network driver and `Error` from an IPAM driver, and ignores the other.
        line(&json!({"Err": self.0, "Error": self.0}))
    }
}

fn line(json: &Value) -> Vec<u8> {
    let mut body = json.to_string().into_bytes();
    body.push(b'\n');
    body
}
