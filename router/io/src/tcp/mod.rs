//! TCP on the port number of UDP, for where UDP does not get through (PROTOCOL 5): a stream carries datagrams as records. Which
//! stream is opened when is the session layer's; who may open one to us is [`weft_router::stream::gate`]'s.
//!
//! | room | holds |
//! |---|---|
//! | `listener` | strangers until they have said the preface |
//! | `stream` | reading records into lane 0, writing what the lanes queued |
//! | [`alone`] | QUIC over one stream without lanes, for who joins |

pub(crate) mod alone;
mod listener;
mod stream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_router::drop::{DropCounters, DropReason};
use weft_router::session::StreamId;
use weft_router::stream::PREFACE;
use weft_router::stream::gate::Gate;

use crate::lane::{LaneHandle, StreamQueue};
use crate::sys;

pub(crate) use listener::listen;

/// A stream that we open is given up after this.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that the kernel holds unsent, so that what waits, waits where frames are dropped by name.
const UNSENT: i32 = 128 << 10;

/// The streams of a node.
pub(crate) struct Tcp {
    lane: LaneHandle,
    drops: Arc<DropCounters>,
    gate: Mutex<Gate>,
    numbers: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
}

impl Tcp {
    /// None yet.
    pub(crate) fn new(lane: LaneHandle, drops: Arc<DropCounters>) -> Arc<Self> {
        Arc::new(Self {
            lane,
            drops,
            gate: Mutex::default(),
            numbers: AtomicU64::new(0),
            tasks: Mutex::default(),
        })
    }

    /// Opens a stream to `address`; `opened` is told its number or `None`, and `ended` when it is over.
    pub(crate) fn open(
        self: &Arc<Self>,
        address: SocketAddr,
        opened: impl FnOnce(Option<StreamId>) + Send + 'static,
        ended: impl FnOnce(StreamId) + Send + 'static,
    ) {
        let tcp = Arc::clone(self);
        self.spawn(async move {
            match connect(address).await {
                Ok(socket) => {
                    let stream = tcp.number(address);
                    tcp.lane.streams().add(&stream);
                    opened(Some(stream.id()));
                    tcp.carry(socket, &stream, None).await;
                    ended(stream.id());
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "no TCP stream");
                    opened(None);
                }
            }
        });
    }

    /// A stream's handshake is finished, with a member.
    pub(crate) fn prove(&self, id: StreamId) {
        if let Some(stream) = self.lane.streams().get(id) {
            stream.prove();
        }
    }

    /// The other end of an open stream.
    pub(crate) fn peer(&self, id: StreamId) -> Option<SocketAddr> {
        self.lane.streams().get(id).map(|s| s.peer())
    }

    /// Every stream ends.
    pub(crate) fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn number(&self, peer: SocketAddr) -> Arc<StreamQueue> {
        let id = StreamId(self.numbers.fetch_add(1, Ordering::Relaxed));
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Arc::new(StreamQueue::new(id, peer))
    }

    fn enter(self: &Arc<Self>, from: IpAddr) -> Result<Place, DropReason> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).enter(from)?;
        Ok(Place { tcp: Arc::clone(self), from, proven: false })
    }
}

/// What a stream that somebody else opened takes of the limits.
struct Place {
    tcp: Arc<Tcp>,
    from: IpAddr,
    proven: bool,
}

impl Place {
    fn prove(&mut self) {
        if !std::mem::replace(&mut self.proven, true) {
            self.tcp.gate.lock().unwrap_or_else(PoisonError::into_inner).prove(self.from);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tcp.gate.lock().unwrap_or_else(PoisonError::into_inner).leave(self.from, self.proven);
    }
}

/// Listens on the port of `address`; `[::]` takes IPv4 too.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    /// Streams that wait to be accepted.
    const BACKLOG: i32 = 128;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Opens a stream and says the preface.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let dialled = async {
        let mut socket = TcpStream::connect(address).await?;
        prepare(&socket)?;
        socket.write_all(&PREFACE).await?;
        Ok(socket)
    };
    timeout(DIAL_TIMEOUT, dialled).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, UNSENT)
}
