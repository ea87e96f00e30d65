//! Addresses of this host's blocks that other hosts asked for. A loan is on the disk before anybody hears of it, and stands
//! until something newer has been decided about the address: then the decision says whose it is.

use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{HostId, NetworkId};
use weft_api::request::Lend;
use weft_ipam::space::ClaimError;

use super::{Book, Pages, leases, lessee, now, revision};
use crate::state::ledger::{Change, LedgerError, Loan};

/// So many addresses are lent and not decided at once; a further one is refused.
const MAX_LOANS: usize = 256;

/// An address is not lent.
#[derive(Debug, Error)]
pub enum LoanError {
    /// Somebody here has it.
    #[error("{address} is in use by {holder}: choose another address, or leave --ip out")]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// It is kept for a container that does not run.
    #[error(
        "{address} belongs to container {container} on {host}, which is stopped: remove that, or choose another address"
    )]
    Pinned {
        /// The address.
        address: IpAddr,
        /// The container's name.
        container: String,
        /// This host's name.
        host: String,
    },
    /// Another host asked first.
    #[error("{address} is lent to host {host}: choose another address, or leave --ip out")]
    Lent {
        /// The address.
        address: IpAddr,
        /// That host's name.
        host: String,
    },
    /// Not of this host's blocks.
    #[error("host {host} does not hold the block of {address} any more: try again")]
    NotOurs {
        /// The address.
        address: IpAddr,
        /// This host's name.
        host: String,
    },
    /// Too much at once.
    #[error("host {host} is lending {MAX_LOANS} addresses already: try again in a minute")]
    TooMany {
        /// This host's name.
        host: String,
    },
    /// It could not be written down.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Book {
    /// Lends an address of a block of this host, if it is free; what is then to be decided. Lent to the same host already, it is
    /// the same loan or lease.
    pub fn lend(&self, network: NetworkId, address: IpAddr, to: HostId) -> Result<Lend, LoanError> {
        let _one_at_a_time = self.writing();
        let pages = self.pages();
        if let Some(loan) = pages.loan(network, address).filter(|loan| loan.to == to) {
            return Ok(Lend { network, address, to: Some(to), seen: loan.seen });
        }
        let seen = revision(&pages.view, &DecisionKey::Lease(network, address));
        if lessee(&pages.view, network, address) == Some(to) {
            // Written down again it would stand for ever: nothing newer is going to be decided.
            return Ok(Lend { network, address, to: Some(to), seen });
        }
        pages.may_lend(network, address, to)?;
        drop(pages);
        self.enter(vec![Change::Lend(network, address, Loan { to, seen, since: now() })])?;
        Ok(Lend { network, address, to: Some(to), seen })
    }

    /// Loans that were not decided within this time: to be taken back, by a decision that nobody has the address.
    #[must_use]
    pub fn overdue(&self, within: Duration) -> Vec<Lend> {
        let pages = self.pages();
        let old = now().saturating_sub(within.as_secs());
        let loans =
            pages.lent.iter().filter(|((n, at), loan)| loan.since <= old && pages.loan(*n, *at).is_some());
        loans
            .map(|((network, address), loan)| Lend {
                network: *network,
                address: *address,
                to: None,
                seen: loan.seen,
            })
            .collect()
    }

    /// Forgets what decisions have taken the place of. How much that was.
    pub fn settle(&self) -> Result<usize, LedgerError> {
        let _one_at_a_time = self.writing();
        let pages = self.pages();
        let mut changes = Vec::new();
        for (network, address) in pages.lent.keys() {
            if pages.loan(*network, *address).is_none() {
                changes.push(Change::LoanGone(*network, *address));
            }
        }
        for key in pages.given_up.keys() {
            if !pages.gave_up(key) {
                changes.push(Change::GivenUp(key.clone()));
            }
        }
        drop(pages);
        let settled = changes.len();
        self.enter(changes)?;
        Ok(settled)
    }
}

impl Pages {
    /// The loan of an address, as long as nothing newer has been decided.
    pub(super) fn loan(&self, network: NetworkId, address: IpAddr) -> Option<&Loan> {
        let loan = self.lent.get(&(network, address))?;
        let key = DecisionKey::Lease(network, address);
        (self.networks.contains_key(&network) && loan.seen >= revision(&self.view, &key)).then_some(loan)
    }

    fn may_lend(&self, network: NetworkId, address: IpAddr, to: HostId) -> Result<(), LoanError> {
        if let Some(other) = lessee(&self.view, network, address).filter(|lessee| *lessee != to) {
            return Err(LoanError::Lent { address, host: self.host_name(other) });
        }
        if let Some(container) = self.pins.get(&(network, address))
            && !self.given.contains_key(&(network, address))
        {
            let host = self.host_name(self.me);
            return Err(LoanError::Pinned { address, container: container.clone(), host });
        }
        let mut spaces =
            self.spaces.iter().filter(|((n, _), space)| *n == network && space.range().contains(&address));
        let not_ours = || LoanError::NotOurs { address, host: self.host_name(self.me) };
        let (_, space) = spaces.next().ok_or_else(not_ours)?;
        match space.clone().claim(address) {
            Ok(()) if self.lent.len() < MAX_LOANS => Ok(()),
            Ok(()) => Err(LoanError::TooMany { host: self.host_name(self.me) }),
            Err(ClaimError::Lent { .. }) if lessee(&self.view, network, address) == Some(to) => Ok(()),
            Err(ClaimError::Lent { .. }) => {
                let other = self.loan(network, address).map(|loan| self.host_name(loan.to));
                Err(LoanError::Lent { address, host: other.unwrap_or_else(|| "another".into()) })
            }
            Err(ClaimError::InUse { .. }) => {
                let holder = self.holder_on(network, address);
                Err(LoanError::InUse { address, holder })
            }
            Err(_) => Err(not_ours()),
        }
    }

    /// Who has an address here, as other hosts say it.
    fn holder_on(&self, network: NetworkId, address: IpAddr) -> String {
        let here = self.endpoints.values().find(|e| e.network == network && e.addresses.contains(&address));
        let host = self.host_name(self.me);
        match here {
            Some(endpoint) if !endpoint.container.is_empty() => {
                format!("container {} on {host}", endpoint.container)
            }
            _ => format!("a container on {host}"),
        }
    }

    /// Puts into the spaces what is lent, leased and pinned.
    pub(super) fn mark(&mut self) {
        let lent: Vec<_> = self.lent.keys().copied().filter(|(n, at)| self.loan(*n, *at).is_some()).collect();
        let leased: Vec<_> = leases(&self.view).collect();
        for (network, address, owner) in leased {
            let mine = owner == self.me && !self.gave_up(&DecisionKey::Lease(network, address));
            if let Some(space) = self.space_of(network, address) {
                if mine {
                    space.add_lease(address);
                } else {
                    space.lend(address);
                }
            }
        }
        for (network, address) in lent {
            if let Some(space) = self.space_of(network, address) {
                space.lend(address);
            }
        }
        let pinned: Vec<_> = self.pins.keys().copied().collect();
        for (network, address) in pinned {
            if let Some(space) = self.space_of(network, address) {
                space.keep(address);
            }
        }
    }

    /// Whether this host has given up what the last decision about the key says is its own.
    pub(super) fn gave_up(&self, key: &DecisionKey) -> bool {
        let body = self.view.decisions.get(key).and_then(|decision| decision.body.as_ref());
        let decided = matches!(body, Some(DecisionBody::Block { .. } | DecisionBody::Lease { .. }));
        decided && self.given_up.get(key).is_some_and(|up_to| *up_to >= revision(&self.view, key))
    }
}
