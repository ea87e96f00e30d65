//! The roster as a set of signed records, merged key by key: two signers cannot fork it, and no restart rolls it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_api::id::{HostId, MeshId, MeshKey};
use weft_api::network::check_host_name;
use weft_api::roster::{RosterRecord, Standing};
use weft_api::sign::Signed;
use weft_api::succession::{Chain, Succession};

use super::record::{Held, News, Notary, certify, signature};
use crate::drop::DropReason;

/// Records kept, those of removed members too; further hosts are refused (`RecordsTooMany`).
pub const MAX_ROSTER: usize = 8192;
/// The longest record, encoded.
pub const MAX_ROSTER_RECORD_LEN: usize = 512;

/// Every record of one mesh.
#[derive(Clone, Debug)]
pub struct Roster {
    pub(super) chain: Chain,
    pub(super) successions: Vec<Arc<Held<Succession>>>,
    records: BTreeMap<HostId, Arc<Held<RosterRecord>>>,
}

impl Roster {
    /// The empty roster of the mesh that began with this key.
    #[must_use]
    pub fn new(first: MeshKey) -> Self {
        Self { chain: Chain::new(first), successions: Vec::new(), records: BTreeMap::new() }
    }

    /// Whether this record holds, and is news. Changes nothing.
    pub fn check(
        &self,
        notary: &dyn Notary,
        signed: &Signed<RosterRecord>,
    ) -> Result<(News, Arc<Held<RosterRecord>>), DropReason> {
        self.judge(notary, signed, false)
    }

    /// The same of a record from our own disk: it was believed when it came, under an older mesh key too.
    pub fn check_stored(
        &self,
        notary: &dyn Notary,
        signed: &Signed<RosterRecord>,
    ) -> Result<(News, Arc<Held<RosterRecord>>), DropReason> {
        self.judge(notary, signed, true)
    }

    fn judge(
        &self,
        notary: &dyn Notary,
        signed: &Signed<RosterRecord>,
        old_too: bool,
    ) -> Result<(News, Arc<Held<RosterRecord>>), DropReason> {
        if signed.bytes().len() > MAX_ROSTER_RECORD_LEN {
            return Err(DropReason::RecordTooLong);
        }
        let claimed = signed.peek().map_err(signature)?;
        let known = self.records.get(&claimed.key.id());
        if let Some(known) = known.filter(|k| k.signed == *signed) {
            return Ok((News::Same, Arc::clone(known)));
        }
        if claimed.mesh != self.mesh() {
            return Err(DropReason::RecordOfAnotherMesh);
        }
        let key = self.chain.key(claimed.under.key).ok_or(DropReason::RecordOfLaterKey)?;
        let held = certify(notary, &key.0, signed)?;
        if claimed.under.key < self.chain.number() && !old_too {
            return Err(DropReason::RecordOfOldKey);
        }
        if held.record.mesh != self.mesh() {
            return Err(DropReason::RecordOfAnotherMesh);
        }
        if check_host_name(&held.record.name).is_err() {
            return Err(DropReason::RecordInvalid);
        }
        let news = match known {
            None if self.records.len() >= MAX_ROSTER => return Err(DropReason::RecordsTooMany),
            None => News::New,
            Some(known) if known.record.key != held.record.key => return Err(DropReason::RosterCollision),
            Some(known) => {
                let rank = |h: &Held<RosterRecord>| (h.id().rank, h.signed.bytes().to_vec());
                News::of(rank(&held).cmp(&rank(known)))
            }
        };
        Ok((news, held))
    }

    /// Takes a record that was found to hold; returns the one before.
    pub(super) fn put(&mut self, held: Arc<Held<RosterRecord>>) -> Option<Arc<Held<RosterRecord>>> {
        self.records.insert(held.record.key.id(), held)
    }

    /// Forgets a record.
    pub(super) fn forget(&mut self, host: HostId) {
        self.records.remove(&host);
    }

    /// A host's record, of a removed member too.
    #[must_use]
    pub fn get(&self, host: HostId) -> Option<&RosterRecord> {
        self.held(host).map(|h| &h.record)
    }

    /// A member's record.
    #[must_use]
    pub fn member(&self, host: HostId) -> Option<&RosterRecord> {
        self.get(host).filter(|r| r.standing == Standing::Member)
    }

    /// A host's record and its signed form.
    #[must_use]
    pub fn held(&self, host: HostId) -> Option<&Arc<Held<RosterRecord>>> {
        self.records.get(&host)
    }

    /// Every member.
    #[must_use]
    pub fn members(&self) -> BTreeSet<HostId> {
        self.records().filter(|(_, h)| h.record.standing == Standing::Member).map(|(h, _)| h).collect()
    }

    /// Every record, of removed members too.
    pub fn records(&self) -> impl Iterator<Item = (HostId, &Arc<Held<RosterRecord>>)> {
        self.records.iter().map(|(host, held)| (*host, held))
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.chain.mesh()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::id::HostKey;
    use weft_api::roster::Roles;
    use weft_api::sign::SigningKey;

    use super::*;
    use crate::mesh::record::Signatures;

    fn mesh() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn record(host: u8, serial: u64, standing: Standing) -> RosterRecord {
        let key = HostKey(SigningKey::from_seed([host; 32]).public());
        let mesh = MeshKey(mesh().public()).id();
        RosterRecord {
            mesh,
            key,
            name: format!("h{host}"),
            roles: Roles::default(),
            serial,
            standing,
            under: weft_api::roster::Under::default(),
        }
    }

    fn insert(roster: &mut Roster, signed: &Signed<RosterRecord>) -> News {
        let (news, held) = roster.check(&Signatures, signed).unwrap();
        if news == News::New {
            roster.put(held);
        }
        news
    }

    fn empty() -> Roster {
        Roster::new(MeshKey(mesh().public()))
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_roster(
            mut records in prop::collection::vec((0u8..3, 0u64..4, any::<bool>(), 0u8..2), 0..20), seed: u64,
        ) {
            let make = |(host, serial, removed, variant): &(u8, u64, bool, u8)| {
                let standing = if *removed { Standing::Removed } else { Standing::Member };
                let mut record = record(*host, *serial, standing);
                record.name = format!("h{host}-{variant}");
                mesh().sign(&record)
            };
            let mut one = empty();
            for record in &records {
                insert(&mut one, &make(record));
            }
            let n = records.len().max(1) as u64;
            for i in 0..records.len() {
                records.swap(i, (seed.wrapping_mul(i as u64 + 1) % n) as usize);
            }
            let mut other = empty();
            for record in &records {
                insert(&mut other, &make(record));
            }
            let all = |r: &Roster| r.records().map(|(h, r)| (h, r.record.clone())).collect::<Vec<_>>();
            prop_assert_eq!(all(&one), all(&other));
            for (host, _, removed, _) in &records {
                let id = record(*host, 0, Standing::Member).key.id();
                prop_assert!(!removed || one.member(id).is_none(), "removed is final");
            }
        }
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let mut roster = empty();
        let good = record(2, 1, Standing::Member);
        assert_eq!(insert(&mut roster, &mesh().sign(&good)), News::New);
        assert_eq!(insert(&mut roster, &mesh().sign(&good)), News::Same);
        assert_eq!(insert(&mut roster, &mesh().sign(&RosterRecord { serial: 0, ..good.clone() })), News::Old);
        let refused =
            |record: &RosterRecord, key: &SigningKey| roster.check(&Signatures, &key.sign(record)).err();
        assert_eq!(refused(&good, &SigningKey::from_seed([9; 32])), Some(DropReason::RecordForged));
        let other = RosterRecord { mesh: MeshId([0; 32]), ..good.clone() };
        assert_eq!(refused(&other, &mesh()), Some(DropReason::RecordOfAnotherMesh));
        let long = RosterRecord { name: "x".repeat(600), ..good.clone() };
        assert_eq!(refused(&long, &mesh()), Some(DropReason::RecordTooLong));
        let odd = RosterRecord { name: "../x".into(), ..good };
        assert_eq!(refused(&odd, &mesh()), Some(DropReason::RecordInvalid));
    }

    #[test]
    fn a_full_roster_knows_its_own_and_takes_no_more() {
        let mut roster = empty();
        insert(&mut roster, &mesh().sign(&record(2, 1, Standing::Member)));
        let held = Arc::clone(roster.records.values().next().unwrap());
        let others = (0u64..).map(|n| HostId(n.to_be_bytes())).take(MAX_ROSTER - 1);
        roster.records.extend(others.map(|host| (host, Arc::clone(&held))));
        let check = |host, serial, standing| {
            let signed = mesh().sign(&record(host, serial, standing));
            roster.check(&Signatures, &signed).map(|(news, _)| news)
        };
        assert_eq!(check(3, 1, Standing::Member), Err(DropReason::RecordsTooMany));
        assert_eq!(check(3, 1, Standing::Removed), Err(DropReason::RecordsTooMany));
        assert_eq!(check(2, 2, Standing::Member), Ok(News::New), "who is in it may change");
    }
}
