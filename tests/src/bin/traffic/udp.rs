//! Datagrams: an echo, and what must come back from it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::Outcome;

/// A datagram that is not echoed within this time is sent again; UDP may lose one.
const PATIENCE: Duration = Duration::from_millis(500);
const TRIES: usize = 6;
/// The largest UDP payload over IPv4.
const LARGEST: usize = 65507;

pub fn serve(at: SocketAddr) -> Outcome {
    let socket = UdpSocket::bind(at)?;
    let mut buffer = vec![0; LARGEST + 1];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

pub fn sizes(to: SocketAddr, mtu: usize) -> Outcome {
    let socket = connected(to)?;
    let mut wanted: BTreeSet<usize> = (1..=3000).collect();
    let per_fragment = (mtu - if to.is_ipv4() { 20 } else { 48 }) / 8 * 8;
    for boundary in (per_fragment..LARGEST + 8).step_by(per_fragment) {
        wanted.extend([boundary - 9, boundary - 8, boundary - 7]);
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    wanted.extend((0..500).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        3001 + (random % (LARGEST as u64 - 3000)) as usize
    }));
    wanted.insert(LARGEST);
    wanted.retain(|&size| size <= LARGEST);
    let mut again = 0;
    for &size in &wanted {
        let body: Vec<u8> = (0..size).map(|i| (i * 31 + size) as u8).collect();
        again += echoed(&socket, &body)?;
    }
    println!("{} sizes came back, {again} sent again", wanted.len());
    if again > wanted.len() / 20 { Err("more than one in twenty was lost".into()) } else { Ok(()) }
}

pub fn pattern(to: SocketAddr, text: &str, count: usize) -> Outcome {
    let socket = connected(to)?;
    let body = text.repeat(1200 / text.len());
    let mut again = 0;
    for _ in 0..count {
        again += echoed(&socket, body.as_bytes())?;
    }
    println!("{count} came back, {again} sent again");
    Ok(())
}

pub fn listen(at: SocketAddr, seconds: u64) -> Outcome {
    let end = Instant::now() + Duration::from_secs(seconds);
    let any = match at {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, at.port()))?;
    match at.ip() {
        IpAddr::V4(group) if group.is_multicast() => {
            socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?
        }
        IpAddr::V6(group) if group.is_multicast() => socket.join_multicast_v6(&group, 0)?,
        _ => {}
    }
    println!("listening");
    let mut buffer = [0; 2048];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            println!("{} from {}", String::from_utf8_lossy(&buffer[..len]), from.ip());
        }
    }
    Ok(())
}

pub fn send(to: SocketAddr, text: &str) -> Outcome {
    let socket = UdpSocket::bind(unspecified(to))?;
    socket.set_broadcast(true)?;
    socket.send_to(text.as_bytes(), to)?;
    Ok(())
}

fn connected(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(unspecified(to))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// Sends until the same bytes come back; how often it had to be sent again.
fn echoed(socket: &UdpSocket, body: &[u8]) -> Result<usize, Box<dyn std::error::Error>> {
    let mut buffer = vec![0; LARGEST + 1];
    for tried in 0..TRIES {
        socket.send(body)?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let Ok(len) = socket.recv(&mut buffer) else { break };
            if buffer[..len] == *body {
                return Ok(tried);
            }
            if len == body.len() {
                return Err(format!("a datagram of {len} bytes came back changed").into());
            }
        }
    }
    Err(format!("a datagram of {} bytes never came back", body.len()).into())
}
