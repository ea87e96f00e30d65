//! The keys of connections: made from the exporter, handed to the lane, forgotten.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::sync::Notify;
use weft_api::id::HostId;
use weft_router::seal::{Chain, Direction};
use weft_router::session::{ConnectionId, Path, Why};
use zeroize::Zeroizing;

use super::engine::{Engine, State, close};
use crate::quic::socket::Held;
use crate::sys;
use crate::tables::{self, ReceiveEpoch, SendEpoch};

/// What the exporter of a connection is asked for (PROTOCOL 2).
const EXPORTER_LABEL: &[u8] = b"weft data v1";
/// What the underlay is taken to pass where the route allows it; more only when paths are probed.
const UNDERLAY_MTU: u16 = 1500;
/// Bytes of IP and UDP headers in front of a datagram.
const HEADERS_V4: u16 = 28;
const HEADERS_V6: u16 = 48;

/// A connection whose peer is proven.
pub(super) struct Live {
    pub connection: quinn::Connection,
    pub held: Arc<Held>,
    pub host: HostId,
    pub ours: bool,
    pub closed: bool,
    pub keys: Option<Keys>,
    pub writer: Arc<Notify>,
}

/// The keys of a connection. The chain stays: rekeying begins from it.
pub(super) struct Keys {
    pub chain: Chain,
    pub receive: Arc<ReceiveEpoch>,
    pub send: Option<Arc<SendEpoch>>,
}

impl Engine {
    pub(super) fn install_receive(&self, state: &mut State, id: ConnectionId, index: u32) -> bool {
        let Some(live) = state.live.get_mut(&id) else { return false };
        let (dialler, listener) = if live.ours { (self.me, live.host) } else { (live.host, self.me) };
        let context = [&self.mesh.mesh.0[..], &dialler.0, &listener.0].concat();
        let mut secret = Zeroizing::new([0; 32]);
        if live.connection.export_keying_material(&mut *secret, EXPORTER_LABEL, &context).is_err() {
            close(&live.connection, Why::Garbled);
            return false;
        }
        let chain = Chain::first(&secret);
        let key = chain.open_key(self.mesh.cipher, direction(!live.ours));
        let receive = Arc::new(ReceiveEpoch::new(live.host, index, key));
        live.held.add_index(index);
        live.keys = Some(Keys { chain, receive: Arc::clone(&receive), send: None });
        state.tables.receives.insert(index, receive);
        self.publish(state);
        false
    }

    pub(super) fn install_send(&self, state: &mut State, id: ConnectionId, index: u32, path: Path) {
        let Some(live) = state.live.get_mut(&id) else { return };
        let Some(keys) = &mut live.keys else { return };
        let key = keys.chain.seal_key(self.mesh.cipher, direction(live.ours));
        keys.send = Some(Arc::new(SendEpoch::new(live.host, index, key, passable(path))));
        let receive = keys.receive.index();
        self.envelope_if_ready(state, receive);
    }

    /// The connection goes along another path from now on.
    pub(super) fn set_path(&self, state: &State, id: ConnectionId, path: Path) {
        let Some(live) = state.live.get(&id) else { return };
        live.held.set_remote(path.to(live.host));
        if let Some(send) = live.keys.as_ref().and_then(|k| k.send.as_ref()) {
            send.set_path(passable(path));
        }
    }

    /// QUIC goes into envelopes as soon as the peer has shown that it seals, and we can.
    pub(super) fn envelope_if_ready(&self, state: &State, index: u32) {
        let mine = |l: &&Live| l.keys.as_ref().is_some_and(|k| k.receive.index() == index);
        if let Some(live) = state.live.values().find(mine)
            && let Some(Keys { receive, send: Some(send), .. }) = &live.keys
            && receive.is_authentic()
        {
            live.held.seal(Arc::clone(send));
        }
    }

    pub(super) fn use_connection(&self, state: &mut State, host: HostId, id: ConnectionId) -> bool {
        let Some(live) = state.live.get(&id) else { return false };
        let Some(send) = live.keys.as_ref().and_then(|k| k.send.clone()) else { return false };
        self.store.connected(host, id, Arc::clone(&live.writer));
        state.tables.sends.insert(host, send);
        true
    }

    pub(super) fn erase(&self, state: &mut State, id: ConnectionId) -> bool {
        let Some(live) = state.live.remove(&id) else { return false };
        let Some(keys) = live.keys else { return false };
        state.past.entry(live.host).or_default().add_keys(&keys);
        state.tables.receives.remove(&keys.receive.index());
        let used = state.tables.sends.get(&live.host);
        if used.is_some_and(|used| keys.send.as_ref().is_some_and(|s| Arc::ptr_eq(s, used))) {
            state.tables.sends.remove(&live.host);
        }
        true
    }
}

/// The path and what it passes; `None` if nothing does.
fn passable(path: Path) -> Option<tables::Path> {
    let Path::Udp(address) = path else { return None };
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let headers = if address.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    Some(tables::Path { way: Path::Udp(address), datagram: underlay_mtu(address) - headers })
}

/// The MTU of the kernel's route to `address`, within what IPv6 guarantees (RFC 8200 5) and [`UNDERLAY_MTU`].
fn underlay_mtu(address: SocketAddr) -> u16 {
    let (any, level, name) = match address {
        SocketAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    // Connecting a UDP socket sends nothing; it looks the route up.
    let asked = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        sys::option(socket.as_fd(), level, name)
    });
    asked.ok().and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(UNDERLAY_MTU).clamp(1280, UNDERLAY_MTU)
}

fn direction(from_dialler: bool) -> Direction {
    if from_dialler { Direction::FromDialler } else { Direction::FromListener }
}
