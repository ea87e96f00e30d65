//! `controller.redb`: every event since the last snapshot, and that snapshot. What is in it has been decided; nothing else has.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use weft_api::id::MeshId;
use weft_controller_state::{Event, State};

/// The file's name in the state directory.
pub const FILE: &str = "controller.redb";

/// The layout of the file; another one is not read.
const FORMAT: u64 = 1;

/// After so many events the state is stored whole and they are dropped, so that the file and the start stay small.
const EVENTS_PER_SNAPSHOT: u64 = 256;

/// The state is small; redb's default cache is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

/// Sequence number to [`Event`] in JSON.
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");

/// One row, [`Snapshot`] in JSON.
const SNAPSHOT: TableDefinition<(), &[u8]> = TableDefinition::new("snapshot");

/// One row: format and mesh id. Written with the first events, so that a file without it is half written.
const HEADER: TableDefinition<(), (u64, [u8; 32])> = TableDefinition::new("header");

/// The file, open and locked.
pub struct Store {
    db: Database,
    path: PathBuf,
    /// The sequence number of the next event.
    next: u64,
    /// Events before this one are in the snapshot.
    snapshot_at: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Snapshot {
    next: u64,
    state: State,
}

/// The file cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is none.
    #[error("{path} is missing, so this host cannot decide: put a copy of it back, or run weft leave --force here and make a new mesh", path = .0.display())]
    Missing(PathBuf),
    /// Another process has it.
    #[error("{path} is open in another process: is weft up running already? (weft status)", path = .0.display())]
    InUse(PathBuf),
    /// Not what was written.
    #[error("{path} is half written or damaged ({why}): put a copy of it back, or run weft leave --force here and make a new mesh", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another mesh's.
    #[error("{path} belongs to another mesh ({found}) than the keys beside it ({expected}): put the files of one mesh together there", path = .path.display())]
    OtherMesh {
        /// The file.
        path: PathBuf,
        /// Its mesh.
        found: MeshId,
        /// The mesh of the keys.
        expected: MeshId,
    },
    /// Of another version of weft.
    #[error("{path} is of format {found}, this weft reads {FORMAT}: run the version of weft that wrote it", path = .path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// One is there already.
    #[error("{path} exists already: this host has founded a mesh; run weft status, or weft leave --force first", path = .0.display())]
    Exists(PathBuf),
    /// The disk says no.
    #[error("{path} cannot be written or read ({source}): check the disk and its free space", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Store {
    /// Makes the file with its first events, whole or not at all.
    pub fn create(dir: &Path, mesh: MeshId, events: &[Event]) -> Result<(Self, State), StoreError> {
        let path = dir.join(FILE);
        if path.exists() {
            return Err(StoreError::Exists(path));
        }
        let draft = dir.join(format!("{FILE}.new"));
        let io = |source| StoreError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(io)?;
        let db = builder().create_file(file).map_err(|e| opening(&path, e))?;
        let mut store = Self { db, path: path.clone(), next: 0, snapshot_at: 0 };
        let mut state = State::default();
        events.iter().for_each(|event| state.apply(event));
        store.write(events, &state, Some(mesh))?;
        std::fs::rename(&draft, &path).and_then(|()| File::open(dir)?.sync_all()).map_err(io)?;
        Ok((store, state))
    }

    /// Opens the file and reads the state out of it.
    pub fn open(dir: &Path) -> Result<(Self, State), StoreError> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Err(StoreError::Missing(path));
        }
        // redb checks what it reads, but asserts some of it.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut db = builder().open(&path).map_err(|e| opening(&path, e))?;
            db.check_integrity().map_err(|e| opening(&path, e))?;
            Self { db, path: path.clone(), next: 0, snapshot_at: 0 }.read()
        }));
        read.unwrap_or_else(|_| {
            Err(StoreError::Damaged { path, why: "its pages do not fit together".into() })
        })
    }

    /// Stores the events, on the disk when this returns. `after`: the state once they are applied.
    pub fn append(&mut self, events: &[Event], after: &State) -> Result<(), StoreError> {
        self.write(events, after, None)
    }

    /// How many events there have been.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.next
    }

    fn write(&mut self, events: &[Event], after: &State, header: Option<MeshId>) -> Result<(), StoreError> {
        let next = self.next + events.len() as u64;
        let due = next - self.snapshot_at >= EVENTS_PER_SNAPSHOT;
        self.transact(events, next, header, due.then_some(after)).map_err(|e| self.failed(e))?;
        self.next = next;
        if due {
            self.snapshot_at = next;
        }
        Ok(())
    }

    /// One transaction; redb's default durability is a sync at commit.
    fn transact(
        &self,
        events: &[Event],
        next: u64,
        header: Option<MeshId>,
        snapshot: Option<&State>,
    ) -> Result<(), Failure> {
        let write = self.db.begin_write()?;
        {
            let mut rows = write.open_table(EVENTS)?;
            for (sequence, event) in (self.next..).zip(events) {
                rows.insert(sequence, serde_json::to_vec(event).map_err(Failure::Json)?.as_slice())?;
            }
            if let Some(mesh) = header {
                write.open_table(HEADER)?.insert((), (FORMAT, mesh.0))?;
            }
            if let Some(state) = snapshot {
                let whole =
                    serde_json::to_vec(&Snapshot { next, state: state.clone() }).map_err(Failure::Json)?;
                write.open_table(SNAPSHOT)?.insert((), whole.as_slice())?;
                rows.retain(|_, _| false)?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn read(mut self) -> Result<(Self, State), StoreError> {
        let (format, mesh) = self.header().map_err(|e| self.failed(e))?;
        if format != FORMAT {
            return Err(StoreError::OtherFormat { path: self.path, found: format });
        }
        let (snapshot_at, next, state) = self.events().map_err(|e| self.failed(e))?;
        if state.mesh().is_none_or(|record| record.mesh != mesh) {
            return Err(self.failed(Failure::Gap("its header is another mesh's")));
        }
        self.snapshot_at = snapshot_at;
        self.next = next;
        Ok((self, state))
    }

    fn header(&self) -> Result<(u64, MeshId), Failure> {
        let read = self.db.begin_read()?;
        let header = read.open_table(HEADER)?.get(())?.ok_or(Failure::Gap("it has no header"))?;
        let (format, mesh) = header.value();
        Ok((format, MeshId(mesh)))
    }

    fn events(&self) -> Result<(u64, u64, State), Failure> {
        let read = self.db.begin_read()?;
        let snapshot = match read.open_table(SNAPSHOT) {
            Ok(table) => table
                .get(())?
                .map(|row| serde_json::from_slice(row.value()))
                .transpose()
                .map_err(Failure::Json)?,
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(e) => return Err(e.into()),
        };
        let Snapshot { next: snapshot_at, mut state } = snapshot.unwrap_or_default();
        let mut next = snapshot_at;
        for row in read.open_table(EVENTS)?.iter()? {
            let (sequence, event) = row?;
            if sequence.value() != next {
                return Err(Failure::Gap("an event is missing"));
            }
            state.apply(&serde_json::from_slice(event.value()).map_err(Failure::Json)?);
            next += 1;
        }
        Ok((snapshot_at, next, state))
    }

    fn failed(&self, failure: Failure) -> StoreError {
        let path = self.path.clone();
        match failure {
            Failure::Redb(redb::Error::Io(source)) if !is_short(&source) => StoreError::Io { path, source },
            Failure::Redb(e) => StoreError::Damaged { path, why: e.to_string() },
            Failure::Json(e) => StoreError::Damaged { path, why: e.to_string() },
            Failure::Gap(why) => StoreError::Damaged { path, why: why.into() },
        }
    }
}

/// What can go wrong inside a transaction.
enum Failure {
    Redb(redb::Error),
    Json(serde_json::Error),
    Gap(&'static str),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::Redb(e.into())
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn opening(path: &Path, e: DatabaseError) -> StoreError {
    let path = path.to_path_buf();
    match e {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path),
        DatabaseError::Storage(StorageError::Io(source)) if !is_short(&source) => {
            StoreError::Io { path, source }
        }
        e => StoreError::Damaged { path, why: e.to_string() },
    }
}

/// What redb says of a file that it did not write, or not to its end.
fn is_short(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
