//! Leases: one address of a host's block to another host, by the word of the block's holder; and what hosts give back.
//! Requests may come late, twice or in another order: each names the revision that it follows, and is nothing after a newer one.

use std::net::IpAddr;

use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{HostId, NetworkId};
use weft_api::network::Network;
use weft_api::request::{GiveUp, Lend};
use weft_ipam::block::block_of;
use weft_ipam::range::is_reserved;

use crate::event::Event;
use crate::refusal::Refusal;
use crate::state::State;

/// One host has at most this many leases; a further one is refused.
pub const MAX_LEASES_PER_HOST: usize = 1024;

impl State {
    /// Only the holder of the block can say that an address of it is free, so only it can lend it.
    pub(crate) fn lend(&self, host: HostId, loan: &Lend) -> Result<Vec<Event>, Refusal> {
        let name = &self.member(host).ok_or(Refusal::NotAMember)?.name;
        let (id, address) = (loan.network, loan.address);
        let network = self.network(id).ok_or(Refusal::UnknownNetworkId(id))?;
        let block = leasable(network, address)
            .and_then(|range| block_of(range, address))
            .ok_or_else(|| Refusal::NoLease { address, network: network.name.clone() })?;
        if !self.blocks(id).any(|(held, owner)| held == block && owner == host) {
            return Err(Refusal::NotItsBlock { host: name.clone(), block });
        }
        let key = DecisionKey::Lease(id, address);
        let last = self.decided(&key);
        let lessee = self.lessee(id, address);
        let late = last.is_some_and(|last| last.revision > loan.seen);
        match loan.to {
            Some(to) if lessee == Some(to) => Ok(Vec::new()),
            // What was decided since stands; the holder hears of it.
            None if late || lessee.is_some() => Ok(Vec::new()),
            Some(to) => {
                if let Some(lessee) = lessee {
                    return Err(Refusal::Leased { address, host: self.name(lessee) });
                }
                if late {
                    return Err(Refusal::Late(address));
                }
                let lessee = self.member(to).filter(|_| to != host).ok_or(Refusal::NotAMember)?;
                if self.leases_of(to) >= MAX_LEASES_PER_HOST {
                    return Err(Refusal::TooManyLeases { host: lessee.name.clone() });
                }
                Ok(self.decide_all([(key, Some(DecisionBody::Lease { owner: to }))]))
            }
            None => Ok(self.decide_all([(key, None)])),
        }
    }

    /// A block in which an address is leased stays, since nobody else could take that address back.
    pub(crate) fn give_up(&self, host: HostId, what: GiveUp) -> Result<Vec<Event>, Refusal> {
        self.member(host).ok_or(Refusal::NotAMember)?;
        let decided = self.decided(&what.key).filter(|decided| decided.revision == what.revision);
        let owner = match decided.and_then(|decided| decided.body.as_ref()) {
            None => return Ok(Vec::new()),
            Some(DecisionBody::Block { owner } | DecisionBody::Lease { owner }) => *owner,
            Some(DecisionBody::Network(_) | DecisionBody::Controller { .. }) => {
                return Err(Refusal::NotGivenBack);
            }
        };
        if owner != host {
            return Ok(Vec::new());
        }
        if let DecisionKey::Block(network, block) = what.key
            && let Some((address, lessee)) = self.leases(network).find(|(address, _)| block.contains(address))
        {
            return Err(Refusal::BlockLent { block, address, host: self.name(lessee) });
        }
        Ok(self.decide_all([(what.key, None)]))
    }

    fn lessee(&self, network: NetworkId, address: IpAddr) -> Option<HostId> {
        match self.decided(&DecisionKey::Lease(network, address))?.body {
            Some(DecisionBody::Lease { owner }) => Some(owner),
            _ => None,
        }
    }

    fn leases_of(&self, host: HostId) -> usize {
        let all = self.networks().flat_map(|network| self.leases(network.id));
        all.filter(|(_, owner)| *owner == host).count()
    }
}

/// The range of a network in which the address may be a container's.
fn leasable(network: &Network, address: IpAddr) -> Option<ipnet::IpNet> {
    let subnet = network.subnets.iter().find(|subnet| subnet.range.contains(&address))?;
    (address != subnet.gateway && !is_reserved(subnet.range, address)).then_some(subnet.range)
}

#[cfg(test)]
mod tests {
    use weft_api::id::{HostKey, MeshId};
    use weft_api::request::{CreateNetwork, WantBlock};
    use weft_api::roster::{Cipher, MeshRecord, Roles, RosterRecord, Standing};

    use super::*;
    use crate::{Command, World};

    fn host(n: u8) -> HostId {
        HostKey([n; 32]).id()
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 40, 0, last])
    }

    struct Desk(State, NetworkId);

    impl Desk {
        /// Hosts 1 to 3; host 1 holds 10.40.0.0/30, host 2 the next one.
        fn new() -> Self {
            let mut state = State::default();
            let mesh =
                MeshRecord { mesh: MeshId([7; 32]), name: "quiet-fox".into(), cipher: Cipher::Aegis128L };
            state.apply(&Event::Founded(mesh));
            for n in 1..=3 {
                state.apply(&Event::Enrolled(RosterRecord {
                    mesh: MeshId([7; 32]),
                    key: HostKey([n; 32]),
                    name: format!("h{n}"),
                    roles: Roles::default(),
                    serial: 1,
                    standing: Standing::Member,
                    under: weft_api::roster::Under::default(),
                }));
            }
            let mut desk = Self(state, NetworkId(0));
            let subnets = vec!["10.40.0.0/27".parse().unwrap()];
            let wish = CreateNetwork { name: "app".into(), subnets, ..CreateNetwork::default() };
            desk.run(Command::CreateNetwork(wish)).unwrap();
            desk.1 = desk.0.networks().next().unwrap().id;
            assert_eq!((desk.block(1), desk.block(2)), (Ok(1), Ok(1)));
            desk
        }

        fn run(&mut self, command: Command) -> Result<usize, Refusal> {
            let events = self.0.decide(&World::default(), command)?;
            events.iter().for_each(|event| self.0.apply(event));
            Ok(events.len())
        }

        fn block(&mut self, n: u8) -> Result<usize, Refusal> {
            let range = "10.40.0.0/27".parse().unwrap();
            let have = self.0.blocks_of(self.1, range, host(n)).collect();
            self.run(Command::GrantBlock {
                host: host(n),
                want: WantBlock { network: self.1, range, have, address: None },
            })
        }

        fn lend(&mut self, by: u8, last: u8, to: Option<u8>, seen: u64) -> Result<usize, Refusal> {
            let loan = Lend { network: self.1, address: ip(last), to: to.map(host), seen };
            self.run(Command::Lend { host: host(by), loan })
        }

        fn give_up(&mut self, by: u8, key: DecisionKey, revision: u64) -> Result<usize, Refusal> {
            self.run(Command::GiveUp { host: host(by), what: GiveUp { key, revision } })
        }

        fn revision(&self, key: &DecisionKey) -> u64 {
            self.0.decided(key).unwrap().revision
        }
    }

    #[test]
    fn only_the_holder_lends_and_what_is_late_is_nothing() {
        let mut desk = Desk::new();
        let lease = DecisionKey::Lease(desk.1, ip(6));
        assert!(matches!(desk.lend(1, 6, Some(3), 0), Err(Refusal::NotItsBlock { .. })));
        assert!(matches!(desk.lend(2, 200, Some(3), 0), Err(Refusal::NoLease { .. })));
        assert!(matches!(desk.lend(1, 1, Some(3), 0), Err(Refusal::NoLease { .. })), "the gateway");
        assert_eq!(desk.lend(2, 6, Some(2), 0), Err(Refusal::NotAMember), "to itself");
        assert_eq!(desk.lend(2, 6, Some(3), 0), Ok(1));
        assert_eq!(desk.lend(2, 6, Some(3), 0), Ok(0), "asked twice");
        assert!(matches!(desk.lend(2, 6, Some(1), 0), Err(Refusal::Leased { .. })));
        assert_eq!(desk.lend(2, 6, None, 99), Ok(0), "a lease is not taken back by its lender");
        let revision = desk.revision(&lease);
        assert_eq!(desk.give_up(1, lease.clone(), revision), Ok(0), "not its");
        assert_eq!(desk.give_up(3, lease.clone(), revision), Ok(1));
        assert_eq!(desk.lend(2, 6, Some(3), 0), Err(Refusal::Late(ip(6))), "the first request, again");
        assert_eq!(desk.lend(2, 6, Some(1), desk.revision(&lease)), Ok(1));
        assert_eq!(desk.give_up(3, lease, revision), Ok(0), "given up once");
    }

    #[test]
    fn a_loan_that_is_taken_back_cannot_be_decided_any_more() {
        let mut desk = Desk::new();
        assert_eq!(desk.lend(2, 6, None, 0), Ok(1));
        assert_eq!(desk.lend(2, 6, Some(3), 0), Err(Refusal::Late(ip(6))));
    }

    #[test]
    fn a_block_waits_for_its_leases() {
        let mut desk = Desk::new();
        let block = DecisionKey::Block(desk.1, "10.40.0.4/30".parse().unwrap());
        let revision = desk.revision(&block);
        desk.lend(2, 6, Some(3), 0).unwrap();
        assert!(matches!(desk.give_up(2, block.clone(), revision), Err(Refusal::BlockLent { .. })));
        // Its holder is gone, the lease is not.
        desk.run(Command::RemoveHost { name: "h2".into() }).unwrap();
        desk.block(1).unwrap();
        assert!(desk.0.blocks(desk.1).all(|(net, _)| !net.contains(&ip(6))), "nobody gets the block");
        let lease = DecisionKey::Lease(desk.1, ip(6));
        let leased = desk.revision(&lease);
        desk.give_up(3, lease, leased).unwrap();
        desk.block(1).unwrap();
        assert_eq!(
            desk.0.blocks(desk.1).find(|(net, _)| net.contains(&ip(6))).map(|(_, owner)| owner),
            Some(host(1))
        );
        assert_eq!(desk.give_up(2, block, revision), Err(Refusal::NotAMember));
    }

    #[test]
    fn leases_go_with_their_host_and_their_network() {
        let mut desk = Desk::new();
        desk.lend(2, 6, Some(3), 0).unwrap();
        desk.lend(2, 5, Some(1), 0).unwrap();
        desk.run(Command::RemoveHost { name: "h3".into() }).unwrap();
        assert_eq!(desk.0.leases(desk.1).collect::<Vec<_>>(), [(ip(5), host(1))]);
        desk.run(Command::RemoveNetwork { name: "app".into() }).unwrap();
        assert_eq!(desk.0.leases(desk.1).count(), 0);
    }
}
