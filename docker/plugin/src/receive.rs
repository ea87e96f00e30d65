//! Reads a call: bytes in, typed values out. What always has the same answer is answered here.

use serde::de::DeserializeOwned;

use crate::MAX_BODY;
use crate::id::DockerId;
use crate::request::Request;
use crate::response::{Refusal, Response};
use crate::wire;

/// The address space of every pool that we give.
pub(crate) const LOCAL_SPACE: &str = "weft";

/// Swarm's; nothing asks for it, since our scope is local.
pub(crate) const GLOBAL_SPACE: &str = "weft-global";

/// A call, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// It needs no state.
    Answered(Response),
    /// Somebody must decide.
    Asked(Request),
}

/// Reads a call. `method` is the path without the first slash, such as `NetworkDriver.Join`; the body may be empty.
pub fn receive(method: &str, body: &[u8]) -> Result<Incoming, Refusal> {
    if body.len() > MAX_BODY {
        return Err(Refusal::too_long(method, body.len()));
    }
    let request = match method {
        "Plugin.Activate" => return Ok(Incoming::Answered(Response::Implements)),
        "NetworkDriver.GetCapabilities" => return Ok(Incoming::Answered(Response::NetworkCapabilities)),
        "IpamDriver.GetCapabilities" => return Ok(Incoming::Answered(Response::IpamCapabilities)),
        "IpamDriver.GetDefaultAddressSpaces" => return Ok(Incoming::Answered(Response::AddressSpaces)),
        "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete"
        | "NetworkDriver.ProgramExternalConnectivity"
        | "NetworkDriver.RevokeExternalConnectivity"
        | "NetworkDriver.FreeNetwork" => return Ok(Incoming::Answered(Response::Done)),
        "NetworkDriver.AllocateNetwork" => return Err(swarm()),
        "IpamDriver.RequestPool" => wish::<wire::RequestPool>(method, body)?.translate()?,
        "IpamDriver.RequestAddress" => wish::<wire::RequestAddress>(method, body)?.translate()?,
        "NetworkDriver.CreateNetwork" => wish::<wire::CreateNetwork>(method, body)?.translate()?,
        "NetworkDriver.CreateEndpoint" => wish::<wire::CreateEndpoint>(method, body)?.translate()?,
        "NetworkDriver.Join" => wish::<wire::Join>(method, body)?.translate()?,
        "NetworkDriver.EndpointOperInfo" => {
            Request::EndpointOperInfo(wish::<wire::Endpoint>(method, body)?.translate()?)
        }
        // An error of these would wedge what it names, and an id that we cannot read is one that we do not have.
        "IpamDriver.ReleasePool" => match read::<wire::ReleasePool>(method, body)?.pool_id.parse() {
            Ok(pool) => Request::ReleasePool(pool),
            Err(_) => return Ok(Incoming::Answered(Response::Done)),
        },
        "IpamDriver.ReleaseAddress" => match read::<wire::ReleaseAddress>(method, body)?.translate() {
            Some(request) => request,
            None => return Ok(Incoming::Answered(Response::Done)),
        },
        "NetworkDriver.DeleteNetwork" => {
            match DockerId::new(&read::<wire::DeleteNetwork>(method, body)?.network_id) {
                Some(id) => Request::DeleteNetwork(id),
                None => return Ok(Incoming::Answered(Response::Done)),
            }
        }
        "NetworkDriver.DeleteEndpoint" | "NetworkDriver.Leave" => {
            match read::<wire::Endpoint>(method, body)?.translate() {
                Ok(at) if method == "NetworkDriver.Leave" => Request::Leave(at),
                Ok(at) => Request::DeleteEndpoint(at),
                Err(_) => return Ok(Incoming::Answered(Response::Done)),
            }
        }
        _ => {
            let method: String = method.chars().take(80).collect();
            return Err(Refusal::new(format!(
                "weft does not know the call \"{method}\" of this Docker engine"
            )));
        }
    };
    Ok(Incoming::Asked(request))
}

fn swarm() -> Refusal {
    Refusal::new("weft makes no swarm networks: make it with `weft network create` and use it on each host")
}

/// What cannot be granted without its content.
fn wish<T: DeserializeOwned>(method: &str, body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        // Engine 20.10 sends the body once: when it asks again over a new connection, the call is empty.
        return Err(Refusal::new(format!(
            "Docker repeats its call {method} without saying what it wants, as it does when weft was restarted meanwhile: try again"
        )));
    }
    read(method, body)
}

fn read<T: DeserializeOwned>(method: &str, body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|e| Refusal::new(format!("Docker's call {method} cannot be read: {e}")))
}
