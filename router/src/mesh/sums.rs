//! What is known, as sums of the records' marks: two hosts that know the same have the same root, and where they differ is
//! found in three messages: 16 branches, 16 leaves of each that differs, the ids in the leaves that differ.

use super::record::RecordKey;

/// Branches of the root, and leaves of a branch.
pub const FAN_OUT: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Sums {
    leaves: Box<[u64; FAN_OUT * FAN_OUT]>,
}

impl Default for Sums {
    fn default() -> Self {
        Self { leaves: Box::new([0; FAN_OUT * FAN_OUT]) }
    }
}

impl Sums {
    pub(super) fn add(&mut self, key: &RecordKey, mark: u128) {
        let leaf = &mut self.leaves[usize::from(key.leaf())];
        *leaf = leaf.wrapping_add(low(mark));
    }

    pub(super) fn remove(&mut self, key: &RecordKey, mark: u128) {
        let leaf = &mut self.leaves[usize::from(key.leaf())];
        *leaf = leaf.wrapping_sub(low(mark));
    }

    pub(super) fn root(&self) -> u64 {
        fold(&self.leaves[..])
    }

    pub(super) fn branches(&self) -> Vec<u64> {
        self.leaves.chunks(FAN_OUT).map(fold).collect()
    }

    /// The leaves of the branches in which somebody else's sums differ.
    pub(super) fn differing_branches(&self, theirs: &[u64]) -> Vec<(u8, Vec<u64>)> {
        let ours = self.leaves.chunks(FAN_OUT).zip(theirs).zip(0u8..);
        ours.filter(|((o, t), _)| fold(o) != **t).map(|((o, _), n)| (n, o.to_vec())).collect()
    }

    /// The leaves in which somebody else's sums differ.
    pub(super) fn differing_leaves(&self, theirs: &[(u8, Vec<u64>)]) -> Vec<u8> {
        let mut differing = Vec::new();
        for (branch, sums) in theirs.iter().filter(|(b, _)| usize::from(*b) < FAN_OUT) {
            let first = usize::from(*branch) * FAN_OUT;
            for (leaf, theirs) in (first..first + FAN_OUT).zip(sums) {
                if self.leaves[leaf] != *theirs {
                    differing.extend(u8::try_from(leaf));
                }
            }
        }
        differing
    }
}

/// Order matters above the leaves, so that a record that moved between leaves cannot cancel itself.
fn fold(sums: &[u64]) -> u64 {
    sums.iter().fold(0, |hash: u64, sum| (hash ^ sum).wrapping_mul(0x0100_0000_01b3).rotate_left(23))
}

#[expect(clippy::cast_possible_truncation, reason = "64 bits tell records apart well enough")]
fn low(mark: u128) -> u64 {
    mark as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weft_api::id::HostId;

    use super::*;

    proptest! {
        #[test]
        fn exactly_the_differing_leaves_are_found(
            common in prop::collection::vec((any::<[u8; 8]>(), any::<u128>()), 0..50),
            extra in prop::collection::vec((any::<[u8; 8]>(), 1u128..), 0..4),
        ) {
            let (mut one, mut other) = (Sums::default(), Sums::default());
            for (host, mark) in &common {
                one.add(&RecordKey::Roster(HostId(*host)), *mark);
                other.add(&RecordKey::Roster(HostId(*host)), *mark);
            }
            let mut expected: Vec<u8> = Vec::new();
            for (host, mark) in &extra {
                one.add(&RecordKey::Facts(HostId(*host)), *mark << 1 | 1);
                expected.push(host[1]);
            }
            expected.sort_unstable();
            expected.dedup();
            let found = other.differing_leaves(&one.differing_branches(&other.branches()));
            prop_assert!(found.iter().all(|leaf| expected.contains(leaf)));
            prop_assert!(extra.len() > 1 || found == expected);
            prop_assert_eq!(one.root() == other.root(), found.is_empty());
            for (host, mark) in &extra {
                one.remove(&RecordKey::Facts(HostId(*host)), *mark << 1 | 1);
            }
            prop_assert_eq!(one.root(), other.root());
        }
    }
}
