//! The keys of the model: numbers that come out alike at both ends if both did the same steps.

use std::time::Duration;

use super::super::{Action, ConnectionId, Event, KEYS_LINGER, MAX_EPOCHS, Rekey, Remote, Share};
use super::world::{MS, Message, World};
use weft_api::id::HostId;

/// A key to open with.
pub(super) struct Opening {
    pub connection: ConnectionId,
    pub key: u64,
    pub heard: bool,
    /// A newer one was heard of; then this one goes.
    pub ends: Option<Duration>,
}

/// A key to seal with.
#[derive(Clone, Copy)]
pub(super) struct Sealing {
    pub index: u32,
    pub key: u64,
}

/// Where a connection's keys come from.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    pub secret: u64,
    pub fresh: Option<u64>,
    pub public: u64,
}

fn number(host: HostId) -> u64 {
    u64::from(host.0[0]) - 1
}

fn share(epoch: u32, index: u32, key: u64) -> Share {
    let mut public = [0; 32];
    public[..8].copy_from_slice(&key.to_be_bytes());
    Share { epoch, index, public }
}

/// One way, as far as the model is concerned.
fn mix(a: u64, b: u64) -> u64 {
    (a ^ b.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ a.wrapping_add(b)
}

impl World {
    /// Carries out what is about keys.
    pub(super) fn key_action(&mut self, n: usize, action: Action) {
        let host = &mut self.hosts[n];
        match action {
            Action::InstallReceive(id, peer, index) => {
                let wire = self.wire(n, id).unwrap();
                let first = Chain { secret: mix(wire as u64, 0), fresh: None, public: 0 };
                let host = &mut self.hosts[n];
                let chain = *host.chains.entry(id).or_insert(first);
                let key = mix(chain.secret, number(peer));
                let opening = Opening { connection: id, key, heard: false, ends: None };
                assert!(host.opens.insert(index, opening).is_none());
                assert!(host.opens.values().filter(|o| o.connection == id).count() <= MAX_EPOCHS);
            }
            Action::InstallSend(id, peer, index, path) => {
                let key = mix(host.chains[&id].secret, n as u64);
                host.seals.insert(id, Sealing { index, key });
                host.remotes.insert(id, path.to(peer));
            }
            Action::AskRekey(id, epoch) => self.say(n, id, Rekey::Ask(epoch)),
            Action::OfferKeys(id, epoch, index) => {
                let public = self.fresh_key();
                let chain = self.hosts[n].chains.get_mut(&id).unwrap();
                (chain.fresh, chain.public) = (Some(public), public);
                self.say(n, id, Rekey::Offer(share(epoch, index, public)));
            }
            Action::NextChain(id, theirs) => {
                let fresh = self.fresh_key();
                let chain = self.hosts[n].chains.get_mut(&id).unwrap();
                let [a, b, c, d, e, f, g, h, ..] = theirs;
                let theirs = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                chain.public = chain.fresh.take().unwrap_or(fresh);
                let shared = mix(chain.public.min(theirs), chain.public.max(theirs));
                chain.secret = mix(chain.secret, shared);
            }
            Action::AnswerKeys(id, epoch, index) => {
                let public = self.hosts[n].chains[&id].public;
                self.say(n, id, Rekey::Answer(share(epoch, index, public)));
            }
            Action::EraseReceive(id, index) => {
                let gone = host.opens.remove(&index).unwrap();
                assert_eq!(gone.connection, id);
                let ends = gone.ends.expect("the next key was heard of");
                assert!(ends <= self.now, "erased too early");
            }
            Action::EraseKeys(id) => {
                host.opens.retain(|_, o| o.connection != id);
                host.seals.remove(&id);
                host.chains.remove(&id);
            }
            other => unreachable!("{other:?} is not about keys"),
        }
    }

    fn say(&mut self, n: usize, connection: ConnectionId, said: Rekey) {
        if let Some(wire) = self.wire(n, connection).filter(|w| self.wires[*w].open) {
            self.stream(wire, n, Message::Rekey(said));
        }
    }

    fn fresh_key(&mut self) -> u64 {
        self.sequence += 1;
        mix(self.sequence, self.random)
    }

    /// An envelope, opened or not.
    pub(super) fn envelope(
        &mut self,
        n: usize,
        remote: Remote,
        from: usize,
        Sealing { index, key }: Sealing,
        body: Option<Vec<u8>>,
    ) {
        let (host, now) = (&mut self.hosts[n], self.now);
        let Some(opening) = host.opens.get_mut(&index) else {
            host.lost += 1;
            return self.event(n, Event::UnknownIndex(remote, index));
        };
        if opening.key != key {
            host.lost += 1;
            return;
        }
        let (connection, first) = (opening.connection, !std::mem::replace(&mut opening.heard, true));
        let moved = match remote {
            Remote::Udp(address) if body.is_none() => {
                host.newest_from.insert(index, address) != Some(address)
            }
            _ => false,
        };
        if first {
            let older = host.opens.iter_mut().filter(|(i, o)| **i != index && o.connection == connection);
            older.for_each(|(_, o)| o.ends = o.ends.or(Some(now + KEYS_LINGER)));
            self.event(n, Event::FirstAuthentic(index));
        } else if let (true, Remote::Udp(address)) = (moved, remote) {
            self.event(n, Event::Moved(index, address, 100));
        }
        match body {
            Some(body) => self.event(n, Event::Probe(index, remote.path(), &body)),
            None => drop(self.frames.insert((from, n), now)),
        }
    }

    /// No key is there that should be gone.
    pub(super) fn assert_no_stale_keys(&self) {
        for host in self.hosts.iter().filter(|h| h.alive) {
            let stale = host.opens.values().filter(|o| o.ends.is_some_and(|ends| ends + 2 * MS < self.now));
            assert_eq!(stale.count(), 0, "keys kept too long at {:?}", self.now);
        }
    }
}
