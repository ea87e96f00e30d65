//! The way of a frame from this host, step by step, each with the fact or the decision that says so.

use std::net::IpAddr;

use weft_api::decision::{Decision, DecisionKey};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::fact::Item;
use weft_api::id::{HostId, NetworkId};
use weft_api::report::{Link, LinkState, Trace};
use weft_router_io::node::MeshView;

use super::Api;
use super::report::{host_name, items, members};
use crate::book::{blocks, lessee};

impl Api {
    /// `to`: an address on a network, a container's name, or a host's.
    pub fn trace(&self, to: &str) -> Result<Trace, ApiError> {
        let view = self.book.view();
        let mut trace = Trace { to: to.to_owned(), steps: Vec::new(), arrives: true };
        let named = members(&view).find(|(_, record)| record.name == to).map(|(host, _)| host);
        let container = self.endpoints().into_iter().find(|endpoint| endpoint.container == to);
        let address = container.as_ref().and_then(|endpoint| endpoint.addresses.first().copied());
        match (named, to.parse().ok().or(address)) {
            (_, Some(address)) => self.to_address(&view, address, &mut trace),
            (Some(host), None) => self.to_host(&view, host, &mut trace),
            (None, None) => {
                let sentence = format!(
                    "\"{to}\" is no address, no container of the mesh and no host: weft ps and weft hosts list them"
                );
                return Err(ApiError::new(ErrorKind::NotFound, sentence));
            }
        }
        Ok(trace)
    }

    fn to_address(&self, view: &MeshView, address: IpAddr, trace: &mut Trace) {
        let networks = self.book.networks();
        let Some(network) = networks.iter().find(|n| n.subnets.iter().any(|s| s.range.contains(&address)))
        else {
            return trace.ends(format!("{address} is in no network of the mesh"), "weft network ls");
        };
        let of_network = DecisionKey::Network(network.id);
        trace.step(format!("{address} is in {}", network.name), decided(view, &of_network));
        if network.subnets.iter().any(|subnet| subnet.gateway == address) {
            let says =
                "it is the gateway: the bridge of each host itself, and no frame to it enters the mesh";
            return trace.step(says.to_owned(), decided(view, &of_network));
        }
        let Some((host, says, because)) = self.holder(view, network.id, address) else {
            let has = |host: HostId| items(view, host).contain(&Item::Network(network.id));
            let hosts: Vec<String> =
                members(view).filter(|(host, _)| has(*host)).map(|(_, record)| record.name.clone()).collect();
            let says =
                format!("nobody says that it has it: the question who does goes to {}", hosts.join(", "));
            return trace.ends(says, "no fact names the address");
        };
        trace.step(says, because);
        self.to_host(view, host, trace);
        if trace.arrives && host != self.identity.id() {
            let bridge = network.id.bridge_name();
            let has = items(view, host).contain(&Item::Network(network.id));
            match has {
                true => {
                    trace.step(format!("out of the tap into the bridge {bridge} there"), said(view, host))
                }
                false => trace.ends(
                    format!("{} does not have {}", host_name(view, host), network.name),
                    said(view, host),
                ),
            }
        }
    }

    /// The host that has the address, what it is there, and who says so.
    fn holder(
        &self,
        view: &MeshView,
        network: NetworkId,
        address: IpAddr,
    ) -> Option<(HostId, String, String)> {
        let me = self.identity.id();
        let own = self
            .book
            .endpoints()
            .into_iter()
            .find(|e| e.network == network && e.addresses.contains(&address));
        if let Some(own) = own {
            let name = if own.container.is_empty() { "a container" } else { own.container.as_str() };
            return Some((me, format!("{name} on this host has it"), format!("MAC {}, given here", own.mac)));
        }
        let leased = || {
            let key = DecisionKey::Lease(network, address);
            Some((key, format!("{address} is leased to it"), lessee(view, network, address)?))
        };
        let held = || {
            let (_, range, owner) =
                blocks(view).find(|(of, range, _)| *of == network && range.contains(&address))?;
            Some((DecisionKey::Block(network, range), format!("{range} is its block"), owner))
        };
        let (key, whose, owner) = leased().or_else(held)?;
        let items = items(view, owner);
        let endpoint = items.endpoints().find(|e| e.network == network && e.addresses.contains(&address))?;
        let name = if endpoint.container.is_empty() { "a container" } else { endpoint.container.as_str() };
        let because = format!("{}; {whose}, {}", said(view, owner), decided(view, &key));
        Some((owner, format!("{name} on {} has it, MAC {}", host_name(view, owner), endpoint.mac), because))
    }

    fn to_host(&self, view: &MeshView, host: HostId, trace: &mut Trace) {
        if host == self.identity.id() {
            return trace
                .step("that is this host: the frame does not leave its bridge".into(), "our own key".into());
        }
        let name = host_name(view, host);
        match self.links().into_iter().find(|link| link.id == host) {
            Some(link) if link.state == LinkState::Up => {
                let (says, because) = passes(&name, &link);
                trace.step(says, because);
            }
            Some(link) => {
                let says = match link.state {
                    LinkState::Connecting => format!("{name} is being dialled"),
                    _ => format!("{name} cannot be reached"),
                };
                let tried = link
                    .address
                    .map_or("no address of it is known".into(), |a| format!("{a} does not answer"));
                trace.ends(says, tried);
            }
            None => trace.ends(format!("there is no link to {name}"), "weft links"),
        }
    }
}

fn passes(name: &str, link: &Link) -> (String, String) {
    let says = match link.address {
        Some(address) => format!("sealed for {name}, by {} {address}", link.transport),
        None => format!("sealed for {name}, through {}", link.transport),
    };
    let mut because = vec!["probes are answered".to_owned()];
    because.extend(link.rtt_ms.map(|rtt| format!("round trip {rtt:.1} ms")));
    because.extend(link.mtu.map(|mtu| format!("datagrams of up to {mtu} bytes")));
    because.extend(link.cipher.map(|cipher| cipher.to_string()));
    (says, because.join(", "))
}

/// Which decision says so.
fn decided(view: &MeshView, key: &DecisionKey) -> String {
    match view.decisions.get(key) {
        Some(Decision { revision, signer, .. }) => {
            format!("decision {revision} of {}", host_name(view, signer.id()))
        }
        None => "not decided yet".to_owned(),
    }
}

/// Whose facts say so, and which.
fn said(view: &MeshView, host: HostId) -> String {
    match view.facts.get(&host) {
        Some(facts) => {
            let version = facts.version;
            format!("fact {}.{} of {}", version.boot, version.sequence, host_name(view, host))
        }
        None => format!("{} has said nothing yet", host_name(view, host)),
    }
}
