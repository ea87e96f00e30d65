//! One lane with fixed keys, for measuring: `lane_bench TAP LOCAL:PORT REMOTE:PORT SIDE [CIPHER]`, SIDE 0 here and 1 there.
//! The endpoint of side n is 10.88.n.2 with the MAC of that address; the tap is for the caller to put on a bridge.

use std::collections::HashMap;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use weft_api::id::{HostId, Mac, NetworkId};
use weft_api::roster::Cipher;
use weft_router::seal::{Chain, Direction};
use weft_router::switch::{Owner, Table};
use weft_router_io::lane::LaneHandle;
use weft_router_io::tables::{Path, ReceiveEpoch, SendEpoch, Tables};
use weft_router_io::tap::TapQueue;

const NETWORK: NetworkId = NetworkId(0x58);
const DATAGRAM: u16 = 1472;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [tap, local, remote, side, cipher @ ..] = &words[..] else {
        return Err("usage: lane_bench TAP LOCAL:PORT REMOTE:PORT SIDE [CIPHER]".into());
    };
    let (local, remote): (SocketAddr, SocketAddr) = (local.parse()?, remote.parse()?);
    let side: u8 = side.parse()?;
    let cipher: Cipher = cipher.first().map_or(Ok(Cipher::Aegis128L), |c| c.parse())?;
    let mtu = std::env::var("MTU").map_or(Ok(1340), |m| m.parse())?;

    let (lane, mut events) = LaneHandle::start(vec![UdpSocket::bind(local)?])?;
    lane.set_tables(Arc::new(tables(remote, side, cipher, mtu)));
    lane.attach_tap(NETWORK, vec![TapQueue::open(tap)?]);
    println!("{:?}", lane.offloads());
    while let Some(event) = events.blocking_recv() {
        println!("{event:?} drops {:?}", lane.drops().by_label());
    }
    Ok(())
}

fn tables(remote: SocketAddr, side: u8, cipher: Cipher, mtu: u16) -> Tables {
    let chain = Chain::first(&[0x58; 32]);
    let other = HostId([1 - side; 8]);
    let (ours, theirs) = match side {
        0 => (Direction::FromDialler, Direction::FromListener),
        _ => (Direction::FromListener, Direction::FromDialler),
    };
    let (here, there) = (u32::from(side), u32::from(1 - side));
    let path = Path { way: weft_router::session::Path::Udp(remote), datagram: DATAGRAM };
    let send = SendEpoch::new(other, there, chain.seal_key(cipher, ours), Some(path));
    let receive = ReceiveEpoch::new(other, here, chain.open_key(cipher, theirs));

    let mut table = Table::new(NETWORK, mtu, Vec::new());
    table.hosts.insert(other);
    for (n, owner) in [(side, Owner::Here), (1 - side, Owner::Host(other))] {
        let ip = Ipv4Addr::new(10, 88, n, 2);
        table.add_endpoint(Mac::of_ipv4(ip), &[IpAddr::V4(ip)], owner);
    }
    Tables {
        sends: HashMap::from([(other, Arc::new(send))]),
        receives: HashMap::from([(here, Arc::new(receive))]),
        networks: HashMap::from([(NETWORK, Arc::new(table))]),
        ..Tables::default()
    }
}
