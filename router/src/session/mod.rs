//! The session layer, pure: (now, event) -> actions. It decides whom to dial, which connection carries a peer's frames, when a
//! link is up or down, and when keys come and go (PROTOCOL 2, 6 and 9); `router/io` only carries it out.
//!
//! | room | decides |
//! |---|---|
//! | [`Sessions`], `peers` | which peer an event is about, which is due |
//! | `peer` | which of a peer's connections is used, which are closed; restart, collision |
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

mod connection;
mod dialling;
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
mod streams;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_api::id::{BootId, HostId};
use weft_api::report::LinkState;
use weft_api::roster::Cipher;

use crate::drop::DropReason;
use indexes::Indexes;
use notice::NoticeLimit;
use peer::{Peer, Scene};
use peers::{Name, Peers};
use relays::Relays;

pub use connection::{CONFIRM_INTERVAL, DOWN_AFTER, PROBE_INTERVAL, SUSPECT_AFTER, SUSPECT_INTERVAL};
pub use dialling::{DIAL_TIMEOUT, MAX_ADDRESSES, MAX_PENDING};
pub use need::{IDLE_AFTER, MAX_ON_DEMAND};
pub use path::{Path, Remote, StreamId};
pub use paths::{COMPARE_INTERVAL, MAX_PATHS, PATH_LINGER, SEARCH_INTERVAL};
pub use peer::{KEYS_LINGER, MAX_CONNECTIONS};
pub use rekey::{MAX_EPOCHS, REKEY_AFTER, REKEY_ASK_AFTER, REKEY_PATIENCE, Rekey, Share};
pub use streams::{MAX_STREAMS, STREAM_AFTER};
pub use ways::SEEN_INTERVAL;

/// Who has lost a relay or found one may take another path, which makes or ends a relay: so often at a time, and again at once.
const ROUNDS: usize = 8;

/// A QUIC connection, by a number that is never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// The first message of each end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Tells a restart from a lost link.
    pub boot: BootId,
    /// The session index that the sender of this takes envelopes under.
    pub index: u32,
    /// What seals envelopes.
    pub cipher: Cipher,
    /// Dialled beside a session that works, to take its place.
    pub replaces: bool,
    /// The address that the sender of this sees the other at, if no relay is between them.
    pub seen: Option<SocketAddr>,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Time has passed; due at [`Sessions::next_wake`] at the latest.
    Tick,
    /// The roster: every other member.
    Members(&'a BTreeSet<HostId>),
    /// Where a member may be reached, the likeliest first.
    Addresses(HostId, &'a [Path]),
    /// A dial of ours reached a host that has proven its key.
    Reached(ConnectionId, HostId),
    /// A host that has proven its key dialled us; the id is from [`Sessions::new_connection`].
    Accepted(ConnectionId, HostId, Path),
    /// The peer's first message.
    Hello(ConnectionId, Hello),
    /// A connection ended, or a dial failed.
    Lost(ConnectionId, Option<Why>),
    /// A probe from an authentic envelope under our index, that came by this path.
    Probe(u32, Path, &'a [u8]),
    /// An authentic envelope under our index, newer than all before, of so many bytes, from another address than the one before.
    Moved(u32, SocketAddr, usize),
    /// The best first hops to members that are not linked directly, as far as facts tell.
    Routes(&'a BTreeMap<HostId, HostId>),
    /// With whom sessions are kept; until it is said, with everybody.
    Keep(&'a BTreeSet<HostId>),
    /// Frames go to this host, or wait to.
    Wanted(HostId),
    /// Datagrams go to this host that are longer than those that pass anywhere ([`mtu::floor`]).
    Full(HostId),
    /// This host's kernel refuses datagrams of this length along this path to the host; it takes the other length, if it says.
    TooBig(HostId, Path, u16, Option<u16>),
    /// The first authentic envelope under our index.
    FirstAuthentic(u32),
    /// An envelope from there had an index that nobody here knows.
    UnknownIndex(Remote, u32),
    /// Somebody says that a peer does not know this index of its own. Unproven.
    Notice(u32),
    /// The key to seal for this peer's index has sealed so many envelopes of a lane that it should be replaced.
    Worn(u32),
    /// A lane other than 0 has frames to seal for this peer's index.
    LaneWanted(u32, u8),
    /// What the peer says about the keys of a connection.
    Rekey(ConnectionId, Rekey),
    /// Somebody wants fresh keys of every session.
    RekeyAll,
    /// What came of [`Action::OpenStream`]: the stream, or none.
    StreamOpened(HostId, SocketAddr, Option<StreamId>),
    /// A TCP stream ended, whoever opened it.
    StreamEnded(StreamId),
}

/// What must be done. Carried out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Dial; who answers is reported by [`Event::Reached`].
    Dial(ConnectionId, HostId, Path),
    /// Close the connection, telling the peer why. Its keys stay until [`Action::EraseKeys`].
    Close(ConnectionId, Why),
    /// Make the key to open with from the connection's newest chain, first of all from its exporter: envelopes may come under
    /// this index from now on.
    InstallReceive(ConnectionId, HostId, u32),
    /// Send this as the first message.
    Greet(ConnectionId, Hello),
    /// Make the key to seal with from the connection's newest chain: the peer takes envelopes under this index, along this path.
    /// The key before it is forgotten.
    InstallSend(ConnectionId, HostId, u32, Path),
    /// Frames for the host go by this connection's key from now on.
    Use(HostId, ConnectionId),
    /// There is no key for the host any more.
    Unuse(HostId),
    /// A host that frames wait for ([`Event::Wanted`]) could not be reached.
    Unreached(HostId),
    /// Forget all keys of the connection.
    EraseKeys(ConnectionId),
    /// Tell the peer that this epoch is wanted.
    AskRekey(ConnectionId, u32),
    /// Make a fresh X25519 key and send its public half as the offer of this epoch, with our index in it.
    OfferKeys(ConnectionId, u32, u32),
    /// Make the next chain from this one, the peer's X25519 key and the one that was offered, or else a fresh one; forget this chain
    /// and the private key.
    NextChain(ConnectionId, [u8; 32]),
    /// Send the public half of that fresh key as the answer for this epoch, with our index in it.
    AnswerKeys(ConnectionId, u32, u32),
    /// Forget the key to open with of this index of ours.
    EraseReceive(ConnectionId, u32),
    /// The connection's envelopes and QUIC packets go along this path from now on.
    SetPath(ConnectionId, Path),
    /// Open a TCP stream to this address of the host.
    OpenStream(HostId, SocketAddr),
    /// Send this body, sealed, along this path whatever the connection's is; the flag says that it is an answer.
    Probe(ConnectionId, Path, [u8; probe::PROBE_LEN], bool),
    /// The same, as a question padded to a datagram of this length. What does not fit the interface is told by [`Event::TooBig`].
    ProbeSize(ConnectionId, Path, [u8; probe::PROBE_LEN], u16),
    /// The path passes datagrams of this length; until it is said, of [`mtu::floor`]. The flag says that this is settled: a moment
    /// later it will hardly be more.
    SetSize(ConnectionId, u16, bool),
    /// Send this body, sealed, on this lane.
    ProbeLane(ConnectionId, u8, [u8; probe::PROBE_LEN]),
    /// Frames of this lane go by it from now on, or by lane 0 again.
    UseLane(ConnectionId, u8, bool),
    /// Tell the peer that it is seen at this address now.
    TellSeen(ConnectionId, SocketAddr),
    /// Tell the sender that nobody here knows the index.
    Notice(Remote, u32),
    /// Envelopes pass both ways.
    LinkUp(HostId),
    /// They do not any more.
    LinkDown(HostId),
    /// Count this.
    Count(DropReason),
}

/// Why a connection is closed; its number travels in QUIC's CONNECTION_CLOSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Another connection with this host took its place; envelopes under way are still taken.
    Superseded = 1,
    /// The host has started anew.
    Restarted = 2,
    /// The peer is no member.
    NotAMember = 3,
    /// Nothing was heard any more.
    Silent = 4,
    /// A dial or a greeting took too long, or is not needed any more.
    GivenUp = 5,
    /// The peer seals with another suite.
    CipherDiffers = 6,
    /// A message out of turn, too long or unreadable.
    Garbled = 7,
    /// The host stops.
    Goodbye = 8,
    /// A host dialled itself.
    Itself = 9,
    /// More connections with one host than are kept.
    TooMany = 10,
    /// Nothing needed it any more.
    Idle = 11,
}

impl Why {
    /// The reason of a code that a peer sent.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        use Why::{
            CipherDiffers, Garbled, GivenUp, Goodbye, Idle, Itself, NotAMember, Restarted, Silent,
            Superseded, TooMany,
        };
        [
            Superseded,
            Restarted,
            NotAMember,
            Silent,
            GivenUp,
            CipherDiffers,
            Garbled,
            Goodbye,
            Itself,
            TooMany,
            Idle,
        ]
        .into_iter()
        .find(|w| *w as u64 == code)
    }
}

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
            Event::Addresses(host, paths) => {
                self.with_peer(now, actions, host, |peer, scene| {
                    peer.set_addresses(scene, paths);
                });
            }
            Event::Reached(id, host) => self.reached(now, id, host, actions),
            Event::Accepted(id, host, path) => self.greet(now, id, host, path, None, actions),
            Event::Hello(id, hello) => {
                self.with_owner(now, actions, id, |peer, scene| peer.hello(scene, id, &hello));
            }
            Event::Lost(id, why) => {
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
        self.peers.next_wake()
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
        let refusal = if host == self.me {
            Some((Why::Itself, DropReason::DialledItself))
        } else if self.peers.get(host).is_none() {
            Some((Why::NotAMember, DropReason::NotAMember))
        } else {
            None
        };
        if let Some((why, reason)) = refusal {
            actions.extend([Action::Close(id, why), Action::Count(reason)]);
            return;
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
