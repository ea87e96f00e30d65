//! What carries datagrams out: the socket of a lane towards an address, or the queue of a TCP stream; and the open streams, whose
//! records lane 0 takes in whole buffers, so that they are judged, opened and delivered by the code that judges datagrams.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc;
use weft_router::drop::DropReason;
use weft_router::session::{Path, StreamId};

use super::desk::Desk;
use super::ring::SLOT_LEN;
use super::stream::StreamQueue;
use crate::sys::RawAddress;

/// Buffers of records that wait for lane 0; when full the streams are not read on, and their senders' queues fill.
const RECORDS_QUEUE: usize = 16;

/// Where a train goes.
pub(super) enum Carrier {
    Udp(RawAddress),
    Tcp(Arc<StreamQueue>),
}

impl Carrier {
    /// What carries along `path` at the moment.
    pub(super) fn of(desk: &Desk, path: Path) -> Result<Self, DropReason> {
        match path {
            Path::Udp(address) => Ok(Self::Udp(RawAddress::new(address, desk.shared.ipv6))),
            Path::Tcp(id) => desk.shared.streams.get(id).map(Self::Tcp).ok_or(DropReason::StreamEnded),
            Path::Relay(_) => Err(DropReason::NoPath),
        }
    }
}

/// The open streams, for lanes and for those who read and write their sockets.
pub(crate) struct Streams {
    open: ArcSwap<BTreeMap<StreamId, Arc<StreamQueue>>>,
    records: mpsc::Sender<Records>,
    spare: ArrayQueue<Box<[u8]>>,
}

/// A buffer that begins with `len` bytes of whole records.
pub(crate) struct Records {
    pub stream: Arc<StreamQueue>,
    pub buffer: Box<[u8]>,
    pub len: usize,
}

impl Streams {
    /// And where lane 0 takes the records from.
    pub(super) fn new() -> (Self, mpsc::Receiver<Records>) {
        let (records, receiver) = mpsc::channel(RECORDS_QUEUE);
        (Self { open: ArcSwap::default(), records, spare: ArrayQueue::new(RECORDS_QUEUE) }, receiver)
    }

    /// Datagrams may go by it from now on.
    pub(crate) fn add(&self, stream: &Arc<StreamQueue>) {
        self.change(|open| open.insert(stream.id(), Arc::clone(stream)));
    }

    /// It has ended.
    pub(crate) fn remove(&self, id: StreamId) {
        self.change(|open| open.remove(&id));
    }

    /// An open stream.
    pub(crate) fn get(&self, id: StreamId) -> Option<Arc<StreamQueue>> {
        self.open.load().get(&id).cloned()
    }

    /// A buffer to read into.
    pub(crate) fn buffer(&self) -> Box<[u8]> {
        self.spare.pop().unwrap_or_else(|| vec![0; SLOT_LEN].into_boxed_slice())
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&self, buffer: Box<[u8]>) {
        let _ = self.spare.push(buffer);
    }

    /// Waits for room. `false`: the lane is gone.
    pub(super) async fn deliver(&self, records: Records) -> bool {
        self.records.send(records).await.is_ok()
    }

    fn change<T>(&self, change: impl Fn(&mut BTreeMap<StreamId, Arc<StreamQueue>>) -> T) {
        self.open.rcu(|open| {
            let mut open = BTreeMap::clone(open);
            change(&mut open);
            open
        });
    }
}
