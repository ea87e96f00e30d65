//! What facts and decisions say of one network: plain values, made anew whenever one of them changes.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::id::{HostId, Mac, NetworkId};

use super::group::{EVERY_GROUP, is_followed};

/// Where an endpoint or a block is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// On this host.
    Here,
    /// On another.
    Host(HostId),
}

/// A range that one host hands out addresses of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// The range.
    pub range: IpNet,
    /// Who holds it.
    pub owner: Owner,
}

/// Where a multicast group is listened to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// The other hosts.
    pub hosts: BTreeSet<HostId>,
    /// This one too.
    pub here: bool,
}

/// One network as this host knows it. Only endpoints whose address lies in their owner's block or lease belong in here:
/// who makes the table checks that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// The network.
    pub network: NetworkId,
    /// Its MTU, in bytes of an IP packet.
    pub mtu: u16,
    /// The other hosts that have the network: broadcast goes to them, and nobody else's frames are taken.
    pub hosts: BTreeSet<HostId>,
    /// The addresses of every host's bridge (anycast).
    pub gateways: Vec<IpAddr>,
    /// Every endpoint, here and elsewhere.
    pub endpoints: HashMap<Mac, Owner>,
    /// Whose address is whose, of the same endpoints.
    pub addresses: HashMap<IpAddr, Mac>,
    /// The other hosts whose bridge is tied to this one's outside weft: nothing is flooded to them or from them.
    pub tied: BTreeSet<HostId>,
    /// Where each multicast group is listened to, of those that somebody is known to listen to.
    pub groups: HashMap<IpAddr, Members>,
    /// The other hosts that take every group; they are in each of `groups` too.
    pub every_group: BTreeSet<HostId>,
    /// Single addresses that one host hands out, whoever holds the block that they lie in.
    pub leases: HashMap<IpAddr, Owner>,
    /// Sorted by first address, none inside another.
    blocks: Vec<Block>,
}

impl Table {
    /// A network without an endpoint. Blocks do not overlap; of two that do the wider is left out.
    #[must_use]
    pub fn new(network: NetworkId, mtu: u16, mut blocks: Vec<Block>) -> Self {
        blocks.sort_by_key(|b| (b.range.network(), b.range.prefix_len()));
        let mut apart: Vec<Block> = Vec::with_capacity(blocks.len());
        for block in blocks {
            while apart.last().is_some_and(|last| last.range.contains(&block.range)) {
                apart.pop();
            }
            apart.push(block);
        }
        Self {
            network,
            mtu,
            hosts: BTreeSet::new(),
            gateways: Vec::new(),
            endpoints: HashMap::new(),
            addresses: HashMap::new(),
            tied: BTreeSet::new(),
            groups: HashMap::new(),
            every_group: BTreeSet::new(),
            leases: HashMap::new(),
            blocks: apart,
        }
    }

    /// Adds an endpoint and its addresses.
    pub fn add_endpoint(&mut self, mac: Mac, addresses: &[IpAddr], owner: Owner) {
        self.endpoints.insert(mac, owner);
        self.addresses.extend(addresses.iter().map(|ip| (*ip, mac)));
    }

    /// Adds the groups that somebody listens to at `owner`, of which [`EVERY_GROUP`] is one; what is not followed, or of a host
    /// that does not have the network, is left out. Call it for all owners, then [`Self::end_groups`].
    pub fn add_groups(&mut self, owner: Owner, groups: impl IntoIterator<Item = IpAddr>) {
        for group in groups.into_iter().filter(|group| *group == EVERY_GROUP || is_followed(*group)) {
            match owner {
                Owner::Here if group != EVERY_GROUP => self.groups.entry(group).or_default().here = true,
                Owner::Host(host) if self.hosts.contains(&host) => {
                    if group == EVERY_GROUP {
                        self.every_group.insert(host);
                    } else {
                        self.groups.entry(group).or_default().hosts.insert(host);
                    }
                }
                _ => {}
            }
        }
    }

    /// Hosts that take every group take those that are known.
    pub fn end_groups(&mut self) {
        self.groups.values_mut().for_each(|members| members.hosts.extend(&self.every_group));
    }

    /// Whether the same hosts hand out the same addresses.
    #[must_use]
    pub fn is_divided_like(&self, other: &Self) -> bool {
        self.blocks == other.blocks && self.leases == other.leases
    }

    /// Who hands out `ip`, if anybody does: a lease outranks the block.
    #[must_use]
    pub fn owner_of(&self, ip: IpAddr) -> Option<Owner> {
        if let Some(lessee) = self.leases.get(&ip) {
            return Some(*lessee);
        }
        let after = self.blocks.partition_point(|b| b.range.network() <= ip);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        block.range.contains(&ip).then_some(block.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found() {
        let block =
            |range: &str, n: u8| Block { range: range.parse().unwrap(), owner: Owner::Host(HostId([n; 8])) };
        let blocks = vec![
            block("10.32.1.0/26", 2),
            block("fd00::/64", 3),
            block("10.32.0.0/26", 1),
            block("10.32.0.0/16", 9),
            block("10.40.0.0/32", 4),
        ];
        let mut table = Table::new(NetworkId(1), 1340, blocks);
        table.leases.insert("10.32.0.7".parse().unwrap(), Owner::Here);
        let owner = |ip: &str| table.owner_of(ip.parse().unwrap());
        let host = |n: u8| Some(Owner::Host(HostId([n; 8])));
        assert_eq!(owner("10.32.0.63"), host(1));
        assert_eq!(owner("10.32.0.7"), Some(Owner::Here), "a lease outranks the block");
        assert_eq!(owner("10.32.0.64"), None, "the wider of two overlapping is left out");
        assert_eq!(owner("10.32.1.1"), host(2));
        assert_eq!(owner("10.40.0.0"), host(4));
        assert_eq!(owner("10.40.0.1"), None);
        assert_eq!(owner("fd00::1"), host(3));
        assert_eq!(owner("9.0.0.1"), None);
    }
}
