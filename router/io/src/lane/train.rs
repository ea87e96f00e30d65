//! A train: envelopes to one peer, sealed behind each other in the send buffer at one stride, sent by one call.

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weft_api::id::NetworkId;
use weft_router::chunk::{NETWORK_HEAD_LEN, frame_head, piece_head};
use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, Header, OVERHEAD, TAG_LEN};
use weft_router::fragment;
use weft_router::offload::plain::Checksum;
use weft_router::offload::{Cut, CutLimits};
use weft_router::relay::{RELAY_ANYWAY, RELAY_HEAD_LEN, RELAY_OVERHEAD, Relayed};
use weft_router::stream::MAX_DATAGRAM;

use super::carrier::Carrier;
use super::desk::Desk;
use super::event::LaneEvent;
use crate::sys::{self, RawAddress};
use crate::tables::SendEpoch;

/// What one sendmsg with UDP_SEGMENT takes: the longest UDP payload over IPv4.
const MAX_BYTES: usize = 65_507;
/// Datagrams of one call; kernels before 6.10 take no more.
const MAX_DATAGRAMS: usize = 64;
/// Room for a full train and the envelope that is being packed behind it.
pub(super) const CAPACITY: usize = MAX_BYTES + MAX_DATAGRAM + RELAY_OVERHEAD;
/// A packed envelope that lacks no more than this of the path's datagram is padded to it, so that the train can go on.
const PADDING_LIMIT: usize = 256;

/// Pieces of a superframe from which on its short last one is padded to the stride, so that the next superframe's can follow in
/// the same train.
const MANY_PIECES: usize = 16;

/// The envelopes of a neighbour that others travel in.
pub(super) struct Wrap {
    epoch: Arc<SendEpoch>,
    counters: Counters,
    relayed: Relayed,
}

/// The counters of an epoch that a train has taken and not yet used.
struct Counters {
    /// What the envelopes say: this lane, or lane 0 to a peer that does not hear this one.
    lane: u8,
    left: Range<u64>,
}

impl Counters {
    fn new(lane: u8) -> Self {
        Self { lane, left: 0..0 }
    }

    /// The header of the next envelope of `epoch`. Takes as many counters as the train has envelopes by now.
    #[inline]
    fn header(&mut self, desk: &Desk, epoch: &SendEpoch, count: usize) -> Result<Header, DropReason> {
        if self.left.is_empty() {
            let (taken, worn) = epoch.use_counters(self.lane, count.max(1) as u64)?;
            tell_worn(desk, epoch, worn);
            self.left = taken;
        }
        let counter = self.left.start;
        self.left.start += 1;
        Ok(Header { lane: self.lane, index: epoch.index(), counter })
    }

    fn give_back(&mut self, epoch: &SendEpoch) {
        epoch.give_back(self.lane, std::mem::take(&mut self.left));
    }
}

impl Wrap {
    /// Bytes of the neighbour's envelope before and after the peer's.
    const FRONT: usize = HEADER_LEN + RELAY_HEAD_LEN;
    const BACK: usize = TAG_LEN;

    /// `lane`: what they say.
    pub(super) fn new(epoch: Arc<SendEpoch>, lane: u8, relayed: Relayed) -> Self {
        Self { epoch, counters: Counters::new(lane), relayed }
    }

    /// Seals `out`, in which the peer's envelope lies in its place, the `count`th of its train.
    #[inline]
    fn seal(&mut self, desk: &Desk, out: &mut [u8], count: usize) -> Result<(), DropReason> {
        let header = self.counters.header(desk, &self.epoch, count)?;
        let carried = (out.len() - Self::FRONT - Self::BACK) as u16;
        out[HEADER_LEN..Self::FRONT].copy_from_slice(&self.relayed.head(carried));
        self.epoch.key().seal(header, out);
        Ok(())
    }
}

/// How long envelopes may be.
pub(super) struct Sizes {
    /// On the path in use.
    pub datagram: u16,
    /// On any path of its kind.
    pub floor: u16,
}

/// Envelopes for one peer.
pub(super) struct Train {
    epoch: Arc<SendEpoch>,
    counters: Counters,
    to: Carrier,
    /// A neighbour relays: each envelope travels in one of the neighbour's.
    wrap: Option<Wrap>,
    /// The longest envelope for the peer, and the longest that passes anywhere.
    datagram: usize,
    floor: usize,
    buffer: Box<[u8]>,
    /// Bytes of sealed envelopes.
    len: usize,
    /// Length of each but the last.
    stride: usize,
    count: usize,
    /// Bytes of chunks in the envelope being packed, which begins at `len`.
    packed: usize,
}

impl Train {
    /// An empty one. `buffer` is of [`CAPACITY`].
    pub(super) fn new(
        desk: &Desk,
        epoch: Arc<SendEpoch>,
        (to, wrap): (Carrier, Option<Wrap>),
        sizes: Sizes,
        buffer: Box<[u8]>,
    ) -> Self {
        let lane = if epoch.hears(desk.lane()) { desk.lane() } else { 0 };
        if lane != desk.lane() && epoch.wants(desk.lane()) {
            desk.tell(LaneEvent::LaneWanted { index: epoch.index(), lane: desk.lane() });
        }
        let (datagram, floor) = (usize::from(sizes.datagram).min(MAX_DATAGRAM), sizes.floor.into());
        let counters = Counters::new(lane);
        Self { epoch, counters, to, wrap, datagram, floor, buffer, len: 0, stride: 0, count: 0, packed: 0 }
    }

    pub(super) fn epoch(&self) -> &Arc<SendEpoch> {
        &self.epoch
    }

    pub(super) fn into_buffer(self) -> Box<[u8]> {
        self.buffer
    }

    /// What the pieces for this peer must keep to.
    pub(super) fn cut_limits(&self, inner_mtu: u16) -> CutLimits {
        CutLimits { max_body: self.room(), inner_mtu }
    }

    /// The longest frame that an envelope takes.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.datagram.saturating_sub(OVERHEAD + NETWORK_HEAD_LEN)
    }

    /// Whether that will hardly be more in a moment.
    pub(super) fn is_settled(&self) -> bool {
        self.epoch.is_settled() && self.wrap.as_ref().is_none_or(|wrap| wrap.epoch.is_settled())
    }

    /// Packs a whole frame, no longer than [`Self::room`], behind others in the same envelope, as long as they fit.
    #[inline]
    pub(super) fn push_frame(
        &mut self,
        desk: &Desk,
        network: NetworkId,
        checksum: Checksum,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let chunk = NETWORK_HEAD_LEN + frame.len();
        if OVERHEAD + chunk > self.datagram {
            return Err(DropReason::TooBigForPath);
        }
        if OVERHEAD + self.packed + chunk > self.datagram {
            self.close_envelope(desk, true)?;
        }
        let at = self.len + self.front() + HEADER_LEN + self.packed;
        let (head, body) = self.buffer[at..at + chunk].split_at_mut(NETWORK_HEAD_LEN);
        head.copy_from_slice(&frame_head(network, checksum, frame.len() as u16));
        body.copy_from_slice(frame);
        self.packed += chunk;
        Ok(())
    }

    /// Seals every piece of a superframe into an envelope of its own.
    #[inline]
    pub(super) fn push_pieces(
        &mut self,
        desk: &Desk,
        network: NetworkId,
        cut: &Cut<'_>,
    ) -> Result<(), DropReason> {
        self.close_envelope(desk, false)?;
        let pads = cut.count() >= MANY_PIECES && matches!(self.to, Carrier::Udp(_));
        for piece in cut.pieces() {
            let body = cut.body_len(&piece);
            let mut datagram = OVERHEAD + NETWORK_HEAD_LEN + body;
            self.make_room(desk, datagram);
            let (start, unpadded) = (self.len + self.front(), datagram - TAG_LEN);
            if pads && self.count > 0 && self.len + self.stride <= MAX_BYTES {
                let full = self.stride - self.front() - self.back();
                let is_last = usize::from(piece.index) + 1 == cut.count();
                if is_last || full - datagram <= PADDING_LIMIT {
                    datagram = full;
                }
            }
            let out = &mut self.buffer[start..start + datagram];
            out[unpadded..].fill(0);
            let chunk = &mut out[HEADER_LEN..unpadded];
            chunk[..NETWORK_HEAD_LEN].copy_from_slice(&piece_head(network, body as u16));
            let (head, rest) = chunk[NETWORK_HEAD_LEN..].split_at_mut(cut.head_len());
            cut.write_head(&piece, head);
            rest.copy_from_slice(cut.payload(&piece));
            self.seal(desk, datagram)?;
        }
        Ok(())
    }

    /// Seals a frame that fits no envelope in parts.
    pub(super) fn push_fragments(
        &mut self,
        desk: &Desk,
        network: NetworkId,
        checksum: Checksum,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        self.push_parts(desk, &[&frame_head(network, checksum, frame.len() as u16), frame].concat())
    }

    fn push_parts(&mut self, desk: &Desk, chunk: &[u8]) -> Result<(), DropReason> {
        let room = self.datagram.saturating_sub(OVERHEAD);
        let parts = fragment::cut(self.epoch.next_fragment(), chunk.len(), room)?;
        self.close_envelope(desk, false)?;
        for (head, part) in parts {
            let datagram = OVERHEAD + head.len() + part.len();
            self.make_room(desk, datagram);
            let start = self.len + self.front() + HEADER_LEN;
            let (before, after) =
                self.buffer[start..start + head.len() + part.len()].split_at_mut(head.len());
            before.copy_from_slice(&head);
            after.copy_from_slice(&chunk[part]);
            self.seal(desk, datagram)?;
        }
        Ok(())
    }

    /// Seals a datagram that the peer shall take or pass on.
    #[inline]
    pub(super) fn push_relayed(
        &mut self,
        desk: &Desk,
        relayed: Relayed,
        carried: &[u8],
    ) -> Result<(), DropReason> {
        let datagram = RELAY_OVERHEAD + carried.len();
        if self.wrap.is_some() {
            return Err(DropReason::RelayNested);
        }
        if datagram > self.datagram {
            return match carried.len() {
                ..=RELAY_ANYWAY => {
                    self.push_parts(desk, &[&relayed.head(carried.len() as u16), carried].concat())
                }
                _ => Err(DropReason::TooBigForPath),
            };
        }
        self.close_envelope(desk, false)?;
        self.make_room(desk, datagram);
        let chunk = &mut self.buffer[self.len + HEADER_LEN..];
        chunk[..RELAY_HEAD_LEN].copy_from_slice(&relayed.head(carried.len() as u16));
        chunk[RELAY_HEAD_LEN..RELAY_HEAD_LEN + carried.len()].copy_from_slice(carried);
        self.seal(desk, datagram)
    }

    /// Sends everything; empty afterwards.
    pub(super) fn flush(&mut self, desk: &Desk) {
        if let Err(reason) = self.close_envelope(desk, false) {
            desk.drop_on(self.epoch.drops(), reason, 1);
        }
        self.depart(desk);
        self.counters.give_back(&self.epoch);
        if let Some(wrap) = &mut self.wrap {
            wrap.counters.give_back(&wrap.epoch);
        }
    }

    /// Seals what is packed. `more`: further envelopes follow, so it may be padded to their stride.
    fn close_envelope(&mut self, desk: &Desk, more: bool) -> Result<(), DropReason> {
        if self.packed == 0 {
            return Ok(());
        }
        let (packed, front) = (std::mem::take(&mut self.packed), self.front());
        let start = self.len + front + HEADER_LEN;
        let mut datagram = OVERHEAD + packed;
        if !self.fits(datagram) {
            // The train leaves without it; what is packed moves to the front.
            self.depart(desk);
            self.buffer.copy_within(start..start + packed, front + HEADER_LEN);
        }
        let full = if self.count == 0 { self.datagram } else { self.stride - front - self.back() };
        if more && full.saturating_sub(datagram) <= PADDING_LIMIT {
            let padding = self.len + front + HEADER_LEN + packed;
            datagram = datagram.max(full);
            self.buffer[padding..self.len + front + datagram].fill(0);
        }
        self.seal(desk, datagram)
    }

    /// Seals the envelope of `datagram` bytes that lies behind the others, and couples it to them.
    #[inline]
    fn seal(&mut self, desk: &Desk, datagram: usize) -> Result<(), DropReason> {
        let header = self.counters.header(desk, &self.epoch, self.count)?;
        let (start, front) = (self.len, self.front());
        self.epoch.key().seal(header, &mut self.buffer[start + front..start + front + datagram]);
        let mut whole = datagram;
        if let Some(wrap) = &mut self.wrap {
            whole += Wrap::FRONT + Wrap::BACK;
            wrap.seal(desk, &mut self.buffer[start..start + whole], self.count)?;
        }
        self.couple(whole);
        Ok(())
    }

    #[inline]
    fn front(&self) -> usize {
        if self.wrap.is_some() { Wrap::FRONT } else { 0 }
    }

    #[inline]
    fn back(&self) -> usize {
        if self.wrap.is_some() { Wrap::BACK } else { 0 }
    }

    /// Whether an envelope of `datagram` bytes may be the next of this train: none longer than the first, none after a shorter.
    #[inline]
    fn fits(&self, datagram: usize) -> bool {
        let datagram = self.front() + datagram + self.back();
        self.count == 0
            || (datagram <= self.stride
                && self.len == self.count * self.stride
                && self.count < MAX_DATAGRAMS
                && self.len + datagram <= MAX_BYTES)
    }

    #[inline]
    fn make_room(&mut self, desk: &Desk, datagram: usize) {
        if !self.fits(datagram) {
            self.depart(desk);
        }
    }

    #[inline]
    fn couple(&mut self, datagram: usize) {
        if self.count == 0 {
            self.stride = datagram;
        }
        self.len += datagram;
        self.count += 1;
        debug_assert!(self.len <= MAX_BYTES && datagram <= self.stride, "no kernel takes this train");
    }

    /// Hands the sealed envelopes to the kernel.
    fn depart(&mut self, desk: &Desk) {
        let (len, count) = (std::mem::take(&mut self.len), std::mem::take(&mut self.count));
        if count == 0 {
            return;
        }
        if self.stride - self.front() - self.back() > self.floor {
            self.epoch.send_full();
            self.wrap.iter().for_each(|wrap| wrap.epoch.send_full());
        }
        let bytes = &self.buffer[..len];
        let to = match &self.to {
            Carrier::Udp(to) => to,
            Carrier::Tcp(stream) => match stream.push_train(bytes, self.stride) {
                Ok(()) => return self.count_sent(count as u64, len as u64),
                Err(reason) => return desk.drop_on(self.epoch.drops(), reason, count as u64),
            },
        };
        if count > 1 && desk.shared.gso.load(Ordering::Relaxed) {
            match send(self.socket(desk), to, bytes, Some(self.stride as u16)) {
                Ok(()) => return self.count_sent(count as u64, len as u64),
                Err(error) if is_refused(&error) => {}
                Err(error) => {
                    self.tell_refused(desk, &error);
                    return desk.drop_on(self.epoch.drops(), reason_of(&error), count as u64);
                }
            }
            if self.depart_singly(desk, to, len) {
                // It was the train that was refused, not its datagrams: never again.
                desk.shared.gso.store(false, Ordering::Relaxed);
                desk.tell(LaneEvent::OffloadLost { what: "UDP_SEGMENT" });
            }
            return;
        }
        self.depart_singly(desk, to, len);
    }

    fn socket<'d>(&self, desk: &'d Desk) -> &'d UdpSocket {
        desk.socket_of(self.wrap.as_ref().map_or(&self.counters, |wrap| &wrap.counters).lane)
    }

    fn count_sent(&self, datagrams: u64, bytes: u64) {
        self.epoch.count_sent(datagrams, bytes);
        if let Some(wrap) = &self.wrap {
            wrap.epoch.count_sent(datagrams, bytes);
        }
    }

    fn tell_refused(&self, desk: &Desk, error: &io::Error) {
        if reason_of(error) == DropReason::DatagramTooBig {
            tell_too_big(desk, self.wrap.as_ref().map_or(&self.epoch, |wrap| &wrap.epoch), self.stride);
        }
    }

    /// Returns whether every datagram was taken.
    fn depart_singly(&self, desk: &Desk, to: &RawAddress, len: usize) -> bool {
        let mut all = true;
        for datagram in self.buffer[..len].chunks(self.stride) {
            match send(self.socket(desk), to, datagram, None) {
                Ok(()) => self.count_sent(1, datagram.len() as u64),
                Err(error) => {
                    all = false;
                    self.tell_refused(desk, &error);
                    desk.drop_on(self.epoch.drops(), reason_of(&error), 1);
                }
            }
        }
        all
    }
}

/// Tells that the kernel takes no datagrams of `size` to the peer of `epoch`, which is linked directly.
fn tell_too_big(desk: &Desk, epoch: &SendEpoch, size: usize) {
    if let Some(path) = epoch.path().filter(|_| epoch.refuse()) {
        let (host, way) = (epoch.host(), path.way);
        desk.tell(LaneEvent::TooBig { host, way, size: size as u16, limit: None });
    }
}

fn tell_worn(desk: &Desk, epoch: &SendEpoch, worn: bool) {
    if worn {
        desk.tell(LaneEvent::Worn { host: epoch.host(), index: epoch.index() });
    }
}

/// Seals one envelope with `chunk` alone: control chunks are few, and aim where no train goes.
pub(super) fn seal_alone(
    desk: &Desk,
    epoch: &SendEpoch,
    lane: u8,
    chunk: [&[u8]; 2],
    padded: usize,
) -> Result<Vec<u8>, DropReason> {
    let len = (OVERHEAD + chunk[0].len() + chunk[1].len()).max(padded);
    if len > MAX_DATAGRAM {
        return Err(DropReason::TooBigForPath);
    }
    let (counter, worn) = epoch.use_counter(lane)?;
    let mut datagram = Vec::with_capacity(len);
    datagram.extend([0; HEADER_LEN]);
    datagram.extend(chunk[0]);
    datagram.extend(chunk[1]);
    datagram.resize(len.max(datagram.len() + TAG_LEN), 0);
    epoch.key().seal(Header { lane, index: epoch.index(), counter }, &mut datagram);
    tell_worn(desk, epoch, worn);
    Ok(datagram)
}

/// Sends one envelope of `epoch` at once.
pub(super) fn send_alone(
    desk: &Desk,
    epoch: &SendEpoch,
    to: &Carrier,
    wrap: Option<&Wrap>,
    sealed: Vec<u8>,
) -> Result<(), DropReason> {
    let len = sealed.len() as u64;
    let (lane, hop, datagram) = match wrap {
        None => (desk.lane(), epoch, sealed),
        Some(Wrap { epoch, counters: Counters { lane, .. }, relayed }) => {
            let head = relayed.head(sealed.len() as u16);
            (*lane, &**epoch, seal_alone(desk, epoch, *lane, [&head, &sealed], 0)?)
        }
    };
    match to {
        Carrier::Udp(to) => send(desk.socket_of(lane), to, &datagram, None).map_err(|error| {
            let reason = reason_of(&error);
            let is_usual = hop.path().is_some_and(|path| datagram.len() <= path.datagram.into());
            if reason == DropReason::DatagramTooBig && is_usual {
                tell_too_big(desk, hop, datagram.len());
            }
            reason
        })?,
        Carrier::Tcp(stream) => stream.push_control(&datagram)?,
    }
    epoch.count_sent(1, len);
    Ok(())
}

/// Tries again after an interruption, and after an error that belongs to an earlier datagram.
fn send(socket: &UdpSocket, to: &RawAddress, bytes: &[u8], segment: Option<u16>) -> io::Result<()> {
    const TRIES: usize = 3;
    let mut result = Ok(());
    for _ in 0..TRIES {
        result = sys::send(socket.as_fd(), to, bytes, segment);
        match result.as_ref().map_err(io::Error::raw_os_error) {
            Err(Some(libc::EINTR | libc::ECONNREFUSED)) => {}
            _ => break,
        }
    }
    result
}

/// What a kernel or a device says that does not take UDP_SEGMENT.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP))
}

fn reason_of(error: &io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::SendBufferFull,
        Some(libc::ECONNREFUSED) => DropReason::PortClosed,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL) => {
            DropReason::NoRoute
        }
        Some(libc::EMSGSIZE) => DropReason::DatagramTooBig,
        Some(libc::EPERM | libc::EACCES) => DropReason::SendForbidden,
        _ => DropReason::SendFailed,
    }
}
