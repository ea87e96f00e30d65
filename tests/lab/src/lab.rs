//! A lab as a whole: built, cut, mended, listened to, kept or removed.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use crate::{
    cleanup::{self, Janitor},
    command::Output,
    error::Error,
    host::{self, Host, Shared},
    nat::{self, Nat, NatKind, NatState},
    possible,
    process::Process,
    state::{self, HostState, LabState},
    switch::{self, Capture, SWITCH, Switch},
};

/// What a lab is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    hosts: usize,
    name: Option<String>,
    mtu: u32,
    engines: bool,
    weft: Option<PathBuf>,
    nats: Vec<(NatKind, Vec<String>)>,
}

impl Builder {
    /// Number of hosts, 3 by default; they are `h1`, `h2`, ...
    pub fn hosts(mut self, hosts: usize) -> Builder {
        self.hosts = hosts;
        self
    }

    /// A name of its own instead of one made from this process's pid.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// MTU of the underlay in bytes, 1500 by default.
    pub fn mtu(mut self, mtu: u32) -> Builder {
        self.mtu = mtu;
        self
    }

    /// Puts a NAT box between these hosts and the underlay: `n1`, a second call makes `n2`, and so on. Behind each the
    /// hosts are 192.168.1.2, .3, ...: the same addresses behind every box. Without IPv6.
    pub fn nat(mut self, kind: NatKind, hosts: &[&str]) -> Builder {
        self.nats.push((kind, hosts.iter().map(|h| (*h).to_owned()).collect()));
        self
    }

    /// Whether each host's Docker engine is started too; yes by default.
    pub fn engines(mut self, engines: bool) -> Builder {
        self.engines = engines;
        self
    }

    /// The binary under test, instead of WEFT_BIN or the newest `weft` beside the running executable.
    pub fn weft(mut self, path: impl Into<PathBuf>) -> Builder {
        self.weft = Some(path.into());
        self
    }

    /// Starts it. When this returns the hosts reach each other and the engines answer.
    pub fn up(self) -> Result<Lab, Error> {
        possible::possible().map_err(Error::Impossible)?;
        if !(1..=switch::MAX_HOSTS).contains(&self.hosts) {
            return Err(Error::HostCount { asked: self.hosts, max: switch::MAX_HOSTS });
        }
        let name = self.name.unwrap_or_else(own_name);
        if !state::good_name(&name) {
            return Err(Error::BadName(name));
        }
        cleanup::end_stale();
        let weft = self.weft.or_else(find_weft);
        if let Some(missing) = weft.as_ref().filter(|path| !path.is_file()) {
            return Err(Error::NoBinary(missing.clone()));
        }
        let hosts = (1..=self.hosts).filter_map(|n| u8::try_from(n).ok()).map(|n| {
            let (v4, v6) = switch::addresses(n);
            HostState { name: format!("h{n}"), v4, v6, behind: None }
        });
        let mut hosts: Vec<HostState> = hosts.collect();
        let nats = put_behind(&mut hosts, &self.nats)?;
        let id = format!("{name}.{}", std::process::id());
        let lab = LabState {
            disks: state::disks_root().join(&id),
            id,
            owner: Some(Process::current()),
            mtu: self.mtu,
            weft: weft.map(|w| fs::canonicalize(&w).unwrap_or(w)),
            hosts,
            nats,
            name,
        };
        lab.claim()?;
        Lab::start(lab, self.engines)
    }
}

/// Several hosts with their engines and the switch between them. Dropping it removes everything, unless
/// [`Lab::keep`] was called or it was reached by [`Lab::attach`].
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    hosts: Vec<Host>,
    /// Present in the process that must remove it.
    janitor: Option<Janitor>,
}

impl Lab {
    /// Three hosts with engines, MTU 1500, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { hosts: 3, name: None, mtu: 1500, engines: true, weft: None, nats: Vec::new() }
    }

    /// One sentence about why no lab can run on this machine, if none can.
    pub fn possible() -> Result<(), String> {
        possible::possible()
    }

    /// A lab that another process started.
    pub fn attach(name: &str) -> Result<Lab, Error> {
        let lab = LabState::read(name)?;
        let holder = lab.holder(SWITCH).ok_or_else(|| Error::NoLab(name.to_owned()))?;
        let switch = Switch::attach(holder, lab.mtu);
        let nats = lab.nats.iter().map(|nat| {
            let holder = lab.holder(&nat.name).ok_or_else(|| Error::NoLab(name.to_owned()))?;
            Ok(Nat::attach(nat.clone(), holder, lab.mtu))
        });
        let nats = nats.collect::<Result<_, Error>>()?;
        Ok(Lab::of(Shared { lab, switch, nats, kept: AtomicBool::new(true) }, None))
    }

    fn start(lab: LabState, engines: bool) -> Result<Lab, Error> {
        let janitor = Janitor::start(&lab)?;
        // Until the Lab exists, an error must end what was started: the janitor does when it is dropped with us,
        // and the machines die with their pipes.
        let prepared = prepare(&lab)
            .and_then(|()| Switch::start(lab.mtu))
            .and_then(|switch| lab.set_holder(SWITCH, Some(switch.holder)).map(|()| switch))
            .and_then(|switch| start_nats(&lab, &switch).map(|nats| (switch, nats)));
        let (switch, nats) = match prepared {
            Ok(ready) => ready,
            Err(e) => {
                janitor.work();
                return Err(e);
            }
        };
        let lab = Lab::of(Shared { lab, switch, nats, kept: AtomicBool::new(false) }, Some(janitor));
        lab.on_all_hosts(Host::boot)?;
        if engines {
            lab.on_all_hosts(Host::engine_start)?;
        }
        Ok(lab)
    }

    fn of(shared: Shared, janitor: Option<Janitor>) -> Lab {
        let shared = Arc::new(shared);
        let hosts = shared.lab.hosts.iter().map(|h| Host::new(h.clone(), Arc::clone(&shared))).collect();
        Lab { shared, hosts, janitor }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.lab.name
    }

    /// The directory of disks, logs and captures; it goes with the lab.
    pub fn dir(&self) -> &Path {
        &self.shared.lab.disks
    }

    /// MTU of its underlay in bytes.
    pub fn mtu(&self) -> u32 {
        self.shared.lab.mtu
    }

    /// The binary under test that the hosts have as `weft`, if one was found.
    pub fn weft(&self) -> Option<&Path> {
        self.shared.lab.weft.as_deref()
    }

    /// All hosts, `h1` first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name.
    ///
    /// # Panics
    /// If there is none: a mistake in the test. See [`Lab::find`].
    pub fn host(&self, name: &str) -> &Host {
        self.find(name).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The host of this name, if there is one.
    pub fn find(&self, name: &str) -> Result<&Host, Error> {
        self.hosts.iter().find(|h| h.name() == name).ok_or_else(|| Error::NoHost {
            name: name.to_owned(),
            have: self.hosts.iter().map(Host::name).collect::<Vec<_>>().join(" "),
        })
    }

    /// The NAT box of this name.
    ///
    /// # Panics
    /// If there is none: a mistake in the test.
    pub fn nat(&self, name: &str) -> &Nat {
        self.nats().iter().find(|n| n.name() == name).unwrap_or_else(|| panic!("no NAT box `{name}`"))
    }

    /// All NAT boxes, `n1` first.
    pub fn nats(&self) -> &[Nat] {
        &self.shared.nats
    }

    /// Does something on all hosts at once; the first error in their order is the answer.
    pub fn on_all_hosts<F>(&self, work: F) -> Result<(), Error>
    where
        F: Fn(&Host) -> Result<(), Error> + Sync,
    {
        std::thread::scope(|scope| {
            let all: Vec<_> = self.hosts.iter().map(|h| scope.spawn(|| work(h))).collect();
            all.into_iter().try_for_each(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
        })
    }

    /// Nothing passes between these two hosts any more. Cut already is no error. With a host behind a NAT box all that
    /// are behind it are meant.
    pub fn cut(&self, a: &str, b: &str) -> Result<(), Error> {
        self.filter("add", "cut", &[(a, b), (b, a)])
    }

    /// Takes back [`Lab::cut`], [`Lab::block_udp`] and [`Lab::block_way`], both directions. Not cut is no error.
    pub fn mend(&self, a: &str, b: &str) -> Result<(), Error> {
        ["cut", "no_udp", "no_way"].iter().try_for_each(|set| self.filter("delete", set, &[(a, b), (b, a)]))
    }

    /// No UDP passes between these two hosts any more; all else does.
    pub fn block_udp(&self, a: &str, b: &str) -> Result<(), Error> {
        self.filter("add", "no_udp", &[(a, b), (b, a)])
    }

    /// No UDP and no TCP passes from one host to another any more; the other way all does.
    pub fn block_way(&self, from: &str, to: &str) -> Result<(), Error> {
        self.filter("add", "no_way", &[(from, to)])
    }

    /// Runs a command in the switch's namespaces: `tc`, more `nft`, or a stranger on the underlay (192.0.2.254).
    pub fn switch_exec<I>(&self, argv: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.shared.switch.door().exec(argv)
    }

    /// A command ready to run in the switch's namespaces.
    pub fn switch_command<I>(&self, argv: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.shared.switch.door().command(argv)
    }

    /// Starts to write every frame between the hosts to a file.
    pub fn underlay_capture(&self) -> Result<Capture, Error> {
        self.underlay_capture_of("")
    }

    /// As [`Lab::underlay_capture`], only frames that match a tcpdump filter.
    pub fn underlay_capture_of(&self, filter: &str) -> Result<Capture, Error> {
        Capture::start(&self.shared.switch.door(), "underlay", switch::pcap_path(self.dir()), filter)
    }

    /// Lets the lab stay after this process, until `weft-lab down`.
    pub fn keep(mut self) -> Result<(), Error> {
        self.shared.kept.store(true, Ordering::Relaxed);
        LabState { owner: None, ..self.shared.lab.clone() }.write()?;
        // From here on only `down` ends it: the janitor goes last, so that a failure half way removes all.
        self.on_all_hosts(Host::keep)?;
        self.shared.nats.iter().try_for_each(Nat::keep)?;
        self.shared.switch.keep()?;
        if let Some(janitor) = self.janitor.take() {
            janitor.dismiss();
        }
        Ok(())
    }

    fn filter(&self, verb: &str, set: &str, pairs: &[(&str, &str)]) -> Result<(), Error> {
        let ports = pairs.iter().map(|(from, to)| Ok((self.find(from)?.port(), self.find(to)?.port())));
        self.shared.switch.filter(verb, set, &ports.collect::<Result<Vec<_>, Error>>()?)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Some(janitor) = self.janitor.take() else { return };
        if std::thread::panicking() {
            eprintln!("{}", last_words(self));
        }
        for host in &self.hosts {
            host.kill();
        }
        self.shared.nats.iter().for_each(Nat::kill);
        self.shared.switch.kill();
        if !janitor.work() {
            eprintln!("weft-lab: something of lab `{}` is left in {}", self.name(), self.dir().display());
        }
    }
}

fn prepare(lab: &LabState) -> Result<(), Error> {
    for host in &lab.hosts {
        let log = lab.disks.join(&host.name).join("log");
        state::make_dirs(&log)?;
    }
    host::write_etc(lab)
}

/// Makes the boxes, and moves their hosts behind them.
fn put_behind(hosts: &mut [HostState], wanted: &[(NatKind, Vec<String>)]) -> Result<Vec<NatState>, Error> {
    let behind = wanted.iter().map(|(_, names)| names.len()).max().unwrap_or_default();
    if wanted.len() > nat::MAX_BOXES || behind > nat::MAX_BEHIND {
        return Err(Error::NatCount { boxes: nat::MAX_BOXES, behind: nat::MAX_BEHIND });
    }
    let have = hosts.iter().map(|h| h.name.clone()).collect::<Vec<_>>().join(" ");
    let mut nats = Vec::new();
    for (index, (kind, names)) in wanted.iter().enumerate() {
        let nat = NatState::new(index, *kind);
        for (nth, name) in names.iter().enumerate() {
            let none = || Error::NoHost { name: name.clone(), have: have.clone() };
            let host = hosts.iter_mut().find(|h| h.name == *name && h.behind.is_none()).ok_or_else(none)?;
            (host.v4, host.v6) = NatState::inside(nth + 1);
            host.behind = Some(nat.name.clone());
        }
        nats.push(nat);
    }
    Ok(nats)
}

fn start_nats(lab: &LabState, switch: &Switch) -> Result<Vec<Nat>, Error> {
    let start = |nat: &NatState| {
        let nat = Nat::start(nat.clone(), switch, lab.mtu)?;
        lab.set_holder(nat.name(), Some(nat.holder())).map(|()| nat)
    };
    lab.nats.iter().map(start).collect()
}

/// The end of every log: after a panic the lab's directory is gone.
fn last_words(lab: &Lab) -> String {
    const LINES: usize = 15;
    let mut text = format!("lab `{}` ends with a panic; the ends of its logs:\n", lab.name());
    for host in lab.hosts() {
        let logs = fs::read_dir(host.log_dir()).into_iter().flatten().flatten();
        for log in logs.map(|entry| entry.path()) {
            let all = fs::read(&log).unwrap_or_default();
            let all = String::from_utf8_lossy(&all);
            let lines: Vec<&str> = all.lines().collect();
            text += &format!("--- {} {}\n", host.name(), log.file_name().unwrap_or_default().display());
            text += &lines[lines.len().saturating_sub(LINES)..].join("\n");
            text += "\n";
        }
    }
    text
}

fn own_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    format!("p{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// WEFT_BIN, or the newest `weft` in the release directories of the target directory this executable is in.
fn find_weft() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("WEFT_BIN") {
        return Some(path.into());
    }
    let exe = std::env::current_exe().ok()?;
    let target = exe.ancestors().find(|dir| dir.file_name() == Some(OsStr::new("target")))?;
    let triples = fs::read_dir(target).into_iter().flatten().flatten().map(|e| e.path());
    let found = triples.chain([target.to_owned()]).map(|dir| dir.join("release/weft"));
    let beside = exe.parent().map(|dir| dir.join("weft"));
    found.chain(beside).filter(|p| p.is_file()).max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok())
}
