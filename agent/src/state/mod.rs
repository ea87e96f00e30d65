//! The state directory: who this host is, of which mesh, and what must survive a crash. `mesh.json` is written last, so a
//! directory without it holds no member of a mesh; one that has other files then is half written, and said to be so.

mod file;
mod identity;
pub mod ledger;
pub mod sealed;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use weft_api::id::{HostKey, MeshId};
use weft_api::sign::SigningKey;

pub use identity::Identity;
pub use ledger::{Ledger, LedgerError};

/// Where the state is kept unless `--state` says otherwise.
pub const DEFAULT_DIR: &str = "/var/lib/weft";

const HOST_KEY: &str = "host.key";
const MESH_KEY: &str = "mesh.key";
/// A new mesh key that may not count yet, or not any more be new: `controller.redb` says.
const NEXT_MESH_KEY: &str = "mesh.next";
const MESH: &str = "mesh.json";
const LOCK: &str = "lock";
/// The controller's file, which crate `controller` writes and reads.
const CONTROLLER: &str = "controller.redb";

/// Everything that weft keeps in the directory, but for the lock.
const FILES: [&str; 6] = [MESH, ledger::FILE, CONTROLLER, MESH_KEY, NEXT_MESH_KEY, HOST_KEY];

/// The directory, by its path; nothing is open.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Held while a process works on the directory; free again when dropped, and when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the directory cannot be used. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{} is in use by another weft: is weft up running? (weft status)", .0.display())]
    InUse(PathBuf),
    /// No member of a mesh.
    #[error("this host is in no mesh yet ({} is empty): run weft init to make one, or weft join to join one", .0.display())]
    NoMesh(PathBuf),
    /// Some files are there, others are not.
    #[error(
        "{} is half written ({missing} is missing): put back a copy of it, or run weft leave --force and begin anew", dir.display()
    )]
    HalfWritten {
        /// The directory.
        dir: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
    /// Files that do not belong together.
    #[error("{} is mixed up ({why}): put the files of one host together there, or run weft leave --force and begin anew", dir.display())]
    MixedUp {
        /// The directory.
        dir: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A file is not what weft writes.
    #[error("{} cannot be read ({why}): put back a copy of it, or run weft leave --force and begin anew", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk says no.
    #[error("{}: {source}: check the disk, and that weft runs as root", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel gives no random bytes.
    #[error("this machine gives no random numbers: check /dev/urandom")]
    NoRandom,
}

impl StateDir {
    /// The directory at this path, which need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the directory for this process, making it if need be.
    pub fn lock(&self) -> Result<Lock, StateError> {
        file::make_dir(&self.path).map_err(|source| self.io("", source))?;
        match file::lock(&self.path.join(LOCK)) {
            Ok(Some(file)) => Ok(Lock { _file: file }),
            Ok(None) => Err(StateError::InUse(self.path.clone())),
            Err(source) => Err(self.io(LOCK, source)),
        }
    }

    /// Which member of which mesh this host is; `None` if of none yet. Checks that all files are there and fit.
    pub fn identity(&self) -> Result<Option<Identity>, StateError> {
        let host_key = self.read_key(HOST_KEY)?;
        let text = file::read(&self.path.join(MESH)).map_err(|source| self.io(MESH, source))?;
        let Some(text) = text else {
            return if [MESH_KEY, ledger::FILE, CONTROLLER].iter().any(|name| self.has(name)) {
                Err(self.half_written(MESH))
            } else {
                Ok(None)
            };
        };
        let identity = Identity::from_json(&text)
            .map_err(|why| StateError::Unreadable { path: self.path.join(MESH), why })?;
        let host_key = host_key.ok_or_else(|| self.half_written(HOST_KEY))?;
        if HostKey(host_key.public()) != identity.key {
            return Err(self.mixed_up("host.key is another host's than the one in mesh.json"));
        }
        if !self.has(ledger::FILE) {
            return Err(self.half_written(ledger::FILE));
        }
        if identity.founder || identity.signer {
            // Whether it is the one that signs is said by `controller.redb`.
            self.mesh_key()?;
            if !self.has(CONTROLLER) {
                return Err(self.half_written(CONTROLLER));
            }
        }
        Ok(Some(identity))
    }

    /// As [`StateDir::identity`], where there must be one.
    pub fn member(&self) -> Result<Identity, StateError> {
        self.identity()?.ok_or_else(|| StateError::NoMesh(self.path.clone()))
    }

    /// The last step of founding or joining: from now on this host is a member.
    pub fn enrol(&self, identity: &Identity) -> Result<(), StateError> {
        self.write(MESH, identity.to_json().as_bytes())
    }

    /// This host's key.
    pub fn host_key(&self) -> Result<SigningKey, StateError> {
        self.read_key(HOST_KEY)?.ok_or_else(|| self.half_written(HOST_KEY))
    }

    /// This host's key, made now if there is none. It is on the disk before anybody hears of it, so that a join which is cut
    /// off is taken up again as the same host.
    pub fn host_key_or_new(&self) -> Result<SigningKey, StateError> {
        match self.read_key(HOST_KEY)? {
            Some(key) => Ok(key),
            None => self.new_key(HOST_KEY),
        }
    }

    /// The key that signs the roster; on the founder and other signers only.
    pub fn mesh_key(&self) -> Result<SigningKey, StateError> {
        self.read_key(MESH_KEY)?.ok_or_else(|| self.half_written(MESH_KEY))
    }

    /// Makes the key that will sign the roster.
    pub fn new_mesh_key(&self) -> Result<SigningKey, StateError> {
        self.new_key(MESH_KEY)
    }

    /// Takes the key that signs the roster from another host. `controller.redb` of an attempt that was cut off is removed.
    pub fn take_mesh_key(&self, key: &SigningKey) -> Result<(), StateError> {
        match std::fs::remove_file(self.path.join(CONTROLLER)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(self.io(CONTROLLER, source));
            }
            _ => {}
        }
        self.write(MESH_KEY, format!("{}\n", HostKey(*key.seed())).as_bytes())
    }

    /// A successor of the mesh key, on the disk before anything is signed with it. One that lies there already may count.
    pub fn next_mesh_key_or_new(&self) -> Result<SigningKey, StateError> {
        match self.next_mesh_key()? {
            Some(key) => Ok(key),
            None => self.new_key(NEXT_MESH_KEY),
        }
    }

    /// Such a successor, made on another host.
    pub fn put_next_mesh_key(&self, key: &SigningKey) -> Result<(), StateError> {
        self.write(NEXT_MESH_KEY, format!("{}\n", HostKey(*key.seed())).as_bytes())
    }

    /// That successor, if a rotation was begun.
    pub fn next_mesh_key(&self) -> Result<Option<SigningKey>, StateError> {
        self.read_key(NEXT_MESH_KEY)
    }

    /// The last step of a rotation: the old key is gone.
    pub fn take_next_mesh_key(&self) -> Result<(), StateError> {
        let (next, key) = (self.path.join(NEXT_MESH_KEY), self.path.join(MESH_KEY));
        std::fs::rename(next, key)
            .and_then(|()| file::sync_dir(&self.path))
            .map_err(|source| self.io(NEXT_MESH_KEY, source))
    }

    /// Undoes a rotation that came no further than its key.
    pub fn drop_next_mesh_key(&self) -> Result<(), StateError> {
        std::fs::remove_file(self.path.join(NEXT_MESH_KEY))
            .and_then(|()| file::sync_dir(&self.path))
            .map_err(|source| self.io(NEXT_MESH_KEY, source))
    }

    /// Makes the file of what this host must remember.
    pub fn create_ledger(&self, mesh: MeshId) -> Result<Ledger, LedgerError> {
        Ledger::create(&self.path, mesh)
    }

    /// Opens the file of what this host must remember.
    pub fn open_ledger(&self, mesh: MeshId) -> Result<Ledger, LedgerError> {
        Ledger::open(&self.path, mesh)
    }

    /// Removes everything that weft keeps here, `mesh.json` first. What else lies in the directory stays.
    pub fn clear(&self) -> Result<(), StateError> {
        for name in FILES {
            for name in [name.to_owned(), format!("{name}.new")] {
                let path = self.path.join(&name);
                match std::fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(StateError::Io { path, source });
                    }
                    _ => {}
                }
            }
        }
        file::sync_dir(&self.path).map_err(|source| self.io("", source))
    }

    /// Whether anything of weft is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !FILES.iter().any(|name| self.has(name))
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    fn read_key(&self, name: &'static str) -> Result<Option<SigningKey>, StateError> {
        let path = self.path.join(name);
        let Some(text) = file::read(&path).map_err(|source| self.io(name, source))? else { return Ok(None) };
        // The id types read exactly 64 hexadecimal digits; the name of the type is not told, nor the text.
        let seed = text
            .trim()
            .parse::<HostKey>()
            .map_err(|_| StateError::Unreadable { path, why: "a key is 64 hexadecimal digits".into() })?;
        Ok(Some(SigningKey::from_seed(seed.0)))
    }

    fn new_key(&self, name: &'static str) -> Result<SigningKey, StateError> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| StateError::NoRandom)?;
        let key = SigningKey::from_seed(seed);
        self.write(name, format!("{}\n", HostKey(seed)).as_bytes())?;
        Ok(key)
    }

    fn write(&self, name: &'static str, bytes: &[u8]) -> Result<(), StateError> {
        file::write(&self.path, name, bytes).map_err(|source| self.io(name, source))
    }

    fn half_written(&self, missing: &'static str) -> StateError {
        StateError::HalfWritten { dir: self.path.clone(), missing }
    }

    fn mixed_up(&self, why: &str) -> StateError {
        StateError::MixedUp { dir: self.path.clone(), why: why.into() }
    }

    fn io(&self, name: &str, source: io::Error) -> StateError {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        StateError::Io { path, source }
    }
}
