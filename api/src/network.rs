//! The noun `network`: an isolated Ethernet with one or more ranges, the same on every host.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::NetworkId;

/// The MTU of a network unless asked otherwise: one relay over IPv6 still fits an underlay of 1500 (PROTOCOL 5).
pub const DEFAULT_MTU: u16 = 1340;

/// The largest MTU whose frames fit one datagram on an underlay of 1500 over IPv6, without a relay.
pub const MAX_MTU: u16 = 1384;

/// Below this IPv6 does not work (RFC 8200 5).
pub const MIN_MTU: u16 = 1280;

/// A network as decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Its number in every frame.
    pub id: NetworkId,
    /// Its name: what people and Docker call it.
    pub name: String,
    /// Its ranges and their gateways; at most one IPv4 and one IPv6 range.
    pub subnets: Vec<Subnet>,
    /// The MTU of its containers.
    pub mtu: u16,
    /// No way out: Docker gives its containers no default route.
    pub internal: bool,
    /// How it was made.
    #[serde(default)]
    pub origin: Origin,
}

/// How a network was made; it decides what `docker network rm` of it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `weft network create`: removed from Docker it is not on that host, and stays the mesh's.
    #[default]
    Weft,
    /// `docker network create`, on any host: removed from Docker it goes from the mesh, once nobody uses it.
    Docker {
        /// How the person wrote the MTU, if at all.
        mtu: Option<MtuOption>,
    },
}

/// The option of `docker network create` that sets the MTU. Docker's objects on other hosts have the same one: Compose takes another
/// for another network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MtuOption {
    /// `weft.mtu`
    Weft,
    /// `com.docker.network.driver.mtu`, as Docker's own drivers call it.
    Docker,
}

/// A range of a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet {
    /// The range.
    pub range: IpNet,
    /// The address of every host's bridge (anycast).
    pub gateway: IpAddr,
}

/// A name cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "\"{name}\" cannot be a {what}'s name: use 1 to {max} of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit"
)]
pub struct NameError {
    /// What was given.
    pub name: String,
    /// What should be named.
    pub what: &'static str,
    /// The longest name.
    pub max: usize,
}

/// Checks the name of a network, by Docker's own rule.
pub fn check_network_name(name: &str) -> Result<(), NameError> {
    check(name, "network", 63, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Checks the name of a host; what `hostname` may say.
pub fn check_host_name(name: &str) -> Result<(), NameError> {
    check(name, "host", 63, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn check(name: &str, what: &'static str, max: usize, allowed: fn(char) -> bool) -> Result<(), NameError> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if first && name.len() <= max && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(NameError { name: name.chars().take(80).collect(), what, max })
    }
}
