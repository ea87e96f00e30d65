//! The session layer, pure: (now, event) -> actions. It decides whom to dial, which connection carries a peer's frames, when a
//! link is up or down, and when keys come and go (PROTOCOL 2, 6 and 9); `router/io` only carries it out.
//!
//! | room | decides |
//! |---|---|
//! | `event`, `action` | (what happens, what must be done) |
//! | [`Sessions`], `peers` | which peer an event is about, which is due |
//! | `peer`, `choosing` | a peer's connections: restart, collision; which is used, which are closed |
//! | `connection` | liveness: when to probe, when it is dead |
//! | `rekey` | fresh keys: when, who begins, when the old ones go |
//! | `dialling` | which address is dialled when |
//! | `lanes` | by which of our lanes frames go |
//! | [`mtu`] | how long datagrams may be on a path |
//! | `path`, `paths`, `ways` | what carries datagrams; which of a peer's paths is used, which are tried |
//! | `relays` | which neighbours may relay to whom |
//! | `streams` | when TCP is tried |
//! | [`probe`] | the three-way echo |
//! | [`message`] | the bytes of the control stream |
//! | `need` | which sessions are kept, which end when idle |
//! | `notice` | how many notices are sent |
//! | `strangers` | who has proven a key that is no member's, and may yet prove that it is one |

mod action;
mod choosing;
mod connection;
mod dialling;
mod event;
mod indexes;
mod lanes;
pub mod message;
pub mod mtu;
mod need;
mod notice;
mod path;
mod paths;
mod peer;
mod peers;
pub mod probe;
mod rekey;
mod relays;
mod strangers;
mod streams;
mod ways;

use std::collections::BTreeSet;
use std::time::Duration;

use weft_api::id::{BootId, HostId};
use weft_api::report::LinkState;
use weft_api::roster::Cipher;

use crate::drop::DropReason;
use indexes::Indexes;
use notice::NoticeLimit;
use peer::{Peer, Scene};
use peers::{Name, Peers};
use relays::Relays;
use strangers::{Stranger, Strangers};

pub use action::{Action, Why};
pub use connection::{CONFIRM_INTERVAL, DOWN_AFTER, PROBE_INTERVAL, SUSPECT_AFTER, SUSPECT_INTERVAL};
pub use dialling::{DIAL_TIMEOUT, MAX_ADDRESSES, MAX_PENDING};
pub use event::{ConnectionId, Event, Hello};
pub use need::{IDLE_AFTER, LINGER, MAX_ON_DEMAND};
pub use path::{Path, Remote, StreamId};
pub use paths::{COMPARE_INTERVAL, MAX_PATHS, PATH_LINGER, SEARCH_INTERVAL};
pub use peer::{KEYS_LINGER, MAX_CONNECTIONS};
pub use rekey::{MAX_EPOCHS, REKEY_AFTER, REKEY_ASK_AFTER, REKEY_PATIENCE, Rekey, Share};
pub use strangers::{MAX_STRANGERS, STRANGER_PATIENCE, STRANGERS_OF_ONE};
pub use streams::{MAX_STREAMS, STREAM_AFTER};
pub use ways::SEEN_INTERVAL;

/// Who has lost a relay or found one may take another path, which makes or ends a relay: so often at a time, and again at once.
const ROUNDS: usize = 8;

/// A peer as the session layer sees it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinkView {
    /// The peer.
    pub host: HostId,
    /// Whether envelopes pass.
    pub state: LinkState,
    /// The connection in use.
    pub connection: Option<ConnectionId>,
    /// Its path, or where it answered last.
    pub path: Option<Path>,
    /// Round trip of the last probes.
    pub rtt: Option<Duration>,
    /// Share of the last 32 probes that did not come back.
    pub loss: f32,
    /// When its newest keys were made.
    pub since: Option<Duration>,
}

impl LinkView {
    /// Whether envelopes pass without a third host.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.state == LinkState::Up && self.path.is_some_and(Path::is_direct)
    }
}

/// Every session of this host. Times are durations since any fixed moment.
#[derive(Debug)]
pub struct Sessions {
    me: HostId,
    boot: BootId,
    cipher: Cipher,
    seed: [u8; 32],
    indexes: Indexes,
    connections: u64,
    started: bool,
    peers: Peers,
    /// Sessions with these are kept; nothing: with everybody.
    kept: Option<BTreeSet<HostId>>,
    notices: NoticeLimit,
    relays: Relays,
    strangers: Strangers,
}

impl Sessions {
    /// Nobody known yet. `seed` is random: indexes and pauses come from it.
    #[must_use]
    pub fn new(me: HostId, boot: BootId, cipher: Cipher, seed: [u8; 32]) -> Self {
        Self {
            me,
            boot,
            cipher,
            seed,
            indexes: Indexes::new(seed),
            connections: 0,
            started: false,
            peers: Peers::default(),
            kept: None,
            notices: NoticeLimit::default(),
            relays: Relays::default(),
            strangers: Strangers::default(),
        }
    }

    /// A number for a connection that somebody else dialled.
    pub fn new_connection(&mut self) -> ConnectionId {
        self.connections += 1;
        ConnectionId(self.connections)
    }

    /// Takes an event; appends what must be done.
    pub fn handle(&mut self, now: Duration, event: Event<'_>, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Members(members) => self.members(now, members, actions),
            Event::Refused(host) => self.strangers.refuse(host, actions),
            Event::Addresses(host, paths) => {
                self.with_peer(now, actions, host, |peer, scene| {
                    peer.set_addresses(scene, paths);
                });
            }
            Event::Reached(id, host) => self.reached(now, id, host, actions),
            Event::Accepted(id, host, path) => self.greet(now, id, host, path, None, actions),
            Event::Hello(id, hello) => {
                self.strangers.hello(id, hello);
                self.with_owner(now, actions, id, |peer, scene| peer.hello(scene, id, &hello));
            }
            Event::Lost(id, why) => {
                self.strangers.lost(id);
                self.with_owner(now, actions, id, |peer, scene| peer.lost(scene, id, why));
            }
            Event::Probe(index, path, body) => {
                let owner = self.peers.named(Name::Ours(index));
                self.with(now, actions, owner, |peer, scene| {
                    peer.proven(scene, index);
                    peer.probed(scene, index, path, body);
                });
            }
            Event::Moved(index, from, len) => {
                let owner = self.peers.named(Name::Ours(index));
                self.with(now, actions, owner, |peer, scene| peer.moved(scene, Path::Udp(from), len));
            }
            Event::Routes(routes) => self.relays.set_routes(routes),
            Event::Keep(hosts) => self.keep(now, hosts, actions),
            Event::Wanted(host) => self.want(now, host, actions),
            Event::Full(host) => self.with_peer(now, actions, host, |peer, scene| peer.paths.full(scene.now)),
            Event::TooBig(host, path, size, limit) => {
                self.with_peer(now, actions, host, |peer, scene| peer.too_big(scene, path, size, limit));
            }
            Event::FirstAuthentic(index) => {
                let owner = self.peers.named(Name::Ours(index));
                self.with(now, actions, owner, |peer, scene| {
                    peer.heard(scene, index);
                    peer.proven(scene, index);
                });
            }
            Event::UnknownIndex(remote, index) => {
                let allowed = self.notices.allows(now, remote);
                actions.push(if allowed {
                    Action::Notice(remote, index)
                } else {
                    Action::Count(DropReason::NoticeLimit)
                });
            }
            Event::Notice(index) => {
                let owner = self.peers.named(Name::Theirs(index));
                match owner {
                    Some(host) => {
                        self.with_peer(now, actions, host, |peer, scene| peer.notice(scene, index));
                    }
                    None => actions.push(Action::Count(DropReason::NoticeIgnored)),
                }
            }
            Event::Worn(index) => {
                let owner = self.peers.named(Name::Theirs(index));
                self.with(now, actions, owner, |peer, _| peer.worn(index));
            }
            Event::StreamOpened(host, address, stream) => {
                self.with_peer(now, actions, host, |peer, scene| peer.stream_opened(scene, address, stream));
            }
            Event::StreamEnded(stream) => {
                let goes_by = self.peers.iter().filter(|p| p.goes_by(stream)).map(|p| p.host);
                for host in goes_by.collect::<Vec<_>>() {
                    self.with_peer(now, actions, host, |peer, scene| peer.stream_ended(scene, stream));
                }
            }
            Event::LaneWanted(index, lane) => {
                let owner = self.peers.named(Name::Theirs(index));
                self.with(now, actions, owner, |peer, scene| peer.lane_wanted(scene, index, lane));
            }
            Event::Rekey(id, said) => {
                self.with_owner(now, actions, id, |peer, scene| peer.rekey(scene, id, said));
            }
            Event::RekeyAll => {
                for host in self.peers.hosts().collect::<Vec<_>>() {
                    self.peers.change(host, |peer, _| peer.want_fresh_keys());
                }
            }
        }
        self.tick(now, actions);
    }

    /// When [`Event::Tick`] is due if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        self.peers.next_wake().into_iter().chain(self.strangers.next_wake()).min()
    }

    /// Every peer.
    pub fn links(&self) -> impl Iterator<Item = LinkView> {
        self.peers.iter().map(Peer::view)
    }

    /// One peer.
    #[must_use]
    pub fn link(&self, host: HostId) -> Option<LinkView> {
        self.peers.get(host).map(Peer::view)
    }

    /// The connection that a peer's frames go by.
    #[must_use]
    pub fn used(&self, host: HostId) -> Option<ConnectionId> {
        self.peers.get(host).and_then(|p| p.used)
    }

    fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.strangers.tick(now, actions);
        for _ in 0..ROUNDS {
            self.tick_due(now, actions);
            if !self.update_relays(now, actions) {
                break;
            }
        }
    }

    fn tick_due(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for host in self.peers.due(now) {
            let relays = self.relays.of(now, host);
            self.with_peer(now, actions, host, |peer, scene| {
                if peer.is_idle(now) {
                    peer.end_all(scene, Why::Idle);
                }
                peer.set_relays(scene, relays);
                peer.tick(scene);
            });
        }
    }

    /// Whoever is linked directly may relay; who goes by one that is not any more must know at once. Who is not needed is told
    /// when it is. Returns whether the neighbours are others than before.
    fn update_relays(&mut self, now: Duration, actions: &mut Vec<Action>) -> bool {
        let Some(neighbours) = self.peers.new_neighbours() else { return false };
        let neighbours = neighbours.clone();
        self.relays.set_neighbours(neighbours.clone());
        let needed = self.peers.iter().filter(|p| p.need.holds(now) || !p.connections.is_empty());
        for host in needed.map(|p| p.host).collect::<Vec<_>>() {
            let relays = self.relays.of(now, host);
            self.with_peer(now, actions, host, |peer, scene| {
                peer.keep_relays(scene, &neighbours);
                peer.set_relays(scene, relays);
            });
        }
        true
    }

    fn members(&mut self, now: Duration, members: &BTreeSet<HostId>, actions: &mut Vec<Action>) {
        let gone: Vec<HostId> = self.peers.hosts().filter(|h| !members.contains(h)).collect();
        for host in gone {
            self.with_peer(now, actions, host, |peer, scene| peer.end_all(scene, Why::NotAMember));
            self.peers.remove(host);
        }
        let new = members.iter().filter(|h| **h != self.me && self.peers.get(**h).is_none());
        for host in new.copied().collect::<Vec<_>>() {
            let kept = self.kept.as_ref().is_none_or(|kept| kept.contains(&host));
            self.peers.add(Peer::new(now, host, self.started, kept));
        }
        self.started = true;
        for Stranger { id, host, path, dialled, hello, .. } in self.strangers.that_are(members) {
            self.greet(now, id, host, path, dialled, actions);
            if let Some(hello) = hello {
                self.with_owner(now, actions, id, |peer, scene| peer.hello(scene, id, &hello));
            }
        }
    }

    /// A dial for one host that reached another is the other's connection.
    fn reached(&mut self, now: Duration, id: ConnectionId, host: HostId, actions: &mut Vec<Action>) {
        let meant = self.peers.named(Name::Connection(id));
        let dial = meant.and_then(|m| self.peers.change(m, |peer, _| peer.take_dial(id))).flatten();
        match dial {
            Some((path, replaces)) => {
                let replaces = replaces && meant == Some(host);
                self.greet(now, id, host, path, Some(replaces), actions);
            }
            None => actions.push(Action::Close(id, Why::GivenUp)),
        }
    }

    fn greet(
        &mut self,
        now: Duration,
        id: ConnectionId,
        host: HostId,
        path: Path,
        dialled: Option<bool>,
        actions: &mut Vec<Action>,
    ) {
        if host == self.me {
            return actions
                .extend([Action::Close(id, Why::Itself), Action::Count(DropReason::DialledItself)]);
        }
        if self.peers.get(host).is_none() {
            let stranger = Stranger { id, host, path, dialled, hello: None, since: now };
            return self.strangers.hold(stranger, actions);
        }
        let index = self.indexes.draw();
        self.with_peer(now, actions, host, |peer, scene| peer.greet(scene, id, path, dialled, index));
    }

    fn with_owner(
        &mut self,
        now: Duration,
        actions: &mut Vec<Action>,
        id: ConnectionId,
        act: impl FnOnce(&mut Peer, &mut Scene<'_>),
    ) {
        let owner = self.peers.named(Name::Connection(id));
        self.with(now, actions, owner, act);
    }

    fn with(
        &mut self,
        now: Duration,
        actions: &mut Vec<Action>,
        owner: Option<HostId>,
        act: impl FnOnce(&mut Peer, &mut Scene<'_>),
    ) {
        if let Some(host) = owner {
            self.with_peer(now, actions, host, act);
        }
    }

    fn with_peer(
        &mut self,
        now: Duration,
        actions: &mut Vec<Action>,
        host: HostId,
        act: impl FnOnce(&mut Peer, &mut Scene<'_>),
    ) {
        let [a, b, c, d, e, f, g, h, ..] = self.seed;
        self.peers.change(host, |peer, relay_dials| {
            let mut scene = Scene {
                now,
                lower: self.me < host,
                boot: self.boot,
                cipher: self.cipher,
                jitter: dialling::Jitter { seed: u64::from_be_bytes([a, b, c, d, e, f, g, h]), host },
                connections: &mut self.connections,
                relay_dials,
                indexes: &mut self.indexes,
                actions,
            };
            act(peer, &mut scene);
        });
    }
}

#[cfg(test)]
mod tests;
