//! What a mesh costs that carries nothing: real daemons on hosts without an engine.

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use weft_lab::{Daemon, Host, Lab};

use crate::{machine::Machine, now, write_both};

/// Hosts of the idle mesh: one, and its peers.
const IDLE_HOSTS: usize = 21;
/// A mesh comes to rest within this after its last change.
const REST: Duration = Duration::from_secs(10);
/// How long processors are looked at.
const WATCH: Duration = Duration::from_secs(30);
/// Part of a processor that an idle host may take, and its memory.
const IDLE_CPU_PERCENT: f64 = 1.0;
const IDLE_MEMORY_MB: f64 = 60.0;

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

/// Measures, prints and writes.
pub fn run(out: &Path) -> anyhow::Result<()> {
    let mut machine = Machine::this();
    machine.look()?;
    let measured = idle()?;
    measured.iter().for_each(|m| println!("{}", m.line()));
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
    daemons: Vec<Daemon>,
    lab: Lab,
}

impl Mesh {
    fn up(lab: Lab) -> anyhow::Result<Mesh> {
        let mut mesh = Mesh { daemons: Vec::new(), lab };
        let mut token = String::new();
        for (n, host) in mesh.lab.hosts().iter().enumerate() {
            if n == 0 {
                let said = host.run(["weft", "init"])?;
                let found = said.split_whitespace().find(|word| word.starts_with(TOKEN));
                token = found.context("weft init prints a token")?.to_owned();
            } else {
                host.run(["weft", "join", "192.0.2.1", "--token", &token])?;
            }
            mesh.daemons.push(host.spawn(["weft", "up"], "weft.log")?);
            wait(host, "an answer of the daemon", || host.exec(["weft", "links"]).ok())?;
        }
        Ok(mesh)
    }

    /// Puts every host on one network by itself.
    fn network(&self) -> anyhow::Result<()> {
        let [founder, ..] = self.lab.hosts() else { anyhow::bail!("hosts are needed") };
        founder.run(["weft", "network", "create", "app"])?;
        self.lab
            .hosts()
            .iter()
            .try_for_each(|host| wait(host, "an address", || host.exec(["weft", "expose", "app"]).ok()))
    }
}

fn idle() -> anyhow::Result<Vec<Measured>> {
    let lab = Lab::builder().hosts(IDLE_HOSTS).engines(false).up()?;
    let mesh = Mesh::up(lab)?;
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
