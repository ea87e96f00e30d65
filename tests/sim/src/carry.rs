//! What `router/io` does for a host: dials, keys, streams, envelopes, relaying.

use std::rc::Rc;
use std::time::Duration;

use weft_api::id::HostId;
use weft_router::drop::DropReason;
use weft_router::mesh::{self, Gossip};
use weft_router::replay::ReplayWindow;
use weft_router::session::message::Message;
use weft_router::session::probe::PROBE_LEN;
use weft_router::session::{Action, ConnectionId, DIAL_TIMEOUT, Event, Path, Rekey, Remote, Share};

use crate::host::{Opening, Sealing};
use crate::wire::{Said, Wire};
use crate::world::{Body, Datagram, Due, Relayed, Traffic, World};

/// What is not acknowledged is sent again so soon, beside the round trip.
const AGAIN: Duration = Duration::from_millis(150);
/// A first packet that is not answered is sent again so soon, then after twice as long, and so on (RFC 9002 6.2.2; a third of it is
/// the first round trip that `router/io` assumes).
const DIAL_AGAIN: Duration = Duration::from_millis(300);
/// Hops that a datagram may take.
const HOPS: u8 = 8;
/// At most so much of a stream is on its way.
const WINDOW: usize = 64;

/// IP, UDP.
const HEADERS: usize = 28;
/// Envelope header and tag.
const ENVELOPE: usize = 32;
/// A chunk's head, and QUIC's own.
const QUIC: usize = 3 + 30;
const RELAY: usize = 20;
/// The MTU of every host's own interface, or more if the underlay passes more.
const ETHERNET: usize = 1500;
const INITIAL: usize = 1200;
/// Of a message, in one packet.
const PACKET: usize = 1100;

impl World {
    /// Something happens to a host's session layer.
    pub(crate) fn session(&mut self, n: usize, event: Event<'_>) {
        let mut actions = Vec::new();
        self.hosts[n].sessions.handle(self.now, event, &mut actions);
        self.is_not_late(n);
        let moves = actions.iter().any(|a| {
            matches!(
                a,
                Action::Use(..)
                    | Action::Unuse(_)
                    | Action::SetPath(..)
                    | Action::LinkUp(_)
                    | Action::LinkDown(_)
            )
        });
        for action in actions {
            self.act(n, action);
        }
        if moves {
            self.relink(n);
        }
        self.set_alarm(n);
    }

    /// Whatever happens, the session layer does at once what is due: else it would be woken again and again for nothing.
    fn is_not_late(&mut self, n: usize) {
        if let Some(at) = self.hosts[n].sessions.next_wake().filter(|at| *at <= self.now) {
            self.broken.push(format!("host {n} is to be woken at {at:?}, and it is {:?}", self.now));
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        let host = &mut self.hosts[n];
        match action {
            Action::Dial(id, peer, path) => {
                host.peers.insert(id, (peer, path));
                self.dial(n, id, self.now + DIAL_TIMEOUT, DIAL_AGAIN);
            }
            Action::Close(id, why) => {
                if !host.wires.contains_key(&id) {
                    host.peers.remove(&id); // A dial that nobody answered.
                }
                self.tell(n, id, Said::Close(why));
            }
            Action::InstallReceive(id, _, index) => {
                let opening =
                    Opening { connection: id, heard: false, replay: ReplayWindow::new(), newest_from: None };
                if host.opens.insert(index, opening).is_some() {
                    self.broken.push(format!("host {n} took index {index} twice"));
                }
            }
            Action::Greet(id, hello) => self.tell_message(n, id, Message::Hello(hello)),
            Action::InstallSend(id, _, index, path) => {
                host.seals.insert(id, Sealing { index, counter: 0 });
                self.set_path(n, id, path);
            }
            Action::SetPath(id, path) => self.set_path(n, id, path),
            Action::TellSeen(id, address) => self.tell_message(n, id, Message::Seen(address)),
            Action::AskRekey(id, epoch) => self.tell_message(n, id, Message::Rekey(Rekey::Ask(epoch))),
            Action::OfferKeys(id, epoch, index) => {
                let share = Share { epoch, index, public: [1; 32] };
                self.tell_message(n, id, Message::Rekey(Rekey::Offer(share)));
            }
            Action::AnswerKeys(id, epoch, index) => {
                let share = Share { epoch, index, public: [2; 32] };
                self.tell_message(n, id, Message::Rekey(Rekey::Answer(share)));
            }
            Action::NextChain(..) | Action::UseLane(..) => {}
            Action::EraseReceive(_, index) => drop(host.opens.remove(&index)),
            Action::Use(peer, id) => {
                host.used.insert(peer, id);
                self.send_held(n, peer);
                self.mesh(n, mesh::Event::Connected(peer));
            }
            Action::Unreached(peer) => {
                let dropped = host.held.give_up(peer);
                host.count(DropReason::NotReached, dropped);
            }
            Action::Unuse(peer) => {
                host.used.remove(&peer);
                self.mesh(n, mesh::Event::Disconnected(peer));
            }
            Action::EraseKeys(id) => {
                host.opens.retain(|_, o| o.connection != id);
                host.seals.remove(&id);
            }
            Action::Probe(id, path, body, _) => {
                if let Some((peer, _)) = host.peers.get(&id) {
                    let to = path.to(*peer);
                    self.seal(n, id, to, Body::Probe(body, 0));
                }
            }
            Action::ProbeSize(id, path, body, size) => self.probe_size(n, id, path, body, size),
            Action::SetSize(id, size, _) => {
                let passes = self.underlay.weather.mtu;
                let is_udp = matches!(host.peers.get(&id), Some((_, Path::Udp(_))));
                if is_udp && HEADERS + usize::from(size) > passes {
                    self.broken
                        .push(format!("host {n} takes {size} bytes to pass an underlay of {passes}: {id:?}"));
                }
            }
            Action::ProbeLane(..) => {}
            Action::OpenStream(peer, address) => self.open_stream(n, peer, address),
            Action::Notice(remote, index) => self.datagram(n, remote, Datagram::Notice { index }),
            Action::LinkUp(peer) => drop(host.up.insert(peer)),
            Action::LinkDown(peer) => drop(host.up.remove(&peer)),
            Action::Count(reason) => *host.counts.entry(reason).or_default() += 1,
        }
    }

    /// What exceeds the host's own interface is refused at once, what exceeds the way is lost there.
    fn probe_size(&mut self, n: usize, id: ConnectionId, path: Path, body: [u8; PROBE_LEN], size: u16) {
        let Some((peer, _)) = self.hosts[n].peers.get(&id).copied() else { return };
        let interface = self.underlay.weather.mtu.max(ETHERNET) - HEADERS;
        if path.is_direct() && usize::from(size) > interface {
            let limit = u16::try_from(interface).ok();
            return self.session(n, Event::TooBig(peer, path, size, limit));
        }
        self.seal(n, id, path.to(peer), Body::Probe(body, size.into()));
    }

    fn set_path(&mut self, n: usize, id: ConnectionId, path: Path) {
        if let Some((_, now)) = self.hosts[n].peers.get_mut(&id) {
            *now = path;
        }
    }

    /// A link, to the mesh layer, is a session that is up and that no relay takes part in.
    fn relink(&mut self, n: usize) {
        let host = &self.hosts[n];
        let direct = |peer: &&HostId| host.path(**peer).is_some_and(Path::is_direct);
        let linked = host.up.iter().filter(direct).copied().collect();
        let before = std::mem::replace(&mut self.hosts[n].linked, linked);
        let now = self.hosts[n].linked.clone();
        for peer in before.difference(&now) {
            self.mesh(n, mesh::Event::LinkDown(*peer));
        }
        for peer in now.difference(&before) {
            self.mesh(n, mesh::Event::LinkUp(*peer));
            if let Some(link) = self.hosts[n].sessions.link(*peer) {
                self.mesh(n, mesh::Event::Measured(*peer, link.rtt, link.loss));
            }
        }
    }

    /// The dialler's first packet, again and again until it is answered.
    pub(crate) fn dial(&mut self, n: usize, id: ConnectionId, until: Duration, again: Duration) {
        let life = self.hosts[n].life;
        if self.now >= until || self.met.contains(&(n, life, id)) {
            return;
        }
        if let Some((peer, path)) = self.hosts[n].peers.get(&id).copied() {
            self.datagram(n, path.to(peer), Datagram::Initial { dialler: n, id, life });
            self.later(n, again, Due::Dial(id, until, again * 2));
        }
    }

    fn tell_message(&mut self, n: usize, id: ConnectionId, message: Message) {
        let len = message.encode().len();
        self.tell(n, id, Said::Message(Rc::new(message), len));
    }

    fn tell(&mut self, n: usize, id: ConnectionId, said: Said) {
        let Some(wire) = self.hosts[n].wires.get(&id).copied() else { return };
        let end = self.wires[wire].end(n);
        let was_idle = self.wires[wire].ends[end].unheard.is_empty();
        let number = self.wires[wire].say(end, said.clone());
        self.send_packet(n, wire, end, number, said);
        if was_idle {
            let after = self.timeout();
            self.later(n, after, Due::Again(wire, end));
        }
    }

    /// What the other end has not acknowledged.
    pub(crate) fn send_again(&mut self, n: usize, wire: usize, end: usize) {
        let unheard: Vec<_> = self.wires[wire].ends[end].unheard.iter().take(WINDOW).cloned().collect();
        let id = self.wires[wire].ends[end].id;
        let is_young = self.now < self.wires[wire].since + DIAL_TIMEOUT;
        let has_keys = self.hosts[n].seals.contains_key(&id) || !self.hosts[n].used.is_empty();
        if unheard.is_empty() || !(is_young || has_keys) {
            return;
        }
        for (number, said) in unheard {
            self.send_packet(n, wire, end, number, said);
        }
        let after = self.timeout();
        self.later(n, after, Due::Again(wire, end));
    }

    /// QUIC knows the round trip, over a relay or two perhaps.
    fn timeout(&self) -> Duration {
        AGAIN + 6 * (self.underlay.weather.delay + self.underlay.weather.jitter)
    }

    fn send_packet(&mut self, n: usize, wire: usize, end: usize, number: u64, said: Said) {
        let id = self.wires[wire].ends[end].id;
        if let Some((peer, path)) = self.hosts[n].peers.get(&id).copied() {
            self.datagram(n, path.to(peer), Datagram::Stream { wire, end, number, said });
        }
    }

    /// Everything that the mesh layer has for a host.
    pub(crate) fn send_gossip(&mut self, n: usize, host: HostId) {
        while let Some(gossip) = self.hosts[n].mesh.next_message(self.now, host) {
            match self.hosts[n].used.get(&host).copied() {
                Some(id) => self.tell_message(n, id, Message::Mesh(gossip)),
                None => self.broken.push(format!("host {n} gossips without a session")),
            }
        }
    }

    /// Seals a body and sends it; nothing happens without a key.
    pub(crate) fn seal(&mut self, n: usize, id: ConnectionId, to: Remote, body: Body) {
        let Some(sealing) = self.hosts[n].seals.get_mut(&id) else { return };
        let Sealing { index, counter } = *sealing;
        sealing.counter += 1;
        self.datagram(n, to, Datagram::Envelope { sender: n, index, counter, body });
    }

    /// Sends a datagram; what becomes of it is the underlay's affair.
    pub(crate) fn datagram(&mut self, n: usize, to: Remote, datagram: Datagram) {
        match to {
            Remote::Udp(address) => {
                let (len, sent) = (datagram.len(), datagram.sent());
                self.hosts[n].sent += sent as u64;
                *self.traffic.of(&datagram) += sent as u64;
                let Some(passage) = self.underlay.send(self.now, n, address, len) else { return };
                for after in passage.after {
                    let arrives = Due::Arrives(Remote::Udp(passage.from), datagram.clone());
                    self.later(passage.to, after, arrives);
                }
            }
            Remote::Relayed { by, host } => {
                let relayed = Relayed { limit: HOPS, source: n, target: host, by: n, inner: datagram };
                self.hand_over(n, by, relayed);
            }
            Remote::Tcp(stream) => {
                self.hosts[n].sent += datagram.sent() as u64;
                self.write(n, stream, datagram);
            }
        }
    }

    /// Inside an envelope of the session with a neighbour.
    fn hand_over(&mut self, n: usize, to: HostId, relayed: Relayed) {
        if let Some(path @ (Path::Udp(_) | Path::Tcp(_))) = self.hosts[n].path(to) {
            self.datagram(n, path.to(to), Datagram::Relayed(Box::new(relayed)));
        }
    }

    /// Takes a relayed datagram in, or passes it on, never back.
    fn relay(&mut self, n: usize, mut relayed: Relayed) {
        let by = std::mem::replace(&mut relayed.by, n);
        if relayed.target == self.ids[n] {
            let from = Remote::Relayed { by: self.ids[by], host: self.ids[relayed.source] };
            return self.arrive(n, from, relayed.inner);
        }
        relayed.limit = relayed.limit.saturating_sub(1);
        let back = |hop: HostId| hop == self.ids[by] || hop == self.ids[relayed.source];
        let route = self.hosts[n].mesh.ways().get(&relayed.target).copied();
        let next = match self.hosts[n].path(relayed.target) {
            Some(Path::Udp(_) | Path::Tcp(_)) => Some(relayed.target),
            Some(Path::Relay(hop)) if !back(hop) => Some(hop),
            Some(Path::Relay(_)) | None => route,
        };
        if let Some(next) = next.filter(|next| relayed.limit > 0 && !back(*next)) {
            self.hand_over(n, next, relayed);
        }
    }

    pub(crate) fn arrive(&mut self, n: usize, from: Remote, datagram: Datagram) {
        match datagram {
            Datagram::Initial { dialler, id, life } if self.hosts[dialler].life == life => {
                let listener_life = self.hosts[n].life;
                let answer = Datagram::Answer { listener: n, listener_life, id, life };
                self.datagram(n, from, answer);
            }
            Datagram::Initial { .. } => {}
            Datagram::Answer { listener, listener_life, id, life } => {
                let there = &self.hosts[listener];
                let is_live = self.hosts[n].life == life && there.life == listener_life && there.alive;
                if is_live && self.met.insert((n, life, id)) {
                    self.meet(n, id, listener);
                }
            }
            Datagram::Stream { wire, end, number, said } => self.hear(n, from, wire, end, number, said),
            Datagram::Heard { wire, end, below, number } => self.wires[wire].heard(end, below, number),
            Datagram::Envelope { sender, index, counter, body } => {
                self.open(n, from, sender, index, counter, body);
            }
            Datagram::Notice { index } => self.session(n, Event::Notice(index)),
            Datagram::Relayed(relayed) => self.relay(n, *relayed),
        }
    }

    /// A handshake is over for the dialler.
    fn meet(&mut self, dialler: usize, id: ConnectionId, listener: usize) {
        let theirs = self.hosts[listener].sessions.new_connection();
        let ends = [(dialler, id), (listener, theirs)].map(|(n, id)| (n, self.hosts[n].life, id));
        let number = self.wires.len();
        self.wires.push(Wire::new(self.now, ends[0], ends[1]));
        self.hosts[dialler].wires.insert(id, number);
        let listener_id = self.ids[listener];
        if let Some((peer, _)) = self.hosts[dialler].peers.get_mut(&id) {
            *peer = listener_id;
        }
        self.session(dialler, Event::Reached(id, listener_id));
    }

    /// The first that the listener hears on a connection ends the handshake for it too.
    fn accept(&mut self, n: usize, from: Remote, wire: usize, id: ConnectionId) {
        self.wires[wire].accepted = true;
        let dialler = self.ids[self.other_end(wire, n)];
        self.hosts[n].wires.insert(id, wire);
        self.hosts[n].peers.insert(id, (dialler, from.path()));
        self.session(n, Event::Accepted(id, dialler, from.path()));
    }

    fn hear(&mut self, n: usize, from: Remote, wire: usize, end: usize, number: u64, said: Said) {
        let ours = 1 - end;
        let (host, life, id) = {
            let at = &self.wires[wire].ends[ours];
            (at.host, at.life, at.id)
        };
        if host != n || self.hosts[n].life != life {
            return;
        }
        if ours == 1 && !self.wires[wire].accepted {
            self.accept(n, from, wire, id);
        }
        let ready = self.wires[wire].hears(ours, number, said);
        let heard = Datagram::Heard { wire, end, below: self.wires[wire].expects(ours), number };
        self.datagram(n, from, heard);
        let peer = self.ids[self.other_end(wire, n)];
        for said in ready {
            match said {
                Said::Close(why) => self.session(n, Event::Lost(id, Some(why))),
                Said::Message(message, _) => match &*message {
                    Message::Hello(hello) => {
                        hello.seen.into_iter().for_each(|at| self.mesh(n, mesh::Event::Seen(peer, at)));
                        self.session(n, Event::Hello(id, *hello));
                    }
                    Message::Seen(address) => self.mesh(n, mesh::Event::Seen(peer, *address)),
                    Message::Rekey(said) => self.session(n, Event::Rekey(id, *said)),
                    Message::Mesh(gossip) => self.mesh(n, mesh::Event::Heard(peer, gossip)),
                },
            }
        }
    }

    fn open(&mut self, n: usize, from: Remote, sender: usize, index: u32, counter: u64, body: Body) {
        let Some(opening) = self.hosts[n].opens.get_mut(&index) else {
            return self.session(n, Event::UnknownIndex(from, index));
        };
        let Ok(is_newest) = opening.replay.accept(counter) else { return };
        let first = !std::mem::replace(&mut opening.heard, true);
        let mut moved = None;
        if let (Remote::Udp(address), true) = (from, is_newest) {
            let before = opening.newest_from.replace(address);
            moved = before.filter(|b| *b != address).map(|_| address);
        }
        if first {
            self.session(n, Event::FirstAuthentic(index));
        }
        if let Some(address) = moved {
            self.session(n, Event::Moved(index, address, HEADERS + ENVELOPE));
        }
        match body {
            Body::Probe(body, _) => self.session(n, Event::Probe(index, from.path(), &body)),
            Body::Frame(network, frame) => self.deliver(n, sender, network, &frame),
        }
    }
}

impl Traffic {
    fn of(&mut self, datagram: &Datagram) -> &mut u64 {
        let kind = match datagram {
            Datagram::Envelope { .. } => 0,
            Datagram::Stream { said: Said::Message(message, _), .. } => match &**message {
                Message::Mesh(Gossip::Push(_)) => 1,
                Message::Mesh(Gossip::Ids(_)) => 2,
                Message::Mesh(Gossip::Answer(_)) => 4,
                Message::Mesh(_) => 3,
                Message::Hello(_) | Message::Rekey(_) | Message::Seen(_) => 6,
            },
            Datagram::Heard { .. } => 5,
            _ => 6,
        };
        &mut self.0[kind]
    }
}

impl Datagram {
    /// The length of its largest packet on the wire.
    fn len(&self) -> usize {
        match self {
            Self::Initial { .. } | Self::Answer { .. } => HEADERS + INITIAL,
            Self::Stream { said, .. } => HEADERS + ENVELOPE + QUIC + said.len().min(PACKET),
            Self::Heard { .. } => HEADERS + ENVELOPE + QUIC + 6,
            Self::Envelope { body: Body::Probe(body, size), .. } => {
                HEADERS + (ENVELOPE + 3 + body.len()).max(*size)
            }
            Self::Envelope { body: Body::Frame(_, frame), .. } => HEADERS + ENVELOPE + 7 + frame.len(),
            Self::Notice { .. } => HEADERS + 16,
            Self::Relayed(relayed) => relayed.inner.len() + ENVELOPE + RELAY,
        }
    }

    /// The length of all its packets.
    fn sent(&self) -> usize {
        match self {
            Self::Stream { said, .. } => {
                said.len() + (HEADERS + ENVELOPE + QUIC) * said.len().div_ceil(PACKET).max(1)
            }
            _ => self.len(),
        }
    }
}

impl Said {
    fn len(&self) -> usize {
        match self {
            Self::Message(_, len) => *len,
            Self::Close(_) => 8,
        }
    }
}
