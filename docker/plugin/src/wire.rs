//! The bodies as Docker writes them: every field may be absent, empty or null.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use weft_api::id::Mac;

use crate::id::DockerId;
use crate::options::{self, Map, NetworkOptions};
use crate::receive::LOCAL_SPACE;
use crate::request::{
    CreateEndpoint as Connecting, CreateNetwork as Network, EndpointRef, Join as Joining, Pool, Request,
    RequestAddress as Address, RequestPool as Range,
};
use crate::response::Refusal;

/// More ranges of one network than this are refused; Docker sends one of each family.
const MAX_POOLS: usize = 16;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct RequestPool {
    #[serde(rename = "Pool", deserialize_with = "null")]
    pool: String,
    #[serde(rename = "SubPool", deserialize_with = "null")]
    sub_pool: String,
    #[serde(rename = "Options")]
    options: Map,
    #[serde(rename = "V6", deserialize_with = "null")]
    v6: bool,
}

impl RequestPool {
    pub fn translate(self) -> Result<Request, Refusal> {
        let range = optional(&self.pool, |text| subnet("--subnet", text))?;
        let sub_range = optional(&self.sub_pool, |text| subnet("--ip-range", text))?;
        let network = options::ipam_network(&self.options)?;
        let v6 = self.v6 || matches!(range, Some(IpNet::V6(_)));
        Ok(Request::RequestPool(Range { network, range, sub_range, v6 }))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct ReleasePool {
    #[serde(rename = "PoolID", deserialize_with = "null")]
    pub pool_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct RequestAddress {
    #[serde(rename = "PoolID", deserialize_with = "null")]
    pool_id: String,
    #[serde(rename = "Address", deserialize_with = "null")]
    address: String,
    #[serde(rename = "Options")]
    options: Map,
}

impl RequestAddress {
    pub fn translate(self) -> Result<Request, Refusal> {
        let pool = self.pool_id.parse().map_err(|e| Refusal::new(format!("{e}")))?;
        let address = optional(&self.address, |text| address("--ip", text))?;
        Ok(Request::RequestAddress(Address { pool, address, gateway: options::is_gateway(&self.options) }))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct ReleaseAddress {
    #[serde(rename = "PoolID", deserialize_with = "null")]
    pool_id: String,
    #[serde(rename = "Address", deserialize_with = "null")]
    address: String,
}

impl ReleaseAddress {
    /// `None` for what we cannot have given.
    pub fn translate(self) -> Option<Request> {
        let pool = self.pool_id.parse().ok()?;
        let address = address("Address", &self.address).ok()?;
        Some(Request::ReleaseAddress { pool, address })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct CreateNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "null")]
    network_id: String,
    #[serde(rename = "Options")]
    options: Map,
    #[serde(rename = "IPv4Data", deserialize_with = "null")]
    v4: Vec<IpamData>,
    #[serde(rename = "IPv6Data", deserialize_with = "null")]
    v6: Vec<IpamData>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IpamData {
    #[serde(rename = "AddressSpace", deserialize_with = "null")]
    space: String,
    #[serde(rename = "Pool", deserialize_with = "null")]
    pool: String,
    #[serde(rename = "Gateway", deserialize_with = "null")]
    gateway: String,
}

impl CreateNetwork {
    pub fn translate(self) -> Result<Request, Refusal> {
        let NetworkOptions { network, mtu, internal, ipv6 } = NetworkOptions::read(&self.options)?;
        if self.v4.len() + self.v6.len() > MAX_POOLS {
            return Err(Refusal::new(format!("a network of weft has at most {MAX_POOLS} ranges")));
        }
        let pools =
            self.v4.into_iter().chain(self.v6).map(IpamData::translate).collect::<Result<_, Refusal>>()?;
        let docker = id("network", &self.network_id)?;
        Ok(Request::CreateNetwork(Network { docker, network, pools, internal, ipv6, mtu }))
    }
}

impl IpamData {
    fn translate(self) -> Result<Pool, Refusal> {
        if self.space != LOCAL_SPACE {
            return Err(Refusal::new(
                "these addresses are of another IPAM driver, and would be the same on each host: \
                 add --ipam-driver weft, or use `weft network create`",
            ));
        }
        Ok(Pool {
            range: subnet("--subnet", &self.pool)?,
            gateway: optional(&self.gateway, |text| address("--gateway", text))?,
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct DeleteNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "null")]
    pub network_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Endpoint {
    #[serde(rename = "NetworkID", deserialize_with = "null")]
    network_id: String,
    #[serde(rename = "EndpointID", deserialize_with = "null")]
    endpoint_id: String,
}

impl Endpoint {
    pub fn translate(self) -> Result<EndpointRef, Refusal> {
        Ok(EndpointRef {
            network: id("network", &self.network_id)?,
            endpoint: id("endpoint", &self.endpoint_id)?,
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct CreateEndpoint {
    #[serde(flatten)]
    at: Endpoint,
    #[serde(rename = "Interface", deserialize_with = "null")]
    interface: Interface,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Interface {
    #[serde(rename = "Address", deserialize_with = "null")]
    v4: String,
    #[serde(rename = "AddressIPv6", deserialize_with = "null")]
    v6: String,
    #[serde(rename = "MacAddress", deserialize_with = "null")]
    mac: String,
}

impl CreateEndpoint {
    pub fn translate(self) -> Result<Request, Refusal> {
        let at = self.at.translate()?;
        let v4 = optional(&self.interface.v4, |text| prefixed("Address", text))?;
        let v6 = optional(&self.interface.v6, |text| prefixed("AddressIPv6", text))?;
        let addresses = v4.into_iter().chain(v6).collect();
        let mac = optional(&self.interface.mac, mac)?;
        Ok(Request::CreateEndpoint(Connecting { at, addresses, mac }))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Join {
    #[serde(flatten)]
    at: Endpoint,
    #[serde(rename = "SandboxKey", deserialize_with = "null")]
    sandbox: String,
}

impl Join {
    pub fn translate(self) -> Result<Request, Refusal> {
        Ok(Request::Join(Joining { at: self.at.translate()?, sandbox: self.sandbox }))
    }
}

/// Go writes an absent value as null as often as not.
fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

fn optional<T>(text: &str, read: impl FnOnce(&str) -> Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

fn id(what: &str, text: &str) -> Result<DockerId, Refusal> {
    DockerId::new(text).ok_or_else(|| Refusal::new(format!("Docker's call names no {what}")))
}

/// A range without host bits: Docker cuts them off itself, so what has some is not from `--subnet`.
fn subnet(what: &str, text: &str) -> Result<IpNet, Refusal> {
    let range = prefixed(what, text)?;
    if range == range.trunc() {
        return Ok(range);
    }
    Err(Refusal::new(format!("{what} {range} is not a range: did you mean {}?", range.trunc())))
}

fn prefixed(what: &str, text: &str) -> Result<IpNet, Refusal> {
    text.parse().map_err(|_| unreadable(what, text, "an address and a prefix length such as 10.32.0.0/16"))
}

/// An address, with a prefix length or without.
fn address(what: &str, text: &str) -> Result<IpAddr, Refusal> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address.parse().map_err(|_| unreadable(what, text, "an address such as 10.32.0.2"))
}

fn mac(text: &str) -> Result<Mac, Refusal> {
    text.parse().map_err(|e| Refusal::new(format!("--mac-address: {e}")))
}

fn unreadable(what: &str, text: &str, wanted: &str) -> Refusal {
    let text: String = text.chars().take(80).collect();
    Refusal::new(format!("{what} \"{text}\" cannot be read: give {wanted}"))
}
