//! What quinn's *virtual* addresses stand for: which path, bare or in envelopes. A connection has one that never changes; before there
//! is a connection it is a keyed hash of the real one and the peer's connection id, so that a Retry still proves the real address.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::hmac;
use weft_router::drop::DropReason;
use weft_router::session::Remote;

use super::packet::{Cid, Packet, source_cid};

/// A closed connection's address is kept so long, for what quinn still has to say on it.
pub const AFTER_CLOSE: Duration = Duration::from_secs(1);

/// Virtual addresses of handshakes that are no connection yet; when full the oldest is forgotten.
const EMBRYOS: usize = 256;
/// Connection ids of ours that are learnt of one connection, from the long headers that we send.
const CIDS: usize = 4;
/// Connections between the same two addresses that a bare packet of unknown connection id is offered to.
const CANDIDATES: usize = 4;

/// Every virtual address of a host. `S` is what a connection's envelopes are sealed with.
pub struct Bindings<S> {
    secret: hmac::Key,
    bindings: HashMap<SocketAddr, Binding<S>>,
    by_cid: HashMap<Cid, SocketAddr>,
    by_index: HashMap<u32, SocketAddr>,
    embryos: VecDeque<SocketAddr>,
}

struct Binding<S> {
    remote: Remote,
    cids: Vec<Cid>,
    indexes: Vec<u32>,
    sealed: Option<S>,
    held: bool,
}

impl<S: Clone> Bindings<S> {
    /// `secret` is random: nobody else can tell virtual addresses beforehand.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            bindings: HashMap::new(),
            by_cid: HashMap::new(),
            by_index: HashMap::new(),
            embryos: VecDeque::new(),
        }
    }

    /// A virtual address for a dial; `nonce` is never used twice.
    pub fn dial(&mut self, remote: Remote, nonce: u64) -> SocketAddr {
        let address = self.virtual_address(b"dial", remote, &nonce.to_be_bytes());
        self.bindings.insert(address, Binding::new(remote, true));
        address
    }

    /// Keeps the virtual address of an incoming handshake until [`Self::forget`]; false if it is forgotten already.
    pub fn hold(&mut self, address: SocketAddr) -> bool {
        let Some(binding) = self.bindings.get_mut(&address).filter(|b| !b.held) else { return false };
        binding.held = true;
        self.embryos.retain(|a| *a != address);
        true
    }

    /// What a virtual address stands for.
    #[must_use]
    pub fn remote(&self, address: SocketAddr) -> Option<Remote> {
        self.bindings.get(&address).map(|b| b.remote)
    }

    /// The connection's bare packets go there from now on; those in envelopes go along the path of their epoch.
    pub fn set_remote(&mut self, address: SocketAddr, remote: Remote) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.remote = remote;
        }
    }

    /// QUIC packets from envelopes under this index of ours belong to the connection.
    pub fn add_index(&mut self, address: SocketAddr, index: u32) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.indexes.push(index);
            self.by_index.insert(index, address);
        }
    }

    /// Nothing comes under this index any more.
    pub fn remove_index(&mut self, address: SocketAddr, index: u32) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.indexes.retain(|i| *i != index);
            self.by_index.remove(&index);
        }
    }

    /// From now on the connection's packets travel in envelopes sealed with this, and bare short-header packets are dropped.
    pub fn seal(&mut self, address: SocketAddr, with: S) {
        if let Some(binding) = self.bindings.get_mut(&address) {
            binding.sealed = Some(with);
        }
    }

    /// A virtual address stands for nothing any more.
    pub fn forget(&mut self, address: SocketAddr) {
        if let Some(binding) = self.bindings.remove(&address) {
            for cid in &binding.cids {
                self.by_cid.remove(cid);
            }
            for index in &binding.indexes {
                self.by_index.remove(index);
            }
        }
    }

    /// Whom a QUIC packet that came outside an envelope may be for.
    ///
    /// # Errors
    /// [`DropReason::BareUnknown`], or [`DropReason::BareAfterEnvelope`] if it should have come in an envelope.
    pub fn bare(&mut self, from: Remote, packet: &[u8]) -> Result<Vec<SocketAddr>, DropReason> {
        match Packet::read(packet)? {
            Packet::Short { to } => self.bare_connections(&to, from),
            Packet::Long { to, from: source, initial } => match to.and_then(|cid| self.by_cid.get(&cid)) {
                Some(address) => Ok(vec![*address]),
                None if initial => {
                    let address = self.virtual_address(b"from", from, source);
                    self.embryo(address, from);
                    Ok(vec![address])
                }
                None => Err(DropReason::BareUnknown),
            },
        }
    }

    /// Whom a QUIC packet is for that came in an authentic envelope under an index of ours.
    #[must_use]
    pub fn enveloped(&self, index: u32) -> Option<SocketAddr> {
        self.by_index.get(&index).copied()
    }

    /// How a packet of ours goes to a virtual address: where if it goes bare, and what its envelope is sealed with if not.
    pub fn way(&mut self, address: SocketAddr, packet: &[u8]) -> Option<(Remote, Option<S>)> {
        if let Some(cid) = source_cid(packet) {
            self.learn(address, cid);
        }
        self.bindings.get(&address).map(|b| (b.remote, b.sealed.clone()))
    }

    /// Which connections a bare short-header packet may be for. A server moves to another of our connection ids at once, and
    /// quinn tells nobody which ids it has issued for which connection: then it may be for any that goes there. quinn itself
    /// knows the id, and the others drop the packet unread, since it comes from another virtual address than theirs.
    fn bare_connections(&self, to: &Cid, from: Remote) -> Result<Vec<SocketAddr>, DropReason> {
        let (mut found, mut enveloped) = (Vec::new(), false);
        let known = self.by_cid.get(to).and_then(|address| self.bindings.get_key_value(address));
        let there = self.bindings.iter().filter(|(_, b)| known.is_none() && b.held && b.remote == from);
        for (address, binding) in known.into_iter().chain(there) {
            if binding.sealed.is_some() {
                enveloped = true;
            } else if found.len() < CANDIDATES {
                found.push(*address);
            }
        }
        match (found.is_empty(), enveloped) {
            (false, _) => Ok(found),
            (true, true) => Err(DropReason::BareAfterEnvelope),
            (true, false) => Err(DropReason::BareUnknown),
        }
    }

    fn embryo(&mut self, address: SocketAddr, remote: Remote) {
        if self.bindings.contains_key(&address) {
            return;
        }
        if self.embryos.len() >= EMBRYOS
            && let Some(oldest) = self.embryos.pop_front()
        {
            self.forget(oldest);
        }
        self.embryos.push_back(address);
        self.bindings.insert(address, Binding::new(remote, false));
    }

    fn learn(&mut self, address: SocketAddr, cid: Cid) {
        if let Some(binding) = self.bindings.get_mut(&address)
            && binding.cids.len() < CIDS
            && !binding.cids.contains(&cid)
        {
            binding.cids.push(cid);
            self.by_cid.insert(cid, address);
        }
    }

    fn virtual_address(&self, purpose: &[u8; 4], remote: Remote, cid: &[u8]) -> SocketAddr {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(purpose);
        match remote {
            Remote::Udp(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                context.update(b"u");
                context.update(&ip.octets());
                context.update(&address.port().to_be_bytes());
            }
            Remote::Tcp(stream) => {
                context.update(b"t");
                context.update(&stream.0.to_be_bytes());
            }
            Remote::Relayed { by, host } => {
                context.update(b"r");
                context.update(&by.0);
                context.update(&host.0);
            }
        }
        context.update(cid);
        let tag = context.sign();
        let mut octets = [0xfd; 16]; // fd00::/8, which is nobody's
        octets[1..].copy_from_slice(&tag.as_ref()[..15]);
        SocketAddr::from((Ipv6Addr::from(octets), 6783))
    }
}

impl<S> Binding<S> {
    fn new(remote: Remote, held: bool) -> Self {
        Self { remote, cids: Vec::new(), indexes: Vec::new(), sealed: None, held }
    }
}
