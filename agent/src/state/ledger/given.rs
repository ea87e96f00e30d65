//! What is given here, in the ledger: addresses, endpoints, Docker's networks, loans.

use std::net::IpAddr;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use weft_api::decision::DecisionKey;
use weft_api::id::{HostId, Mac, NetworkId};

use super::rows::{bad, decode, decode_address, encode, encode_address, put};
use super::{Bytes, Ledger, LedgerError};

/// (network, address) to Unix seconds.
const GIVEN: TableDefinition<&[u8], u64> = TableDefinition::new("given");
/// Docker's endpoint id to [`Endpoint`].
const ENDPOINTS: TableDefinition<&str, &[u8]> = TableDefinition::new("endpoints");
/// Docker's network id to ours.
const BOUND: TableDefinition<&str, u32> = TableDefinition::new("bound");

/// Networks that this host does not have; 1: nobody shall, once they are unused.
const ABSENT: TableDefinition<u32, u8> = TableDefinition::new("absent");

/// (network, address) to [`Loan`].
const LENT: Bytes = TableDefinition::new("lent");

/// `DecisionKey` to the revision up to which this host has given it up.
const GIVEN_UP: TableDefinition<&[u8], u64> = TableDefinition::new("given up");

/// (network, address) to the name of the container whose record Docker has it in.
const PINNED: TableDefinition<&[u8], &str> = TableDefinition::new("pinned");

/// An address of a block of this host that another host asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loan {
    /// That host.
    pub to: HostId,
    /// The last decision about the address when it was lent; a newer one takes the place of the loan.
    pub seen: u64,
    /// Unix seconds.
    pub since: u64,
}

/// A container's place on a network here, as Docker made it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Docker's id of it.
    pub id: String,
    /// Docker's id of the network.
    pub docker_network: String,
    /// The network.
    pub network: NetworkId,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The container's name; empty until Docker has told it.
    pub container: String,
    /// Unix seconds.
    pub since: u64,
}

/// One thing that changes in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The address is given since then (Unix seconds).
    Give(NetworkId, IpAddr, u64),
    /// The address is free.
    Free(NetworkId, IpAddr),
    /// The endpoint is there, so.
    Endpoint(Endpoint),
    /// The endpoint is gone.
    EndpointGone(String),
    /// Docker's network is this one.
    Bind(String, NetworkId),
    /// Docker's network is none of ours.
    Unbind(String),
    /// This host does not have the network; true: nobody shall, once it is unused.
    Absent(NetworkId, bool),
    /// It has it, or the network is gone.
    Present(NetworkId),
    /// The address is another host's, once that is decided.
    Lend(NetworkId, IpAddr, Loan),
    /// A decision took the loan's place.
    LoanGone(NetworkId, IpAddr),
    /// What was decided up to this revision to be this host's is so no more.
    GiveUp(DecisionKey, u64),
    /// A decision took the place of giving it up.
    GivenUp(DecisionKey),
    /// The address stands in Docker's record of this container.
    Pin(NetworkId, IpAddr, String),
    /// It does not any more.
    Unpin(NetworkId, IpAddr),
}

/// What was given here before the process started.
#[derive(Clone, Default, Debug)]
pub struct Remembered {
    /// Addresses, and since when (Unix seconds).
    pub given: Vec<(NetworkId, IpAddr, u64)>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Docker's networks.
    pub bound: Vec<(String, NetworkId)>,
    /// Networks that this host does not have; true: nobody shall.
    pub absent: Vec<(NetworkId, bool)>,
    /// Addresses lent to other hosts.
    pub lent: Vec<((NetworkId, IpAddr), Loan)>,
    /// What was given up, up to which revision.
    pub given_up: Vec<(DecisionKey, u64)>,
    /// Addresses in Docker's records, and the containers' names.
    pub pinned: Vec<((NetworkId, IpAddr), String)>,
}

impl Ledger {
    /// What was given here.
    pub fn remembered(&self) -> Result<Remembered, LedgerError> {
        self.read(|read| {
            let mut remembered = Remembered::default();
            for row in read.open_table(GIVEN)?.iter()? {
                let (key, since) = row?;
                let (network, address) = decode_address(key.value()).ok_or_else(|| bad("an address"))?;
                remembered.given.push((network, address, since.value()));
            }
            for row in read.open_table(ENDPOINTS)?.iter()? {
                remembered.endpoints.push(decode(row?.1.value())?);
            }
            for row in read.open_table(BOUND)?.iter()? {
                let (docker, network) = row?;
                remembered.bound.push((docker.value().to_owned(), NetworkId(network.value())));
            }
            for row in read.open_table(ABSENT)?.iter()? {
                let (network, remove) = row?;
                remembered.absent.push((NetworkId(network.value()), remove.value() != 0));
            }
            for row in read.open_table(LENT)?.iter()? {
                let (key, loan) = row?;
                let at = decode_address(key.value()).ok_or_else(|| bad("an address"))?;
                remembered.lent.push((at, decode(loan.value())?));
            }
            for row in read.open_table(GIVEN_UP)?.iter()? {
                let (key, revision) = row?;
                remembered.given_up.push((decode(key.value())?, revision.value()));
            }
            for row in read.open_table(PINNED)?.iter()? {
                let (key, container) = row?;
                let at = decode_address(key.value()).ok_or_else(|| bad("an address"))?;
                remembered.pinned.push((at, container.value().to_owned()));
            }
            Ok(remembered)
        })
    }

    /// Writes changes of what is given here, all or nothing.
    pub fn change(&self, changes: &[Change]) -> Result<(), LedgerError> {
        self.write(|write| {
            let mut given = write.open_table(GIVEN)?;
            let mut endpoints = write.open_table(ENDPOINTS)?;
            let mut bound = write.open_table(BOUND)?;
            let mut absent = write.open_table(ABSENT)?;
            let mut lent = write.open_table(LENT)?;
            let mut given_up = write.open_table(GIVEN_UP)?;
            let mut pinned = write.open_table(PINNED)?;
            for change in changes {
                match change {
                    Change::Give(network, address, since) => {
                        given.insert(encode_address(*network, *address).as_slice(), *since)?;
                    }
                    Change::Free(network, address) => {
                        given.remove(encode_address(*network, *address).as_slice())?;
                    }
                    Change::Endpoint(endpoint) => {
                        endpoints.insert(endpoint.id.as_str(), encode(endpoint)?.as_slice())?;
                    }
                    Change::EndpointGone(id) => drop(endpoints.remove(id.as_str())?),
                    Change::Bind(docker, network) => drop(bound.insert(docker.as_str(), network.0)?),
                    Change::Unbind(docker) => drop(bound.remove(docker.as_str())?),
                    Change::Absent(network, remove) => drop(absent.insert(network.0, u8::from(*remove))?),
                    Change::Present(network) => drop(absent.remove(network.0)?),
                    Change::Lend(network, address, loan) => {
                        put(&mut lent, &encode_address(*network, *address), loan)?;
                    }
                    Change::LoanGone(network, address) => {
                        lent.remove(encode_address(*network, *address).as_slice())?;
                    }
                    Change::GiveUp(key, revision) => drop(given_up.insert(&*encode(key)?, *revision)?),
                    Change::GivenUp(key) => drop(given_up.remove(&*encode(key)?)?),
                    Change::Pin(network, address, container) => {
                        pinned.insert(&*encode_address(*network, *address), container.as_str())?;
                    }
                    Change::Unpin(network, address) => {
                        pinned.remove(&*encode_address(*network, *address))?;
                    }
                }
            }
            Ok(())
        })
    }
}

/// The tables of a fresh file.
pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(GIVEN)?;
    write.open_table(ENDPOINTS)?;
    write.open_table(BOUND)?;
    later_tables(write)
}

/// Tables that a file of an earlier version of weft may not have.
pub(super) fn later_tables(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(ABSENT)?;
    write.open_table(LENT)?;
    write.open_table(GIVEN_UP)?;
    write.open_table(PINNED)?;
    write.open_table(super::SUCCESSIONS)?;
    Ok(())
}
