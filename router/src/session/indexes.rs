//! Session indexes: nobody else can tell the next one, and none comes twice, so what is late for one key never meets another.

use aws_lc_rs::digest::{SHA256, digest};

/// Rounds of the permutation; four make it look random to who sees its values only (Luby and Rackoff).
const ROUNDS: u8 = 4;

/// Draws every number but zero once, in an order that the seed decides.
#[derive(Debug)]
pub(super) struct Indexes {
    seed: [u8; 32],
    drawn: u32,
}

impl Indexes {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    pub(super) fn draw(&mut self) -> u32 {
        loop {
            self.drawn = self.drawn.wrapping_add(1);
            let index = self.permute(self.drawn);
            if index != 0 {
                return index;
            }
        }
    }

    /// A Feistel network over the count.
    fn permute(&self, count: u32) -> u32 {
        let [a, b, c, d] = count.to_be_bytes();
        let (mut left, mut right) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for round in 0..ROUNDS {
            let hash = digest(&SHA256, &[&self.seed[..], &[round], &right.to_be_bytes()].concat());
            let hash = hash.as_ref();
            (left, right) = (right, left ^ u16::from_be_bytes([hash[0], hash[1]]));
        }
        u32::from(left) << 16 | u32::from(right)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn none_comes_twice_and_seeds_differ() {
        let mut indexes = Indexes::new([1; 32]);
        let drawn: BTreeSet<u32> = (0..50_000).map(|_| indexes.draw()).collect();
        assert_eq!(drawn.len(), 50_000);
        assert!(!drawn.contains(&0));
        let mut other = Indexes::new([2; 32]);
        let shared = (0..50_000).filter(|_| drawn.contains(&other.draw())).count();
        assert!(shared < 20, "{shared} in common");
    }
}
