//! The addresses of one host in one range: the lowest free address of its blocks, given out without asking anybody.
//! What is given is kept by whoever uses this; after a restart it is claimed again, address by address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::block::{block_of, is_block_of};
use crate::range::{address, bits, first, host_bits, is_reserved};

/// A host's blocks of one range, and which of their addresses are in use.
#[derive(Clone, Debug)]
pub struct Space {
    range: IpNet,
    gateway: IpAddr,
    /// By first address.
    blocks: BTreeMap<u128, Block>,
    /// First addresses of the blocks that have a free address, so that full ones cost nothing.
    open: BTreeSet<u128>,
    /// Single addresses outside of these blocks, and whether they are in use.
    leases: BTreeMap<u128, bool>,
}

/// No address is left in the blocks.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error(
    "this host has no free address left in {range}: stop a container, or wait until the controller can be asked for another block"
)]
pub struct Exhausted {
    /// The range.
    pub range: IpNet,
}

/// An address cannot be given to who wants it.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ClaimError {
    /// Not of this network.
    #[error("{address} lies outside {range}: choose an address of that range")]
    Outside {
        /// The address.
        address: IpAddr,
        /// The range.
        range: IpNet,
    },
    /// The network's own, the gateway's or the broadcast address.
    #[error("{address} is the {what} of {range}: choose another address")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The range.
        range: IpNet,
        /// What it is: `network address`, `gateway` or `broadcast address`.
        what: &'static str,
    },
    /// Given already; who has it, its keeper knows.
    #[error("{address} is in use already: choose another address")]
    InUse {
        /// The address.
        address: IpAddr,
    },
    /// In a block of this host, and lent to another.
    #[error("{address} is lent to another host: choose another address")]
    Lent {
        /// The address.
        address: IpAddr,
    },
    /// In a block that this host does not hold; the decisions say whose it is.
    #[error(
        "{address} lies in {block}, which is not this host's: choose an address of this host's blocks, or run the container on the host that holds that one"
    )]
    NotOurs {
        /// The address.
        address: IpAddr,
        /// The block that it lies in.
        block: IpNet,
    },
}

/// A block does not belong to the range.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("{block} is not one of the blocks of {range}: this decision comes from another version of weft")]
pub struct NotABlock {
    /// The block.
    pub block: IpNet,
    /// The range.
    pub range: IpNet,
}

impl Space {
    /// A space without blocks yet; nothing can be given before [`Space::add_block`].
    #[must_use]
    pub fn new(range: IpNet, gateway: IpAddr) -> Self {
        Self { range, gateway, blocks: BTreeMap::new(), open: BTreeSet::new(), leases: BTreeMap::new() }
    }

    /// The range.
    #[must_use]
    pub fn range(&self) -> IpNet {
        self.range
    }

    /// This host holds the block now. Adding it again changes nothing.
    pub fn add_block(&mut self, block: IpNet) -> Result<(), NotABlock> {
        if !is_block_of(self.range, block) {
            return Err(NotABlock { block, range: self.range });
        }
        let base = first(block);
        let new = Block::new(block, self.range, self.gateway);
        let entry = self.blocks.entry(base).or_insert(new);
        if entry.free() != 0 {
            self.open.insert(base);
        }
        Ok(())
    }

    /// This address is lent to another host: it is nobody's here. Outside of the blocks nothing happens.
    pub fn lend(&mut self, lent: IpAddr) {
        self.mark(lent, |block, bit| block.lent |= bit);
    }

    /// This address is kept for who asks for it by name, such as a stopped container. Outside of the blocks nothing happens.
    pub fn keep(&mut self, kept: IpAddr) {
        self.mark(kept, |block, bit| block.kept |= bit);
    }

    /// This address is leased to this host: it is given to who asks for it by name.
    pub fn add_lease(&mut self, leased: IpAddr) {
        if self.locate(leased).is_ok() {
            self.leases.entry(bits(leased)).or_insert(false);
        }
    }

    fn mark(&mut self, at: IpAddr, mark: impl FnOnce(&mut Block, u64)) {
        let Ok((base, bit)) = self.locate(at) else { return };
        let Some(block) = self.blocks.get_mut(&base) else { return };
        mark(block, bit);
        if block.free() == 0 {
            self.open.remove(&base);
        }
    }

    /// This host no longer holds the block; what was in use there, and is now forgotten.
    pub fn remove_block(&mut self, block: IpNet) -> Vec<IpAddr> {
        let base = first(block);
        if self.blocks.get(&base).is_none_or(|held| held.net != block) {
            return Vec::new();
        }
        self.open.remove(&base);
        self.blocks.remove(&base).map_or_else(Vec::new, |held| held.taken_addresses(self.range).collect())
    }

    /// The blocks held, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> {
        self.blocks.values().map(|block| block.net)
    }

    /// The addresses in use, those of the blocks first.
    pub fn taken(&self) -> impl Iterator<Item = IpAddr> {
        let leased = self.leases.iter().filter(|(_, taken)| **taken);
        let leased = leased.map(|(at, _)| address(self.range, *at));
        self.blocks.values().flat_map(|block| block.taken_addresses(self.range)).chain(leased)
    }

    /// The blocks in which nothing is in use, kept or lent, descending. `all`: every one; otherwise those without which at most a
    /// quarter of the addresses would be used, so that none is wanted again soon.
    #[must_use]
    pub fn spare_blocks(&self, all: bool) -> Vec<IpNet> {
        let used = self.used();
        let mut capacity = self.capacity();
        let idle = self.blocks.values().rev().filter(|block| block.busy() == 0);
        idle.filter(|block| {
            let left = capacity - block.usable.count_ones() as usize;
            let spare = all || left > 0 && used * 4 <= left;
            capacity = if spare { left } else { capacity };
            spare
        })
        .map(|block| block.net)
        .collect()
    }

    /// Gives the lowest free address.
    pub fn allocate(&mut self) -> Result<IpAddr, Exhausted> {
        let exhausted = Exhausted { range: self.range };
        let base = *self.open.first().ok_or(exhausted)?;
        let block = self.blocks.get_mut(&base).ok_or(exhausted)?;
        let offset = block.free().trailing_zeros();
        block.taken |= 1 << offset;
        if block.free() == 0 {
            self.open.remove(&base);
        }
        Ok(address(self.range, base + u128::from(offset)))
    }

    /// Gives exactly this address, if it is free and leased to this host, or not lent and in a block of it.
    pub fn claim(&mut self, wanted: IpAddr) -> Result<(), ClaimError> {
        let (base, bit) = self.locate(wanted)?;
        if let Some(taken) = self.leases.get_mut(&bits(wanted)) {
            let was = std::mem::replace(taken, true);
            return if was { Err(ClaimError::InUse { address: wanted }) } else { Ok(()) };
        }
        let Some(block) = self.blocks.get_mut(&base) else { return Err(self.not_ours(wanted)) };
        if block.lent & bit != 0 {
            return Err(ClaimError::Lent { address: wanted });
        }
        if block.taken & bit != 0 {
            return Err(ClaimError::InUse { address: wanted });
        }
        block.taken |= bit;
        if block.free() == 0 {
            self.open.remove(&base);
        }
        Ok(())
    }

    /// Takes an address back; `false` if it was not in use.
    pub fn release(&mut self, given: IpAddr) -> bool {
        let Ok((base, bit)) = self.locate(given) else { return false };
        if let Some(taken) = self.leases.get_mut(&bits(given)) {
            return std::mem::replace(taken, false);
        }
        let Some(block) = self.blocks.get_mut(&base) else { return false };
        let was = block.taken & bit != 0;
        block.taken &= !bit;
        if block.free() != 0 {
            self.open.insert(base);
        }
        was
    }

    /// Whether the address is in use here.
    #[must_use]
    pub fn is_taken(&self, given: IpAddr) -> bool {
        let leased = || self.leases.get(&bits(given)).copied().unwrap_or(false);
        self.locate(given).is_ok_and(|(base, bit)| {
            self.blocks.get(&base).is_some_and(|block| block.taken & bit != 0) || leased()
        })
    }

    /// Addresses of the blocks that nobody is given without asking for them: in use, kept or lent.
    #[must_use]
    pub fn used(&self) -> usize {
        self.blocks.values().map(|block| block.busy().count_ones() as usize).sum()
    }

    /// Addresses that the blocks have for containers, in use or free.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.blocks.values().map(|block| block.usable.count_ones() as usize).sum()
    }

    /// Half of the addresses are used, or there are none: time to ask for another block.
    #[must_use]
    pub fn wants_block(&self) -> bool {
        self.used() * 2 >= self.capacity()
    }

    /// The block's first address and the bit of an address that a container could have.
    fn locate(&self, wanted: IpAddr) -> Result<(u128, u64), ClaimError> {
        let range = self.range;
        let Some(block) = block_of(range, wanted) else {
            return Err(ClaimError::Outside { address: wanted, range });
        };
        let what = if wanted == self.gateway {
            "gateway"
        } else if is_reserved(range, wanted) {
            if wanted == range.network() { "network address" } else { "broadcast address" }
        } else {
            let base = first(block);
            return Ok((base, 1 << (bits(wanted) - base)));
        };
        Err(ClaimError::Reserved { address: wanted, range, what })
    }

    fn not_ours(&self, wanted: IpAddr) -> ClaimError {
        match block_of(self.range, wanted) {
            Some(block) => ClaimError::NotOurs { address: wanted, block },
            None => ClaimError::Outside { address: wanted, range: self.range },
        }
    }
}

/// One block: at most 64 addresses, a bit each.
#[derive(Clone, Copy, Debug)]
struct Block {
    net: IpNet,
    taken: u64,
    /// Which addresses are given to who asks for them by name only.
    kept: u64,
    /// Which addresses are another host's.
    lent: u64,
    /// Which addresses a container may have.
    usable: u64,
}

impl Block {
    fn new(net: IpNet, range: IpNet, gateway: IpAddr) -> Self {
        let base = first(net);
        let usable = (0..1u32 << host_bits(net))
            .filter(|offset| {
                let at = address(range, base + u128::from(*offset));
                at != gateway && !is_reserved(range, at)
            })
            .fold(0, |mask, offset| mask | 1 << offset);
        Self { net, taken: 0, kept: 0, lent: 0, usable }
    }

    fn free(&self) -> u64 {
        self.usable & !self.busy()
    }

    fn busy(&self) -> u64 {
        self.taken | self.kept | self.lent
    }

    fn taken_addresses(self, range: IpNet) -> impl Iterator<Item = IpAddr> {
        let base = first(self.net);
        (0..64u32)
            .filter(move |offset| self.taken >> offset & 1 == 1)
            .map(move |o| address(range, base + u128::from(o)))
    }
}

#[cfg(test)]
mod tests;
