//! Switches below /proc/sys that netlink does not reach. They act on the network namespace of the calling thread.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::BridgeError;

/// A bridge answers for its own addresses only, routes nothing, and asks nothing of the network by itself: its address
/// is the same on every host.
pub(super) fn quiet_bridge(name: &str, ipv6: bool) -> Result<(), BridgeError> {
    set("ipv4", name, "arp_ignore", "1")?;
    set("ipv4", name, "forwarding", "0")?;
    for (key, value) in [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("router_solicitations", "0"),
        ("forwarding", "0"),
        // Last: addresses appear when it is switched on.
        ("disable_ipv6", if ipv6 { "0" } else { "1" }),
    ] {
        set("ipv6", name, key, value)?;
    }
    Ok(())
}

/// This host's own interface on a network answers for its own addresses only, and asks with them. Containers that ask the
/// gateway are answered by the bridge, whose way back is now this interface: no cause to drop what they asked (rp_filter).
pub(super) fn quiet_host(name: &str, bridge: &str, ipv6: bool) -> Result<(), BridgeError> {
    set("ipv4", name, "arp_ignore", "1")?;
    set("ipv4", name, "arp_announce", "2")?;
    set("ipv4", bridge, "rp_filter", "2")?;
    for (key, value) in [("accept_ra", "0"), ("autoconf", "0"), ("router_solicitations", "0")] {
        set("ipv6", name, key, value)?;
    }
    set_ipv6(name, ipv6)
}

/// Whether an interface has IPv6 at all.
pub(super) fn set_ipv6(name: &str, on: bool) -> Result<(), BridgeError> {
    set("ipv6", name, "disable_ipv6", if on { "0" } else { "1" })
}

/// A port has no addresses.
pub(super) fn no_ipv6(name: &str) -> Result<(), BridgeError> {
    set("ipv6", name, "disable_ipv6", "1")
}

fn set(family: &str, name: &str, key: &str, value: &str) -> Result<(), BridgeError> {
    let path = format!("/proc/sys/net/{family}/conf/{name}/{key}");
    match fs::write(&path, value) {
        // A kernel without IPv6 has nothing to be quiet about.
        Err(e) if e.kind() == ErrorKind::NotFound && !Path::new("/proc/sys/net/ipv6").exists() => Ok(()),
        Err(source) => Err(BridgeError::Sysctl { path, source }),
        Ok(()) => Ok(()),
    }
}
