//! A TCP stream as the lanes see it: a queue of whole records to be written, and what it has proven. `crate::tcp` reads and writes
//! the socket; no lane waits for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;
use weft_router::drop::DropReason;
use weft_router::session::StreamId;
use weft_router::stream::record_head;

/// Bytes that wait to be written before frames are dropped (`StreamQueueFull`); what the control side sends may be as much again
/// as the rest.
const FRAME_BYTES: usize = 512 << 10;
const QUEUE_BYTES: usize = FRAME_BYTES + (128 << 10);
/// Trains that wait, whatever their bytes.
const QUEUE: usize = 1024;

/// One stream, from its preface to its end.
pub(crate) struct StreamQueue {
    id: StreamId,
    peer: SocketAddr,
    trains: ArrayQueue<Vec<u8>>,
    bytes: AtomicUsize,
    written: Notify,
    proven: AtomicBool,
}

impl StreamQueue {
    pub(crate) fn new(id: StreamId, peer: SocketAddr) -> Self {
        Self {
            id,
            peer,
            trains: ArrayQueue::new(QUEUE),
            bytes: AtomicUsize::new(0),
            written: Notify::new(),
            proven: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// The address of the other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// A handshake was finished over it, or an authentic envelope came by it.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// A train of frames: `bytes` are datagrams of `stride` bytes, the last may be shorter.
    pub(super) fn push_train(&self, bytes: &[u8], stride: usize) -> Result<(), DropReason> {
        self.push(bytes, stride, FRAME_BYTES)
    }

    /// One datagram of the control side.
    pub(crate) fn push_control(&self, datagram: &[u8]) -> Result<(), DropReason> {
        self.push(datagram, datagram.len(), QUEUE_BYTES)
    }

    fn push(&self, bytes: &[u8], stride: usize, limit: usize) -> Result<(), DropReason> {
        if self.bytes.load(Ordering::Relaxed) + bytes.len() > limit {
            return Err(DropReason::StreamQueueFull);
        }
        let mut train = Vec::with_capacity(bytes.len() + bytes.len().div_ceil(stride.max(1)) * 2);
        for datagram in bytes.chunks(stride.max(1)) {
            train.extend_from_slice(&record_head(datagram.len()));
            train.extend_from_slice(datagram);
        }
        let len = train.len();
        self.bytes.fetch_add(len, Ordering::Relaxed);
        if self.trains.push(train).is_err() {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
            return Err(DropReason::StreamQueueFull);
        }
        self.written.notify_one();
        Ok(())
    }

    /// The next records to write, if there are any.
    pub(crate) fn try_next(&self) -> Option<Vec<u8>> {
        let train = self.trains.pop()?;
        self.bytes.fetch_sub(train.len(), Ordering::Relaxed);
        Some(train)
    }

    /// Until there may be something to write. For one task.
    pub(crate) async fn wait(&self) {
        self.written.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_frames_first_and_empties_in_order() {
        let queue = StreamQueue::new(StreamId(1), ([192, 0, 2, 1], 6783).into());
        let train = vec![7; 60_000];
        let mut taken = 0;
        while queue.push_train(&train, 9000).is_ok() {
            taken += 1;
        }
        assert!((7..=8).contains(&taken), "{taken}");
        assert_eq!(queue.push_control(&[1; 100]), Ok(()), "a probe still goes");
        for _ in 0..taken {
            assert_eq!(queue.try_next().map(|t| t.len()), Some(60_000 + 7 * 2));
        }
        assert_eq!(queue.try_next().as_deref(), Some(&[&[0, 100][..], &[1; 100]].concat()[..]));
        assert_eq!(queue.try_next(), None);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }
}
