//! The sockets of the lanes. All receive on the one port, where the kernel gives each datagram to the lane that its envelope
//! names; lane 0 sends from it too, each other lane from a port of its own (PROTOCOL 4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Socket, Type};

use crate::sys;

/// Lanes of a host. Peers take 64; more than this were never measured.
pub const MAX_LANES: usize = 16;

/// Bytes of a socket's buffers: what a burst of all lanes of a peer needs while the thread is elsewhere.
const SOCKET_BUFFER: i32 = 7 << 20;
/// Nobody answers to a lane's own port, so what comes there only takes room.
const UNREAD_BUFFER: i32 = 1;

/// What a lane receives on and sends from.
pub(super) struct Sockets {
    /// On the one port.
    pub receive: UdpSocket,
    /// On a port of its own; lane 0 has none.
    pub own: Option<UdpSocket>,
    /// Whether the kernel puts received datagrams together (UDP_GRO).
    pub gro: bool,
}

impl Sockets {
    /// Makes ready a set that [`listen`] bound, in its order.
    pub(super) fn of_each(bound: Vec<UdpSocket>) -> io::Result<Vec<Self>> {
        let lanes = bound.len();
        bound.into_iter().enumerate().map(|(lane, socket)| Self::new(lane, lanes, socket)).collect()
    }

    fn new(lane: usize, lanes: usize, receive: UdpSocket) -> io::Result<Self> {
        let address = receive.local_addr()?;
        let gro = prepare(&receive, address.is_ipv6())?;
        if lane == 0 && lanes > 1 {
            // Without it the kernel spreads by a hash of the addresses, which is right too, only less even.
            if let Err(error) = sys::steer_by_lane(receive.as_fd(), lanes as u32) {
                tracing::debug!(%error, "datagrams are not steered to their lanes");
            }
        }
        let own = (lane > 0).then(|| own_port(address)).transpose()?;
        Ok(Self { receive, own, gro })
    }

    /// What envelopes of the lane are sent from.
    pub(super) fn send(&self) -> &UdpSocket {
        self.own.as_ref().unwrap_or(&self.receive)
    }
}

/// Binds `lanes` sockets, at least one and at most [`MAX_LANES`], to one address. Port 0 takes a free one for all.
pub fn listen(address: SocketAddr, lanes: usize) -> io::Result<Vec<UdpSocket>> {
    let lanes = lanes.clamp(1, MAX_LANES);
    // SO_REUSEPORT would let a second process join in: the first bind is without it.
    let address = bind(address, false)?.local_addr()?;
    (0..lanes).map(|_| bind(address, lanes > 1)).collect()
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from(socket))
}

fn own_port(listens: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match listens.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = bind(SocketAddr::new(any, 0), false)?;
    prepare(&socket, listens.is_ipv6())?;
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, UNREAD_BUFFER)?;
    Ok(socket)
}

/// Socket options; returns whether the kernel puts datagrams together (UDP_GRO).
fn prepare(socket: &UdpSocket, ipv6: bool) -> io::Result<bool> {
    let fd = socket.as_fd();
    socket.set_nonblocking(true)?;
    // PMTUDISC_PROBE: never fragmented on the way, and the kernel's own idea of the path does not count; the path MTU is ours.
    if ipv6 {
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    // An IPv6 socket that takes IPv4 too has both options; one that does not refuses the second.
    let v4 = sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
    if !ipv6 {
        v4?;
    }
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        sys::set_option(fd, libc::SOL_SOCKET, force, SOCKET_BUFFER)
            .or_else(|_| sys::set_option(fd, libc::SOL_SOCKET, plain, SOCKET_BUFFER))?;
    }
    Ok(sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn datagrams_go_to_the_lane_that_they_name() {
        let lanes = Sockets::of_each(listen("127.0.0.1:0".parse().unwrap(), 3).unwrap()).unwrap();
        let to = lanes[0].receive.local_addr().unwrap();
        for lane in &lanes {
            lane.receive.set_nonblocking(false).unwrap();
            lane.receive.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        // kind, lane; and QUIC, whose second byte means something else, or a byte alone.
        let cases: [(&[u8], usize); 6] = [
            (&[1, 0, 9], 0),
            (&[1, 1, 9], 1),
            (&[1, 2, 9], 2),
            (&[1, 4, 9], 1),
            (&[0xc0, 1, 9], 0),
            (&[1], 0),
        ];
        for (datagram, lane) in cases {
            from.send_to(datagram, to).unwrap();
            let mut buffer = [0; 16];
            let len = lanes[lane].receive.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], datagram);
        }
    }

    #[test]
    fn nobody_else_gets_the_port() {
        let ours = listen("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let error = listen(ours[0].local_addr().unwrap(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
