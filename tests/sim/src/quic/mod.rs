//! QUIC itself: quinn's own state machines without a socket, on virtual time, with the product's settings, TLS, virtual addresses,
//! limits for strangers, and secrets. What differs from `router/io`: who waits for them, and that nobody sends too many messages.
//!
//! | room | holds |
//! |---|---|
//! | [`Quic`] | a host's endpoint |
//! | `line` | one connection and its control streams |
//! | `drive` | what they do in a world, and what becomes of what they tell |

mod drive;
mod line;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, Endpoint, EndpointEvent, HashedConnectionIdGenerator,
    Transmit,
};
use weft_api::id::HostId;
use weft_api::roster::Cipher;
use weft_api::sign::SigningKey;
use weft_router::drop::DropReason;
use weft_router::seal::{OpenKey, SealKey};
use weft_router::session::{ConnectionId, DIAL_TIMEOUT, Remote, Why};
use weft_router_io::quic::bindings::{AFTER_CLOSE, Bindings};
use weft_router_io::quic::endpoint::{self, HANDSHAKE_TIMEOUT, SettingsError, Strangers, Verdict};
use weft_router_io::quic::secrets::{EXPORTER_LABEL, Secrets};
use weft_router_io::quic::tls;

use crate::host::mesh_id;
use line::{Line, News};

/// A packet of ours, to a virtual address.
pub(crate) type Packet = (SocketAddr, Vec<u8>);

/// A host's QUIC, in one of its lives.
pub(crate) struct Quic {
    endpoint: Endpoint,
    dialler: ClientConfig,
    strangers: Arc<Strangers>,
    bindings: Bindings<ConnectionId>,
    lines: BTreeMap<usize, Line>,
    by_id: BTreeMap<ConnectionId, usize>,
    /// What the keys of each connection come from.
    secrets: BTreeMap<ConnectionId, Secrets>,
    /// Virtual addresses that are let go then.
    let_go: Vec<(Duration, SocketAddr)>,
    /// When it is to be told of the time.
    wakes: Option<Duration>,
}

impl Quic {
    /// For a host with this key; the same seed makes the same endpoint.
    pub fn new(key: &SigningKey, seed: [u8; 32]) -> Result<Self, SettingsError> {
        let number = u64::from_be_bytes(*seed.first_chunk().unwrap_or(&[0; 8]));
        let mut config = endpoint::endpoint_config()?;
        config.rng_seed(Some(seed));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(number)));
        let server = Arc::new(endpoint::server(key)?);
        Ok(Self {
            endpoint: Endpoint::new(Arc::new(config), Some(server), true, None),
            dialler: endpoint::client(key, tls::ALPN_MEMBER)?,
            strangers: Arc::default(),
            bindings: Bindings::new(seed),
            lines: BTreeMap::new(),
            by_id: BTreeMap::new(),
            secrets: BTreeMap::new(),
            let_go: Vec::new(),
            wakes: None,
        })
    }

    fn line(&mut self, id: ConnectionId) -> Option<(usize, &mut Line)> {
        let handle = *self.by_id.get(&id)?;
        self.lines.get_mut(&handle).map(|line| (handle, line))
    }

    fn address(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.by_id.get(&id).and_then(|handle| self.lines.get(handle)).map(|l| l.connection.remote_address())
    }

    /// Begins a dial; which line it is.
    fn dial(&mut self, at: Now, id: ConnectionId, to: Remote) -> Option<usize> {
        let address = self.bindings.dial(to, id.0);
        let config = self.dialler.clone();
        let (handle, connection) =
            self.endpoint.connect(at.instant, config, address, tls::SERVER_NAME).ok()?;
        self.lines.insert(handle.0, Line::new(connection, Some(id), at.now + DIAL_TIMEOUT));
        self.by_id.insert(id, handle.0);
        Some(handle.0)
    }

    /// A line ends at once, and its address with it.
    fn abandon(&mut self, handle: usize) {
        let Some(line) = self.lines.remove(&handle) else { return };
        self.bindings.forget(line.connection.remote_address());
        self.endpoint.handle_event(ConnectionHandle(handle), EndpointEvent::drained());
        self.by_id.retain(|_, of| *of != handle);
    }

    /// Closes a connection; whether it was more than a dial.
    fn close(&mut self, at: Now, id: ConnectionId, why: Why) -> Option<usize> {
        let (handle, line) = self.line(id)?;
        if line.connection.is_handshaking() {
            self.abandon(handle);
            return None;
        }
        line.close(at.instant, why);
        Some(handle)
    }

    /// A QUIC packet for a virtual address; the line that has something to do now, and what is answered at once.
    fn handle(
        &mut self,
        at: Now,
        address: SocketAddr,
        packet: &[u8],
        out: &mut Vec<Packet>,
    ) -> Result<Option<usize>, DropReason> {
        let mut buffer = Vec::new();
        let event = self.endpoint.handle(at.instant, address, None, None, packet.into(), &mut buffer);
        let answer =
            |transmit: Transmit, buffer: &[u8]| (transmit.destination, buffer[..transmit.size].to_vec());
        match event {
            None => Ok(None),
            Some(DatagramEvent::Response(transmit)) => {
                out.push(answer(transmit, &buffer));
                Ok(None)
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(line) = self.lines.get_mut(&handle.0) else { return Ok(None) };
                line.connection.handle_event(event);
                Ok(Some(handle.0))
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let Some(remote) = self.bindings.remote(incoming.remote_address()) else {
                    self.endpoint.ignore(incoming);
                    return Ok(None);
                };
                match self.strangers.judge(remote, incoming.remote_address_validated()) {
                    Verdict::Accept(place) if self.bindings.hold(incoming.remote_address()) => {
                        match self.endpoint.accept(incoming, at.instant, &mut buffer, None) {
                            Ok((handle, connection)) => {
                                let mut line = Line::new(connection, None, at.now + HANDSHAKE_TIMEOUT);
                                line.place = Some(place);
                                self.lines.insert(handle.0, line);
                                Ok(Some(handle.0))
                            }
                            Err(error) => {
                                out.extend(error.response.map(|transmit| answer(transmit, &buffer)));
                                Err(DropReason::HandshakeFailed)
                            }
                        }
                    }
                    Verdict::Accept(_) => {
                        self.endpoint.ignore(incoming);
                        Ok(None)
                    }
                    Verdict::Retry => {
                        match self.endpoint.retry(incoming, &mut buffer) {
                            Ok(transmit) => out.push(answer(transmit, &buffer)),
                            Err(refused) => self.endpoint.ignore(refused.into_incoming()),
                        }
                        Ok(None)
                    }
                    Verdict::Ignore(reason) => {
                        self.endpoint.ignore(incoming);
                        Err(reason)
                    }
                }
            }
        }
    }

    /// Everything that a line has to do now: packets to send, and what it has to tell.
    fn drive(&mut self, at: Now, handle: usize) -> (Vec<Packet>, Vec<News>) {
        let (mut packets, mut news, mut drained) = (Vec::new(), Vec::new(), false);
        let Some(line) = self.lines.get_mut(&handle) else { return (packets, news) };
        let mut busy = true;
        while std::mem::take(&mut busy) {
            line.write(&mut news);
            line.read(&mut news);
            while let Some(event) = line.connection.poll_endpoint_events() {
                (busy, drained) = (true, drained || event.is_drained());
                if let Some(event) = self.endpoint.handle_event(ConnectionHandle(handle), event) {
                    line.connection.handle_event(event);
                }
            }
            let mut buffer = Vec::new();
            while let Some(transmit) = line.connection.poll_transmit(at.instant, 1, &mut buffer) {
                buffer.truncate(transmit.size);
                packets.push((transmit.destination, std::mem::take(&mut buffer)));
                busy = true;
            }
            while let Some(event) = line.connection.poll() {
                line.hear(event, &mut news);
                busy = true;
            }
        }
        line.timer = line.connection.poll_timeout();
        if line.end() {
            news.push(News::Ended(None));
        }
        if news.iter().any(|news| matches!(news, News::Ended(_))) {
            self.let_go.push((at.now + AFTER_CLOSE, line.connection.remote_address()));
        }
        line.drained |= drained;
        (packets, news)
    }

    /// A line that has told its last is let go.
    fn clear(&mut self, handle: usize) {
        if self.lines.get(&handle).is_some_and(|line| line.drained) {
            self.lines.remove(&handle);
            self.by_id.retain(|_, of| *of != handle);
        }
    }

    /// Time has passed: the lines that have something to do, and those whose handshake has taken too long.
    fn tick(&mut self, at: Now) -> (Vec<usize>, Vec<usize>) {
        let due: Vec<SocketAddr> =
            self.let_go.extract_if(.., |(then, _)| *then <= at.now).map(|(_, a)| a).collect();
        due.into_iter().for_each(|address| self.bindings.forget(address));
        let (mut busy, mut late) = (Vec::new(), Vec::new());
        for (handle, line) in &mut self.lines {
            if line.until.is_some_and(|until| until <= at.now) {
                late.push(*handle);
            } else if line.timer.is_some_and(|timer| timer <= at.instant) {
                line.connection.handle_timeout(at.instant);
                busy.push(*handle);
            }
        }
        (busy, late)
    }

    /// When time must pass next, after `base`.
    fn next_wake(&self, base: Instant) -> Option<Duration> {
        let timers = self.lines.values().filter_map(|l| l.timer).map(|t| t.saturating_duration_since(base));
        let handshakes = self.lines.values().filter_map(|l| l.until);
        timers.chain(handshakes).chain(self.let_go.iter().map(|(then, _)| *then)).min()
    }

    /// The key that opens what comes under an index of ours from now on; `None` if the connection is gone.
    pub fn install_receive(
        &mut self,
        id: ConnectionId,
        index: u32,
        me: HostId,
        peer: HostId,
    ) -> Option<OpenKey> {
        let address = self.address(id)?;
        let (_, line) = self.line(id)?;
        let ours = line.ours;
        if !self.secrets.contains_key(&id) {
            let (dialler, listener) = if ours { (me, peer) } else { (peer, me) };
            let mut secret = [0; 32];
            let context = Secrets::context(mesh_id(), dialler, listener);
            let (_, line) = self.line(id)?;
            let session = line.connection.crypto_session();
            session.export_keying_material(&mut secret, EXPORTER_LABEL, &context).ok()?;
            self.secrets.insert(id, Secrets::first(&secret));
        }
        self.bindings.add_index(address, index);
        self.secrets.get(&id).map(|secrets| secrets.open_key(Cipher::Aegis128L, ours))
    }

    /// The key to seal with from now on.
    pub fn install_send(&mut self, id: ConnectionId) -> Option<SealKey> {
        let (_, line) = self.line(id)?;
        let ours = line.ours;
        self.secrets.get(&id).map(|secrets| secrets.seal_key(Cipher::Aegis128L, ours))
    }

    /// The connection's packets go in envelopes from now on.
    pub fn seal(&mut self, id: ConnectionId) {
        if let Some(address) = self.address(id) {
            self.bindings.seal(address, id);
        }
    }

    /// The connection goes another way.
    pub fn set_remote(&mut self, id: ConnectionId, remote: Remote) {
        if let Some(address) = self.address(id) {
            self.bindings.set_remote(address, remote);
        }
    }

    /// Nothing comes under the index any more.
    pub fn erase_receive(&mut self, id: ConnectionId, index: u32) {
        if let Some(address) = self.address(id) {
            self.bindings.remove_index(address, index);
        }
    }

    /// All of its keys are gone.
    pub fn erase_keys(&mut self, id: ConnectionId) {
        self.secrets.remove(&id);
    }

    /// Of a connection that has keys.
    pub fn secrets(&mut self, id: ConnectionId) -> Option<&mut Secrets> {
        self.secrets.get_mut(&id)
    }
}

/// Virtual time, in both of its forms.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub now: Duration,
    pub instant: Instant,
}
