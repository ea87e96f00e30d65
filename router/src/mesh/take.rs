//! What becomes of a record: refused by its name; or known at once, written to the disk, and only then acted on and passed
//! on. If the disk refuses it, it is unknown again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use weft_api::decision::DecisionBody;
use weft_api::fact::FactRecord;
use weft_api::id::HostId;
use weft_api::roster::Standing;

use super::bucket::{Bucket, Rate};
use super::facts::{Delta, Said};
use super::record::{AnyRecord, Held, Id, News as Fate, RecordKey};
use super::tie::News;
use super::wants::How;
use super::{Action, Changed, Gossip, Heard, Mesh, Records, Roster, ToStore};
use crate::drop::DropReason;

/// A host's facts may change so often; further changes are refused (`FactsTooFast`). Nobody says something new as often.
const THEIRS: Rate = Rate { per_second: 16, burst: 64 };
/// After the disk refused something made here it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Facts that were fetched are remembered, so many.
const MAX_FETCHED: usize = 256;
/// Records made here that wait for a disk that fails; further ones are dropped (`RecordsTooMany`).
const MAX_MADE: usize = 65_536;

/// A record that is known, but not stored yet.
#[derive(Debug)]
struct Fresh {
    record: AnyRecord,
    news: News,
    before: Option<AnyRecord>,
    /// Who has it.
    knew: Vec<HostId>,
    /// Made on this host.
    made: bool,
}

/// What is written together.
#[derive(Debug, Default)]
struct Batch {
    out: Vec<ToStore>,
    fresh: Vec<Fresh>,
    /// What removed members said, in case the disk refuses their removal.
    forgotten: Vec<Arc<Said>>,
}

/// What waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Desk {
    next: Batch,
    /// Being written, the oldest first.
    written: VecDeque<Batch>,
    /// Made here, refused by the disk.
    again: Records,
    /// Facts that came because we asked: who pushes them then is not a way too many.
    fetched: VecDeque<u128>,
    again_at: Option<Duration>,
    /// Successions that lie on the disk. What a later key has signed is written with its succession: none lies there without it.
    firm: u32,
    paces: BTreeMap<HostId, Bucket>,
}

impl Desk {
    /// So many successions came from the disk.
    pub(super) fn new(firm: u32) -> Self {
        Self { firm, ..Self::default() }
    }

    /// Writes this with what is written next.
    pub(super) fn write(&mut self, record: ToStore) {
        self.next.out.push(record);
    }

    pub(super) fn store(&mut self, roster: &Roster, actions: &mut Vec<Action>) {
        if !self.next.out.is_empty() {
            let mut out: Vec<ToStore> = (self.firm + 1..=roster.chain().number())
                .filter_map(|number| roster.succession(number).cloned())
                .map(|held| ToStore::Record(AnyRecord::Succession(held)))
                .collect();
            out.append(&mut self.next.out);
            actions.push(Action::Store(out));
            self.written.push_back(std::mem::take(&mut self.next));
        }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.again_at
    }
}

impl Mesh {
    /// A neighbour's records. `pushed`: along the tree.
    pub(super) fn records_heard(
        &mut self,
        now: Duration,
        from: HostId,
        records: &Records,
        pushed: bool,
        actions: &mut Vec<Action>,
    ) {
        if !self.ties.entry(from).or_default().may_send(now, records.len()) {
            return actions.push(Action::Count(DropReason::RecordsTooFast, records.len() as u64));
        }
        let known: Vec<u128> = records.facts.iter().map(|d| Held::mark_of(&d.head)).collect();
        let fetched = known.iter().any(|mark| self.desk.fetched.contains(mark));
        let superfluous = self.take_all(now, Some(from), records, actions);
        if !pushed {
            self.desk.fetched.extend(known);
            let over = self.desk.fetched.len().saturating_sub(MAX_FETCHED);
            self.desk.fetched.drain(..over);
        } else if superfluous
            && !fetched
            && let Some(tie) = self.ties.get_mut(&from)
        {
            tie.prune(now);
        }
    }

    /// Records made on this host. What does not hold is counted, as if it had been heard.
    pub(super) fn made(&mut self, now: Duration, records: Records, actions: &mut Vec<Action>) {
        self.take_all(now, None, &records, actions);
    }

    /// This host's own facts, if it has something to say.
    pub(super) fn say_own(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.desk.again_at.is_some_and(|at| at <= now) {
            self.desk.again_at = None;
            let again = std::mem::take(&mut self.desk.again);
            self.made(now, again, actions);
            self.successions_again();
        }
        if self.desk.again_at.is_none()
            && let Some(FactRecord { head, items }) = self.own.say(now, &self.key)
        {
            let facts = vec![Delta { head, base: None, removed: Vec::new(), added: items }];
            self.made(now, Records { facts, ..Records::default() }, actions);
        }
    }

    /// When [`Self::say_own`] has something.
    pub(super) fn own_due(&self) -> Option<Duration> {
        self.own.next().map(|at| self.desk.again_at.map_or(at, |again| at.max(again)))
    }

    /// The oldest batch lies on the disk: it is acted on and passed on.
    pub(super) fn stored(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut changed = Changed::default();
        for fresh in self.desk.written.pop_front().unwrap_or_default().fresh {
            let id = fresh.record.id();
            match &fresh.record {
                AnyRecord::Succession(held) => {
                    self.desk.firm = self.desk.firm.max(held.record.number);
                    changed.roster = true;
                }
                AnyRecord::Roster(_) => (changed.roster, changed.facts) = (true, true),
                AnyRecord::Decision(held) => {
                    changed.decisions = true;
                    if let Some(DecisionBody::Controller { host, .. }) = &held.record.body {
                        actions.push(Action::Addresses(*host));
                    }
                }
                AnyRecord::Facts(said) => {
                    changed.facts = true;
                    let before = match &fresh.before {
                        Some(AnyRecord::Facts(before)) => Some(before),
                        _ => None,
                    };
                    if before.is_none_or(|b| b.addresses != said.addresses) && said.head.owner != self.me {
                        actions.push(Action::Addresses(said.head.owner));
                    }
                    if before.is_none_or(|b| b.links != said.links) {
                        self.survey_soon(now);
                    }
                }
            }
            // A newer one may have come meanwhile; it is passed on when it is stored.
            if self.record(&id.key).is_some_and(|r| r.id() == id) {
                self.spread(now, &fresh.record, &fresh.news, &fresh.knew);
            }
        }
        if changed.roster {
            self.forget_leftovers();
            self.survey_soon(now);
        }
        self.changed(now, changed, actions);
    }

    /// The disk refused the oldest batch: it is unknown again. What was made here is tried again.
    pub(super) fn not_stored(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Batch { fresh, forgotten, .. } = self.desk.written.pop_front().unwrap_or_default();
        actions.push(Action::Count(DropReason::DiskRefused, fresh.len() as u64));
        for Fresh { record, before, made, .. } in fresh.into_iter().rev() {
            // A succession stays known: what it lets be believed is written with it, or not at all.
            if !matches!(record, AnyRecord::Succession(_)) {
                self.undo(&record, before);
            }
            match record {
                AnyRecord::Facts(said) if said.head.owner == self.me => self.own.say_again(),
                AnyRecord::Roster(held) if made => self.desk.again.roster.push(held.signed.clone()),
                AnyRecord::Decision(held) if made => self.desk.again.decisions.push(held.signed.clone()),
                _ => {}
            }
        }
        for said in forgotten {
            self.know(AnyRecord::Facts(said));
        }
        let again = &mut self.desk.again;
        let over = again.len().saturating_sub(MAX_MADE);
        if over > 0 {
            again.decisions.truncate(again.decisions.len().saturating_sub(over));
            actions.push(Action::Count(DropReason::RecordsTooMany, over as u64));
        }
        self.desk.again_at = Some(now + RETRY);
    }

    /// As if the record had never come; a newer one that did stands on what was before it.
    fn undo(&mut self, record: &AnyRecord, before: Option<AnyRecord>) {
        let id = record.id();
        if self.record(&id.key).is_some_and(|r| r.id() == id) {
            self.unknow(record);
            if let Some(before) = before {
                self.know(before);
            }
            return;
        }
        let later = self.desk.written.iter_mut().chain([&mut self.desk.next]).flat_map(|b| &mut b.fresh);
        for fresh in later.filter(|f| f.before.as_ref().is_some_and(|b| b.id() == id)) {
            fresh.before.clone_from(&before);
        }
    }

    /// Whether every one of them that holds was known already.
    fn take_all(
        &mut self,
        now: Duration,
        from: Option<HostId>,
        records: &Records,
        actions: &mut Vec<Action>,
    ) -> bool {
        let (mut known, mut news, mut refused) = (0, 0, Vec::new());
        let mut count = |taken: Result<Fate, DropReason>| match taken {
            Ok(Fate::New) => news += 1,
            Ok(Fate::Same | Fate::Old) => known += 1,
            Err(reason) => refused.push(Action::Count(reason, 1)),
        };
        for signed in &records.successions {
            let judged = self.roster.check_succession(&*self.notary, signed);
            if let Err(reason) = judged {
                self.succession_refused(now, from, signed, reason, actions);
            }
            count(judged.map(|(fate, held)| self.take(now, from, fate, AnyRecord::Succession(held), None)));
        }
        for signed in &records.roster {
            let judged = self.roster.check(&*self.notary, signed);
            if let Err(reason) = judged {
                self.of_another_key(now, from, signed, reason);
            }
            count(judged.map(|(fate, held)| self.take(now, from, fate, AnyRecord::Roster(held), None)));
        }
        for signed in &records.decisions {
            let judged = self.decisions.check(&*self.notary, &self.roster, signed);
            count(judged.map(|(fate, held)| self.take(now, from, fate, AnyRecord::Decision(held), None)));
        }
        for delta in &records.facts {
            count(self.take_facts(now, from, delta));
        }
        actions.append(&mut refused);
        known > 0 && news == 0
    }

    fn take_facts(&mut self, now: Duration, from: Option<HostId>, delta: &Delta) -> Result<Fate, DropReason> {
        let (head, heard) = self.facts.check(&*self.notary, &self.roster, delta)?;
        let own = head.owner == self.me && from.is_some();
        match heard {
            Heard::News(_) | Heard::Lacks { .. } if own => {
                self.own.heard(head.version);
                Ok(Fate::New)
            }
            Heard::News(said) => {
                let pace = self.desk.paces.entry(head.owner).or_default();
                if from.is_some() && !pace.takes(now, 1, THEIRS) {
                    return Err(DropReason::FactsTooFast);
                }
                let before = self.facts.get(head.owner).cloned();
                let fits = delta.base.is_some() && delta.base == before.as_ref().map(|b| b.head.version);
                let delta = if fits { delta.clone() } else { said.since(before.as_deref()) };
                Ok(self.take(now, from, Fate::New, AnyRecord::Facts(said), Some(delta)))
            }
            Heard::Lacks { id, whole } => {
                if let Some(from) = from {
                    self.wants.hear(from, id, How { due: now, whole, graft: false });
                }
                if whole { Err(DropReason::DeltaMismatch) } else { Ok(Fate::New) }
            }
            Heard::Same => {
                self.answered(from, self.facts.get(head.owner).map(|s| s.id()));
                Ok(Fate::Same)
            }
            Heard::Old => {
                let known = self.facts.get(head.owner).map(|s| s.id());
                self.correct(now, from, known);
                Ok(Fate::Old)
            }
        }
    }

    fn take(
        &mut self,
        now: Duration,
        from: Option<HostId>,
        fate: Fate,
        record: AnyRecord,
        delta: Option<Delta>,
    ) -> Fate {
        let id = record.id();
        match fate {
            Fate::Same => self.answered(from, Some(id)),
            Fate::Old => {
                let known = self.record(&id.key).map(|r| r.id());
                self.correct(now, from, known);
            }
            Fate::New => {
                let mut knew = self.wants.got(&id);
                knew.extend(from);
                let before = self.know(record.clone());
                self.desk.next.out.push(ToStore::Record(record.clone()));
                if let AnyRecord::Roster(held) = &record
                    && held.record.standing == Standing::Removed
                    && let Some(said) = self.facts.get(held.record.key.id()).cloned()
                {
                    self.unknow(&AnyRecord::Facts(Arc::clone(&said)));
                    self.desk.next.out.push(ToStore::FactsGone(said.head.owner));
                    self.desk.next.forgotten.push(said);
                }
                let news = delta.map_or_else(|| News::Record(record.clone()), |d| News::Delta(Arc::new(d)));
                let made = from.is_none();
                self.desk.next.fresh.push(Fresh { record, news, before, knew, made });
            }
        }
        fate
    }

    /// The disk refused them; what is known of them stays known.
    fn successions_again(&mut self) {
        for number in self.desk.firm + 1..=self.roster.chain().number() {
            let Some(held) = self.roster.succession(number).cloned() else { continue };
            let record = AnyRecord::Succession(held);
            let news = News::Record(record.clone());
            self.desk.next.out.push(ToStore::Record(record.clone()));
            let fresh = Fresh { record, news, before: None, knew: Vec::new(), made: false };
            self.desk.next.fresh.push(fresh);
        }
    }

    /// It has what we have.
    fn answered(&mut self, from: Option<HostId>, id: Option<Id>) {
        if let Some(id) = id {
            self.wants.got(&id);
            if let Some(tie) = from.and_then(|f| self.ties.get_mut(&f)) {
                tie.has(&id);
            }
        }
    }

    /// It has something older than we have.
    pub(super) fn correct(&mut self, now: Duration, from: Option<HostId>, known: Option<Id>) {
        if let (Some(id), Some(tie)) = (known, from.and_then(|f| self.ties.get_mut(&f))) {
            tie.announce(id, now);
        }
    }

    /// Returns what it replaces.
    fn know(&mut self, record: AnyRecord) -> Option<AnyRecord> {
        let key = record.id().key;
        self.sums.add(&key, record.mark());
        let before = match record {
            AnyRecord::Succession(held) => {
                self.roster.put_succession(held);
                None
            }
            AnyRecord::Roster(held) => self.roster.put(held).map(AnyRecord::Roster),
            AnyRecord::Decision(held) => self.decisions.put(held).map(AnyRecord::Decision),
            AnyRecord::Facts(said) => self.facts.put(said).map(AnyRecord::Facts),
        };
        if let Some(before) = &before {
            self.sums.remove(&key, before.mark());
        }
        before
    }

    pub(super) fn unknow(&mut self, record: &AnyRecord) {
        let key = record.id().key;
        self.sums.remove(&key, record.mark());
        match &key {
            // A key that has signed is never forgotten.
            RecordKey::Succession(_) => {}
            RecordKey::Roster(host) => self.roster.forget(*host),
            RecordKey::Decision(key) => self.decisions.forget(key),
            RecordKey::Facts(host) => drop(self.facts.forget(*host)),
        }
    }

    /// A neighbour's message.
    pub(super) fn heard(&mut self, now: Duration, from: HostId, gossip: &Gossip, actions: &mut Vec<Action>) {
        match gossip {
            Gossip::Push(records) => self.records_heard(now, from, records, true, actions),
            Gossip::Answer(records) => self.records_heard(now, from, records, false, actions),
            Gossip::Neighbour(bond) => self.bond_heard(now, from, *bond),
            Gossip::Prune => self.ties.entry(from).or_default().eager = false,
            question => self.question(now, from, question, actions),
        }
    }
}
