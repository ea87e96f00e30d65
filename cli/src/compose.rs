//! The founder: an agent and a controller in one process, the one place that knows both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ipnet::IpNet;
use tokio::sync::watch;
use weft_agent::state::{Identity, StateDir, StateError};
use weft_agent::{deciding, service, setup};
use weft_api::decision::{Decision, DecisionKey};
use weft_api::error::ApiError;
use weft_api::id::{HostId, HostKey, MeshKey, NetworkId};
use weft_api::network::check_network_name;
use weft_api::request::{NewToken, TokenMade};
use weft_api::roster::{Cipher, MeshRecord, RosterRecord};
use weft_api::sign::{Signed, SigningKey};
use weft_client::Admin;
use weft_controller::{Controller, ControllerKeys, Founding, system_clock};

use crate::args::Init;
use crate::{Done, mesh_name, show, token};

/// `weft init`
pub async fn init(state: &StateDir, admin: &Admin, args: Init) -> Done {
    setup::check_machine()?;
    let lock = match state.lock() {
        Ok(lock) => lock,
        // Its daemon runs: a founder that is asked again tells how it is.
        Err(StateError::InUse(_)) if admin.answers().await => {
            return again(state, admin, args.no_start).await;
        }
        Err(e) => return Err(e.into()),
    };
    if state.identity()?.is_some() {
        drop(lock);
        return again(state, admin, args.no_start).await;
    }
    let docker = setup::docker_version().await?;
    let host = setup::host_name(args.name.as_deref())?;
    let mesh = new_mesh_name(args.mesh_name.as_deref())?;
    let addresses = setup::addresses(&args.advertise, args.port).await?;
    let fresh = state.is_empty();
    let founded = found(state, &args, &mesh, &host, &addresses);
    if founded.is_err() && fresh {
        state.clear()?;
    }
    let made = founded?;
    drop(lock);
    println!("  Mesh \"{mesh}\" made. This host is {host} (founder).");
    println!("{}", docker_line(&docker));
    if let Some(protocol) = setup::taken_port(args.port) {
        println!(
            "  {protocol} port {} is taken by another program: stop it, or choose another: weft up --port N.",
            args.port
        );
    }
    print!("{}", token::invitation(addresses.first().copied(), &made.token, "valid 24 h; weft token new"));
    println!("{}", start(state, admin, args.no_start).await);
    Ok(ExitCode::SUCCESS)
}

/// The controller of this host, if it founded its mesh or signs for it.
pub fn controller(
    state: &StateDir,
    identity: &Identity,
) -> anyhow::Result<Option<Arc<dyn deciding::Controller>>> {
    if !identity.founder && !identity.signer {
        return Ok(None);
    }
    let keys = ControllerKeys { mesh_key: state.mesh_key()?, host_key: state.host_key()? };
    let controller = Controller::open(state.path(), keys, system_clock())?;
    Ok(Some(Arc::new(Here(controller))))
}

/// What a person reads about Docker after `init` and `join`.
pub fn docker_line(docker: &Result<String, String>) -> String {
    match docker {
        Ok(version) => format!("  Docker {version}: driver weft ready."),
        Err(why) => format!("  {why}."),
    }
}

/// Starts the service, where systemd runs the machine; the last line of `init` and `join`.
pub async fn start(state: &StateDir, admin: &Admin, no_start: bool) -> String {
    if no_start || !service::systemd_runs() {
        return "  Start it: weft up".to_owned();
    }
    match service::install(state, admin).await {
        Ok(()) => format!("  {} runs, now and after every boot.", service::SERVICE),
        Err(e) => format!("  The service does not run ({e}).  Start it: weft up"),
    }
}

async fn again(state: &StateDir, admin: &Admin, no_start: bool) -> Done {
    let identity = state.member()?;
    if !identity.founder {
        anyhow::bail!(
            "this host is in the mesh \"{}\" already, as {}: run weft leave first, to make one of its own",
            identity.mesh.name,
            identity.host
        );
    }
    println!("  This host is {} (founder) of the mesh \"{}\" already.", identity.host, identity.mesh.name);
    if let Ok(status) = admin.status().await {
        print!("{}", show::verdict(&status));
    } else {
        println!("{}", start(state, admin, no_start).await);
    }
    Ok(ExitCode::SUCCESS)
}

fn found(
    state: &StateDir,
    args: &Init,
    mesh: &str,
    host: &str,
    addresses: &[SocketAddr],
) -> anyhow::Result<TokenMade> {
    let host_key = state.host_key_or_new()?;
    let key = HostKey(host_key.public());
    let mesh_key = state.new_mesh_key()?;
    let public = MeshKey(mesh_key.public());
    let cipher = args.cipher.unwrap_or_else(fastest);
    let founding = Founding {
        mesh_name: mesh.to_owned(),
        cipher,
        host_name: host.to_owned(),
        addresses: addresses.to_vec(),
    };
    let keys = ControllerKeys { mesh_key, host_key: SigningKey::from_seed(*host_key.seed()) };
    let controller = Controller::found(state.path(), keys, founding, system_clock())?;
    let made = controller.new_token(NewToken::default())?;
    let record = MeshRecord { mesh: public.id(), name: mesh.to_owned(), cipher };
    state.create_ledger(record.mesh)?;
    let mut identity = Identity::new(record, public, host.to_owned(), key, args.port);
    identity.founder = true;
    identity.advertise = args.advertise.clone();
    state.enrol(&identity)?;
    Ok(made)
}

fn new_mesh_name(wish: Option<&str>) -> anyhow::Result<String> {
    if let Some(wish) = wish {
        // The same letters as any other name.
        check_network_name(wish)
            .ok()
            .with_context(|| format!("\"{wish}\" cannot be a mesh's name: use 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or digit"))?;
        return Ok(wish.to_owned());
    }
    let mut seed = [0; 2];
    aws_lc_rs::rand::fill(&mut seed)
        .ok()
        .context("this machine gives no random numbers: check /dev/urandom")?;
    Ok(mesh_name::of(seed))
}

/// AEGIS-128L needs the AES instructions of the CPU to be fast.
fn fastest() -> Cipher {
    #[cfg(target_arch = "x86_64")]
    let aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let aes = false;
    if aes { Cipher::Aegis128L } else { Cipher::ChaCha20Poly1305 }
}

/// The controller as the agent sees it.
struct Here(Controller);

impl deciding::Controller for Here {
    fn routes(&self) -> axum::Router {
        self.0.routes()
    }

    fn decides(&self) -> bool {
        self.0.decides()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    fn decisions(&self) -> Vec<Signed<Decision>> {
        self.0.decisions()
    }

    fn roster(&self) -> Vec<Signed<RosterRecord>> {
        self.0.roster()
    }

    fn observe(&self, host: HostId, routes: Vec<IpNet>, endpoints: BTreeMap<NetworkId, usize>) {
        self.0.observe(host, routes, endpoints);
    }

    fn hear(
        &self,
        roster: &BTreeMap<HostId, RosterRecord>,
        decisions: &BTreeMap<DecisionKey, Decision>,
    ) -> Result<usize, ApiError> {
        self.0.hear(roster.values(), decisions.values())
    }

    fn set_addresses(&self, addresses: Vec<SocketAddr>) -> Result<(), ApiError> {
        self.0.set_addresses(addresses)
    }
}
