//! Sockets that systemd opened before this process was started: `LISTEN_PID` and `LISTEN_FDS`, as sd_listen_fds(3) says.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::socket_acceptconn;

use crate::sys;

/// Taken at most once in the life of the process.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The listening socket for `path`; `None` if this process was started without one, or it was taken before. Anything but one
/// listening Unix socket that is bound to `path` is an error.
pub fn listener(path: &Path) -> io::Result<Option<UnixListener>> {
    let variable = |name: &str| std::env::var(name).ok();
    let count =
        announced(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id())?;
    if count == 0 || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    let wrong = |why: &str| {
        let why = format!(
            "what systemd handed over is not the socket {} ({why}): run systemctl daemon-reload, then systemctl restart weft-plugin.socket weft",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidInput, why)
    };
    if count != 1 {
        return Err(wrong("more than one descriptor"));
    }
    let socket = sys::first_inherited();
    let listens = fstat(socket.as_fd()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_socket())
        && socket_acceptconn(socket.as_fd()).unwrap_or(false);
    if !listens {
        // Whose descriptor it is is not known: it stays open.
        std::mem::forget(socket);
        return Err(wrong("it does not listen"));
    }
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let listener = UnixListener::from(socket);
    if listener.local_addr()?.as_pathname() != Some(path) {
        return Err(wrong("it is bound elsewhere"));
    }
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// How many descriptors are for the process `me`.
fn announced(pid: Option<&str>, count: Option<&str>, me: u32) -> io::Result<u32> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(0) };
    if pid.parse() != Ok(me) {
        return Ok(0);
    }
    count
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "LISTEN_FDS is no number: unset it"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_announced_to_this_process_counts() {
        assert_eq!(announced(None, None, 7).unwrap(), 0);
        assert_eq!(announced(Some("7"), None, 7).unwrap(), 0);
        assert_eq!(announced(Some("8"), Some("1"), 7).unwrap(), 0, "a child inherits the variables");
        assert_eq!(announced(Some("7"), Some("1"), 7).unwrap(), 1);
        assert!(announced(Some("7"), Some("-1"), 7).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(pid in ".{0,12}", count in ".{0,12}") {
            let _ = announced(Some(&pid), Some(&count), 7);
        }
    }
}
