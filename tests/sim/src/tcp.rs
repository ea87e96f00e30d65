//! TCP between two hosts as far as the mesh sees it: a stream opens or it does not, what is written comes in order, and loss is
//! delay. What has been cut off passes nothing any more, and its ends notice when nothing comes.

use std::net::SocketAddr;
use std::time::Duration;

use weft_api::id::HostId;
use weft_router::session::{Event, Path, Remote, StreamId};
use weft_router::stream::gate::IDLE_TIMEOUT;

use crate::datagram::Datagram;
use crate::world::{Due, World};

/// A dial that nobody answers fails after so long, as in `router/io`.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// What becomes due about streams.
#[derive(Clone, Copy)]
pub(crate) enum StreamDue {
    /// What comes of a dial: the host that answers, and in which of its lives.
    Opens(HostId, SocketAddr, Option<(usize, u32)>),
    /// The other end has closed it.
    Ends(StreamId),
    /// Whether anything came of late.
    Quiet(StreamId),
}

/// A stream. Its ends are numbered in the names that hosts have for them.
#[derive(Debug)]
pub(crate) struct Stream {
    ends: [End; 2],
    /// Nothing passes any more.
    cut: bool,
}

#[derive(Debug)]
struct End {
    host: usize,
    life: u32,
    /// When what was written to it last arrives.
    last: Duration,
    /// When something came.
    came: Duration,
    open: bool,
}

fn place(stream: StreamId) -> (usize, usize) {
    (stream.0 as usize / 2, stream.0 as usize % 2)
}

fn name(stream: usize, end: usize) -> StreamId {
    StreamId((stream * 2 + end) as u64)
}

impl World {
    /// A host dials.
    pub(crate) fn open_stream(&mut self, n: usize, peer: HostId, address: SocketAddr) {
        let listener = self.underlay.stream_to(n, address);
        let answer = listener.filter(|o| self.hosts[*o].alive).map(|o| (o, self.hosts[o].life));
        let after =
            if answer.is_some() { self.underlay.resent() + self.underlay.resent() } else { DIAL_TIMEOUT };
        self.later(n, after, Due::Stream(StreamDue::Opens(peer, address, answer)));
    }

    /// Something is due about a host's streams.
    pub(crate) fn stream(&mut self, n: usize, due: StreamDue) {
        match due {
            StreamDue::Opens(peer, address, answer) => {
                let stream = answer.map(|(listener, life)| self.opened(n, listener, life));
                self.session(n, Event::StreamOpened(peer, address, stream));
            }
            StreamDue::Ends(stream) => self.end_stream(n, stream),
            StreamDue::Quiet(stream) => {
                let (number, end) = place(stream);
                let ends_at = self.streams[number].ends[end].came + IDLE_TIMEOUT;
                if ends_at <= self.now {
                    self.end_stream(n, stream);
                } else if self.streams[number].ends[end].open {
                    self.later(n, ends_at - self.now, Due::Stream(StreamDue::Quiet(stream)));
                }
            }
        }
    }

    fn opened(&mut self, dialler: usize, listener: usize, life: u32) -> StreamId {
        let number = self.streams.len();
        let end = |host, life| End { host, life, last: self.now, came: self.now, open: true };
        let ends = [end(dialler, self.hosts[dialler].life), end(listener, life)];
        self.streams.push(Stream { ends, cut: false });
        for (at, host) in [dialler, listener].into_iter().enumerate() {
            self.later(host, IDLE_TIMEOUT, Due::Stream(StreamDue::Quiet(name(number, at))));
        }
        name(number, 0)
    }

    /// Closed here; the other end hears of it, if anything passes.
    fn end_stream(&mut self, n: usize, stream: StreamId) {
        let (number, end) = place(stream);
        let at = &mut self.streams[number];
        if !std::mem::replace(&mut at.ends[end].open, false) {
            return;
        }
        let passes = !std::mem::replace(&mut at.cut, true);
        let other = at.ends[1 - end].host;
        if passes && self.underlay.joins(n, other) {
            let after = self.underlay.resent();
            self.later(other, after, Due::Stream(StreamDue::Ends(name(number, 1 - end))));
        }
        self.session(n, Event::StreamEnded(stream));
    }

    /// Writes a datagram as a record.
    pub(crate) fn write(&mut self, n: usize, stream: StreamId, datagram: Datagram) {
        let (number, end) = place(stream);
        let Some(at) = self.streams.get_mut(number).filter(|s| !s.cut) else { return };
        let other = &mut at.ends[1 - end];
        let there = &self.hosts[other.host];
        if !there.alive || there.life != other.life || !self.underlay.joins(n, other.host) {
            at.cut = true;
            if there.alive && there.life != other.life {
                let after = self.underlay.resent(); // It knows no such stream.
                self.later(n, after, Due::Stream(StreamDue::Ends(stream)));
            }
            return;
        }
        other.last = other.last.max(self.now + self.underlay.resent());
        let (host, after) = (other.host, other.last - self.now);
        let from = Remote::Tcp(name(number, 1 - end));
        self.later(host, after, Due::Arrives(from, datagram));
    }

    /// Something came by a path.
    pub(crate) fn came_by(&mut self, from: Remote) {
        if let Path::Tcp(stream) = from.path() {
            let (number, end) = place(stream);
            self.streams[number].ends[end].came = self.now;
        }
    }

    /// A host is elsewhere: its streams lead nowhere.
    pub(crate) fn cut_streams(&mut self, n: usize) {
        let its = self.streams.iter_mut().filter(|s| s.ends.iter().any(|end| end.host == n));
        its.for_each(|s| s.cut = true);
    }
}
