//! Raw Ethernet frames by AF_PACKET (packet(7)), for what no ordinary socket sends: VLAN tags, strange ethertypes, borrowed addresses.
#![allow(
    unsafe_code,
    reason = "std and rustix have no AF_PACKET; this program is a test tool, no part of the product"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::Outcome;

const AUXDATA_SPACE: usize = 64;

pub fn send(iface: &str, frame: &[u8]) -> Outcome {
    let socket = open(iface)?;
    // SAFETY: the pointer and length are those of one live slice.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    if usize::try_from(sent) == Ok(frame.len()) { Ok(()) } else { Err(io::Error::last_os_error().into()) }
}

pub fn storm(iface: &str, frame: &[u8], seconds: u64) -> Outcome {
    let socket = open(iface)?;
    let (mut sent, end) = (0u64, Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        // SAFETY: the pointer and length are those of one live slice.
        let taken = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        sent += u64::from(taken > 0);
    }
    println!("{sent} frames");
    Ok(())
}

pub fn wait(iface: &str, wanted: &[u8], seconds: u64) -> Outcome {
    let socket = open(iface)?;
    println!("waiting");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut buffer = vec![0u8; 70_000];
    while Instant::now() < end {
        let Some(frame) = receive(&socket, &mut buffer)? else { continue };
        if frame.windows(wanted.len()).any(|w| w == wanted) {
            println!("seen, {} bytes", frame.len());
            return Ok(());
        }
    }
    Err("no such frame came".into())
}

fn open(iface: &str) -> Result<OwnedFd, Box<dyn std::error::Error>> {
    let name = CString::new(iface)?;
    // SAFETY: `name` is a live C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(format!("no interface {iface}").into());
    }
    let every = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers; the result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(every)) };
    if raw < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: `raw` is a descriptor that the kernel has just given to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every;
    address.sll_ifindex = i32::try_from(index)?;
    let len = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: pointer and length are those of `address`.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    let on: libc::c_int = 1;
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 200_000 };
    for (level, option, value, len) in [
        (libc::SOL_PACKET, libc::PACKET_AUXDATA, (&raw const on).cast::<libc::c_void>(), size_of_val(&on)),
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const timeout).cast(), size_of_val(&timeout)),
    ] {
        // SAFETY: `value` points to a live variable of `len` bytes.
        check(unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, option, value, libc::socklen_t::try_from(len)?)
        })?;
    }
    Ok(socket)
}

/// A frame with its VLAN tag put back, which the kernel hands over apart from it.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let mut control = [0u64; AUXDATA_SPACE / 8];
    let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = AUXDATA_SPACE;
    // SAFETY: the message points to live buffers of the lengths that it says.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let Ok(len) = usize::try_from(len) else {
        let e = io::Error::last_os_error();
        return if e.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(e) };
    };
    let mut frame = buffer[..len].to_vec();
    // SAFETY: the kernel has filled in the control buffer that the message points to.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: a header that is not null lies in `control`, which outlives this borrow.
    let header = unsafe { header.as_ref() };
    if let Some(aux) = header
        .filter(|h| h.cmsg_level == libc::SOL_PACKET && h.cmsg_type == libc::PACKET_AUXDATA)
        // SAFETY: PACKET_AUXDATA carries a tpacket_auxdata behind its header.
        .map(|h| unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(h).cast::<libc::tpacket_auxdata>()) })
        .filter(|aux| aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && len >= 12)
    {
        let tag = [aux.tp_vlan_tpid.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes()].concat();
        frame.splice(12..12, tag);
    }
    Ok(Some(frame))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
