//! `weft-lab`: several Docker hosts on one machine, for people.

use std::{io::Write, os::unix::process::CommandExt, process::ExitCode, time::Instant};

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use weft_lab::{Error, Lab, LabState, NatKind};

/// Several Docker hosts on one machine: real engines, real namespaces, an underlay that can be cut.
///
/// Each host has its own hostname, network, /run, /var/lib/docker, /var/lib/weft and engine; `docker` and `weft`
/// run there without any flag. Nothing touches this machine's own engine or firewall.
#[derive(Parser)]
#[command(name = "weft-lab", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

const EXAMPLES: &str = "\
Examples:
  weft-lab up --hosts 3                  three hosts with engines: 192.0.2.1, .2, .3
  weft-lab up --nat h2 --nat h3          the same, h2 and h3 each behind a NAT box: n1, n2
  weft-lab exec h1 -- docker ps          a command on h1
  weft-lab exec h1                       a shell on h1
  weft-lab cut h1 h3                     nothing passes between h1 and h3
  weft-lab mend h1 h3                    all passes again
  weft-lab reboot h2                     power off and on; its disk stays
  weft-lab capture -- udp port 6783      watch the underlay
  weft-lab down                          nothing is left

The binary under test is WEFT_BIN, else the newest target/*/release/weft beside this program.";

/// The lab of `up` without --name.
const DEFAULT: &str = "lab";

#[derive(Subcommand)]
enum Cmd {
    /// Start a lab that stays up until `down`
    Up {
        #[command(flatten)]
        lab: Name,
        /// Number of hosts
        #[arg(long, default_value_t = 3)]
        hosts: usize,
        /// MTU of the underlay in bytes
        #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65535))]
        mtu: u32,
        /// Put a NAT box before these hosts (cone; `symmetric:h2` for one of the other kind); once for each box
        #[arg(long, value_name = "HOST,...")]
        nat: Vec<String>,
        /// Do not start the Docker engines
        #[arg(long)]
        no_engines: bool,
    },
    /// Run a command on a host (a shell if none is given) with this terminal; its exit code is ours
    Exec {
        #[command(flatten)]
        lab: Name,
        /// The host, such as h1; `switch` is the underlay's switch, n1 the first NAT box
        host: String,
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Let nothing pass between two hosts
    Cut {
        #[command(flatten)]
        lab: Name,
        /// One host
        a: String,
        /// The other
        b: String,
        /// Only UDP
        #[arg(long)]
        udp: bool,
    },
    /// Let all pass again between two hosts
    Mend {
        #[command(flatten)]
        lab: Name,
        /// One host
        a: String,
        /// The other
        b: String,
    },
    /// Cut a host's power: all of it dies at once, its disk stays
    Kill {
        #[command(flatten)]
        lab: Name,
        /// The host
        host: String,
    },
    /// Switch a host on with its old disk (off before, if it was on)
    Reboot {
        #[command(flatten)]
        lab: Name,
        /// The host
        host: String,
    },
    /// Watch the underlay with tcpdump until Ctrl-C
    Capture {
        #[command(flatten)]
        lab: Name,
        /// Arguments of tcpdump, such as a filter
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// List labs and their hosts
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End a lab and remove everything of it
    Down {
        #[command(flatten)]
        lab: Name,
        /// Every lab on this machine, also what killed processes left behind
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args)]
struct Name {
    /// Which lab [default: the only one that is up; `lab` for `up`]
    #[arg(long = "name", value_name = "NAME")]
    name: Option<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("weft-lab: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Cmd) -> anyhow::Result<()> {
    if !matches!(command, Cmd::Ls { .. }) {
        Lab::possible().map_err(Error::Impossible)?;
    }
    match command {
        Cmd::Up { lab, hosts, mtu, nat, no_engines } => up(lab.name, hosts, mtu, &nat, !no_engines),
        Cmd::Exec { lab, host, command } => exec(&lab.attach()?, &host, command),
        Cmd::Cut { lab, a, b, udp } => {
            let lab = lab.attach()?;
            Ok(if udp { lab.block_udp(&a, &b) } else { lab.cut(&a, &b) }?)
        }
        Cmd::Mend { lab, a, b } => Ok(lab.attach()?.mend(&a, &b)?),
        Cmd::Kill { lab, host } => {
            lab.attach()?.find(&host)?.kill();
            Ok(())
        }
        Cmd::Reboot { lab, host } => Ok(lab.attach()?.find(&host)?.reboot()?),
        Cmd::Capture { lab, args } => {
            let tcpdump = ["tcpdump", "-l", "-n", "-i", "underlay"].map(str::to_owned);
            exec(&lab.attach()?, "switch", tcpdump.into_iter().chain(args).collect())
        }
        Cmd::Ls { json } => ls(json),
        Cmd::Down { all: true, .. } => {
            for name in weft_lab::end_all() {
                println!("ended {name}");
            }
            match weft_lab::list().first() {
                Some(left) => bail!("lab `{}` could not be ended: something in it does not die", left.name),
                None => Ok(()),
            }
        }
        Cmd::Down { lab, .. } => {
            let name = lab.resolve()?;
            if !weft_lab::end(&name)? {
                bail!("something of lab `{name}` could not be removed; see /run/weft-lab/{name}");
            }
            Ok(())
        }
    }
}

fn up(name: Option<String>, hosts: usize, mtu: u32, nats: &[String], engines: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut lab = Lab::builder().name(name.unwrap_or(DEFAULT.into())).hosts(hosts).mtu(mtu).engines(engines);
    for nat in nats {
        let symmetric = nat.strip_prefix("symmetric:");
        let kind = if symmetric.is_some() { NatKind::Symmetric } else { NatKind::Cone };
        lab = lab.nat(kind, &symmetric.unwrap_or(nat).split(',').collect::<Vec<_>>());
    }
    let lab = lab.up()?;
    if engines {
        lab.image()?;
    }
    let mut text = format!("Lab `{}` is up ({:.1} s).\n", lab.name(), start.elapsed().as_secs_f64());
    for host in lab.hosts() {
        let behind = host.nat().map(|nat| format!("  behind {} ({})", nat.name(), nat.addr()));
        text += &format!(
            "  {:<4} {:<12} {}{}\n",
            host.name(),
            host.addr(),
            host.addr6(),
            behind.unwrap_or_default()
        );
    }
    text += &match lab.weft() {
        Some(path) => format!("weft is {}\n", path.display()),
        None => "No weft binary found: build it (cargo build --release), or set WEFT_BIN.\n".to_owned(),
    };
    text += &format!("Logs and disks are in {}\n", lab.dir().display());
    let of = if lab.name() == DEFAULT { String::new() } else { format!(" --name {}", lab.name()) };
    let image = if engines { "docker run --rm busybox echo hello" } else { "ping -c1 h2" };
    text += &format!(
        "Try:\n  weft-lab exec{of} h1 -- {image}\n  weft-lab exec{of} h1\n  weft-lab cut{of} h1 h2\n  weft-lab down{of}\n"
    );
    lab.keep()?;
    // A reader who has gone (`| head`) is no reason to fail.
    let _gone = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn exec(lab: &Lab, host: &str, command: Vec<String>) -> anyhow::Result<()> {
    let shell = ["sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"].map(str::to_owned);
    let command = if command.is_empty() { shell.to_vec() } else { command };
    let nat = lab.nats().iter().find(|nat| nat.name() == host);
    let mut ready = match nat {
        Some(nat) => nat.command(&command),
        None if host == "switch" => lab.switch_command(&command),
        None => lab.find(host)?.command(&command)?,
    };
    // Only comes back if nsenter could not be started.
    bail!("cannot start nsenter: {}", ready.exec())
}

fn ls(json: bool) -> anyhow::Result<()> {
    let labs = weft_lab::list();
    if json {
        let rows: Vec<_> = labs.iter().map(as_json).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    for lab in &labs {
        let until = match lab.owner {
            None => "until `weft-lab down`".to_owned(),
            Some(owner) if owner.alive() => format!("as long as process {}", owner.pid),
            Some(_) => "left behind: `weft-lab down --all` removes it".to_owned(),
        };
        println!("{}  ({until})", lab.name);
        for host in &lab.hosts {
            let power = if lab.holder(&host.name).is_some() { "on" } else { "off" };
            let behind = host.behind.as_ref().map(|nat| format!("  behind {nat}")).unwrap_or_default();
            println!("  {:<4} {:<3} {:<12} {}{behind}", host.name, power, host.v4, host.v6);
        }
    }
    Ok(())
}

fn as_json(lab: &LabState) -> serde_json::Value {
    let hosts = lab.hosts.iter().map(|h| {
        let holder = lab.holder(&h.name).map(|p| p.pid);
        serde_json::json!({
            "name": h.name,
            "v4": h.v4,
            "v6": h.v6,
            "behind": h.behind,
            "on": holder.is_some(),
            "holder": holder,
        })
    });
    serde_json::json!({
        "name": lab.name,
        "owner": lab.owner.map(|o| o.pid),
        "stale": lab.stale(),
        "dir": lab.disks,
        "mtu": lab.mtu,
        "weft": lab.weft,
        "hosts": hosts.collect::<Vec<_>>(),
    })
}

impl Name {
    fn attach(self) -> anyhow::Result<Lab> {
        Ok(Lab::attach(&self.resolve()?)?)
    }

    /// The name given, or that of the only lab which stays up by itself.
    fn resolve(self) -> anyhow::Result<String> {
        if let Some(name) = self.name {
            return Ok(name);
        }
        let mut kept: Vec<String> =
            weft_lab::list().into_iter().filter(|l| l.owner.is_none()).map(|l| l.name).collect();
        match kept.len() {
            1 => Ok(kept.remove(0)),
            0 => bail!("no lab is up: `weft-lab up` starts one"),
            _ => bail!("several labs are up ({}): say which with --name", kept.join(", ")),
        }
    }
}
