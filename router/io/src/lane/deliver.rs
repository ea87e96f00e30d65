//! The last step inwards: pieces glued into superframes, the switch asked, one write to the tap.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use weft_api::id::NetworkId;
use weft_router::drop::DropReason;
use weft_router::offload::plain::{Checksum, arrive};
use weft_router::offload::{Glue, MAX_RUN_PIECES, Place, Push};
use weft_router::switch::{self, Headers, Inbound};

use super::inbound::Surroundings;
use super::port::Port;
use super::ring::Ring;
use crate::tables::{ReceiveEpoch, Tables};

/// Where an envelope came from.
pub(super) struct Origin {
    pub epoch: Arc<ReceiveEpoch>,
    pub lane: u8,
}

/// Pieces of different keys are never glued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Source {
    index: u32,
    lane: u8,
    network: NetworkId,
}

pub(super) struct Deliverer {
    glue: Glue<Source>,
    /// Whose pieces are in the glue.
    epoch: Option<Arc<ReceiveEpoch>>,
}

impl Deliverer {
    pub(super) fn new() -> Self {
        Self { glue: Glue::new(), epoch: None }
    }

    /// Whether bytes in the ring are still needed.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !self.glue.is_empty()
    }

    /// Delivers a whole frame, after what came before it.
    pub(super) fn frame(
        &mut self,
        around: &mut Surroundings<'_>,
        ring: &mut Ring,
        origin: &Origin,
        network: NetworkId,
        checksum: Checksum,
        body: Range<usize>,
    ) -> Result<(), DropReason> {
        self.deliver(around, ring);
        let port = port(around.ports, around.tables, network)?;
        let table = port.table.as_ref().ok_or(DropReason::NetworkUnknown)?;
        let frame = &mut ring.slot()[body];
        let headers = Headers::of(frame)?;
        let layout = *headers.layout();
        headers.check_len(frame.len(), table)?;
        let verdict = switch::inbound(table, &mut port.memory, origin.epoch.host(), &headers, 1, around.now);
        if let Inbound::Drop(reason) = verdict {
            port.tell_frozen(around.desk, reason);
            return Err(reason);
        }
        let vnet = arrive(checksum, Some(&layout), frame, port.tap.offloads())
            .map_err(|_| DropReason::ChecksumImpossible)?;
        port.write(&[IoSlice::new(&vnet.to_bytes()), IoSlice::new(frame)])
    }

    /// Takes a piece; what it does not continue is delivered first.
    #[inline]
    pub(super) fn piece(
        &mut self,
        around: &mut Surroundings<'_>,
        ring: &Ring,
        origin: &Origin,
        network: NetworkId,
        body: Range<usize>,
    ) -> Result<(), DropReason> {
        let limits =
            port(around.ports, around.tables, network)?.glue_limits().ok_or(DropReason::NetworkUnknown)?;
        let source = Source { index: origin.epoch.index(), lane: origin.lane, network };
        let slot = ring.current();
        let place = Place { buffer: slot as u32, start: body.start as u32 };
        let bytes = ring.bytes(slot, body);
        loop {
            let is_first = self.glue.is_empty();
            match self.glue.push(source, &limits, bytes, place) {
                Err(_) => return Err(DropReason::PieceInvalid),
                Ok(Push::EndsRun) => {
                    self.deliver(around, ring);
                    continue;
                }
                Ok(push) => {
                    if is_first {
                        self.epoch = Some(Arc::clone(&origin.epoch));
                    }
                    if push == Push::Complete {
                        self.deliver(around, ring);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Writes what the glue holds.
    #[inline]
    pub(super) fn deliver(&mut self, around: &mut Surroundings<'_>, ring: &Ring) {
        let (Some(run), Some(epoch)) = (self.glue.take(), self.epoch.take()) else { return };
        let desk = around.desk;
        let count = |reason| desk.drop_on(epoch.drops(), reason, 1);
        let judged = port(around.ports, around.tables, run.key().network).and_then(|port| {
            let table = port.table.as_ref().ok_or(DropReason::NetworkUnknown)?;
            let headers = Headers::of(run.headers())?;
            let frames = run.segments() as u32;
            match switch::inbound(table, &mut port.memory, epoch.host(), &headers, frames, around.now) {
                Inbound::Deliver => Ok(&*port),
                Inbound::Drop(reason) => {
                    port.tell_frozen(desk, reason);
                    Err(reason)
                }
            }
        });
        let port = match judged {
            Ok(port) => port,
            Err(reason) => return count(reason),
        };
        run.emit(
            |span| ring.span(span),
            |write| {
                let vnet = write.vnet.to_bytes();
                let mut parts = [IoSlice::new(&[]); MAX_RUN_PIECES + 2];
                parts[0] = IoSlice::new(&vnet);
                parts[1] = IoSlice::new(write.headers);
                for (part, span) in parts[2..].iter_mut().zip(write.payload) {
                    *part = IoSlice::new(ring.span(*span));
                }
                if let Err(reason) = port.write(&parts[..write.payload.len() + 2]) {
                    count(reason);
                }
            },
        );
    }
}

/// The network's tap. Ports are sorted by network.
#[inline]
fn port<'p>(ports: &'p mut [Port], tables: &Tables, network: NetworkId) -> Result<&'p mut Port, DropReason> {
    match ports.binary_search_by_key(&network, |p| p.network) {
        Ok(at) => Ok(&mut ports[at]),
        Err(_) if tables.networks.contains_key(&network) => Err(DropReason::NoTap),
        Err(_) => Err(DropReason::NetworkUnknown),
    }
}
