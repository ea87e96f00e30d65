//! Decisions: one record for each key, signed by a controller; the higher revision counts.

use std::collections::BTreeMap;

use weft_api::decision::{Decision, DecisionBody, DecisionKey, MAX_DECISION_LEN};
use weft_api::sign::Signed;

use super::roster::signature;
use super::{News, Roster};
use crate::drop::DropReason;

/// Keys kept, those that say `gone` too; further ones are refused (`RecordsTooMany`).
pub const MAX_DECISIONS: usize = 65_536;

/// What the controller says.
#[derive(Clone, Debug, Default)]
pub struct Decisions {
    records: BTreeMap<DecisionKey, (Decision, Signed<Decision>)>,
}

impl Decisions {
    /// Whether this decision holds, and is news. Changes nothing.
    pub fn check(&self, roster: &Roster, signed: &Signed<Decision>) -> Result<(News, Decision), DropReason> {
        self.judge(roster, signed, false)
    }

    /// Takes a decision if it holds and is news.
    pub fn insert(
        &mut self,
        roster: &Roster,
        signed: Signed<Decision>,
    ) -> Result<(News, Decision), DropReason> {
        let (news, decision) = self.judge(roster, &signed, false)?;
        self.take(news, &decision, signed);
        Ok((news, decision))
    }

    /// Takes a decision from our own disk: it was believed when it came, even if its signer was removed meanwhile.
    pub fn restore(
        &mut self,
        roster: &Roster,
        signed: Signed<Decision>,
    ) -> Result<(News, Decision), DropReason> {
        let (news, decision) = self.judge(roster, &signed, true)?;
        self.take(news, &decision, signed);
        Ok((news, decision))
    }

    /// What is decided of something.
    #[must_use]
    pub fn get(&self, key: &DecisionKey) -> Option<&Decision> {
        self.records.get(key).map(|(d, _)| d)
    }

    /// The signed form.
    #[must_use]
    pub fn signed(&self, key: &DecisionKey) -> Option<&Signed<Decision>> {
        self.records.get(key).map(|(_, s)| s)
    }

    /// Every decision.
    pub fn records(&self) -> impl Iterator<Item = &Decision> {
        self.records.values().map(|(d, _)| d)
    }

    fn take(&mut self, news: News, decision: &Decision, signed: Signed<Decision>) {
        if news == News::New {
            self.records.insert(decision.key.clone(), (decision.clone(), signed));
        }
    }

    fn judge(
        &self,
        roster: &Roster,
        signed: &Signed<Decision>,
        removed_too: bool,
    ) -> Result<(News, Decision), DropReason> {
        if signed.bytes().len() > MAX_DECISION_LEN {
            return Err(DropReason::RecordTooLong);
        }
        let claimed = signed.peek().map_err(signature)?;
        let known = self.records.get(&claimed.key);
        if let Some((known, _)) = known.filter(|(_, s)| s == signed) {
            return Ok((News::Same, known.clone()));
        }
        let id = claimed.signer.id();
        let signer = if removed_too { roster.get(id) } else { roster.member(id) };
        if !signer.is_some_and(|s| s.key == claimed.signer && s.roles.controller) {
            return Err(DropReason::DecisionNotControllers);
        }
        let decision = signed.verify(&claimed.signer.0).map_err(signature)?;
        if decision.mesh != roster.mesh() {
            return Err(DropReason::RecordOfAnotherMesh);
        }
        if !body_fits(&decision) {
            return Err(DropReason::RecordInvalid);
        }
        let news = match known {
            None if self.records.len() >= MAX_DECISIONS => return Err(DropReason::RecordsTooMany),
            None => News::New,
            Some((known, old)) => {
                match (decision.revision, signed.bytes()).cmp(&(known.revision, old.bytes())) {
                    std::cmp::Ordering::Greater => News::New,
                    std::cmp::Ordering::Equal => News::Same,
                    std::cmp::Ordering::Less => News::Old,
                }
            }
        };
        Ok((news, decision))
    }
}

fn body_fits(decision: &Decision) -> bool {
    match (&decision.key, &decision.body) {
        (_, None) | (DecisionKey::Block(..), Some(DecisionBody::Block { .. })) => true,
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
        }
    }

    fn roster() -> Roster {
        let mut roster = Roster::new(MeshKey(key(1).public()));
        for n in 2..4 {
            roster.insert(key(1).sign(&roster_record(n, n == 2, Standing::Member))).unwrap();
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
                one.insert(&roster, key(2).sign(&decision(*revision, *owner))).unwrap();
            }
            for (revision, owner) in revisions[at.index(revisions.len())..].iter().chain(&revisions) {
                other.insert(&roster, key(2).sign(&decision(*revision, *owner))).unwrap();
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
        let refused = |record: &Decision, n: u8| decisions.check(&roster, &key(n).sign(record)).err();
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
        roster.insert(key(1).sign(&removed)).unwrap();
        let mut decisions = Decisions::default();
        let signed = key(2).sign(&good);
        assert_eq!(decisions.insert(&roster, signed.clone()).err(), Some(DropReason::DecisionNotControllers));
        assert_eq!(decisions.restore(&roster, signed).map(|(n, _)| n), Ok(News::New), "from our own disk");
    }
}
