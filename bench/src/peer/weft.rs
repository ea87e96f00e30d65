//! weft as a person starts it: real engines, real containers made through the driver.

use std::net::Ipv4Addr;

use anyhow::Context;
use weft_lab::{BUSYBOX, Host, Lab, Mesh};

use crate::ends::{End, Ends};

/// A mesh, a network, a container on the first host and one on the last.
pub fn up(lab: &Lab, init: &[&str], up: &[&str]) -> anyhow::Result<Ends> {
    let mesh = Mesh::up_with(lab, init, up)?;
    mesh.network(&["app"])?;
    let [first, .., last] = lab.hosts() else { anyhow::bail!("two hosts are needed") };
    Ok(Ends { a: container(first, "from")?, b: container(last, "to")? })
}

/// The same on three hosts of which the first and the last are then cut off from each other: what they say, the second relays.
pub fn relayed(lab: &Lab) -> anyhow::Result<Ends> {
    let ends = up(lab, &[], &[])?;
    let [first, _, last] = lab.hosts() else { anyhow::bail!("three hosts are needed") };
    lab.cut(first.name(), last.name())?;
    Ok(ends)
}

fn container(host: &Host, name: &str) -> anyhow::Result<End> {
    host.docker(["run", "-d", "--name", name, "--network", "app", BUSYBOX, "sleep", "86400"])?;
    let address = host.docker(["inspect", "-f", "{{.NetworkSettings.Networks.app.IPAddress}}", name])?;
    let address: Ipv4Addr =
        address.parse().with_context(|| format!("Docker gave {name} no address: {address}"))?;
    Ok(End { pid: host.container_pid(name)?, address })
}
