//! fastd in tap mode with aes128-gcm, its fastest authenticated method on a processor with AES instructions.

use std::time::Duration;

use anyhow::{Context, ensure};
use weft_lab::{BRIDGE, Host, Lab};

use super::plain;
use crate::ends::Ends;

/// What fastd's manual gives for an underlay of 1500 over IPv4.
const MTU: u32 = 1426;

/// Both daemons, each the other's only peer.
pub fn up(lab: &Lab) -> anyhow::Result<Ends> {
    let ends = plain::containers(lab, MTU)?;
    let [h1, h2] = lab.hosts() else { anyhow::bail!("two hosts are needed") };
    let keys = [keys(h1)?, keys(h2)?];
    for (here, there, (secret, _), (_, public)) in
        [(h1, h2, &keys[0], &keys[1]), (h2, h1, &keys[1], &keys[0])]
    {
        let remote = there.addr();
        let config = format!(
            "log level warn;\nmode tap;\ninterface \"fastd0\";\nmtu {MTU};\nmethod \"aes128-gcm\";\nbind {}:10000;\n\
             secret \"{secret}\";\npeer \"other\" {{ key \"{public}\"; remote {remote}:10000; }}\n\
             on up \"ip link set fastd0 master {BRIDGE} up\";\n",
            here.addr()
        );
        here.feed(["tee", "/run/fastd.conf"], config.as_bytes())?;
    }
    for host in [h1, h2] {
        let mut daemon = host.spawn(["fastd", "--config", "/run/fastd.conf"], "fastd.log")?;
        ensure!(daemon.wait(Duration::from_millis(300)).is_none(), "fastd ended: {}", daemon.log_text());
    }
    Ok(ends)
}

/// Secret and public key.
fn keys(host: &Host) -> anyhow::Result<(String, String)> {
    let said = host.sh("fastd --generate-key 2>&1")?;
    let key = |name: &str| {
        let line = said.lines().find_map(|l| l.strip_prefix(name));
        line.map(|l| l.trim().to_owned()).with_context(|| format!("fastd made no {name} key: {said}"))
    };
    Ok((key("Secret:")?, key("Public:")?))
}
