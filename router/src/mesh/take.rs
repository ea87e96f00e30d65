//! What becomes of a record: refused by its name; or known at once, and written to the disk.

use std::sync::Arc;
use std::time::Duration;

use weft_api::fact::FactRecord;
use weft_api::id::HostId;
use weft_api::roster::Standing;

use super::bucket::Rate;
use super::delta::Delta;
use super::desk::Fresh;
use super::record::{AnyRecord, Held, Id, News as Fate, RecordKey};
use super::repair::MUCH;
use super::spread::ANNOUNCE_EVERY;
use super::tie::News;
use super::wants::How;
use super::{Action, Gossip, Heard, Mesh, Records, ToStore};
use crate::drop::DropReason;

/// A host's facts may change so often; further changes are refused (`FactsTooFast`). Nobody says something new as often.
const THEIRS: Rate = Rate { per_second: 16, burst: 64 };
/// Facts that were fetched are remembered, so many.
const MAX_FETCHED: usize = 256;

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
                    self.wants.hear(from, id, How { due: now, latest: now, whole, graft: false });
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

    pub(super) fn take(
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
                self.inflow.charge(now, 1, MUCH);
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
    pub(super) fn know(&mut self, record: AnyRecord) -> Option<AnyRecord> {
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
        let links_stay = match (&before, &self.record(&key)) {
            (_, Some(AnyRecord::Decision(_))) => true,
            (Some(AnyRecord::Facts(was)), Some(AnyRecord::Facts(is))) => was.links == is.links,
            _ => false,
        };
        if !links_stay {
            self.graph = None;
        }
        before
    }

    pub(super) fn unknow(&mut self, record: &AnyRecord) {
        let key = record.id().key;
        self.sums.remove(&key, record.mark());
        self.graph = None;
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
            Gossip::Prune => self.ties.entry(from).or_default().pruned(now + ANNOUNCE_EVERY),
            question => self.question(now, from, question, actions),
        }
    }
}
