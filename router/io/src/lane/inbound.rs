//! From the mesh to the taps: receive, judge each datagram by its own first bytes, open in place, walk the chunks, deliver.

mod relay;

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use weft_api::id::HostId;
use weft_router::chunk::{Chunk, ChunkKind, Chunks, begins_with_probe};
use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, Header, Shape, TAG_LEN};
use weft_router::fragment::Reassembly;
use weft_router::relay::{Onward, RelayLimits, Relayed};
use weft_router::seal::OpenKey;
use weft_router::session::Remote;
use weft_router::stream::datagram_at;

use super::carrier::Records;
use super::deliver::{Deliverer, Origin};
use super::desk::Desk;
use super::event::{LaneEvent, MAX_QUIC_LEN};
use super::port::Port;
use super::ring::{Ring, SLOT_LEN};
use super::trains::Trains;
use super::transit::Transit;
use crate::sys;
use crate::tables::{ReceiveEpoch, Tables};

/// Calls of recvmsg before the lane looks at the taps again.
const RECEIVES: usize = 16;

/// The inbound half.
pub(super) struct Inbox {
    ring: Ring,
    deliverer: Deliverer,
    /// Of envelopes that came as datagrams, and of those that were relayed in them.
    latest: [Latest; 2],
    /// What TCP streams bring.
    records: Option<mpsc::Receiver<Records>>,
    /// An authentic envelope came by the stream that is being read.
    proven: bool,
    /// What was last relayed in this batch, by whom and where to: the next is mostly of the same.
    judged: Option<(HostId, Relayed, Onward)>,
    /// Envelopes in the current buffer that others get.
    transit: Transit,
    fragments: Reassembly,
    /// Where a chunk lies that came in fragments, while it is read.
    spare: Option<Box<[u8]>>,
}

/// The epoch of the latest envelope: the next is mostly of the same.
#[derive(Default)]
struct Latest {
    epoch: Option<Arc<ReceiveEpoch>>,
    /// Authentic datagrams and bytes that are not yet counted there.
    uncounted: (u64, u64),
}

impl Latest {
    /// The epoch of `index`, moved out of here if it is that one; the caller puts it back.
    #[inline]
    fn take(&mut self, around: &Surroundings<'_>, index: u32) -> Option<Arc<ReceiveEpoch>> {
        if self.epoch.as_ref().is_some_and(|e| e.index() == index) {
            return self.epoch.take();
        }
        let epoch = match around.tables.receives.get(&index) {
            Some(epoch) => Arc::clone(epoch),
            // The batch began before the key was made, and the peer is quick.
            None => Arc::clone(around.desk.shared.tables.load().receives.get(&index)?),
        };
        self.count();
        Some(epoch)
    }

    fn count(&mut self) {
        let (datagrams, bytes) = std::mem::take(&mut self.uncounted);
        if let Some(epoch) = self.epoch.as_ref().filter(|_| datagrams > 0) {
            epoch.count_received(datagrams, bytes);
        }
    }
}

/// What does not change while one batch is received.
pub(super) struct Surroundings<'a> {
    pub desk: &'a Desk,
    pub tables: &'a Tables,
    pub ports: &'a mut [Port],
    pub trains: &'a mut Trains,
    pub relay_limits: &'a mut RelayLimits,
    pub now: Duration,
}

impl Inbox {
    pub(super) fn new(records: Option<mpsc::Receiver<Records>>) -> Self {
        Self {
            ring: Ring::new(),
            deliverer: Deliverer::new(),
            latest: Default::default(),
            records,
            proven: false,
            judged: None,
            transit: Transit::default(),
            fragments: Reassembly::new(),
            spare: Some(vec![0; SLOT_LEN].into_boxed_slice()),
        }
    }

    /// The tables have changed: what was remembered of the old ones is let go.
    pub(super) fn forget(&mut self) {
        self.latest.iter_mut().for_each(Latest::count);
        self.latest = Default::default();
    }

    /// Receives what is there, delivers it whole. Returns whether there was anything.
    pub(super) fn receive(&mut self, around: &mut Surroundings<'_>) -> bool {
        let mut any = false;
        for _ in 0..RECEIVES {
            let received = match sys::receive(around.desk.own().sockets.receive.as_fd(), self.ring.slot()) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An error that waited in the socket, of something sent earlier; it is gone now.
                Err(_) => continue,
            };
            any = true;
            self.read(around, &received);
            self.go_on(around);
        }
        for _ in 0..RECEIVES {
            let Some(records) = self.records.as_mut().and_then(|r| r.try_recv().ok()) else { break };
            any = true;
            self.read_records(around, records);
            self.go_on(around);
        }
        self.deliverer.deliver(around, &self.ring);
        self.transit.finish(around.desk, self.ring.slot());
        self.ring.release();
        self.latest.iter_mut().for_each(Latest::count);
        self.judged = None;
        any
    }

    /// On to a free buffer.
    #[inline]
    fn go_on(&mut self, around: &mut Surroundings<'_>) {
        if self.deliverer.is_open() && !self.ring.advance() {
            self.deliverer.deliver(around, &self.ring);
        }
        if !self.deliverer.is_open() {
            self.ring.release();
        }
    }

    fn read_records(&mut self, around: &mut Surroundings<'_>, records: Records) {
        let Records { stream, buffer, len } = records;
        around.desk.shared.streams.give_back(self.ring.exchange(buffer));
        let (from, mut at) = (Remote::Tcp(stream.id()), 0);
        self.proven = false;
        while let Ok(Some(datagram)) = datagram_at(&self.ring.slot()[..len], at) {
            at = datagram.end;
            if let Err(reason) = self.datagram(around, datagram, from) {
                around.desk.drop(reason);
            }
        }
        if self.proven {
            stream.prove();
        }
    }

    fn read(&mut self, around: &mut Surroundings<'_>, received: &sys::Received) {
        let from = match received.from {
            _ if received.truncated => return around.desk.drop(DropReason::Truncated),
            _ if received.len == 0 => return around.desk.drop(DropReason::Empty),
            None => return around.desk.drop(DropReason::UnknownKind),
            Some(from) => from,
        };
        let mut start = 0;
        while start < received.len {
            let end = (start + received.segment).min(received.len);
            if let Err(reason) = self.datagram(around, start..end, Remote::Udp(from)) {
                around.desk.drop(reason);
            }
            start = end;
        }
        self.transit.depart(around.desk, self.ring.slot());
    }

    #[inline]
    fn datagram(
        &mut self,
        around: &mut Surroundings<'_>,
        range: Range<usize>,
        from: Remote,
    ) -> Result<(), DropReason> {
        let desk = around.desk;
        let bytes = &self.ring.slot()[range.clone()];
        match Shape::of(bytes)? {
            Shape::Envelope(header) => self.envelope(around, header, range, from)?,
            Shape::Relayed(_) if matches!(from, Remote::Relayed { .. }) => {
                return Err(DropReason::RelayNested);
            }
            Shape::Relayed(header) => self.relayed_envelope(around, header, range, from)?,
            Shape::Bare if bytes.len() > MAX_QUIC_LEN => return Err(DropReason::ControlTooLong),
            Shape::Bare => desk.tell_unproven(|| LaneEvent::Bare { from, bytes: bytes.to_vec() }),
            Shape::Notice(header) => {
                desk.tell_unproven(|| LaneEvent::Notice { from, index: header.index });
            }
        }
        Ok(())
    }

    #[inline]
    fn envelope(
        &mut self,
        around: &mut Surroundings<'_>,
        header: Header,
        range: Range<usize>,
        from: Remote,
    ) -> Result<(), DropReason> {
        let opened = self.open(around, header, range.clone(), from, |key, datagram| {
            key.open(header, datagram).map(|chunks| !begins_with_probe(chunks))
        });
        if let Some(origin) = opened? {
            let chunks = range.start + HEADER_LEN..range.end - TAG_LEN;
            self.chunks(around, &origin, chunks, from, range.len());
            self.latest[depth(from)].epoch = Some(origin.epoch);
        }
        Ok(())
    }

    /// Opens what `open` opens of the datagram at `range`, once, and notes what that proves; `open` says whether it shows where the
    /// peer sends from. The epoch is moved out of `latest`; the caller puts it back. `None`: dropped and counted.
    #[inline]
    fn open(
        &mut self,
        around: &mut Surroundings<'_>,
        header: Header,
        range: Range<usize>,
        from: Remote,
        open: impl FnOnce(&OpenKey, &mut [u8]) -> Result<bool, DropReason>,
    ) -> Result<Option<Origin>, DropReason> {
        let (desk, len, depth) = (around.desk, range.len(), depth(from));
        let Some(epoch) = self.latest[depth].take(around, header.index) else {
            desk.tell_unproven(|| LaneEvent::UnknownIndex { from, index: header.index, len });
            return Err(around.tables.why_unknown(header.index));
        };
        let datagram = &mut self.ring.slot()[range];
        let opened = epoch.with_window(header.lane, |window| {
            window.check(header.counter)?;
            let shows = open(epoch.key(), datagram)?;
            window.accept(header.counter, from.path().udp().filter(|_| shows))
        });
        let moved = match opened {
            Ok(moved) => moved,
            Err(reason) => {
                desk.drop_on(epoch.drops(), reason, 1);
                self.latest[depth].epoch = Some(epoch);
                return Ok(None);
            }
        };
        let (datagrams, bytes) = &mut self.latest[depth].uncounted;
        (*datagrams, *bytes) = (*datagrams + 1, *bytes + len as u64);
        if !epoch.is_authentic() && desk.tell(LaneEvent::FirstAuthentic { index: header.index, from }) {
            epoch.set_authentic();
        }
        if moved
            && header.lane == 0
            && let Remote::Udp(from) = from
        {
            desk.tell(LaneEvent::Moved { index: header.index, from, len });
        }
        self.proven = true;
        Ok(Some(Origin { epoch, lane: header.lane }))
    }

    #[inline]
    fn chunks(
        &mut self,
        around: &mut Surroundings<'_>,
        origin: &Origin,
        area: Range<usize>,
        from: Remote,
        datagram: usize,
    ) {
        let (desk, slot, index) = (around.desk, self.ring.current(), origin.epoch.index());
        let mut chunks = Chunks::new();
        while let Some(chunk) = chunks.next_in(&self.ring.slot()[area.clone()]) {
            let Chunk { kind, body } = match chunk {
                Ok(chunk) => chunk,
                Err(reason) => {
                    desk.drop_on(origin.epoch.drops(), reason, 1);
                    continue;
                }
            };
            let body = area.start + body.start..area.start + body.end;
            let bytes = || self.ring.bytes(slot, body.clone()).to_vec();
            let taken = match kind {
                ChunkKind::Frame { network, checksum } => {
                    self.deliverer.frame(around, &mut self.ring, origin, network, checksum, body)
                }
                ChunkKind::Piece { network } => {
                    self.deliverer.piece(around, &self.ring, origin, network, body)
                }
                ChunkKind::Quic if body.len() > MAX_QUIC_LEN => Err(DropReason::ControlTooLong),
                ChunkKind::Quic => {
                    desk.tell(LaneEvent::Quic { index, from, bytes: bytes() });
                    Ok(())
                }
                ChunkKind::Probe | ChunkKind::Answer => {
                    desk.tell(LaneEvent::Probe {
                        index,
                        from,
                        at: Instant::now(),
                        datagram: datagram as u16,
                        body: bytes(),
                        answer: kind == ChunkKind::Answer,
                    });
                    Ok(())
                }
                ChunkKind::Fragment => self.fragment(around, origin, body, from, datagram),
                ChunkKind::Relayed => self.relayed(around, origin, body, from),
            };
            if let Err(reason) = taken {
                desk.drop_on(origin.epoch.drops(), reason, 1);
            }
        }
    }

    /// A part of a chunk; the last one to come has it read, in a buffer of its own that takes the place of the current one.
    fn fragment(
        &mut self,
        around: &mut Surroundings<'_>,
        origin: &Origin,
        body: Range<usize>,
        from: Remote,
        datagram: usize,
    ) -> Result<(), DropReason> {
        // None: this one came in fragments itself.
        let Some(mut buffer) = self.spare.take() else { return Err(DropReason::FragmentInvalid) };
        let source = (origin.epoch.index(), origin.lane);
        let taken = self.fragments.take(around.now, source, &self.ring.slot()[body]);
        match self.fragments.take_lost() {
            0 => {}
            lost => around.desk.drop_on(origin.epoch.drops(), DropReason::FragmentLost, lost),
        }
        let Ok(Some(whole)) = taken else {
            self.spare = Some(buffer);
            return taken.map(drop);
        };
        buffer[..whole.len()].copy_from_slice(&whole);
        // Pieces that wait lie in the buffer that makes room.
        self.deliverer.deliver(around, &self.ring);
        let before = self.ring.exchange(buffer);
        self.chunks(around, origin, 0..whole.len(), from, datagram);
        self.deliverer.deliver(around, &self.ring);
        self.spare = Some(self.ring.exchange(before));
        Ok(())
    }
}

/// Which of the latest epochs: of envelopes as they came, or of those that were relayed.
#[inline]
fn depth(from: Remote) -> usize {
    usize::from(matches!(from, Remote::Relayed { .. }))
}
