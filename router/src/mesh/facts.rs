//! Facts: one record for each member, signed and versioned by itself. The items are opaque here.

use std::collections::BTreeMap;

use weft_api::fact::{FactRecord, FactVersion, MAX_ITEM_LEN, MAX_ITEMS};
use weft_api::id::{HostId, MeshId};
use weft_api::sign::{Signed, SigningKey};

use super::roster::signature;
use super::{News, Roster};
use crate::drop::DropReason;

/// No disk has counted so many starts: a record of the last boot is refused (`RecordInvalid`), or its owner could never get past it,
/// and two hosts would send each other older and newer facts without end.
const ABSURD_BOOT: u64 = u64::MAX;
/// The longest record, encoded.
pub const MAX_FACTS_LEN: usize = 1 << 20;

/// What every member says of itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    records: BTreeMap<HostId, (FactRecord, Signed<FactRecord>)>,
}

impl Facts {
    /// Whether this record holds, and is news. Changes nothing.
    pub fn check(
        &self,
        roster: &Roster,
        signed: &Signed<FactRecord>,
    ) -> Result<(News, FactRecord), DropReason> {
        if signed.bytes().len() > MAX_FACTS_LEN {
            return Err(DropReason::RecordTooLong);
        }
        let claimed = signed.peek().map_err(signature)?;
        let known = self.records.get(&claimed.owner);
        if let Some((known, _)) = known.filter(|(_, s)| s == signed) {
            return Ok((News::Same, known.clone()));
        }
        let member = roster.member(claimed.owner).ok_or(DropReason::FactOfStranger)?;
        let record = signed.verify(&member.key.0).map_err(signature)?;
        if record.mesh != roster.mesh() {
            return Err(DropReason::RecordOfAnotherMesh);
        }
        let absurd = record.version.boot == ABSURD_BOOT;
        if absurd || record.items.len() > MAX_ITEMS || !items_hold(&record.items) {
            return Err(DropReason::RecordInvalid);
        }
        let news = known.map_or(News::New, |(known, old)| {
            match (record.version, signed.bytes()).cmp(&(known.version, old.bytes())) {
                std::cmp::Ordering::Greater => News::New,
                std::cmp::Ordering::Equal => News::Same,
                std::cmp::Ordering::Less => News::Old,
            }
        });
        Ok((news, record))
    }

    /// Takes a record if it holds and is news.
    pub fn insert(
        &mut self,
        roster: &Roster,
        signed: Signed<FactRecord>,
    ) -> Result<(News, FactRecord), DropReason> {
        let (news, record) = self.check(roster, &signed)?;
        if news == News::New {
            self.records.insert(record.owner, (record.clone(), signed));
        }
        Ok((news, record))
    }

    /// Forgets what a removed member said.
    pub fn forget(&mut self, host: HostId) -> bool {
        self.records.remove(&host).is_some()
    }

    /// A host's record.
    #[must_use]
    pub fn get(&self, host: HostId) -> Option<&FactRecord> {
        self.records.get(&host).map(|(r, _)| r)
    }

    /// The signed form.
    #[must_use]
    pub fn signed(&self, host: HostId) -> Option<&Signed<FactRecord>> {
        self.records.get(&host).map(|(_, s)| s)
    }

    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = &FactRecord> {
        self.records.values().map(|(r, _)| r)
    }
}

/// This host's own facts: what it says, and under which version.
#[derive(Debug)]
pub struct Own {
    mesh: MeshId,
    owner: HostId,
    version: FactVersion,
    items: Vec<Vec<u8>>,
}

impl Own {
    /// Nothing said yet in this boot.
    #[must_use]
    pub fn new(mesh: MeshId, owner: HostId, boot: u64) -> Self {
        Self { mesh, owner, version: FactVersion { boot, sequence: 0 }, items: Vec::new() }
    }

    /// Says these items from now on, in any order: the record to insert and spread. `None` if nothing changes.
    /// What exceeds the bounds of a record is left out; the number says how much.
    pub fn say(&mut self, key: &SigningKey, items: Vec<Vec<u8>>) -> (Option<Signed<FactRecord>>, usize) {
        let asked = items.len();
        let mut items: Vec<Vec<u8>> = items.into_iter().filter(|i| i.len() <= MAX_ITEM_LEN).collect();
        items.sort();
        items.dedup();
        items.truncate(MAX_ITEMS);
        let mut room = MAX_FACTS_LEN - 256;
        items.retain(|i| {
            let fits = i.len() + 3 <= room;
            room -= if fits { i.len() + 3 } else { 0 };
            fits
        });
        let left_out = asked - items.len();
        if self.version.sequence > 0 && items == self.items {
            return (None, left_out);
        }
        self.items = items;
        (Some(self.sign(key)), left_out)
    }

    /// Somebody has a record of ours, validly signed, that is newer than what we say: a backup was restored here. Says the
    /// present items again under a version beyond it. `None` if it is not newer.
    pub fn heard(&mut self, key: &SigningKey, version: FactVersion) -> Option<Signed<FactRecord>> {
        if version < self.version {
            return None;
        }
        self.version = version;
        Some(self.sign(key))
    }

    /// The version said last.
    #[must_use]
    pub fn version(&self) -> FactVersion {
        self.version
    }

    fn sign(&mut self, key: &SigningKey) -> Signed<FactRecord> {
        let FactVersion { boot, sequence } = self.version;
        self.version = match sequence.checked_add(1) {
            Some(sequence) => FactVersion { boot, sequence },
            None => FactVersion { boot: boot.saturating_add(1), sequence: 1 },
        };
        key.sign(&FactRecord {
            mesh: self.mesh,
            owner: self.owner,
            version: self.version,
            items: self.items.clone(),
        })
    }
}

/// Sorted, without repeats, each short enough.
fn items_hold(items: &[Vec<u8>]) -> bool {
    items.iter().all(|i| i.len() <= MAX_ITEM_LEN) && items.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::id::{HostKey, MeshKey};
    use weft_api::roster::{Roles, RosterRecord, Standing};

    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed([n; 32])
    }

    fn roster() -> Roster {
        let mut roster = Roster::new(MeshKey(key(1).public()));
        for n in 2..4 {
            let record = RosterRecord {
                mesh: roster.mesh(),
                key: HostKey(key(n).public()),
                name: format!("h{n}"),
                roles: Roles::default(),
                serial: 1,
                standing: Standing::Member,
            };
            roster.insert(key(1).sign(&record)).unwrap();
        }
        roster
    }

    fn host(n: u8) -> HostId {
        HostKey(key(n).public()).id()
    }

    proptest! {
        #[test]
        fn any_order_gives_the_newest(versions in prop::collection::vec((0u64..3, 0u64..3, 0u8..3), 1..12), at: prop::sample::Index) {
            let roster = roster();
            let sign = |(boot, sequence, item): &(u64, u64, u8)| key(2).sign(&FactRecord {
                mesh: roster.mesh(), owner: host(2),
                version: FactVersion { boot: *boot, sequence: *sequence }, items: vec![vec![*item]],
            });
            let (mut one, mut other) = (Facts::default(), Facts::default());
            for version in &versions {
                one.insert(&roster, sign(version)).unwrap();
            }
            for version in versions[at.index(versions.len())..].iter().chain(&versions) {
                other.insert(&roster, sign(version)).unwrap();
            }
            prop_assert_eq!(one.get(host(2)), other.get(host(2)));
        }

        #[test]
        fn what_is_said_always_holds(items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..30)) {
            let roster = roster();
            let mut own = Own::new(roster.mesh(), host(2), 7);
            let (signed, left_out) = own.say(&key(2), items.clone());
            let (news, record) = Facts::default().insert(&roster, signed.unwrap()).unwrap();
            prop_assert_eq!(news, News::New);
            prop_assert_eq!(record.items.len() + left_out, items.len());
            prop_assert_eq!(own.say(&key(2), items).0, None, "the same again is no news");
        }
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let roster = roster();
        let good = FactRecord {
            mesh: roster.mesh(),
            owner: host(2),
            version: FactVersion { boot: 1, sequence: 1 },
            items: vec![vec![1], vec![2]],
        };
        let facts = Facts::default();
        let refused = |record: &FactRecord, n| facts.check(&roster, &key(n).sign(record)).err();
        assert_eq!(refused(&good, 2), None);
        assert_eq!(refused(&good, 3), Some(DropReason::RecordForged), "of another member");
        assert_eq!(
            refused(&FactRecord { owner: host(4), ..good.clone() }, 4),
            Some(DropReason::FactOfStranger)
        );
        let other = FactRecord { mesh: MeshId([0; 32]), ..good.clone() };
        assert_eq!(refused(&other, 2), Some(DropReason::RecordOfAnotherMesh));
        for items in [vec![vec![2], vec![1]], vec![vec![1], vec![1]], vec![vec![0; MAX_ITEM_LEN + 1]]] {
            assert_eq!(refused(&FactRecord { items, ..good.clone() }, 2), Some(DropReason::RecordInvalid));
        }
        let version = FactVersion { boot: u64::MAX, sequence: 1 };
        assert_eq!(
            refused(&FactRecord { version, ..good.clone() }, 2),
            Some(DropReason::RecordInvalid),
            "from the end of time"
        );
        let many = (0..=MAX_ITEMS as u32).map(|i| i.to_be_bytes().to_vec()).collect();
        assert_eq!(refused(&FactRecord { items: many, ..good.clone() }, 2), Some(DropReason::RecordInvalid));
        let long = (0..2000u32).map(|i| [&i.to_be_bytes()[..], &[0; 1000]].concat()).collect();
        assert_eq!(refused(&FactRecord { items: long, ..good }, 2), Some(DropReason::RecordTooLong));
    }

    #[test]
    fn an_owner_jumps_past_a_higher_version_of_itself() {
        let roster = roster();
        let mut own = Own::new(roster.mesh(), host(2), 3);
        own.say(&key(2), vec![vec![1]]);
        let higher = FactVersion { boot: 9, sequence: u64::MAX };
        let record = own.heard(&key(2), higher).unwrap().verify(&key(2).public()).unwrap();
        assert!(record.version > higher);
        assert_eq!(record.items, [[1]]);
        assert_eq!(own.heard(&key(2), higher), None);
    }
}
