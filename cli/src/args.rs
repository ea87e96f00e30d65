//! What can be typed.

mod mesh;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand};
use ipnet::IpNet;
use weft_agent::setup::DEFAULT_PORT;
use weft_agent::state::DEFAULT_DIR;
use weft_api::request::Whom;
use weft_api::roster::Cipher;

pub use mesh::{MeshCommand, MeshKeyCommand, MeshKeyFile};

/// Several Docker hosts, one encrypted Ethernet.
#[derive(Parser, Debug)]
#[command(
    name = "weft",
    version,
    max_term_width = 100,
    after_help = "The first minute:\n  \
        h1# weft init                                  makes a mesh and prints a token\n  \
        h1# weft up\n  \
        h2# weft join 192.0.2.1 --token weft1-...\n  \
        h2# weft up\n  \
        h1# weft network create app\n  \
        h1# docker run -d --name web --network app nginx"
)]
pub struct Args {
    /// Where this host keeps its keys and what it must remember
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_DIR, hide_default_value = true)]
    pub state: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a mesh, with this host as its founder
    #[command(
        after_help = "Examples:\n  weft init\n  weft init --name berlin1 --advertise 198.51.100.7 --mesh-name shop"
    )]
    Init(Init),
    /// Join a mesh: ask any of its members
    #[command(
        after_help = "Examples:\n  weft join 192.0.2.1 --token weft1-...\n  weft join [2001:db8::1]:6783 --token - < token.txt\n  \
            WEFT_TOKEN=weft1-... weft join 192.0.2.1"
    )]
    Join(Join),
    /// Run the daemon of this host, in the foreground
    #[command(
        after_help = "Examples:\n  weft up\n  WEFT_LOG=debug weft up\n\nStopping it (Ctrl-C) leaves networks and containers as they are."
    )]
    Up(Up),
    /// Leave the mesh and remove what weft made on this host
    #[command(
        after_help = "Examples:\n  weft leave\n  weft leave --force      even while containers use its networks, and on the founder"
    )]
    Leave {
        /// Even while containers use its networks, and on the founder
        #[arg(long)]
        force: bool,
    },
    /// Say whether all is well; exit code 1 if not
    #[command(after_help = "Examples:\n  weft status\n  weft status --json | jq .drops")]
    Status(Format),
    /// Look at what usually breaks on this host; exit code 1 if something does not work
    #[command(after_help = "Examples:\n  weft doctor\n  weft doctor --fix\n  weft doctor --json")]
    Doctor(Doctor),
    /// List the hosts of the mesh
    #[command(after_help = "Examples:\n  weft hosts\n  weft hosts --json")]
    Hosts(Format),
    /// List hosts, or remove one
    #[command(subcommand)]
    Host(HostCommand),
    /// List the links to the other hosts
    #[command(after_help = "Examples:\n  weft links\n  weft links --json | jq '.[] | {host, rtt_ms, drops}'")]
    Links(Format),
    /// List the containers on networks of the mesh, on all hosts
    #[command(
        after_help = "Examples:\n  weft ps\n  weft ps --json\n\nPINNED: its address stands in Docker's own record (--ip), so that it has it at every start."
    )]
    Ps(Format),
    /// Make, list, show and remove networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Put a container that runs, or the network namespace of any process, on a network
    #[command(
        override_usage = "weft attach <CONTAINER> <NETWORK> [--ip <IP>]\n       weft attach --pid <N> <NETWORK> [--ip <IP>]",
        after_help = "Examples:\n  weft attach web app\n  weft attach web app --ip 10.32.0.9\n  weft attach --pid 4711 app\n\n\
            It gets an interface weft0, weft1, ... there, until it is detached or ends. A container that is started again is not\n\
            attached any more: what must come back by itself is for docker network connect."
    )]
    Attach(Attach),
    /// Take it off again
    #[command(
        override_usage = "weft detach <CONTAINER> <NETWORK>\n       weft detach --pid <N> <NETWORK>",
        after_help = "Examples:\n  weft detach web app\n  weft detach --pid 4711 app"
    )]
    Detach(Detach),
    /// Give this host an address of its own on a network, in reach of every container
    #[command(
        after_help = "Examples:\n  weft expose app\n  weft expose app --ip 10.32.0.10\n\nThe address stays until weft hide, through restarts too. Services that listen on all addresses of this\nhost are then in reach of the containers."
    )]
    Expose(Expose),
    /// Take this host's own address on a network back
    #[command(after_help = "Examples:\n  weft hide app")]
    Hide {
        /// The network
        network: String,
    },
    /// Show the way of a frame from this host, and which fact or decision says so; exit code 1 if it does not arrive
    #[command(
        after_help = "Examples:\n  weft trace 10.32.0.70\n  weft trace h2\n  weft trace web\n  weft trace h2 --json"
    )]
    Trace {
        /// An address, a container's name, or a host's
        to: String,
        #[command(flatten)]
        format: Format,
    },
    /// Copy the frames of a network, as they pass this host, in the format of tcpdump
    #[command(
        after_help = "Examples:\n  weft capture app -w app.pcap\n  weft capture app | tcpdump -n -r -\n  weft capture app --count 100 > app.pcap\n\n\
            What is captured is what the containers say, not what travels sealed between hosts. Checksums of frames from\n\
            containers of this host are mostly not computed yet."
    )]
    Capture(Capture),
    /// Make, list and remove tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Renew the keys of sessions; carry the key that signs for the mesh to another host
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How a list is printed.
#[derive(ClapArgs, Debug, Clone, Copy)]
pub struct Format {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `weft capture`
#[derive(ClapArgs, Debug)]
pub struct Capture {
    /// The network
    pub network: String,
    /// The file; without it, or as -, standard output
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// End after so many frames; otherwise with Ctrl-C
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,
}

/// `weft doctor`
#[derive(ClapArgs, Debug)]
pub struct Doctor {
    /// Mend what can be mended here: the service, the firewall's rules, leftovers
    #[arg(long)]
    pub fix: bool,
    #[command(flatten)]
    pub format: Format,
}

/// `weft init`
#[derive(ClapArgs, Debug)]
pub struct Init {
    /// What this host is called in the mesh [default: its hostname]
    #[arg(long)]
    pub name: Option<String>,
    /// The port, of UDP and TCP
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Where other hosts can reach this one, if not at its own addresses (can be given more than once)
    #[arg(long, value_name = "IP")]
    pub advertise: Vec<IpAddr>,
    /// What seals the frames: aegis-128l, aes-256-gcm or chacha20-poly1305 [default: the fastest on this CPU]
    #[arg(long, value_name = "SUITE")]
    pub cipher: Option<Cipher>,
    /// What the mesh is called [default: two words]
    #[arg(long, value_name = "NAME")]
    pub mesh_name: Option<String>,
    /// Do not install and start the service (where systemd runs the machine)
    #[arg(long)]
    pub no_start: bool,
}

/// `weft join`
#[derive(ClapArgs, Debug)]
pub struct Join {
    /// A member of the mesh: its IP address, and its port if that is not 6783
    #[arg(value_name = "ADDR", value_parser = member_address)]
    pub address: SocketAddr,
    /// The token that `weft init` or `weft token new` printed; `-` reads it from standard input
    #[arg(long, value_name = "T", env = "WEFT_TOKEN", hide_env_values = true)]
    pub token: String,
    /// What this host is called in the mesh [default: its hostname]
    #[arg(long)]
    pub name: Option<String>,
    /// The port of this host, of UDP and TCP
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Where other hosts can reach this one, if not at its own addresses (can be given more than once)
    #[arg(long, value_name = "IP")]
    pub advertise: Vec<IpAddr>,
    /// Do not install and start the service (where systemd runs the machine)
    #[arg(long)]
    pub no_start: bool,
}

/// `weft up`
#[derive(ClapArgs, Debug)]
pub struct Up {
    /// Another port, of UDP and TCP, from now on
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Where other hosts can reach this one, from now on (can be given more than once)
    #[arg(long, value_name = "IP")]
    pub advertise: Vec<IpAddr>,
    /// Threads that carry frames [default: one for each processor, at most 16]
    #[arg(long, value_name = "N", env = "WEFT_LANES", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub lanes: Option<u8>,
    /// For tests: hosts of a mesh in which everybody keeps a session with everybody
    #[arg(long, value_name = "N", env = "WEFT_FULL_MESH", hide = true)]
    pub full_mesh: Option<usize>,
}

/// `weft host`
#[derive(Subcommand, Debug)]
pub enum HostCommand {
    /// List the hosts of the mesh
    #[command(after_help = "Examples:\n  weft host ls")]
    Ls(Format),
    /// Remove a host from the mesh, for good
    #[command(
        after_help = "Examples:\n  weft host rm h3\n\nIts key can never be a member again; `weft leave --force` on it makes a new one."
    )]
    Rm {
        /// The host
        name: String,
    },
}

/// `weft network`
#[derive(Subcommand, Debug)]
pub enum NetworkCommand {
    /// Make a network on every host
    #[command(
        after_help = "Examples:\n  weft network create app\n  weft network create db --subnet 10.40.0.0/16 --subnet fd00:40::/64\n  \
            weft network create lab --ipv6 --mtu 1300\n\nThe same with Docker's words: docker network create -d weft --ipam-driver weft app\n\
            Docker takes --ip on the host where that was typed only if --subnet was given."
    )]
    Create(CreateNetwork),
    /// List networks
    #[command(after_help = "Examples:\n  weft network ls")]
    Ls(Format),
    /// Show a network
    #[command(after_help = "Examples:\n  weft network inspect app")]
    Inspect {
        /// The network
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Have a network on this host again that was detached
    #[command(after_help = "Examples:\n  weft network attach app")]
    Attach {
        /// The network
        name: String,
    },
    /// Do not have a network on this host; the others keep it
    #[command(
        after_help = "Examples:\n  weft network detach app\n\nThe same as docker network rm of a network that weft network create made."
    )]
    Detach {
        /// The network
        name: String,
    },
    /// Remove networks that no container uses
    #[command(after_help = "Examples:\n  weft network rm app")]
    Rm {
        /// The networks
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// `weft network create`
#[derive(ClapArgs, Debug)]
pub struct CreateNetwork {
    /// What it is called, in Docker too
    pub name: String,
    /// Its range; one of IPv4 and one of IPv6 at most [default: the first free one of 10.32.0.0/12]
    #[arg(long, value_name = "CIDR", value_parser = range)]
    pub subnet: Vec<IpNet>,
    /// With an IPv6 range of its own too
    #[arg(long)]
    pub ipv6: bool,
    /// The MTU of its containers [default: 1340]
    #[arg(long, value_name = "N")]
    pub mtu: Option<u16>,
    /// No way out of it
    #[arg(long)]
    pub internal: bool,
}

/// What is attached, and to which network: the options may stand before, after or between the names.
#[derive(ClapArgs, Debug)]
pub struct What {
    /// The container, unless --pid is given, and the network
    #[arg(required = true, value_names = ["CONTAINER", "NETWORK"], num_args = 1..=2)]
    names: Vec<String>,
    /// A process whose network namespace it is
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
}

impl What {
    /// Whom, and the network's name.
    pub fn read(self) -> Result<(Whom, String), clap::Error> {
        match (<[String; 2]>::try_from(self.names), self.pid) {
            (Ok([container, network]), None) => Ok((Whom::Container(container), network)),
            (Err(names), Some(pid)) if names.len() == 1 => Ok((Whom::Pid(pid), names.concat())),
            (_, Some(_)) => Err(usage("with --pid give the network alone: weft attach --pid N NETWORK")),
            (_, None) => Err(usage(
                "give a container and a network (weft attach CONTAINER NETWORK), or --pid N and a network",
            )),
        }
    }
}

fn usage(sentence: &str) -> clap::Error {
    Args::command().error(clap::error::ErrorKind::WrongNumberOfValues, sentence)
}

/// `weft attach`
#[derive(ClapArgs, Debug)]
pub struct Attach {
    #[command(flatten)]
    pub what: What,
    /// The address it shall have; one of IPv4 and one of IPv6 at most [default: the lowest free one]
    #[arg(long)]
    pub ip: Vec<IpAddr>,
}

/// `weft detach`
#[derive(ClapArgs, Debug)]
pub struct Detach {
    #[command(flatten)]
    pub what: What,
}

/// `weft expose`
#[derive(ClapArgs, Debug)]
pub struct Expose {
    /// The network
    pub network: String,
    /// The address it shall have; one of IPv4 and one of IPv6 at most [default: the lowest free one]
    #[arg(long)]
    pub ip: Vec<IpAddr>,
}

/// `weft token`
#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    /// Make a token and print what to type on the new host
    #[command(after_help = "Examples:\n  weft token new\n  weft token new --once --expires 1h")]
    New(NewToken),
    /// List tokens
    #[command(after_help = "Examples:\n  weft token ls")]
    Ls(Format),
    /// Make tokens worthless
    #[command(after_help = "Examples:\n  weft token rm 1f0c")]
    Rm {
        /// Their ids, or how these begin
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// `weft token new`
#[derive(ClapArgs, Debug)]
pub struct NewToken {
    /// Good for one host only
    #[arg(long)]
    pub once: bool,
    /// How long it is good for, such as 30m, 1h or 7d [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub expires: Option<u64>,
    /// Print the token only
    #[arg(long, short)]
    pub quiet: bool,
}

fn member_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err("port 0 is no port".into()) } else { Ok(address) };
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, DEFAULT_PORT))
        .map_err(|_| "give the IP address of a member, such as 192.0.2.1 or [2001:db8::1]:6783".into())
}

/// What is no range at all; one that cannot be a network's is refused by the controller.
fn range(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|_| "write an address and a prefix length, such as 10.40.0.0/16 or fd00:40::/64".into())
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "give a time such as 90s, 30m, 1h or 7d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = member_address(&text);
            let _ = seconds(&text);
            let _ = range(&text);
        }
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Args::try_parse_from(line.split_whitespace()).map(|args| args.command)
    }

    fn refused(line: &str) -> (ErrorKind, i32, String) {
        let error = parse(line).unwrap_err();
        (error.kind(), error.exit_code(), error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_that_people_type_has_examples() {
        fn check(command: &clap::Command) {
            if command.is_hide_set() {
                return;
            }
            if command.has_subcommands() {
                command.get_subcommands().filter(|c| c.get_name() != "help").for_each(check);
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Examples:\n  "), "{} has no examples", command.get_name());
            }
        }
        check(&Args::command());
    }

    #[test]
    fn addresses_of_members() {
        let at = |text: &str| member_address(text).unwrap().to_string();
        assert_eq!(at("192.0.2.1"), "192.0.2.1:6783");
        assert_eq!(at("192.0.2.1:7000"), "192.0.2.1:7000");
        assert_eq!(at("2001:db8::1"), "[2001:db8::1]:6783");
        assert_eq!(at("[2001:db8::1]"), "[2001:db8::1]:6783");
        assert_eq!(at("[2001:db8::1]:7000"), "[2001:db8::1]:7000");
        for text in ["", "h1", "192.0.2", "192.0.2.1:0", "192.0.2.1:99999"] {
            assert!(member_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("1s"), Ok(1));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("2h"), Ok(7200));
        assert_eq!(seconds("7d"), Ok(604_800));
        for text in ["", "h", "1w", "-1s", "99999999999999999999", "999999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for (line, word) in [
            ("weft no-such-command", "no-such-command"),
            ("weft init --cipher rot13", "aegis-128l"),
            ("weft network create app --subnet 10.79.0.0/33", "10.79.0.0/33"),
            ("weft join --token x", "ADDR"),
            ("weft join 192.0.2.1 --port 0 --token x", "0"),
            ("weft token rm", "ID"),
            ("weft token new --expires soon", "30m"),
        ] {
            let (_, code, text) = refused(line);
            assert_eq!(code, 2, "{line}: {text}");
            assert!(text.contains(word), "{line}: {text}");
        }
        assert_eq!(refused("weft --version").1, 0);
    }

    #[test]
    fn what_is_attached_is_a_container_or_a_process() {
        let read = |line: &str| match parse(line) {
            Ok(Command::Attach(args)) => {
                let (whom, network) = args.what.read().ok()?;
                Some((whom, network, args.ip.len()))
            }
            _ => None,
        };
        let web = |ips| Some((Whom::Container("web".into()), "app".to_owned(), ips));
        assert_eq!(read("weft attach web app"), web(0));
        for line in [
            "weft attach web app --ip 10.32.0.9",
            "weft attach web --ip 10.32.0.9 app",
            "weft attach --ip 10.32.0.9 web app",
            "weft attach --ip=10.32.0.9 web app",
        ] {
            assert_eq!(read(line), web(1), "{line}");
        }
        assert_eq!(read("weft attach web --ip 10.32.0.9 app --ip fd00::9"), web(2));
        let pid = |ips| Some((Whom::Pid(17), "app".to_owned(), ips));
        assert_eq!(read("weft attach --pid 17 app"), pid(0));
        assert_eq!(read("weft attach app --ip 10.32.0.9 --pid 17"), pid(1));
        for line in [
            "weft attach app",
            "weft attach",
            "weft attach a b c",
            "weft attach --pid 17 web app",
            "weft attach --pid 17",
            "weft attach --pid 0 app",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn subnets_are_taken_as_they_are_written() {
        let Ok(Command::Network(NetworkCommand::Create(create))) =
            parse("weft network create app --subnet 10.79.0.1/24 --subnet fd00::/64 --mtu 1300")
        else {
            panic!("a network");
        };
        let subnets: Vec<String> = create.subnet.iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.79.0.1/24", "fd00::/64"], "the controller refuses set bits, by a sentence");
        assert_eq!(create.mtu, Some(1300));
    }
}
