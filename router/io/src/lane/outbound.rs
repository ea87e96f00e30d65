//! From the taps to the mesh: read, decide, cut or pack, seal into the train of the peer.

use std::sync::Arc;
use std::time::Duration;

use weft_api::id::{HostId, NetworkId};
use weft_router::drop::DropReason;
use weft_router::offload::plain::{Checksum, settle};
use weft_router::offload::{Cut, CutError, Merge, Merged, Offer, VnetHeader, segment};
use weft_router::switch::{self, Headers, Outbound, Table, TooBig, group, ties};

use super::desk::Desk;
use super::event::LaneEvent;
use super::held::{Frame, Held, Load};
use super::port::{Port, write_own};
use super::sockets::MAX_LANES;
use super::train::Train;
use super::trains::Trains;
use crate::tables::Tables;

/// Frames read from one tap before the lane looks at the socket again.
const TAP_READS: usize = 64;
/// A virtio-net header and the longest frame that a tap gives.
const TAP_BUFFER: usize = VnetHeader::LEN + 65_535 + 64;

/// The outbound half.
pub(super) struct Outbox {
    merge: Merge,
    buffer: Box<[u8]>,
    superframes: u16,
    held: Held,
}

impl Outbox {
    pub(super) fn new(lane: u8) -> Self {
        Self {
            merge: Merge::new(),
            buffer: vec![0; TAP_BUFFER].into_boxed_slice(),
            superframes: first_superframe(lane),
            held: Held::default(),
        }
    }

    /// Sends what waited for a session that there is now. `ports` are sorted by network.
    pub(super) fn send_held(
        &mut self,
        desk: &Desk,
        tables: &Tables,
        ports: &mut [Port],
        trains: &mut Trains,
        now: Duration,
    ) {
        let Self { superframes, held, .. } = self;
        for (host, frame) in held.leave(tables) {
            let Frame { network, load, bytes } = frame;
            let port = ports.binary_search_by_key(&network, |p| p.network).map(|at| &mut ports[at]);
            let (Ok(port), Some(table)) = (port, tables.networks.get(&network)) else {
                desk.drop(DropReason::NetworkUnknown);
                continue;
            };
            let mut sender = Sender { desk, tables, table, port, trains, superframes, held, now };
            if let Err(reason) = sender.send_as(Outbound::To(host), load, &bytes) {
                sender.port.count_drop(desk, reason);
            }
        }
    }

    /// What waits for this host waits in vain.
    pub(super) fn give_up(&mut self, desk: &Desk, host: HostId) {
        self.held.give_up(desk, host);
    }

    /// Lets go of what has waited too long; when that is due again.
    pub(super) fn expire(&mut self, desk: &Desk, now: Duration) -> Option<Duration> {
        self.held.expire(desk, now);
        self.held.next_expiry()
    }

    /// Reads what the tap of `port` has. Returns whether there was anything.
    pub(super) fn read(
        &mut self,
        desk: &Desk,
        tables: &Tables,
        port: &mut Port,
        trains: &mut Trains,
        now: Duration,
    ) -> bool {
        let Self { merge, buffer, superframes, held } = self;
        let table = port.table.clone();
        let mut any = false;
        for _ in 0..TAP_READS {
            let Some(len) = port.read(desk, buffer) else { break };
            any = true;
            let Some(table) = &table else {
                desk.drop(DropReason::NetworkUnknown);
                continue;
            };
            let Some((vnet, _)) = VnetHeader::parse(&buffer[..len]) else {
                desk.drop(DropReason::TapGarbage);
                continue;
            };
            let frame = &mut buffer[VnetHeader::LEN..len];
            Sender { desk, tables, table, port, trains, superframes, held, now }.offer(merge, &vnet, frame);
        }
        if let Some(table) = &table {
            Sender { desk, tables, table, port, trains, superframes, held, now }.send_merged(merge);
        }
        any
    }
}

/// All that one frame on its way out needs.
struct Sender<'a> {
    desk: &'a Desk,
    tables: &'a Tables,
    table: &'a Table,
    port: &'a mut Port,
    trains: &'a mut Trains,
    superframes: &'a mut u16,
    held: &'a mut Held,
    now: Duration,
}

impl Sender<'_> {
    /// Holds the frame for company, or sends it after what was held.
    #[inline]
    fn offer(&mut self, merge: &mut Merge, vnet: &VnetHeader, frame: &mut [u8]) {
        if vnet.is_superframe() {
            self.send_merged(merge);
            return self.send(vnet, frame);
        }
        let mut offer = merge.offer(vnet, frame);
        if offer == Offer::Flush {
            self.send_merged(merge);
            offer = merge.offer(vnet, frame);
        }
        if offer != Offer::Taken {
            self.send(vnet, frame);
        }
    }

    fn send_merged(&mut self, merge: &mut Merge) {
        if let Some(Merged { vnet, frame }) = merge.take() {
            self.send(&vnet, frame);
        }
    }

    fn send(&mut self, vnet: &VnetHeader, frame: &mut [u8]) {
        if let Err(reason) = self.try_send(vnet, frame) {
            self.port.count_drop(self.desk, reason);
        }
    }

    /// Drops that belong to one copy are counted here; those of the whole frame are the error.
    #[inline]
    fn try_send(&mut self, vnet: &VnetHeader, frame: &mut [u8]) -> Result<(), DropReason> {
        let headers = Headers::of(frame)?;
        let layout = *headers.layout();
        let frames = match vnet.is_superframe() {
            true => frame.len().div_ceil(usize::from(vnet.gso_size).max(1)) as u32,
            false => {
                headers.check_len(frame.len(), self.table)?;
                1
            }
        };
        let verdict = switch::outbound(self.table, &mut self.port.memory, &headers, frames, self.now);
        match verdict {
            Outbound::Drop(reason) => return Err(reason),
            Outbound::Answer(holder, reason) => {
                if let Some(answer) = switch::answer(&headers, holder) {
                    write_own(&self.port.tap, &answer)?;
                }
                return Err(reason);
            }
            Outbound::Probe => {
                if let Some(probe) = ties::read(frame) {
                    self.desk.tell_unproven(|| LaneEvent::Bridged { network: self.table.network, probe });
                }
                return Err(DropReason::BridgeProbe);
            }
            Outbound::Heard(hosts) => {
                let heard = group::heard(&layout, frame).unwrap_or_default();
                let network = self.table.network;
                self.desk.tell_unproven(|| LaneEvent::Groups { network, heard });
                if hosts.is_empty() {
                    return Err(DropReason::MembershipNoted);
                }
            }
            Outbound::To(_) | Outbound::Copies(_) => {}
        }
        let checksum = match vnet.is_superframe() {
            true => None,
            false => Some(settle(vnet, Some(&layout), frame).map_err(|_| DropReason::ChecksumImpossible)?),
        };
        self.send_as(verdict, Load { vnet: *vnet, checksum }, frame)
    }

    /// Sends a frame whose checksum is settled to all that the verdict names.
    #[inline]
    fn send_as(&mut self, verdict: Outbound<'_>, load: Load, frame: &[u8]) -> Result<(), DropReason> {
        let vnet = &load.vnet;
        if let Some(checksum) = load.checksum {
            let narrow =
                self.each_copy(verdict, load, frame, |desk, network, train, _, _| match train.room() {
                    room if frame.len() > room => Ok(Fit::Not),
                    _ => train.push_frame(desk, network, checksum, frame).map(|()| Fit::Sent),
                });
            for host in narrow {
                self.send_too_big(host, checksum, vnet, frame)?;
            }
        } else {
            *self.superframes = self.superframes.wrapping_add(1);
            let narrow =
                self.each_copy(verdict, load, frame, |desk, network, train, mtu, id| {
                    match Cut::new(vnet, frame, train.cut_limits(mtu), id) {
                        Ok(cut) => train.push_pieces(desk, network, &cut).map(|()| Fit::Sent),
                        Err(CutError::UdpTooBig { .. }) => Ok(Fit::Not),
                        Err(error) => Err(reason_of(error)),
                    }
                });
            for host in narrow {
                self.send_segments(host, vnet, frame)?;
            }
        }
        Ok(())
    }

    /// Sends a frame to a host whose path it does not fit.
    #[cold]
    fn send_too_big(
        &mut self,
        host: HostId,
        checksum: Checksum,
        vnet: &VnetHeader,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let (desk, table) = (self.desk, self.table);
        let headers = Headers::of(frame)?;
        let train = self.trains.to(desk, self.tables, host)?;
        // One segment of TCP is a superframe of one, as long as nobody has computed its checksum.
        let whole = vnet.of_one_segment(headers.layout()).filter(|_| checksum == Checksum::NotComputed);
        if let Some(whole) = whole
            && let Ok(cut) = Cut::new(&whole, frame, train.cut_limits(table.mtu), *self.superframes)
        {
            *self.superframes = self.superframes.wrapping_add(1);
            return train.push_pieces(desk, table.network, &cut);
        }
        if !train.is_settled() {
            // Who is told remembers it for ten minutes.
            return train.push_fragments(desk, table.network, checksum, frame);
        }
        match switch::too_big(table, &mut self.port.memory, &headers, train.room(), self.now) {
            TooBig::Cut => train.push_fragments(desk, table.network, checksum, frame),
            TooBig::Drop => Err(DropReason::TooBigForPath),
            TooBig::Tell(answer) => {
                write_own(&self.port.tap, &answer)?;
                Err(DropReason::TooBigForPath)
            }
        }
    }

    /// Sends the datagrams of a UDP superframe to a host for whose path each is too big: their boundaries are content.
    #[cold]
    fn send_segments(&mut self, host: HostId, vnet: &VnetHeader, frame: &[u8]) -> Result<(), DropReason> {
        let mut segments = Vec::new();
        segment::each(vnet, frame, Checksum::NotComputed, |vnet, headers, payload| {
            segments.push((vnet, [headers, payload].concat()));
        })
        .map_err(reason_of)?;
        for (vnet, mut frame) in segments {
            let layout = *Headers::of(&frame)?.layout();
            let checksum =
                settle(&vnet, Some(&layout), &mut frame).map_err(|_| DropReason::ChecksumImpossible)?;
            let train = self.trains.to(self.desk, self.tables, host)?;
            if frame.len() <= train.room() {
                train.push_frame(self.desk, self.table.network, checksum, &frame)?;
            } else {
                self.send_too_big(host, checksum, &vnet, &frame)?;
            }
        }
        Ok(())
    }

    /// Returns the hosts whose path it does not fit.
    #[inline]
    fn each_copy(
        &mut self,
        verdict: Outbound<'_>,
        load: Load,
        frame: &[u8],
        mut push: impl FnMut(&Desk, NetworkId, &mut Train, u16, u16) -> Result<Fit, DropReason>,
    ) -> Vec<HostId> {
        let (desk, network, mtu, id) = (self.desk, self.table.network, self.table.mtu, *self.superframes);
        let now = self.now;
        let mut narrow = Vec::new();
        let mut shared: Option<Arc<[u8]>> = None;
        let mut copy = |host: HostId| match self.trains.to(desk, self.tables, host) {
            Ok(train) => {
                train.epoch().carry();
                match push(desk, network, train, mtu, id) {
                    Ok(Fit::Sent) => {}
                    Ok(Fit::Not) => narrow.push(host),
                    Err(reason) => desk.drop_on(train.epoch().drops(), reason, 1),
                }
            }
            Err(DropReason::NoSession) => {
                self.trains.tell_wanted(desk, host, now);
                if let Err(reason) = self.held.enter(now, host, (network, load), frame, &mut shared) {
                    desk.drop(reason);
                }
            }
            Err(reason) => desk.drop(reason),
        };
        match verdict {
            Outbound::To(host) => copy(host),
            Outbound::Copies(hosts) | Outbound::Heard(hosts) => {
                let tied = &self.table.tied;
                hosts.iter().copied().filter(|host| !tied.contains(host)).for_each(copy);
            }
            Outbound::Answer(..) | Outbound::Probe | Outbound::Drop(_) => {}
        }
        narrow
    }
}

/// Whether a frame fits the path to a host.
enum Fit {
    Sent,
    Not,
}

/// Lanes may send under one number (that of lane 0): their superframes are told apart by where they begin to count.
fn first_superframe(lane: u8) -> u16 {
    u16::from(lane) * (u16::MAX / MAX_LANES as u16 + 1)
}

fn reason_of(error: CutError) -> DropReason {
    match error {
        CutError::UdpTooBig { .. } | CutError::PathTooSmall { .. } => DropReason::TooBigForPath,
        _ => DropReason::SuperframeInvalid,
    }
}
