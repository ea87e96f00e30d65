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
    Release(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Block),
        1 => any::<prop::sample::Index>().prop_map(Step::LoseBlock),
        8 => Just(Step::Allocate),
        3 => (0u32..1100).prop_map(Step::Claim),
        4 => any::<prop::sample::Index>().prop_map(Step::Release),
    ]
}

proptest! {
    /// Never twice, never outside, never reserved, always the lowest free; what is released is free again.
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
        for step in steps {
            let good = |a: IpAddr| a != gateway && !is_reserved(range, a);
            let lowest = blocks
                .iter()
                .flat_map(|b| (0..1u128 << host_bits(*b)).map(|o| address(range, first(*b) + o)))
                .find(|a| good(*a) && !taken.contains(a));
            match step {
                Step::Block => {
                    if let Some(block) = lowest_free(range, blocks.iter().copied()) {
                        space.add_block(block).unwrap();
                        blocks.insert(block);
                    }
                }
                Step::LoseBlock(which) => {
                    if !blocks.is_empty() {
                        let block = *which.get(&blocks.iter().copied().collect::<Vec<_>>());
                        blocks.remove(&block);
                        let lost: BTreeSet<IpAddr> = taken.iter().copied().filter(|a| block.contains(a)).collect();
                        taken.retain(|a| !block.contains(a));
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
                        && blocks.iter().any(|b| b.contains(&wanted))
                        && !taken.contains(&wanted);
                    prop_assert_eq!(space.claim(wanted).is_ok(), may);
                    if may {
                        taken.insert(wanted);
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
            prop_assert_eq!(space.used(), taken.len());
            prop_assert!(space.taken().eq(taken.iter().copied()));
            prop_assert!(space.blocks().eq(blocks.iter().copied()));
        }
    }
}
