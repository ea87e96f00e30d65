//! What `router/io` does for a host: dials, keys, streams, envelopes, relaying.

use std::net::SocketAddr;

use weft_api::id::HostId;
use weft_router::drop::DropReason;
use weft_router::session::message::Message;
use weft_router::session::probe::PROBE_LEN;
use weft_router::session::{Action, ConnectionId, Event, Path, Rekey, Remote};
use weft_router::{mesh, relay};

use crate::datagram::{Body, Datagram, ENVELOPE, HEADERS, Relayed};
use crate::world::{Due, World};

/// Hops that a datagram may take.
const HOPS: u8 = 8;
/// The MTU of every host's own interface, or more if the underlay passes more.
const ETHERNET: usize = 1500;

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
            Action::Dial(id, peer, path) => self.dial(n, id, peer, path),
            Action::Close(id, why) => self.close(n, id, why),
            Action::InstallReceive(id, _, index) => self.install_receive(n, id, index),
            Action::Greet(id, hello) => self.tell(n, id, Message::Hello(hello)),
            Action::InstallSend(id, _, index, path) => self.install_send(n, id, index, path),
            Action::SetPath(id, path) => self.set_path(n, id, path),
            Action::TellSeen(id, address) => self.tell(n, id, Message::Seen(address)),
            Action::AskRekey(id, epoch) => self.tell(n, id, Message::Rekey(Rekey::Ask(epoch))),
            Action::OfferKeys(id, epoch, index) => {
                let share = self.offer(n, id, epoch, index);
                self.tell(n, id, Message::Rekey(Rekey::Offer(share)));
            }
            Action::AnswerKeys(id, epoch, index) => {
                let share = self.answer(n, id, epoch, index);
                self.tell(n, id, Message::Rekey(Rekey::Answer(share)));
            }
            Action::NextChain(id, theirs) => self.next_chain(n, id, &theirs),
            Action::UseLane(..) => {}
            Action::EraseReceive(id, index) => self.erase_receive(n, id, index),
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
            Action::EraseKeys(id) => self.erase_keys(n, id),
            Action::Probe(id, path, body, _) => {
                if let Some((peer, _)) = host.peers.get(&id) {
                    let to = path.to(*peer);
                    self.seal(n, id, to, Body::Probe(body, 0));
                }
            }
            Action::ProbeSize(id, path, body, size) => self.probe_size(n, id, path, body, size),
            Action::SetSize(id, size, _) => {
                host.seals.get_mut(&id).into_iter().for_each(|sealing| sealing.size = size);
                let passes = self.underlay.weather.mtu;
                let is_udp = matches!(host.peers.get(&id), Some((_, Path::Udp(_))));
                if is_udp && HEADERS + usize::from(size) > passes {
                    self.broken
                        .push(format!("host {n} takes {size} bytes to pass an underlay of {passes}: {id:?}"));
                }
            }
            Action::ProbeLane(..) => {}
            Action::OpenStream(peer, address) => self.open_stream(n, peer, address),
            Action::Notice(remote, index) if self.quinn => self.notice_bytes(n, remote, index),
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
        if let Ok(most) = self.most(n, path)
            && size > most
        {
            return self.session(n, Event::TooBig(peer, path, size, Some(most)));
        }
        self.seal(n, id, path.to(peer), Body::Probe(body, size.into()));
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

    /// The other end of a connection says something.
    pub(crate) fn told(&mut self, n: usize, id: ConnectionId, peer: HostId, message: &Message) {
        match message {
            Message::Hello(hello) => {
                hello.seen.into_iter().for_each(|at| self.mesh(n, mesh::Event::Seen(peer, at)));
                self.session(n, Event::Hello(id, *hello));
            }
            Message::Seen(address) => self.mesh(n, mesh::Event::Seen(peer, *address)),
            Message::Proof(proof) => {
                if let Some(key) = self.keys.iter().copied().find(|key| key.id() == peer) {
                    self.mesh(n, mesh::Event::Presented(key, proof));
                }
            }
            Message::Rekey(said) => self.session(n, Event::Rekey(id, *said)),
            Message::Mesh(gossip) => self.mesh(n, mesh::Event::Heard(peer, gossip)),
        }
    }

    /// What each end of a connection says first, whoever the other is.
    pub(crate) fn present(&mut self, n: usize, id: ConnectionId) {
        if let Some(proof) = self.hosts[n].mesh.proof() {
            self.tell(n, id, Message::Proof(proof));
        }
    }

    /// Everything that the mesh layer has for a host.
    pub(crate) fn send_gossip(&mut self, n: usize, host: HostId) {
        loop {
            let id = self.hosts[n].used.get(&host).copied();
            if id.is_some_and(|id| !self.takes_more(n, id)) {
                return;
            }
            let Some(gossip) = self.hosts[n].mesh.next_message(self.now, host) else { return };
            match id {
                Some(id) => self.tell(n, id, Message::Mesh(gossip)),
                None => self.broken.push(format!("host {n} gossips without a session")),
            }
        }
    }

    /// Seals a body and sends it; nothing happens without a key.
    pub(crate) fn seal(&mut self, n: usize, id: ConnectionId, to: Remote, body: Body) {
        if self.quinn {
            return self.seal_bytes(n, id, to, &body);
        }
        let Some(sealing) = self.hosts[n].seals.get_mut(&id) else { return };
        let (index, counter) = (sealing.index, sealing.counter);
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
                if let Datagram::Bytes(bytes) = &datagram {
                    let relayed = relay::Relayed::new(self.ids[n], host);
                    return self.relay_bytes(n, by, relayed, bytes);
                }
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
            Datagram::Model(packet) => self.hear_model(n, from, packet),
            Datagram::Bytes(bytes) => self.arrive_bytes(n, from, &bytes),
            Datagram::Envelope { sender, index, counter, body } => {
                self.open(n, from, sender, index, counter, body);
            }
            Datagram::Notice { index } => self.session(n, Event::Notice(index)),
            Datagram::Relayed(relayed) => self.relay(n, *relayed),
        }
    }

    fn open(&mut self, n: usize, from: Remote, sender: usize, index: u32, counter: u64, body: Body) {
        if !self.hosts[n].opens.contains_key(&index) {
            return self.session(n, Event::UnknownIndex(from, index));
        }
        let shown = from.path().udp().filter(|_| !matches!(body, Body::Probe(..)));
        if self.authentic(n, shown, index, counter, HEADERS + ENVELOPE).is_err() {
            return;
        }
        match body {
            Body::Probe(body, _) => self.session(n, Event::Probe(index, from.path(), &body)),
            Body::Frame(network, frame) => self.deliver(n, sender, network, &frame),
            Body::Quic(_) => {}
        }
    }

    /// An envelope of `len` bytes is authentic; `shown` is where it shows that its sender sends from.
    pub(crate) fn authentic(
        &mut self,
        n: usize,
        shown: Option<SocketAddr>,
        index: u32,
        counter: u64,
        len: usize,
    ) -> Result<(), DropReason> {
        let opening = self.hosts[n].opens.get_mut(&index).ok_or(DropReason::UnknownIndex)?;
        let is_newest = opening.replay.accept(counter)?;
        let (id, first) = (opening.connection, !std::mem::replace(&mut opening.heard, true));
        let mut moved = None;
        if let (Some(address), true) = (shown, is_newest) {
            let before = opening.newest_from.replace(address);
            moved = before.filter(|b| *b != address).map(|_| address);
        }
        if first {
            self.envelope(n, id);
            self.session(n, Event::FirstAuthentic(index));
        }
        if let Some(address) = moved {
            self.session(n, Event::Moved(index, address, len));
        }
        Ok(())
    }
}
