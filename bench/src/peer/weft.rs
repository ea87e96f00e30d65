//! weft as a person starts it: real engines, real containers made through the driver.

use std::net::Ipv4Addr;

use anyhow::Context;
use weft_lab::{BUSYBOX, Host, Lab, Mesh};

use crate::ends::{End, Ends};

/// A mesh of both hosts, a network, a container on each.
pub fn up(lab: &Lab, init: &[&str], up: &[&str]) -> anyhow::Result<Ends> {
    let mesh = Mesh::up_with(lab, init, up)?;
    mesh.network(&["app"])?;
    let [h1, h2] = lab.hosts() else { anyhow::bail!("two hosts are needed") };
    Ok(Ends { a: container(h1, "from")?, b: container(h2, "to")? })
}

fn container(host: &Host, name: &str) -> anyhow::Result<End> {
    host.docker(["run", "-d", "--name", name, "--network", "app", BUSYBOX, "sleep", "86400"])?;
    let address = host.docker(["inspect", "-f", "{{.NetworkSettings.Networks.app.IPAddress}}", name])?;
    let address: Ipv4Addr =
        address.parse().with_context(|| format!("Docker gave {name} no address: {address}"))?;
    Ok(End { pid: host.container_pid(name)?, address })
}
