//! Networks: their names, ranges and MTU, made so that they collide with nothing, removed only when nobody uses them.

use aws_lc_rs::digest::{Context, SHA256};
use ipnet::IpNet;
use weft_api::decision::{DecisionBody, DecisionKey};
use weft_api::id::{MeshId, NetworkId};
use weft_api::network::{DEFAULT_MTU, MAX_MTU, MIN_MTU, Network, Origin, Subnet, check_network_name};
use weft_api::request::CreateNetwork;
use weft_ipam::{pool, range};

use crate::command::World;
use crate::event::Event;
use crate::hold;
use crate::refusal::Refusal;
use crate::state::State;

/// A mesh has at most this many networks; a further one is refused.
pub const MAX_NETWORKS: usize = 512;

/// Networks that every Docker Engine has or makes by itself.
const DOCKERS_NAMES: [&str; 6] = ["bridge", "host", "none", "default", "ingress", "docker_gwbridge"];

impl State {
    /// Without a range of IPv4 the network gets one of the default pool, also when it is given one of IPv6: Docker Engines
    /// before 27 give every container an IPv4 address.
    pub(crate) fn create_network(&self, world: &World, wish: CreateNetwork) -> Result<Vec<Event>, Refusal> {
        let mesh = self.mesh().ok_or(Refusal::NoMesh)?.mesh;
        check_network_name(&wish.name)?;
        if let Some(decided) = wish.held.and_then(|id| self.decided(&DecisionKey::Network(id))) {
            return match &decided.body {
                Some(DecisionBody::Network(made)) if made.name == wish.name => Ok(Vec::new()),
                Some(DecisionBody::Network(made)) => Err(Refusal::OverlapsNetwork {
                    range: made.subnets[0].range,
                    other: made.subnets[0].range,
                    network: made.name.clone(),
                }),
                _ => Err(Refusal::HeldNoMore),
            };
        }
        if DOCKERS_NAMES.contains(&wish.name.as_str()) {
            return Err(Refusal::DockersName(wish.name));
        }
        // DNS does not tell upper from lower case, so neither do the names of networks.
        if let Some(taken) = self.networks().find(|network| network.name.eq_ignore_ascii_case(&wish.name)) {
            return Err(Refusal::NetworkNameTaken(taken.name.clone()));
        }
        if self.networks().count() >= MAX_NETWORKS {
            return Err(Refusal::TooManyNetworks);
        }
        let network = Network {
            id: match wish.held {
                Some(held) if held.0 != 0 => held,
                _ => self.free_id(world, mesh, &wish.name),
            },
            subnets: self.subnets(world, mesh, &wish)?,
            mtu: check_mtu(wish.mtu.unwrap_or(DEFAULT_MTU))?,
            internal: wish.internal,
            origin: match wish.held {
                Some(_) => Origin::Docker { mtu: wish.mtu_option },
                None => Origin::Weft,
            },
            name: wish.name,
        };
        Ok(self.decide_all([(DecisionKey::Network(network.id), Some(DecisionBody::Network(network)))]))
    }

    /// Its blocks and leases go with it. A host that has not heard of it yet may still run containers there; they lose the network when it does.
    pub(crate) fn remove_network(&self, world: &World, name: &str) -> Result<Vec<Event>, Refusal> {
        let network = self
            .networks()
            .find(|network| network.name.eq_ignore_ascii_case(name))
            .or_else(|| self.network(name.parse().ok()?))
            .ok_or_else(|| Refusal::UnknownNetwork(name.chars().take(80).collect()))?;
        let on: Vec<(String, usize)> = self
            .members()
            .filter_map(|record| {
                let count = *world.hosts.get(&record.key.id())?.endpoints.get(&network.id)?;
                (count > 0).then(|| (record.name.clone(), count))
            })
            .collect();
        if !on.is_empty() {
            return Err(Refusal::NetworkInUse { network: network.name.clone(), on });
        }
        let blocks = self.blocks(network.id).map(|(block, _)| (DecisionKey::Block(network.id, block), None));
        let leases =
            self.leases(network.id).map(|(address, _)| (DecisionKey::Lease(network.id, address), None));
        Ok(self.decide_all(blocks.chain(leases).chain([(DecisionKey::Network(network.id), None)])))
    }

    fn subnets(&self, world: &World, mesh: MeshId, wish: &CreateNetwork) -> Result<Vec<Subnet>, Refusal> {
        let family = |v4: bool| if v4 { "IPv4" } else { "IPv6" };
        let mut ranges: [Option<IpNet>; 2] = [None, None];
        for &given in &wish.subnets {
            range::check(given)?;
            let v4 = given.addr().is_ipv4();
            if let Some(first) = ranges[usize::from(!v4)].replace(given) {
                return Err(Refusal::TwoRanges { first, second: given, family: family(v4) });
            }
            self.check_free(world, given)?;
        }
        let [v4, v6] = ranges;
        let empty = |v4| Refusal::PoolEmpty { family: family(v4) };
        let v4 = match v4 {
            Some(given) => given,
            None => pool::free_v4(&self.in_the_way(world)).ok_or_else(|| empty(true))?,
        };
        let v6 = match v6 {
            None if wish.ipv6 => {
                Some(pool::free_v6(&mesh.0, &self.in_the_way(world)).ok_or_else(|| empty(false))?)
            }
            given => given,
        };
        let subnet = |range| Ok(Subnet { range, gateway: hold::gateway(range, &wish.gateways)? });
        [Some(v4), v6].into_iter().flatten().map(subnet).collect()
    }

    /// What a range of the default pool must not touch.
    pub(crate) fn in_the_way(&self, world: &World) -> Vec<IpNet> {
        let networks = self.networks().flat_map(|network| network.subnets.iter().map(|subnet| subnet.range));
        let held = world.held().map(|(_, hold)| hold.range);
        networks.chain(held).chain(self.routes(world).map(|(_, route)| route)).collect()
    }

    pub(crate) fn check_free(&self, world: &World, wanted: IpNet) -> Result<(), Refusal> {
        let mut taken =
            self.networks().flat_map(|network| network.subnets.iter().map(move |s| (s.range, &network.name)));
        if let Some((other, network)) = taken.find(|(other, _)| range::overlap(*other, wanted)) {
            return Err(Refusal::OverlapsNetwork { range: wanted, other, network: network.clone() });
        }
        // Exactly a range that is held may be the network it is held for.
        let mut held = world.held().map(|(_, hold)| hold);
        if let Some(hold) = held.find(|hold| hold.range != wanted && range::overlap(hold.range, wanted)) {
            let network = format!("that is being made on {}", self.name(hold.host));
            return Err(Refusal::OverlapsNetwork { range: wanted, other: hold.range, network });
        }
        match self.routes(world).find(|(_, route)| range::blocked_by_route(wanted, *route)) {
            Some((host, route)) => {
                Err(Refusal::OverlapsRoute { range: wanted, route, host: host.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// The routes of members, with the member's name.
    fn routes<'a>(&'a self, world: &'a World) -> impl Iterator<Item = (&'a str, IpNet)> {
        self.members()
            .filter_map(|record| Some((record.name.as_str(), world.hosts.get(&record.key.id())?)))
            .flat_map(|(name, host)| host.routes.iter().map(move |route| (name, *route)))
    }

    /// By hash, so that two meshes whose hosts meet on one machine hardly share one; never zero, never one that is or was.
    pub(crate) fn free_id(&self, world: &World, mesh: MeshId, name: &str) -> NetworkId {
        let mut salt = 0u32;
        loop {
            let mut context = Context::new(&SHA256);
            context.update(b"weft network 1\0");
            context.update(&mesh.0);
            context.update(&(self.revision() + 1).to_be_bytes());
            context.update(&salt.to_be_bytes());
            context.update(name.as_bytes());
            let mut id = [0; 4];
            id.copy_from_slice(&context.finish().as_ref()[..4]);
            let id = NetworkId(u32::from_be_bytes(id));
            let held = || world.held().any(|(held, _)| held == id);
            if id.0 != 0 && self.decided(&DecisionKey::Network(id)).is_none() && !held() {
                return id;
            }
            salt += 1;
        }
    }
}

fn check_mtu(mtu: u16) -> Result<u16, Refusal> {
    match mtu {
        ..MIN_MTU => Err(Refusal::MtuTooSmall(mtu)),
        MIN_MTU..=MAX_MTU => Ok(mtu),
        _ => Err(Refusal::MtuTooLarge(mtu)),
    }
}

/// `3 containers (2 on h1, 1 on h2)`
pub(crate) fn containers(on: &[(String, usize)]) -> String {
    let all: usize = on.iter().map(|(_, count)| count).sum();
    let hosts: Vec<String> = on.iter().map(|(host, count)| format!("{count} on {host}")).collect();
    format!("{all} container{} ({})", if all == 1 { "" } else { "s" }, hosts.join(", "))
}
