//! The keys of connections: made from the exporter and from fresh X25519 keys, handed to the lane, forgotten.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use weft_api::id::{HostId, HostKey};
use weft_router::drop::DropReason;
use weft_router::session::message::Message;
use weft_router::session::mtu;
use weft_router::session::{ConnectionId, Path, Rekey, Share, Why};
use zeroize::Zeroizing;

use super::engine::{Engine, State, close};
use crate::quic::secrets::{EXPORTER_LABEL, Secrets};
use crate::quic::socket::Held;
use crate::sys;
use crate::tables::{self, ReceiveEpoch, SendEpoch};

/// Bytes of IP and UDP headers in front of a datagram.
const HEADERS_V4: u16 = 28;
const HEADERS_V6: u16 = 48;

/// A connection whose peer has proven its key.
pub(super) struct Live {
    pub connection: quinn::Connection,
    pub held: Arc<Held>,
    pub key: HostKey,
    pub host: HostId,
    pub ours: bool,
    pub closed: bool,
    pub keys: Option<Keys>,
    pub writer: Arc<Notify>,
    /// It is a member's.
    pub greeted: Arc<Notify>,
    /// What the session layer says, on the control stream.
    pub tell: mpsc::Sender<Message>,
}

/// The keys of a connection.
pub(super) struct Keys {
    secrets: Secrets,
    /// What envelopes may come under, the newest last.
    pub receives: Vec<Arc<ReceiveEpoch>>,
    pub send: Option<Arc<SendEpoch>>,
}

impl Keys {
    fn new(secrets: Secrets) -> Self {
        Self { secrets, receives: Vec::new(), send: None }
    }

    fn opens(&self, index: u32) -> bool {
        self.receives.iter().any(|r| r.index() == index)
    }
}

impl Engine {
    pub(super) fn install_receive(&self, state: &mut State, id: ConnectionId, index: u32) {
        let Some(live) = state.live.get_mut(&id).filter(|l| !l.closed) else { return };
        let keys = match &mut live.keys {
            Some(keys) => keys,
            none => {
                let (dialler, listener) = if live.ours { (self.me, live.host) } else { (live.host, self.me) };
                let context = Secrets::context(self.mesh.mesh, dialler, listener);
                let mut secret = Zeroizing::new([0; 32]);
                if live.connection.export_keying_material(&mut *secret, EXPORTER_LABEL, &context).is_err() {
                    return close(&live.connection, Why::Garbled);
                }
                none.insert(Keys::new(Secrets::first(&secret)))
            }
        };
        let key = keys.secrets.open_key(self.mesh.cipher, live.ours);
        let receive = Arc::new(ReceiveEpoch::new(live.host, index, key));
        keys.receives.last().into_iter().for_each(|before| receive.follow(before));
        live.held.add_index(index);
        keys.receives.push(Arc::clone(&receive));
        state.tables.receives.insert(index, receive);
        // At once: what is said to the peer next may make it seal for this index.
        self.publish(state);
    }

    /// Whether the lane's tables have changed.
    pub(super) fn install_send(&self, state: &mut State, id: ConnectionId, index: u32, path: Path) -> bool {
        let Some(live) = state.live.get_mut(&id).filter(|l| !l.closed) else { return false };
        let Some(keys) = &mut live.keys else { return false };
        let key = keys.secrets.seal_key(self.mesh.cipher, live.ours);
        let send = match &keys.send {
            None => SendEpoch::new(live.host, index, key, Some(unprobed(path))),
            Some(before) => {
                let send = SendEpoch::new(live.host, index, key, None);
                send.follow(before);
                send
            }
        };
        let send = Arc::new(send);
        let before = keys.send.replace(Arc::clone(&send));
        if keys.receives.iter().any(|r| r.is_authentic()) {
            live.held.seal(Arc::clone(&send));
        }
        let Some(before) = before else { return false };
        state.past.entry(live.host).or_default().add_sent(&before);
        let used = state.tables.sends.get_mut(&live.host).filter(|used| Arc::ptr_eq(used, &before));
        used.map(|used| *used = send).is_some()
    }

    pub(super) fn offer_keys(&self, state: &mut State, id: ConnectionId, epoch: u32, index: u32) {
        let Some(Live { keys: Some(keys), connection, .. }) = state.live.get_mut(&id) else { return };
        if keys.secrets.offer().is_err() {
            return close(connection, Why::Garbled);
        }
        let share = Share { epoch, index, public: keys.secrets.public() };
        self.tell(state, id, Message::Rekey(Rekey::Offer(share)));
    }

    pub(super) fn next_chain(&self, state: &mut State, id: ConnectionId, theirs: &[u8; 32]) {
        let Some(live) = state.live.get_mut(&id) else { return };
        let Some(keys) = &mut live.keys else { return };
        if keys.secrets.advance(theirs).is_err() {
            // A point of small order, which no honest host has (RFC 7748 6.1). Nothing further is made of the old chain.
            self.drops.count(DropReason::RekeyOutOfTurn);
            live.closed = true;
            close(&live.connection, Why::Garbled);
        }
    }

    pub(super) fn answer_keys(&self, state: &State, id: ConnectionId, epoch: u32, index: u32) {
        if let Some(Live { keys: Some(keys), closed: false, .. }) = state.live.get(&id) {
            let share = Share { epoch, index, public: keys.secrets.public() };
            self.tell(state, id, Message::Rekey(Rekey::Answer(share)));
        }
    }

    /// Says this on the control stream. The session layer has so little to say at a time that there is always room.
    pub(super) fn tell(&self, state: &State, id: ConnectionId, what: Message) {
        if let Some(live) = state.live.get(&id)
            && let Err(refused) = live.tell.try_send(what)
        {
            tracing::debug!(?id, ?refused, "a closing connection is not told");
        }
    }

    pub(super) fn erase_receive(&self, state: &mut State, id: ConnectionId, index: u32) {
        let Some(Live { keys: Some(keys), held, host, .. }) = state.live.get_mut(&id) else { return };
        let Some(at) = keys.receives.iter().position(|r| r.index() == index) else { return };
        state.past.entry(*host).or_default().add_received(&keys.receives.remove(at));
        held.remove_index(index);
        state.tables.receives.remove(&index);
        state.tables.expired.add(index);
    }

    /// The connection goes along another path from now on.
    pub(super) fn set_path(&self, state: &State, id: ConnectionId, path: Path) {
        let Some(live) = state.live.get(&id) else { return };
        live.held.set_remote(path.to(live.host));
        if let Some(send) = live.keys.as_ref().and_then(|k| k.send.as_ref()) {
            send.set_path(Some(unprobed(path)));
        }
    }

    /// An authentic envelope came under this index: QUIC goes into envelopes as soon as the peer has shown that it seals, and we can.
    pub(super) fn envelope_if_ready(&self, state: &State, index: u32) {
        let mine = |l: &&Live| l.keys.as_ref().is_some_and(|k| k.opens(index));
        if let Some(live) = state.live.values().find(mine)
            && let Some(Keys { send: Some(send), .. }) = &live.keys
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
        keys.receives.iter().for_each(|r| drop(state.tables.receives.remove(&r.index())));
        let used = state.tables.sends.get(&live.host);
        if used.is_some_and(|used| keys.send.as_ref().is_some_and(|s| Arc::ptr_eq(s, used))) {
            state.tables.sends.remove(&live.host);
        }
        true
    }
}

/// The path, and what it passes whatever lies between.
fn unprobed(path: Path) -> tables::Path {
    let way = match path {
        Path::Udp(address) => Path::Udp(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Path::Tcp(_) | Path::Relay(_) => path,
    };
    tables::Path { way, datagram: mtu::floor(way) }
}

/// The longest datagram that the kernel's route along `path` takes, as far as it knows.
pub(super) fn route_takes(path: Path) -> Option<u16> {
    let Path::Udp(address) = path else { return None };
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let (any, level, name, headers) = match address {
        SocketAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), libc::IPPROTO_IP, libc::IP_MTU, HEADERS_V4),
        SocketAddr::V6(_) => {
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), libc::IPPROTO_IPV6, libc::IPV6_MTU, HEADERS_V6)
        }
    };
    // Connecting a UDP socket sends nothing; it looks the route up.
    let asked = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        sys::option(socket.as_fd(), level, name)
    });
    asked.ok().and_then(|mtu| u16::try_from(mtu).ok())?.checked_sub(headers)
}
