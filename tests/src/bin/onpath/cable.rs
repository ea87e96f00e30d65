//! A cable's end by AF_PACKET (packet(7)): every frame that comes in at a port, superframes with the virtio-net header that
//! says what they are, and the way to send such frames out of it.
#![allow(
    unsafe_code,
    reason = "std and rustix have no AF_PACKET; this program is a test tool, no part of the product"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// struct virtio_net_hdr.
pub const VNET: usize = 10;
/// Where it says that a checksum is to be computed, and that the frame is a superframe.
const FLAGS: usize = 0;
const GSO: usize = 1;
/// linux/if_packet.h; libc does not have it.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// One end.
pub struct End(OwnedFd);

impl End {
    /// At this interface.
    pub fn open(iface: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let name = CString::new(iface)?;
        // SAFETY: `name` is a live C string.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(format!("no interface {iface}").into());
        }
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the result is checked before it is owned. Protocol 0 receives nothing before the bind.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        check(raw)?;
        // SAFETY: `raw` is a descriptor that the kernel has just given to us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let on: libc::c_int = 1;
        let timeout = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        for (level, option, value, len) in [
            (
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast::<libc::c_void>(),
                size_of_val(&on),
            ),
            (libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, (&raw const on).cast(), size_of_val(&on)),
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const timeout).cast(), size_of_val(&timeout)),
        ] {
            let len = libc::socklen_t::try_from(len)?;
            // SAFETY: `value` points to a live variable of `len` bytes.
            check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) })?;
        }
        // SAFETY: all zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = i32::try_from(index)?;
        let len = libc::socklen_t::try_from(size_of_val(&address))?;
        // SAFETY: pointer and length are those of `address`.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(Self(socket))
    }

    /// The next frame behind its virtio-net header; `None` if none came for a while.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<Vec<u8>> {
        // SAFETY: pointer and length are those of one live slice.
        let len = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(len).ok().filter(|len| *len > VNET).map(|len| buffer[..len].to_vec())
    }

    /// Sends a frame behind its virtio-net header. What does not go out is lost, as on any wire.
    pub fn send(&self, frame: &[u8]) {
        let mut frame = frame.to_vec();
        // On receive 2 says "checked already", which means nothing on the way out.
        frame[FLAGS] &= 1;
        // SAFETY: pointer and length are those of one live slice.
        unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    }
}

/// Whether the frame behind this virtio-net header is one that was on no wire yet as it is.
pub fn is_superframe(frame: &[u8]) -> bool {
    frame[GSO] != 0
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
