//! The other side of a veth where Docker does not put it: in a network namespace of any process, or on this host itself.

use std::fs::{File, metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use weft_api::id::NetworkId;
use weft_api::network::Network;

use super::{BridgeError, Bridges, container_ifname, error, has_ipv6, name_of, sysctl};

/// What the interface is called in a namespace, with the lowest number that is free there.
const INSIDE: &str = "weft";

/// So many are tried; a namespace with more is refused.
const MOST_INSIDE: usize = 64;

/// What the names of this host's own places on networks begin with.
pub(super) const EXPOSED: &str = "wxp-";

/// This host's own interface on a network that it is exposed on.
#[must_use]
pub fn exposed_ifname(network: NetworkId) -> String {
    format!("{EXPOSED}{network}")
}

/// A network namespace, kept alive while this is.
#[derive(Debug)]
pub struct Netns {
    file: File,
    /// Its number in the kernel, not used again while it lives.
    pub inode: u64,
}

impl Netns {
    /// That of a process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/ns/net"))?;
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode })
    }

    /// Whether it is that of this process.
    pub fn is_own(&self) -> io::Result<bool> {
        Ok(metadata("/proc/self/ns/net")?.ino() == self.inode)
    }
}

impl Bridges {
    /// Moves the container's side of an endpoint's veth into a namespace, gives it its addresses there and sets it up; what
    /// it is called there.
    pub async fn move_into(
        &self,
        netns: Netns,
        endpoint: &str,
        addresses: Vec<IpNet>,
    ) -> Result<String, BridgeError> {
        let name = container_ifname(endpoint)?;
        let what = format!("move {name} into the namespace");
        let index = self.index(&name).await?;
        let moved = LinkUnspec::new_with_index(index).setns_by_fd(netns.file.as_raw_fd()).build();
        self.netlink.link().set(moved).execute().await.map_err(|e| error::netlink(what.clone(), e))?;
        let (tell, told) = tokio::sync::oneshot::channel();
        // A thread of its own: a namespace is a thread's, and no other task may run in it.
        let work = move || {
            let _asker_is_gone = tell.send(inside(&netns, &name, &addresses));
        };
        let refused = |source| BridgeError::Refused { what: what.clone(), source };
        std::thread::Builder::new().name("weft-netns".into()).spawn(work).map_err(refused)?;
        told.await.map_err(|_| refused(io::Error::other("the thread in it died")))?
    }

    /// Puts the container's side of an endpoint's veth on this host: with addresses of its own, before the gateways' as
    /// a source. Done already, it changes nothing.
    pub async fn expose(
        &self,
        network: &Network,
        endpoint: &str,
        addresses: &[IpAddr],
    ) -> Result<(), BridgeError> {
        let (made, name) = (container_ifname(endpoint)?, exposed_ifname(network.id));
        let what = || format!("set up {name}");
        if let Some(link) = self.find(&made).await? {
            let renamed = LinkUnspec::new_with_index(link.header.index).name(&name).build();
            self.netlink.link().set(renamed).execute().await.map_err(|e| error::netlink(what(), e))?;
        }
        let index = self.index(&name).await?;
        sysctl::quiet_host(&name, &network.id.bridge_name(), has_ipv6(network))?;
        for address in addresses {
            self.add_address(index, IpNet::from(*address), &name).await?;
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        self.netlink.link().set(up).execute().await.map_err(|e| error::netlink(what(), e))?;
        for subnet in &network.subnets {
            let source = addresses.iter().find(|address| subnet.range.contains(*address));
            // The bridge has the range itself: its halves are nearer.
            let halves = subnet.range.subnets(subnet.range.prefix_len() + 1).into_iter().flatten();
            for (half, source) in halves.zip(source.into_iter().cycle()) {
                self.add_route(index, half, *source).await?;
            }
        }
        Ok(())
    }

    /// Names and numbers what has come into this namespace as `name`.
    async fn settle(&self, name: &str, addresses: &[IpNet]) -> Result<String, BridgeError> {
        let links = self.links().await?;
        let taken = |wanted: &String| links.iter().any(|link| name_of(link) == Some(wanted.as_str()));
        let free = (0..MOST_INSIDE).map(|n| format!("{INSIDE}{n}")).find(|name| !taken(name));
        let new = free.ok_or_else(|| BridgeError::Refused {
            what: format!("name the interface {INSIDE}0 to {INSIDE}{}", MOST_INSIDE - 1),
            source: Errno::EXIST.into(),
        })?;
        let what = || format!("set up {new} in the namespace");
        let index = self.index(name).await?;
        let set = |message| self.netlink.link().set(message).execute();
        set(LinkUnspec::new_with_index(index).name(&new).build())
            .await
            .map_err(|e| error::netlink(what(), e))?;
        sysctl::set_ipv6(&new, addresses.iter().any(|address| address.addr().is_ipv6()))?;
        for address in addresses {
            self.add_address(index, *address, &new).await?;
        }
        set(LinkUnspec::new_with_index(index).up().build()).await.map_err(|e| error::netlink(what(), e))?;
        Ok(new)
    }

    async fn add_address(&self, index: u32, address: IpNet, name: &str) -> Result<(), BridgeError> {
        let mut request = self.netlink.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            // The mesh gave it to nobody else.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match request.execute().await {
            Err(e) if !error::is(&e, Errno::EXIST) => {
                Err(error::netlink(format!("give {address} to {name}"), e))
            }
            _ => Ok(()),
        }
    }

    async fn add_route(&self, index: u32, range: IpNet, source: IpAddr) -> Result<(), BridgeError> {
        let route = match (range, source) {
            (IpNet::V4(range), IpAddr::V4(source)) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(range.addr(), range.prefix_len())
                .pref_source(source)
                .scope(RouteScope::Link)
                .output_interface(index)
                .build(),
            (IpNet::V6(range), IpAddr::V6(source)) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(range.addr(), range.prefix_len())
                .pref_source(source)
                .output_interface(index)
                .build(),
            _ => return Ok(()),
        };
        let added = self.netlink.route().add(route).replace().execute().await;
        added.map_err(|e| error::netlink(format!("route {range} by this host's address {source}"), e))
    }
}

fn inside(netns: &Netns, name: &str, addresses: &[IpNet]) -> Result<String, BridgeError> {
    let refused = |source| BridgeError::Refused { what: "enter the namespace".into(), source };
    move_into_link_name_space(netns.file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| refused(e.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
    runtime.block_on(async { Bridges::open()?.settle(name, addresses).await })
}
