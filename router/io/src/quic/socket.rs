//! The socket under quinn: packets out along the path that their virtual address stands for, bare or sealed by a lane; packets in
//! from the pump of lane events.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use weft_router::drop::{DropCounters, DropReason};
use weft_router::session::Remote;

use super::bindings::Bindings;
use crate::lane::{ControlChunk, LaneHandle};
use crate::tables::SendEpoch;

/// Packets that wait for quinn; when full they are dropped (`QuicQueueFull`).
const RECEIVE_QUEUE: usize = 1024;

/// Shared by quinn, by the pump of lane events, and by whoever holds connections.
pub(crate) struct VirtualSocket {
    lane: LaneHandle,
    drops: Arc<DropCounters>,
    inner: Mutex<Inner>,
}

struct Inner {
    bindings: Bindings<Arc<SendEpoch>>,
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
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

    /// [`Bindings::set_remote`].
    pub(crate) fn set_remote(&self, remote: Remote) {
        self.socket.lock().bindings.set_remote(self.address, remote);
    }

    /// [`Bindings::add_index`].
    pub(crate) fn add_index(&self, index: u32) {
        self.socket.lock().bindings.add_index(self.address, index);
    }

    /// [`Bindings::remove_index`].
    pub(crate) fn remove_index(&self, index: u32) {
        self.socket.lock().bindings.remove_index(self.address, index);
    }

    /// [`Bindings::seal`].
    pub(crate) fn seal(&self, epoch: Arc<SendEpoch>) {
        self.socket.lock().bindings.seal(self.address, epoch);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.socket.lock().bindings.forget(self.address);
    }
}

impl VirtualSocket {
    /// `secret` is random: nobody else can tell virtual addresses beforehand.
    pub(crate) fn new(lane: LaneHandle, drops: Arc<DropCounters>, secret: [u8; 32]) -> Arc<Self> {
        let inner = Inner { bindings: Bindings::new(secret), queue: VecDeque::new(), waker: None };
        Arc::new(Self { lane, drops, inner: Mutex::new(inner) })
    }

    /// A virtual address for a dial; `nonce` is never used twice.
    pub(crate) fn dial(self: &Arc<Self>, remote: Remote, nonce: u64) -> Held {
        let address = self.lock().bindings.dial(remote, nonce);
        Held { socket: Arc::clone(self), address }
    }

    /// Keeps the virtual address of an incoming handshake; `None` if it is forgotten already.
    pub(crate) fn hold(self: &Arc<Self>, address: SocketAddr) -> Option<Held> {
        let held = self.lock().bindings.hold(address);
        held.then(|| Held { socket: Arc::clone(self), address })
    }

    /// What a virtual address stands for.
    pub(crate) fn remote(&self, address: SocketAddr) -> Option<Remote> {
        self.lock().bindings.remote(address)
    }

    /// A QUIC packet came outside an envelope.
    pub(crate) fn bare(&self, from: Remote, bytes: Vec<u8>) {
        let mut inner = self.lock();
        match inner.bindings.bare(from, &bytes) {
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
        match inner.bindings.enveloped(index) {
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
}

impl Inner {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl AsyncUdpSocket for VirtualSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    /// Never fails and never waits: what the socket does not take is lost, as on any wire, and QUIC sends it again.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let way = self.lock().bindings.way(transmit.destination, transmit.contents);
        let Some((remote, sealed)) = way else {
            self.drops.count(DropReason::ConnectionGone);
            return Ok(());
        };
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
