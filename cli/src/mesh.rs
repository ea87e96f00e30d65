//! `weft mesh`: the keys of the sessions, and the key that signs for the mesh.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use weft_agent::state::{StateDir, StateError, sealed};
use weft_api::id::MeshKey;
use weft_api::report::Rekeyed;
use weft_api::roster::RosterRecord;
use weft_client::Admin;
use weft_controller::{Controller, ControllerKeys, system_clock};
use zeroize::Zeroizing;

use crate::Done;
use crate::args::MeshKeyFile;

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

/// `weft mesh key export`
pub fn export(state: &StateDir, args: &MeshKeyFile) -> Done {
    let identity = state.member()?;
    ensure!(
        identity.founder || identity.signer,
        "this host does not hold the mesh key: run weft mesh key export on the founder or on another signer (weft hosts)"
    );
    let key = state.mesh_key()?;
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
    if identity.founder || identity.signer {
        println!("  This host holds the mesh key of \"{}\" already.", identity.mesh.name);
        return Ok(ExitCode::SUCCESS);
    }
    let text = read(&args.file)?;
    let _lock = match state.lock() {
        Err(StateError::InUse(_)) => bail!(
            "weft up is running here: stop it (systemctl stop weft, or Ctrl-C), import the key, and start it again"
        ),
        lock => lock?,
    };
    let mesh_key = sealed::open(&text, identity.mesh.mesh, &passphrase(args, false)?)?;
    ensure!(
        MeshKey(mesh_key.public()) == identity.mesh_key,
        "the file holds another key than the one that signs for \"{}\"",
        identity.mesh.name
    );
    let stored = state.open_ledger(identity.mesh.mesh)?.stored()?;
    let roster: Vec<RosterRecord> =
        stored.roster.iter().filter_map(|signed| signed.verify(&identity.mesh_key.0).ok()).collect();
    state.take_mesh_key(&mesh_key)?;
    let keys = ControllerKeys { mesh_key, host_key: state.host_key()? };
    drop(Controller::appoint(state.path(), keys, identity.mesh.clone(), roster, system_clock())?);
    identity.signer = true;
    state.enrol(&identity)?;
    println!("  This host signs for \"{}\" too, from the next weft up on.", identity.mesh.name);
    Ok(ExitCode::SUCCESS)
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
    fn a_line_a_host() {
        let host =
            |sessions, why: Option<&str>| Rekeyed { host: "h1".into(), sessions, why: why.map(Into::into) };
        assert_eq!(line(&host(Some(1), None)), "h1: 1 session");
        assert_eq!(line(&host(Some(0), None)), "h1: 0 sessions");
        assert_eq!(line(&host(None, Some("it is away"))), "h1: not asked: it is away");
    }
}
