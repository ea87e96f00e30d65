//! What lies between the hosts of the model: addresses that change, links that are cut or pass one way, loss, NATs, and the
//! hosts' own relaying.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use weft_api::id::HostId;

use super::super::{Path, Remote};
use super::world::{Arrival, MS, World, id, second};

/// A NAT forgets a peer that nothing was sent to for so long.
const NAT_FORGETS: Duration = Duration::from_secs(30);

/// A NAT with one outside address for its host, which lets in only whom the host has sent to.
pub(super) struct Nat {
    pub public: SocketAddr,
    open: HashMap<SocketAddr, Duration>,
}

/// A relayed datagram on its way.
#[derive(Clone)]
pub(super) struct Relayed {
    limit: u8,
    source: usize,
    target: HostId,
    by: usize,
    inner: Arrival,
}

impl World {
    /// Puts a host behind a NAT.
    pub(super) fn hide(&mut self, n: usize) {
        let public = ([198, 51, 100, n as u8 + 1], 40_000).into();
        self.nats[n] = Some(Nat { public, open: HashMap::new() });
    }

    /// The NAT of a host forgets everything and has another port for it.
    pub(super) fn rebind(&mut self, n: usize, port: u16) {
        if let Some(nat) = &mut self.nats[n] {
            nat.open.clear();
            nat.public.set_port(port);
        }
    }

    /// The address that others see a host at.
    pub(super) fn seen(&self, n: usize) -> SocketAddr {
        self.nats[n].as_ref().map_or(self.addresses[n], |nat| nat.public)
    }

    /// Between these nothing passes.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// Sends a datagram; what happens to it is the underlay's affair.
    pub(super) fn datagram(&mut self, from: usize, to: Remote, arrival: Arrival) {
        match to {
            Remote::Udp(address) => self.send(from, address, arrival),
            Remote::Tcp(stream) => self.record(from, stream, arrival),
            Remote::Relayed { by, host } => {
                let relayed = Relayed { limit: 8, source: from, target: host, by: from, inner: arrival };
                self.hand_over(from, by, relayed);
            }
        }
    }

    fn send(&mut self, from: usize, address: SocketAddr, arrival: Arrival) {
        let source = if address.is_ipv6() { second(from) } else { self.seen(from) };
        let now = self.now;
        if let Some(nat) = &mut self.nats[from] {
            nat.open.insert(address, now);
        }
        let Some(to) = (0..self.hosts.len())
            .find(|n| self.seen(*n) == address || (self.dual_stack && second(*n) == address))
        else {
            return;
        };
        let lets_in = self.nats[to]
            .as_ref()
            .is_none_or(|nat| nat.open.get(&source).is_some_and(|at| now - *at < NAT_FORGETS));
        let pair = (from.min(to), from.max(to));
        let no_udp = self.cut.contains(&pair) || self.no_udp.contains(&pair);
        let cut = no_udp || self.blocked.contains(&(from, to));
        if lets_in && !cut && !self.chance(self.loss_between(from, to)) {
            let mut delay = if self.chance(10) { 9 * MS } else { 2 * MS };
            if self.busy > Duration::ZERO && self.chance(30) {
                delay += self.busy.mul_f64((self.random >> 33) as f64 / f64::from(1u32 << 31));
            }
            self.later(delay, to, Remote::Udp(source), arrival);
        }
    }

    /// Percent.
    pub(super) fn loss_between(&self, from: usize, to: usize) -> u8 {
        match self.lossy {
            Some((a, b, loss)) if [(a, b), (b, a)].contains(&(from, to)) => loss,
            _ => self.loss,
        }
    }

    /// Inside an envelope of the session with a neighbour.
    fn hand_over(&mut self, n: usize, to: HostId, relayed: Relayed) {
        if let Some(remote @ (Remote::Udp(_) | Remote::Tcp(_))) = self.remote(n, to) {
            self.datagram(n, remote, Arrival::Relayed(Box::new(relayed)));
        }
    }

    /// Takes a relayed datagram in, or passes it on.
    pub(super) fn relay(&mut self, n: usize, mut relayed: Relayed) {
        let by = std::mem::replace(&mut relayed.by, n);
        if relayed.target == id(n) {
            let from = Remote::Relayed { by: id(by), host: id(relayed.source) };
            return self.arrive(n, from, relayed.inner);
        }
        relayed.limit -= 1;
        self.relayed += 1;
        let next = match self.remote(n, relayed.target).map(Remote::path) {
            Some(Path::Udp(_) | Path::Tcp(_)) => relayed.target,
            Some(Path::Relay(hop)) => hop,
            None => return,
        };
        if relayed.limit > 0 && next != id(by) {
            self.hand_over(n, next, relayed);
        }
    }

    /// Where the session with a host goes.
    fn remote(&self, n: usize, host: HostId) -> Option<Remote> {
        let host = &self.hosts[n].used.get(&host)?;
        self.hosts[n].remotes.get(host).copied()
    }
}
