//! What is there and should not be: interfaces and Docker's networks that no network of the mesh, and no container, has any more.
//! Rules are looked at with the firewall.

use weft_docker_engine::{DockerNetwork, Engine};
use weft_router_io::bridge::{BridgeError, Bridges, Ours};

use super::{Doctor, Networks};

/// What weft made on this machine.
pub(super) async fn interfaces() -> Result<(Bridges, Vec<Ours>), BridgeError> {
    let bridges = Bridges::open()?;
    let ours = bridges.list_ours().await?;
    Ok((bridges, ours))
}

impl Doctor {
    pub(super) async fn leftovers(
        &mut self,
        interfaces: Result<(Bridges, Vec<Ours>), BridgeError>,
        networks: &Networks,
        engine: Option<&Engine>,
    ) {
        let before = self.findings.len();
        match interfaces {
            Ok((bridges, ours)) => self.interfaces(&bridges, ours, networks).await,
            Err(e) => self.warning("leftovers", e),
        }
        if let Some(engine) = engine {
            match engine.networks().await {
                Ok(listed) => self.docker_networks(engine, listed, networks).await,
                Err(e) => self.warning("leftovers", e),
            }
        }
        if self.findings.len() == before {
            self.ok("leftovers", "none");
        }
    }

    async fn docker_networks(&mut self, engine: &Engine, listed: Vec<DockerNetwork>, networks: &Networks) {
        // One without our option was made by a person: only the daemon knows which network it is.
        let is_left = |docker: &DockerNetwork| match docker.network {
            Some(id) => !networks.known.contains(&id),
            None => !networks.member,
        };
        for left in listed.iter().filter(|docker| is_left(docker)) {
            let what = format!("Docker's network {} is of no network of the mesh", left.name);
            if self.fix {
                let removed = engine.remove_network(&left.id).await;
                self.mended("leftovers", &what, removed);
            } else {
                self.warning("leftovers", format!("{what}: weft doctor --fix"));
            }
        }
    }

    async fn interfaces(&mut self, bridges: &Bridges, ours: Vec<Ours>, networks: &Networks) {
        for left in ours {
            let what = match &left {
                Ours::Bridge(id) if !networks.known.contains(id) => {
                    format!("the bridge {} is of no network of the mesh", id.bridge_name())
                }
                Ours::Tap(id) if !networks.known.contains(id) => {
                    format!("the tap {} is of no network of the mesh", id.tap_name())
                }
                Ours::Veth { name, .. }
                    if networks.veths.as_ref().is_some_and(|veths| !veths.contains(name)) =>
                {
                    format!("the interface {name} is of no container")
                }
                _ => continue,
            };
            if self.fix {
                let removed = bridges.remove_leftover(&left).await;
                self.mended("leftovers", &what, removed);
            } else {
                self.warning("leftovers", format!("{what}: weft doctor --fix"));
            }
        }
    }
}
