//! The lab does what it promises: hosts like machines, cuts, crashes, and nothing left behind.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use weft_lab::{BUSYBOX, Host, Lab, NatKind, Process, Signal};

const BIN: &str = env!("CARGO_BIN_EXE_weft-lab");

/// Says how long a step took.
fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = step();
    println!("{what}: {:.2} s", start.elapsed().as_secs_f64());
    result
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Everything by which a lab could be noticed once it is gone.
struct Traces {
    name: String,
    processes: Vec<Process>,
    namespaces: BTreeSet<String>,
}

impl Traces {
    fn of(lab: &Lab) -> Traces {
        let pids = lab.hosts().iter().flat_map(|h| h.processes().into_iter().chain(h.holder()));
        let pids = pids.chain(lab.nats().iter().map(|nat| nat.holder().pid));
        let processes: Vec<Process> = pids.filter_map(Process::of).collect();
        let namespaces = processes.iter().flat_map(|p| namespaces_of(p.pid)).collect::<BTreeSet<_>>();
        let own = namespaces_of(Process::current().pid);
        let namespaces = namespaces.into_iter().filter(|n| !own.contains(n)).collect();
        Traces { name: lab.name().to_owned(), processes, namespaces }
    }

    /// What is still there, in words.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.processes.iter().filter(|p| p.alive()).map(|p| format!("process {}", p.pid)).collect();
        let all = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse().ok());
        left.extend(all.flat_map(namespaces_of).filter(|n| self.namespaces.contains(n)));
        left.extend(left_of(&self.name));
        left
    }
}

fn namespaces_of(pid: i32) -> Vec<String> {
    let links = ["mnt", "net", "pid", "uts"].map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")));
    links.into_iter().flatten().map(|l| l.display().to_string()).collect()
}

fn left_of(name: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mut left: Vec<String> =
        mounts.lines().filter(|l| l.contains(&format!("weft-lab/{name}."))).map(str::to_owned).collect();
    let groups = mounts.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4));
    for group in groups.flat_map(|g| fs::read_dir(g).into_iter().flatten().flatten()) {
        if group.file_name().to_string_lossy().starts_with(&format!("weft-lab-{name}.")) {
            left.push(group.path().display().to_string());
        }
    }
    for dir in ["/run/weft-lab", "/var/tmp/weft-lab"] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        let ours = |p: &std::path::PathBuf| p.file_stem().is_some_and(|stem| stem == name);
        left.extend(entries.filter(ours).map(|p| p.display().to_string()));
    }
    left
}

#[test]
fn three_hosts_are_three_machines() {
    if weft_lab::skip() {
        return;
    }
    let lab = timed("three hosts with engines up", || Lab::builder().up().unwrap());
    timed("image on three engines", || lab.image().unwrap());
    timed("a container on each", || {
        lab.on_all_hosts(|h| {
            assert!(h.run(["docker", "version"])?.contains("Server"));
            assert_eq!(h.docker(["run", "--rm", BUSYBOX, "echo", h.name()])?, h.name());
            Ok(())
        })
        .unwrap();
    });
    let h1 = lab.host("h1");
    assert_eq!(h1.run(["hostname"]).unwrap().trim(), "h1");
    assert_eq!(h1.run(["ls", "/sys/class/net"]).unwrap(), "docker0\neth0\nlo\n");
    assert_eq!(
        h1.run(["sh", "-c", "ls /etc/systemd/system /var/lib/weft; pgrep -c dockerd"])
            .unwrap()
            .lines()
            .last(),
        Some("1")
    );
    // What one host writes no other sees, and this machine neither.
    h1.sh("touch /etc/only-h1 /run/only-h1 /var/lib/only-h1").unwrap();
    assert!(
        !lab.host("h2")
            .exec(["sh", "-c", "ls /etc/only-h1 /run/only-h1 /var/lib/only-h1"])
            .stdout
            .contains("only")
    );
    assert!(!Path::new("/etc/only-h1").exists() && !Path::new("/run/only-h1").exists());
    for to in lab.hosts() {
        for address in [to.addr().to_string(), to.addr6().to_string(), to.name().to_owned()] {
            h1.run(["ping", "-c1", "-W2", &address]).unwrap();
        }
    }
    let traces = Traces::of(&lab);
    timed("down", || drop(lab));
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn a_cut_is_a_cut_and_only_there() {
    if weft_lab::skip() {
        return;
    }
    let lab = timed("three hosts without engines up", || Lab::builder().engines(false).up().unwrap());
    let ping = |from: &str, to: &str| lab.host(from).exec(["ping", "-c1", "-W1", to]).ok();
    assert!(ping("h1", "h3"));
    timed("cut", || lab.cut("h1", "h3").unwrap());
    lab.cut("h3", "h1").unwrap();
    assert!(!ping("h1", "h3") && !ping("h3", "h1"));
    assert!(ping("h1", "h2") && ping("h2", "h3"));
    lab.mend("h1", "h3").unwrap();
    lab.mend("h1", "h3").unwrap();
    assert!(ping("h1", "h3"));

    // traceroute sends UDP and is answered by ICMP; a closed TCP port refuses.
    let heard = |tool: &[&str], answer: &str| {
        let said = lab.host("h1").exec(tool);
        said.stdout.contains(answer) || said.stderr.contains(answer)
    };
    let udp = ["busybox", "traceroute", "-n", "-m", "1", "-q", "1", "-w", "1", "h2"];
    let tcp = ["timeout", "2", "busybox", "nc", "h2", "7"];
    assert!(heard(&udp, " ms"));
    lab.block_udp("h1", "h2").unwrap();
    assert!(!heard(&udp, " ms") && heard(&tcp, "refused"));
    lab.mend("h1", "h2").unwrap();
    assert!(heard(&udp, " ms"));
    lab.block_way("h1", "h2").unwrap();
    let back = ["busybox", "traceroute", "-n", "-m", "1", "-q", "1", "-w", "1", "h1"];
    assert!(!heard(&udp, " ms") && lab.host("h2").exec(back).stdout.contains(" ms"));
    lab.mend("h1", "h2").unwrap();
    assert!(heard(&udp, " ms"));
    assert!(lab.cut("h1", "h9").unwrap_err().to_string().contains("h1 h2 h3"));
}

/// A UDP socket on a host.
#[expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
fn socket(host: &Host, port: u16) -> UdpSocket {
    let namespace = fs::File::open(format!("/proc/{}/ns/net", host.holder().unwrap())).unwrap();
    let address = SocketAddr::from((host.addr(), port));
    let thread = std::thread::spawn(move || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        UdpSocket::bind(address).unwrap()
    });
    let socket = thread.join().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// Where a datagram came from, if one came.
fn came(socket: &UdpSocket) -> Option<SocketAddr> {
    socket.recv_from(&mut [0; 9]).ok().map(|(_, from)| from)
}

#[test]
fn nat_boxes_hide_their_hosts_and_drop_what_nobody_asked_for() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(5).engines(false);
    let lab = lab.nat(NatKind::Cone, &["h3", "h4"]).nat(NatKind::Symmetric, &["h5"]);
    let lab = timed("five hosts and two boxes up", || lab.up().unwrap());
    let [h1, h2, h3, h4, h5] = ["h1", "h2", "h3", "h4", "h5"].map(|name| lab.host(name));
    assert_eq!(h3.addr(), h5.addr(), "the same addresses behind every box");
    assert!(h3.exec(["ping", "-c1", "-W2", &h1.addr().to_string()]).ok());
    assert!(h3.exec(["ping", "-c1", "-W2", &h4.addr().to_string()]).ok());
    let [one, two] = [h1, h2].map(|host| socket(host, 9));
    let strange = socket(h1, 10);
    let public = |host: &Host, from: &UdpSocket| {
        [(&one, h1), (&two, h2)].map(|(at, to)| {
            from.send_to(b"out", (to.addr(), 9)).unwrap();
            let seen = came(at).unwrap();
            assert_eq!(seen.ip(), host.nat().unwrap().addr());
            at.send_to(b"back", seen).unwrap();
            assert_eq!(came(from), Some(SocketAddr::from((to.addr(), 9))));
            strange.send_to(b"unasked", seen).unwrap();
            assert_eq!(came(from), None);
            seen
        })
    };
    let [three, four, five] = [h3, h4, h5].map(|host| socket(host, 6783));
    let seen = public(h3, &three);
    assert_eq!(seen[0], seen[1], "one port for both");
    assert_ne!(seen[0].port(), 6783);
    let other = public(h4, &four);
    assert!(other[0] == other[1] && other[0] != seen[0]);
    let moving = public(h5, &five);
    assert_ne!(moving[0], moving[1], "another port for each");

    timed("forget", || lab.nat("n1").forget().unwrap());
    one.send_to(b"late", seen[0]).unwrap();
    assert_eq!(came(&three), None);
    let again = public(h3, &three);
    assert!(again[0] == again[1] && again[0] != seen[0]);
    let address = timed("change the address", || lab.nat("n1").change_address().unwrap());
    assert_ne!(again[0].ip(), address);
    assert_eq!(public(h3, &three)[0].ip(), address);
    lab.cut("h3", "h1").unwrap();
    three.send_to(b"cut", (h1.addr(), 9)).unwrap();
    assert_eq!(came(&one), None);
    let traces = Traces::of(&lab);
    drop(lab);
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn the_underlay_carries_superframes_and_can_be_listened_to() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(2).engines(false).mtu(1400).up().unwrap();
    let capture = timed("capture starts", || lab.underlay_capture_of("tcp port 7").unwrap());
    let before = lab.host("h2").iface_counters("eth0").unwrap();
    let h2 = lab.host("h2");
    h2.sh("head -c 67108864 /dev/zero >/run/zeros").unwrap();
    let mut server = h2.spawn(["busybox", "httpd", "-f", "-p", "7", "-h", "/run"], "httpd").unwrap();
    let fetch = "until wget -q -O /run/zeros http://h2:7/zeros; do sleep 0.05; done; wc -c </run/zeros";
    timed("64 MB over the underlay", || {
        assert_eq!(lab.host("h1").sh(&format!("timeout 20 sh -c '{fetch}'")).unwrap(), "67108864\n");
    });
    server.kill9();
    let after = lab.host("h2").iface_counters("eth0").unwrap();
    let (bytes, frames) = (after.tx_bytes - before.tx_bytes, after.tx_packets - before.tx_packets);
    println!("{bytes} bytes in {frames} frames");
    assert!(bytes > 67_108_864 && bytes / frames > 5 * 1400, "offloads of the veths are off");
    let pcap = capture.stop().unwrap();
    println!("{pcap:?}");
    assert!(pcap.captured > 100 && fs::metadata(&pcap.path).unwrap().len() > 100_000);
}

#[test]
fn containers_outlive_their_engine_and_disks_a_reboot() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(1).up().unwrap();
    lab.image().unwrap();
    let h1 = lab.host("h1");
    h1.docker(["run", "-d", "--name", "web", "--restart", "always", BUSYBOX, "sleep", "1000"]).unwrap();
    let container = Process::of(h1.container_pid("web").unwrap()).unwrap();
    assert!(h1.exec_in_netns_of(container.pid, ["ip", "-o", "-4", "addr"]).stdout.contains("172.17."));
    assert!(!h1.exec_in_netns_of(container.pid, ["ip", "-o", "-4", "addr"]).stdout.contains("192.0.2."));

    for round in 1..=3 {
        timed("kill -9 of the engine", || h1.engine_kill9().unwrap());
        assert!(container.alive() && h1.engine_pid().is_none());
        timed("engine back", || h1.engine_start().unwrap());
        assert_eq!(h1.docker(["exec", "web", "echo", "here"]).unwrap(), "here", "round {round}");
        assert_eq!(h1.container_pid("web").unwrap(), container.pid);
    }
    timed("engine stopped in order", || h1.engine_stop().unwrap());
    assert!(container.alive());
    h1.engine_start().unwrap();

    h1.sh("echo kept >/var/lib/weft/mark; echo gone >/run/mark").unwrap();
    timed("reboot", || h1.reboot().unwrap());
    assert!(!container.alive());
    assert_eq!(h1.sh("cat /var/lib/weft/mark; ls /run/mark 2>/dev/null || true").unwrap(), "kept\n");
    assert_eq!(fs::read_to_string(h1.on_disk("/var/lib/weft/mark")).unwrap(), "kept\n");
    eventually("the container starts at boot", || h1.docker(["exec", "web", "true"]).is_ok());
    h1.run(["ping", "-c1", "-W1", "192.0.2.254"]).unwrap();

    h1.kill();
    assert!(h1.exec(["true"]).stderr.contains("switched off"));
}

#[test]
fn daemons_are_signalled_by_pid() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(1).engines(false).up().unwrap();
    let script =
        "trap 'echo got hup' HUP; trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut daemon = lab.host("h1").spawn(["sh", "-c", script], "daemon").unwrap();
    assert!(daemon.wait_log("ready", Duration::from_secs(5)));
    daemon.signal(Signal::HUP);
    assert!(daemon.wait_log("got hup", Duration::from_secs(5)));
    daemon.signal(Signal::STOP);
    daemon.signal(Signal::CONT);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(Duration::from_secs(5)), Some(7));
    let mut daemon = lab.host("h1").spawn(["sleep", "1000"], "sleep").unwrap();
    daemon.signal(Signal::STOP);
    assert_eq!(daemon.kill9(), 128 + 9);
    let mut absent = lab.host("h1").spawn(["no-such-program"], "absent").unwrap();
    assert_eq!(absent.wait(Duration::from_secs(5)), Some(127));
}

#[test]
fn a_panic_leaves_nothing() {
    if weft_lab::skip() {
        return;
    }
    let mut traces = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::builder().hosts(2).nat(NatKind::Cone, &["h2"]).up().unwrap();
        lab.image().unwrap();
        lab.host("h1").docker(["run", "-d", BUSYBOX, "sleep", "1000"]).unwrap();
        let _daemon = lab.host("h2").spawn(["sleep", "1000"], "sleep").unwrap();
        let _capture = lab.underlay_capture().unwrap();
        let seen = left_of(lab.name());
        // Its cgroups, state and disks: what is looked for afterwards is what there is now.
        assert!(seen.len() > 2 && seen.iter().any(|s| s.contains("cgroup")), "{seen:?}");
        traces = Some(Traces::of(&lab));
        panic!("in the middle");
    }));
    assert!(panicked.is_err());
    let traces = traces.unwrap();
    assert!(traces.processes.len() > 8 && traces.namespaces.len() > 8);
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn two_labs_do_not_meet() {
    if weft_lab::skip() {
        return;
    }
    let labs = std::thread::scope(|s| {
        let both = [0; 2].map(|_| s.spawn(|| Lab::builder().hosts(2).up().unwrap()));
        both.map(|lab| lab.join().unwrap())
    });
    for lab in &labs {
        lab.image().unwrap();
        lab.host("h1").docker(["run", "-d", "--name", "same", BUSYBOX, "sleep", "1000"]).unwrap();
        lab.host("h2").run(["ping", "-c1", "-W1", "h1"]).unwrap();
    }
    let [a, b] = labs;
    assert_eq!(
        Lab::builder().name(a.name()).up().unwrap_err().to_string().split(':').next().unwrap(),
        format!("a lab named `{}` is up already", a.name())
    );
    drop(a);
    assert_eq!(b.host("h1").docker(["exec", "same", "echo", "here"]).unwrap(), "here");
    b.host("h1").run(["ping", "-c1", "-W1", "h2"]).unwrap();
}

#[test]
fn ctrl_c_and_kill_9_leave_nothing() {
    if weft_lab::skip() {
        return;
    }
    for (name, signal) in [("ctrl-c", "-INT"), ("kill-9", "-KILL")] {
        let name = format!("{name}-{}", std::process::id());
        let mut up = Command::new(BIN).args(["up", "--name", &name]).stdout(Stdio::null()).spawn().unwrap();
        let state = Path::new("/run/weft-lab").join(&name);
        eventually("a host starts", || state.join("h2.holder").exists());
        let holder = fs::read_to_string(state.join("h2.holder")).unwrap();
        let (pid, started) = holder.trim().split_once(' ').unwrap();
        let holder = Process { pid: pid.parse().unwrap(), started: started.parse().unwrap() };
        assert!(holder.alive() && left_of(&name).len() == 2);
        std::thread::sleep(Duration::from_millis(200));
        Command::new("kill").args([signal, &up.id().to_string()]).status().unwrap();
        assert!(!up.wait().unwrap().success());
        timed(&format!("all gone after {signal}"), || eventually("all gone", || left_of(&name).is_empty()));
        assert!(!holder.alive());
    }
}

#[test]
fn the_next_start_ends_what_even_the_janitor_could_not() {
    if weft_lab::skip() {
        return;
    }
    let name = format!("stale-{}", std::process::id());
    let args = ["up", "--no-engines", "--name", &name];
    let mut up = Command::new(BIN).args(args).stdout(Stdio::null()).spawn().unwrap();
    let janitor = || {
        let of_up = format!("PPid:\t{}\n", up.id());
        let pids = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
        pids.filter(|p| fs::read_to_string(p.join("status")).is_ok_and(|s| s.contains(&of_up)))
            .find(|p| fs::read_to_string(p.join("cmdline")).is_ok_and(|c| c.contains("weft-lab-janitor")))
    };
    eventually("the janitor starts", || janitor().is_some());
    let pid = janitor().unwrap().file_name().unwrap().to_owned();
    Command::new("kill").arg("-KILL").arg(pid).arg(up.id().to_string()).status().unwrap();
    up.wait().unwrap();
    assert!(!left_of(&name).is_empty());
    Lab::builder().hosts(1).engines(false).up().unwrap();
    assert_eq!(left_of(&name), Vec::<String>::new());
}

#[test]
fn the_binary_under_test_is_typed_as_weft() {
    if weft_lab::skip() {
        return;
    }
    let script = std::env::temp_dir().join(format!("weft-{}", std::process::id()));
    fs::write(&script, "#!/bin/sh\necho \"weft $1 on $(hostname)\"; sleep 1000 & sleep 1000\n").unwrap();
    Command::new("chmod").arg("755").arg(&script).status().unwrap();
    let lab = Lab::builder().hosts(1).engines(false).weft(&script).up().unwrap();
    let mut up = lab.host("h1").spawn(["weft", "up"], "weft.log").unwrap();
    assert!(up.wait_log("weft up on h1", Duration::from_secs(5)));
    eventually("its children start", || lab.host("h1").processes().len() >= 3);
    assert!(lab.host("h1").processes().contains(&up.pid));
    assert_eq!(up.kill9_tree(), 128 + 9);
    let left = lab.host("h1").run(["ps", "ax"]).unwrap();
    assert!(!left.contains("sleep 1000"), "{left}");
    fs::remove_file(&script).unwrap();
    let missing = Lab::builder().weft("/nowhere/weft").up().unwrap_err();
    assert!(missing.to_string().contains("/nowhere/weft"));
}

#[test]
fn people_can_use_it() {
    if weft_lab::skip() {
        return;
    }
    let name = format!("people-{}", std::process::id());
    let lab = |args: &[&str]| {
        let (verb, rest) = args.split_first().unwrap();
        let out = Command::new(BIN).args([verb, "--name", name.as_str()]).args(rest).output().unwrap();
        (
            out.status.code().unwrap(),
            String::from_utf8(out.stdout).unwrap(),
            String::from_utf8(out.stderr).unwrap(),
        )
    };
    let (status, out, err) = timed("weft-lab up", || lab(&["up", "--hosts", "2"]));
    assert_eq!(status, 0, "{err}");
    assert!(out.contains("192.0.2.2") && out.contains("weft-lab exec"), "{out}");
    assert_eq!(lab(&["exec", "h1", "--", "docker", "run", "--rm", "busybox", "echo", "hello"]).1, "hello\n");
    assert_eq!(lab(&["exec", "h2", "--", "sh", "-c", "exit 42"]).0, 42);
    assert_eq!(lab(&["exec", "h9", "--", "true"]).0, 1);
    lab(&["cut", "h1", "h2"]);
    assert_eq!(lab(&["exec", "h1", "--", "ping", "-c1", "-W1", "h2"]).0, 1);
    lab(&["mend", "h1", "h2"]);
    assert_eq!(lab(&["exec", "h1", "--", "ping", "-c1", "-W1", "h2"]).0, 0);
    assert_eq!(lab(&["reboot", "h2"]).0, 0);
    assert_eq!(lab(&["exec", "h2", "--", "docker", "images", "-q", "busybox"]).1.lines().count(), 1);

    let list = Command::new(BIN).args(["ls", "--json"]).output().unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let ours = list.as_array().unwrap().iter().find(|l| l["name"] == name.as_str()).unwrap();
    assert_eq!((&ours["owner"], &ours["hosts"][1]["on"]), (&serde_json::Value::Null, &true.into()));

    let holder = ours["hosts"][0]["holder"].as_i64().unwrap().to_string();
    assert_eq!(timed("weft-lab down", || lab(&["down"])).0, 0);
    assert_eq!(left_of(&name), Vec::<String>::new());
    assert!(Process::of(holder.parse().unwrap()).is_none_or(|p| !p.alive()));
    assert_eq!(lab(&["exec", "h1", "--", "true"]).0, 1);
}
