//! What this host knows of the mesh, and who still needs what of it. Changed by the keeper alone; read by everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::fact::{FactRecord, Item};
use weft_api::id::{HostId, HostKey, MeshKey};
use weft_api::roster::RosterRecord;
use weft_api::sign::{Signed, SigningKey};
use weft_router::drop::DropCounters;
use weft_router::mesh::{Decisions, Facts, News, Own, RecordKey, Roster, Spread};
use weft_router::session::message::{MAX_RECORDS, Message};
use weft_router::session::{ConnectionId, Path};

use super::{MeshView, StartError, Stored, StoredRecord};

/// Shared by keeper, engine and the writers of control streams. Its lock is never held across an await.
pub(super) struct Store {
    me: HostId,
    key: SigningKey,
    dial: Vec<(HostId, SocketAddr)>,
    inner: Mutex<Inner>,
    view: watch::Sender<Arc<MeshView>>,
    /// Members or addresses have changed.
    pub changed: Notify,
}

struct Inner {
    roster: Roster,
    facts: Facts,
    decisions: Decisions,
    own: Own,
    spread: Spread,
    writers: BTreeMap<HostId, (ConnectionId, Arc<Notify>)>,
    reachable: BTreeSet<HostId>,
}

/// A record that holds and is news, checked but not taken yet: it must be stored first.
pub(super) enum Fresh {
    Roster(HostId, Signed<RosterRecord>),
    Facts(HostId, Signed<FactRecord>),
    Decision(DecisionKey, Signed<Decision>),
}

impl Fresh {
    pub(super) fn stored(&self) -> StoredRecord {
        match self {
            Self::Roster(host, signed) => StoredRecord::Roster(*host, signed.clone()),
            Self::Facts(host, signed) => StoredRecord::Facts(*host, signed.clone()),
            Self::Decision(key, signed) => StoredRecord::Decision(key.clone(), signed.clone()),
        }
    }

    pub(super) fn key(&self) -> RecordKey {
        match self {
            Self::Roster(host, _) => RecordKey::Roster(*host),
            Self::Facts(host, _) => RecordKey::Facts(*host),
            Self::Decision(key, _) => RecordKey::Decision(key.clone()),
        }
    }
}

impl Store {
    /// From what the disk has kept; records that do not hold (any more) are counted and left out.
    pub(super) fn open(
        key: SigningKey,
        mesh_name: &str,
        mesh_key: MeshKey,
        boot_counter: u64,
        stored: Stored,
        dial: Vec<(HostId, SocketAddr)>,
        drops: &DropCounters,
    ) -> Result<Self, StartError> {
        let me = HostKey(key.public()).id();
        let mut roster = Roster::new(mesh_key);
        for record in stored.roster {
            count(drops, roster.insert(record).err());
        }
        let is_me = |r: &RosterRecord| r.key.0 == key.public();
        if !roster.member(me).is_some_and(is_me) {
            return Err(StartError::NotAMember { mesh: mesh_name.to_owned() });
        }
        let (mut facts, mut decisions) = (Facts::default(), Decisions::default());
        for record in stored.facts {
            count(drops, facts.insert(&roster, record).err());
        }
        for record in stored.decisions {
            count(drops, decisions.restore(&roster, record).err());
        }
        let mut own = Own::new(roster.mesh(), me, boot_counter);
        if let Some(before) = facts.get(me) {
            own.heard(&key, before.version);
        }
        let inner = Inner {
            roster,
            facts,
            decisions,
            own,
            spread: Spread::default(),
            writers: BTreeMap::new(),
            reachable: BTreeSet::from([me]),
        };
        let view = watch::Sender::new(Arc::new(inner.view()));
        Ok(Self { me, key, dial, inner: Mutex::new(inner), view, changed: Notify::new() })
    }

    pub(super) fn view(&self) -> watch::Receiver<Arc<MeshView>> {
        self.view.subscribe()
    }

    /// Every member but this host; none if this host is none itself.
    pub(super) fn others(&self) -> BTreeSet<HostId> {
        let mut members = self.lock().roster.members();
        if members.remove(&self.me) { members } else { BTreeSet::new() }
    }

    /// Whether this host is still a member.
    pub(super) fn is_member(&self) -> bool {
        self.lock().roster.member(self.me).is_some()
    }

    /// The member that has this key.
    pub(super) fn member(&self, key: HostKey) -> Option<RosterRecord> {
        self.lock().roster.member(key.id()).filter(|r| r.key == key).cloned()
    }

    /// A member's name.
    pub(super) fn name(&self, host: HostId) -> Option<String> {
        self.lock().roster.member(host).map(|r| r.name.clone())
    }

    /// This host's own roster record.
    pub(super) fn own_record(&self) -> Option<Signed<RosterRecord>> {
        self.lock().roster.signed(self.me).cloned()
    }

    /// Where a host may be reached: as given here, as it says itself, as the controller says.
    pub(super) fn addresses(&self, host: HostId) -> Vec<Path> {
        let inner = self.lock();
        let given = self.dial.iter().filter(|(h, _)| *h == host).map(|(_, a)| *a);
        let said = inner.facts.get(host).into_iter().flat_map(|f| &f.items).filter_map(|item| {
            match Item::decode(item) {
                Some(Item::Address(address)) => Some(address),
                _ => None,
            }
        });
        let decided = match inner.decisions.get(&DecisionKey::Controller).and_then(|d| d.body.as_ref()) {
            Some(DecisionBody::Controller { host: h, addresses }) if *h == host => addresses.clone(),
            _ => Vec::new(),
        };
        let usable = |a: &SocketAddr| a.port() != 0 && !a.ip().is_unspecified() && !a.ip().is_multicast();
        given.chain(said).chain(decided).filter(usable).map(Path::Udp).collect()
    }

    /// A link is up or down.
    pub(super) fn set_reachable(&self, host: HostId, up: bool) {
        let mut inner = self.lock();
        let changed = if up { inner.reachable.insert(host) } else { inner.reachable.remove(&host) };
        if changed {
            self.show(&inner);
        }
    }

    /// A host's records go by this connection from now on; it needs everything.
    pub(super) fn connected(&self, host: HostId, connection: ConnectionId, writer: Arc<Notify>) {
        let mut inner = self.lock();
        let everything = inner.keys();
        inner.spread.connected(host, everything);
        writer.notify_one();
        inner.writers.insert(host, (connection, writer));
    }

    /// No connection of the host carries records any more.
    pub(super) fn disconnected(&self, host: HostId) {
        let mut inner = self.lock();
        inner.spread.disconnected(host);
        inner.writers.remove(&host);
    }

    /// What this connection sends next.
    pub(super) fn next_messages(&self, host: HostId, connection: ConnectionId) -> Vec<Message> {
        let mut inner = self.lock();
        if inner.writers.get(&host).is_none_or(|(c, _)| *c != connection) {
            return Vec::new();
        }
        let Inner { roster, facts, decisions, spread, .. } = &mut *inner;
        let length = |key: &RecordKey| match key {
            RecordKey::Roster(h) => roster.signed(*h).map_or(0, |s| s.bytes().len()),
            RecordKey::Facts(h) => facts.signed(*h).map_or(0, |s| s.bytes().len()),
            RecordKey::Decision(k) => decisions.signed(k).map_or(0, |s| s.bytes().len()),
        };
        let batch = spread.next_batch(host, length);
        let (mut members, mut said, mut decided) = (Vec::new(), Vec::new(), Vec::new());
        for key in &batch {
            match key {
                RecordKey::Roster(h) => members.extend(roster.signed(*h).cloned()),
                RecordKey::Facts(h) => said.extend(facts.signed(*h).cloned()),
                RecordKey::Decision(k) => decided.extend(decisions.signed(k).cloned()),
            }
        }
        let members = members.chunks(MAX_RECORDS).map(|r| Message::Roster(r.to_vec()));
        let decided = decided.chunks(MAX_RECORDS).map(|r| Message::Decisions(r.to_vec()));
        let said = said.into_iter().map(|r| Message::Facts(vec![r])); // each may be as long as a message
        members.chain(decided).chain(said).collect()
    }

    /// Checks what a neighbour sent, or what was made here (`from` is `None`). Notes who has and who lacks what.
    pub(super) fn check(&self, message: &Message, from: Option<HostId>, drops: &DropCounters) -> Vec<Fresh> {
        let mut inner = self.lock();
        let mut fresh: Vec<Fresh> = Vec::new();
        let mut told = Vec::new();
        match message {
            Message::Hello(_) | Message::Rekey(_) => {}
            Message::Roster(records) => {
                for signed in records {
                    if let Some((news, r)) = held(drops, inner.roster.check(signed)) {
                        let host = r.key.id();
                        told.push((news, RecordKey::Roster(host)));
                        fresh.extend((news == News::New).then(|| Fresh::Roster(host, signed.clone())));
                    }
                }
            }
            Message::Facts(records) => {
                for signed in records {
                    if let Some((news, r)) = held(drops, inner.facts.check(&inner.roster, signed)) {
                        told.push((news, RecordKey::Facts(r.owner)));
                        if news == News::New && r.owner == self.me && from.is_some() {
                            let jumped = inner.own.heard(&self.key, r.version);
                            fresh.extend(jumped.map(|signed| Fresh::Facts(self.me, signed)));
                        } else if news == News::New {
                            fresh.push(Fresh::Facts(r.owner, signed.clone()));
                        }
                    }
                }
            }
            Message::Decisions(records) => {
                for signed in records {
                    if let Some((news, d)) = held(drops, inner.decisions.check(&inner.roster, signed)) {
                        told.push((news, RecordKey::Decision(d.key.clone())));
                        fresh.extend((news == News::New).then(|| Fresh::Decision(d.key, signed.clone())));
                    }
                }
            }
        }
        for (news, key) in told {
            match (from, news) {
                (Some(from), News::Same) => inner.spread.has(from, &key),
                (Some(from), News::Old) => {
                    inner.spread.lacks(from, &key);
                    inner.wake(from);
                }
                _ => {}
            }
        }
        fresh
    }

    /// Takes records that are stored by now. Returns what must be forgotten on disk.
    pub(super) fn take(&self, fresh: Vec<Fresh>, from: Option<HostId>) -> Vec<StoredRecord> {
        let mut inner = self.lock();
        let mut gone = Vec::new();
        for record in fresh {
            let key = record.key();
            let taken = match record {
                Fresh::Roster(host, signed) => {
                    let taken = inner.roster.insert(signed).is_ok();
                    if inner.roster.member(host).is_none() && inner.facts.forget(host) {
                        gone.push(StoredRecord::FactsGone(host));
                    }
                    taken
                }
                Fresh::Facts(_, signed) => {
                    let Inner { facts, roster, .. } = &mut *inner;
                    facts.insert(roster, signed).is_ok()
                }
                Fresh::Decision(_, signed) => {
                    let Inner { decisions, roster, .. } = &mut *inner;
                    decisions.insert(roster, signed).is_ok()
                }
            };
            if taken {
                // Our own jumped-past facts go back to who sent the older ones.
                let source = if key == RecordKey::Facts(self.me) { None } else { from };
                inner.spread.changed(&key, source);
            }
        }
        inner.writers.values().for_each(|(_, writer)| writer.notify_one());
        self.show(&inner);
        drop(inner);
        self.changed.notify_one();
        gone
    }

    /// What this host says of itself, as a message to check and take like any other; `None` if it is no news.
    pub(super) fn say(&self, items: &[Item]) -> (Option<Message>, usize) {
        let encoded = items.iter().map(Item::encode).collect();
        let (signed, left_out) = self.lock().own.say(&self.key, encoded);
        (signed.map(|s| Message::Facts(vec![s])), left_out)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, inner: &Inner) {
        self.view.send_replace(Arc::new(inner.view()));
    }
}

impl Inner {
    fn keys(&self) -> Vec<RecordKey> {
        let members = self.roster.records().map(|(h, _)| RecordKey::Roster(h));
        let facts = self.facts.records().map(|r| RecordKey::Facts(r.owner));
        let decisions = self.decisions.records().map(|d| RecordKey::Decision(d.key.clone()));
        members.chain(facts).chain(decisions).collect()
    }

    fn wake(&self, host: HostId) {
        if let Some((_, writer)) = self.writers.get(&host) {
            writer.notify_one();
        }
    }

    fn view(&self) -> MeshView {
        let facts =
            |r: &FactRecord| (r.owner, (r.version, r.items.iter().filter_map(|i| Item::decode(i)).collect()));
        MeshView {
            roster: self.roster.records().map(|(h, r)| (h, r.clone())).collect(),
            facts: self.facts.records().map(facts).collect(),
            decisions: self.decisions.records().map(|d| (d.key.clone(), d.clone())).collect(),
            reachable: self.reachable.clone(),
        }
    }
}

fn held<T>(drops: &DropCounters, checked: Result<T, weft_router::drop::DropReason>) -> Option<T> {
    checked.map_err(|reason| drops.count(reason)).ok()
}

fn count(drops: &DropCounters, refused: Option<weft_router::drop::DropReason>) {
    if let Some(reason) = refused {
        drops.count(reason);
    }
}
