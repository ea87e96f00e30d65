//! What a mesh costs that carries nothing, and how soon a first frame is there: real daemons on hosts without an engine.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use weft_lab::{Daemon, Host, Lab, Signal};

use crate::{delay::Delay, machine::Machine, now, write_both};

/// Hosts of the idle mesh: one, and its peers.
const IDLE_HOSTS: usize = 21;
/// A mesh comes to rest within this after its last change.
const REST: Duration = Duration::from_secs(10);
/// How long processors are looked at.
const WATCH: Duration = Duration::from_secs(30);
/// Part of a processor that an idle host may take, and its memory.
const IDLE_CPU_PERCENT: f64 = 1.0;
const IDLE_MEMORY_MB: f64 = 60.0;

/// Hosts of the mesh in which first frames are sent, and up to how many hosts everybody has a session with everybody there.
const FRAME_HOSTS: usize = 8;
const FULL_MESH: &str = "2";
/// One way, so that what the processor does weighs little.
const ONE_WAY: Duration = Duration::from_millis(20);
/// Round trips that a first frame may take.
const FIRST_FRAME_RTT: f64 = 3.0;
/// Pairs of hosts that are measured by each kind of way.
const PAIRS: usize = 6;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const TICKS_PER_SECOND: f64 = 100.0;
const TOKEN: &str = "weft1-";

/// One number beside what it may be.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Of what.
    pub what: &'static str,
    /// The worst that was seen.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it may be at most.
    pub most: f64,
    /// All that were seen.
    pub all: Vec<f64>,
}

impl Measured {
    fn of(what: &'static str, unit: &'static str, most: f64, all: Vec<f64>) -> Measured {
        Measured { what, value: all.iter().copied().fold(0.0, f64::max), unit, most, all }
    }

    fn line(&self) -> String {
        let verdict = if self.value <= self.most { "met" } else { "MISSED" };
        let Measured { what, value, unit, most, all } = self;
        let of = all.len();
        format!("{what}: {value:.2} {unit}, the worst of {of}; at most {most} {unit}: {verdict}")
    }
}

#[derive(Serialize)]
struct Results {
    date: String,
    machine: Machine,
    measured: Vec<Measured>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A host that carries nothing.
    Idle,
    /// A frame to a host without a session.
    FirstFrame,
}

/// Measures, prints and writes what was asked for.
pub fn run(parts: &[Part], out: &Path) -> anyhow::Result<()> {
    let mut machine = Machine::this();
    machine.look()?;
    let mut measured = Vec::new();
    for part in parts {
        let found = match part {
            Part::Idle => idle()?,
            Part::FirstFrame => first_frames()?,
        };
        found.iter().for_each(|m| println!("{}", m.line()));
        measured.extend(found);
    }
    let lines: String = measured.iter().map(|m| format!("- {}\n", m.line())).collect();
    let date = now()?;
    let markdown = format!("# {date}\n\n{machine}\n\n{lines}");
    let json = serde_json::to_string_pretty(&Results { date: date.clone(), machine, measured })? + "\n";
    let base = write_both(&format!("{date}-mesh"), &json, &markdown, out)?;
    println!("{}.json, {}.md", base.display(), base.display());
    Ok(())
}

/// A mesh without engines.
struct Mesh {
    /// What is said to each `weft up`.
    up: &'static [&'static str],
    daemons: Vec<Daemon>,
    lab: Lab,
}

impl Mesh {
    fn up(lab: Lab, up: &'static [&'static str]) -> anyhow::Result<Mesh> {
        let mut mesh = Mesh { up, daemons: Vec::new(), lab };
        let mut token = String::new();
        for (n, host) in mesh.lab.hosts().iter().enumerate() {
            if n == 0 {
                let said = host.run(["weft", "init"])?;
                let found = said.split_whitespace().find(|word| word.starts_with(TOKEN));
                token = found.context("weft init prints a token")?.to_owned();
            } else {
                host.run(["weft", "join", "192.0.2.1", "--token", &token])?;
            }
            mesh.daemons.push(mesh.daemon(host)?);
            wait(host, "an answer of the daemon", || host.exec(["weft", "links"]).ok())?;
        }
        Ok(mesh)
    }

    fn daemon(&self, host: &Host) -> anyhow::Result<Daemon> {
        Ok(host.spawn(["weft", "up"].iter().chain(self.up), "weft.log")?)
    }

    /// Ends every daemon and starts it anew, so that no session is left but those that are kept.
    fn restart(&mut self) -> anyhow::Result<()> {
        for daemon in &mut self.daemons {
            daemon.signal(Signal::TERM);
            ensure!(daemon.wait(PATIENCE).is_some(), "weft up does not end");
        }
        self.daemons = self.lab.hosts().iter().map(|host| self.daemon(host)).collect::<Result<_, _>>()?;
        let hosts = self.lab.hosts();
        hosts
            .iter()
            .try_for_each(|host| wait(host, "links", || links(host, "up").is_ok_and(|l| !l.is_empty())))
    }

    /// Puts every host on one network by itself; their addresses there.
    fn network(&self) -> anyhow::Result<Vec<String>> {
        let [founder, ..] = self.lab.hosts() else { anyhow::bail!("hosts are needed") };
        founder.run(["weft", "network", "create", "app"])?;
        let address = |host: &Host| {
            wait(host, "an address", || host.exec(["weft", "expose", "app"]).ok())?;
            let said = host.run(["weft", "expose", "app"])?;
            let found = said.split_whitespace().find(|word| word.parse::<IpAddr>().is_ok());
            Ok(found.context("weft expose prints an address")?.to_owned())
        };
        self.lab.hosts().iter().map(address).collect()
    }
}

fn idle() -> anyhow::Result<Vec<Measured>> {
    let lab = Lab::builder().hosts(IDLE_HOSTS).engines(false).up()?;
    let mesh = Mesh::up(lab, &[])?;
    mesh.network()?;
    for host in mesh.lab.hosts() {
        wait(host, "a link to everybody", || links(host, "up").is_ok_and(|l| l.len() == IDLE_HOSTS - 1))?;
    }
    sleep(REST);
    let ticks = || -> anyhow::Result<Vec<f64>> { mesh.daemons.iter().map(|d| busy_ticks(d.pid)).collect() };
    let (before, start) = (ticks()?, Instant::now());
    sleep(WATCH);
    let (after, seconds) = (ticks()?, start.elapsed().as_secs_f64());
    let percent = |(after, before): (&f64, &f64)| (after - before) / TICKS_PER_SECOND / seconds * 100.0;
    let busy = after.iter().zip(&before).map(percent).collect();
    let memory = mesh.daemons.iter().map(|d| memory_mb(d.pid)).collect::<Result<_, _>>()?;
    Ok(vec![
        Measured::of("an idle host with 20 peers, of one core", "%", IDLE_CPU_PERCENT, busy),
        Measured::of("an idle host with 20 peers, memory", "MB", IDLE_MEMORY_MB, memory),
    ])
}

fn first_frames() -> anyhow::Result<Vec<Measured>> {
    let lab = Lab::builder().hosts(FRAME_HOSTS).engines(false).up()?;
    let mut delay = Delay::start(&lab, ONE_WAY)?;
    let mut mesh = Mesh::up(lab, &["--full-mesh", FULL_MESH])?;
    let addresses = mesh.network()?;
    mesh.restart()?;
    sleep(REST);
    let hosts = mesh.lab.hosts();
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for (a, from) in hosts.iter().enumerate() {
        for (b, to) in hosts.iter().enumerate() {
            // Asked each time: a session may have begun from the other end meanwhile.
            if a == b || through.len() == PAIRS || links(from, "up")?.iter().any(|name| name == to.name()) {
                continue;
            }
            if direct.len() < PAIRS {
                direct.push(first_frame(from, &addresses[b])?);
            } else {
                delay.cut(a + 1, b + 1)?;
                through.push(first_frame(from, &addresses[b])?);
            }
        }
    }
    ensure!(!through.is_empty(), "nearly every pair of hosts has a session");
    Ok(vec![
        Measured::of("a first frame to a host without a session", "round trips", FIRST_FRAME_RTT, direct),
        Measured::of("the same through a neighbour", "round trips", FIRST_FRAME_RTT, through),
    ])
}

/// How many round trips of its way pass until the first frame is there: the answer comes half of one later.
fn first_frame(from: &Host, to: &str) -> anyhow::Result<f64> {
    const COUNT: usize = 5;
    let said = from.exec(["ping", "-c", &COUNT.to_string(), "-i", "0.3", "-W", "5", to]).stdout;
    let times =
        said.lines().filter_map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok());
    let times: Vec<f64> = times.collect();
    let links = || from.exec(["weft", "links"]).stdout;
    ensure!(times.len() == COUNT, "{} -> {to}: {said}{}", from.name(), links());
    let rtt = times[1..].iter().copied().fold(f64::INFINITY, f64::min);
    let first = (times[0] - rtt / 2.0) / rtt;
    println!(
        "  {} -> {to}: first answer {:.1} ms, round trip {rtt:.1} ms: {first:.2}",
        from.name(),
        times[0]
    );
    Ok(first)
}

/// The hosts whose links are in this state.
fn links(host: &Host, state: &str) -> anyhow::Result<Vec<String>> {
    let all: Vec<Value> = serde_json::from_str(&host.run(["weft", "links", "--json"])?)?;
    let there = all.iter().filter(|link| link["state"] == state);
    Ok(there.filter_map(|link| link["host"].as_str().map(str::to_owned)).collect())
}

/// What the kernel has counted of a process's own work, user and system.
fn busy_ticks(pid: i32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a daemon is gone")?;
    let (_, fields) = stat.rsplit_once(')').context("no /proc/PID/stat")?;
    let fields = fields.split_whitespace().skip(11).take(2);
    Ok(fields.filter_map(|field| field.parse::<f64>().ok()).sum())
}

fn memory_mb(pid: i32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a daemon is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().next().context("no VmRSS")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}

fn wait(host: &Host, what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !done() {
        ensure!(start.elapsed() < PATIENCE, "no {what} on {} within {PATIENCE:?}", host.name());
        sleep(Duration::from_millis(100));
    }
    Ok(())
}
