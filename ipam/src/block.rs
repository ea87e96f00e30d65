//! Blocks: the pieces of a range that are delegated to hosts, so that a host gives out addresses without asking anybody.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::range::{address, first, host_bits};

/// A block has at most 2 to this power addresses: 64, which is also the width of a [`crate::space::Space`]'s masks.
const LARGEST_BITS: u8 = 6;

/// An IPv4 block has at least 2 to this power addresses: 4.
const SMALLEST_BITS: u8 = 2;

/// The prefix length of a range's blocks: 1/64 of an IPv4 range, at least 4 and at most 64 addresses; 64 of an IPv6 range.
#[must_use]
pub fn block_prefix(range: IpNet) -> u8 {
    let range_bits = host_bits(range);
    let wanted = match range {
        IpNet::V4(_) => range_bits.saturating_sub(6).clamp(SMALLEST_BITS, LARGEST_BITS),
        IpNet::V6(_) => LARGEST_BITS,
    };
    range.max_prefix_len() - wanted.min(range_bits)
}

/// The block that an address lies in; `None` outside the range.
#[must_use]
pub fn block_of(range: IpNet, address: IpAddr) -> Option<IpNet> {
    if !range.contains(&address) {
        return None;
    }
    IpNet::new(address, block_prefix(range)).ok().map(|block| block.trunc())
}

/// Whether `block` is one of the blocks that this range is cut into.
#[must_use]
pub fn is_block_of(range: IpNet, block: IpNet) -> bool {
    block_of(range, block.addr()) == Some(block)
}

/// The lowest block that is not held. `held`: blocks of this range in ascending order.
#[must_use]
pub fn lowest_free(range: IpNet, held: impl IntoIterator<Item = IpNet>) -> Option<IpNet> {
    let size = 1u128 << (range.max_prefix_len() - block_prefix(range));
    let mut free = first(range);
    for block in held {
        if first(block) > free {
            break;
        }
        // The last block of all IPv6 space would overflow here; ff00::/8 is no network's range.
        free = first(block).checked_add(size)?;
    }
    let last = crate::range::bits(range.broadcast());
    if free > last {
        return None;
    }
    block_of(range, address(range, free))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> u8 {
        block_prefix(text.parse().unwrap())
    }

    #[test]
    fn blocks_are_a_64th_within_bounds() {
        assert_eq!(prefix("10.0.0.0/8"), 26);
        assert_eq!(prefix("10.32.0.0/16"), 26);
        assert_eq!(prefix("10.32.0.0/20"), 26);
        assert_eq!(prefix("10.32.0.0/21"), 27);
        assert_eq!(prefix("10.32.0.0/24"), 30);
        assert_eq!(prefix("10.32.0.0/30"), 30);
        assert_eq!(prefix("fd00::/64"), 122);
        assert_eq!(prefix("fd00::/126"), 126);
    }

    #[test]
    fn a_block_is_found_by_an_address_of_it() {
        let range = "10.32.0.0/16".parse().unwrap();
        assert_eq!(block_of(range, "10.32.1.70".parse().unwrap()).unwrap().to_string(), "10.32.1.64/26");
        assert_eq!(block_of(range, "10.33.0.1".parse().unwrap()), None);
        assert!(is_block_of(range, "10.32.1.64/26".parse().unwrap()));
        assert!(!is_block_of(range, "10.32.1.64/27".parse().unwrap()));
        assert!(!is_block_of(range, "10.32.1.65/26".parse().unwrap()));
    }

    #[test]
    fn a_small_range_runs_out() {
        let range = "10.0.0.0/30".parse().unwrap();
        let only = lowest_free(range, []).unwrap();
        assert_eq!(only, range);
        assert_eq!(lowest_free(range, [only]), None);
    }

    proptest! {
        /// Against a set: whatever is taken and given back, the lowest free block is the first that is not in the set.
        #[test]
        fn the_lowest_free_block_is_given(
            range in prop::sample::select(vec!["10.1.0.0/24", "10.1.0.0/20", "10.1.0.0/27", "fd00::/64", "fd00::/118"]),
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..120),
        ) {
            let range: IpNet = range.parse().unwrap();
            let all = 1u128 << (block_prefix(range) - range.prefix_len()).min(16);
            let nth = |n: u128| {
                let size = 1u128 << (range.max_prefix_len() - block_prefix(range));
                block_of(range, address(range, first(range) + n * size)).unwrap()
            };
            let mut held = BTreeSet::new();
            for (take, which) in steps {
                if take {
                    let expected = (0..all).map(nth).find(|block| !held.contains(block));
                    let got = lowest_free(range, held.iter().copied());
                    prop_assert_eq!(got, expected);
                    held.extend(got);
                } else if !held.is_empty() {
                    let block = *which.get(&held.iter().copied().collect::<Vec<_>>());
                    held.remove(&block);
                }
            }
        }
    }
}
