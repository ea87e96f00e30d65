//! A lane: one thread that carries frames between the taps and the mesh, both directions run to completion (DESIGN 4).
//!
//! The control side holds a [`LaneHandle`]; what the lane reads is in [`crate::tables`]. Errors never end a lane: what
//! cannot be delivered is dropped by name.

mod deliver;
mod desk;
mod event;
mod inbound;
mod outbound;
mod port;
mod ring;
mod run;
#[cfg(test)]
mod tests;
mod train;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;
use tokio::sync::mpsc;
use weft_api::id::NetworkId;
use weft_router::drop::{DropCounters, DropReason};
use weft_router::envelope::Header;
use weft_router::offload::Offloads;
use weft_router::session::Remote;

use crate::sys;
use crate::tables::{SendEpoch, Tables};
use crate::tap::TapQueue;

use event::Command;
pub use event::{Aim, COMMAND_QUEUE, ControlChunk, EVENT_QUEUE, LaneEvent, MAX_QUIC_LEN};

/// Bytes of the socket's buffers: what a burst of all lanes of a peer needs while the thread is elsewhere.
const SOCKET_BUFFER: usize = 7 << 20;

/// A lane cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A socket option that every supported kernel has.
    #[error("the UDP socket cannot be set up for a lane: {0}")]
    Socket(#[source] io::Error),
    /// No thread, or no eventfd.
    #[error("the lane's thread cannot be started: {0}")]
    Thread(#[source] io::Error),
}

/// What the kernel granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    /// Several datagrams per sendmsg (UDP_SEGMENT).
    pub gso: bool,
    /// Several datagrams per recvmsg (UDP_GRO).
    pub gro: bool,
    /// What each network's tap takes and gives.
    pub taps: BTreeMap<NetworkId, Offloads>,
}

/// The taps of a lane, by network. Replaced whole.
type Taps = BTreeMap<NetworkId, Arc<TapQueue>>;

/// A running lane, as the control side sees it. The lane ends when the last clone is dropped.
#[derive(Clone)]
pub struct LaneHandle {
    shared: Arc<Shared>,
    _ends: Arc<EndsWithLast>,
}

struct Shared {
    lane: u8,
    socket: UdpSocket,
    ipv6: bool,
    wake: OwnedFd,
    tables: ArcSwap<Tables>,
    taps: ArcSwap<Taps>,
    changing_taps: Mutex<()>,
    commands: ArrayQueue<Command>,
    drops: DropCounters,
    gso: AtomicBool,
    gro: bool,
    stop: AtomicBool,
}

impl LaneHandle {
    /// Starts lane 0 on `socket`, bound to the one port. Without tables it knows nobody: bare QUIC packets come as events,
    /// all else is dropped. The receiver must be read; what it does not take in time is dropped by name.
    pub fn start(socket: UdpSocket) -> Result<(Self, mpsc::Receiver<LaneEvent>), StartError> {
        let ipv6 = socket.local_addr().map_err(StartError::Socket)?.is_ipv6();
        let gro = prepare(&socket, ipv6).map_err(StartError::Socket)?;
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|e| StartError::Thread(e.into()))?;
        let shared = Arc::new(Shared {
            lane: 0,
            socket,
            ipv6,
            wake,
            tables: ArcSwap::default(),
            taps: ArcSwap::default(),
            changing_taps: Mutex::new(()),
            commands: ArrayQueue::new(COMMAND_QUEUE),
            drops: DropCounters::new(),
            gso: AtomicBool::new(true),
            gro,
            stop: AtomicBool::new(false),
        });
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let lane = run::Lane::new(Arc::clone(&shared), events);
        let thread = std::thread::Builder::new()
            .name("weft-lane-0".to_owned())
            .spawn(move || lane.run())
            .map_err(StartError::Thread)?;
        let ends = EndsWithLast { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) };
        Ok((Self { shared, _ends: Arc::new(ends) }, receiver))
    }

    /// From the next batch on the lane reads these.
    pub fn set_tables(&self, tables: Arc<Tables>) {
        self.shared.tables.store(tables);
        self.shared.wake();
    }

    /// The tables as last set.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.shared.tables.load_full()
    }

    /// The lane reads and writes this tap from now on; one that the network had before is closed.
    pub fn attach_tap(&self, network: NetworkId, tap: TapQueue) {
        let tap = Arc::new(tap);
        self.shared.change_taps(|taps| {
            taps.insert(network, tap);
        });
    }

    /// The lane lets go of the network's tap.
    pub fn detach_tap(&self, network: NetworkId) {
        self.shared.change_taps(|taps| {
            taps.remove(&network);
        });
    }

    /// Seals `chunk` under `epoch` and sends it along the epoch's path. `false`: the queue is full, and it is counted.
    pub fn send_sealed(&self, epoch: &Arc<SendEpoch>, chunk: ControlChunk) -> bool {
        self.send_aimed(epoch, chunk, Aim::default())
    }

    /// The same to another address, or padded to another length.
    pub fn send_aimed(&self, epoch: &Arc<SendEpoch>, chunk: ControlChunk, aim: Aim) -> bool {
        let command = Command { epoch: Arc::clone(epoch), chunk, aim };
        let taken = self.shared.commands.push(command).is_ok();
        if taken {
            self.shared.wake();
        } else {
            self.shared.drops.count(DropReason::CommandQueueFull);
            epoch.drops().count(DropReason::CommandQueueFull);
        }
        taken
    }

    /// Sends a QUIC packet outside an envelope, at once, from the caller's thread.
    pub fn send_bare(&self, to: Remote, bytes: &[u8]) -> io::Result<()> {
        let Remote::Udp(address) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        let to = sys::RawAddress::new(address, self.shared.ipv6);
        sys::send(self.shared.socket.as_fd(), &to, bytes, None)
    }

    /// Tells `to` that its envelope had an index that nobody here knows. 16 bytes, never more than its cause.
    pub fn send_notice(&self, to: Remote, index: u32) -> io::Result<()> {
        self.send_bare(to, &Header { lane: 0, index, counter: 0 }.notice())
    }

    /// The socket's own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.socket.local_addr()
    }

    /// Everything this lane has dropped, by reason; what belongs to an epoch is counted there too.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.shared.drops
    }

    /// What the kernel granted, as far as is known by now.
    #[must_use]
    pub fn offloads(&self) -> Granted {
        Granted {
            gso: self.shared.gso.load(Ordering::Relaxed),
            gro: self.shared.gro,
            taps: self.shared.taps.load().iter().map(|(n, t)| (*n, t.offloads())).collect(),
        }
    }
}

impl Shared {
    fn wake(&self) {
        // Full only if the lane has been woken 2^64 - 2 times and did not look: it is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn change_taps(&self, change: impl FnOnce(&mut Taps)) {
        let _one_at_a_time = self.changing_taps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taps = Taps::clone(&self.taps.load());
        change(&mut taps);
        self.taps.store(Arc::new(taps));
        self.wake();
    }
}

struct EndsWithLast {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for EndsWithLast {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the lane's thread ended by a panic");
        }
    }
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
        let size = SOCKET_BUFFER as i32;
        sys::set_option(fd, libc::SOL_SOCKET, force, size)
            .or_else(|_| sys::set_option(fd, libc::SOL_SOCKET, plain, size))?;
    }
    Ok(sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok())
}
