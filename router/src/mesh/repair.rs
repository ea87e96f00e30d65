//! Announcements, questions and comparison with a neighbour: what the tree has failed to bring is found and fetched.

use std::time::Duration;

use weft_api::id::HostId;
use weft_api::roster::Standing;

use super::bucket::Rate;
use super::message::MAX_IDS;
use super::record::{Id, RecordKey};
use super::wants::{FETCH_AFTER, FETCH_LATEST, How};
use super::{Action, Gossip, Mesh};
use crate::drop::DropReason;

/// So often all that is known is compared with one neighbour.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// So many records may be late by chance. Who misses more has a neighbour push to it that had announced them.
const MISSES: Rate = Rate { per_second: 1, burst: 4 };

/// Neighbours that are made to push for that.
const GRAFTS: Rate = Rate { per_second: 1, burst: 1 };

/// More than this is much to come by itself.
pub(super) const MUCH: Rate = Rate { per_second: 32, burst: 16 };

impl Mesh {
    /// Announcements, asks and comparisons, so many of each neighbour.
    pub(super) fn question(
        &mut self,
        now: Duration,
        from: HostId,
        question: &Gossip,
        actions: &mut Vec<Action>,
    ) {
        if !self.ties.entry(from).or_default().may_question(now) {
            return actions.push(Action::Count(DropReason::QuestionsTooFast, 1));
        }
        let reply = match question {
            Gossip::Ids(ids) => {
                ids.iter().for_each(|id| self.announced(now, from, id, true, actions));
                None
            }
            Gossip::Ask { graft, asks } => {
                let tie = self.ties.entry(from).or_default();
                tie.grafted |= graft;
                let over = asks.iter().filter(|a| !tie.owe(a.key.clone(), a.have.clone())).count();
                if over > 0 {
                    actions.push(Action::Count(DropReason::AsksTooMany, over as u64));
                }
                None
            }
            Gossip::Root(root) => (*root != self.sums.root()).then(|| Gossip::Branches(self.sums.branches())),
            Gossip::Branches(theirs) => {
                let differing = self.sums.differing_branches(theirs);
                (!differing.is_empty()).then_some(Gossip::Leaves(differing))
            }
            Gossip::Leaves(theirs) => {
                let differing = self.sums.differing_leaves(theirs);
                self.list(from, &differing, actions);
                None
            }
            Gossip::Listing { leaves, ids } => {
                self.listed(now, from, leaves, ids, actions);
                None
            }
            Gossip::Neighbour(_) | Gossip::Push(_) | Gossip::Answer(_) | Gossip::Prune => None,
        };
        if let Some(reply) = reply {
            self.reply(from, reply, actions);
        }
    }

    /// The neighbour has this. `graft`: the tree should have brought it; it may still.
    fn announced(&mut self, now: Duration, from: HostId, id: &Id, graft: bool, actions: &mut Vec<Action>) {
        let removed = |host| self.roster.get(host).is_some_and(|r| r.standing == Standing::Removed);
        if matches!(id.key, RecordKey::Facts(host) if removed(host)) {
            return;
        }
        if self.is_void(now, from, id) {
            return;
        }
        let known = self.record(&id.key).map(|r| r.id());
        let order = known.as_ref().map_or(Some(std::cmp::Ordering::Greater), |known| id.order(known));
        match order {
            Some(std::cmp::Ordering::Less) => self.correct(now, Some(from), known),
            Some(std::cmp::Ordering::Equal) => {
                if let Some(tie) = self.ties.get_mut(&from) {
                    tie.has(id);
                }
            }
            Some(std::cmp::Ordering::Greater) | None => {
                let (due, latest) = (now + FETCH_AFTER, now + FETCH_LATEST);
                let how = How { due, latest, whole: order.is_none(), graft };
                if !self.wants.hear(from, id.clone(), how) {
                    actions.push(Action::Count(DropReason::IdsTooMany, 1));
                }
            }
        }
    }

    /// Everything that we have in these leaves, whole leaves in each message.
    fn list(&mut self, to: HostId, leaves: &[u8], actions: &mut Vec<Action>) {
        let mut ids: Vec<Vec<Id>> = vec![Vec::new(); leaves.len()];
        for record in self.records() {
            let id = record.id();
            if let Ok(at) = leaves.binary_search(&id.key.leaf()) {
                ids[at].push(id);
            }
        }
        let (mut some, mut in_them) = (Vec::new(), Vec::new());
        for (leaf, ids) in leaves.iter().zip(ids) {
            if !some.is_empty() && in_them.len() + ids.len() > MAX_IDS {
                let listing =
                    Gossip::Listing { leaves: std::mem::take(&mut some), ids: std::mem::take(&mut in_them) };
                self.reply(to, listing, actions);
            }
            some.push(*leaf);
            in_them.extend(ids);
        }
        if !some.is_empty() {
            self.reply(to, Gossip::Listing { leaves: some, ids: in_them }, actions);
        }
    }

    fn listed(&mut self, now: Duration, from: HostId, leaves: &[u8], ids: &[Id], actions: &mut Vec<Action>) {
        ids.iter().for_each(|id| self.announced(now, from, id, false, actions));
        let mut theirs: Vec<&RecordKey> = ids.iter().map(|id| &id.key).collect();
        theirs.sort_unstable();
        let mut sorted = leaves.to_vec();
        sorted.sort_unstable();
        let lacks: Vec<Id> = self
            .records()
            .map(|r| r.id())
            .filter(|id| {
                sorted.binary_search(&id.key.leaf()).is_ok() && theirs.binary_search(&&id.key).is_err()
            })
            .collect();
        if let Some(tie) = self.ties.get_mut(&from) {
            lacks.into_iter().for_each(|id| tie.announce(id, now));
        }
    }

    fn reply(&mut self, to: HostId, message: Gossip, actions: &mut Vec<Action>) {
        if !self.ties.entry(to).or_default().say(message) {
            actions.push(Action::Count(DropReason::QuestionsTooFast, 1));
        }
    }

    /// Asks for what has not come by itself.
    pub(super) fn fetch(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let (asks, given_up) = self.wants.due(now, self.inflow.ready(1, MUCH));
        if given_up > 0 {
            actions.push(Action::Count(DropReason::AskUnanswered, given_up as u64));
        }
        let mut grafted = None;
        for (host, key, how) in asks {
            // One neighbour more is enough: where all are grafted because all are slow, nothing gets faster.
            let misses = how.graft && !self.missed.takes(now, 1, MISSES);
            let graft = misses && (grafted == Some(host) || self.grafts.takes(now, 1, GRAFTS));
            grafted = Some(host).filter(|_| graft).or(grafted);
            if let Some(tie) = self.ties.get_mut(&host) {
                tie.ask(key, how.whole, graft);
            }
        }
    }

    /// Compares with one neighbour, now and then.
    pub(super) fn compare_if_due(&mut self, now: Duration) {
        if self.compare_at.is_some_and(|at| at > now) {
            return;
        }
        let bound: Vec<HostId> = self.neighbours().collect();
        if bound.is_empty() {
            self.compare_at = None;
            return;
        }
        if self.compare_at.is_some() {
            let at = usize::try_from(self.draw() % bound.len() as u64).unwrap_or_default();
            let root = Gossip::Root(self.sums.root());
            if let Some(tie) = self.ties.get_mut(&bound[at]) {
                tie.say(root);
            }
        }
        self.compare_at = Some(self.around(now, COMPARE_EVERY));
    }
}
