//! weft as services of systemd: the daemon, and the socket that Docker connects to, which goes on listening while the daemon
//! restarts. `weft init` and `weft join` write the units, `weft leave` removes them.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;
use weft_client::Admin;
use weft_docker_plugin::SOCKET as PLUGIN_SOCKET;

use crate::program::first_line;
use crate::state::{DEFAULT_DIR, StateDir};

/// The daemon's unit.
pub const SERVICE: &str = "weft.service";

/// The unit of Docker's plugin socket.
pub const SOCKET: &str = "weft-plugin.socket";

/// There while systemd is process 1 (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Where an administrator's units are.
const UNITS: &str = "/etc/systemd/system";

/// How long systemctl may take; stopping the daemon is part of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that was started answers within this.
const START: Duration = Duration::from_secs(10);

/// Between two questions whether it answers.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the services are not as wished.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// A unit cannot be written or removed.
    #[error("{}: {source}", path.display())]
    File {
        /// The unit.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a path for a unit.
    #[error("the path {} cannot be written into a systemd unit: move it to one without blanks, quotes and '%'", .0.display())]
    Path(PathBuf),
    /// systemd was asked and refused.
    #[error("systemctl {asked} failed: {said}")]
    Systemctl {
        /// What it was asked.
        asked: String,
        /// Its words.
        said: String,
    },
    /// The daemon was started and says nothing.
    #[error("{SERVICE} does not answer within {} s: see journalctl -u {SERVICE}", START.as_secs())]
    Silent,
}

/// Whether systemd runs this machine.
#[must_use]
pub fn systemd_runs() -> bool {
    Path::new(BOOTED).exists()
}

/// Whether the units are there and systemd can act on them.
#[must_use]
pub fn installed() -> bool {
    systemd_runs() && Path::new(UNITS).join(SERVICE).exists()
}

/// Writes the units, starts them now and at every boot, and waits for the daemon's first answer.
pub async fn install(state: &StateDir, admin: &Admin) -> Result<(), ServiceError> {
    let binary = std::env::current_exe()
        .map_err(|source| ServiceError::File { path: "/proc/self/exe".into(), source })?;
    for (name, text) in units(&binary, state.path())? {
        let path = Path::new(UNITS).join(name);
        std::fs::write(&path, text).map_err(|source| ServiceError::File { path, source })?;
    }
    systemctl(&["daemon-reload"]).await?;
    systemctl(&["enable", "--now", SOCKET, SERVICE]).await?;
    answered(admin).await
}

/// Starts what is installed.
pub async fn start(admin: &Admin) -> Result<(), ServiceError> {
    systemctl(&["start", SOCKET, SERVICE]).await?;
    answered(admin).await
}

/// Opens the socket anew and starts the daemon with it.
pub async fn restart(admin: &Admin) -> Result<(), ServiceError> {
    systemctl(&["restart", SOCKET, SERVICE]).await?;
    answered(admin).await
}

/// Lets Docker connect again after [`stop`]; the daemon starts when it does.
pub async fn listen() -> Result<(), ServiceError> {
    systemctl(&["start", SOCKET]).await
}

/// Stops both, so that somebody else can answer Docker.
pub async fn stop() -> Result<(), ServiceError> {
    systemctl(&["stop", SOCKET, SERVICE]).await
}

/// Stops and removes both; absent is no error.
pub async fn remove() -> Result<(), ServiceError> {
    systemctl(&["disable", "--now", SOCKET, SERVICE]).await?;
    for name in [SOCKET, SERVICE] {
        let path = Path::new(UNITS).join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ServiceError::File { path, source });
            }
            _ => {}
        }
    }
    systemctl(&["daemon-reload"]).await?;
    // A unit that failed would stay in systemd's list; one that did not is no error worth telling.
    let _not_failed = systemctl(&["reset-failed", SOCKET, SERVICE]).await;
    Ok(())
}

async fn answered(admin: &Admin) -> Result<(), ServiceError> {
    let asked = async {
        while admin.status().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(START, asked).await.map_err(|_| ServiceError::Silent)
}

async fn systemctl(arguments: &[&str]) -> Result<(), ServiceError> {
    let failed = |said: String| ServiceError::Systemctl { asked: arguments.join(" "), said };
    let ended = Command::new("systemctl").args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, ended)
        .await
        .map_err(|_| failed(format!("no end within {} s", PATIENCE.as_secs())))?
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(first_line(&output.stderr)))
}

/// The units by name. Docker waits for ever for a socket where nobody answers: a daemon that cannot start gives up after half a
/// minute, and then systemd closes the socket too. No option that gives the daemon mounts of its own: it enters the namespaces of
/// containers that start later.
fn units(binary: &Path, state: &Path) -> Result<[(&'static str, String); 2], ServiceError> {
    let (binary, dir) = (plain(binary)?, plain(state)?);
    let option = if state == Path::new(DEFAULT_DIR) { String::new() } else { format!(" --state {dir}") };
    let socket = format!(
        "# Written by weft init or weft join; weft leave removes it.
[Unit]
Description=Docker's plugin socket of weft
Before=docker.service
ConditionPathExists={dir}/mesh.json

[Socket]
ListenStream={PLUGIN_SOCKET}
SocketMode=0600
RemoveOnStop=yes
Service={SERVICE}

[Install]
WantedBy=sockets.target
"
    );
    let service = format!(
        "# Written by weft init or weft join; weft leave removes it. Settings of your own: systemctl edit weft
[Unit]
Description=weft: several Docker hosts, one encrypted Ethernet
Requires={SOCKET}
After={SOCKET} network.target
Before=docker.service
ConditionPathExists={dir}/mesh.json
StartLimitIntervalSec=120
StartLimitBurst=20

[Service]
ExecStart={binary} up{option}
EnvironmentFile=-/etc/default/weft
Restart=always
RestartSec=1
TimeoutStopSec=10
OOMScoreAdjust=-500
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"
    );
    Ok([(SOCKET, socket), (SERVICE, service)])
}

/// A path that means itself in every line of a unit.
fn plain(path: &Path) -> Result<&str, ServiceError> {
    let is_plain = |text: &&str| {
        text.starts_with('/') && text.chars().all(|c| c.is_alphanumeric() || "/._-+@:,~".contains(c))
    };
    OsStr::to_str(path.as_os_str()).filter(is_plain).ok_or_else(|| ServiceError::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_name_the_binary_and_the_directory() {
        let [(_, socket), (_, service)] =
            units(Path::new("/usr/local/bin/weft"), Path::new(DEFAULT_DIR)).unwrap();
        assert!(service.contains("\nExecStart=/usr/local/bin/weft up\n"), "{service}");
        assert!(
            service.contains("\nBefore=docker.service\n") && !service.contains("After=docker"),
            "{service}"
        );
        assert!(socket.contains("\nListenStream=/run/docker/plugins/weft.sock\n"), "{socket}");
        let [(_, socket), (_, service)] = units(Path::new("/opt/weft"), Path::new("/srv/weft")).unwrap();
        assert!(service.contains("\nExecStart=/opt/weft up --state /srv/weft\n"), "{service}");
        assert!(socket.contains("\nConditionPathExists=/srv/weft/mesh.json\n"), "{socket}");
    }

    #[test]
    fn a_path_that_a_unit_would_read_otherwise_is_refused() {
        for path in ["/a b/weft", "weft", "/a%n/weft", "/a\nExecStartPre=/bin/sh", "/a\"b", "/$HOME/weft"] {
            assert!(plain(Path::new(path)).is_err(), "{path:?}");
        }
    }
}
