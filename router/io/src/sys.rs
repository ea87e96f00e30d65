//! The one file with unsafe code: what the kernel offers and no safe wrapper does. Tap ioctls, and UDP messages with
//! segmentation (UDP_SEGMENT), coalescing (UDP_GRO) and steering, packet sockets. No decisions here.

#![expect(unsafe_code, reason = "the one home of unsafe code: system calls that no safe wrapper offers")]

use std::ffi::c_int;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETVNETLE: libc::Ioctl = 0x4004_54dc;

/// The kernel's limit of an interface's name, its NUL included.
const IFNAMSIZ: usize = 16;

/// Room for the control messages that we ask for: the segment size of a received train.
const CONTROL_LEN: usize = 64;

/// The kernel's `struct ifreq`, as far as TUNSETIFF reads and writes it.
#[repr(C)]
struct IfReq {
    name: [u8; IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

/// Control messages need the alignment of `cmsghdr`.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// Makes `fd`, an open /dev/net/tun, a queue of the tap `name`: no packet information, virtio-net headers (little endian
/// on every machine), several queues allowed.
pub(crate) fn tap_attach(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = IfReq { name: [0; IFNAMSIZ], flags: 0, rest: [0; 22] };
    if name.is_empty() || name.len() >= IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    request.flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE) as u16;
    // SAFETY: TUNSETIFF reads and writes a struct ifreq of 40 bytes, which `request` is and stays for the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    let one: c_int = 1;
    // SAFETY: TUNSETVNETLE reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETLE, &raw const one) })?;
    Ok(())
}

/// Tells the kernel what may be left undone in frames that it hands over (`TUN_F_*`). EINVAL if it knows one of them not.
pub(crate) fn tap_set_offload(fd: BorrowedFd<'_>, bits: u8) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, libc::c_ulong::from(bits)) })?;
    Ok(())
}

/// The first descriptor after standard error, of which the environment says that systemd opened it for this process.
pub(crate) fn first_inherited() -> OwnedFd {
    // SAFETY: the caller was told by LISTEN_PID and LISTEN_FDS that 3 was open when this process began, so nothing in it has
    // made or owns it; asked for once, and forgotten, not closed, if it turns out to be something else.
    unsafe { OwnedFd::from_raw_fd(3) }
}

/// Sets an integer socket option.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes from `value`, which lives through the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Tells the kernel to which of the `lanes` sockets that share a port with this one, in the order in which they were bound, a
/// datagram goes: the first for QUIC, else that of the lane in the envelope's second byte.
pub(crate) fn steer_by_lane(socket: BorrowedFd<'_>, lanes: u32) -> io::Result<()> {
    const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    // A load beyond the end of a short datagram ends the program with 0, the first socket.
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 2, 0, 0x40),
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 1),
        step(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        step(libc::BPF_LD | libc::BPF_IMM, 0, 0, 0),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, lanes),
        step(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel reads a sock_fprog and the steps that it points to, copies them, and keeps no pointer.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Binds a packet socket to an interface, and only now lets frames of every protocol in.
pub(crate) fn bind_packet(socket: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: all zeros is a valid sockaddr_ll, which is plain integers.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as c_int;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `address`, which lives through the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(())
}

/// Reads an integer socket option.
pub(crate) fn option(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`; both live through the call.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}

/// An address as the kernel wants it.
#[derive(Clone, Copy)]
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    /// `ipv6_socket`: the socket is of IPv6, and takes IPv4 addresses in their mapped form only.
    pub(crate) fn new(address: SocketAddr, ipv6_socket: bool) -> Self {
        // SAFETY: all zeros is a valid sockaddr_storage, which is plain integers.
        let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
        let address = match address {
            SocketAddr::V4(v4) if ipv6_socket => {
                SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
            }
            other => other,
        };
        let len = match address {
            SocketAddr::V4(v4) => {
                let to = (&raw mut storage).cast::<libc::sockaddr_in>();
                // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr.
                let to = unsafe { &mut *to };
                to.sin_family = libc::AF_INET as libc::sa_family_t;
                to.sin_port = v4.port().to_be();
                to.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let to = (&raw mut storage).cast::<libc::sockaddr_in6>();
                // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr.
                let to = unsafe { &mut *to };
                to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                to.sin6_port = v6.port().to_be();
                to.sin6_flowinfo = v6.flowinfo();
                to.sin6_addr.s6_addr = v6.ip().octets();
                to.sin6_scope_id = v6.scope_id();
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, len: len as libc::socklen_t }
    }

    /// IPv4 addresses in their mapped form come back as IPv4. `None` of another family.
    fn to_socket_addr(self) -> Option<SocketAddr> {
        let len = self.len as usize;
        match c_int::from(self.storage.ss_family) {
            libc::AF_INET if len >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in, and the storage is aligned for it.
                let from = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
                Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(from.sin_port))))
            }
            libc::AF_INET6 if len >= size_of::<libc::sockaddr_in6>() => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in6, and the storage is aligned for it.
                let from = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let (ip, port) = (Ipv6Addr::from(from.sin6_addr.s6_addr), u16::from_be(from.sin6_port));
                Some(match ip.to_ipv4_mapped() {
                    Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
                    None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, from.sin6_scope_id)),
                })
            }
            _ => None,
        }
    }
}

/// Sends `bytes` as one datagram, or as a train of datagrams of `segment` bytes of which the last may be shorter.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    to: &RawAddress,
    bytes: &[u8],
    segment: Option<u16>,
) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: all zeros is a valid msghdr: null pointers with lengths of zero.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw const to.storage).cast_mut().cast();
    message.msg_namelen = to.len;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(segment) = segment {
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, len) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
        message.msg_controllen = space as _;
        // SAFETY: `control` is aligned and large enough for one header and two bytes, and msg_controllen says so.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_UDP;
            (*header).cmsg_type = libc::UDP_SEGMENT;
            (*header).cmsg_len = len as _;
            libc::CMSG_DATA(header).cast::<u16>().write_unaligned(segment);
        }
    }
    // SAFETY: every pointer in `message` is to memory that lives through the call; the kernel only reads it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What one recvmsg brought: a datagram, or several of one sender that the kernel put together.
#[derive(Clone, Copy)]
pub(crate) struct Received {
    /// Bytes.
    pub len: usize,
    /// Length of every datagram but the last; `len` if it is one.
    pub segment: usize,
    /// The sender.
    pub from: Option<SocketAddr>,
    /// There was more than the buffer took.
    pub truncated: bool,
}

/// Receives into `buffer` without waiting.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut name = RawAddress { storage: unsafe { zeroed() }, len: 0 };
    // SAFETY: all zeros is a valid msghdr: null pointers with lengths of zero.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut name.storage).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _;
    // SAFETY: every pointer in `message` is to memory that lives through the call, writable, as long as it says.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    let len = len as usize;
    name.len = message.msg_namelen;
    let segment = received_segment(&message).filter(|s| (1..=len).contains(s)).unwrap_or(len);
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Received { len, segment, from: name.to_socket_addr(), truncated })
}

/// The UDP_GRO control message, if there is one.
fn received_segment(message: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled msg_control and msg_controllen; the macros stay inside of them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: `header` is not null, so it points to a whole control message header inside the buffer.
        let (level, kind, len) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        // SAFETY: CMSG_LEN only computes.
        let whole = len >= unsafe { libc::CMSG_LEN(size_of::<c_int>() as u32) } as usize;
        if level == libc::SOL_UDP && kind == libc::UDP_GRO && whole {
            // SAFETY: the message is long enough for an int, which need not be aligned.
            let value = unsafe { ptr::read_unaligned(libc::CMSG_DATA(header).cast::<c_int>()) };
            return usize::try_from(value).ok();
        }
        // SAFETY: as above; it returns null at the end of the buffer.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

/// File descriptors to wait for, kept from one wait to the next.
pub(crate) struct WaitList(Vec<libc::pollfd>);

impl WaitList {
    /// Waits for input on each. The caller keeps them open as long as the list is used: a number that was closed and given out
    /// again would wake it for another's input, no worse.
    pub(crate) fn new<'f>(fds: impl Iterator<Item = BorrowedFd<'f>>) -> Self {
        Self(fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect())
    }

    /// Sleeps until one of them has something, a signal came, or `limit` is over.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) {
        let ms = limit.map_or(-1, |l| c_int::try_from(l.as_millis() + 1).unwrap_or(c_int::MAX));
        // SAFETY: the pointer and the length are those of our own vector, which lives through the call.
        unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, ms) };
    }

    /// Whether the file descriptor `at` had something when [`Self::wait`] returned.
    pub(crate) fn is_ready(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|fd| fd.revents != 0)
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn addresses_go_round() {
        for text in ["192.0.2.1:6783", "[2001:db8::1]:6783", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::new(address, false).to_socket_addr(), Some(address));
            assert_eq!(RawAddress::new(address, true).to_socket_addr(), Some(address), "mapped and back");
        }
    }

    #[test]
    fn a_train_arrives_in_segments() {
        let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        set_option(to.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).unwrap();
        let bytes: Vec<u8> = (0..2500).map(|i| (i / 1000) as u8).collect();
        let address = RawAddress::new(to.local_addr().unwrap(), false);
        send(from.as_fd(), &address, &bytes, Some(1000)).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut got = Vec::new();
        to.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        to.peek(&mut [0]).unwrap();
        while let Ok(received) = receive(to.as_fd(), &mut buffer) {
            assert_eq!(received.from, from.local_addr().ok());
            assert!(!received.truncated);
            got.extend(buffer[..received.len].chunks(received.segment).map(<[u8]>::to_vec));
        }
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
        assert_eq!(got.concat(), bytes);
    }
}
