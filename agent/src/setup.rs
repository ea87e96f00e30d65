//! Before the first `weft up`: what a machine must have, what it is called, where it is reached, and joining a mesh.

use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use thiserror::Error;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{HostKey, MeshId};
use weft_api::network::{NameError, check_host_name};
use weft_api::token::Token;
use weft_docker_engine::{Engine, EngineError};
use weft_router_io::bridge::{BridgeError, Bridges};
use weft_router_io::join::{JoinError, join as ask_to_join};
use weft_router_io::node::StoredRecord;

use crate::facts::reachable_at;
use crate::state::{Identity, LedgerError, StateDir, StateError};

/// The UDP port unless `--port` says otherwise.
pub const DEFAULT_PORT: u16 = 6783;

/// Why a host cannot be set up. Nothing was changed.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Bridges and taps are root's.
    #[error("weft needs root: run it as root (sudo weft ...)")]
    NotRoot,
    /// No taps.
    #[error(
        "/dev/net/tun cannot be opened ({0}): load the kernel module (modprobe tun), or give this machine the device"
    )]
    NoTun(io::Error),
    /// No usable name.
    #[error("{0} (weft takes the hostname; --name chooses another)")]
    Name(#[from] NameError),
    /// Docker is there, but of no use.
    #[error(transparent)]
    Docker(EngineError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// What this host must remember.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The machine's addresses.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The mesh does not want this host, or was not found.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// In another mesh already.
    #[error("this host is in the mesh \"{mesh}\" already, and {other}: run weft leave first")]
    OtherMesh {
        /// Where it is.
        mesh: String,
        /// What was wanted.
        other: &'static str,
    },
}

/// Root, and taps.
pub fn check_machine() -> Result<(), SetupError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SetupError::NotRoot);
    }
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    tun.map(drop).map_err(SetupError::NoTun)
}

/// Which protocol's port of this number, `UDP` or `TCP`, something has already.
#[must_use]
pub fn taken_port(port: u16) -> Option<&'static str> {
    let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    let taken = |bound: io::Result<()>| bound.is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse);
    if taken(UdpSocket::bind(any).map(drop)) {
        Some("UDP")
    } else {
        taken(TcpListener::bind(any).map(drop)).then_some("TCP")
    }
}

/// The version of this machine's engine; `None` with the reason in words if it does not answer, which is no error. One that is
/// too old, or not of this machine, is.
pub async fn docker_version() -> Result<Result<String, String>, SetupError> {
    match Engine::connect().await {
        Ok(engine) => Ok(Ok(engine.version().engine.clone())),
        Err(e @ (EngineError::TooOld { .. } | EngineError::NotLocal { .. })) => Err(SetupError::Docker(e)),
        Err(e) => Ok(Err(e.to_string())),
    }
}

/// What this host is called: as wished, or else as the machine is, without its domain.
pub fn host_name(wish: Option<&str>) -> Result<String, SetupError> {
    let name = match wish {
        Some(wish) => wish.to_owned(),
        None => {
            let machine = rustix::system::uname();
            let name = machine.nodename().to_string_lossy();
            name.split('.').next().unwrap_or_default().to_owned()
        }
    };
    check_host_name(&name)?;
    Ok(name)
}

/// Where others can reach this host; the address of the default route first.
pub async fn addresses(advertise: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, SetupError> {
    let mut interfaces = Bridges::open()?.host_addresses().await?;
    if let Some(first) = outward() {
        interfaces.sort_by_key(|ip| *ip != first);
    }
    Ok(reachable_at(advertise, &interfaces, port))
}

/// The address that this machine would use to reach the world; nothing is sent.
fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // TEST-NET-3 (RFC 5737): no machine has it, so the default route decides.
    socket.connect(("203.0.113.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

/// What a host that joins may choose.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Its name; absent: the machine's.
    pub name: Option<String>,
    /// Its UDP port.
    pub port: u16,
    /// Where others can reach it, if not at the addresses of its interfaces.
    pub advertise: Vec<IpAddr>,
}

/// A host has joined.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its place in the mesh.
    pub identity: Identity,
    /// Who was asked.
    pub member: String,
    /// The round trip to it.
    pub rtt: Duration,
    /// What it answered by: `UDP` or `TCP`.
    pub transport: &'static str,
}

/// Asks the member at `address` to let this host into the token's mesh. `state` is locked by the caller and holds no member.
pub async fn join(
    state: &StateDir,
    address: SocketAddr,
    token: &Token,
    choices: Choices,
) -> Result<Joined, SetupError> {
    let name = host_name(choices.name.as_deref())?;
    let fresh = state.is_empty();
    let key = state.host_key_or_new()?;
    let joined = match ask_to_join(address, token, &key, &name).await {
        Ok(joined) => joined,
        Err(e) => {
            if fresh && is_final(&e) {
                state.clear()?;
            }
            return Err(e.into());
        }
    };
    let ledger = state.create_ledger(joined.mesh.mesh)?;
    let successions = joined.admitted.successions.iter().zip(1..);
    let successions = successions.map(|(signed, number)| StoredRecord::Succession(number, signed.clone()));
    let signer = joined.chain.current();
    let roster = joined.admitted.roster.iter().filter_map(|signed| {
        let record = signed.verify(&signer.0).ok()?;
        Some(StoredRecord::Roster(record.key.id(), signed.clone()))
    });
    ledger.save(&successions.chain(roster).collect::<Vec<_>>())?;
    let mut identity =
        Identity::new(joined.mesh, joined.mesh_key, joined.own.name, HostKey(key.public()), choices.port);
    identity.advertise = choices.advertise;
    identity.dial = vec![(joined.member.key.id(), joined.address)];
    state.enrol(&identity)?;
    Ok(Joined { identity, member: joined.member.name, rtt: joined.rtt, transport: joined.transport })
}

/// Whether this host may join the token's mesh: `Some` if it is in it already.
pub fn place_in(state: &StateDir, mesh: MeshId) -> Result<Option<Identity>, SetupError> {
    match state.identity()? {
        Some(identity) if identity.mesh.mesh == mesh => Ok(Some(identity)),
        Some(identity) => {
            Err(SetupError::OtherMesh { mesh: identity.mesh.name, other: "the token is for another one" })
        }
        None => Ok(None),
    }
}

/// After these the mesh does not know this host's key; after others it may, and asks for the same key again.
fn is_final(error: &JoinError) -> bool {
    match error {
        JoinError::Refused(ApiError { kind, .. }) => {
            !matches!(kind, ErrorKind::Unavailable | ErrorKind::Internal)
        }
        JoinError::Unreachable { .. } | JoinError::BadAnswer { .. } => false,
        JoinError::NotAMember { .. }
        | JoinError::WrongMesh { .. }
        | JoinError::NotProven { .. }
        | JoinError::Socket(_)
        | JoinError::Settings(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wished_name_is_checked_and_the_machines_is_taken_without_its_domain() {
        assert_eq!(host_name(Some("berlin1")).unwrap(), "berlin1");
        let error = host_name(Some("not a name")).unwrap_err().to_string();
        assert!(error.contains("not a name") && error.contains("--name"), "{error}");
        assert!(host_name(None).is_err() || !host_name(None).unwrap().contains('.'));
    }

    #[test]
    fn a_key_that_the_mesh_may_know_is_kept() {
        let address = SocketAddr::from(([192, 0, 2, 1], DEFAULT_PORT));
        assert!(!is_final(&JoinError::Unreachable { address }));
        let refused = |kind| JoinError::Refused(ApiError::new(kind, "no"));
        assert!(!is_final(&refused(ErrorKind::Unavailable)));
        assert!(is_final(&refused(ErrorKind::Forbidden)));
    }
}
