//! Containers without Docker: a network namespace behind a veth and a bridge, for what is compared with weft; and
//! the kernel's own overlay between two of them.

use std::{fs, net::Ipv4Addr, process::Command, time::Duration};

use crate::{
    command::{self, Daemon},
    error::{Context, Error},
    host::Host,
    lab::Lab,
    process,
};

/// The bridge of each host.
pub const BRIDGE: &str = "br0";
/// IPv4, UDP, VXLAN and inner Ethernet header take 50 bytes of the underlay's.
const VXLAN_OVERHEAD: u32 = 50;

/// A namespace with an address. It goes with its host.
#[derive(Debug)]
pub struct Bare {
    /// The process that holds it, in this machine's view.
    pub pid: i32,
    /// Its address, in 10.99.0.0/24.
    pub address: Ipv4Addr,
    _holder: Daemon,
}

impl Host {
    /// Makes one whose `eth0` has the address 10.99.0.`number` and is a port of [`BRIDGE`], which is made too.
    /// What joins the bridges is the caller's.
    pub fn bare(&self, number: u8, mtu: u32) -> Result<Bare, Error> {
        let address = Ipv4Addr::new(10, 99, 0, number);
        let holder = self.spawn(["unshare", "--net", "sleep", "infinity"], "bare.log")?;
        let pid = holder.pid;
        let host = self.holder().ok_or_else(|| Error::Off(self.name().to_owned()))?;
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net"));
        let outer = namespace(host).context(|| format!("cannot see the namespace of {}", self.name()))?;
        let limit = Duration::from_secs(5);
        if !process::wait_until(limit, || namespace(pid).is_ok_and(|inner| inner != outer)) {
            let hint = "the kernel refused: try `unshare --net true`".to_owned();
            return Err(Error::Late { what: "a network namespace".into(), seconds: limit.as_secs(), hint });
        }
        self.sh(&format!(
            "ip link add {BRIDGE} mtu {mtu} type bridge mcast_snooping 0 && ip link set {BRIDGE} up"
        ))?;
        // `netns PID` is read by the kernel in the caller's pid namespace: enter nothing but the network here.
        let (mtu, inner) = (mtu.to_string(), pid.to_string());
        let mut link = Command::new("nsenter");
        link.args(["-t", &host.to_string(), "-n", "ip", "link", "add", "c0", "mtu", &mtu]);
        link.args(["type", "veth", "peer", "name", "eth0", "mtu", &mtu, "netns", &inner]);
        let made = command::output(&mut link);
        let made =
            if made.ok() { self.exec(["ip", "link", "set", "c0", "master", BRIDGE, "up"]) } else { made };
        let inside = format!("ip link set lo up && ip addr add {address}/24 dev eth0 && ip link set eth0 up");
        let made = if made.ok() { self.exec_in_netns_of(pid, ["sh", "-c", &inside]) } else { made };
        if !made.ok() {
            let (whom, command) = (self.name().to_owned(), "ip link add c0 type veth".to_owned());
            return Err(Error::Command { whom, command, status: made.status, said: made.stderr });
        }
        Ok(Bare { pid, address, _holder: holder })
    }
}

impl Lab {
    /// One on each of two hosts, joined by the kernel's VXLAN, which does not encrypt.
    pub fn vxlan(&self, one: &str, other: &str) -> Result<[Bare; 2], Error> {
        let (one, other) = (self.find(one)?, self.find(other)?);
        let mtu = self.mtu() - VXLAN_OVERHEAD;
        let bares = [one.bare(1, mtu)?, other.bare(2, mtu)?];
        for (here, there) in [(one, other), (other, one)] {
            let (local, remote) = (here.addr(), there.addr());
            here.sh(&format!(
                "ip link add vx0 mtu {mtu} type vxlan id 7 local {local} remote {remote} dev eth0 dstport 4789 &&
                 ip link set vx0 master {BRIDGE} up"
            ))?;
        }
        Ok(bares)
    }
}
