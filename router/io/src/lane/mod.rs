//! Lanes: threads that carry frames between the taps and the mesh, each both directions run to completion (DESIGN 4).
//!
//! The control side holds one [`LaneHandle`] of all; what they read is in [`crate::tables`]. Errors never end a lane: what
//! cannot be delivered is dropped by name.

mod carrier;
mod deliver;
mod depart;
mod desk;
mod event;
mod held;
mod inbound;
mod outbound;
mod port;
mod ring;
mod run;
mod sockets;
mod stream;
#[cfg(test)]
mod tests;
mod train;
mod trains;
mod transit;
mod wrap;

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
use weft_api::id::{HostId, NetworkId};
use weft_router::drop::{DropCounters, DropReason};
use weft_router::envelope::Header;
use weft_router::offload::Offloads;
use weft_router::relay::Relayed;
use weft_router::session::Remote;

use crate::sys;
use crate::tables::{SendEpoch, Tables};
use crate::tap::TapQueue;

pub(crate) use carrier::{Records, Streams};
use event::Command;
pub use event::{Aim, COMMAND_QUEUE, ControlChunk, EVENT_QUEUE, LaneEvent, MAX_QUIC_LEN};
use sockets::Sockets;
pub use sockets::{MAX_LANES, listen};
pub(crate) use stream::StreamQueue;

/// Hosts whose waiting frames a lane is to drop; for a further one they wait out their time.
const UNREACHED_QUEUE: usize = 64;

/// A lane cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A socket option that every supported kernel has.
    #[error("the UDP socket cannot be set up for a lane: {0}")]
    Socket(#[source] io::Error),
    /// No thread, or no eventfd.
    #[error("a lane's thread cannot be started: {0}")]
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

/// The running lanes, as the control side sees them. They end when the last clone is dropped.
#[derive(Clone)]
pub struct LaneHandle {
    shared: Arc<Shared>,
    _ends: Arc<EndsWithLast>,
}

/// What the control side and all lanes share.
struct Shared {
    ipv6: bool,
    tables: ArcSwap<Tables>,
    changing_taps: Mutex<()>,
    drops: DropCounters,
    gso: AtomicBool,
    gro: bool,
    stop: AtomicBool,
    streams: Streams,
    lanes: Vec<Own>,
}

/// What one lane has of its own.
struct Own {
    sockets: Sockets,
    wake: OwnedFd,
    taps: ArcSwap<Taps>,
    commands: ArrayQueue<Command>,
    /// Hosts that could not be reached.
    unreached: ArrayQueue<HostId>,
}

impl LaneHandle {
    /// Starts a lane on each of `sockets`, all bound to the one port ([`listen`]). Without tables they know nobody: bare QUIC
    /// packets come as events, all else is dropped. The receiver must be read; what it does not take in time is dropped by name.
    pub fn start(sockets: Vec<UdpSocket>) -> Result<(Self, mpsc::Receiver<LaneEvent>), StartError> {
        let sockets = Sockets::of_each(sockets).map_err(StartError::Socket)?;
        let first = sockets.first().ok_or_else(|| StartError::Socket(io::ErrorKind::InvalidInput.into()))?;
        let ipv6 = first.receive.local_addr().map_err(StartError::Socket)?.is_ipv6();
        let gro = sockets.iter().all(|s| s.gro);
        let lanes =
            sockets.into_iter().map(Own::new).collect::<io::Result<_>>().map_err(StartError::Thread)?;
        let (streams, records) = Streams::new();
        let shared = Arc::new(Shared {
            ipv6,
            tables: ArcSwap::default(),
            changing_taps: Mutex::new(()),
            drops: DropCounters::new(),
            gso: AtomicBool::new(true),
            gro,
            stop: AtomicBool::new(false),
            streams,
            lanes,
        });
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let mut ends = EndsWithLast { shared: Arc::clone(&shared), threads: Vec::new() };
        let mut records = Some(records);
        for n in 0..shared.lanes.len() as u8 {
            let lane = run::Lane::new(n, Arc::clone(&shared), events.clone(), records.take());
            let named = std::thread::Builder::new().name(format!("weft-lane-{n}"));
            ends.threads.push(named.spawn(move || lane.run()).map_err(StartError::Thread)?);
        }
        Ok((Self { shared, _ends: Arc::new(ends) }, receiver))
    }

    /// How many lanes there are: a tap needs a queue for each.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.shared.lanes.len()
    }

    /// From the next batch on the lanes read these.
    pub fn set_tables(&self, tables: Arc<Tables>) {
        self.shared.tables.store(tables);
        self.shared.lanes.iter().for_each(Own::wake);
    }

    /// The tables as last set.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.shared.tables.load_full()
    }

    /// The lanes read and write these queues of a tap from now on, one each; what the network had before is closed. A lane
    /// for which there is no queue leaves the network to the others.
    pub fn attach_tap(&self, network: NetworkId, queues: Vec<TapQueue>) {
        let mut queues = queues.into_iter().map(Arc::new);
        self.shared.change_taps(|taps| match queues.next() {
            Some(queue) => taps.insert(network, queue),
            None => taps.remove(&network),
        });
    }

    /// The lanes let go of the network's tap.
    pub fn detach_tap(&self, network: NetworkId) {
        self.shared.change_taps(|taps| taps.remove(&network));
    }

    /// Writes a frame of this host's own into the network's tap, at once, from the caller's thread. What fails is counted.
    pub fn write_tap(&self, network: NetworkId, frame: &[u8]) {
        let written = match self.shared.first().taps.load().get(&network) {
            Some(tap) => port::write_own(tap, frame),
            None => Err(DropReason::NoTap),
        };
        if let Err(reason) = written {
            self.shared.drops.count(reason);
        }
    }

    /// Seals `chunk` under `epoch` and sends it along the epoch's path. `false`: the queue is full, and it is counted.
    pub fn send_sealed(&self, epoch: &Arc<SendEpoch>, chunk: ControlChunk) -> bool {
        self.send_aimed(epoch, chunk, Aim::default())
    }

    /// The same to another address, on another lane, or padded to another length.
    pub fn send_aimed(&self, epoch: &Arc<SendEpoch>, chunk: ControlChunk, aim: Aim) -> bool {
        let Some(lane) = self.shared.lanes.get(usize::from(aim.lane)) else {
            epoch.drops().count(DropReason::LaneOutOfRange);
            return false;
        };
        let command = Command { epoch: Arc::clone(epoch), chunk, aim };
        let taken = lane.commands.push(command).is_ok();
        if taken {
            lane.wake();
        } else {
            self.shared.drops.count(DropReason::CommandQueueFull);
            epoch.drops().count(DropReason::CommandQueueFull);
        }
        taken
    }

    /// What waits for a session with this host is dropped by name.
    pub fn give_up(&self, host: HostId) {
        for lane in &self.shared.lanes {
            // Full: its frames wait out their time.
            let _ = lane.unreached.push(host);
            lane.wake();
        }
    }

    /// Sends a QUIC packet outside an envelope of the peer's: to an address at once, from the caller's thread; to a member that a
    /// neighbour relays for inside an envelope of the neighbour's.
    pub fn send_bare(&self, to: Remote, bytes: &[u8]) -> io::Result<()> {
        match to {
            Remote::Udp(address) => {
                let to = sys::RawAddress::new(address, self.shared.ipv6);
                sys::send(self.shared.first().sockets.receive.as_fd(), &to, bytes, None)
            }
            Remote::Tcp(id) => {
                let stream = self.shared.streams.get(id).ok_or(DropReason::StreamEnded);
                if let Err(reason) = stream.and_then(|s| s.push_control(bytes)) {
                    self.shared.drops.count(reason);
                }
                Ok(())
            }
            Remote::Relayed { by, host } => {
                let tables = self.shared.tables.load();
                let relay = tables.sends.get(&by).ok_or(io::ErrorKind::HostUnreachable)?;
                let head = Relayed::new(tables.relay.me, host).body();
                self.send_sealed(relay, ControlChunk::Relayed([&head[..], bytes].concat()));
                Ok(())
            }
        }
    }

    /// The open TCP streams.
    pub(crate) fn streams(&self) -> &Streams {
        &self.shared.streams
    }

    /// Hands records of a stream to lane 0; waits for room. `false`: the lane is gone.
    pub(crate) async fn deliver(&self, records: Records) -> bool {
        let taken = self.shared.streams.deliver(records).await;
        self.shared.first().wake();
        taken
    }

    /// Tells `to` that its envelope had an index that nobody here knows. 16 bytes, never more than its cause.
    pub fn send_notice(&self, to: Remote, index: u32) -> io::Result<()> {
        self.send_bare(to, &Header { lane: 0, index, counter: 0 }.notice())
    }

    /// The socket's own address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.first().sockets.receive.local_addr()
    }

    /// Everything the lanes have dropped, by reason; what belongs to an epoch is counted there too.
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
            taps: self.shared.first().taps.load().iter().map(|(n, t)| (*n, t.offloads())).collect(),
        }
    }
}

impl Shared {
    /// Lane 0, which there always is.
    fn first(&self) -> &Own {
        &self.lanes[0]
    }

    /// Changes the taps of every lane, lane 0 first.
    fn change_taps(&self, mut change: impl FnMut(&mut Taps) -> Option<Arc<TapQueue>>) {
        let _one_at_a_time = self.changing_taps.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in &self.lanes {
            let mut taps = Taps::clone(&lane.taps.load());
            change(&mut taps);
            lane.taps.store(Arc::new(taps));
            lane.wake();
        }
    }
}

impl Own {
    fn new(sockets: Sockets) -> io::Result<Self> {
        Ok(Self {
            sockets,
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            taps: ArcSwap::default(),
            commands: ArrayQueue::new(COMMAND_QUEUE),
            unreached: ArrayQueue::new(UNREACHED_QUEUE),
        })
    }

    fn wake(&self) {
        // Full only if the lane has been woken 2^64 - 2 times and did not look: it is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

struct EndsWithLast {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for EndsWithLast {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.lanes.iter().for_each(Own::wake);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a lane's thread ended by a panic");
            }
        }
    }
}
