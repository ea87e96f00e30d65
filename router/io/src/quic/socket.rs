//! The socket under quinn. quinn knows a connection by a *virtual* address that never changes; here it is known which path that
//! stands for, and whether packets go bare or inside envelopes. Before there is a connection the virtual address is a keyed
//! hash of the real one and the peer's connection id, so that a Retry still proves the real address.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use aws_lc_rs::hmac;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use weft_router::drop::{DropCounters, DropReason};
use weft_router::session::Remote;

use crate::lane::{ControlChunk, LaneHandle};
use crate::tables::SendEpoch;

use super::packet::{Cid, Packet, source_cid};

/// Virtual addresses of handshakes that are no connection yet; when full the oldest is forgotten.
const EMBRYOS: usize = 256;
/// Packets that wait for quinn; when full they are dropped (`QuicQueueFull`).
const RECEIVE_QUEUE: usize = 1024;
/// Connection ids of ours that are learnt of one connection, from the long headers that we send.
const CIDS: usize = 4;
/// Connections between the same two addresses that a bare packet of unknown connection id is offered to.
const CANDIDATES: usize = 4;

/// Shared by quinn, by the pump of lane events, and by whoever holds connections.
pub(crate) struct VirtualSocket {
    lane: LaneHandle,
    drops: Arc<DropCounters>,
    secret: hmac::Key,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    bindings: HashMap<SocketAddr, Binding>,
    by_cid: HashMap<Cid, SocketAddr>,
    by_index: HashMap<u32, SocketAddr>,
    embryos: VecDeque<SocketAddr>,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

struct Binding {
    remote: Remote,
    cids: Vec<Cid>,
    indexes: Vec<u32>,
    sealed: Option<Arc<SendEpoch>>,
    held: bool,
}

/// Keeps a virtual address alive; it is forgotten with this.
pub(crate) struct Held {
    socket: Arc<VirtualSocket>,
    address: SocketAddr,
}

impl Held {
    /// What quinn knows the connection by.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection's bare packets go there from now on; those in envelopes go along the path of their epoch.
    pub(crate) fn set_remote(&self, remote: Remote) {
        if let Some(binding) = self.socket.lock().bindings.get_mut(&self.address) {
            binding.remote = remote;
        }
    }

    /// QUIC packets from envelopes under this index of ours belong to the connection.
    pub(crate) fn add_index(&self, index: u32) {
        let mut inner = self.socket.lock();
        if let Some(binding) = inner.bindings.get_mut(&self.address) {
            binding.indexes.push(index);
            inner.by_index.insert(index, self.address);
        }
    }

    /// Nothing comes under this index any more.
    pub(crate) fn remove_index(&self, index: u32) {
        let mut inner = self.socket.lock();
        if let Some(binding) = inner.bindings.get_mut(&self.address) {
            binding.indexes.retain(|i| *i != index);
            inner.by_index.remove(&index);
        }
    }

    /// From now on the connection's packets travel in envelopes of this epoch, and bare short-header packets are dropped.
    pub(crate) fn seal(&self, epoch: Arc<SendEpoch>) {
        if let Some(binding) = self.socket.lock().bindings.get_mut(&self.address) {
            binding.sealed = Some(epoch);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.socket.lock().forget(self.address);
    }
}

impl VirtualSocket {
    /// `secret` is random: nobody else can tell virtual addresses beforehand.
    pub(crate) fn new(lane: LaneHandle, drops: Arc<DropCounters>, secret: [u8; 32]) -> Arc<Self> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Arc::new(Self { lane, drops, secret, inner: Mutex::default() })
    }

    /// A virtual address for a dial; `nonce` is never used twice.
    pub(crate) fn dial(self: &Arc<Self>, remote: Remote, nonce: u64) -> Held {
        let address = self.virtual_address(b"dial", remote, &nonce.to_be_bytes());
        self.lock().bindings.insert(address, Binding::new(remote, true));
        Held { socket: Arc::clone(self), address }
    }

    /// Keeps the virtual address of an incoming handshake; `None` if it is forgotten already.
    pub(crate) fn hold(self: &Arc<Self>, address: SocketAddr) -> Option<Held> {
        let mut inner = self.lock();
        let binding = inner.bindings.get_mut(&address).filter(|b| !b.held)?;
        binding.held = true;
        inner.embryos.retain(|a| *a != address);
        Some(Held { socket: Arc::clone(self), address })
    }

    /// What a virtual address stands for.
    pub(crate) fn remote(&self, address: SocketAddr) -> Option<Remote> {
        self.lock().bindings.get(&address).map(|b| b.remote)
    }

    /// A QUIC packet came outside an envelope.
    pub(crate) fn bare(&self, from: Remote, bytes: Vec<u8>) {
        let mut inner = self.lock();
        let found = match Packet::read(&bytes) {
            Ok(Packet::Short { to }) => inner.bare_connections(&to, from),
            Ok(Packet::Long { to, from: source, initial }) => {
                match to.and_then(|cid| inner.by_cid.get(&cid)) {
                    Some(address) => Ok(vec![*address]),
                    None if initial => {
                        let address = self.virtual_address(b"from", from, source);
                        inner.embryo(address, from);
                        Ok(vec![address])
                    }
                    None => Err(DropReason::BareUnknown),
                }
            }
            Err(reason) => Err(reason),
        };
        match found {
            Ok(addresses) => {
                for address in addresses {
                    self.deliver(&mut inner, address, bytes.clone());
                }
                inner.wake();
            }
            Err(reason) => self.drops.count(reason),
        }
    }

    /// A QUIC packet came in an authentic envelope under an index of ours.
    pub(crate) fn enveloped(&self, index: u32, bytes: Vec<u8>) {
        let mut inner = self.lock();
        match inner.by_index.get(&index).copied() {
            Some(address) => self.deliver(&mut inner, address, bytes),
            None => self.drops.count(DropReason::ConnectionGone),
        }
        inner.wake();
    }

    fn deliver(&self, inner: &mut Inner, address: SocketAddr, bytes: Vec<u8>) {
        if inner.queue.len() >= RECEIVE_QUEUE {
            self.drops.count(DropReason::QuicQueueFull);
        } else {
            inner.queue.push_back((address, bytes));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn virtual_address(&self, purpose: &[u8; 4], remote: Remote, cid: &[u8]) -> SocketAddr {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(purpose);
        match remote {
            Remote::Udp(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                context.update(b"u");
                context.update(&ip.octets());
                context.update(&address.port().to_be_bytes());
            }
            Remote::Tcp(stream) => {
                context.update(b"t");
                context.update(&stream.0.to_be_bytes());
            }
            Remote::Relayed { by, host } => {
                context.update(b"r");
                context.update(&by.0);
                context.update(&host.0);
            }
        }
        context.update(cid);
        let tag = context.sign();
        let mut octets = [0xfd; 16]; // fd00::/8, which is nobody's
        octets[1..].copy_from_slice(&tag.as_ref()[..15]);
        SocketAddr::from((Ipv6Addr::from(octets), 6783))
    }
}

impl Binding {
    fn new(remote: Remote, held: bool) -> Self {
        Self { remote, cids: Vec::new(), indexes: Vec::new(), sealed: None, held }
    }
}

impl Inner {
    /// Which connections a bare short-header packet may be for. A server moves to another of our connection ids at once, and
    /// quinn tells nobody which ids it has issued for which connection: then it may be for any that goes there. quinn itself
    /// knows the id, and the others drop the packet unread, since it comes from another virtual address than theirs.
    fn bare_connections(&self, to: &Cid, from: Remote) -> Result<Vec<SocketAddr>, DropReason> {
        let (mut found, mut enveloped) = (Vec::new(), false);
        let known = self.by_cid.get(to).and_then(|address| self.bindings.get_key_value(address));
        let there = self.bindings.iter().filter(|(_, b)| known.is_none() && b.held && b.remote == from);
        for (address, binding) in known.into_iter().chain(there) {
            if binding.sealed.is_some() {
                enveloped = true;
            } else if found.len() < CANDIDATES {
                found.push(*address);
            }
        }
        match (found.is_empty(), enveloped) {
            (false, _) => Ok(found),
            (true, true) => Err(DropReason::BareAfterEnvelope),
            (true, false) => Err(DropReason::BareUnknown),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn embryo(&mut self, address: SocketAddr, remote: Remote) {
        if self.bindings.contains_key(&address) {
            return;
        }
        if self.embryos.len() >= EMBRYOS
            && let Some(oldest) = self.embryos.pop_front()
        {
            self.forget(oldest);
        }
        self.embryos.push_back(address);
        self.bindings.insert(address, Binding::new(remote, false));
    }

    fn forget(&mut self, address: SocketAddr) {
        if let Some(binding) = self.bindings.remove(&address) {
            for cid in &binding.cids {
                self.by_cid.remove(cid);
            }
            for index in &binding.indexes {
                self.by_index.remove(index);
            }
        }
    }

    fn learn(&mut self, address: SocketAddr, cid: Cid) {
        if let Some(binding) = self.bindings.get_mut(&address)
            && binding.cids.len() < CIDS
            && !binding.cids.contains(&cid)
        {
            binding.cids.push(cid);
            self.by_cid.insert(cid, address);
        }
    }
}

impl AsyncUdpSocket for VirtualSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    /// Never fails and never waits: what the socket does not take is lost, as on any wire, and QUIC sends it again.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut inner = self.lock();
        if let Some(cid) = source_cid(transmit.contents) {
            inner.learn(transmit.destination, cid);
        }
        let Some(binding) = inner.bindings.get(&transmit.destination) else {
            self.drops.count(DropReason::ConnectionGone);
            return Ok(());
        };
        let (remote, sealed) = (binding.remote, binding.sealed.clone());
        drop(inner);
        match sealed {
            Some(epoch) => {
                self.lane.send_sealed(&epoch, ControlChunk::Quic(transmit.contents.to_vec()));
            }
            None => {
                if let Err(error) = self.lane.send_bare(remote, transmit.contents) {
                    tracing::debug!(?remote, %error, "bare QUIC packet not sent");
                }
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let mut filled = 0;
        while filled < buffers.len().min(meta.len())
            && let Some((address, bytes)) = inner.queue.pop_front()
        {
            let Some(buffer) = buffers[filled].get_mut(..bytes.len()) else {
                self.drops.count(DropReason::Truncated);
                continue;
            };
            buffer.copy_from_slice(&bytes);
            meta[filled] =
                RecvMeta { addr: address, len: bytes.len(), stride: bytes.len(), ecn: None, dst_ip: None };
            filled += 1;
        }
        if filled > 0 {
            return Poll::Ready(Ok(filled));
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv6Addr::LOCALHOST, 6783)))
    }
}

impl fmt::Debug for VirtualSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VirtualSocket")
    }
}

/// What is sent never waits.
#[derive(Debug)]
pub(crate) struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
