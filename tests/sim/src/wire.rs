//! QUIC between two hosts as far as the mesh sees it: a handshake, a stream of messages each way in order, an end. What is lost
//! is sent again, as any datagram of the session: along the path that the connection has at that time.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use weft_router::session::message::Message;
use weft_router::session::{ConnectionId, Why};

use crate::datagram::PACKET;

/// What travels on a stream.
#[derive(Clone, Debug)]
pub enum Said {
    /// A message, and how long it is when encoded.
    Message(Rc<Message>, usize),
    /// The connection is closed.
    Close(Why),
}

impl Said {
    /// In bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Message(_, len) => *len,
            Self::Close(_) => 8,
        }
    }

    /// That it takes.
    pub fn packets(&self) -> usize {
        self.len().div_ceil(PACKET).max(1)
    }
}

/// One end.
#[derive(Debug)]
pub struct End {
    /// The host, and in which of its lives.
    pub host: usize,
    pub life: u32,
    /// Its name of the connection.
    pub id: ConnectionId,
    /// What the other end has not yet got, by numbers that rise.
    pub unheard: VecDeque<(u64, Said)>,
    next: u64,
    /// The number that it waits for.
    expects: u64,
    /// What has overtaken it.
    early: BTreeMap<u64, Said>,
    /// Packets that it has not acknowledged yet.
    pub unanswered: usize,
}

/// What an end says that it has got.
#[derive(Clone, Debug)]
pub struct Got {
    /// Everything below this number.
    pub below: u64,
    /// And these.
    pub early: Rc<[u64]>,
    /// Packets that say so: one for each two that came.
    pub packets: usize,
}

/// A connection.
#[derive(Debug)]
pub struct Wire {
    pub ends: [End; 2],
    /// When the dialler had its answer.
    pub since: Duration,
    /// The listener has heard of the dialler again: both are proven.
    pub accepted: bool,
}

impl Wire {
    /// Of the dialler and the listener.
    pub fn new(
        since: Duration,
        dialler: (usize, u32, ConnectionId),
        listener: (usize, u32, ConnectionId),
    ) -> Self {
        let end = |(host, life, id)| End {
            host,
            life,
            id,
            unheard: VecDeque::new(),
            next: 0,
            expects: 0,
            early: BTreeMap::new(),
            unanswered: 0,
        };
        Self { ends: [end(dialler), end(listener)], since, accepted: false }
    }

    /// The end of a host: 0 dialled.
    pub fn end(&self, host: usize) -> usize {
        usize::from(self.ends[0].host != host)
    }

    /// Puts something behind what is not heard yet; its number.
    pub fn say(&mut self, end: usize, said: Said) -> u64 {
        let end = &mut self.ends[end];
        end.unheard.push_back((end.next, said));
        end.next += 1;
        end.next - 1
    }

    /// Something arrives at the end, perhaps again; what can be read there now, in order.
    pub fn hears(&mut self, end: usize, number: u64, said: Said) -> Vec<Said> {
        let end = &mut self.ends[end];
        if number >= end.expects {
            end.early.insert(number, said);
        }
        let mut ready = Vec::new();
        while let Some(said) = end.early.remove(&end.expects) {
            end.expects += 1;
            ready.push(said);
        }
        ready
    }

    /// The other end has got this.
    pub fn heard(&mut self, end: usize, got: &Got) {
        self.ends[end].unheard.retain(|(n, _)| *n >= got.below && !got.early.contains(n));
    }

    /// What the end has got: it is about to say so.
    pub fn got(&mut self, end: usize) -> Got {
        let end = &mut self.ends[end];
        let packets = std::mem::take(&mut end.unanswered).div_ceil(2);
        Got { below: end.expects, early: end.early.keys().copied().collect(), packets }
    }
}
