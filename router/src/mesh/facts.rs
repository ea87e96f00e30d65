//! Facts: one record for each member, signed and versioned by itself. A change travels as a [`Delta`]; the whole must then hash to
//! what the owner signed. But for its links the items are opaque here.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_api::fact::{FactHead, FactRecord, Item};
use weft_api::id::HostId;
use weft_api::sign::Signed;

use super::Roster;
use super::delta::Delta;
use super::record::{Held, Id, News, Notary, RecordKey, short, signature};
use crate::drop::DropReason;

/// No disk has counted so many starts: a record of the last boot is refused (`RecordInvalid`), or its owner could never get past it,
/// and two hosts would send each other older and newer facts without end.
const ABSURD_BOOT: u64 = u64::MAX;
/// The longest record, encoded.
pub const MAX_FACTS_LEN: usize = 1 << 20;

/// Links of one host that are believed; nobody has as many neighbours.
const MAX_LINKS: usize = 256;

/// One version of a host's facts, verified. Encoded once; shared by all who hold it.
#[derive(Debug)]
pub struct Said {
    /// What the owner has signed.
    pub head: FactHead,
    /// What travels and lies on the disk.
    pub record: FactRecord,
    /// The links that it claims.
    pub links: Box<[Claim]>,
    /// Where it says that it can be reached, or is seen.
    pub addresses: Box<[SocketAddr]>,
    pub(super) mark: u128,
}

/// A link that a host says it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The other end.
    pub host: HostId,
    /// Microseconds; 0: not known yet.
    pub rtt_us: u32,
    /// Of a hundred probes.
    pub loss_percent: u8,
}

impl Said {
    fn new(head: FactHead, record: FactRecord, mark: u128) -> Arc<Self> {
        let (mut links, mut addresses) = (Vec::new(), Vec::new());
        let mut seen = Vec::new();
        for item in record.items.decoded() {
            match item {
                Item::Neighbour { host, rtt_us, loss_percent } if links.len() < MAX_LINKS => {
                    links.push(Claim { host, rtt_us, loss_percent });
                }
                Item::Address(address) => addresses.push(address),
                Item::Seen(address) => seen.push(address),
                _ => {}
            }
        }
        addresses.extend(seen);
        Arc::new(Self { head, record, links: links.into(), addresses: addresses.into(), mark })
    }

    /// Which version of whose facts.
    #[must_use]
    pub fn id(&self) -> Id {
        id(&self.head, self.mark)
    }
}

fn id(head: &FactHead, mark: u128) -> Id {
    let rank = (head.version.boot, head.version.sequence);
    Id { key: RecordKey::Facts(head.owner), rank, mark: short(mark) }
}

/// What became of a delta whose signature holds.
#[derive(Debug)]
pub enum Heard {
    /// Newer than what was known.
    News(Arc<Said>),
    /// It is what is known.
    Same,
    /// Something newer is known.
    Old,
    /// Newer, but its base is not what is known here, or the result does not hash: ask for it.
    Lacks {
        /// The version.
        id: Id,
        /// Ask for all of it.
        whole: bool,
    },
}

/// What every member says of itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    records: BTreeMap<HostId, Arc<Said>>,
}

impl Facts {
    /// Whether this holds, and is news. Changes nothing.
    pub fn check(
        &self,
        notary: &dyn Notary,
        roster: &Roster,
        delta: &Delta,
    ) -> Result<(FactHead, Heard), DropReason> {
        let claimed = delta.head.peek().map_err(signature)?;
        let known = self.records.get(&claimed.owner);
        if known.is_some_and(|k| k.record.head == delta.head) {
            return Ok((claimed, Heard::Same));
        }
        let member = roster.member(claimed.owner).ok_or(DropReason::FactOfStranger)?;
        let mark = Held::mark_of(&delta.head);
        let built = notary.recall(mark).and_then(|built| built.downcast::<Said>().ok());
        let built = built.filter(|b| b.record.head == delta.head);
        if built.is_none() && delta.head.verify_by(&member.key.0, |k, b, s| notary.verify(k, b, s)).is_err() {
            return Err(DropReason::RecordForged);
        }
        if claimed.mesh != roster.mesh() {
            return Err(DropReason::RecordOfAnotherMesh);
        }
        if claimed.version.boot == ABSURD_BOOT {
            return Err(DropReason::RecordInvalid);
        }
        match known.map_or(News::New, |k| News::of(order(&claimed, &delta.head, k))) {
            News::Same => return Ok((claimed, Heard::Same)),
            News::Old => return Ok((claimed, Heard::Old)),
            News::New => {}
        }
        let base = match (delta.base, known) {
            (None, _) => None,
            (Some(version), Some(known)) if known.head.version == version => Some(known),
            (Some(_), _) => return Ok((claimed, Heard::Lacks { id: id(&claimed, mark), whole: false })),
        };
        if let Some(built) = built {
            return Ok((claimed, Heard::News(built)));
        }
        let items = base.map_or_else(|| delta.added.clone(), |base| delta.apply(&base.record.items));
        if items.size() > MAX_FACTS_LEN {
            return Err(DropReason::RecordTooLong);
        }
        match (items.digest() == claimed.items, base) {
            (false, None) => return Err(DropReason::RecordInvalid),
            (false, Some(_)) => return Ok((claimed, Heard::Lacks { id: id(&claimed, mark), whole: true })),
            (true, _) if !items.hold() => return Err(DropReason::RecordInvalid),
            (true, _) => {}
        }
        let said = Said::new(claimed, FactRecord { head: delta.head.clone(), items }, mark);
        let shared: Arc<dyn Any + Send + Sync> = Arc::clone(&said) as _;
        notary.keep(mark, &shared);
        Ok((claimed, Heard::News(said)))
    }

    /// Takes a version that was found to hold; returns the one before.
    pub(super) fn put(&mut self, said: Arc<Said>) -> Option<Arc<Said>> {
        self.records.insert(said.head.owner, said)
    }

    /// Forgets what a host said.
    pub(super) fn forget(&mut self, host: HostId) -> Option<Arc<Said>> {
        self.records.remove(&host)
    }

    /// What a host says.
    #[must_use]
    pub fn get(&self, host: HostId) -> Option<&Arc<Said>> {
        self.records.get(&host)
    }

    /// What every host says.
    pub fn records(&self) -> impl Iterator<Item = (HostId, &Arc<Said>)> {
        self.records.iter().map(|(host, said)| (*host, said))
    }
}

fn order(head: &FactHead, signed: &Signed<FactHead>, known: &Said) -> Ordering {
    (head.version, signed.bytes()).cmp(&(known.head.version, known.record.head.bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::fact::{FactVersion, Items, MAX_ITEM_LEN, MAX_ITEMS};
    use weft_api::id::{HostKey, MeshId, MeshKey};
    use weft_api::roster::{Roles, RosterRecord, Standing};
    use weft_api::sign::SigningKey;

    use super::*;
    use crate::mesh::record::Signatures;

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
                under: weft_api::roster::Under::default(),
            };
            let (_, held) = roster.check(&Signatures, &key(1).sign(&record)).unwrap();
            roster.put(held);
        }
        roster
    }

    fn host(n: u8) -> HostId {
        HostKey(key(n).public()).id()
    }

    fn record(boot: u64, sequence: u64, items: Vec<Vec<u8>>) -> FactRecord {
        let version = FactVersion { boot, sequence };
        FactRecord::sign(&key(2), roster().mesh(), host(2), version, Items::new(items))
    }

    fn whole(record: FactRecord) -> Delta {
        Delta { head: record.head, base: None, removed: Vec::new(), added: record.items }
    }

    fn insert(facts: &mut Facts, delta: &Delta) -> Heard {
        let (_, heard) = facts.check(&Signatures, &roster(), delta).unwrap();
        if let Heard::News(said) = &heard {
            facts.put(Arc::clone(said));
        }
        heard
    }

    fn said(items: &[Vec<u8>], sequence: u64) -> Arc<Said> {
        let Heard::News(said) = insert(&mut Facts::default(), &whole(record(1, sequence, items.to_vec())))
        else {
            panic!()
        };
        said
    }

    fn some_items() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0u8..4, 0..4), 0..40)
    }

    proptest! {
        #[test]
        fn any_order_gives_the_newest(versions in prop::collection::vec((0u64..3, 0u64..3, 0u8..3), 1..12), at: prop::sample::Index) {
            let sign = |(boot, sequence, item): &(u64, u64, u8)| whole(record(*boot, *sequence, vec![vec![*item]]));
            let (mut one, mut other) = (Facts::default(), Facts::default());
            for version in &versions {
                insert(&mut one, &sign(version));
            }
            for version in versions[at.index(versions.len())..].iter().chain(&versions) {
                insert(&mut other, &sign(version));
            }
            prop_assert_eq!(&one.get(host(2)).unwrap().record, &other.get(host(2)).unwrap().record);
        }

        #[test]
        fn a_delta_leads_from_any_version_to_any_other(before in some_items(), after in some_items()) {
            let (old, new) = (said(&before, 1), said(&after, 2));
            let deltas = [new.since(Some(&old)), new.since_prints(old.head.version, &old.prints()), new.since(None)];
            for delta in deltas {
                let mut facts = Facts::default();
                facts.put(Arc::clone(&old));
                let heard = insert(&mut facts, &delta);
                prop_assert!(matches!(&heard, Heard::News(s) if s.record == new.record), "{:?}", heard);
            }
        }

        #[test]
        fn any_delta_is_judged_without_panic(bytes: Vec<u8>, removed: Vec<u16>, added: Vec<u8>) {
            let _ = postcard::from_bytes::<Delta>(&bytes);
            let old = said(&[vec![1], vec![2], vec![3]], 1);
            let added: Items = postcard::from_bytes(&postcard::to_allocvec(&added).unwrap()).unwrap();
            let delta = Delta { removed, added, ..said(&[vec![1]], 2).since(Some(&old)) };
            let mut facts = Facts::default();
            facts.put(old);
            let _ = facts.check(&Signatures, &roster(), &delta);
        }
    }

    #[test]
    fn a_delta_that_does_not_fit_asks() {
        let (old, new) = (said(&[vec![1]], 1), said(&[vec![2]], 2));
        let mut facts = Facts::default();
        let heard = insert(&mut facts, &new.since(Some(&old)));
        assert!(matches!(heard, Heard::Lacks { whole: false, .. }), "no base");
        facts.put(said(&[vec![3], vec![4]], 1));
        let heard = insert(&mut facts, &new.since(Some(&old)));
        assert!(matches!(heard, Heard::Lacks { whole: true, .. }), "another base under the same version");
        assert!(matches!(insert(&mut facts, &new.since(None)), Heard::News(_)));
        assert!(matches!(insert(&mut facts, &new.since(Some(&old))), Heard::Same));
        assert!(matches!(insert(&mut facts, &old.since(None)), Heard::Old));
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let (roster, facts) = (roster(), Facts::default());
        let refused = |delta: &Delta| facts.check(&Signatures, &roster, delta).err();
        let good = whole(record(1, 1, vec![vec![1], vec![2]]));
        assert_eq!(refused(&good), None);
        let sign = |n: u8, mesh, owner, version, items: Items| {
            refused(&whole(FactRecord::sign(&key(n), mesh, owner, version, items)))
        };
        let (mesh, version) = (roster.mesh(), FactVersion { boot: 1, sequence: 1 });
        let none = Items::default;
        assert_eq!(
            sign(3, mesh, host(2), version, none()),
            Some(DropReason::RecordForged),
            "of another member"
        );
        assert_eq!(sign(4, mesh, host(4), version, none()), Some(DropReason::FactOfStranger));
        assert_eq!(sign(2, MeshId([0; 32]), host(2), version, none()), Some(DropReason::RecordOfAnotherMesh));
        let late = FactVersion { boot: u64::MAX, sequence: 1 };
        assert_eq!(
            sign(2, mesh, host(2), late, none()),
            Some(DropReason::RecordInvalid),
            "from the end of time"
        );
        let items = |items: &[&[u8]]| items.iter().copied().collect::<Items>();
        for bad in [items(&[&[2], &[1]]), items(&[&[1], &[1]]), items(&[&[0; MAX_ITEM_LEN + 1]])] {
            assert_eq!(sign(2, mesh, host(2), version, bad), Some(DropReason::RecordInvalid));
        }
        let many = Items::new((0..=MAX_ITEMS as u32).map(|i| i.to_be_bytes().to_vec()).collect());
        assert_eq!(sign(2, mesh, host(2), version, many), Some(DropReason::RecordInvalid));
        let long = Items::new((0..2000u32).map(|i| [&i.to_be_bytes()[..], &[0; 1000]].concat()).collect());
        assert_eq!(sign(2, mesh, host(2), version, long), Some(DropReason::RecordTooLong));
        let other = Delta { added: items(&[&[9]]), ..good };
        assert_eq!(refused(&other), Some(DropReason::RecordInvalid), "not what was signed");
    }
}
