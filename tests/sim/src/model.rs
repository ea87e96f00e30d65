//! QUIC as a model: dials that are answered or not, messages that are sent again until they are heard.

use std::collections::HashSet;
use std::time::Duration;

use weft_router::session::{ConnectionId, DIAL_TIMEOUT, Event, Remote, Why};

use crate::datagram::Datagram;
use crate::wire::{Got, Said, Wire};
use crate::world::{Due, World};

/// What is not acknowledged is sent again so soon, beside the round trip.
const AGAIN: Duration = Duration::from_millis(150);
/// A first packet that is not answered is sent again so soon, then after twice as long, and so on (RFC 9002 6.2.2; a third of it is
/// the first round trip that `router/io` assumes).
const DIAL_AGAIN: Duration = Duration::from_millis(300);
/// What has come is acknowledged so much later, with whatever is sent meanwhile (RFC 9000 18.2), at once if it is the second packet.
const ACKNOWLEDGE: Duration = Duration::from_millis(25);
/// At most so much of a stream is on its way.
const WINDOW: usize = 64;

/// Every connection that there was.
#[derive(Default)]
pub(crate) struct Model {
    wires: Vec<Wire>,
    /// Dials that were answered: of whom, and in which of its lives.
    met: HashSet<(usize, u32, ConnectionId)>,
}

/// What travels.
#[derive(Clone)]
pub(crate) enum Packet {
    Initial { dialler: usize, id: ConnectionId, life: u32 },
    Answer { listener: usize, listener_life: u32, id: ConnectionId, life: u32 },
    Stream { wire: usize, end: usize, number: u64, said: Said, got: Option<Got> },
    Heard { wire: usize, end: usize, got: Got },
}

/// What becomes due.
#[derive(Clone, Copy)]
pub(crate) enum Late {
    /// A dial's first packet, until it is answered or given up; when it is sent again after this.
    Dial(ConnectionId, Duration, Duration),
    /// What a stream's end has not been told is heard.
    Again(usize, usize),
    /// What a stream's end has got is acknowledged, unless it was meanwhile.
    Acknowledge(usize, usize),
}

impl World {
    /// A host dials.
    pub(crate) fn dial_model(&mut self, n: usize, id: ConnectionId) {
        self.dial_again(n, id, self.now + DIAL_TIMEOUT, DIAL_AGAIN);
    }

    /// It closes a connection, or stops dialling.
    pub(crate) fn close_model(&mut self, n: usize, id: ConnectionId, why: Why) {
        if !self.hosts[n].wires.contains_key(&id) {
            self.hosts[n].peers.remove(&id); // A dial that nobody answered.
        }
        self.tell_model(n, id, Said::Close(why));
    }

    /// Something is due.
    pub(crate) fn late_model(&mut self, n: usize, late: Late) {
        match late {
            Late::Dial(id, until, again) => self.dial_again(n, id, until, again),
            Late::Again(wire, end) => self.send_again(n, wire, end),
            Late::Acknowledge(wire, end) => self.acknowledge(n, wire, end),
        }
    }

    /// The dialler's first packet, again and again until it is answered.
    fn dial_again(&mut self, n: usize, id: ConnectionId, until: Duration, again: Duration) {
        let life = self.hosts[n].life;
        if self.now >= until || self.model.met.contains(&(n, life, id)) {
            return;
        }
        if let Some((peer, path)) = self.hosts[n].peers.get(&id).copied() {
            self.packet(n, path.to(peer), Packet::Initial { dialler: n, id, life });
            self.later(n, again, Due::Model(Late::Dial(id, until, again * 2)));
        }
    }

    pub(crate) fn tell_model(&mut self, n: usize, id: ConnectionId, said: Said) {
        let Some(wire) = self.hosts[n].wires.get(&id).copied() else { return };
        let end = self.model.wires[wire].end(n);
        let was_idle = self.model.wires[wire].ends[end].unheard.is_empty();
        let number = self.model.wires[wire].say(end, said.clone());
        self.send_packet(n, wire, end, number, said);
        if was_idle {
            let after = self.timeout();
            self.later(n, after, Due::Model(Late::Again(wire, end)));
        }
    }

    /// What the other end has not acknowledged.
    fn send_again(&mut self, n: usize, wire: usize, end: usize) {
        let unheard: Vec<_> = self.model.wires[wire].ends[end].unheard.iter().take(WINDOW).cloned().collect();
        let id = self.model.wires[wire].ends[end].id;
        let is_young = self.now < self.model.wires[wire].since + DIAL_TIMEOUT;
        let has_keys = self.hosts[n].seals.contains_key(&id) || !self.hosts[n].used.is_empty();
        if unheard.is_empty() || !(is_young || has_keys) {
            return;
        }
        for (number, said) in unheard {
            self.send_packet(n, wire, end, number, said);
        }
        let after = self.timeout();
        self.later(n, after, Due::Model(Late::Again(wire, end)));
    }

    /// QUIC knows the round trip, over a relay or two perhaps.
    fn timeout(&self) -> Duration {
        AGAIN + 6 * (self.underlay.weather.delay + self.underlay.weather.jitter)
    }

    fn send_packet(&mut self, n: usize, wire: usize, end: usize, number: u64, said: Said) {
        let id = self.model.wires[wire].ends[end].id;
        if let Some((peer, path)) = self.hosts[n].peers.get(&id).copied() {
            let waits = self.model.wires[wire].ends[end].unanswered > 0;
            let got = waits.then(|| self.model.wires[wire].got(end));
            self.packet(n, path.to(peer), Packet::Stream { wire, end, number, said, got });
        }
    }

    fn packet(&mut self, n: usize, to: Remote, packet: Packet) {
        self.datagram(n, to, Datagram::Model(packet));
    }

    /// A packet arrives.
    pub(crate) fn hear_model(&mut self, n: usize, from: Remote, packet: Packet) {
        match packet {
            Packet::Initial { dialler, id, life } if self.hosts[dialler].life == life => {
                let listener_life = self.hosts[n].life;
                self.packet(n, from, Packet::Answer { listener: n, listener_life, id, life });
            }
            Packet::Initial { .. } => {}
            Packet::Answer { listener, listener_life, id, life } => {
                let there = &self.hosts[listener];
                let is_live = self.hosts[n].life == life && there.life == listener_life && there.alive;
                if is_live && self.model.met.insert((n, life, id)) {
                    self.meet(n, id, listener);
                }
            }
            Packet::Stream { wire, end, number, said, got } => {
                if let Some(got) = got {
                    self.model.wires[wire].heard(1 - end, &got);
                }
                self.hear(n, from, wire, end, number, said);
            }
            Packet::Heard { wire, end, got } => self.model.wires[wire].heard(end, &got),
        }
    }

    /// A handshake is over for the dialler.
    fn meet(&mut self, dialler: usize, id: ConnectionId, listener: usize) {
        let theirs = self.hosts[listener].sessions.new_connection();
        let ends = [(dialler, id), (listener, theirs)].map(|(n, id)| (n, self.hosts[n].life, id));
        let number = self.model.wires.len();
        self.model.wires.push(Wire::new(self.now, ends[0], ends[1]));
        self.hosts[dialler].wires.insert(id, number);
        let listener_id = self.ids[listener];
        if let Some((peer, _)) = self.hosts[dialler].peers.get_mut(&id) {
            *peer = listener_id;
        }
        self.present(dialler, id);
        self.session(dialler, Event::Reached(id, listener_id));
    }

    /// The first that the listener hears on a connection ends the handshake for it too.
    fn accept(&mut self, n: usize, from: Remote, wire: usize, id: ConnectionId) {
        self.model.wires[wire].accepted = true;
        let dialler = self.ids[self.other_end(wire, n)];
        self.hosts[n].wires.insert(id, wire);
        self.hosts[n].peers.insert(id, (dialler, from.path()));
        self.present(n, id);
        self.session(n, Event::Accepted(id, dialler, from.path()));
    }

    fn hear(&mut self, n: usize, from: Remote, wire: usize, end: usize, number: u64, said: Said) {
        let ours = 1 - end;
        let (host, life, id) = {
            let at = &self.model.wires[wire].ends[ours];
            (at.host, at.life, at.id)
        };
        if host != n || self.hosts[n].life != life {
            return;
        }
        if ours == 1 && !self.model.wires[wire].accepted {
            self.accept(n, from, wire, id);
        }
        let packets = said.packets();
        let ready = self.model.wires[wire].hears(ours, number, said);
        let at = &mut self.model.wires[wire].ends[ours];
        at.unanswered += packets;
        match at.unanswered {
            1 => self.later(n, ACKNOWLEDGE, Due::Model(Late::Acknowledge(wire, ours))),
            _ => self.acknowledge(n, wire, ours),
        }
        let peer = self.ids[self.other_end(wire, n)];
        for said in ready {
            match said {
                Said::Close(why) => self.session(n, Event::Lost(id, Some(why))),
                Said::Message(message, _) => self.told(n, id, peer, &message),
            }
        }
    }

    /// Says what an end has got, if it has not since.
    fn acknowledge(&mut self, n: usize, wire: usize, end: usize) {
        let id = self.model.wires[wire].ends[end].id;
        let Some((peer, path)) = self.hosts[n].peers.get(&id).copied() else { return };
        if self.model.wires[wire].ends[end].unanswered > 0 {
            let got = self.model.wires[wire].got(end);
            self.packet(n, path.to(peer), Packet::Heard { wire, end: 1 - end, got });
        }
    }

    /// Whom a wire joins to this host.
    fn other_end(&self, wire: usize, n: usize) -> usize {
        let wire = &self.model.wires[wire];
        wire.ends[1 - wire.end(n)].host
    }
}
