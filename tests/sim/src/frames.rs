//! Frames between endpoints, and the reference model: who must get each of them, who may, and how often.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use weft_api::id::{HostId, Mac};
use weft_router::drop::DropReason;
use weft_router::session;
use weft_router::switch::{self, Headers, Inbound, Outbound};

use crate::datagram::Body;
use crate::world::World;

/// One endpoint: its host, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The host.
    pub host: usize,
    /// The network's number.
    pub network: usize,
    /// Which of the host's endpoints on that network, from 0.
    pub nth: u8,
}

impl Place {
    /// Host n holds the nth block of 64 addresses of each range.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        let [a, b] = (self.host as u16 * 64 + 2 + u16::from(self.nth)).to_be_bytes();
        Ipv4Addr::new(10, 32 + self.network as u8, a, b)
    }

    /// As Docker is told.
    #[must_use]
    pub fn mac(self) -> Mac {
        Mac::of_ipv4(self.address())
    }
}

/// An Ethernet frame with an IPv4 UDP datagram that carries `number`; to everybody without a target.
#[must_use]
pub fn frame(number: u32, from: Place, to: Option<Place>) -> Vec<u8> {
    let target = to.map_or(Mac::BROADCAST, Place::mac);
    let destination = to.map_or(Ipv4Addr::BROADCAST, Place::address);
    let mut frame = [&target.0[..], &from.mac().0, &[8, 0]].concat();
    frame.extend([0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.address().octets());
    frame.extend(destination.octets());
    frame.extend([0, 7, 0, 7, 0, 12, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame
}

/// The number that a frame carries.
#[must_use]
pub fn number_of(frame: &[u8]) -> u32 {
    let tail = frame.last_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(tail)
}

/// What was sent, and who got it.
#[derive(Debug)]
pub struct Sent {
    /// From.
    pub from: Place,
    /// To one, or to everybody on the network.
    pub to: Option<Place>,
    /// How often each host got it.
    pub got: BTreeMap<usize, u32>,
}

impl World {
    /// An endpoint sends a frame, to one or to everybody.
    pub fn send_frame(&mut self, from: Place, to: Option<Place>) {
        let number = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        self.sent.push(Sent { from, to, got: BTreeMap::new() });
        if !self.hosts[from.host].alive {
            return;
        }
        let bytes: Rc<[u8]> = frame(number, from, to).into();
        let Ok(headers) = Headers::of(&bytes) else { return };
        let host = &mut self.hosts[from.host];
        let Some((table, memory)) = host.tables.get_mut(from.network) else { return };
        let to: Vec<HostId> = match switch::outbound(table, memory, &headers, 1, self.now) {
            Outbound::To(host) => vec![host],
            Outbound::Copies(hosts) | Outbound::Heard(hosts) => hosts.iter().copied().collect(),
            Outbound::Probe => return,
            Outbound::Answer(_, reason) | Outbound::Drop(reason) => {
                *host.counts.entry(reason).or_default() += 1;
                return;
            }
        };
        for peer in to {
            if self.hosts[from.host].used.contains_key(&peer) {
                self.seal_frame(from.host, peer, from.network, Rc::clone(&bytes));
            } else {
                let host = &mut self.hosts[from.host];
                let waits =
                    host.held.enter(self.now, peer, bytes.len(), || (from.network, Rc::clone(&bytes)));
                waits.unwrap_or_else(|reason| host.count(reason, 1));
                self.session(from.host, session::Event::Wanted(peer));
            }
        }
    }

    /// There is a session: what waited for it goes.
    pub(crate) fn send_held(&mut self, n: usize, peer: HostId) {
        let host = &mut self.hosts[n];
        let too_old = host.held.expire(self.now);
        host.count(DropReason::WaitedTooLong, too_old);
        for (network, bytes) in self.hosts[n].held.leave(peer).collect::<Vec<_>>() {
            self.seal_frame(n, peer, network, bytes);
        }
    }

    fn seal_frame(&mut self, n: usize, peer: HostId, network: usize, bytes: Rc<[u8]>) {
        let Some(connection) = self.hosts[n].used.get(&peer).copied() else { return };
        let Some(path) = self.hosts[n].path(peer) else { return };
        self.seal(n, connection, path.to(peer), Body::Frame(network, bytes));
    }

    /// A frame came sealed from a host.
    pub(crate) fn deliver(&mut self, n: usize, sender: usize, network: usize, bytes: &[u8]) {
        let Ok(headers) = Headers::of(bytes) else { return };
        let (from, host) = (self.ids[sender], &mut self.hosts[n]);
        let Some((table, memory)) = host.tables.get_mut(network) else { return };
        match switch::inbound(table, memory, from, &headers, 1, self.now) {
            Inbound::Drop(reason) => *host.counts.entry(reason).or_default() += 1,
            Inbound::Deliver => {
                let number = number_of(bytes);
                let Some(sent) = self.sent.get_mut(number as usize) else { return };
                let times = sent.got.entry(n).or_default();
                *times += 1;
                // Until facts name the target a frame may go to everybody on the network, but never twice.
                let meant = sent.from.network == network;
                if *times > 1 || !meant || n == sent.from.host {
                    self.broken.push(format!(
                        "frame {number} {:?} -> {:?} came to host {n}, {times} times",
                        sent.from, sent.to
                    ));
                }
            }
        }
    }
}
