//! The Linux bridge of each network on this host: what joins the containers to each other and to the tap.
//!
//! The bridge forwards by its table: container to container never meets the tap. Each container's port has a static,
//! sticky entry (nobody else can claim its address) and gets no unknown unicast; the tap gets everything that no
//! container's entry matches, and teaches the bridge nothing: remote addresses are the router's to know. Frames to
//! [`Mac::GATEWAY`](weft_api::id::Mac::GATEWAY) are the host's own. Bridges and veths outlive the process.

mod addresses;
mod attach;
mod error;
mod port;
mod survey;
mod sysctl;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};
use tokio::sync::Mutex;
use weft_api::id::{Mac, NetworkId};
use weft_api::network::Network;

pub use attach::{Netns, exposed_ifname};
pub use error::BridgeError;
pub use port::{container_ifname, host_ifname};
pub use survey::Ours;

/// Forgets what a container's inner bridge taught after this long, centiseconds: addresses move between hosts.
const AGEING: u32 = 30_00;

/// At most this many learned addresses of one bridge; beyond it the kernel floods instead of learning. Containers have
/// static entries, so only addresses of bridges inside containers are learned.
const MAX_LEARNED: u32 = 4096;

/// A netlink socket in one network namespace. Cheap to clone; needs a tokio runtime.
#[derive(Clone, Debug)]
pub struct Bridges {
    netlink: Handle,
    /// Held during a list: the kernel makes one for a socket at a time, and answers EBUSY to a second.
    listing: Arc<Mutex<()>>,
}

impl Bridges {
    /// Opens it in the network namespace of the calling thread.
    pub fn open() -> Result<Self, BridgeError> {
        let (connection, netlink, _) =
            rtnetlink::new_connection().map_err(|source| BridgeError::Open { source })?;
        tokio::spawn(connection);
        Ok(Self { netlink, listing: Arc::default() })
    }

    /// Makes the bridge of a network as it must be, or corrects it: fixed address, the gateways' addresses and no
    /// others, MTU, no spanning tree, no snooping (the router decides who gets multicast). Until its first port is up
    /// it has no carrier, and the gateways do not answer.
    pub async fn ensure_bridge(&self, network: &Network) -> Result<(), BridgeError> {
        let name = network.id.bridge_name();
        let what = || format!("set up the bridge {name}");
        let mut link = self.find(&name).await?;
        if link.as_ref().is_some_and(|link| kind(link) != Some(InfoKind::Bridge)) {
            return Err(BridgeError::NotABridge { name });
        }
        if link.is_none() {
            let new = LinkBridge::new(&name).address(Mac::GATEWAY.0.to_vec()).build();
            self.netlink.link().add(new).execute().await.map_err(|e| error::netlink(what(), e))?;
            link = self.find(&name).await?;
        }
        let link = link.ok_or_else(|| BridgeError::NoLink { name: name.clone() })?;
        let index = link.header.index;
        sysctl::quiet_bridge(&name, has_ipv6(network))?;
        let options = LinkBridge::new(&name)
            .stp_state(BridgeStpState::Disabled)
            .mcast_snooping(false)
            .ageing_time(AGEING)
            .append_info_data(InfoBridge::ForwardDelay(0))
            .build();
        self.netlink.link().change(options).execute().await.map_err(|e| error::netlink(what(), e))?;
        // Kernels before 6.7 do not know it.
        let limit = LinkBridge::new(&name).fdb_max_learned(MAX_LEARNED).build();
        let _older_kernel = self.netlink.link().change(limit).execute().await;
        let mut up = LinkUnspec::new_with_index(index).mtu(u32::from(network.mtu)).up();
        if !has_address(&link, Mac::GATEWAY) {
            // Said again to one that has it, the kernel would forget the neighbours that it knows there.
            up = up.address(Mac::GATEWAY.0.to_vec());
        }
        self.netlink.link().set(up.build()).execute().await.map_err(|e| error::netlink(what(), e))?;
        self.ensure_gateways(index, network).await
    }

    /// Removes the bridge of a network; its containers' veths stay behind, without a bridge. Absent is no error.
    pub async fn remove_bridge(&self, network: NetworkId) -> Result<(), BridgeError> {
        self.remove(&network.bridge_name()).await.map(drop)
    }

    async fn ensure_gateways(&self, index: u32, network: &Network) -> Result<(), BridgeError> {
        let what = || format!("give {} its gateway addresses", network.id.bridge_name());
        let mut wanted: Vec<(IpAddr, u8)> =
            network.subnets.iter().map(|s| (s.gateway, s.range.prefix_len())).collect();
        let one_at_a_time = self.listing.lock().await;
        let have: Vec<AddressMessage> = self
            .netlink
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(|e| error::netlink(what(), e))?;
        drop(one_at_a_time);
        for address in have.into_iter().filter(|address| address.header.index == index) {
            match address_of(&address) {
                Some(IpAddr::V6(v6)) if v6.is_unicast_link_local() => {}
                Some(ip) if wanted.contains(&(ip, address.header.prefix_len)) => {
                    wanted.retain(|(wanted, _)| *wanted != ip);
                }
                _ => {
                    let gone = self.netlink.address().del(address).execute().await;
                    gone.map_err(|e| error::netlink(what(), e))?;
                }
            }
        }
        for (gateway, prefix) in wanted {
            let mut request = self.netlink.address().add(index, gateway, prefix);
            if gateway.is_ipv6() {
                // Every host has it: asking whether somebody else does would always find one.
                request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await.map_err(|e| error::netlink(what(), e))?;
        }
        Ok(())
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, BridgeError> {
        let found = self.netlink.link().get().match_name(name.to_owned()).execute().try_next().await;
        match found {
            Ok(link) => Ok(link),
            Err(e) if error::is(&e, rustix::io::Errno::NODEV) => Ok(None),
            Err(e) => Err(error::netlink(format!("look for {name}"), e)),
        }
    }

    async fn index(&self, name: &str) -> Result<u32, BridgeError> {
        match self.find(name).await? {
            Some(link) => Ok(link.header.index),
            None => Err(BridgeError::NoLink { name: name.to_owned() }),
        }
    }

    /// Whether there was such a link.
    async fn remove(&self, name: &str) -> Result<bool, BridgeError> {
        let Some(link) = self.find(name).await? else { return Ok(false) };
        match self.netlink.link().del(link.header.index).execute().await {
            Ok(()) => Ok(true),
            Err(e) if error::is(&e, rustix::io::Errno::NODEV) => Ok(false),
            Err(e) => Err(error::netlink(format!("remove {name}"), e)),
        }
    }
}

fn has_ipv6(network: &Network) -> bool {
    network.subnets.iter().any(|s| s.gateway.is_ipv6())
}

fn kind(link: &LinkMessage) -> Option<InfoKind> {
    let info = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(info) => Some(info),
        _ => None,
    })?;
    info.iter().find_map(|i| match i {
        LinkInfo::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn has_address(link: &LinkMessage, mac: Mac) -> bool {
    link.attributes.iter().any(|a| matches!(a, LinkAttribute::Address(bytes) if *bytes == mac.0))
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    find(true).or_else(|| find(false))
}
