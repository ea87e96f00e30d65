//! The daemon of this host, its port, Docker and the socket that Docker reaches it by.

use weft_api::report::Status;
use weft_client::Admin;
use weft_docker_engine::Engine;
use weft_docker_plugin::SOCKET as PLUGIN;

use super::{Doctor, Health};
use crate::state::{Identity, StateDir, StateError};
use crate::{service, setup};

impl Doctor {
    pub(super) fn mesh(&mut self, state: &StateDir) -> Option<Identity> {
        match state.member() {
            Ok(identity) => {
                self.ok("mesh", format!("{} of \"{}\"", identity.host, identity.mesh.name));
                Some(identity)
            }
            Err(e @ StateError::NoMesh(_)) => {
                self.warning("mesh", e);
                None
            }
            Err(e) => {
                self.problem("mesh", e);
                None
            }
        }
    }

    /// The daemon and its port.
    pub(super) async fn daemon(&mut self, admin: &Admin, identity: &Identity) -> Option<Status> {
        let mut health = Health::Ok;
        if !admin.answers().await {
            if let Some(protocol) = setup::taken_port(identity.port) {
                let port = identity.port;
                self.problem("port", format!("another program has {protocol} port {port}: stop it (ss -tulpn lists it), or choose another: weft up --port N"));
            }
            if !service::installed() {
                self.problem("daemon", "weft up is not running: start it");
                return None;
            }
            if !self.fix {
                self.problem(
                    "daemon",
                    "weft.service is not running: systemctl start weft, or weft doctor --fix",
                );
                return None;
            }
            if let Err(e) = service::start(admin).await {
                self.problem("daemon", e);
                return None;
            }
            health = Health::Mended;
        }
        match admin.status().await {
            Ok(status) => {
                self.say(
                    "daemon",
                    health,
                    format!("weft {} runs, on UDP and TCP port {}", status.version, identity.port),
                );
                self.plugin(admin).await;
                Some(status)
            }
            Err(e) => {
                self.problem("daemon", e.message);
                None
            }
        }
    }

    /// Docker dials this socket: somebody may have removed it under a daemon that runs.
    async fn plugin(&mut self, admin: &Admin) {
        let Err(e) = tokio::net::UnixStream::connect(PLUGIN).await else {
            return self.ok("plugin", format!("Docker can reach it on {PLUGIN}"));
        };
        let wrong = format!("Docker cannot reach weft on {PLUGIN} ({e})");
        if !service::installed() {
            self.problem("plugin", format!("{wrong}: stop weft up and start it again"));
        } else if self.fix {
            let mended = service::restart(admin).await;
            self.mended("plugin", &wrong, mended);
        } else {
            self.problem(
                "plugin",
                format!("{wrong}: systemctl restart weft-plugin.socket weft, or weft doctor --fix"),
            );
        }
    }

    pub(super) async fn docker(&mut self) -> Option<Engine> {
        match setup::docker_version().await {
            Ok(Ok(version)) => self.ok("docker", format!("Docker {version} answers")),
            Ok(Err(e)) => {
                self.problem("docker", e);
                return None;
            }
            Err(e) => {
                self.problem("docker", e);
                return None;
            }
        }
        let engine = Engine::connect().await.ok()?;
        match engine.live_restore().await {
            Ok(true) => self.ok("live-restore", "containers run on while Docker restarts"),
            Ok(false) => self.warning(
                "live-restore",
                "containers end when Docker restarts: write \"live-restore\": true into /etc/docker/daemon.json and reload Docker (kill -HUP of dockerd)",
            ),
            Err(e) => self.warning("live-restore", e),
        }
        Some(engine)
    }

    /// What the daemon itself finds wrong.
    pub(super) fn told(&mut self, status: &Status) {
        match status.offloads.ok {
            true => self.ok("offloads", format!("the kernel grants {}", status.offloads.text)),
            false => self.warning(
                "offloads",
                format!("slower than it could be, {}: a newer kernel has them", status.offloads.text),
            ),
        }
        if !status.controller.ok {
            self.problem("controller", &status.controller.text);
        }
        for problem in &status.problems {
            self.problem("network", problem);
        }
    }
}
