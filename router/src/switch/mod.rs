//! The switch: what becomes of a frame. Decides only; the lane acts.
//!
//! Per network a [`Table`] of what facts and decisions say, replaced whole by the control side, and a [`Memory`] of what
//! the lane has seen itself, bounded. Facts outrank memory (PROTOCOL 7).

pub(crate) mod allowance;
mod answer;
pub mod group;
mod memory;
mod table;
#[cfg(test)]
mod tests;
pub mod ties;
mod too_big;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use weft_api::id::{HostId, Mac};

use crate::drop::DropReason;
use crate::frame::{Claim, ETHERNET_LEN, Layout, destination_mac, source_mac};

pub use allowance::{COUNTED_EACH, Rate};
pub use answer::answer;
use group::Heard;
pub use memory::{
    Frozen, LEARNED_LIFE, LEARNED_PER_HOST, MEMBER_FLOODS, MEMBERSHIPS_HEARD, MOVE_LIMIT, MOVE_WINDOW,
    Memory, SOURCE_FLOODS, TOO_BIG_TOLD,
};
pub use table::{Block, Members, Owner, Table};
pub use too_big::{TooBig, too_big};

const VLAN_TAG_LEN: usize = 4;
/// 01:80:c2:00:00:0x: protocols between a bridge and its neighbour (IEEE 802.1Q 8.6.3).
const LINK_LOCAL: [u8; 5] = [0x01, 0x80, 0xc2, 0, 0];

/// What becomes of a frame of our own tap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outbound<'t> {
    /// To this host.
    To(HostId),
    /// A copy to each of these: all that have the network, or those that listen to a group.
    Copies(&'t BTreeSet<HostId>),
    /// The control side must read it ([`ties::read`]): it came out of another bridge, and goes nowhere.
    Probe,
    /// The control side must hear what it says of groups ([`group::heard`]); and a copy to each of these.
    Heard(&'t BTreeSet<HostId>),
    /// It asks for the address of another host's endpoint, the one with this MAC: [`answer`] goes back into the tap, and the
    /// frame nowhere; it counts as dropped for this reason.
    Answer(Mac, DropReason),
    /// Nowhere.
    Drop(DropReason),
}

/// What becomes of a frame from the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inbound {
    /// To our own tap, and nowhere else: a frame from the mesh never goes back into it.
    Deliver,
    /// Nowhere.
    Drop(DropReason),
}

/// A frame, or the headers of a superframe, with where its headers lie.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'f> {
    destination: Mac,
    source: Mac,
    layout: Layout,
    frame: &'f [u8],
}

impl<'f> Headers<'f> {
    /// `frame` is a whole frame, or at least all headers of one.
    #[inline]
    pub fn of(frame: &'f [u8]) -> Result<Self, DropReason> {
        let layout = Layout::parse(frame).ok_or(DropReason::FrameTooShort)?;
        let (Some(destination), Some(source)) = (destination_mac(frame), source_mac(frame)) else {
            return Err(DropReason::FrameTooShort);
        };
        Ok(Self { destination: Mac(destination), source: Mac(source), layout, frame })
    }

    /// Where the headers lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The multicast group that it is for, by its MAC (RFC 1112 6.4, RFC 2464 7) and its IP address, if it is one that is
    /// followed. What is in a VLAN is not.
    fn group(&self) -> Option<IpAddr> {
        let by_mac = matches!(self.destination.0, [1, 0, 0x5e, ..] | [0x33, 0x33, ..]);
        let group = self.layout.destination_ip(self.frame)?;
        (by_mac && self.layout.vlan_tags == 0 && group::is_followed(group)).then_some(group)
    }

    /// Checks that a frame of `len` bytes fits the network, which a superframe need not.
    pub fn check_len(&self, len: usize, table: &Table) -> Result<(), DropReason> {
        let most = ETHERNET_LEN + VLAN_TAG_LEN * usize::from(self.layout.vlan_tags) + usize::from(table.mtu);
        if len > most { Err(DropReason::FrameTooLong) } else { Ok(()) }
    }
}

/// Decides over a frame, or over `frames` that were merged, read from this host's tap of `table`'s network.
#[inline]
pub fn outbound<'t>(
    table: &'t Table,
    memory: &mut Memory,
    headers: &Headers<'_>,
    frames: u32,
    now: Duration,
) -> Outbound<'t> {
    let mut decide = || {
        check_source(table, memory, headers, Owner::Here, now)?;
        let place = match table.endpoints.get(&headers.destination) {
            Some(owner) => Some(*owner),
            None if headers.destination.is_group() => None,
            None => memory.place_of(headers.destination, now),
        };
        match place {
            Some(Owner::Here) => Err(DropReason::StaysHere),
            Some(Owner::Host(host)) => Ok(Outbound::To(host)),
            None => spread(table, memory, headers, frames, now),
        }
    };
    match decide() {
        Ok(verdict) => verdict,
        Err(reason @ DropReason::AddressNotTheirs) => {
            answer::to_announcement(table, headers).unwrap_or(Outbound::Drop(reason))
        }
        Err(DropReason::BridgeProbe) => match memory.hear(Some(ties::SOURCE), now) {
            Ok(()) => Outbound::Probe,
            Err(reason) => Outbound::Drop(reason),
        },
        Err(reason) => Outbound::Drop(reason),
    }
}

/// Decides over a frame to a group, or to a MAC that nobody here has seen.
fn spread<'t>(
    table: &'t Table,
    memory: &mut Memory,
    headers: &Headers<'_>,
    frames: u32,
    now: Duration,
) -> Result<Outbound<'t>, DropReason> {
    if headers.destination.is_group() {
        if let Some(verdict) = answer::to_question(table, headers) {
            return Ok(verdict);
        }
        if let Some(heard) = group::heard(&headers.layout, headers.frame) {
            return membership(table, memory, headers, &heard, now);
        }
        if let Some(members) = headers.group().and_then(|group| table.groups.get(&group)) {
            let nobody = members.hosts.is_empty();
            return if nobody { Err(DropReason::NobodyElse) } else { Ok(Outbound::Copies(&members.hosts)) };
        }
    }
    if table.hosts.is_empty() {
        return Err(DropReason::NobodyElse);
    }
    let hosts = u32::try_from(table.hosts.len()).unwrap_or(u32::MAX);
    memory.flood(headers.source, frames.saturating_mul(hosts), now)?;
    Ok(Outbound::Copies(&table.hosts))
}

/// Decides over what says something of groups. A report goes only to where a router of the network may be: heard on other
/// hosts, it would keep their members from reporting (RFC 4541 2.1.1). What a router says goes everywhere.
fn membership<'t>(
    table: &'t Table,
    memory: &mut Memory,
    headers: &Headers<'_>,
    heard: &[Heard],
    now: Duration,
) -> Result<Outbound<'t>, DropReason> {
    let known = table.endpoints.contains_key(&headers.source);
    memory.hear(known.then_some(headers.source), now)?;
    let is_report = heard.iter().all(|heard| *heard != Heard::Router);
    let hosts = if is_report { &table.every_group } else { &table.hosts };
    Ok(Outbound::Heard(hosts))
}

/// Decides over a frame of `table`'s network, or over one that was glued of `frames`, that came sealed from the host `from`.
#[inline]
pub fn inbound(
    table: &Table,
    memory: &mut Memory,
    from: HostId,
    headers: &Headers<'_>,
    frames: u32,
    now: Duration,
) -> Inbound {
    let mut decide = || {
        if !table.hosts.contains(&from) {
            return Err(DropReason::NetworkNotTheirs);
        }
        check_source(table, memory, headers, Owner::Host(from), now)?;
        match table.endpoints.get(&headers.destination) {
            Some(Owner::Host(_)) => Err(DropReason::NotHere),
            Some(Owner::Here) => Ok(Inbound::Deliver),
            None if table.tied.contains(&from) => Err(DropReason::Tied),
            None => {
                if !is_awaited(table, memory, headers, now) {
                    memory.flooded_by(from, frames, now)?;
                }
                Ok(Inbound::Deliver)
            }
        }
    };
    decide().unwrap_or_else(Inbound::Drop)
}

/// Whether somebody here is known to want a frame that is for no endpoint's MAC.
fn is_awaited(table: &Table, memory: &Memory, headers: &Headers<'_>, now: Duration) -> bool {
    match headers.destination.is_group() {
        true => {
            headers.group().and_then(|group| table.groups.get(&group)).is_some_and(|members| members.here)
        }
        false => memory.place_of(headers.destination, now) == Some(Owner::Here),
    }
}

/// The rules of both ways: addresses that never cross the mesh, and whose MAC and IP addresses may come from `origin`.
fn check_source(
    table: &Table,
    memory: &mut Memory,
    headers: &Headers<'_>,
    origin: Owner,
    now: Duration,
) -> Result<(), DropReason> {
    let Headers { destination, source, .. } = *headers;
    if source.is_group() || source.0 == [0; 6] {
        return Err(DropReason::SourceInvalid);
    }
    if source == Mac::GATEWAY || destination == Mac::GATEWAY {
        return Err(DropReason::GatewayStays);
    }
    if source == ties::SOURCE {
        return Err(DropReason::BridgeProbe);
    }
    if destination.0[..5] == LINK_LOCAL && destination.0[5] < 0x10 {
        return Err(DropReason::LinkLocal);
    }
    let known = table.endpoints.get(&source);
    if known.is_some_and(|owner| *owner != origin) {
        return Err(DropReason::SourceNotTheirs);
    }
    check_claims(table, headers, origin)?;
    // Last, so that a frame that is dropped teaches nothing.
    if known.is_none() { memory.learn(source, origin, now) } else { Ok(()) }
}

/// Every address that the frame says is its sender's: in IP, ARP and neighbour discovery.
fn check_claims(table: &Table, headers: &Headers<'_>, origin: Owner) -> Result<(), DropReason> {
    let Headers { source, layout, frame, .. } = headers;
    if layout.hides() {
        return Err(DropReason::HeadersHidden);
    }
    if layout.is_router_advertisement(frame) {
        return Err(DropReason::RouterAdvertisement);
    }
    if let Some(ip) = layout.source_ip(frame).filter(|ip| !ip.is_unspecified()) {
        check_claim(table, ip, *source, origin)?;
    }
    for Claim { ip, mac } in [layout.arp_sender(frame), layout.nd_claim(frame)].into_iter().flatten() {
        check_claim(table, ip, Mac(mac), origin)?;
        let another = |owner: &Owner| *owner != origin;
        if Mac(mac) != *source && table.endpoints.get(&Mac(mac)).is_some_and(another) {
            return Err(DropReason::AddressNotTheirs);
        }
    }
    Ok(())
}

fn check_claim(table: &Table, ip: IpAddr, mac: Mac, origin: Owner) -> Result<(), DropReason> {
    let theirs = match table.addresses.get(&ip) {
        Some(holder) => *holder == mac,
        None if table.gateways.contains(&ip) => false,
        // An address without an endpoint: a nested one, or an endpoint whose fact is still on its way.
        None => table.owner_of(ip).is_none_or(|owner| owner == origin),
    };
    if theirs { Ok(()) } else { Err(DropReason::AddressNotTheirs) }
}
