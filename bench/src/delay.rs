//! An underlay with a round trip: hosts that cannot reach each other find each other at far addresses of the switch, where
//! datagrams rest a while before they go on, from the sender's own far address.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::probe::READY;

/// What a far address adds to a host's number.
pub const FAR: u8 = 100;
/// The one port.
const PORT: u16 = 6783;
/// Datagrams that rest on the way to one host; a further one is lost.
const QUEUE: usize = 4096;

/// Carries until killed. Between the hosts of `without` nothing passes.
pub fn run(one_way: Duration, hosts: u8, without: Option<(u8, u8)>) -> anyhow::Result<()> {
    let far = |n: u8| SocketAddr::from((Ipv4Addr::new(192, 0, 2, FAR + n), PORT));
    let sockets: Vec<UdpSocket> = (1..=hosts).map(|n| UdpSocket::bind(far(n))).collect::<io::Result<_>>()?;
    let sockets = Arc::new(sockets);
    println!("{READY}");
    io::stdout().flush()?;
    let mut threads = Vec::new();
    for to in 1..=hosts {
        let (send, rests) = mpsc::sync_channel::<(Instant, u8, Vec<u8>)>(QUEUE);
        let (receiving, sending) = (Arc::clone(&sockets), Arc::clone(&sockets));
        threads.push(thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok((len, from)) = receiving[usize::from(to) - 1].recv_from(&mut buffer) {
                let Some(from) = number(from.ip(), hosts) else { continue };
                if without.is_some_and(|(a, b)| [(a, b), (b, a)].contains(&(from, to))) {
                    continue;
                }
                // Full: lost, as on any wire.
                let _lost = send.try_send((Instant::now() + one_way, from, buffer[..len].to_vec()));
            }
        }));
        threads.push(thread::spawn(move || {
            for (due, from, datagram) in rests {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // A host that is not there: lost.
                let _lost =
                    sending[usize::from(from) - 1].send_to(&datagram, (Ipv4Addr::new(192, 0, 2, to), PORT));
            }
        }));
    }
    threads.into_iter().for_each(|t| drop(t.join()));
    Ok(())
}

fn number(address: IpAddr, hosts: u8) -> Option<u8> {
    let IpAddr::V4(address) = address else { return None };
    let [192, 0, 2, n] = address.octets() else { return None };
    (1..=hosts).contains(&n).then_some(n)
}
