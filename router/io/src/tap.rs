//! A queue of a network's tap: frames with virtio-net headers, and what the kernel granted.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use thiserror::Error;
use weft_router::offload::Offloads;

use crate::sys;

/// What we ask for, from most to least: an older kernel does not know all of it.
const WISHES: [Offloads; 4] = [
    Offloads::ALL,
    Offloads::CSUM.with(Offloads::TSO4).with(Offloads::TSO6).with(Offloads::USO4).with(Offloads::USO6),
    Offloads::CSUM.with(Offloads::TSO4).with(Offloads::TSO6),
    Offloads::CSUM,
];

/// A tap cannot be opened.
#[derive(Debug, Error)]
pub enum TapError {
    /// The device file is not there.
    #[error("/dev/net/tun cannot be opened ({0}); load the kernel module tun, and run as root")]
    NoDevice(#[source] io::Error),
    /// TUNSETIFF.
    #[error("the tap {name} cannot be made ({error}); root is needed, and nobody else may hold that name")]
    Refused {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

/// One queue of a tap. The tap goes when the last queue is closed, unless it was there before.
#[derive(Debug)]
pub struct TapQueue {
    fd: OwnedFd,
    offloads: Offloads,
}

impl TapQueue {
    /// Opens a queue of the tap `name`, which is made if it is not there, with as many offloads as the kernel grants.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
            .map_err(|e| TapError::NoDevice(e.into()))?;
        sys::tap_attach(fd.as_fd(), name)
            .map_err(|error| TapError::Refused { name: name.to_owned(), error })?;
        let granted = WISHES.into_iter().find(|o| sys::tap_set_offload(fd.as_fd(), o.bits()).is_ok());
        Ok(Self { fd, offloads: granted.unwrap_or(Offloads::NONE) })
    }

    /// Takes over a file descriptor that somebody else has made: a tap with virtio-net headers, or anything else that keeps
    /// the bounds of messages, such as one end of a socket pair in a test.
    pub fn from_fd(fd: OwnedFd, offloads: Offloads) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&fd, rustix::fs::fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Self { fd, offloads })
    }

    /// What the kernel granted.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// One frame with its virtio-net header before it. WouldBlock when there is none.
    #[inline]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// One frame with its virtio-net header before it.
    #[inline]
    pub(crate) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.fd, parts)?;
        Ok(())
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
