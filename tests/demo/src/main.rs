//! `make demo`: three Docker hosts on this machine become one encrypted Ethernet, and everything that matters is tried on it.

mod scenes;
mod stage;

use std::{path::Path, process::ExitCode};

use clap::Parser;
use weft_lab::{Lab, Mesh};

use crate::{
    scenes::{Container, NETWORK},
    stage::Stage,
};

/// Three Docker hosts on this machine, one encrypted network between their containers; under five minutes.
///
/// The hosts are network namespaces with Docker engines of their own; this machine's own engine and firewall are
/// not touched, and everything is removed at the end.
#[derive(Parser)]
#[command(name = "weft-demo", version)]
struct Cli {
    /// Leave the hosts up, and say what to try
    #[arg(long)]
    keep: bool,
}

/// The name of the lab, and so what `weft-lab --name` takes.
const LAB: &str = "demo";

fn main() -> ExitCode {
    match run(Cli::parse().keep) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("weft-demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(keep: bool) -> anyhow::Result<bool> {
    let mut stage = Stage::new();
    let lab = stage.prepare("three hosts, each with a Docker engine of its own", || {
        Ok(Lab::builder().name(LAB).hosts(3).up()?)
    })?;
    play(&mut stage, &lab)?;
    let ok = stage.close();
    if keep {
        lab.keep()?;
        println!("{}", what_to_try());
    }
    Ok(ok)
}

fn play(stage: &mut Stage, lab: &Lab) -> anyhow::Result<()> {
    let mut mesh =
        stage.prepare("h1: weft init; h2, h3: weft join; all: weft up", || Ok(Mesh::up(lab, &[])?))?;
    stage.prepare("h1: weft network create app", || Ok(mesh.network(&[NETWORK])?))?;
    let all = stage.prepare("h1, h2, h3: docker run -d --network app", || {
        lab.hosts()
            .iter()
            .zip(["one", "two", "three"])
            .map(|(host, name)| Container::run(host, name))
            .collect()
    });
    let all: Vec<Container<'_>> = all?;
    let [one, two, three] = &all[..] else { anyhow::bail!("three containers are needed") };
    println!();
    stage.show("ping between all pairs", || scenes::pings(&all));
    stage.show("a file from h1 to h2", || scenes::transfer(one, two));
    stage.show("one TCP stream", || scenes::throughput(lab, one, two));
    stage.show("nothing readable on the wire", || scenes::secrecy(lab, one, two));
    stage.show("power failure of h3", || scenes::power(&mut mesh, three, one));
    Ok(())
}

fn what_to_try() -> String {
    let exe = std::env::current_exe().unwrap_or_default();
    let lab = exe.parent().unwrap_or(Path::new("")).join("weft-lab");
    let lab = format!("sudo {}", lab.display());
    format!(
        "
The hosts stay up. To try:
  {lab} exec --name {LAB} h1 -- weft status
  {lab} exec --name {LAB} h1 -- weft links
  {lab} exec --name {LAB} h2 -- docker run --rm --network {NETWORK} busybox ip addr
  {lab} exec --name {LAB} h3               # a shell on h3
  {lab} cut --name {LAB} h1 h3             # nothing passes between h1 and h3; `mend` takes it back
  {lab} down --name {LAB}                  # the end"
    )
}
