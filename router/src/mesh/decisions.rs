//! Decisions: one record for each key, signed by a controller; the higher revision counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::decision::{Decision, DecisionBody, DecisionKey, MAX_DECISION_LEN};
use weft_api::sign::Signed;

use super::Roster;
use super::record::{Held, News, Notary, certify, signature};
use crate::drop::DropReason;

/// Keys kept, those that say `gone` too; further ones are refused (`RecordsTooMany`).
pub const MAX_DECISIONS: usize = 65_536;

/// What the controller says.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    records: BTreeMap<DecisionKey, Arc<Held<Decision>>>,
}

impl Decisions {
    /// Whether this decision holds, and is news. Changes nothing.
    pub fn check(
        &self,
        notary: &dyn Notary,
        roster: &Roster,
        signed: &Signed<Decision>,
    ) -> Result<(News, Arc<Held<Decision>>), DropReason> {
        self.judge(notary, roster, signed, false)
    }

    /// The same of a decision from our own disk: it was believed when it came, even if its signer was removed meanwhile.
    pub fn check_stored(
        &self,
        notary: &dyn Notary,
        roster: &Roster,
        signed: &Signed<Decision>,
    ) -> Result<(News, Arc<Held<Decision>>), DropReason> {
        self.judge(notary, roster, signed, true)
    }

    /// What is decided of something.
    #[must_use]
    pub fn get(&self, key: &DecisionKey) -> Option<&Decision> {
        self.held(key).map(|h| &h.record)
    }

    /// A decision and its signed form.
    #[must_use]
    pub fn held(&self, key: &DecisionKey) -> Option<&Arc<Held<Decision>>> {
        self.records.get(key)
    }

    /// Every decision.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Held<Decision>>> {
        self.records.values()
    }

    /// Takes a decision that was found to hold; returns the one before.
    pub(super) fn put(&mut self, held: Arc<Held<Decision>>) -> Option<Arc<Held<Decision>>> {
        self.records.insert(held.record.key.clone(), held)
    }

    /// Forgets a decision.
    pub(super) fn forget(&mut self, key: &DecisionKey) {
        self.records.remove(key);
    }

    fn judge(
        &self,
        notary: &dyn Notary,
        roster: &Roster,
        signed: &Signed<Decision>,
        removed_too: bool,
    ) -> Result<(News, Arc<Held<Decision>>), DropReason> {
        if signed.bytes().len() > MAX_DECISION_LEN {
            return Err(DropReason::RecordTooLong);
        }
        let claimed = signed.peek().map_err(signature)?;
        let known = self.records.get(&claimed.key);
        if let Some(known) = known.filter(|k| k.signed == *signed) {
            return Ok((News::Same, Arc::clone(known)));
        }
        let id = claimed.signer.id();
        let signer = if removed_too { roster.get(id) } else { roster.member(id) };
        if !signer.is_some_and(|s| s.key == claimed.signer && s.roles.controller) {
            return Err(DropReason::DecisionNotControllers);
        }
        let held = certify(notary, &claimed.signer.0, signed)?;
        let decision = &held.record;
        if decision.mesh != roster.mesh() {
            return Err(DropReason::RecordOfAnotherMesh);
        }
        if !body_fits(decision) {
            return Err(DropReason::RecordInvalid);
        }
        let news = match known {
            None if self.records.len() >= MAX_DECISIONS => return Err(DropReason::RecordsTooMany),
            None => News::New,
            Some(known) => {
                let order =
                    (decision.revision, signed.bytes()).cmp(&(known.record.revision, known.signed.bytes()));
                News::of(order)
            }
        };
        Ok((news, held))
    }
}

fn body_fits(decision: &Decision) -> bool {
    match (&decision.key, &decision.body) {
        (_, None)
        | (DecisionKey::Block(..), Some(DecisionBody::Block { .. }))
        | (DecisionKey::Lease(..), Some(DecisionBody::Lease { .. })) => true,
        (DecisionKey::Network(id), Some(DecisionBody::Network(network))) => *id == network.id,
        (DecisionKey::Controller, Some(DecisionBody::Controller { .. })) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::id::{HostId, HostKey, MeshId, MeshKey, NetworkId};
    use weft_api::roster::{Roles, RosterRecord, Standing};
    use weft_api::sign::SigningKey;

    use super::*;
    use crate::mesh::record::Signatures;

    fn put(roster: &mut Roster, signed: &Signed<RosterRecord>) {
        let (_, held) = roster.check(&Signatures, signed).unwrap();
        roster.put(held);
    }

    fn insert(decisions: &mut Decisions, roster: &Roster, signed: &Signed<Decision>) {
        let (news, held) = decisions.check(&Signatures, roster, signed).unwrap();
        if news == News::New {
            decisions.put(held);
        }
    }

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed([n; 32])
    }

    fn roster_record(n: u8, controller: bool, standing: Standing) -> RosterRecord {
        RosterRecord {
            mesh: MeshKey(key(1).public()).id(),
            key: HostKey(key(n).public()),
            name: format!("h{n}"),
            roles: Roles { controller, ..Roles::default() },
            serial: 1,
            standing,
            under: weft_api::roster::Under::default(),
        }
    }

    fn roster() -> Roster {
        let mut roster = Roster::new(MeshKey(key(1).public()));
        for n in 2..4 {
            put(&mut roster, &key(1).sign(&roster_record(n, n == 2, Standing::Member)));
        }
        roster
    }

    fn decision(revision: u64, owner: u8) -> Decision {
        Decision {
            mesh: roster().mesh(),
            revision,
            signer: HostKey(key(2).public()),
            key: DecisionKey::Block(NetworkId(1), "10.32.0.0/26".parse().unwrap()),
            body: Some(DecisionBody::Block { owner: HostId([owner; 8]) }),
        }
    }

    proptest! {
        #[test]
        fn any_order_gives_the_highest_revision(revisions in prop::collection::vec((0u64..5, 0u8..3), 1..12), at: prop::sample::Index) {
            let roster = roster();
            let (mut one, mut other) = (Decisions::default(), Decisions::default());
            for (revision, owner) in &revisions {
                insert(&mut one, &roster, &key(2).sign(&decision(*revision, *owner)));
            }
            for (revision, owner) in revisions[at.index(revisions.len())..].iter().chain(&revisions) {
                insert(&mut other, &roster, &key(2).sign(&decision(*revision, *owner)));
            }
            let key = decision(0, 0).key;
            prop_assert_eq!(one.get(&key), other.get(&key));
            prop_assert_eq!(one.get(&key).map(|d| d.revision), revisions.iter().map(|(r, _)| *r).max());
        }
    }

    #[test]
    fn only_a_controllers_decisions_that_fit_hold() {
        let mut roster = roster();
        let decisions = Decisions::default();
        let good = decision(1, 1);
        let refused =
            |record: &Decision, n: u8| decisions.check(&Signatures, &roster, &key(n).sign(record)).err();
        assert_eq!(refused(&good, 2), None);
        assert_eq!(refused(&good, 3), Some(DropReason::RecordForged));
        let theirs = Decision { signer: HostKey(key(3).public()), ..good.clone() };
        assert_eq!(refused(&theirs, 3), Some(DropReason::DecisionNotControllers));
        let strangers = Decision { signer: HostKey(key(4).public()), ..good.clone() };
        assert_eq!(refused(&strangers, 4), Some(DropReason::DecisionNotControllers));
        let other = Decision { mesh: MeshId([0; 32]), ..good.clone() };
        assert_eq!(refused(&other, 2), Some(DropReason::RecordOfAnotherMesh));
        let misfit = Decision { key: DecisionKey::Controller, ..good.clone() };
        assert_eq!(refused(&misfit, 2), Some(DropReason::RecordInvalid));
        let addresses = vec!["192.0.2.1:1".parse().unwrap(); 1000];
        let long = DecisionBody::Controller { host: HostId([1; 8]), addresses };
        let long = Decision { key: DecisionKey::Controller, body: Some(long), ..good.clone() };
        assert_eq!(refused(&long, 2), Some(DropReason::RecordTooLong));

        let removed = RosterRecord { serial: 2, ..roster_record(2, true, Standing::Removed) };
        put(&mut roster, &key(1).sign(&removed));
        let (decisions, signed) = (Decisions::default(), key(2).sign(&good));
        let heard = decisions.check(&Signatures, &roster, &signed).err();
        assert_eq!(heard, Some(DropReason::DecisionNotControllers));
        let stored = decisions.check_stored(&Signatures, &roster, &signed).map(|(news, _)| news);
        assert_eq!(stored, Ok(News::New), "from our own disk");
    }

    #[test]
    fn a_full_table_changes_what_it_has_and_takes_no_more() {
        let (roster, mut decisions) = (roster(), Decisions::default());
        insert(&mut decisions, &roster, &key(2).sign(&decision(1, 1)));
        let held = Arc::clone(decisions.records.values().next().unwrap());
        let others = (0u32..).map(|n| DecisionKey::Network(NetworkId(n))).take(MAX_DECISIONS - 1);
        decisions.records.extend(others.map(|key| (key, Arc::clone(&held))));
        let check = |decision: &Decision| {
            let signed = key(2).sign(decision);
            decisions.check(&Signatures, &roster, &signed).map(|(news, _)| news)
        };
        let other = DecisionKey::Block(NetworkId(1), "10.33.0.0/26".parse().unwrap());
        let one_more = Decision { key: other, ..decision(1, 1) };
        assert_eq!(check(&one_more), Err(DropReason::RecordsTooMany));
        assert_eq!(check(&Decision { body: None, ..one_more }), Err(DropReason::RecordsTooMany));
        assert_eq!(check(&decision(2, 1)), Ok(News::New));
    }
}
