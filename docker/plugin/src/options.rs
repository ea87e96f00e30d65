//! Option maps: what `-o`, `--ipam-opt` and Docker itself put into them.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::id::NetworkId;

use crate::response::Refusal;

/// `-o` and `--ipam-opt`: the network of the mesh that a Docker network stands for.
pub const OPTION_NETWORK: &str = "weft.network";

/// `-o`: the MTU, as Docker's own drivers call it.
pub const OPTION_MTU: &str = "com.docker.network.driver.mtu";

/// `-o`: the MTU, in our own words.
pub const OPTION_WEFT_MTU: &str = "weft.mtu";

const GENERIC: &str = "com.docker.network.generic";
const INTERNAL: &str = "com.docker.network.internal";
const IPV6: &str = "com.docker.network.enable_ipv6";
const ADDRESS_KIND: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

/// An options map as Docker sends it: absent, null, or an object of anything.
pub(crate) type Map = Option<BTreeMap<String, Value>>;

/// The `-o` and Docker's flags of a network. An option that is not known is refused by name: it would be kept and do nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkOptions {
    pub network: Option<NetworkId>,
    pub mtu: Option<u16>,
    pub internal: bool,
    pub ipv6: bool,
}

impl NetworkOptions {
    pub fn read(map: &Map) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for (key, value) in map.iter().flatten() {
            match key.as_str() {
                INTERNAL => options.internal = flag(key, value)?,
                IPV6 => options.ipv6 = flag(key, value)?,
                GENERIC => options.read_generic(value)?,
                _ => {}
            }
        }
        Ok(options)
    }

    fn read_generic(&mut self, value: &Value) -> Result<(), Refusal> {
        let Value::Object(map) = value else { return Ok(()) };
        for (key, value) in map {
            match key.as_str() {
                OPTION_NETWORK => self.network = Some(network(value)?),
                OPTION_MTU | OPTION_WEFT_MTU if self.mtu.is_some() => {
                    return Err(Refusal::new(format!(
                        "{OPTION_MTU} and {OPTION_WEFT_MTU} say the same: give one of them"
                    )));
                }
                OPTION_MTU | OPTION_WEFT_MTU => self.mtu = Some(mtu(key, value)?),
                _ => return Err(unknown("-o", key)),
            }
        }
        Ok(())
    }
}

/// The `--ipam-opt` of a network.
pub(crate) fn ipam_network(map: &Map) -> Result<Option<NetworkId>, Refusal> {
    let mut found = None;
    for (key, value) in map.iter().flatten() {
        match key.as_str() {
            OPTION_NETWORK => found = Some(network(value)?),
            _ => return Err(unknown("--ipam-opt", key)),
        }
    }
    Ok(found)
}

/// Whether RequestAddress is for the gateway.
pub(crate) fn is_gateway(map: &Map) -> bool {
    map.as_ref().and_then(|map| map.get(ADDRESS_KIND)).is_some_and(|kind| kind.as_str() == Some(GATEWAY))
}

fn unknown(given_by: &str, key: &str) -> Refusal {
    Refusal::new(format!(
        "weft has no option \"{key:.80}\" of {given_by}: leave it out, or write -o {OPTION_WEFT_MTU}=1340 (also called \
         {OPTION_MTU}) if the MTU is meant"
    ))
}

fn network(value: &Value) -> Result<NetworkId, Refusal> {
    let text = value.as_str().unwrap_or_default();
    text.parse().map_err(|e| Refusal::new(format!("option {OPTION_NETWORK}: {e}")))
}

fn mtu(key: &str, value: &Value) -> Result<u16, Refusal> {
    let read = match value {
        Value::Number(n) => n.as_u64().and_then(|n| u16::try_from(n).ok()),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| Refusal::new(format!("option {key}: give a number of bytes such as 1340")))
}

fn flag(key: &str, value: &Value) -> Result<bool, Refusal> {
    match value {
        Value::Bool(b) => Ok(*b),
        Value::String(s) if s == "true" => Ok(true),
        Value::String(s) if s == "false" || s.is_empty() => Ok(false),
        Value::Null => Ok(false),
        _ => Err(Refusal::new(format!("option {key}: give true or false"))),
    }
}
