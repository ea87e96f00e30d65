//! Sealed datagrams leave: one or a train, by a socket or a stream; and what the kernel says of it.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use weft_router::drop::DropReason;
use weft_router::envelope::{HEADER_LEN, Header, OVERHEAD, TAG_LEN};
use weft_router::stream::MAX_DATAGRAM;

use super::carrier::Carrier;
use super::desk::Desk;
use super::event::LaneEvent;
use super::wrap::{Wrap, tell_worn};
use crate::sys::{self, RawAddress};
use crate::tables::SendEpoch;

/// What one sendmsg with UDP_SEGMENT takes: the longest UDP payload over IPv4.
pub(super) const MAX_BYTES: usize = 65_507;
/// Datagrams of one call; kernels before 6.10 take no more.
pub(super) const MAX_DATAGRAMS: usize = 64;

/// By what a train leaves, and who counts it.
pub(super) struct Departure<'a> {
    pub to: &'a Carrier,
    /// What its envelopes say; the socket of that lane sends them.
    pub lane: u8,
    /// Of the peer.
    pub epoch: &'a SendEpoch,
    /// Of the neighbour that relays, if one does.
    pub hop: Option<&'a SendEpoch>,
}

impl Departure<'_> {
    /// Hands datagrams of `stride` bytes, of which the last may be shorter, to the kernel. What fails is counted.
    pub(super) fn train(&self, desk: &Desk, bytes: &[u8], stride: usize) {
        let count = bytes.len().div_ceil(stride.max(1));
        let to = match self.to {
            Carrier::Udp(to) => to,
            Carrier::Tcp(stream) => match stream.push_train(bytes, stride) {
                Ok(()) => return self.count_sent(count as u64, bytes.len() as u64),
                Err(reason) => return desk.drop_on(self.epoch.drops(), reason, count as u64),
            },
        };
        if count > 1 && desk.shared.gso.load(Ordering::Relaxed) {
            match send(desk.socket_of(self.lane), to, bytes, Some(stride as u16)) {
                Ok(()) => return self.count_sent(count as u64, bytes.len() as u64),
                Err(error) if is_refused(&error) => {}
                Err(error) => {
                    self.tell_refused(desk, &error, stride);
                    return desk.drop_on(self.epoch.drops(), reason_of(&error), count as u64);
                }
            }
            if self.singly(desk, to, bytes, stride) {
                // It was the train that was refused, not its datagrams: never again.
                desk.shared.gso.store(false, Ordering::Relaxed);
                desk.tell(LaneEvent::OffloadLost { what: "UDP_SEGMENT" });
            }
            return;
        }
        self.singly(desk, to, bytes, stride);
    }

    /// Returns whether every datagram was taken.
    fn singly(&self, desk: &Desk, to: &RawAddress, bytes: &[u8], stride: usize) -> bool {
        let mut all = true;
        for datagram in bytes.chunks(stride.max(1)) {
            match send(desk.socket_of(self.lane), to, datagram, None) {
                Ok(()) => self.count_sent(1, datagram.len() as u64),
                Err(error) => {
                    all = false;
                    self.tell_refused(desk, &error, stride);
                    desk.drop_on(self.epoch.drops(), reason_of(&error), 1);
                }
            }
        }
        all
    }

    fn count_sent(&self, datagrams: u64, bytes: u64) {
        self.epoch.count_sent(datagrams, bytes);
        if let Some(hop) = self.hop {
            hop.count_sent(datagrams, bytes);
        }
    }

    fn tell_refused(&self, desk: &Desk, error: &io::Error, stride: usize) {
        if reason_of(error) == DropReason::DatagramTooBig {
            tell_too_big(desk, self.hop.unwrap_or(self.epoch), stride);
        }
    }
}

/// Tells that the kernel takes no datagrams of `size` to the peer of `epoch`, which is linked directly.
fn tell_too_big(desk: &Desk, epoch: &SendEpoch, size: usize) {
    if let Some(path) = epoch.path().filter(|_| epoch.refuse()) {
        let (host, way) = (epoch.host(), path.way);
        desk.tell(LaneEvent::TooBig { host, way, size: size as u16, limit: None });
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
        Some(wrap) => (wrap.counters.lane, &*wrap.epoch, wrap.seal_alone(desk, &sealed)?),
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
