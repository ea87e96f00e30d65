//! Docker's networks of driver `weft`, and the containers on them.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard::errors::Error as BollardError;
use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum, Ipam, IpamConfig, Network as Listed, NetworkCreateRequest,
};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptionsBuilder, ListNetworksOptions};
use ipnet::IpNet;
use weft_api::id::{Mac, NetworkId};
use weft_api::network::{DEFAULT_MTU, MtuOption, Network, Origin, Subnet};

use crate::Engine;
use crate::error::{EngineError, EnsureError, RemoveError};

/// The driver's name, for networks and for addresses.
pub const DRIVER: &str = "weft";

/// The option, of the network and of its IPAM, that says which network of the mesh it stands for.
pub const OPTION_NETWORK: &str = "weft.network";

/// The option that Docker's own drivers take for the MTU.
pub const OPTION_MTU: &str = "com.docker.network.driver.mtu";

/// The same, in our own words.
pub const OPTION_WEFT_MTU: &str = "weft.mtu";

/// A Docker network of driver `weft`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DockerNetwork {
    /// Docker's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The network of the mesh that it stands for; `None` if a person typed `docker network create`, or the option
    /// cannot be read.
    pub network: Option<NetworkId>,
    /// Its ranges and gateways.
    pub subnets: Vec<Subnet>,
    /// No way out.
    pub internal: bool,
    /// The MTU that it was made with, if any.
    pub mtu: Option<u16>,
    /// The option that said so.
    pub mtu_option: Option<MtuOption>,
    /// Whose addresses it has: [`DRIVER`] if ours.
    pub ipam: String,
}

/// That the Docker network of a network of the mesh is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ensured {
    /// Docker's id.
    pub id: String,
    /// It was not there before.
    pub created: bool,
}

/// A container on a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    /// Docker's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Docker's id of its endpoint on the network; empty unless it runs.
    pub endpoint: String,
    /// Its addresses on the network; empty unless it runs.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address on the network; `None` unless it runs.
    pub mac: Option<Mac>,
    /// It runs (or is paused): its endpoint exists.
    pub running: bool,
    /// The addresses that stand in its record (`--ip`, `--ip6`): it asks for them at every start.
    pub pinned: Vec<IpAddr>,
}

impl Engine {
    /// All networks of driver `weft`.
    pub async fn networks(&self) -> Result<Vec<DockerNetwork>, EngineError> {
        let listed = self.list("list networks", "driver", DRIVER).await?;
        Ok(listed.into_iter().filter(is_ours).map(read).collect())
    }

    /// Makes the Docker network of a network of the mesh, or finds it. One that was made for the same network with
    /// another name or shape is made anew, if no container runs on it. `known`: Docker's ids of networks that stand for it
    /// without saying so, since a person made them.
    pub async fn ensure_network(&self, network: &Network, known: &[String]) -> Result<Ensured, EnsureError> {
        let wanted = wanted(network);
        let stands = |n: &DockerNetwork| n.network == Some(network.id) || known.contains(&n.id);
        for old in self.networks().await?.into_iter().filter(stands) {
            if same_shape(&old, network) {
                return Ok(Ensured { id: old.id, created: false });
            }
            match self.remove_network(&old.id).await {
                Ok(()) => {}
                Err(RemoveError::InUse { name, containers }) => {
                    return Err(EnsureError::Differs { name, containers });
                }
                Err(RemoveError::Engine(e)) => return Err(e.into()),
            }
        }
        if let Some(other) = self.named(&network.name).await?.into_iter().next() {
            return Err(taken(other));
        }
        let what = format!("make the network \"{}\"", network.name);
        let made = self.docker.create_network(wanted).await.map_err(self.wrong(&what))?;
        // The engine lets two networks have one name: whoever comes second gives way.
        let twins = self.named(&network.name).await?;
        if let Some(other) = twins.into_iter().find(|other| other.id.as_deref() != Some(&made.id)) {
            self.docker
                .remove_network(&made.id)
                .await
                .map_err(self.wrong("remove a network of a name in use"))?;
            return Err(taken(other));
        }
        Ok(Ensured { id: made.id, created: true })
    }

    /// Removes a network by Docker's id. One that is not there is no error.
    pub async fn remove_network(&self, id: &str) -> Result<(), RemoveError> {
        match self.docker.remove_network(id).await {
            Ok(()) | Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(e) => {
                let users = self.users(id).await?;
                match users {
                    Some((name, containers)) if !containers.is_empty() => {
                        Err(RemoveError::InUse { name, containers })
                    }
                    _ => Err(self.wrong("remove a network")(e).into()),
                }
            }
        }
    }

    /// The containers on a network, running, stopped or never started; Docker knows the last ones by the network's name only,
    /// and tells an endpoint from the container's start event on, not from its connect event.
    pub async fn containers(&self, id: &str, name: &str) -> Result<Vec<Container>, EngineError> {
        let filters = HashMap::from([("network", vec![id, name])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed =
            self.docker.list_containers(Some(options)).await.map_err(self.wrong("list containers"))?;
        Ok(listed.into_iter().filter_map(|c| container(c, id, name)).collect())
    }

    /// Who keeps a network from being removed, and its name; `None` if it is not there.
    async fn users(&self, id: &str) -> Result<Option<(String, Vec<String>)>, EngineError> {
        match self.docker.inspect_network(id, None::<InspectNetworkOptions>).await {
            Ok(found) => {
                let containers = found.containers.unwrap_or_default().into_values();
                let names: BTreeSet<_> = containers.filter_map(|c| c.name).collect();
                Ok(Some((found.name.unwrap_or_default(), names.into_iter().collect())))
            }
            Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(self.wrong("show a network")(e)),
        }
    }

    /// Networks of exactly this name, of any driver.
    async fn named(&self, name: &str) -> Result<Vec<Listed>, EngineError> {
        // The engine's own filter takes parts of names, and patterns.
        let mut listed = self.list("list networks", "name", name).await?;
        listed.retain(|n| n.name.as_deref() == Some(name));
        Ok(listed)
    }

    async fn list(&self, what: &str, filter: &str, value: &str) -> Result<Vec<Listed>, EngineError> {
        let filters = HashMap::from([(filter.to_owned(), vec![value.to_owned()])]);
        let options = ListNetworksOptions { filters: Some(filters) };
        self.docker.list_networks(Some(options)).await.map_err(self.wrong(what))
    }
}

fn wanted(network: &Network) -> NetworkCreateRequest {
    let id = || HashMap::from([(OPTION_NETWORK.to_owned(), network.id.to_string())]);
    let (options, ipam_options) = match network.origin {
        Origin::Weft => {
            let mut options = id();
            options.insert(OPTION_MTU.to_owned(), network.mtu.to_string());
            (options, Some(id()))
        }
        // As the person made it elsewhere: Compose compares options, and takes others for another network.
        Origin::Docker { mtu } => {
            let written = mtu.map(|option| (mtu_key(option).to_owned(), network.mtu.to_string()));
            (written.into_iter().collect(), None)
        }
    };
    let config = network.subnets.iter().map(|subnet| IpamConfig {
        subnet: Some(subnet.range.to_string()),
        gateway: Some(subnet.gateway.to_string()),
        ..IpamConfig::default()
    });
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: Some(DRIVER.to_owned()),
        ipam: Some(Ipam {
            driver: Some(DRIVER.to_owned()),
            config: Some(config.collect()),
            options: ipam_options,
        }),
        internal: Some(network.internal),
        enable_ipv6: Some(has_ipv6(network)),
        options: Some(options),
        ..NetworkCreateRequest::default()
    }
}

fn mtu_key(option: MtuOption) -> &'static str {
    match option {
        MtuOption::Weft => OPTION_WEFT_MTU,
        MtuOption::Docker => OPTION_MTU,
    }
}

fn has_ipv6(network: &Network) -> bool {
    network.subnets.iter().any(|s| matches!(s.range, IpNet::V6(_)))
}

fn same_shape(docker: &DockerNetwork, network: &Network) -> bool {
    let ranges = |subnets: &[Subnet]| subnets.iter().map(|s| (s.range, s.gateway)).collect::<BTreeSet<_>>();
    docker.name == network.name
        && docker.ipam == DRIVER
        && docker.internal == network.internal
        && (docker.mtu == Some(network.mtu) || docker.mtu.is_none() && network.mtu == DEFAULT_MTU)
        && ranges(&docker.subnets) == ranges(&network.subnets)
}

fn taken(other: Listed) -> EnsureError {
    let network = read(other.clone()).network;
    EnsureError::NameTaken {
        name: other.name.unwrap_or_default(),
        driver: other.driver.unwrap_or_default(),
        short: other.id.unwrap_or_default().chars().take(12).collect(),
        network,
    }
}

fn is_ours(network: &Listed) -> bool {
    network.driver.as_deref() == Some(DRIVER)
}

pub(crate) fn read(listed: Listed) -> DockerNetwork {
    let ipam = listed.ipam.unwrap_or_default();
    let options = listed.options.unwrap_or_default();
    let subnet = |config: IpamConfig| {
        let range: IpNet = config.subnet?.parse().ok()?;
        let gateway = match config.gateway {
            // Docker 20.10 tells a gateway that it got from us with its prefix length.
            Some(told) => told.split_once('/').map_or(&*told, |(address, _)| address).parse().ok()?,
            // `--subnet` without `--gateway`: it is the first address, and Docker does not tell it.
            None => match range.network() {
                IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().wrapping_add(1)).into(),
                IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().wrapping_add(1)).into(),
            },
        };
        Some(Subnet { range, gateway })
    };
    let written = |option| Some((option, options.get(mtu_key(option))?));
    let mtu = written(MtuOption::Weft).or_else(|| written(MtuOption::Docker));
    DockerNetwork {
        id: listed.id.unwrap_or_default(),
        name: listed.name.unwrap_or_default(),
        network: options.get(OPTION_NETWORK).and_then(|id| id.parse().ok()),
        subnets: ipam.config.unwrap_or_default().into_iter().filter_map(subnet).collect(),
        internal: listed.internal.unwrap_or_default(),
        mtu: mtu.and_then(|(_, mtu)| mtu.parse().ok()),
        mtu_option: mtu.map(|(option, _)| option),
        ipam: ipam.driver.unwrap_or_default(),
    }
}

pub(crate) fn container(listed: ContainerSummary, id: &str, name: &str) -> Option<Container> {
    let networks = listed.network_settings?.networks?;
    let on = |called: &str, told: Option<&str>| match told.filter(|told| !told.is_empty()) {
        Some(told) => told == id,
        None => called == name || called == id,
    };
    let (_, at) = networks.into_iter().find(|(called, at)| on(called, at.network_id.as_deref()))?;
    let ipam = at.ipam_config.unwrap_or_default();
    let pinned = [ipam.ipv4_address, ipam.ipv6_address];
    let addresses = [at.ip_address, at.global_ipv6_address];
    Some(Container {
        id: listed.id?,
        name: listed.names?.first()?.trim_start_matches('/').to_owned(),
        endpoint: at.endpoint_id.unwrap_or_default(),
        addresses: addresses.into_iter().flatten().filter_map(|a| a.parse().ok()).collect(),
        mac: at.mac_address.and_then(|mac| mac.parse().ok()),
        running: matches!(
            listed.state,
            Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
        ),
        pinned: pinned.into_iter().flatten().filter_map(|a| a.parse().ok()).collect(),
    })
}
