//! `weft mesh`: the keys of the sessions, and the key that signs for the mesh.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use weft_agent::state::{Identity, StateDir, StateError, sealed};
use weft_api::id::MeshKey;
use weft_api::report::{Rekeyed, Rotated};
use weft_api::roster::RosterRecord;
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::{Chain, Succession};
use weft_client::Admin;
use weft_controller::{Controller, ControllerKeys, system_clock};
use zeroize::Zeroizing;

use crate::args::MeshKeyFile;
use crate::{Done, compose, show};

/// The variable that may hold the passphrase.
const PASSPHRASE: &str = "WEFT_PASSPHRASE";
/// No passphrase and no sealed key is nearly as long.
const MAX_INPUT: u64 = 4096;

pub async fn rekey(admin: &Admin, all: bool) -> Done {
    let hosts = admin.rekey(all).await?;
    for host in &hosts {
        println!("{}", line(host));
    }
    Ok(if hosts.iter().all(|h| h.why.is_none()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `weft mesh key rotate`
pub async fn rotate(admin: &Admin, json: bool) -> Done {
    let rotated = admin.rotate().await?;
    show::print(json, &rotated, rotation)
}

/// `weft mesh key export`
pub async fn export(state: &StateDir, admin: &Admin, args: &MeshKeyFile) -> Done {
    let identity = state.member()?;
    ensure!(
        identity.founder || identity.signer,
        "this host does not hold the mesh key: run weft mesh key export on the founder or on another signer (weft hosts)"
    );
    let key = state.mesh_key()?;
    ensure!(
        signs(state, admin, &identity, MeshKey(key.public())).await?,
        "this host holds an old mesh key, which was rotated: run weft mesh key export on a signer (weft hosts), and import the key here"
    );
    let passphrase = passphrase(args, true)?;
    let text = Zeroizing::new(sealed::seal(&key, identity.mesh.mesh, &passphrase)?);
    let shown = args.file.display();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
    let mut file = file.with_context(|| format!("{shown} cannot be made"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("{shown} cannot be written"))?;
    println!("  The mesh key of \"{}\" is in {shown}, under the passphrase.", identity.mesh.name);
    println!("  On another member, while weft up is stopped there:   weft mesh key import FILE");
    Ok(ExitCode::SUCCESS)
}

/// `weft mesh key import`
pub fn import(state: &StateDir, args: &MeshKeyFile) -> Done {
    let mut identity = state.member()?;
    let text = read(&args.file)?;
    let _lock = match state.lock() {
        Err(StateError::InUse(_)) => bail!(
            "weft up is running here: stop it (systemctl stop weft, or Ctrl-C), import the key, and start it again"
        ),
        lock => lock?,
    };
    let mesh_key = sealed::open(&text, identity.mesh.mesh, &passphrase(args, false)?)?;
    let name = identity.mesh.name.clone();
    let holds = identity.founder || identity.signer;
    if holds {
        compose::finish_rotation(state)?;
    }
    let stored = state.open_ledger(identity.mesh.mesh)?.stored()?;
    let chain = chain(&identity, &stored.successions)?;
    let key = MeshKey(mesh_key.public());
    if holds
        && MeshKey(state.mesh_key()?.public()) == key
        && chain.number_of(key).is_none_or(|n| n == chain.number())
    {
        println!("  This host holds the mesh key of \"{name}\" already.");
        return Ok(ExitCode::SUCCESS);
    }
    match chain.number_of(key) {
        Some(number) if number == chain.number() => {}
        Some(_) => bail!(
            "the file holds an old key of \"{name}\", which was rotated: run weft mesh key export again, on a signer (weft hosts)"
        ),
        None => bail!(
            "the file holds another key than the one that signs for \"{name}\", as far as this host has heard: if the key was rotated just now, let weft up run here until weft status is well, stop it, and import again"
        ),
    }
    let roster: Vec<RosterRecord> =
        stored.roster.iter().filter_map(|signed| signed.verify(&key.0).ok()).collect();
    ensure!(
        is_whole(&stored.successions, &roster),
        "this host has not heard yet all that the new key of \"{name}\" has signed: let weft up run here until weft status is well, stop it, and import again"
    );
    let keys = || -> anyhow::Result<ControllerKeys> {
        Ok(ControllerKeys { mesh_key: SigningKey::from_seed(*mesh_key.seed()), host_key: state.host_key()? })
    };
    if holds {
        // The tokens made here, and what was done here unheard, stay.
        state.put_next_mesh_key(&mesh_key)?;
        drop(Controller::renew(state.path(), keys()?, stored.successions, roster, system_clock())?);
        state.take_next_mesh_key()?;
    } else {
        state.take_mesh_key(&mesh_key)?;
        let mesh = identity.mesh.clone();
        drop(Controller::appoint(state.path(), keys()?, mesh, stored.successions, roster, system_clock())?);
        identity.signer = true;
        state.enrol(&identity)?;
    }
    println!("  This host signs for \"{name}\" too, from the next weft up on.");
    Ok(ExitCode::SUCCESS)
}

/// Whether a key is not known to be an old one: by the daemon if it runs, else by what the disk has.
async fn signs(state: &StateDir, admin: &Admin, identity: &Identity, key: MeshKey) -> anyhow::Result<bool> {
    if admin.answers().await {
        return Ok(admin.hosts().await?.iter().any(|host| host.this && host.signer));
    }
    let _lock = state.lock()?;
    let chain = chain(identity, &state.open_ledger(identity.mesh.mesh)?.stored()?.successions)?;
    Ok(chain.number_of(key).is_none_or(|number| number == chain.number()))
}

fn chain(identity: &Identity, successions: &[Signed<Succession>]) -> anyhow::Result<Chain> {
    Ok(Chain::verify(identity.mesh_key, successions)?)
}

/// Whether all that the last key signed again is there.
fn is_whole(successions: &[Signed<Succession>], roster: &[RosterRecord]) -> bool {
    let wanted = successions.last().and_then(|signed| signed.peek().ok()).map_or(0, |last| last.carried);
    u32::try_from(roster.iter().filter(|r| r.under.carried).count()).unwrap_or(u32::MAX) >= wanted
}

fn rotation(rotated: &Rotated) -> String {
    let mut lines = format!(
        "  The mesh has a new key, {} (rotation {}); this host has it, the old one signs nothing any more.\n",
        rotated.fingerprint, rotated.number
    );
    if !rotated.signers.is_empty() {
        let signers = rotated.signers.join(", ");
        lines += &format!(
            "  {signers} held the old key too: weft mesh key export here, weft mesh key import there.\n"
        );
    }
    if !rotated.unheard.is_empty() {
        let unheard = rotated.unheard.join(", ");
        lines += &format!(
            "  {unheard} cannot be reached: hosts that were admitted or removed there meanwhile are as before until then.\n"
        );
    }
    lines
}

/// From a file or the environment, or else asked for on the terminal; twice if it is a new one.
fn passphrase(args: &MeshKeyFile, new: bool) -> anyhow::Result<Zeroizing<String>> {
    let given = match &args.passphrase_file {
        Some(file) => Some(read(file)?),
        None => std::env::var(PASSPHRASE).ok().map(Zeroizing::new),
    };
    if let Some(given) = given {
        return Ok(Zeroizing::new(given.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let first = asked("  Passphrase: ")?;
    ensure!(!new || first == asked("  The same again: ")?, "the two passphrases differ: try again");
    Ok(first)
}

/// Asks on the terminal, without showing what is typed.
fn asked(question: &str) -> anyhow::Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    ensure!(
        stdin.is_terminal(),
        "no terminal to ask for the passphrase on: use --passphrase-file FILE, or WEFT_PASSPHRASE"
    );
    eprint!("{question}");
    let shown = tcgetattr(&stdin).context("the terminal cannot be set up")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).context("the terminal cannot be set up")?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.lock().take(MAX_INPUT).read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &shown).context("the terminal cannot be set back")?;
    eprintln!();
    read.context("the passphrase cannot be read")?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(MAX_INPUT).read_to_string(&mut text))
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(text)
}

fn line(host: &Rekeyed) -> String {
    match (host.sessions, &host.why) {
        (_, Some(why)) => format!("{}: not asked: {why}", host.host),
        (Some(1), None) => format!("{}: 1 session", host.host),
        (sessions, None) => format!("{}: {} sessions", host.host, sessions.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_says_what_to_do_next() {
        let mut rotated =
            Rotated { fingerprint: "00ff".into(), number: 1, signers: Vec::new(), unheard: Vec::new() };
        assert_eq!(rotation(&rotated).lines().count(), 1);
        (rotated.signers, rotated.unheard) = (vec!["h2".into(), "h3".into()], vec!["h3".into()]);
        let said = rotation(&rotated);
        assert!(
            said.contains("00ff") && said.contains("h2, h3 held") && said.contains("  h3 cannot"),
            "{said}"
        );
    }

    #[test]
    fn a_line_a_host() {
        let host =
            |sessions, why: Option<&str>| Rekeyed { host: "h1".into(), sessions, why: why.map(Into::into) };
        assert_eq!(line(&host(Some(1), None)), "h1: 1 session");
        assert_eq!(line(&host(Some(0), None)), "h1: 0 sessions");
        assert_eq!(line(&host(None, Some("it is away"))), "h1: not asked: it is away");
    }
}
