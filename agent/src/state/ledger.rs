//! `agent.redb`: what this host must remember. Roster, facts and decisions as their signers wrote them, before they are acted
//! on; addresses and endpoints given here, before Docker is answered; how often the process has started.

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use weft_api::decision::DecisionKey;
use weft_api::id::{HostId, Mac, MeshId, NetworkId};
use weft_router_io::node::{Stored, StoredRecord};

/// The file's name in the state directory.
pub const FILE: &str = "agent.redb";

/// The layout of the file; another one is not read.
const FORMAT: u64 = 2;

/// redb's own default is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// One row: format, mesh id, and how often the process has started.
const HEADER: TableDefinition<(), (u64, [u8; 32], u64)> = TableDefinition::new("header");
/// Host id to `Signed<RosterRecord>`.
const ROSTER: Bytes = TableDefinition::new("roster");
/// Host id to `FactRecord`.
const FACTS: Bytes = TableDefinition::new("facts");
/// `DecisionKey` to `Signed<Decision>`.
const DECISIONS: Bytes = TableDefinition::new("decisions");
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

/// The file, open; one process at a time.
#[derive(Debug)]
pub struct Ledger {
    db: Database,
    path: PathBuf,
}

/// The file cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// Another process has it.
    #[error("{} is open in another process: is weft up running? (weft status)", .0.display())]
    InUse(PathBuf),
    /// Not what was written.
    #[error("{} is half written or damaged ({why}): put back a copy of it, or run weft leave --force and join again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another mesh's.
    #[error("{} belongs to another mesh than mesh.json beside it: put the files of one host together there", .0.display())]
    OtherMesh(PathBuf),
    /// Of another version of weft.
    #[error("{} is of format {found}, this weft reads {FORMAT}: run the version of weft that wrote it", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The disk says no.
    #[error("{} cannot be written or read ({source}): check the disk and its free space", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Ledger {
    /// Makes the file, whole or not at all; it must not exist.
    pub fn create(dir: &Path, mesh: MeshId) -> Result<Self, LedgerError> {
        let (path, draft) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        let io = |source| LedgerError::Io { path: path.clone(), source };
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let db = builder().create_file(file.map_err(io)?).map_err(|e| opening(&path, e))?;
        let ledger = Self { db, path: path.clone() };
        ledger.write(|write| {
            write.open_table(HEADER)?.insert((), (FORMAT, mesh.0, 0))?;
            for table in [ROSTER, FACTS, DECISIONS] {
                write.open_table(table)?;
            }
            write.open_table(GIVEN)?;
            write.open_table(ENDPOINTS)?;
            write.open_table(BOUND)?;
            later_tables(write)
        })?;
        std::fs::rename(&draft, &path).map_err(io)?;
        super::file::sync_dir(dir).map_err(io)?;
        Ok(ledger)
    }

    /// Opens the file of this mesh.
    pub fn open(dir: &Path, mesh: MeshId) -> Result<Self, LedgerError> {
        let path = dir.join(FILE);
        // redb checks what it reads, but asserts some of it.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = builder().open(&path).map_err(|e| opening(&path, e))?;
            let ledger = Self { db, path: path.clone() };
            let header = ledger.read(|read| Ok(read.open_table(HEADER)?.get(())?.map(|row| row.value())))?;
            match header {
                None => Err(ledger.damaged("it has no header")),
                Some((found, ..)) if found != FORMAT => {
                    Err(LedgerError::OtherFormat { path: path.clone(), found })
                }
                Some((_, found, _)) if found != mesh.0 => Err(LedgerError::OtherMesh(path.clone())),
                Some(_) => {
                    ledger.write(later_tables)?;
                    Ok(ledger)
                }
            }
        }));
        opened.unwrap_or_else(|_| {
            Err(LedgerError::Damaged { path, why: "its pages do not fit together".into() })
        })
    }

    /// Counts this start of the process: 1 at first.
    pub fn next_boot(&self) -> Result<u64, LedgerError> {
        self.write(|write| {
            let mut table = write.open_table(HEADER)?;
            let row = table.get(())?.map(|row| row.value());
            let (format, mesh, boots) = row.unwrap_or((FORMAT, [0; 32], 0));
            table.insert((), (format, mesh, boots + 1))?;
            Ok(boots + 1)
        })
    }

    /// Roster, facts and decisions.
    pub fn stored(&self) -> Result<Stored, LedgerError> {
        Ok(Stored { roster: self.all(ROSTER)?, facts: self.all(FACTS)?, decisions: self.all(DECISIONS)? })
    }

    /// Writes records of the mesh, all or nothing.
    pub fn save(&self, records: &[StoredRecord]) -> Result<(), LedgerError> {
        self.write(|write| {
            let mut roster = write.open_table(ROSTER)?;
            let mut facts = write.open_table(FACTS)?;
            let mut decisions = write.open_table(DECISIONS)?;
            for record in records {
                match record {
                    StoredRecord::Roster(host, record) => put(&mut roster, &host.0, record)?,
                    StoredRecord::Facts(host, record) => put(&mut facts, &host.0, record)?,
                    StoredRecord::Decision(key, record) => put(&mut decisions, &encode(key)?, record)?,
                    StoredRecord::FactsGone(host) => drop(facts.remove(&host.0[..])?),
                }
            }
            Ok(())
        })
    }

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

    fn all<T: DeserializeOwned>(&self, table: Bytes) -> Result<Vec<T>, LedgerError> {
        self.read(|read| {
            let table = read.open_table(table)?;
            table.iter()?.map(|row| decode(row?.1.value())).collect()
        })
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        let read = self.db.begin_read().map_err(|e| self.failed(e.into()))?;
        work(&read).map_err(|e| self.failed(e))
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        let write = self.db.begin_write().map_err(|e| self.failed(e.into()))?;
        let done = work(&write).map_err(|e| self.failed(e))?;
        write.commit().map_err(|e| self.failed(e.into()))?;
        Ok(done)
    }

    fn failed(&self, error: redb::Error) -> LedgerError {
        match error {
            redb::Error::Io(source) => LedgerError::Io { path: self.path.clone(), source },
            other => self.damaged(&other.to_string()),
        }
    }

    fn damaged(&self, why: &str) -> LedgerError {
        LedgerError::Damaged { path: self.path.clone(), why: why.into() }
    }
}

/// Tables that a file of an earlier version of weft may not have.
fn later_tables(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(ABSENT)?;
    write.open_table(LENT)?;
    write.open_table(GIVEN_UP)?;
    write.open_table(PINNED)?;
    Ok(())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn opening(path: &Path, error: DatabaseError) -> LedgerError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => LedgerError::InUse(path),
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() != io::ErrorKind::InvalidData => {
            LedgerError::Io { path, source }
        }
        other => LedgerError::Damaged { path, why: other.to_string() },
    }
}

fn put<T: Serialize>(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    value: &T,
) -> Result<(), redb::Error> {
    table.insert(key, encode(value)?.as_slice())?;
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    postcard::to_allocvec(value).map_err(|_| bad("a row"))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    postcard::from_bytes(bytes).map_err(|_| bad("a row"))
}

fn bad(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("{what} in it cannot be read"))
}

fn encode_address(network: NetworkId, address: IpAddr) -> Vec<u8> {
    let mut key = network.0.to_be_bytes().to_vec();
    match address {
        IpAddr::V4(v4) => key.extend(v4.octets()),
        IpAddr::V6(v6) => key.extend(v6.octets()),
    }
    key
}

fn decode_address(key: &[u8]) -> Option<(NetworkId, IpAddr)> {
    let (network, address) = key.split_first_chunk::<4>()?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    Some((NetworkId(u32::from_be_bytes(*network)), address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_go_round(network: u32, address: IpAddr) {
            let key = encode_address(NetworkId(network), address);
            prop_assert_eq!(decode_address(&key), Some((NetworkId(network), address)));
        }

        #[test]
        fn any_key_is_read_without_panic(key in prop::collection::vec(any::<u8>(), 0..32)) {
            if let Some((network, address)) = decode_address(&key) {
                prop_assert_eq!(encode_address(network, address), key);
            }
        }
    }
}
