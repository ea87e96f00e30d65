//! The ports of a bridge: the tap towards the mesh, and a veth for each container.

use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{LinkBridgePort, LinkUnspec, LinkVeth};
use weft_api::id::{Mac, NetworkId};

use super::{BridgeError, Bridges, error, sysctl};

/// What the names of veths begin with: the host's side, and the container's side until Docker renames it.
pub(super) const HOST_SIDE: &str = "wve";
const CONTAINER_SIDE: &str = "wvc";

/// So much of an endpoint id fits an interface's name: 48 random bits.
const ID_PART: usize = 12;

/// The host's side of an endpoint's veth.
pub fn host_ifname(endpoint: &str) -> Result<String, BridgeError> {
    ifname(HOST_SIDE, endpoint)
}

/// The container's side of an endpoint's veth, as it is called on the host: what the Join answer names.
pub fn container_ifname(endpoint: &str) -> Result<String, BridgeError> {
    ifname(CONTAINER_SIDE, endpoint)
}

fn ifname(side: &str, endpoint: &str) -> Result<String, BridgeError> {
    match endpoint.get(..ID_PART) {
        Some(part) if part.bytes().all(|b| b.is_ascii_alphanumeric()) => Ok(format!("{side}{part}")),
        _ => Err(BridgeError::EndpointId(endpoint.chars().take(80).collect())),
    }
}

impl Bridges {
    /// Makes the tap of a network a port of its bridge, and sets it up. Frames to unknown addresses go to it;
    /// the bridge learns nothing from it.
    pub async fn add_tap_port(&self, network: NetworkId) -> Result<(), BridgeError> {
        let (tap, bridge) = (network.tap_name(), network.bridge_name());
        let what = || format!("make {tap} a port of {bridge}");
        let (tap_index, bridge_index) = (self.index(&tap).await?, self.index(&bridge).await?);
        sysctl::no_ipv6(&tap)?;
        let set = |message| self.netlink.link().set(message).execute();
        // A port floods and learns from the moment it is one: not before it is told what to do.
        set(LinkUnspec::new_with_index(tap_index).down().build())
            .await
            .map_err(|e| error::netlink(what(), e))?;
        set(LinkUnspec::new_with_index(tap_index).controller(bridge_index).build())
            .await
            .map_err(|e| error::netlink(what(), e))?;
        let port =
            LinkBridgePort::new(tap_index).learning(false).flood(true).mcast_flood(true).bcast_flood(true);
        let port = self.netlink.link().set_port(port.build()).execute().await;
        port.map_err(|e| error::netlink(what(), e))?;
        set(LinkUnspec::new_with_index(tap_index).up().build()).await.map_err(|e| error::netlink(what(), e))
    }

    /// Makes the veth of an endpoint and puts the host's side on the bridge; gives the name of the container's side,
    /// which has the address `mac` and waits, down, for Docker to take it. One that is there already is replaced.
    pub async fn create_veth(
        &self,
        network: NetworkId,
        endpoint: &str,
        mac: Mac,
        mtu: u16,
    ) -> Result<String, BridgeError> {
        let (host, container) = (host_ifname(endpoint)?, container_ifname(endpoint)?);
        let bridge = self.index(&network.bridge_name()).await?;
        self.delete_veth(endpoint).await?;
        let peer = LinkUnspec::new_with_name(&container).address(mac.0.to_vec()).mtu(u32::from(mtu)).build();
        let veth = LinkVeth::new(&host, &container)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(u32::from(mtu))
            .controller(bridge)
            .build();
        let made = self.netlink.link().add(veth).execute().await;
        made.map_err(|e| error::netlink(format!("make the veth {host}"), e))?;
        let finished = self.finish_port(&host, mac).await;
        if finished.is_err() {
            let _first_error_counts = self.delete_veth(endpoint).await;
        }
        finished.map(|()| container)
    }

    /// Removes the veth of an endpoint, wherever its other side is; false if there was none.
    pub async fn delete_veth(&self, endpoint: &str) -> Result<bool, BridgeError> {
        self.remove(&host_ifname(endpoint)?).await
    }

    async fn finish_port(&self, host: &str, mac: Mac) -> Result<(), BridgeError> {
        let what = || format!("make {host} a port");
        let index = self.index(host).await?;
        sysctl::no_ipv6(host)?;
        let port = LinkBridgePort::new(index).learning(true).flood(false).mcast_flood(true).bcast_flood(true);
        let port = self.netlink.link().set_port(port.build()).execute().await;
        port.map_err(|e| error::netlink(what(), e))?;
        // `Noarp` is the kernel's word for static here; a permanent entry would be the bridge's own address.
        let entry = self
            .netlink
            .neighbours()
            .add_bridge(index, &mac.0)
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
            .replace();
        entry.execute().await.map_err(|e| error::netlink(what(), e))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.netlink.link().set(up).execute().await.map_err(|e| error::netlink(what(), e))
    }
}
