//! Frames of an interface, copied for a person to look at, and the file format of tcpdump (draft-ietf-opsawg-pcap).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netdevice};
use thiserror::Error;

use crate::sys;

/// No frame is longer: a superframe, its Ethernet header and tags.
pub const MAX_FRAME: usize = 65_535 + 64;

/// Microseconds, by who reads it in which byte order.
const MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;

/// Nothing can be captured.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The interface is not there.
    #[error("there is no interface {0} on this host")]
    NoInterface(String),
    /// The kernel refuses a packet socket.
    #[error("frames cannot be captured ({0}): it needs root, or CAP_NET_RAW")]
    Refused(#[source] io::Error),
}

/// What passes an interface, both directions, from now on. What nobody reads in time the kernel drops.
#[derive(Debug)]
pub struct Capture(OwnedFd);

impl Capture {
    /// Begins.
    pub fn open(interface: &str) -> Result<Self, CaptureError> {
        let refused = |e: rustix::io::Errno| CaptureError::Refused(e.into());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol nothing is captured before the socket is bound to the interface.
        let socket =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None).map_err(refused)?;
        let index = netdevice::name_to_index(&socket, interface)
            .map_err(|_| CaptureError::NoInterface(interface.to_owned()))?;
        sys::bind_packet(&socket, index).map_err(CaptureError::Refused)?;
        Ok(Self(socket))
    }

    /// Waits for the next frame: how much of it is in `buffer`, and how long it was. `None` if there is none in time.
    pub fn next(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Option<(usize, usize)>> {
        let patience = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience));
        match ready.and_then(|_| rustix::net::recv(&self.0, buffer, RecvFlags::TRUNC)) {
            Ok(got) => Ok(Some(got)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a pcap file begins with.
#[must_use]
pub fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&MAGIC.to_ne_bytes());
    header[4..6].copy_from_slice(&2u16.to_ne_bytes());
    header[6..8].copy_from_slice(&4u16.to_ne_bytes());
    header[16..20].copy_from_slice(&(MAX_FRAME as u32).to_ne_bytes());
    header[20..].copy_from_slice(&ETHERNET.to_ne_bytes());
    header
}

/// What stands before each frame: when it came, since 1970, how much of it follows, and how long it was.
#[must_use]
pub fn frame_header(at: Duration, captured: usize, len: usize) -> [u8; 16] {
    let mut header = [0; 16];
    let words = [at.as_secs() as u32, at.subsec_micros(), captured as u32, len as u32];
    for (place, word) in header.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_format() {
        let header = file_header();
        assert_eq!(header[..4], 0xa1b2_c3d4u32.to_ne_bytes());
        assert_eq!(header[4..8], [2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat());
        assert_eq!(header[20..], 1u32.to_ne_bytes());
        let header = frame_header(Duration::new(7, 9_000), 60, 1400);
        let words: Vec<u32> =
            header.chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]])).collect();
        assert_eq!(words, [7, 9, 60, 1400]);
    }
}
