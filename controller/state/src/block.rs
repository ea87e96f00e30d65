//! Blocks: the lowest free one to the member that asks, and the same answer to one that asks again.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{HostId, NetworkId};
use weft_api::network::Network;
use weft_api::request::WantBlock;
use weft_ipam::block::{block_of, lowest_free};

use crate::event::Event;
use crate::refusal::Refusal;
use crate::state::State;

/// One host holds at most this many blocks of a range (16,384 addresses in blocks of 64); a further one is refused.
pub const MAX_BLOCKS_PER_HOST: usize = 256;

impl State {
    /// A block in which an address is still leased, since its holder is gone, is not free. The lowest free block, or the one that a wanted address lies in. A host that does not name every block it holds has not heard our last answer: it gets that again, and no new block.
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
        let given = self.given(network.id, want.range);
        let block = match wanted {
            Some(block) => match given.get(&block) {
                Some(owner) => return Err(Refusal::BlockTaken { block, host: self.name(*owner) }),
                None => block,
            },
            None => lowest_free(want.range, given.into_keys())
                .ok_or_else(|| self.range_full(network, want.range))?,
        };
        let body = DecisionBody::Block { owner: host };
        Ok(self.decide_all([(DecisionKey::Block(network.id, block), Some(body))]))
    }

    /// The blocks that cannot be given, and who holds them or a lease in them.
    fn given(&self, network: NetworkId, range: IpNet) -> BTreeMap<IpNet, HostId> {
        let leases = self.leases(network);
        let mut given: BTreeMap<IpNet, HostId> =
            leases.filter_map(|(address, owner)| Some((block_of(range, address)?, owner))).collect();
        given.extend(self.blocks(network).filter(|(block, _)| range.contains(block)));
        given
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
