//! The underlay: a bridge in a namespace of its own, with one port for each host. It can be cut and listened to.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    command::{Daemon, Door, Signal},
    error::Error,
    machine::Machine,
    process::{self, Process},
    state::HostState,
};

/// The name of the switch among the machines of a lab.
pub(crate) const SWITCH: &str = "switch";
/// The router of the underlay. It leads nowhere, and says so at once by ICMP.
pub(crate) const GATEWAY: u8 = 254;
/// The last number a host can have.
pub(crate) const MAX_HOSTS: usize = 200;

/// From the first port of a pair to the second nothing passes if it is in `cut`, no UDP if in `no_udp`, no UDP and no TCP if in
/// `no_way`.
const FILTER: &str = "
table bridge lab {
    set cut { type ifname . ifname; }
    set no_udp { type ifname . ifname; }
    set no_way { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname . oifname @cut counter drop
        iifname . oifname @no_udp meta l4proto udp counter drop
        iifname . oifname @no_way meta l4proto { tcp, udp } counter drop
    }
}
";

/// $1 MTU, $2 to $4 the router's addresses.
const SETUP: &str = r#"
set -e
echo switch >/proc/sys/kernel/hostname
# Bridged frames need no second walk through iptables here: the underlay should cost as little as a cable.
for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e "$f" ] || echo 0 >"$f"; done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
ip link set lo up
ip link add underlay mtu "$1" address "$4" type bridge mcast_snooping 0
ip link set underlay up
ip addr add "$2/24" dev underlay
ip addr add "$3/64" dev underlay nodad
ip route add unreachable default
ip -6 route add unreachable default
"#;

/// The switch of one lab.
#[derive(Debug)]
pub(crate) struct Switch {
    pub holder: Process,
    machine: Mutex<Machine>,
    mtu: u32,
}

impl Switch {
    pub fn start(mtu: u32) -> Result<Switch, Error> {
        let switch = Switch::of(Machine::start()?, mtu);
        let (v4, v6) = addresses(GATEWAY);
        let door = switch.door();
        door.run(["sh", "-c", SETUP, "setup", &mtu.to_string(), &v4.to_string(), &v6.to_string(), &mac(v4)])?;
        door.feed(["nft", "-f", "-"], FILTER.as_bytes())?;
        Ok(switch)
    }

    pub fn attach(holder: Process, mtu: u32) -> Switch {
        Switch::of(Machine::attach(holder), mtu)
    }

    fn of(machine: Machine, mtu: u32) -> Switch {
        Switch { holder: machine.holder, machine: Mutex::new(machine), mtu }
    }

    pub fn keep(&self) -> Result<(), Error> {
        self.machine().keep()
    }

    pub fn kill(&self) {
        self.machine().kill();
    }

    /// Puts a cable between a port of the switch and `eth0` of a machine.
    pub fn cable(&self, port: &str, v4: Ipv4Addr, machine: &Machine) -> Result<(), Error> {
        cable(&self.door(), "underlay", port, self.mtu, v4, machine)
    }

    /// The same for a host, which gets its addresses.
    pub fn plug(&self, host: &HostState, machine: &Machine) -> Result<(), Error> {
        self.cable(&host.name, host.v4, machine)?;
        let (via4, via6) = addresses(GATEWAY);
        let (v4, v6) = (host.v4, host.v6);
        machine.door(&host.name).feed(
            ["ip", "-batch", "-"],
            format!(
                "addr add {v4}/24 brd + dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n\
                 route add default via {via4}\nroute add default via {via6}\n"
            )
            .as_bytes(),
        )?;
        Ok(())
    }

    /// Pulls the cable. The kernel would do so too after the host's namespace is gone, but later.
    pub fn unplug(&self, host: &str) {
        self.door().exec(["ip", "link", "del", host]);
    }

    /// Adds pairs, each a direction, to a set of the filter, or takes them out.
    pub fn filter(&self, verb: &str, set: &str, pairs: &[(&str, &str)]) -> Result<(), Error> {
        // An element must not be there when added to a fresh set, and must be there when deleted.
        let pairs: Vec<String> = pairs.iter().map(|(a, b)| format!("\"{a}\" . \"{b}\"")).collect();
        let pairs = format!("{{ {} }}", pairs.join(", "));
        let batch =
            format!("add element bridge lab {set} {pairs}\n{verb} element bridge lab {set} {pairs}\n");
        self.door().feed(["nft", "-f", "-"], batch.as_bytes()).map(drop)
    }

    pub fn door(&self) -> Door {
        self.machine().door(SWITCH)
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a cable between a new port of a bridge behind a door and `eth0` of a machine, whose MAC tells its address.
pub(crate) fn cable(
    door: &Door,
    bridge: &str,
    port: &str,
    mtu: u32,
    v4: Ipv4Addr,
    machine: &Machine,
) -> Result<(), Error> {
    let (mtu, holder) = (mtu.to_string(), machine.holder.pid.to_string());
    // `netns PID` is read by the kernel in the caller's pid namespace: enter nothing but the network here.
    let mut ip = std::process::Command::new("nsenter");
    ip.args(["-t", &door.holder.to_string(), "-n", "ip", "link", "add", port, "mtu", &mtu]);
    ip.args(["type", "veth", "peer", "name", "eth0", "mtu", &mtu, "address", &mac(v4), "netns", &holder]);
    let made = crate::command::output(&mut ip);
    if !made.ok() {
        let command = format!("ip link add {port} type veth");
        return Err(Error::Command {
            whom: door.whom.clone(),
            command,
            status: made.status,
            said: made.stderr,
        });
    }
    let up =
        format!("link set {port} master {bridge}\nlink set {port} addrgenmode none\nlink set {port} up\n");
    door.feed(["ip", "-batch", "-"], up.as_bytes()).map(drop)
}

/// The underlay addresses with this number.
pub(crate) fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(192, 0, 2, number), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)))
}

/// A host keeps its network card when it is rebooted: others need not learn a new address.
fn mac(v4: Ipv4Addr) -> String {
    format!("02:00:00:00:00:{:02x}", v4.octets()[3])
}

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    daemon: Daemon,
    path: PathBuf,
}

/// What was captured.
#[derive(Clone, Debug)]
pub struct Pcap {
    /// The file, in pcap format; it goes with the lab's directory.
    pub path: PathBuf,
    /// Frames in it.
    pub captured: u64,
    /// Frames lost because the capture was too slow; not 0 means that absence proves nothing.
    pub dropped: u64,
}

impl Capture {
    /// Starts tcpdump on an interface and waits until it listens.
    pub(crate) fn start(door: &Door, iface: &str, path: PathBuf, filter: &str) -> Result<Capture, Error> {
        let log = path.with_extension("log");
        let file = path.to_string_lossy().into_owned();
        // Immediately: else the last second's frames wait in a block of the ring, and an end by signal loses them.
        let mut argv = vec!["tcpdump", "--immediate-mode", "-Z", "root", "-n", "-U", "-B", "65536"];
        argv.extend(["-i", iface, "-w", &file]);
        if !filter.is_empty() {
            argv.push(filter);
        }
        let mut daemon = door.spawn(argv, &log)?;
        let limit = Duration::from_secs(20);
        if !daemon.wait_log("listening on", limit) {
            let hint = format!("tcpdump says: {}", daemon.log_text().trim());
            return Err(Error::Late { what: "the start of tcpdump".into(), seconds: limit.as_secs(), hint });
        }
        Ok(Capture { daemon, path })
    }

    /// Ends it, with everything captured so far in the file.
    pub fn stop(mut self) -> Result<Pcap, Error> {
        // Frames that were on the bridge a moment ago must be in the file.
        std::thread::sleep(Duration::from_millis(100));
        self.daemon.signal(Signal::INT);
        let limit = Duration::from_secs(10);
        if self.daemon.wait(limit).is_none() {
            self.daemon.kill9();
            let hint = format!("tcpdump says: {}", self.daemon.log_text().trim());
            return Err(Error::Late { what: "the end of tcpdump".into(), seconds: limit.as_secs(), hint });
        }
        let log = self.daemon.log_text();
        let count = |what: &str| -> u64 {
            log.lines().find_map(|l| l.strip_suffix(what)?.trim().parse().ok()).unwrap_or_default()
        };
        Ok(Pcap {
            captured: count("packets captured").max(count("packet captured")),
            dropped: count("packets dropped by kernel").max(count("packet dropped by kernel")),
            path: self.path,
        })
    }
}

/// Waits until one address answers a ping from behind a door.
pub(crate) fn wait_reachable(door: &Door, to: &str, limit: Duration) -> bool {
    process::wait_until(limit, || door.exec(["ping", "-c1", "-W1", to]).ok())
}

/// The file of a capture in a directory, numbered so that none overwrites another.
pub(crate) fn pcap_path(dir: &Path) -> PathBuf {
    (1..)
        .map(|n| dir.join(format!("underlay-{n}.pcap")))
        .find(|p| !p.exists())
        .unwrap_or_else(|| dir.join("underlay.pcap"))
}
