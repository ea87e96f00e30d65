//! A network's tap as a lane sees it: the queue, the table, and what the lane has seen of the network.

use std::io::{self, IoSlice};
use std::sync::Arc;

use weft_api::id::NetworkId;
use weft_router::drop::DropReason;
use weft_router::offload::{GlueLimits, VnetHeader};
use weft_router::switch::{Memory, Table};

use super::desk::Desk;
use super::event::LaneEvent;
use crate::tap::TapQueue;

pub(super) struct Port {
    pub network: NetworkId,
    pub tap: Arc<TapQueue>,
    /// None while the control side has a tap for the network but no table of it.
    pub table: Option<Arc<Table>>,
    pub memory: Memory,
    /// A read has failed for good: neither read nor polled until another tap is attached.
    pub broken: bool,
    uso_segments: u16,
}

impl Port {
    pub(super) fn new(network: NetworkId, tap: Arc<TapQueue>, uso_segments: u16) -> Self {
        Self { network, tap, table: None, memory: Memory::new(), broken: false, uso_segments }
    }

    /// What glued superframes must keep to; nothing is taken without a table.
    #[inline]
    pub(super) fn glue_limits(&self) -> Option<GlueLimits> {
        let (inner_mtu, offloads) = (self.table.as_ref()?.mtu, self.tap.offloads());
        Some(GlueLimits { inner_mtu, offloads, uso_segments: self.uso_segments })
    }

    /// The next frame with its virtio-net header; `None` when there is none.
    #[inline]
    pub(super) fn read(&mut self, desk: &Desk, buffer: &mut [u8]) -> Option<usize> {
        if self.broken {
            return None;
        }
        match self.tap.read(buffer) {
            Ok(0) => None,
            Ok(len) => Some(len),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                None
            }
            Err(error) => {
                self.broken = true;
                desk.drop(DropReason::TapDown);
                tracing::warn!(network = %self.network, %error, "the tap cannot be read any more");
                None
            }
        }
    }

    /// Writes one frame with its virtio-net header.
    #[inline]
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> Result<(), DropReason> {
        write(&self.tap, parts)
    }

    /// Counts a frame that the switch dropped, and tells if that froze a MAC.
    pub(super) fn count_drop(&mut self, desk: &Desk, reason: DropReason) {
        desk.drop(reason);
        self.tell_frozen(desk, reason);
    }

    /// Tells which MAC was frozen, if that is the reason of a drop.
    pub(super) fn tell_frozen(&mut self, desk: &Desk, reason: DropReason) {
        if reason == DropReason::MovesTooOften
            && let Some(frozen) = self.memory.take_frozen()
        {
            desk.tell_unproven(|| LaneEvent::Frozen { network: self.network, frozen });
        }
    }
}

/// Writes a whole frame that this host made itself.
pub(super) fn write_own(tap: &TapQueue, frame: &[u8]) -> Result<(), DropReason> {
    write(tap, &[IoSlice::new(&VnetHeader::default().to_bytes()), IoSlice::new(frame)])
}

#[inline]
fn write(tap: &TapQueue, parts: &[IoSlice<'_>]) -> Result<(), DropReason> {
    tap.write(parts).map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => DropReason::TapFull,
        Some(libc::EINVAL) => DropReason::TapRefused,
        _ => DropReason::TapDown,
    })
}
