//! Ranges that are held for a minute: Docker wants one for a network before it tells its name. Held in memory only: what is
//! named in time is decided, what is not is free again.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_api::decision::DecisionKey;
use weft_api::id::{HostId, NetworkId};
use weft_api::request::{HoldRange, RangeHeld};
use weft_ipam::{pool, range};

use crate::command::World;
use crate::network::MAX_NETWORKS;
use crate::refusal::Refusal;
use crate::state::State;

/// Seconds; `docker network create` takes less than one.
pub const HOLD_SECS: u64 = 60;

/// So many ranges are held at once; a further one is refused.
pub const MAX_HOLDS: usize = 64;

/// A range that nobody else gets for now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// The range.
    pub range: IpNet,
    /// The host that asked first. Two hosts may ask for one range at once: whoever names it first has it.
    pub host: HostId,
    /// Unix seconds.
    pub until: u64,
}

impl World {
    /// The holds whose time is not up.
    pub fn held(&self) -> impl Iterator<Item = (NetworkId, &Hold)> {
        self.holds.iter().filter(|(_, hold)| hold.until > self.now).map(|(id, hold)| (*id, hold))
    }

    /// Lets go of what has become a network: its id is used up, and its range is the network's.
    pub fn drop_named(&mut self, state: &State) {
        let named = |hold: &Hold| state.networks().any(|n| n.subnets.iter().any(|s| s.range == hold.range));
        self.holds.retain(|id, hold| state.decided(&DecisionKey::Network(*id)).is_none() && !named(hold));
    }
}

impl State {
    /// The range that a host gets for a network without a name. A range that is a network's, or is held, is answered again: it
    /// may be the same network, made on two hosts. The caller puts the hold into the world.
    pub fn hold(&self, world: &World, host: HostId, wish: &HoldRange) -> Result<RangeHeld, Refusal> {
        let mesh = self.mesh().ok_or(Refusal::NoMesh)?.mesh;
        let held = |network, subnet: IpNet, gateway| RangeHeld { network, range: subnet, gateway };
        if let Some(wanted) = wish.range {
            range::check(wanted)?;
            let mut subnets = self.networks().flat_map(|n| n.subnets.iter().map(move |s| (n.id, s)));
            if let Some((id, subnet)) = subnets.find(|(_, subnet)| subnet.range == wanted) {
                return Ok(held(id, wanted, subnet.gateway));
            }
            if let Some((id, _)) = world.held().find(|(_, hold)| hold.range == wanted) {
                return Ok(held(id, wanted, range::gateway(wanted)));
            }
            self.check_free(world, wanted)?;
        }
        if self.networks().count() >= MAX_NETWORKS {
            return Err(Refusal::TooManyNetworks);
        }
        let of_this_host = world.held().filter(|(_, hold)| hold.host == host).count();
        if of_this_host >= MAX_HOLDS / 4 || world.held().count() >= MAX_HOLDS {
            return Err(Refusal::TooManyHolds);
        }
        let free = match wish.range {
            Some(wanted) => wanted,
            None => {
                let taken = self.in_the_way(world);
                let free = if wish.v6 { pool::free_v6(&mesh.0, &taken) } else { pool::free_v4(&taken) };
                let family = if wish.v6 { "IPv6" } else { "IPv4" };
                free.ok_or(Refusal::PoolEmpty { family })?
            }
        };
        Ok(held(self.free_id(world, mesh, &free.to_string()), free, range::gateway(free)))
    }
}

/// The gateway of a range: the wanted one that lies in it, or the first address.
pub(crate) fn gateway(subnet: IpNet, wanted: &[IpAddr]) -> Result<IpAddr, Refusal> {
    let Some(&gateway) = wanted.iter().find(|address| subnet.contains(*address)) else {
        return Ok(range::gateway(subnet));
    };
    let is_v4 = matches!(subnet, IpNet::V4(_));
    if gateway == subnet.network() || (is_v4 && gateway == subnet.broadcast()) {
        return Err(Refusal::NoGateway { gateway, range: subnet });
    }
    Ok(gateway)
}

#[cfg(test)]
mod tests {
    use weft_api::id::MeshId;
    use weft_api::network::Origin;
    use weft_api::request::CreateNetwork;
    use weft_api::roster::{Cipher, MeshRecord};

    use super::*;
    use crate::{Command, Event};

    const H1: HostId = HostId([1; 8]);
    const H2: HostId = HostId([2; 8]);

    struct Desk(State, World);

    impl Desk {
        fn new() -> Self {
            let mut state = State::default();
            let mesh =
                MeshRecord { mesh: MeshId([7; 32]), name: "quiet-fox".into(), cipher: Cipher::Aegis128L };
            state.apply(&Event::Founded(mesh));
            Self(state, World { now: 1000, ..World::default() })
        }

        fn hold(&mut self, host: HostId, range: Option<&str>) -> Result<RangeHeld, Refusal> {
            let wish = HoldRange { range: range.map(|r| r.parse().unwrap()), v6: false };
            let held = self.0.hold(&self.1, host, &wish)?;
            let hold = Hold { range: held.range, host, until: self.1.now + HOLD_SECS };
            self.1.holds.entry(held.network).or_insert(hold);
            Ok(held)
        }

        fn run(&mut self, command: Command) -> Result<usize, Refusal> {
            let events = self.0.decide(&self.1, command)?;
            events.iter().for_each(|event| self.0.apply(event));
            self.1.drop_named(&self.0);
            Ok(events.len())
        }

        fn name(&mut self, name: &str, held: &RangeHeld, gateway: &str) -> Result<usize, Refusal> {
            self.run(Command::CreateNetwork(CreateNetwork {
                name: name.into(),
                subnets: vec![held.range],
                gateways: vec![gateway.parse().unwrap()],
                held: Some(held.network),
                ..CreateNetwork::default()
            }))
        }
    }

    #[test]
    fn a_range_is_held_named_once_and_free_again() {
        let mut desk = Desk::new();
        let first = desk.hold(H1, None).unwrap();
        let second = desk.hold(H2, None).unwrap();
        assert!(!range::overlap(first.range, second.range) && first.network != second.network);
        assert_eq!(desk.name("app", &first, "10.32.0.9"), Ok(1));
        assert_eq!(desk.name("app", &first, "10.32.0.9"), Ok(0), "asked twice, made once");
        assert!(desk.name("other", &first, "10.32.0.9").is_err(), "one id, one name");
        assert!(matches!(desk.name("App", &second, "10.33.0.1"), Err(Refusal::NetworkNameTaken(_))));
        let made = desk.0.network(first.network).unwrap();
        assert_eq!(
            (made.origin, made.subnets[0].gateway.to_string()),
            (Origin::Docker { mtu: None }, "10.32.0.9".into())
        );
        desk.run(Command::RemoveNetwork { name: first.network.to_string() }).unwrap();
        assert_eq!(desk.name("app", &first, "10.32.0.9"), Err(Refusal::HeldNoMore));
        desk.1.now += HOLD_SECS;
        assert_eq!(desk.hold(H1, None).unwrap().range, first.range);
    }

    #[test]
    fn one_range_on_two_hosts_is_one_network() {
        let mut desk = Desk::new();
        let one = desk.hold(H1, Some("10.50.0.0/24")).unwrap();
        assert_eq!(desk.hold(H2, Some("10.50.0.0/24")).unwrap(), one);
        assert!(matches!(desk.hold(H2, Some("10.50.0.128/25")), Err(Refusal::OverlapsNetwork { .. })));
        assert!(matches!(desk.name("app", &one, "10.50.0.0"), Err(Refusal::NoGateway { .. })));
        assert_eq!(desk.name("app", &one, "10.50.0.1"), Ok(1));
        assert_eq!(desk.hold(H2, Some("10.50.0.0/24")).unwrap().network, one.network);
        desk.run(Command::RemoveNetwork { name: "app".into() }).unwrap();
        let again = desk.hold(H1, Some("10.50.0.0/24")).unwrap();
        assert_ne!(again.network, one.network, "an id is used once");
    }

    #[test]
    fn nobody_holds_everything() {
        let mut desk = Desk::new();
        let held = (0..MAX_HOLDS).take_while(|_| desk.hold(H1, None).is_ok()).count();
        assert_eq!(held, MAX_HOLDS / 4);
        assert!(matches!(desk.hold(H1, None), Err(Refusal::TooManyHolds)));
        assert!(desk.hold(H2, None).is_ok());
    }
}
