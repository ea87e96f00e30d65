//! Unix sockets for root only, on a path that a killed process may have left behind.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use weft_router_io::activation;

/// Whose the file of a socket is: who made it removes it.
#[derive(Debug)]
pub enum Place {
    /// Ours.
    Ours(PathBuf),
    /// Of a socket unit, which goes on listening when this process ends.
    Units,
}

impl Place {
    /// Removes the file at the end, if it is ours.
    pub fn leave(&self) -> io::Result<()> {
        match self {
            Self::Ours(path) => remove(path),
            Self::Units => Ok(()),
        }
    }
}

/// Takes the socket that systemd opened on `path`, or listens there as [`bind`] does.
pub fn inherit_or_bind(path: &Path) -> io::Result<(UnixListener, Place)> {
    match activation::listener(path)? {
        Some(listener) => Ok((UnixListener::from_std(listener)?, Place::Units)),
        None => Ok((bind(path)?, Place::Ours(path.to_owned()))),
    }
}

/// Listens on `path`, taking the place of a socket that nobody listens on any more. Call it inside a tokio runtime.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let why = format!("another process listens on {}: is weft up running already?", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    // Bound under another name and then renamed: nobody meets a socket that anybody may write to.
    let draft = path.with_extension("new");
    remove(&draft)?;
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&draft, path)?;
    Ok(listener)
}

/// Removes a socket; absent is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
