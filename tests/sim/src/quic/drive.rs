//! QUIC in a world: what the session layer wants of it, what it sends, and what becomes of what it tells.

use std::net::SocketAddr;

use weft_api::id::HostId;
use weft_router::drop::DropReason;
use weft_router::session::message::Message;
use weft_router::session::{ConnectionId, Event, Remote, Why};

use super::line::News;
use super::{Now, Packet, Quic};
use crate::datagram::{Body, Datagram};
use crate::host::host_key;
use crate::world::{Due, World};

impl World {
    /// From now on, and before anything begins: QUIC, envelopes and relaying are the product's own, byte by byte.
    pub fn use_quinn(&mut self) {
        self.quinn = true;
        for n in 0..self.hosts.len() {
            self.hosts[n].quic = self.quic_of(n, self.hosts[n].life);
        }
    }

    /// A new endpoint for a host in one of its lives, if the world is one of those.
    pub(crate) fn quic_of(&self, n: usize, life: u32) -> Option<Box<Quic>> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&((n as u64) << 32 | u64::from(life)).to_be_bytes());
        let quic = self.quinn.then(|| Quic::new(&host_key(n), seed))?;
        Some(Box::new(quic.expect("the product's own settings are taken by TLS and quinn")))
    }

    fn at(&self) -> Now {
        Now { now: self.now, instant: self.base + self.now }
    }

    fn stir(&mut self, n: usize, line: Option<usize>) {
        self.stirred.extend(line.map(|line| (n, line)));
    }

    pub(crate) fn dial_quic(&mut self, n: usize, id: ConnectionId) {
        let (at, host) = (self.at(), &mut self.hosts[n]);
        let (Some(quic), Some((peer, path))) = (&mut host.quic, host.peers.get(&id)) else { return };
        let line = quic.dial(at, id, path.to(*peer));
        self.stir(n, line);
    }

    pub(crate) fn close_quic(&mut self, n: usize, id: ConnectionId, why: Why) {
        let (at, host) = (self.at(), &mut self.hosts[n]);
        let Some(quic) = &mut host.quic else { return };
        let line = quic.close(at, id, why);
        if line.is_none() {
            host.peers.remove(&id);
        }
        self.stir(n, line);
    }

    pub(crate) fn tell_quic(&mut self, n: usize, id: ConnectionId, message: &Message) {
        let Some((handle, line)) = self.hosts[n].quic.as_mut().and_then(|quic| quic.line(id)) else { return };
        line.tell(message);
        self.stir(n, Some(handle));
    }

    /// Whether a connection takes another message now.
    pub(crate) fn takes_more(&mut self, n: usize, id: ConnectionId) -> bool {
        match &mut self.hosts[n].quic {
            Some(quic) => quic.line(id).is_some_and(|(_, line)| line.takes_more()),
            None => true,
        }
    }

    /// A packet came, bare.
    pub(crate) fn bare(&mut self, n: usize, from: Remote, packet: &[u8]) {
        let Some(quic) = &mut self.hosts[n].quic else { return };
        match quic.bindings.bare(from, packet) {
            Ok(addresses) => {
                for address in addresses {
                    self.hand_quic(n, address, packet);
                }
            }
            Err(reason) => self.hosts[n].count(reason, 1),
        }
    }

    /// A packet came in an authentic envelope.
    pub(crate) fn enveloped(&mut self, n: usize, index: u32, packet: &[u8]) {
        let address = self.hosts[n].quic.as_ref().and_then(|quic| quic.bindings.enveloped(index));
        match address {
            Some(address) => self.hand_quic(n, address, packet),
            None => self.hosts[n].count(DropReason::ConnectionGone, 1),
        }
    }

    fn hand_quic(&mut self, n: usize, address: SocketAddr, packet: &[u8]) {
        let (at, mut out) = (self.at(), Vec::new());
        let Some(quic) = &mut self.hosts[n].quic else { return };
        match quic.handle(at, address, packet, &mut out) {
            Ok(line) => self.stir(n, line),
            Err(reason) => self.hosts[n].count(reason, 1),
        }
        self.leave(n, out);
    }

    /// Packets leave, bare or in envelopes of their connection.
    fn leave(&mut self, n: usize, packets: Vec<Packet>) {
        for (address, packet) in packets {
            let way = self.hosts[n].quic.as_mut().and_then(|quic| quic.bindings.way(address, &packet));
            match way {
                None => self.hosts[n].count(DropReason::ConnectionGone, 1),
                Some((remote, None)) => self.datagram(n, remote, Datagram::Bytes(packet.into())),
                Some((_, Some(id))) => {
                    if let Some((peer, path)) = self.hosts[n].peers.get(&id).copied() {
                        self.seal(n, id, path.to(peer), Body::Quic(packet.into()));
                    }
                }
            }
        }
    }

    /// QUIC does what it has been told, everywhere.
    pub(crate) fn drive_quic(&mut self) {
        while let Some((n, line)) = self.stirred.pop_first() {
            let at = self.at();
            let host = &mut self.hosts[n];
            let Some(quic) = host.quic.as_mut().filter(|_| host.alive) else { continue };
            let (packets, news) = quic.drive(at, line);
            self.leave(n, packets);
            for news in news {
                self.learn(n, line, news);
            }
            if let Some(quic) = &mut self.hosts[n].quic {
                quic.clear(line);
            }
            self.set_quic_alarm(n);
        }
    }

    fn learn(&mut self, n: usize, line: usize, news: News) {
        let id = self.hosts[n].quic.as_ref().and_then(|quic| quic.lines.get(&line)).and_then(|l| l.id);
        match (id, news) {
            (_, News::Proven(key)) => self.proven(n, line, key.id()),
            (Some(id), News::Said(message)) => {
                if let Some((peer, _)) = self.hosts[n].peers.get(&id).copied() {
                    self.told(n, id, peer, &message);
                }
            }
            (Some(id), News::TakesMore) => {
                let peer = self.hosts[n].used.iter().find(|(_, used)| **used == id).map(|(peer, _)| *peer);
                peer.into_iter().for_each(|peer| self.send_gossip(n, peer));
            }
            (Some(id), News::Garbled) => {
                self.broken.push(format!("host {n} is told what no host says: {id:?}"));
                self.close_quic(n, id, Why::Garbled);
            }
            (Some(id), News::Ended(why)) => self.session(n, Event::Lost(id, why)),
            (None, News::Ended(_) | News::Garbled) => {
                self.hosts[n].count(DropReason::HandshakeFailed, 1);
            }
            (None, News::Said(_) | News::TakesMore) => {}
        }
    }

    fn set_quic_alarm(&mut self, n: usize) {
        let (now, base) = (self.now, self.base);
        let Some(quic) = &mut self.hosts[n].quic else { return };
        let Some(at) = quic.next_wake(base).map(|at| at.max(now)) else { return };
        if quic.wakes.is_none_or(|pending| pending < now || at < pending) {
            quic.wakes = Some(at);
            self.later(n, at - now, Due::Quic);
        }
    }

    /// Time has passed for a host's QUIC.
    pub(crate) fn tick_quic(&mut self, n: usize) {
        let at = self.at();
        let Some(quic) = &mut self.hosts[n].quic else { return };
        if quic.wakes.is_none_or(|wakes| wakes > at.now) {
            return; // An earlier one has come instead.
        }
        quic.wakes = None;
        let (busy, late) = quic.tick(at);
        self.stirred.extend(busy.into_iter().map(|line| (n, line)));
        for line in late {
            self.give_up(n, line);
        }
        self.set_quic_alarm(n);
    }

    /// A handshake has taken too long.
    fn give_up(&mut self, n: usize, line: usize) {
        let Some(quic) = &mut self.hosts[n].quic else { return };
        let id = quic.lines.get(&line).and_then(|l| l.id);
        quic.abandon(line);
        match id {
            Some(id) => self.session(n, Event::Lost(id, None)),
            None => self.hosts[n].count(DropReason::HandshakeFailed, 1),
        }
    }

    /// The other end of a connection has proven who it is.
    fn proven(&mut self, n: usize, line: usize, peer: HostId) {
        let host = &mut self.hosts[n];
        let Some(quic) = &mut host.quic else { return };
        let Some(at) = quic.lines.get_mut(&line) else { return };
        if let Some(id) = at.id {
            if let Some((known, _)) = host.peers.get_mut(&id) {
                *known = peer;
            }
            self.present(n, id);
            return self.session(n, Event::Reached(id, peer));
        }
        let Some(from) = quic.bindings.remote(at.connection.remote_address()) else { return };
        let id = host.sessions.new_connection();
        at.id = Some(id);
        quic.by_id.insert(id, line);
        host.peers.insert(id, (peer, from.path()));
        self.present(n, id);
        self.session(n, Event::Accepted(id, peer, from.path()));
    }
}
