//! One host of a lab: commands, daemons, containers' namespaces, and its power switch.

use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use crate::{
    command::{Daemon, Door, Output},
    error::{Context, Error},
    machine::Machine,
    nat::Nat,
    process,
    state::{HostState, LabState},
    switch::{self, Capture, SWITCH, Switch},
    thaw,
};

/// A host of a lab. Its methods take `&self`: threads may share it.
#[derive(Debug)]
pub struct Host {
    state: HostState,
    shared: Arc<Shared>,
    machine: Mutex<Option<Machine>>,
}

/// What the hosts of a lab have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub lab: LabState,
    pub switch: Switch,
    pub nats: Vec<Nat>,
    /// Machines started from now on outlive this process.
    pub kept: AtomicBool,
}

/// Bytes and frames an interface has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IfaceCounters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames (or superframes) received.
    pub rx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames (or superframes) sent.
    pub tx_packets: u64,
}

impl Host {
    pub(crate) fn new(state: HostState, shared: Arc<Shared>) -> Host {
        let machine = shared.lab.holder(&state.name).map(Machine::attach);
        Host { state, shared, machine: Mutex::new(machine) }
    }

    /// `h1`, `h2`, ...
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Its IPv4 address: 192.0.2.N on the underlay, 192.168.1.N behind a NAT box.
    pub fn addr(&self) -> Ipv4Addr {
        self.state.v4
    }

    /// Its IPv6 address on the underlay: 2001:db8::N. Behind a NAT box one that leads nowhere.
    pub fn addr6(&self) -> Ipv6Addr {
        self.state.v6
    }

    /// Where its logs are, on this machine's file system.
    pub fn log_dir(&self) -> PathBuf {
        self.disk().join("log")
    }

    /// Its disk: what a path of its /var/lib/docker, /var/lib/weft, /etc/docker or /etc/systemd/system is on this
    /// machine's file system. It survives a reboot and goes with the lab.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.disk().join(path.trim_start_matches('/'))
    }

    /// The pid (in this machine's view) of the process that holds its namespaces; none while it is off.
    pub fn holder(&self) -> Option<i32> {
        self.machine().as_ref().map(|m| m.holder.pid)
    }

    /// Runs a command to its end. That it failed, or that the host is off, is in the output.
    pub fn exec<I>(&self, argv: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        match self.door() {
            Ok(door) => door.exec(argv),
            Err(e) => Output { status: -1, stdout: String::new(), stderr: e.to_string() },
        }
    }

    /// Runs a command to its end and gives its standard output; any exit code but 0 is an error with what it said.
    pub fn run<I>(&self, argv: I) -> Result<String, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.door()?.run(argv)
    }

    /// As [`Host::run`], with bytes on standard input.
    pub fn feed<I>(&self, argv: I, input: &[u8]) -> Result<String, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.door()?.feed(argv, input)
    }

    /// Runs a shell script (`sh -c`); any exit code but 0 is an error.
    pub fn sh(&self, script: &str) -> Result<String, Error> {
        self.run(["sh", "-c", script])
    }

    /// `docker ARGS`, standard output without the last line break.
    pub fn docker<I>(&self, args: I) -> Result<String, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let args: Vec<_> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let out = self.door()?.run(std::iter::once(OsStr::new("docker").to_owned()).chain(args))?;
        Ok(out.trim_end().to_owned())
    }

    /// A command ready to run inside, for what the other methods do not offer (own pipes, environment, terminal).
    /// The environment is a fresh one.
    pub fn command<I>(&self, argv: I) -> Result<Command, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Ok(self.door()?.command(argv))
    }

    /// Starts a daemon such as `weft up`. Its standard output and error are appended to `log` in [`Host::log_dir`].
    /// It dies with the host.
    pub fn spawn<I>(&self, argv: I, log: &str) -> Result<Daemon, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.door()?.spawn(argv, &self.log_dir().join(log))
    }

    /// The pid of a running container's first process, in this machine's view.
    pub fn container_pid(&self, container: &str) -> Result<i32, Error> {
        let none = || Error::NoContainer { container: container.to_owned(), host: self.name().to_owned() };
        let inner = self.docker(["inspect", "-f", "{{.State.Pid}}", container])?;
        let inner = inner.parse().ok().filter(|&pid| pid > 1).ok_or_else(none)?;
        process::outer_pid(self.door()?.holder, inner).ok_or_else(none)
    }

    /// Runs a command in the network namespace of a process (a container's, by [`Host::container_pid`]) but with
    /// this host's file system: iperf3, tcpdump or `ip` need not be in the container.
    pub fn exec_in_netns_of<I>(&self, pid: i32, argv: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        match self.door() {
            Ok(door) => Door { network_of: Some(pid), ..door }.exec(argv),
            Err(e) => Output { status: -1, stdout: String::new(), stderr: e.to_string() },
        }
    }

    /// Starts a daemon in the network namespace of a process, as [`Host::spawn`] does in the host's.
    pub fn spawn_in_netns_of<I>(&self, pid: i32, argv: I, log: &str) -> Result<Daemon, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Door { network_of: Some(pid), ..self.door()? }.spawn(argv, &self.log_dir().join(log))
    }

    /// Starts to write every frame on an interface in the network namespace of a process (a container's) to a file.
    pub fn capture_in_netns_of(&self, pid: i32, iface: &str) -> Result<Capture, Error> {
        let path = self.shared.lab.disks.join(format!("{}-{pid}-{iface}.pcap", self.name()));
        Capture::start(&Door { network_of: Some(pid), ..self.door()? }, iface, path, "")
    }

    /// What an interface of the host has counted; none if there is no such interface.
    pub fn iface_counters(&self, iface: &str) -> Option<IfaceCounters> {
        let root = format!("/proc/{}/root/sys/class/net/{iface}/statistics", self.holder()?);
        let read = |name: &str| fs::read_to_string(format!("{root}/{name}")).ok()?.trim().parse().ok();
        Some(IfaceCounters {
            rx_bytes: read("rx_bytes")?,
            rx_packets: read("rx_packets")?,
            tx_bytes: read("tx_bytes")?,
            tx_packets: read("tx_packets")?,
        })
    }

    /// All its processes (in this machine's view), those in containers too.
    pub fn processes(&self) -> Vec<i32> {
        self.holder().map(process::members).unwrap_or_default()
    }

    /// The power fails: every process dies at once, the cable is dead. Its disk stays. Off already is no error.
    pub fn kill(&self) {
        let mut machine = self.machine();
        if let Some(mut m) = machine.take() {
            thaw::thaw(&self.shared.lab.cgroup(self.name()));
            m.kill();
            self.unplug();
            let _none = self.shared.lab.set_holder(self.name(), None);
        }
    }

    /// Switches it on with its old disk and address, without its engine. On already is no error.
    pub fn boot(&self) -> Result<(), Error> {
        let mut machine = self.machine();
        if machine.is_some() {
            return Ok(());
        }
        let disk = self.disk();
        let log = self.log_dir();
        fs::create_dir_all(&log).context(|| format!("cannot make {}", log.display()))?;
        let config = serde_json::to_vec_pretty(&self.engine_config()).unwrap_or_default();
        let file = disk.join("daemon.json");
        fs::write(&file, config).context(|| format!("cannot write {}", file.display()))?;
        let mut new = Machine::start()?;
        self.shared.lab.set_holder(self.name(), Some(new.holder))?;
        let booted = new
            .boot(self.name(), &disk, self.shared.lab.weft.as_deref())
            .and_then(|()| self.plug(&new))
            .and_then(|()| if self.shared.kept.load(Ordering::Relaxed) { new.keep() } else { Ok(()) });
        if let Err(e) = booted {
            new.kill();
            return Err(e);
        }
        *machine = Some(new);
        Ok(())
    }

    /// The power fails and comes back; the engine is started as at boot. Nothing else is: there is no init system.
    pub fn reboot(&self) -> Result<(), Error> {
        self.kill();
        self.boot()?;
        self.engine_start()
    }

    /// Waits until another host answers its ping.
    pub fn wait_reaches(&self, to: &Host, limit: Duration) -> bool {
        self.door().is_ok_and(|d| switch::wait_reachable(&d, &to.addr().to_string(), limit))
    }

    /// The NAT box that it is behind.
    pub fn nat(&self) -> Option<&Nat> {
        let name = self.state.behind.as_deref()?;
        self.shared.nats.iter().find(|nat| nat.name() == name)
    }

    fn plug(&self, machine: &Machine) -> Result<(), Error> {
        match self.nat() {
            Some(nat) => nat.plug(&self.state, machine),
            None => self.shared.switch.plug(&self.state, machine),
        }
    }

    fn unplug(&self) {
        match self.nat() {
            Some(nat) => nat.unplug(self.name()),
            None => self.shared.switch.unplug(self.name()),
        }
    }

    /// The port of the switch that leads to it.
    pub(crate) fn port(&self) -> &str {
        self.state.port()
    }

    pub(crate) fn keep(&self) -> Result<(), Error> {
        self.machine().as_mut().map_or(Ok(()), Machine::keep)
    }

    pub(crate) fn door(&self) -> Result<Door, Error> {
        match &*self.machine() {
            Some(m) => Ok(m.door(self.name())),
            None => Err(Error::Off(self.name().to_owned())),
        }
    }

    fn engine_config(&self) -> serde_json::Value {
        json!({
            "storage-driver": "overlay2",
            "live-restore": true,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": format!("/{}", self.shared.lab.cgroup(self.name())),
        })
    }

    fn disk(&self) -> PathBuf {
        self.shared.lab.disks.join(self.name())
    }

    fn machine(&self) -> MutexGuard<'_, Option<Machine>> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what every host of the lab finds in /etc at its first boot.
pub(crate) fn write_etc(lab: &LabState) -> Result<(), Error> {
    let mut hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
    // Those behind a NAT box have no address that all can use.
    for host in lab.hosts.iter().filter(|host| host.behind.is_none()) {
        hosts += &format!("{} {}\n", host.v4, host.name);
    }
    let (gateway, _) = switch::addresses(switch::GATEWAY);
    write(&lab.disks.join("hosts"), &hosts)?;
    // Nobody answers there, and the answer to that comes at once.
    write(&lab.disks.join("resolv.conf"), &format!("# the {SWITCH} of the lab\nnameserver {gateway}\n"))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}
