//! Connections and their keys, as the session layer wants them: of the model, or of QUIC itself.

use std::rc::Rc;

use weft_api::id::HostId;
use weft_router::replay::ReplayWindow;
use weft_router::session::message::Message;
use weft_router::session::mtu::floor;
use weft_router::session::{ConnectionId, Path, Share, Why};

use crate::host::{Opening, Sealing};
use crate::wire::Said;
use crate::world::World;

/// What a host's public X25519 key is in the model, when it offers one and when it answers.
const OFFERED: [u8; 32] = [1; 32];
const ANSWERED: [u8; 32] = [2; 32];

impl World {
    pub(crate) fn dial(&mut self, n: usize, id: ConnectionId, peer: HostId, path: Path) {
        self.hosts[n].peers.insert(id, (peer, path));
        match self.quinn {
            true => self.dial_quic(n, id),
            false => self.dial_model(n, id),
        }
    }

    pub(crate) fn close(&mut self, n: usize, id: ConnectionId, why: Why) {
        match self.quinn {
            true => self.close_quic(n, id, why),
            false => self.close_model(n, id, why),
        }
    }

    /// Says this on a connection's control stream.
    pub(crate) fn tell(&mut self, n: usize, id: ConnectionId, message: Message) {
        if self.quinn {
            return self.tell_quic(n, id, &message);
        }
        let len = message.encode().len();
        self.tell_model(n, id, Said::Message(Rc::new(message), len));
    }

    pub(crate) fn install_receive(&mut self, n: usize, id: ConnectionId, index: u32) {
        let (me, host) = (self.ids[n], &mut self.hosts[n]);
        let key = match (&mut host.quic, host.peers.get(&id)) {
            (Some(quic), Some((peer, _))) => quic.install_receive(id, index, me, *peer),
            _ => None,
        };
        // A peer that moves with its first envelope under this key has moved.
        let before = host.opens.values().filter(|o| o.connection == id).max_by_key(|o| o.epoch);
        let epoch = before.map_or(0, |o| o.epoch + 1);
        let newest_from = before.and_then(|o| o.newest_from);
        let replay = ReplayWindow::new();
        let opening = Opening { connection: id, epoch, heard: false, replay, newest_from, key };
        if host.opens.insert(index, opening).is_some() {
            self.broken.push(format!("host {n} took index {index} twice"));
        }
    }

    pub(crate) fn install_send(&mut self, n: usize, id: ConnectionId, index: u32, path: Path) {
        let host = &mut self.hosts[n];
        let key = host.quic.as_mut().and_then(|quic| quic.install_send(id)).map(Rc::new);
        let size = match (host.seals.get(&id), host.peers.get(&id)) {
            (Some(before), Some((_, now))) if *now == path => before.size,
            _ => floor(path),
        };
        host.seals.insert(id, Sealing { index, counter: 0, key, size, fragment: 0 });
        self.set_path(n, id, path);
        if self.hosts[n].opens.values().any(|o| o.connection == id && o.heard) {
            self.envelope(n, id);
        }
    }

    /// From now on a connection's QUIC packets go in envelopes, if there is a key to seal them with.
    pub(crate) fn envelope(&mut self, n: usize, id: ConnectionId) {
        let host = &mut self.hosts[n];
        if let Some(quic) = host.quic.as_mut().filter(|_| host.seals.contains_key(&id)) {
            quic.seal(id);
        }
    }

    pub(crate) fn set_path(&mut self, n: usize, id: ConnectionId, path: Path) {
        let host = &mut self.hosts[n];
        let Some((peer, now)) = host.peers.get_mut(&id) else { return };
        if std::mem::replace(now, path) != path
            && let Some(sealing) = host.seals.get_mut(&id)
        {
            sealing.size = floor(path);
        }
        if let Some(quic) = &mut host.quic {
            quic.set_remote(id, path.to(*peer));
        }
    }

    /// A fresh public key of this host's for the connection's next keys.
    pub(crate) fn offer(&mut self, n: usize, id: ConnectionId, epoch: u32, index: u32) -> Share {
        let Some(quic) = &mut self.hosts[n].quic else { return Share { epoch, index, public: OFFERED } };
        let mut public = OFFERED;
        if let Some(secrets) = quic.secrets(id)
            && secrets.offer().is_ok()
        {
            public = secrets.public();
        }
        Share { epoch, index, public }
    }

    /// The public key that answers the peer's.
    pub(crate) fn answer(&mut self, n: usize, id: ConnectionId, epoch: u32, index: u32) -> Share {
        let Some(quic) = &mut self.hosts[n].quic else { return Share { epoch, index, public: ANSWERED } };
        Share { epoch, index, public: quic.secrets(id).map_or(ANSWERED, |secrets| secrets.public()) }
    }

    /// The next keys come of this public key of the peer's.
    pub(crate) fn next_chain(&mut self, n: usize, id: ConnectionId, theirs: &[u8; 32]) {
        let Some(secrets) = self.hosts[n].quic.as_mut().and_then(|quic| quic.secrets(id)) else { return };
        if secrets.advance(theirs).is_err() {
            self.broken.push(format!("host {n} cannot use the public key of its peer: {id:?}"));
        }
    }

    pub(crate) fn erase_receive(&mut self, n: usize, id: ConnectionId, index: u32) {
        self.hosts[n].opens.remove(&index);
        if let Some(quic) = &mut self.hosts[n].quic {
            quic.erase_receive(id, index);
        }
    }

    pub(crate) fn erase_keys(&mut self, n: usize, id: ConnectionId) {
        let host = &mut self.hosts[n];
        host.opens.retain(|_, o| o.connection != id);
        host.seals.remove(&id);
        if let Some(quic) = &mut host.quic {
            quic.erase_keys(id);
        }
    }
}
