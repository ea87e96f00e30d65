//! The founder: an agent and a controller in one process, the one place that knows both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ipnet::IpNet;
use tokio::sync::watch;
use weft_agent::deciding::NewKey;
use weft_agent::state::{Identity, StateDir, StateError};
use weft_agent::{deciding, service, setup};
use weft_api::decision::{Decision, DecisionKey};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{HostId, HostKey, MeshKey, NetworkId};
use weft_api::network::check_network_name;
use weft_api::request::{NewToken, TokenMade};
use weft_api::roster::{Cipher, MeshRecord, RosterRecord};
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::Succession;
use weft_client::Admin;
use weft_controller::{Controller, ControllerKeys, Founding, Rotation, signing_key, system_clock};

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
    finish_rotation(state)?;
    let keys = ControllerKeys { mesh_key: state.mesh_key()?, host_key: state.host_key()? };
    let controller = Controller::open(state.path(), keys, system_clock())?;
    Ok(Some(Arc::new(Here { controller, state: state.clone() })))
}

/// A rotation of the mesh key that was cut off is finished if the new key has signed, and undone if not. The directory is locked.
pub fn finish_rotation(state: &StateDir) -> anyhow::Result<()> {
    let Some(next) = state.next_mesh_key()? else { return Ok(()) };
    if signing_key(state.path())? == Some(MeshKey(next.public())) {
        state.take_next_mesh_key()?;
    } else {
        state.drop_next_mesh_key()?;
    }
    Ok(())
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
struct Here {
    controller: Controller,
    state: StateDir,
}

impl deciding::Controller for Here {
    fn routes(&self) -> axum::Router {
        self.controller.routes()
    }

    fn decides(&self) -> bool {
        self.controller.decides()
    }

    fn signs(&self) -> bool {
        self.controller.signs()
    }

    /// The new key lies on the disk before it signs, and takes the old one's place once what it has signed lies there too.
    fn rotate(&self) -> Result<NewKey, ApiError> {
        let internal = |e: StateError| ApiError::new(ErrorKind::Internal, e.to_string());
        let next = self.state.next_mesh_key_or_new().map_err(internal)?;
        let rotated = self.controller.rotate(next);
        // After an error of the disk only the next start can tell which key counts.
        if rotated.as_ref().is_err_and(|e| e.kind != ErrorKind::Internal) {
            self.state.drop_next_mesh_key().map_err(internal)?;
        }
        let Rotation { key, number, signers } = rotated?;
        self.state.take_next_mesh_key().map_err(internal)?;
        Ok(NewKey { key, number, signers })
    }

    fn successions(&self) -> Vec<Signed<Succession>> {
        self.controller.successions()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.controller.changes()
    }

    fn decisions(&self) -> Vec<Signed<Decision>> {
        self.controller.decisions()
    }

    fn roster(&self) -> Vec<Signed<RosterRecord>> {
        self.controller.roster()
    }

    fn observe(&self, host: HostId, routes: Vec<IpNet>, endpoints: BTreeMap<NetworkId, usize>) {
        self.controller.observe(host, routes, endpoints);
    }

    fn hear(
        &self,
        roster: &BTreeMap<HostId, RosterRecord>,
        decisions: &BTreeMap<DecisionKey, Decision>,
    ) -> Result<usize, ApiError> {
        self.controller.hear(roster.values(), decisions.values())
    }

    fn set_addresses(&self, addresses: Vec<SocketAddr>) -> Result<(), ApiError> {
        self.controller.set_addresses(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder() -> (tempfile::TempDir, StateDir) {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::new(temp.path().join("weft"));
        drop(state.lock().unwrap());
        let args = Init {
            name: None,
            port: 6783,
            advertise: Vec::new(),
            cipher: Some(Cipher::Aes256Gcm),
            mesh_name: None,
            no_start: true,
        };
        found(&state, &args, "quiet-fox", "h1", &[]).unwrap();
        (temp, state)
    }

    fn open(state: &StateDir) -> Arc<dyn deciding::Controller> {
        controller(state, &state.member().unwrap()).unwrap().unwrap()
    }

    fn files(state: &StateDir) -> Vec<String> {
        let files = std::fs::read_dir(state.path()).unwrap().map(|f| f.unwrap().file_name());
        let mut files: Vec<String> = files.map(|f| f.into_string().unwrap()).collect();
        files.sort();
        files
    }

    /// What lies on the disk when the process is killed after each step of a rotation.
    #[test]
    fn a_rotation_that_was_cut_off_is_undone_or_finished() {
        let (_temp, state) = founder();
        let before = files(&state);
        let old = state.mesh_key().unwrap().public();

        state.next_mesh_key_or_new().unwrap();
        assert_eq!(open(&state).successions().len(), 0, "the new key has signed nothing: undone");
        assert_eq!((state.mesh_key().unwrap().public(), files(&state)), (old, before.clone()));

        let next = state.next_mesh_key_or_new().unwrap();
        let (public, seed) = (next.public(), *next.seed());
        let keys =
            ControllerKeys { mesh_key: state.mesh_key().unwrap(), host_key: state.host_key().unwrap() };
        Controller::open(state.path(), keys, system_clock()).unwrap().rotate(next).unwrap();
        assert_eq!(state.mesh_key().unwrap().public(), old);
        let opened = open(&state);
        assert!(opened.signs() && opened.successions().len() == 1, "it has signed: finished");
        assert_eq!((state.mesh_key().unwrap().public(), files(&state)), (public, before.clone()));
        assert_eq!(state.mesh_key().unwrap().seed(), &seed);

        let made = opened.rotate().unwrap();
        assert_eq!((made.number, made.signers.len()), (2, 0));
        drop(opened);
        assert_eq!(MeshKey(state.mesh_key().unwrap().public()), made.key);
        assert_eq!(files(&state), before, "nothing is left of the old key");
        assert!(open(&state).signs());
    }
}
