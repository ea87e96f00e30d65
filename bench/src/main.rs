//! `make bench`: weft beside other ways to join containers of two hosts, on one machine, in turn.

mod aead;
mod bar;
mod delay;
mod ends;
mod machine;
mod measure;
mod mesh;
mod peer;
mod probe;
mod report;
mod start;

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use weft_api::roster::Cipher;
use weft_lab::Lab;

use crate::{
    machine::Machine,
    measure::{Effort, Round},
    mesh::Part,
    peer::Peer,
    probe::Probe,
    report::Report,
};

/// weft beside raw veth, kernel VXLAN, fastd and tinc: throughput, packets, round trips and what they cost.
///
/// Needs root, Docker, iperf3, and the peers' own programs; `make bench` installs them. Two hosts, for a
/// relay three, are made for each measurement and removed after it.
#[derive(Parser)]
#[command(name = "weft-bench", version)]
struct Cli {
    /// Who is measured, in this order: veth fastd tinc vxlan weft weft-one-lane weft-relay weft-aes256
    #[arg(
        long,
        env = "PEERS",
        default_value = "veth fastd tinc vxlan weft weft-one-lane weft-relay weft-aes256"
    )]
    peers: String,
    /// How often each; the medians count
    #[arg(long, env = "ROUNDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Where the table and the numbers go
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
    /// One TCP stream over weft and over VXLAN, 20 s; fails if weft is far below what it should be
    #[arg(long)]
    short: bool,
    /// How long a container takes to start, on weft's networks and on Docker's own
    #[arg(long, conflicts_with = "short")]
    start: bool,
    /// What a host with 20 peers costs that carries nothing
    #[arg(long, conflicts_with_all = ["short", "start"])]
    idle: bool,
    /// How soon the first frame to a host without a session is there
    #[arg(long, conflicts_with_all = ["short", "start"])]
    first_frame: bool,
    #[command(subcommand)]
    command: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// One end of a measurement
    #[command(subcommand, hide = true)]
    Probe(Probe),
    /// The underlay of a lab, with a round trip
    #[command(hide = true)]
    Delay {
        /// One way
        millis: u64,
        /// How many hosts
        hosts: u8,
    },
}

/// The part of VXLAN's throughput that the short bench demands: half of what a whole one should show, since it runs beside
/// other work.
const SHORT_BAR: f64 = 0.15;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Hidden::Probe(probe)) => probe::run(probe),
        None if cli.short => short(),
        None if cli.start => ready(&[Peer::Weft]).and_then(|()| start::run()),
        Some(Hidden::Delay { millis, hosts }) => delay::run(Duration::from_millis(millis), hosts),
        None if cli.idle || cli.first_frame => {
            let parts = [(cli.idle, Part::Idle), (cli.first_frame, Part::FirstFrame)];
            let parts: Vec<Part> = parts.into_iter().filter(|(wanted, _)| *wanted).map(|(_, p)| p).collect();
            ready(&[]).and_then(|()| mesh::run(&parts, &cli.out))
        }
        None => whole(&cli.peers, cli.rounds, &cli.out)
            .and_then(|()| mesh::run(&[Part::Idle, Part::FirstFrame], &cli.out)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("weft-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn whole(peers: &str, rounds: u32, out: &Path) -> anyhow::Result<()> {
    let peers = chosen(peers)?;
    ready(&peers)?;
    let mut machine = Machine::this();
    println!("{machine}");
    let mut measured: Vec<(Peer, Vec<Round>)> = peers.iter().map(|&peer| (peer, Vec::new())).collect();
    let mut aead = Aead::default();
    let mut failed = Vec::new();
    for number in 1..=rounds {
        for (peer, done) in &mut measured {
            if failed.contains(peer) {
                continue;
            }
            machine.look()?;
            match once(*peer, Effort { warm: 1, tcp: 5, all: true }) {
                Ok(round) => {
                    println!("  {number}/{rounds}  {peer:<11}  {}", line(&round));
                    done.push(round);
                }
                Err(e) => {
                    eprintln!("  {number}/{rounds}  {peer:<11}  failed: {e:#}");
                    failed.push(*peer);
                }
            }
        }
        aead.measure(&machine)?;
    }
    let report = Report::new(now()?, machine, &measured, aead.medians());
    let base = write(&report, out)?;
    println!("\n{}\n{}.json, {}.md\n", report.markdown(), base.display(), base.display());
    print!("{}", report.ratio_lines());
    let names: Vec<&str> = failed.iter().map(|peer| peer.name()).collect();
    ensure!(failed.is_empty(), "no complete numbers for {}", names.join(" "));
    Ok(())
}

fn short() -> anyhow::Result<()> {
    let peers = [Peer::Vxlan, Peer::Weft];
    ready(&peers)?;
    let mut ratio = 0.0;
    for attempt in 1..=2 {
        let effort = Effort { warm: 1, tcp: 4, all: false };
        let [vxlan, weft] = peers.map(|peer| once(peer, effort).with_context(|| format!("measuring {peer}")));
        let (vxlan, weft) = (vxlan?, weft?);
        ratio = weft.tcp1 / vxlan.tcp1;
        println!("vxlan  {}\nweft   {}", line(&vxlan), line(&weft));
        println!(
            "ratio tcp1 weft/vxlan {ratio:.3}\nratio cpu_per_gb weft/vxlan {:.3}",
            weft.cpu_per_gb / vxlan.cpu_per_gb
        );
        if ratio >= SHORT_BAR {
            return Ok(());
        }
        if attempt == 1 {
            println!("below {SHORT_BAR}: once more");
        }
    }
    anyhow::bail!("one TCP stream over weft has {ratio:.3} of VXLAN's throughput; {SHORT_BAR} is the least")
}

/// A peer brought up, measured and removed.
fn once(peer: Peer, effort: Effort) -> anyhow::Result<Round> {
    let up = peer.up().context("cannot bring it up")?;
    measure::round(&up.ends, effort)
}

fn chosen(names: &str) -> anyhow::Result<Vec<Peer>> {
    let names = names.split([' ', ',', '\n', '\t']).filter(|name| !name.is_empty());
    let mut peers: Vec<Peer> = Vec::new();
    for name in names {
        let peer = name.parse().map_err(anyhow::Error::msg)?;
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    ensure!(!peers.is_empty(), "no peer chosen: PEERS=\"vxlan weft\", for instance");
    Ok(peers)
}

/// Everything that will be needed is here, or a sentence says what is not.
fn ready(peers: &[Peer]) -> anyhow::Result<()> {
    Lab::possible().map_err(anyhow::Error::msg)?;
    let needed =
        peers.iter().flat_map(|peer| peer.programs()).chain(&["iperf3", "busybox", "nsenter", "setpriv"]);
    for program in needed {
        let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status()?;
        ensure!(found.success(), "{program} is not installed: `make bench` installs what is missing");
    }
    Ok(())
}

/// The costs of the suites that matter here, the default first.
#[derive(Default)]
struct Aead(Vec<Vec<aead::Cost>>);

impl Aead {
    fn measure(&mut self, machine: &Machine) -> anyhow::Result<()> {
        let mut suites = vec![aead::default_suite(&machine.instructions)];
        if !suites.contains(&Cipher::Aes256Gcm) {
            suites.push(Cipher::Aes256Gcm);
        }
        self.0.push(suites.into_iter().map(aead::cost).collect::<Result<_, _>>()?);
        Ok(())
    }

    fn medians(self) -> Vec<aead::Cost> {
        let suites = self.0.first().map(Vec::len).unwrap_or_default();
        let median_of = |at: usize| {
            let mut costs: Vec<aead::Cost> = self.0.iter().map(|round| round[at].clone()).collect();
            costs.sort_by(|a, b| a.cpu_per_gb.total_cmp(&b.cpu_per_gb));
            costs.swap_remove(costs.len() / 2)
        };
        (0..suites).map(median_of).collect()
    }
}

fn line(round: &Round) -> String {
    let mut text = format!("tcp {:5.2}", round.tcp1);
    if let (Some(tcp4), Some(pps), Some(p50), Some(p99)) =
        (round.tcp4, round.pps64, round.rtt_p50, round.rtt_p99)
    {
        text += &format!(" / {tcp4:5.2} Gbit/s  {:4.0} kpps  rtt {p50:4.0} / {p99:4.0} us", pps / 1e3);
    } else {
        text += " Gbit/s";
    }
    text + &format!("  {:.2} CPU s/GB", round.cpu_per_gb)
}

/// Writes both files; what they are called without their endings.
fn write(report: &Report, out: &Path) -> anyhow::Result<PathBuf> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    write_both(&report.date, &json, &report.markdown(), out)
}

fn write_both(name: &str, json: &str, markdown: &str, out: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let base = out.join(name.replace(':', "").replace(' ', "-"));
    for (ending, text) in [("json", json), ("md", markdown)] {
        let file = base.with_extension(ending);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        give(&file);
    }
    give(out);
    Ok(base)
}

/// Under sudo, what is written belongs to whoever called it.
fn give(path: &Path) {
    let id = |name| std::env::var(name).ok()?.parse().ok();
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        // Not ours to give on some file systems; root's files are then all there is.
        let _kept = chown(path, Some(user), Some(group));
    }
}

/// UTC, to the minute.
fn now() -> anyhow::Result<String> {
    let out = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]).output().context("cannot start date")?;
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}
