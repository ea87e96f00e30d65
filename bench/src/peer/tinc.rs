//! tinc 1.0 in switch mode, with the fastest cipher and digest among those it documents.

use std::time::Duration;

use anyhow::ensure;
use weft_lab::{BRIDGE, Lab};

use super::plain;
use crate::ends::Ends;

/// A little less than what stays of 1500 after IPv4, UDP, tinc's own header, cipher block and digest, and the inner Ethernet header.
const MTU: u32 = 1416;

/// Both daemons; h1 dials.
pub fn up(lab: &Lab) -> anyhow::Result<Ends> {
    let ends = plain::containers(lab, MTU)?;
    for host in lab.hosts() {
        let (name, address) = (host.name(), host.addr());
        let dial = if name == "h1" { "ConnectTo = h2\n" } else { "" };
        host.sh(&format!(
            "mkdir -p /run/tinc/hosts && cd /run/tinc &&
             printf 'Name = {name}\\nMode = switch\\nDeviceType = tap\\nInterface = tinc0\\nAddressFamily = ipv4\\n{dial}' >tinc.conf &&
             printf 'Address = {address}\\nCipher = aes-128-cbc\\nDigest = sha1\\n' >hosts/{name} &&
             printf '#!/bin/sh\\nip link set tinc0 mtu {MTU} master {BRIDGE} up\\n' >tinc-up && chmod +x tinc-up &&
             tincd -c /run/tinc -K 2048 </dev/null"
        ))?;
    }
    let [h1, h2] = lab.hosts() else { anyhow::bail!("two hosts are needed") };
    for (from, to) in [(h1, h2), (h2, h1)] {
        let file = format!("/run/tinc/hosts/{}", from.name());
        let key = from.run(["cat", &file])?;
        to.feed(["tee", &file], key.as_bytes())?;
    }
    for host in [h2, h1] {
        let daemon = ["tincd", "-c", "/run/tinc", "-D", "--pidfile=/run/tinc.pid"];
        let mut daemon = host.spawn(daemon, "tinc.log")?;
        ensure!(daemon.wait(Duration::from_millis(300)).is_none(), "tincd ended: {}", daemon.log_text());
    }
    Ok(ends)
}
