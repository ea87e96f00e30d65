//! Containers without Docker, and the two peers that are in the kernel.

use anyhow::bail;
use weft_lab::{BRIDGE, Bare, Lab};

use crate::ends::{End, Ends};

const UNDERLAY_MTU: u32 = 1500;

/// The underlay's own interface as a port of the bridge.
pub fn veth(lab: &Lab) -> anyhow::Result<Ends> {
    let made = containers(lab, UNDERLAY_MTU)?;
    for host in lab.hosts() {
        host.run(["ip", "link", "set", "eth0", "master", BRIDGE])?;
    }
    Ok(made)
}

/// A VXLAN device to the other host, on the port that IANA gave it.
pub fn vxlan(lab: &Lab) -> anyhow::Result<Ends> {
    Ok(ends(&lab.vxlan("h1", "h2")?))
}

/// A namespace with an address on each of two hosts, behind a bridge that the peer still has to join.
pub fn containers(lab: &Lab, mtu: u32) -> anyhow::Result<Ends> {
    let [h1, h2] = lab.hosts() else { bail!("two hosts are needed") };
    Ok(ends(&[h1.bare(1, mtu)?, h2.bare(2, mtu)?]))
}

fn ends(bares: &[Bare; 2]) -> Ends {
    let end = |bare: &Bare| End { pid: bare.pid, address: bare.address };
    Ends { a: end(&bares[0]), b: end(&bares[1]) }
}
