//! The addresses at which other machines may reach this one.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};

use super::survey::is_our_name;
use super::{BridgeError, Bridges, address_of, error, name_of};

impl Bridges {
    /// Unicast addresses of the machine's interfaces that are up, in the order of the kernel: IPv4 first. Not those of loopback,
    /// of link scope, of weft's own bridges, or of Docker's, which are the same on every machine.
    pub async fn host_addresses(&self) -> Result<Vec<IpAddr>, BridgeError> {
        let outward: Vec<u32> =
            self.links().await?.iter().filter(|link| leads_out(link)).map(|link| link.header.index).collect();
        let one_at_a_time = self.listing.lock().await;
        let addresses: Result<Vec<AddressMessage>, _> =
            self.netlink.address().get().execute().try_collect().await;
        drop(one_at_a_time);
        let addresses =
            addresses.map_err(|e| error::netlink("list the addresses of this machine".into(), e))?;
        let usable = addresses
            .iter()
            .filter(|a| outward.contains(&a.header.index) && a.header.scope == AddressScope::Universe)
            .filter_map(address_of);
        let (mut v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = usable.partition(IpAddr::is_ipv4);
        v4.extend(v6);
        Ok(v4)
    }
}

fn leads_out(link: &LinkMessage) -> bool {
    let name = name_of(link).unwrap_or_default();
    let flags = link.header.flags;
    flags.contains(LinkFlags::Up)
        && !flags.contains(LinkFlags::Loopback)
        && !is_our_name(name)
        && !is_dockers_name(name)
}

fn is_dockers_name(name: &str) -> bool {
    let made = |name: &str| name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(name, "docker0" | "docker_gwbridge") || name.strip_prefix("br-").is_some_and(made)
}

#[cfg(test)]
mod tests {
    use super::is_dockers_name;

    #[test]
    fn bridges_of_people_are_not_dockers() {
        for name in ["docker0", "docker_gwbridge", "br-0123456789ab"] {
            assert!(is_dockers_name(name), "{name}");
        }
        for name in ["br-lan", "br0", "eth0", "br-0123456789abc"] {
            assert!(!is_dockers_name(name), "{name}");
        }
    }
}
