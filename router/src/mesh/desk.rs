//! What waits for the disk: known already, but acted on and passed on only when it lies there. What the disk refuses is unknown again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use weft_api::decision::DecisionBody;
use weft_api::id::HostId;

use super::bucket::Bucket;
use super::facts::Said;
use super::record::AnyRecord;
use super::tie::News;
use super::{Action, Changed, Mesh, Records, Roster, ToStore};
use crate::drop::DropReason;

/// After the disk refused something made here it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Records made here that wait for a disk that fails; further ones are dropped (`RecordsTooMany`).
const MAX_MADE: usize = 65_536;

/// A record that is known, but not stored yet.
#[derive(Debug)]
pub(super) struct Fresh {
    pub record: AnyRecord,
    pub news: News,
    pub before: Option<AnyRecord>,
    /// Who has it.
    pub knew: Vec<HostId>,
    /// Made on this host.
    pub made: bool,
}

/// What is written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub out: Vec<ToStore>,
    pub fresh: Vec<Fresh>,
    /// What removed members said, in case the disk refuses their removal.
    pub forgotten: Vec<Arc<Said>>,
}

/// What waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub next: Batch,
    /// Being written, the oldest first.
    written: VecDeque<Batch>,
    /// Made here, refused by the disk.
    pub again: Records,
    /// Facts that came because we asked: who pushes them then is not a way too many.
    pub fetched: VecDeque<u128>,
    pub again_at: Option<Duration>,
    /// Successions that lie on the disk. What a later key has signed is written with its succession: none lies there without it.
    firm: u32,
    pub paces: BTreeMap<HostId, Bucket>,
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
                    let ends = |of: &Said| of.links.iter().map(|c| c.host).collect::<Vec<_>>();
                    if before.is_none_or(|b| ends(b) != ends(said)) {
                        self.survey_soon(now);
                    } else if before.is_some_and(|b| b.links != said.links) {
                        self.survey_later(now);
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

    /// The disk refused them; what is known of them stays known.
    pub(super) fn successions_again(&mut self) {
        for number in self.desk.firm + 1..=self.roster.chain().number() {
            let Some(held) = self.roster.succession(number).cloned() else { continue };
            let record = AnyRecord::Succession(held);
            let news = News::Record(record.clone());
            self.desk.next.out.push(ToStore::Record(record.clone()));
            let fresh = Fresh { record, news, before: None, knew: Vec::new(), made: false };
            self.desk.next.fresh.push(fresh);
        }
    }
}
