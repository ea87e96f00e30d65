//! A host's addresses against a plain set of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::block::lowest_free;
use crate::range::gateway;

fn space(range: &str, blocks: &[&str]) -> Space {
    let range = range.parse().unwrap();
    let mut space = Space::new(range, gateway(range));
    for block in blocks {
        space.add_block(block.parse().unwrap()).unwrap();
    }
    space
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_first_container_gets_the_second_address() {
    let mut space = space("10.32.0.0/16", &["10.32.0.0/26"]);
    assert_eq!(space.capacity(), 62);
    assert_eq!(space.allocate(), Ok(ip("10.32.0.2")));
    assert_eq!(space.allocate(), Ok(ip("10.32.0.3")));
    assert!(space.release(ip("10.32.0.2")));
    assert!(!space.release(ip("10.32.0.2")));
    assert_eq!(space.allocate(), Ok(ip("10.32.0.2")));
    assert_eq!(space.taken().collect::<Vec<_>>(), [ip("10.32.0.2"), ip("10.32.0.3")]);
}

#[test]
fn a_claim_says_what_is_wrong() {
    let mut space = space("10.1.0.0/24", &["10.1.0.0/30", "10.1.0.252/30"]);
    let mut said = |address| space.claim(ip(address)).unwrap_err();
    assert!(matches!(said("10.2.0.1"), ClaimError::Outside { .. }));
    assert!(matches!(said("fd00::1"), ClaimError::Outside { .. }));
    assert_eq!(
        said("10.1.0.0").to_string(),
        "10.1.0.0 is the network address of 10.1.0.0/24: choose another address"
    );
    assert_eq!(
        said("10.1.0.1").to_string(),
        "10.1.0.1 is the gateway of 10.1.0.0/24: choose another address"
    );
    assert!(said("10.1.0.255").to_string().contains("broadcast address"));
    assert_eq!(
        said("10.1.0.9"),
        ClaimError::NotOurs { address: ip("10.1.0.9"), block: "10.1.0.8/30".parse().unwrap() }
    );
    space.claim(ip("10.1.0.2")).unwrap();
    assert_eq!(space.claim(ip("10.1.0.2")), Err(ClaimError::InUse { address: ip("10.1.0.2") }));
    assert!(space.is_taken(ip("10.1.0.2")));
}

#[test]
fn half_full_asks_for_more_and_full_is_an_error() {
    let mut space = space("10.1.0.0/24", &[]);
    assert!(space.wants_block());
    assert_eq!(space.allocate(), Err(Exhausted { range: space.range() }));
    space.add_block("10.1.0.4/30".parse().unwrap()).unwrap();
    assert!(!space.wants_block());
    space.allocate().unwrap();
    assert!(!space.wants_block());
    space.allocate().unwrap();
    assert!(space.wants_block());
    space.allocate().unwrap();
    space.allocate().unwrap();
    assert!(space.allocate().unwrap_err().to_string().contains("10.1.0.0/24"));
    space.add_block("10.1.0.0/30".parse().unwrap()).unwrap();
    assert_eq!(space.allocate(), Ok(ip("10.1.0.2")));
}

#[test]
fn a_lost_block_takes_its_addresses_along() {
    let mut space = space("10.1.0.0/24", &["10.1.0.4/30"]);
    space.claim(ip("10.1.0.6")).unwrap();
    assert!(space.remove_block("10.1.0.8/30".parse().unwrap()).is_empty());
    assert_eq!(space.remove_block("10.1.0.4/30".parse().unwrap()), [ip("10.1.0.6")]);
    assert_eq!((space.used(), space.capacity()), (0, 0));
    assert!(space.allocate().is_err());
}

#[test]
fn only_blocks_of_the_range_are_taken() {
    let mut space = space("10.1.0.0/24", &[]);
    for block in ["10.1.0.0/26", "10.1.0.4/31", "10.2.0.0/30", "fd00::/126"] {
        assert!(space.add_block(block.parse().unwrap()).is_err(), "{block}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Block,
    LoseBlock(prop::sample::Index),
    Allocate,
    Claim(u32),
    Lend(u32),
    Keep(u32),
    Lease(u32),
    Release(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Block),
        1 => any::<prop::sample::Index>().prop_map(Step::LoseBlock),
        8 => Just(Step::Allocate),
        3 => (0u32..1100).prop_map(Step::Claim),
        1 => (0u32..300).prop_map(Step::Lend),
        1 => (0u32..300).prop_map(Step::Keep),
        1 => (0u32..1100).prop_map(Step::Lease),
        4 => any::<prop::sample::Index>().prop_map(Step::Release),
    ]
}

proptest! {
    /// Never twice, never outside, never reserved or lent, always the lowest that is not kept; what is released is free again.
    #[test]
    fn space_is_a_set_of_addresses(
        range in prop::sample::select(vec!["10.1.0.0/22", "10.1.0.0/24", "10.1.0.0/28", "10.1.0.0/16", "fd00::/64"]),
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let range: IpNet = range.parse().unwrap();
        let gateway = gateway(range);
        let mut space = Space::new(range, gateway);
        let mut blocks: BTreeSet<IpNet> = BTreeSet::new();
        let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
        let (mut lent, mut kept) = (BTreeSet::new(), BTreeSet::new());
        let mut leased: BTreeSet<IpAddr> = BTreeSet::new();
        for step in steps {
            let good = |a: IpAddr| a != gateway && !is_reserved(range, a);
            let nth = |offset: u32| address(range, first(range) + u128::from(offset));
            let lowest = blocks
                .iter()
                .flat_map(|b| (0..1u128 << host_bits(*b)).map(|o| address(range, first(*b) + o)))
                .find(|a| good(*a) && ![&taken, &lent, &kept].iter().any(|set| set.contains(a)));
            match step {
                Step::Block => {
                    let leases = |block: &IpNet| leased.iter().any(|a| block.contains(a));
                    if let Some(block) = lowest_free(range, blocks.iter().copied()).filter(|block| !leases(block)) {
                        space.add_block(block).unwrap();
                        blocks.insert(block);
                    }
                }
                Step::LoseBlock(which) => {
                    if !blocks.is_empty() {
                        let block = *which.get(&blocks.iter().copied().collect::<Vec<_>>());
                        blocks.remove(&block);
                        let mut lost: BTreeSet<IpAddr> = taken.iter().copied().filter(|a| block.contains(a)).collect();
                        lost.retain(|a| !leased.contains(a));
                        for set in [&mut taken, &mut lent, &mut kept] {
                            set.retain(|a| !block.contains(a) || leased.contains(a));
                        }
                        prop_assert_eq!(space.remove_block(block).into_iter().collect::<BTreeSet<_>>(), lost);
                    }
                }
                Step::Allocate => {
                    prop_assert_eq!(space.allocate().ok(), lowest);
                    taken.extend(lowest);
                }
                Step::Claim(offset) => {
                    let wanted = address(range, first(range) + u128::from(offset));
                    let may = range.contains(&wanted)
                        && good(wanted)
                        && (leased.contains(&wanted)
                            || blocks.iter().any(|b| b.contains(&wanted)) && !lent.contains(&wanted))
                        && !taken.contains(&wanted);
                    prop_assert_eq!(space.claim(wanted).is_ok(), may);
                    if may {
                        taken.insert(wanted);
                    }
                }
                Step::Lend(offset) | Step::Keep(offset) => {
                    let marked = nth(offset);
                    let lends = matches!(step, Step::Lend(_));
                    if lends { space.lend(marked) } else { space.keep(marked) }
                    if good(marked) && blocks.iter().any(|b| b.contains(&marked)) && !leased.contains(&marked) {
                        if lends { lent.insert(marked) } else { kept.insert(marked) };
                    }
                }
                // Who decides never leases an address to the holder of its block.
                Step::Lease(offset) => {
                    let ours = nth(offset);
                    if range.contains(&ours) && good(ours) && !blocks.iter().any(|b| b.contains(&ours)) {
                        space.add_lease(ours);
                        leased.insert(ours);
                    }
                }
                Step::Release(which) => {
                    if !taken.is_empty() {
                        let given = *which.get(&taken.iter().copied().collect::<Vec<_>>());
                        taken.remove(&given);
                        prop_assert!(space.release(given));
                        prop_assert!(!space.release(given));
                    }
                }
            }
            let in_blocks = |a: &&IpAddr| !leased.contains(*a);
            let busy: BTreeSet<_> = [&taken, &lent, &kept].into_iter().flatten().filter(in_blocks).collect();
            prop_assert_eq!(space.used(), busy.len());
            prop_assert_eq!(space.taken().collect::<BTreeSet<_>>(), taken.clone());
            prop_assert!(taken.iter().all(|a| space.is_taken(*a)));
            let idle = |block: &IpNet| !busy.iter().any(|a| block.contains(*a));
            prop_assert!(space.spare_blocks(true).into_iter().rev().eq(blocks.iter().copied().filter(idle)));
            let mut left = space.clone();
            for spare in space.spare_blocks(false) {
                prop_assert!(idle(&spare));
                left.remove_block(spare);
            }
            prop_assert!(space.spare_blocks(false).is_empty() || !left.wants_block());
            prop_assert!(space.blocks().eq(blocks.iter().copied()));
        }
    }
}
