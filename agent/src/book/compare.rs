//! The book against Docker's own list: containers get their names, and what leaked while one of the two was away is freed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use weft_api::id::NetworkId;
use weft_router_io::bridge::host_ifname;

use super::{Book, now};
use crate::attach::Place;
use crate::state::ledger::{Change, Endpoint, LedgerError};

/// What was given within this time may be on its way into Docker's list.
pub const GRACE: Duration = Duration::from_secs(60);

/// A running container of a network, as Docker lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Docker's id of its endpoint.
    pub endpoint: String,
    /// Its name.
    pub name: String,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

impl Book {
    /// Compares the endpoints and addresses of a network with Docker's whole list of it. Endpoints that are gone are returned:
    /// their veths are left over.
    pub fn compare(&self, network: NetworkId, listed: &[Listed]) -> Result<Vec<Endpoint>, LedgerError> {
        let _one_at_a_time = self.writing();
        let pages = self.pages();
        let old = now().saturating_sub(GRACE.as_secs());
        let names: BTreeMap<&str, &str> =
            listed.iter().map(|c| (c.endpoint.as_str(), c.name.as_str())).collect();
        let (mut changes, mut gone, mut kept) = (Vec::new(), Vec::new(), BTreeSet::new());
        for endpoint in pages.endpoints.values().filter(|e| e.network == network) {
            match names.get(endpoint.id.as_str()) {
                None if Place::of(endpoint).is_some() => {}
                None if endpoint.since <= old => {
                    changes.push(Change::EndpointGone(endpoint.id.clone()));
                    gone.push(endpoint.clone());
                    continue;
                }
                Some(name) if endpoint.container != **name => {
                    changes.push(Change::Endpoint(Endpoint {
                        container: (*name).to_owned(),
                        ..endpoint.clone()
                    }));
                }
                _ => {}
            }
            kept.extend(endpoint.addresses.iter().copied());
        }
        kept.extend(listed.iter().flat_map(|c| c.addresses.iter().copied()));
        for ((n, address), since) in &pages.given {
            if *n == network && *since <= old && !kept.contains(address) {
                changes.push(Change::Free(network, *address));
            }
        }
        drop(pages);
        tell(&changes);
        self.enter(changes)?;
        Ok(gone)
    }

    /// At the start: an endpoint whose veth is gone is no container's any more, since veths outlive this process but not the
    /// machine; it and its addresses are free, before Docker asks for them again. `alive`: the names of the veths on this host.
    /// `bridges`: the networks whose bridge is there. Where it is not the machine has booted, and nothing is on its way.
    pub fn bury(
        &self,
        alive: &BTreeSet<String>,
        bridges: &BTreeSet<NetworkId>,
    ) -> Result<usize, LedgerError> {
        let _one_at_a_time = self.writing();
        let pages = self.pages();
        let old = now().saturating_sub(GRACE.as_secs());
        let on_its_way = |network: &NetworkId, since: u64| since > old && bridges.contains(network);
        let lives = |endpoint: &&Endpoint| {
            // The others are looked after by who made them.
            Place::of(endpoint).is_some()
                || on_its_way(&endpoint.network, endpoint.since)
                || host_ifname(&endpoint.id).is_ok_and(|name| alive.contains(&name))
        };
        let kept: BTreeSet<(NetworkId, IpAddr)> = pages
            .endpoints
            .values()
            .filter(lives)
            .flat_map(|endpoint| endpoint.addresses.iter().map(|ip| (endpoint.network, *ip)))
            .collect();
        let dead = pages.endpoints.values().filter(|endpoint| !lives(endpoint));
        let mut changes: Vec<Change> =
            dead.map(|endpoint| Change::EndpointGone(endpoint.id.clone())).collect();
        let leaked =
            pages.given.iter().filter(|(at, since)| !on_its_way(&at.0, **since) && !kept.contains(*at));
        changes.extend(leaked.map(|((network, address), _)| Change::Free(*network, *address)));
        drop(pages);
        tell(&changes);
        let buried = changes.len();
        self.enter(changes)?;
        Ok(buried)
    }
}

fn tell(changes: &[Change]) {
    for change in changes {
        match change {
            Change::Free(network, address) => {
                tracing::info!(%network, %address, "freed an address that no container has any more");
            }
            Change::EndpointGone(id) => {
                tracing::info!(
                    endpoint = format!("{id:.12}"),
                    "removed an endpoint that is no container's any more"
                );
            }
            Change::Give(..)
            | Change::Endpoint(_)
            | Change::Bind(..)
            | Change::Unbind(_)
            | Change::Absent(..)
            | Change::Present(_)
            | Change::Lend(..)
            | Change::LoanGone(..)
            | Change::GiveUp(..)
            | Change::GivenUp(_)
            | Change::Pin(..)
            | Change::Unpin(..) => {}
        }
    }
}
