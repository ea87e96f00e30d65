//! One host that this one has a session with: whether they gossip, and what waits to be sent to it. What waits is bounded: news
//! beyond the bound are announced instead, and an announcement is one for each record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use weft_api::fact::FactVersion;

use super::bucket::{Bucket, Rate};
use super::delta::Delta;
use super::message::{Bond, Gossip, MAX_IDS, MAX_RECORDS, Records};
use super::record::{AnyRecord, Id, RecordKey};

/// A batch ends with the record that takes it to this many bytes.
pub const MAX_BATCH_LEN: usize = 64 << 10;
/// News that wait for one neighbour, bytes; what comes on top is announced.
const MAX_PUSHES_LEN: usize = 256 << 10;
/// Questions and their replies that wait; further ones are dropped (`QuestionsTooFast`).
const MAX_CONTROL: usize = 32;
/// Words of control up to this do not wait for room.
const SHORT: usize = 200;
/// Records that a neighbour has asked for and not been sent yet; further ones are dropped (`AsksTooMany`).
const MAX_OWED: usize = 1024;
/// Questions that a neighbour may ask.
const QUESTIONS: Rate = Rate { per_second: 50, burst: 200 };
/// Records that a neighbour may send.
const RECORDS: Rate = Rate { per_second: 1000, burst: 16_384 };
/// Who pushes what has come by another way is told so once in this time.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// News for one neighbour.
#[derive(Clone, Debug)]
pub(super) enum News {
    Record(AnyRecord),
    Delta(Arc<Delta>),
}

impl News {
    fn size(&self) -> usize {
        match self {
            Self::Record(AnyRecord::Succession(held)) => 80 + held.signed.bytes().len(),
            Self::Record(AnyRecord::Roster(held)) => 80 + held.signed.bytes().len(),
            Self::Record(AnyRecord::Decision(held)) => 80 + held.signed.bytes().len(),
            Self::Record(AnyRecord::Facts(said)) => 200 + said.record.items.size(),
            Self::Delta(delta) => delta.size(),
        }
    }

    pub(super) fn into(self, records: &mut Records) {
        match self {
            Self::Record(AnyRecord::Succession(held)) => records.successions.push(held.signed.clone()),
            Self::Record(AnyRecord::Roster(held)) => records.roster.push(held.signed.clone()),
            Self::Record(AnyRecord::Decision(held)) => records.decisions.push(held.signed.clone()),
            Self::Record(AnyRecord::Facts(said)) => records.facts.push(said.since(None)),
            Self::Delta(delta) => records.facts.push(Delta::clone(&delta)),
        }
    }
}

/// What a neighbour has of facts that it asks for: a version, and the fingerprints of its items.
pub(super) type Have = Option<(FactVersion, Vec<u32>)>;

/// A measured link: microseconds, lost probes of a hundred.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Measure {
    pub rtt_us: u32,
    pub loss_percent: u8,
}

#[derive(Debug, Default)]
pub(super) struct Tie {
    /// Messages can be sent.
    pub connected: bool,
    /// Envelopes pass both ways.
    pub up: bool,
    /// We have chosen it.
    pub wanted: bool,
    /// It has chosen us, or has a place for us.
    pub theirs: bool,
    pub told: Option<Bond>,
    /// News are pushed: both ends find that the tree goes here.
    pub tree: bool,
    /// News are pushed until one end prunes.
    pub grafted: bool,
    pub measured: Measure,
    /// What our facts say, and since when.
    pub claimed: Option<(Measure, Duration)>,
    pub ids_due: Duration,
    control: VecDeque<Gossip>,
    news: VecDeque<(Id, News)>,
    news_len: usize,
    ids: BTreeMap<RecordKey, Id>,
    asks: BTreeMap<RecordKey, (bool, bool)>,
    owed: BTreeMap<RecordKey, Have>,
    questions: Bucket,
    records: Bucket,
    pruned: Option<Duration>,
}

impl Tie {
    /// Whether the two gossip.
    pub(super) fn bound(&self) -> bool {
        self.connected && (self.wanted || self.theirs)
    }

    /// `false`: too many wait.
    pub(super) fn say(&mut self, message: Gossip) -> bool {
        let room = self.control.len() < MAX_CONTROL;
        if room {
            self.control.push_back(message);
        }
        room
    }

    /// News along the tree, or announced.
    pub(super) fn tell(&mut self, id: Id, news: News, announce_at: Duration) {
        let size = news.size();
        if self.eager() && (self.news.is_empty() || self.news_len + size <= MAX_PUSHES_LEN) {
            self.ids.remove(&id.key);
            self.news_len += size;
            self.news.push_back((id, news));
        } else {
            self.announce(id, announce_at);
        }
    }

    pub(super) fn announce(&mut self, id: Id, at: Duration) {
        self.ids_due = if self.ids.is_empty() { at } else { self.ids_due.min(at) };
        self.ids.insert(id.key.clone(), id);
    }

    /// It has this itself.
    pub(super) fn has(&mut self, id: &Id) {
        if self.ids.get(&id.key).is_some_and(|waiting| waiting.rank <= id.rank) {
            self.ids.remove(&id.key);
        }
        let len = &mut self.news_len;
        self.news.retain(|(waiting, news)| {
            let needless = waiting.key == id.key && waiting.rank <= id.rank;
            *len = len.saturating_sub(if needless { news.size() } else { 0 });
            !needless
        });
    }

    /// It has what we push by another way: what waits is announced.
    pub(super) fn pruned(&mut self, announce_at: Duration) {
        self.grafted = false;
        if !self.eager() {
            self.news_len = 0;
            for (id, _) in std::mem::take(&mut self.news) {
                self.announce(id, announce_at);
            }
        }
    }

    pub(super) fn ask(&mut self, key: RecordKey, whole: bool, graft: bool) {
        self.grafted |= graft;
        self.asks.insert(key, (whole, graft));
    }

    /// It asks for this. `false`: it is owed too much.
    pub(super) fn owe(&mut self, key: RecordKey, have: Have) -> bool {
        let room = self.owed.len() < MAX_OWED || self.owed.contains_key(&key);
        if room {
            self.owed.insert(key, have);
        }
        room
    }

    pub(super) fn may_question(&mut self, now: Duration) -> bool {
        self.questions.takes(now, 1, QUESTIONS)
    }

    pub(super) fn may_send(&mut self, now: Duration, records: usize) -> bool {
        self.records.takes(now, u32::try_from(records).unwrap_or(u32::MAX).max(1), RECORDS)
    }

    /// What it pushed had come before: a link too many was grafted.
    pub(super) fn prune(&mut self, now: Duration) {
        let told = self.pruned.is_some_and(|at| now < at + PRUNE_EVERY);
        if !self.tree && (self.grafted || !told) {
            self.grafted = false;
            self.pruned = Some(now);
            self.say(Gossip::Prune);
        }
    }

    /// The next question or reply, while there is no room only a short one.
    pub(super) fn next_control(&mut self, room: bool) -> Option<Gossip> {
        self.control.front().filter(|message| room || message.size() <= SHORT)?;
        self.control.pop_front()
    }

    pub(super) fn next_push(&mut self) -> Option<Gossip> {
        let (mut records, mut total) = (Records::default(), 0);
        while total < MAX_BATCH_LEN
            && records.len() < MAX_RECORDS
            && let Some((_, news)) = self.news.pop_front()
        {
            total += news.size();
            news.into(&mut records);
        }
        self.news_len = self.news_len.saturating_sub(total);
        (!records.is_empty()).then_some(Gossip::Push(records))
    }

    pub(super) fn next_ids(&mut self, now: Duration) -> Option<Gossip> {
        if self.ids.is_empty() || self.ids_due > now {
            return None;
        }
        let mut ids = Vec::new();
        while ids.len() < MAX_IDS
            && let Some((_, id)) = self.ids.pop_first()
        {
            ids.push(id);
        }
        Some(Gossip::Ids(ids))
    }

    /// Keys to ask for in one message, all with or all without a graft: (key, whole).
    pub(super) fn next_asks(&mut self) -> Option<(bool, Vec<(RecordKey, bool)>)> {
        let graft = self.asks.values().next().map(|(_, graft)| *graft)?;
        let keys = self.asks.iter().filter(|(_, (_, g))| *g == graft).take(MAX_RECORDS);
        let keys: Vec<(RecordKey, bool)> = keys.map(|(key, (whole, _))| (key.clone(), *whole)).collect();
        for (key, _) in &keys {
            self.asks.remove(key);
        }
        Some((graft, keys))
    }

    pub(super) fn next_owed(&mut self) -> Option<(RecordKey, Have)> {
        self.owed.pop_first()
    }

    /// Whether there are words of control, which do not wait for room.
    pub(super) fn is_asked(&self) -> bool {
        !self.control.is_empty()
    }

    /// Whether anything else can be sent now.
    pub(super) fn ready(&self, now: Duration) -> bool {
        !self.news.is_empty()
            || !self.asks.is_empty()
            || !self.owed.is_empty()
            || (!self.ids.is_empty() && self.ids_due <= now)
    }

    /// When announcements are due.
    pub(super) fn next(&self) -> Option<Duration> {
        (self.connected && !self.ids.is_empty()).then_some(self.ids_due)
    }
}
