//! Blocks: the lowest free one to the member that asks, and the same answer to one that asks again.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::HostId;
use weft_api::network::Network;
use weft_api::request::WantBlock;
use weft_ipam::block::{block_of, lowest_free};

use crate::event::Event;
use crate::refusal::Refusal;
use crate::state::State;

/// One host holds at most this many blocks of a range (16,384 addresses in blocks of 64); a further one is refused.
pub const MAX_BLOCKS_PER_HOST: usize = 256;

impl State {
    /// The lowest free block, or the one that a wanted address lies in. A host that does not name every block it holds has not heard our last answer: it gets that again, and no new block.
    pub(crate) fn grant_block(&self, host: HostId, want: &WantBlock) -> Result<Vec<Event>, Refusal> {
        let name = &self.member(host).ok_or(Refusal::NotAMember)?.name;
        let network = self.network(want.network).ok_or(Refusal::UnknownNetworkId(want.network))?;
        if !network.subnets.iter().any(|subnet| subnet.range == want.range) {
            return Err(Refusal::NotItsRange { network: network.name.clone(), range: want.range });
        }
        let held: BTreeSet<IpNet> = self.blocks_of(network.id, want.range, host).collect();
        if let Some(block) = want.have.iter().find(|block| !held.contains(block)) {
            return Err(Refusal::NotItsBlock { host: name.clone(), block: *block });
        }
        let wanted = match want.address {
            Some(address) => Some(block_of(want.range, address).ok_or_else(|| Refusal::NotItsRange {
                network: network.name.clone(),
                range: address.into(),
            })?),
            None => None,
        };
        let heard = match wanted {
            Some(block) => held.contains(&block),
            None => held.iter().any(|block| !want.have.contains(block)),
        };
        if heard {
            return Ok(Vec::new());
        }
        if held.len() >= MAX_BLOCKS_PER_HOST {
            return Err(Refusal::TooManyBlocks { host: name.clone(), range: want.range });
        }
        let mut given = self.blocks(network.id).filter(|(block, _)| want.range.contains(block));
        let block = match wanted {
            Some(block) => match given.find(|(taken, _)| *taken == block) {
                Some((_, owner)) => {
                    return Err(Refusal::BlockTaken { block, host: self.name(owner).to_string() });
                }
                None => block,
            },
            None => lowest_free(want.range, given.map(|(block, _)| block))
                .ok_or_else(|| self.range_full(network, want.range))?,
        };
        let body = DecisionBody::Block { owner: host };
        Ok(self.decide_all([(DecisionKey::Block(network.id, block), Some(body))]))
    }

    fn range_full(&self, network: &Network, range: IpNet) -> Refusal {
        let mut held: BTreeMap<HostId, usize> = BTreeMap::new();
        for (_, owner) in self.blocks(network.id).filter(|(block, _)| range.contains(block)) {
            *held.entry(owner).or_default() += 1;
        }
        let holders: Vec<String> =
            held.into_iter().map(|(host, count)| format!("{}: {count}", self.name(host))).collect();
        Refusal::RangeFull { network: network.name.clone(), range, holders: holders.join(", ") }
    }
}
