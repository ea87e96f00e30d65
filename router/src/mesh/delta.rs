//! A change of a host's facts as it travels: the items that differ.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weft_api::fact::{FactHead, FactVersion, Items};
use weft_api::sign::Signed;

use super::facts::Said;

/// A host's facts on their way: what differs from a base, or everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delta {
    /// The version that results.
    pub head: Signed<FactHead>,
    /// What it is to be applied to; nothing: `added` is everything.
    pub base: Option<FactVersion>,
    /// Places of the base's items that are gone, rising.
    pub removed: Vec<u16>,
    /// Items that the base does not have.
    pub added: Items,
}

impl Delta {
    pub(super) fn apply(&self, base: &Items) -> Items {
        let mut removed = self.removed.iter().copied().peekable();
        let mut added = self.added.iter().peekable();
        let mut items: Vec<&[u8]> = Vec::new();
        for (place, item) in (0u16..).zip(base.iter()) {
            if removed.next_if_eq(&place).is_some() {
                continue;
            }
            while let Some(next) = added.next_if(|a| *a < item) {
                items.push(next);
            }
            items.push(item);
        }
        items.into_iter().chain(added).collect()
    }

    /// Bytes that it takes on the wire, about.
    #[must_use]
    pub fn size(&self) -> usize {
        200 + 3 * self.removed.len() + self.added.size()
    }
}

impl Said {
    /// What differs from an older version; everything if there is none.
    #[must_use]
    pub fn since(&self, older: Option<&Said>) -> Delta {
        let head = self.record.head.clone();
        let Some(older) = older else {
            return Delta { head, base: None, removed: Vec::new(), added: self.record.items.clone() };
        };
        let (before, after) = (&older.record.items, &self.record.items);
        let had: BTreeSet<&[u8]> = before.iter().collect();
        let has: BTreeSet<&[u8]> = after.iter().collect();
        let removed = (0u16..).zip(before.iter()).filter(|(_, i)| !has.contains(i)).map(|(n, _)| n).collect();
        let added = after.iter().filter(|i| !had.contains(i)).collect();
        Delta { head, base: Some(older.head.version), removed, added }
    }

    /// What differs from a version that somebody else holds, by the fingerprints of its items. Two items of one
    /// fingerprint make a delta that does not hash; then the whole is asked for.
    #[must_use]
    pub fn since_prints(&self, base: FactVersion, prints: &[u32]) -> Delta {
        let had: BTreeSet<u32> = prints.iter().copied().collect();
        let has: BTreeSet<u32> = self.record.items.iter().map(fingerprint).collect();
        let removed = (0u16..).zip(prints).filter(|(_, p)| !has.contains(p)).map(|(n, _)| n).collect();
        let added = self.record.items.iter().filter(|i| !had.contains(&fingerprint(i))).collect();
        Delta { head: self.record.head.clone(), base: Some(base), removed, added }
    }

    /// The fingerprints of the items, in their order.
    #[must_use]
    pub fn prints(&self) -> Vec<u32> {
        self.record.items.iter().map(fingerprint).collect()
    }
}

/// FNV-1a; whoever makes two items collide has its own facts sent whole.
fn fingerprint(item: &[u8]) -> u32 {
    item.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
