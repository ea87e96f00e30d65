//! Which address a container gets, and the sentence when it gets none.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use weft_api::id::{HostId, Mac, NetworkId};
use weft_ipam::space::ClaimError;

use super::{Book, Pages, claimant, lessee, now};
use crate::state::ledger::{Change, Endpoint, LedgerError};

/// Between the address and the endpoint of a container Docker lets pass a moment, not so long.
const IN_VAIN: Duration = Duration::from_secs(20);

/// Docker's wish cannot be granted.
#[derive(Debug, Error)]
pub enum GiveError {
    /// The network, or its range, is gone.
    #[error("the mesh has no network {network} with the range {range} any more: see weft network ls")]
    NoNetwork {
        /// Its id.
        network: NetworkId,
        /// The range.
        range: IpNet,
    },
    /// Outside of the range, or reserved.
    #[error(transparent)]
    Impossible(ClaimError),
    /// Given already.
    #[error("{address} is in use by {holder}: choose another address, or leave --ip out")]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// Another host's to give, and it has not been asked yet, or has not answered.
    #[error("{address} is host {host}'s, which has not lent it in time: try again, run the container there, or choose an address of this host's own blocks ({})", list(.ours))]
    Elsewhere {
        /// The address.
        address: IpAddr,
        /// Who holds its block, or has leased it.
        host: String,
        /// This host's blocks.
        ours: Vec<IpNet>,
    },
    /// The holder of its block does not lend it.
    #[error("{address} is host {host}'s, which does not lend it: {why}")]
    NotLent {
        /// The address.
        address: IpAddr,
        /// Who holds its block.
        host: String,
        /// In words.
        why: String,
    },
    /// In a block of this host, and another's.
    #[error("{address} is leased to host {host}: choose another address, or leave --ip out")]
    Lent {
        /// The address.
        address: IpAddr,
        /// The lessee.
        host: String,
    },
    /// Nobody's to give yet.
    #[error("{address} lies in a block that no host holds yet, and the deciding host has not given it to this one: try again (weft status), choose an address of this host's own blocks ({}), or leave --ip out", list(.ours))]
    Unheld {
        /// The address.
        address: IpAddr,
        /// This host's blocks.
        ours: Vec<IpNet>,
    },
    /// No address is left.
    #[error("network {network} is full on this host: {why}")]
    Full {
        /// The network's name.
        network: String,
        /// Why there is no further block.
        why: String,
        /// The deciding host has said no; otherwise a block may still come.
        decided: bool,
    },
    /// An endpoint with an address that it did not ask for.
    #[error(
        "{address} was not given by weft on this host: make the network with weft network create, and start the container anew"
    )]
    NotGiven {
        /// The address.
        address: IpAddr,
    },
    /// Not a container's.
    #[error("{mac} cannot be a container's MAC address: choose another with --mac-address, or leave it out")]
    BadMac {
        /// The address.
        mac: Mac,
    },
    /// Another container has it.
    #[error(
        "the MAC address {mac} is in use by {holder}: choose another with --mac-address, or leave it out"
    )]
    MacInUse {
        /// The address.
        mac: Mac,
        /// Who has it.
        holder: String,
    },
    /// More than one record of facts holds.
    #[error("this host has {max} containers on networks of the mesh, the most it publishes: stop one", max = super::MAX_ENDPOINTS)]
    TooManyEndpoints,
    /// It could not be written down, so it was not given.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Book {
    /// Gives an address of a range: the wanted one, or the lowest that is free in this host's blocks.
    pub fn give(
        &self,
        network: NetworkId,
        range: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, GiveError> {
        let _one_at_a_time = self.writing();
        let address = self.pages().choose(network, range, wanted)?;
        self.enter(vec![Change::Give(network, address, now())])?;
        Ok(address)
    }

    /// Takes an address back; `false` if it was not given. An endpoint that still has it goes too: Docker releases an address
    /// after its endpoint, or when it has not heard that the endpoint was made.
    pub fn free(&self, network: NetworkId, address: IpAddr) -> Result<bool, LedgerError> {
        let _one_at_a_time = self.writing();
        let pages = self.pages();
        let given = pages.given.contains_key(&(network, address));
        let unheard =
            pages.endpoints.values().filter(|e| e.network == network && e.addresses.contains(&address));
        let mut changes: Vec<Change> = unheard.map(|e| Change::EndpointGone(e.id.clone())).collect();
        drop(pages);
        if given {
            changes.push(Change::Free(network, address));
        }
        self.enter(changes)?;
        Ok(given)
    }
}

impl Pages {
    fn choose(&self, network: NetworkId, range: IpNet, wanted: Option<IpAddr>) -> Result<IpAddr, GiveError> {
        let space = self.spaces.get(&(network, range)).ok_or(GiveError::NoNetwork { network, range })?;
        let mut space = space.clone();
        match wanted {
            Some(wanted) => match space.claim(wanted) {
                Ok(()) => Ok(wanted),
                Err(ClaimError::InUse { .. }) if self.given_in_vain(network, wanted) => Ok(wanted),
                Err(e) => Err(self.explain(network, range, e)),
            },
            None => space.allocate().map_err(|_| self.full(network, range)),
        }
    }

    /// No endpoint came of it. Docker, or an earlier life of this process, died before the other had heard of it; who asks for
    /// it again may be the same container.
    fn given_in_vain(&self, network: NetworkId, address: IpAddr) -> bool {
        let Some(since) = self.given.get(&(network, address)) else { return false };
        let late = now().saturating_sub(*since) > IN_VAIN.as_secs();
        (late || self.inherited.contains(&(network, address)))
            && !self.endpoints.values().any(|e| e.network == network && e.addresses.contains(&address))
    }

    fn explain(&self, network: NetworkId, range: IpNet, error: ClaimError) -> GiveError {
        match error {
            ClaimError::InUse { address } => {
                GiveError::InUse { address, holder: self.holder_here(network, address) }
            }
            ClaimError::NotOurs { address, .. } => {
                let space = self.spaces.get(&(network, range));
                let ours = space.map_or_else(Vec::new, |space| space.blocks().collect());
                let Some(host) = claimant(&self.view, network, range, address) else {
                    return GiveError::Unheld { address, ours };
                };
                if let Some(holder) = self.holder_there(host, network, address) {
                    return GiveError::InUse { address, holder };
                }
                let host = self.host_name(host);
                match self.not_lent.get(&(network, address)) {
                    Some(why) => GiveError::NotLent { address, host, why: why.clone() },
                    None => GiveError::Elsewhere { address, host, ours },
                }
            }
            ClaimError::Lent { address } => {
                let loan = self.loan(network, address).map(|loan| loan.to);
                let host = lessee(&self.view, network, address).or(loan);
                match host.and_then(|host| self.holder_there(host, network, address)) {
                    Some(holder) => GiveError::InUse { address, holder },
                    None => GiveError::Lent {
                        address,
                        host: host.map_or_else(|| "another".into(), |host| self.host_name(host)),
                    },
                }
            }
            other => GiveError::Impossible(other),
        }
    }

    fn full(&self, network: NetworkId, range: IpNet) -> GiveError {
        let name = self.networks.get(&network).map_or_else(|| network.to_string(), |n| n.name.clone());
        let reason = self.no_block.get(&(network, range));
        let why = reason.map_or_else(
            || format!("all addresses of its blocks in {range} are in use, and the next block has not come yet: try again in a few seconds, and see weft status"),
            |reason| reason.why.clone(),
        );
        GiveError::Full { network: name, why, decided: reason.is_some_and(|reason| reason.decided) }
    }

    fn holder_here(&self, network: NetworkId, address: IpAddr) -> String {
        let here = self.endpoints.values().find(|e| e.network == network && e.addresses.contains(&address));
        here.map_or_else(|| "a container that is being started on this host".into(), who)
    }

    fn holder_there(&self, host: HostId, network: NetworkId, address: IpAddr) -> Option<String> {
        let mut said = self.view.facts.get(&host)?.items.endpoints();
        let there = said.find(|e| e.network == network && e.addresses.contains(&address))?;
        let host = self.host_name(host);
        Some(if there.container.is_empty() {
            format!("a container on {host}")
        } else {
            format!("container {} on {host}", there.container)
        })
    }
}

/// An endpoint of this host in words.
pub(super) fn who(endpoint: &Endpoint) -> String {
    if endpoint.container.is_empty() {
        format!("the endpoint {:.12} on this host", endpoint.id)
    } else {
        format!("container {} on this host", endpoint.container)
    }
}

fn list(blocks: &[IpNet]) -> String {
    if blocks.is_empty() {
        return "none yet".into();
    }
    blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
