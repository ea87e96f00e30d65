//! How news leave this host: pushed along the tree, announced to one other neighbour at a time, and never faster than a bound.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use weft_api::id::HostId;

use super::bucket::{Bucket, Rate};
use super::message::{Ask, Gossip, MAX_RECORDS, Records};
use super::record::{AnyRecord, Id, RecordKey};
use super::tie::{News, Tie};
use super::{MAX_BATCH_LEN, Mesh};

/// All gossip of this host together, bytes with the headers of its packets: so that with acknowledgements, handshakes and probes of
/// size it stays below 10 Mbit in any second. Only short words of control do not wait for it.
const OUT: Rate = Rate { per_second: 600_000, burst: 64 << 10 };
/// IP, UDP, envelope, QUIC.
const HEADERS: usize = 100;
/// Of a message, in one packet.
const PACKET: usize = 1100;
/// What is not pushed is announced to one neighbour for so long, in one message, then to another.
pub(super) const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);
/// News of the last while: who becomes a neighbour in the tree may have missed them.
const RECENT: Duration = Duration::from_secs(3);
/// So many of them; of more the roots are compared.
const MAX_RECENT: usize = 64;
/// Links that take the place of one that the tree has lost, until one end prunes them.
const BRANCHES: usize = 4;

/// What news leave by.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    sent: Bucket,
    /// To whom news are announced, and until when.
    herald: Option<(HostId, Duration)>,
    recent: VecDeque<(Duration, Id)>,
    forgot: Duration,
}

impl Outlet {
    /// Whether more than words of control may be sent.
    pub(super) fn has_room(&self, now: Duration) -> bool {
        self.ready() <= now
    }

    /// When there is room.
    pub(super) fn ready(&self) -> Duration {
        self.sent.ready(1, OUT)
    }

    fn charge(&mut self, now: Duration, bytes: usize) {
        self.sent.charge(now, u32::try_from(bytes).unwrap_or(u32::MAX), OUT);
    }

    fn remember(&mut self, now: Duration, id: Id) {
        while self.recent.front().is_some_and(|(at, _)| *at + RECENT < now) {
            self.recent.pop_front();
        }
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
            self.forgot = now;
        }
        self.recent.push_back((now, id));
    }
}

impl Mesh {
    /// What to send to this host next: to be asked for after [`super::Action::Send`] until there is nothing, and whenever the stream
    /// takes more.
    pub fn next_message(&mut self, now: Duration, host: HostId) -> Option<Gossip> {
        let message = self.find_message(now, host)?;
        self.outlet.charge(now, message.size() + HEADERS * message.size().div_ceil(PACKET));
        Some(message)
    }

    fn find_message(&mut self, now: Duration, host: HostId) -> Option<Gossip> {
        let tie = self.ties.get_mut(&host).filter(|t| t.connected)?;
        let room = self.outlet.has_room(now);
        if let Some(message) = tie.next_control(room) {
            return Some(message);
        }
        if !room {
            return None;
        }
        if let Some((graft, keys)) = tie.next_asks() {
            let asks = keys.into_iter().map(|(key, whole)| self.ask(key, whole)).collect();
            return Some(Gossip::Ask { graft, asks });
        }
        let tie = self.ties.get_mut(&host)?;
        if let Some(message) = tie.next_push() {
            return Some(message);
        }
        self.next_answer(host).or_else(|| self.ties.get_mut(&host)?.next_ids(now))
    }

    fn ask(&self, key: RecordKey, whole: bool) -> Ask {
        let said = match key {
            RecordKey::Facts(owner) if !whole => self.facts.get(owner),
            _ => None,
        };
        Ask { have: said.map(|s| (s.head.version, s.prints())), key }
    }

    fn next_answer(&mut self, host: HostId) -> Option<Gossip> {
        let (mut records, mut total) = (Records::default(), 0);
        while total < MAX_BATCH_LEN && records.len() < MAX_RECORDS {
            let Some((key, have)) = self.ties.get_mut(&host)?.next_owed() else { break };
            match (self.record(&key), have) {
                (None, _) => continue,
                (Some(AnyRecord::Facts(said)), Some((base, prints))) => {
                    records.facts.push(said.since_prints(base, &prints));
                }
                (Some(record), _) => News::Record(record).into(&mut records),
            }
            total = records.size();
        }
        (!records.is_empty()).then_some(Gossip::Answer(records))
    }

    /// Pushes a record to the neighbours along the tree that do not have it, and announces it to another.
    pub(super) fn spread(&mut self, now: Duration, record: &AnyRecord, news: &News, knew: &[HostId]) {
        let id = record.id();
        let herald = self.herald(now);
        for (host, tie) in self.ties.iter_mut().filter(|(h, t)| t.bound() && !knew.contains(h)) {
            match herald {
                Some((to, at)) if to == *host => tie.tell(id.clone(), news.clone(), at),
                _ if tie.eager() => tie.tell(id.clone(), news.clone(), now + ANNOUNCE_EVERY),
                _ => {}
            }
        }
        self.outlet.remember(now, id);
    }

    /// To whom news are announced now, and when.
    fn herald(&mut self, now: Duration) -> Option<(HostId, Duration)> {
        let lazy: Vec<HostId> =
            self.ties.iter().filter(|(_, t)| t.bound() && !t.eager()).map(|(h, _)| *h).collect();
        if self.outlet.herald.is_none_or(|(host, until)| until <= now || !lazy.contains(&host)) {
            let chosen = self.any_of(&lazy);
            self.outlet.herald = chosen.map(|host| (host, self.around(now, ANNOUNCE_EVERY)));
        }
        self.outlet.herald
    }

    fn any_of(&mut self, hosts: &[HostId]) -> Option<HostId> {
        let at = self.draw().checked_rem(hosts.len() as u64)?;
        hosts.get(usize::try_from(at).ok()?).copied()
    }

    /// The tree may be another now. Who has become a neighbour in it hears what it may have missed meanwhile.
    pub(super) fn grow(&mut self, now: Duration, tree: &BTreeSet<HostId>) {
        let forgot = self.outlet.forgot + RECENT > now && self.outlet.forgot > Duration::ZERO;
        let root = self.sums.root();
        let recent = self.outlet.recent.iter().filter(|(at, _)| *at + RECENT >= now).map(|(_, id)| id);
        for (host, tie) in &mut self.ties {
            let was = std::mem::replace(&mut tie.tree, tree.contains(host));
            if !tie.tree || was || tie.grafted {
                continue;
            }
            if forgot {
                tie.say(Gossip::Root(root));
            } else {
                recent.clone().for_each(|id| tie.announce(id.clone(), now));
            }
        }
    }

    /// The tree has lost a branch; others take its place until somebody prunes them.
    pub(super) fn mend_tree(&mut self) {
        let lazy: Vec<HostId> =
            self.ties.iter().filter(|(_, t)| t.bound() && !t.eager()).map(|(h, _)| *h).collect();
        let first = usize::try_from(self.draw() % lazy.len().max(1) as u64).unwrap_or_default();
        for host in lazy.iter().cycle().skip(first).take(lazy.len().min(BRANCHES)) {
            if let Some(tie) = self.ties.get_mut(host) {
                tie.grafted = true;
            }
        }
    }

    /// Whether something waits for room.
    pub(super) fn waits(&self) -> bool {
        self.ties.values().any(|t| t.connected && t.ready(self.now))
    }
}

impl Tie {
    /// News are pushed, not only announced.
    pub(super) fn eager(&self) -> bool {
        self.tree || self.grafted
    }
}
