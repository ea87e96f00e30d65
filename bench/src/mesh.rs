//! What a mesh costs that does nothing, and how soon a first frame is there: real daemons on hosts without an engine.

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::Value;
use weft_lab::{Daemon, Host, Lab, Signal};

use crate::{delay::FAR, machine::Machine, now, probe::READY, write_both};

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
const DELAY_MS: u64 = 25;
/// Round trips that a first frame may take.
const FIRST_FRAME_RTT: f64 = 3.0;
/// Pairs that are measured.
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

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A host that carries nothing.
    Idle,
    /// A frame to a host without a session.
    FirstFrame,
}

/// A mesh without engines.
struct Mesh {
    up: Vec<String>,
    daemons: Vec<Daemon>,
    lab: Lab,
}

impl Mesh {
    /// `address` says where a host is told that another one is.
    fn up(lab: Lab, up: &[&str], address: impl Fn(usize) -> String) -> anyhow::Result<Mesh> {
        let up = up.iter().map(|&arg| arg.to_owned()).collect();
        let mut mesh = Mesh { up, daemons: Vec::new(), lab };
        let mut token = String::new();
        for n in 1..=mesh.lab.hosts().len() {
            let host = &mesh.lab.hosts()[n - 1];
            if n == 1 {
                let said = host.run(["weft", "init", "--advertise", &address(1)])?;
                let found = said.split_whitespace().find(|word| word.starts_with(TOKEN));
                token = found.context("weft init prints a token")?.to_owned();
            } else {
                host.run(["weft", "join", &address(1), "--token", &token, "--advertise", &address(n)])?;
            }
            let daemon = mesh.start(n)?;
            mesh.daemons.push(daemon);
            let host = &mesh.lab.hosts()[n - 1];
            wait(host, "an answer of the daemon", || host.exec(["weft", "links"]).ok())?;
        }
        Ok(mesh)
    }

    fn start(&self, n: usize) -> anyhow::Result<Daemon> {
        let command = ["weft", "up"].into_iter().chain(self.up.iter().map(String::as_str));
        Ok(self.lab.hosts()[n - 1].spawn(command, "weft.log")?)
    }

    /// Ends every daemon and starts it anew, so that no session is left but those that are kept.
    fn restart(&mut self) -> anyhow::Result<()> {
        for daemon in &mut self.daemons {
            daemon.signal(Signal::TERM);
            ensure!(daemon.wait(PATIENCE).is_some(), "weft up does not end");
        }
        self.daemons = (1..=self.lab.hosts().len()).map(|n| self.start(n)).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Puts every host on one network by itself; their addresses there.
    fn network(&self) -> anyhow::Result<Vec<String>> {
        let [founder, ..] = self.lab.hosts() else { anyhow::bail!("hosts are needed") };
        founder.run(["weft", "network", "create", "app"])?;
        let mut addresses = Vec::new();
        for host in self.lab.hosts() {
            wait(host, "an address", || host.exec(["weft", "expose", "app"]).ok())?;
            let said = host.run(["weft", "expose", "app"])?;
            let found = said.split_whitespace().find(|word| word.parse::<std::net::IpAddr>().is_ok());
            addresses.push(found.context("weft expose prints an address")?.to_owned());
        }
        Ok(addresses)
    }
}

fn idle() -> anyhow::Result<Vec<Measured>> {
    let lab = Lab::builder().hosts(IDLE_HOSTS).engines(false).up()?;
    let mesh = Mesh::up(lab, &[], |n| format!("192.0.2.{n}"))?;
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
    let names: Vec<String> = lab.hosts().iter().map(|h| h.name().to_owned()).collect();
    for (n, a) in names.iter().enumerate() {
        for b in &names[n + 1..] {
            lab.cut(a, b)?;
        }
    }
    let mut delay = Delay::start(&lab, None)?;
    let far = |n: usize| format!("192.0.2.{}", usize::from(FAR) + n);
    let mut mesh = Mesh::up(lab, &["--full-mesh", FULL_MESH], far)?;
    let addresses = mesh.network()?;
    mesh.restart()?;
    for host in mesh.lab.hosts() {
        wait(host, "links", || links(host, "up").is_ok_and(|l| !l.is_empty()))?;
    }
    sleep(REST);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for from in mesh.lab.hosts() {
        for to in links(from, "down")? {
            let Some(at) = names.iter().position(|name| *name == to) else { continue };
            let by_neighbour = direct.len() == PAIRS;
            if through.len() == PAIRS {
                break;
            }
            if by_neighbour {
                let number = |name: &str| names.iter().position(|n| n == name).map_or(0, |n| n + 1);
                drop(delay);
                delay = Delay::start(&mesh.lab, Some((number(from.name()), at + 1)))?;
            }
            // Asked of another host: a session may have begun from there meanwhile.
            if !links(from, "down")?.contains(&to) {
                continue;
            }
            let took = first_frame(from, &addresses[at])?;
            if by_neighbour { through.push(took) } else { direct.push(took) }
        }
    }
    drop(delay);
    ensure!(!direct.is_empty() && !through.is_empty(), "every pair of hosts has a session");
    Ok(vec![
        Measured::of("a first frame to a host without a session", "round trips", FIRST_FRAME_RTT, direct),
        Measured::of("the same through a neighbour", "round trips", FIRST_FRAME_RTT, through),
    ])
}

/// How many round trips pass until the first frame is there: the answer comes half of one later.
fn first_frame(from: &Host, to: &str) -> anyhow::Result<f64> {
    let said = from.run(["ping", "-c", "4", "-W", "5", to])?;
    let times =
        said.lines().filter_map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok());
    let times: Vec<f64> = times.collect();
    let [first, rest @ ..] = times.as_slice() else { anyhow::bail!("{to} does not answer: {said}") };
    let rtt = rest.iter().copied().fold(f64::INFINITY, f64::min);
    println!("  {} -> {to}: first answer {first:.1} ms, round trip {rtt:.1} ms", from.name());
    Ok((first - rtt / 2.0) / rtt)
}

/// Carries datagrams between the hosts' far addresses, each a while later; ends when dropped.
struct Delay(std::process::Child);

impl Delay {
    fn start(lab: &Lab, without: Option<(usize, usize)>) -> anyhow::Result<Delay> {
        let hosts = lab.hosts().len();
        for n in 1..=hosts {
            let far = format!("192.0.2.{}/24", usize::from(FAR) + n);
            // There already the second time.
            let _there = lab.switch_exec(["ip", "addr", "add", &far, "dev", "underlay"]);
        }
        let me = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = lab.switch_command([me.as_os_str()]);
        command.args(["probe", "delay", &DELAY_MS.to_string(), &hosts.to_string()]);
        command.args(without.into_iter().flat_map(|(a, b)| [a.to_string(), b.to_string()]));
        let mut child =
            command.stdout(std::process::Stdio::piped()).spawn().context("cannot start the delay")?;
        let mut said = [0; READY.len()];
        let stdout = child.stdout.as_mut().context("no standard output")?;
        std::io::Read::read_exact(stdout, &mut said).context("the delay does not listen")?;
        Ok(Delay(child))
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        // Ended already or killed now: both leave nothing behind.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
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
