//! `agent.redb`: what this host must remember. Roster, facts and decisions as their signers wrote them, before they are acted
//! on; addresses and endpoints given here, before Docker is answered; how often the process has started.

mod given;
mod rows;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use thiserror::Error;
use weft_api::id::MeshId;
use weft_router_io::node::{Stored, StoredRecord};

pub use given::{Change, Endpoint, Loan, Remembered};
use rows::{decode, encode, put};

/// The file's name in the state directory.
pub const FILE: &str = "agent.redb";

/// The layout of the file; another one is not read.
const FORMAT: u64 = 2;

/// redb's own default is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// One row: format, mesh id, and how often the process has started.
const HEADER: TableDefinition<(), (u64, [u8; 32], u64)> = TableDefinition::new("header");
/// Number to `Signed<Succession>`.
const SUCCESSIONS: TableDefinition<u32, &[u8]> = TableDefinition::new("successions");
/// Host id to `Signed<RosterRecord>`.
const ROSTER: Bytes = TableDefinition::new("roster");
/// Host id to `FactRecord`.
const FACTS: Bytes = TableDefinition::new("facts");
/// `DecisionKey` to `Signed<Decision>`.
const DECISIONS: Bytes = TableDefinition::new("decisions");

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
            given::make_tables(write)
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
                    ledger.write(given::later_tables)?;
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
        let successions = self.read(|read| {
            let table = read.open_table(SUCCESSIONS)?;
            table.iter()?.map(|row| decode(row?.1.value())).collect()
        })?;
        let (roster, facts, decisions) = (self.all(ROSTER)?, self.all(FACTS)?, self.all(DECISIONS)?);
        Ok(Stored { successions, roster, facts, decisions })
    }

    /// Writes records of the mesh, all or nothing.
    pub fn save(&self, records: &[StoredRecord]) -> Result<(), LedgerError> {
        self.write(|write| {
            let mut successions = write.open_table(SUCCESSIONS)?;
            let mut roster = write.open_table(ROSTER)?;
            let mut facts = write.open_table(FACTS)?;
            let mut decisions = write.open_table(DECISIONS)?;
            for record in records {
                match record {
                    StoredRecord::Succession(number, record) => {
                        successions.insert(number, encode(record)?.as_slice())?;
                    }
                    StoredRecord::Roster(host, record) => put(&mut roster, &host.0, record)?,
                    StoredRecord::Facts(host, record) => put(&mut facts, &host.0, record)?,
                    StoredRecord::Decision(key, record) => put(&mut decisions, &encode(key)?, record)?,
                    StoredRecord::FactsGone(host) => drop(facts.remove(&host.0[..])?),
                    StoredRecord::RosterGone(host) => drop(roster.remove(&host.0[..])?),
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
