//! What every lab test needs: hosts in a mesh, containers with their pids and addresses, traffic in their namespaces, deadlines.

use std::time::{Duration, Instant};

use weft_lab::{Daemon, Host, Lab, Mesh, Output};

/// The traffic program, which runs in a container's network namespace.
pub const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");

/// So many hosts with engines, from `h1`; nothing where a lab cannot run, which has been said loudly then.
pub fn hosts(count: usize) -> Option<Lab> {
    (!weft_lab::skip()).then(|| Lab::builder().hosts(count).up().unwrap())
}

/// A mesh of all of them that has the network `app`.
pub fn with_app(lab: &Lab) -> Mesh<'_> {
    let mesh = Mesh::up(lab, &[]).unwrap();
    mesh.network(&["app"]).unwrap();
    mesh
}

/// Deadlines are tripled on CI's machines.
pub fn deadline(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds) * slowness()
}

fn slowness() -> u32 {
    if std::env::var("CI").is_ok_and(|v| v == "true" || v == "1") { 3 } else { 1 }
}

/// Asks every 50 ms until `done`, or panics after `limit` (tripled on CI's machines) saying what was awaited.
pub fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let (start, limit) = (Instant::now(), limit * slowness());
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

/// A running container on a network.
pub struct Container<'a> {
    pub host: &'a Host,
    pub name: String,
    pub pid: i32,
    pub v4: String,
    pub v6: String,
    pub mac: String,
    /// Its interface on the network.
    pub iface: String,
}

impl<'a> Container<'a> {
    /// `docker run -d --name NAME --network NETWORK ARGS busybox sleep`.
    pub fn run(host: &'a Host, name: &str, network: &str, args: &[&str]) -> Self {
        let mut command = vec!["run", "-d", "--name", name, "--network", network];
        command.extend(args);
        command.extend(["busybox", "sleep", "100000"]);
        host.docker(command).unwrap_or_else(|e| panic!("docker run {name} on {}: {e}", host.name()));
        Self::of(host, name, network)
    }

    /// A container that runs already.
    pub fn of(host: &'a Host, name: &str, network: &str) -> Self {
        let pid = host.container_pid(name).unwrap();
        let field = |field: &str| {
            let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}");
            host.docker(["inspect", "-f", &format, name]).unwrap()
        };
        let mac = field("MacAddress");
        let links = host.exec_in_netns_of(pid, ["ip", "-br", "link"]).stdout;
        let line = links
            .lines()
            .find(|l| l.contains(&mac))
            .unwrap_or_else(|| panic!("no interface with {mac} in:\n{links}"));
        let iface = line.split(['@', ' ']).next().unwrap_or_default().to_owned();
        let (v4, v6) = (field("IPAddress"), field("GlobalIPv6Address"));
        Self { host, name: name.to_owned(), pid, v4, v6, mac, iface }
    }

    /// Runs a program of the machine in the container's network namespace.
    pub fn exec(&self, argv: &[&str]) -> Output {
        self.host.exec_in_netns_of(self.pid, argv)
    }

    /// Runs the traffic program; panics with what it said if it fails.
    pub fn traffic(&self, args: &[&str]) -> String {
        let out = self.try_traffic(args);
        assert!(out.ok(), "{} on {}: traffic {}: {out}", self.name, self.host.name(), args.join(" "));
        out.stdout
    }

    /// Runs the traffic program.
    pub fn try_traffic(&self, args: &[&str]) -> Output {
        self.host.exec_in_netns_of(self.pid, std::iter::once(TRAFFIC).chain(args.iter().copied()))
    }

    /// Starts the traffic program in the background.
    pub fn traffic_daemon(&self, args: &[&str]) -> Daemon {
        let log = format!("{}-{}.log", self.name, args.join("-").replace(['/', ':'], "_"));
        self.host
            .spawn_in_netns_of(self.pid, std::iter::once(TRAFFIC).chain(args.iter().copied()), &log)
            .unwrap()
    }

    /// One ping is answered.
    pub fn pings(&self, to: &str) -> bool {
        self.exec(&["ping", "-c1", "-W1", to]).ok()
    }
}
