//! The open trains of a lane, and what they go by: the peer's address, or a neighbour that relays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weft_api::id::HostId;
use weft_router::drop::DropReason;
use weft_router::relay::{RELAY_OVERHEAD, Relayed};
use weft_router::session::Path as Way;
use weft_router::session::mtu::floor;

use super::carrier::Carrier;
use super::desk::Desk;
use super::event::{LaneEvent, WANTED_EVERY};
use super::train::{CAPACITY, Sizes, Train};
use super::wrap::Wrap;
use crate::tables::{Path, Tables};

/// Peers with an open train; one more, and the oldest departs.
const MAX_TRAINS: usize = 16;

/// One train per peer that something goes to in this batch.
pub(super) struct Trains {
    open: Vec<Train>,
    spare: Vec<Box<[u8]>>,
    latest: usize,
    /// Hosts without a session that frames are for, and when that was told.
    wanted: BTreeMap<HostId, Duration>,
}

impl Trains {
    pub(super) fn new() -> Self {
        Self { open: Vec::with_capacity(MAX_TRAINS), spare: Vec::new(), latest: 0, wanted: BTreeMap::new() }
    }

    #[inline]
    pub(super) fn to(
        &mut self,
        desk: &Desk,
        tables: &Tables,
        host: HostId,
    ) -> Result<&mut Train, DropReason> {
        if self.open.get(self.latest).is_none_or(|t| t.epoch().host() != host) {
            self.latest = match self.open.iter().position(|t| t.epoch().host() == host) {
                Some(at) => at,
                None => self.start(desk, tables, host)?,
            };
        }
        Ok(&mut self.open[self.latest])
    }

    /// A session with the host should begin.
    pub(super) fn tell_wanted(&mut self, desk: &Desk, host: HostId, now: Duration) {
        if self.wanted.get(&host).is_some_and(|told| now < *told + WANTED_EVERY) {
            return;
        }
        self.wanted.retain(|_, told| now < *told + WANTED_EVERY);
        self.wanted.insert(host, now);
        desk.tell_unproven(|| LaneEvent::Wanted { host });
    }

    pub(super) fn flush(&mut self, desk: &Desk) {
        for mut train in self.open.drain(..) {
            train.flush(desk);
            self.spare.push(train.into_buffer());
        }
    }

    fn start(&mut self, desk: &Desk, tables: &Tables, host: HostId) -> Result<usize, DropReason> {
        let epoch = tables.sends.get(&host).ok_or(DropReason::NoSession)?;
        let found = epoch.path().ok_or(DropReason::NoPath).and_then(|Path { way, datagram }| {
            let found = way_of(desk, tables, host, way)?;
            Ok((found, floor(way), datagram))
        });
        let ((to, wrap, most), floor, datagram) = match found {
            Ok(found) => found,
            Err(reason) => {
                epoch.drops().count(reason);
                return Err(reason);
            }
        };
        if self.open.len() == MAX_TRAINS {
            let mut oldest = self.open.remove(0);
            oldest.flush(desk);
            self.spare.push(oldest.into_buffer());
        }
        let buffer = self.spare.pop().unwrap_or_else(|| vec![0; CAPACITY].into_boxed_slice());
        let sizes = Sizes { datagram: datagram.min(most), floor };
        self.open.push(Train::new(desk, Arc::clone(epoch), (to, wrap), sizes, buffer));
        Ok(self.open.len() - 1)
    }
}

/// Where datagrams for `host` go, what they are wrapped in, and how long they may be because of that. Only a host that is linked
/// directly relays.
pub(super) fn way_of(
    desk: &Desk,
    tables: &Tables,
    host: HostId,
    way: Way,
) -> Result<(Carrier, Option<Wrap>, u16), DropReason> {
    let Way::Relay(hop) = way else { return Ok((Carrier::of(desk, way)?, None, u16::MAX)) };
    let epoch = tables.sends.get(&hop).ok_or(DropReason::NoPath)?;
    let first = epoch.path().filter(|path| path.way.is_direct()).ok_or(DropReason::NoPath)?;
    let to = Carrier::of(desk, first.way)?;
    let lane = match to {
        Carrier::Udp(_) if epoch.hears(desk.lane()) => desk.lane(),
        _ => 0,
    };
    let relayed = Relayed::new(tables.relay.me, host);
    let most = first.datagram.saturating_sub(RELAY_OVERHEAD as u16);
    Ok((to, Some(Wrap::new(Arc::clone(epoch), lane, relayed)), most))
}
