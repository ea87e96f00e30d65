//! QUIC over one stream without lanes: a host that joins has no session yet, and asks over TCP where UDP does not get through.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use weft_router::session::StreamId;
use weft_router::stream::MAX_DATAGRAM;

use super::connect;
use crate::lane::StreamQueue;
use crate::quic::socket::AlwaysWritable;

/// Datagrams that wait for quinn; when full the stream is not read on.
const QUEUE: usize = 256;

/// One stream, as quinn's socket. What does not fit its queue is lost, and QUIC sends it again.
pub(crate) struct Alone {
    queue: Arc<StreamQueue>,
    received: Mutex<mpsc::Receiver<Vec<u8>>>,
}

impl Alone {
    /// Opens a stream to `address`. It ends with the socket.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Arc<Self>> {
        let socket = connect(address).await?;
        let queue = Arc::new(StreamQueue::new(StreamId(0), address));
        let (sender, received) = mpsc::channel(QUEUE);
        tokio::spawn(carry(socket, Arc::clone(&queue), sender));
        Ok(Arc::new(Self { queue, received: Mutex::new(received) }))
    }
}

async fn carry(mut socket: TcpStream, queue: Arc<StreamQueue>, received: mpsc::Sender<Vec<u8>>) {
    let (read, write) = socket.split();
    tokio::select! {
        () = received.closed() => {}
        _ = receive(read, &received) => {}
        _ = send(write, &queue) => {}
    }
}

async fn receive(mut socket: ReadHalf<'_>, received: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    loop {
        let len = usize::from(socket.read_u16().await?);
        if len > MAX_DATAGRAM {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut datagram = vec![0; len];
        socket.read_exact(&mut datagram).await?;
        if received.send(datagram).await.is_err() {
            return Ok(());
        }
    }
}

async fn send(mut socket: WriteHalf<'_>, queue: &StreamQueue) -> io::Result<()> {
    loop {
        match queue.try_next() {
            Some(records) => socket.write_all(&records).await?,
            None => queue.wait().await,
        }
    }
}

impl AsyncUdpSocket for Alone {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let _ = self.queue.push_control(transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        loop {
            let received = self.received.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx);
            let Poll::Ready(datagram) = received else { return Poll::Pending };
            let Some(datagram) = datagram else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            if let Some(place) = buffer.get_mut(..datagram.len()) {
                place.copy_from_slice(&datagram);
                let len = datagram.len();
                *meta = RecvMeta { addr: self.queue.peer(), len, stride: len, ecn: None, dst_ip: None };
                return Poll::Ready(Ok(1));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.queue.peer()) // quinn asks for the family only.
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alone")
    }
}
