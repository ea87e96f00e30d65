//! A host with containers that must always run is switched off and on: with the agent before the engine, as its service unit has
//! it, and with the agent late, and so late that Docker has given up. Docker is usable, and what should run runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_lab::{Host, Lab, Mesh};

use crate::fixture::{Container, deadline, eventually, hosts};
use crate::truth;

/// On two networks; half of them pinned.
const CONTAINERS: usize = 20;
const NETWORKS: [&str; 2] = ["red", "blue"];
/// The engine may need so much longer than with its own bridges.
const SLOWER: f64 = 1.5;
/// The service of the agent is slow to start.
const LATE: Duration = Duration::from_secs(20);

fn subnet(network: usize) -> String {
    format!("10.{}.0.0/16", 70 + network)
}

/// Starts the containers; the addresses of those that are pinned, by name.
fn fill(host: &Host) -> BTreeMap<String, String> {
    let mut pinned = BTreeMap::new();
    for n in 0..CONTAINERS {
        let (name, network) = (format!("box{n:02}"), n % NETWORKS.len());
        let mut args = vec!["run", "-d", "--restart", "always", "--name", &name];
        args.extend(["--network", NETWORKS[network]]);
        let address = format!("10.{}.0.{}", 70 + network, 100 + n);
        if n % 4 < 2 {
            args.extend(["--ip", &address]);
            pinned.insert(name.clone(), address.clone());
        }
        args.extend(["busybox", "sleep", "100000"]);
        host.docker(args).unwrap();
    }
    pinned
}

/// Addresses of the running containers, by name.
fn addresses(host: &Host) -> BTreeMap<String, String> {
    let format = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let Ok(out) = host.sh(&format!("docker inspect -f '{format}' $(docker ps -q)")) else {
        return BTreeMap::new();
    };
    let pairs = out.lines().filter_map(|line| line.trim_start_matches('/').split_once(' '));
    pairs.map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}

fn power_cycle(host: &Host) {
    host.kill();
    host.boot().unwrap();
}

/// Until the engine answers: then it has tried every container once.
fn engine_up(host: &Host) -> Duration {
    let start = Instant::now();
    host.engine_start().unwrap();
    start.elapsed()
}

/// With Docker's own bridges, on a machine that has never heard of weft.
fn without_weft() -> Duration {
    let lab = Lab::builder().hosts(1).up().unwrap();
    lab.image().unwrap();
    let host = lab.host("h1");
    for (n, name) in NETWORKS.iter().enumerate() {
        host.docker(["network", "create", "--subnet", &subnet(n), name]).unwrap();
    }
    fill(host);
    power_cycle(host);
    let took = engine_up(host);
    assert_eq!(addresses(host).len(), CONTAINERS);
    took
}

fn on_two_networks(lab: &Lab) -> Mesh<'_> {
    let mesh = Mesh::up(lab, &[]).unwrap();
    for (n, name) in NETWORKS.iter().enumerate() {
        mesh.network(&[name, "--subnet", &subnet(n)]).unwrap();
    }
    mesh
}

/// All run, those that are pinned as they are, and reach another host.
fn all_as_before(lab: &Lab, mesh: &Mesh, host: &Host, pinned: &BTreeMap<String, String>) {
    eventually("all run", Duration::from_secs(40), || addresses(host).len() == CONTAINERS);
    let has = addresses(host);
    for (name, address) in pinned {
        assert_eq!(has.get(name), Some(address), "{name} has the address that it is pinned to");
    }
    mesh.wait_ready().unwrap();
    let mut last = None;
    eventually("weft, Docker and the kernel agree", Duration::from_secs(20), || {
        let now = truth::difference(lab);
        if now.is_some() && now != last {
            println!("{}", now.as_deref().unwrap_or_default());
        }
        last = now;
        last.is_none()
    });
    let far: Vec<Container> = NETWORKS
        .iter()
        .map(|name| Container::run(lab.host("h1"), &format!("far-{name}"), name, &[]))
        .collect();
    for (n, far) in far.iter().enumerate() {
        let one = Container::of(host, &format!("box{n:02}"), NETWORKS[n]);
        eventually("ping from another host", Duration::from_secs(5), || far.pings(&one.v4));
    }
}

#[test]
fn the_agent_first_then_the_engine() {
    if weft_lab::skip() {
        return;
    }
    let without = without_weft();
    let lab = Lab::builder().hosts(2).up().unwrap();
    let mut mesh = on_two_networks(&lab);
    let host = lab.host("h2");
    let pinned = fill(host);
    let limit = deadline(SLOWER * without.as_secs_f64());
    // A busy machine is given another try.
    let in_time = (0..3).any(|_| {
        power_cycle(host);
        let start = Instant::now();
        mesh.restart("h2").unwrap();
        let listens = || host.exec(["test", "-S", "/run/docker/plugins/weft.sock"]).ok();
        eventually("the plugin listens", Duration::from_secs(5), listens);
        let agent = start.elapsed();
        let with = engine_up(host);
        let times = [agent, with, without].map(|t| t.as_secs_f64());
        println!(
            "the plugin listens after {:.2} s, the engine is up after {:.2} s, without weft {:.2} s",
            times[0], times[1], times[2]
        );
        with <= limit
    });
    assert!(in_time, "the engine is up within {limit:?}");
    all_as_before(&lab, &mesh, host, &pinned);
}

#[test]
fn the_engine_first_and_the_agent_late() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = on_two_networks(&lab);
    let host = lab.host("h2");
    let pinned = fill(host);
    power_cycle(host);
    let start = Instant::now();
    host.engine_launch().unwrap();
    std::thread::sleep(LATE);
    mesh.restart("h2").unwrap();
    eventually("Docker answers", Duration::from_secs(90), || host.engine_wait().is_ok());
    println!("with the agent after {LATE:?} the engine is up after {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    assert!(host.exec(["docker", "ps"]).ok());
    assert!(start.elapsed() < deadline(2.0), "docker ps took {:?}", start.elapsed());
    all_as_before(&lab, &mesh, host, &pinned);
}

#[test]
fn what_docker_gave_up_on_is_started_when_the_agent_is_there() {
    let Some(lab) = hosts(1) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    let host = lab.host("h1");
    // So that an orderly end of the engine ends the containers: it then has no endpoints to clear up, each of which waits 15 s.
    host.engine_stop().unwrap();
    host.sh(r#"sed -i 's/"live-restore": true/"live-restore": false/' /etc/docker/daemon.json"#).unwrap();
    host.engine_start().unwrap();
    mesh.network(&["red", "--subnet", &subnet(0)]).unwrap();
    let policies =
        [("always", "always"), ("unless", "unless-stopped"), ("stopped", "unless-stopped"), ("no", "no")];
    for (name, policy) in policies {
        let args = ["--restart", policy, "--stop-signal", "KILL"];
        Container::run(host, name, "red", &args);
    }
    host.docker(["create", "--restart", "always", "--name", "made", "--network", "red", "busybox"]).unwrap();
    host.docker(["stop", "stopped"]).unwrap();
    host.engine_stop().unwrap();
    power_cycle(host);
    let start = Instant::now();
    host.engine_launch().unwrap();
    eventually("Docker answers", Duration::from_secs(90), || host.engine_wait().is_ok());
    println!("without the agent the engine is up after {:.1} s", start.elapsed().as_secs_f64());
    assert!(addresses(host).is_empty(), "Docker has given up on all");

    let start = Instant::now();
    mesh.restart("h1").unwrap();
    let names = || addresses(host).into_keys().collect::<Vec<_>>();
    eventually("those that should run are started", Duration::from_secs(20), || {
        names() == ["always", "unless"]
    });
    println!("{:.1} s after the start of the agent they run", start.elapsed().as_secs_f64());
    mesh.wait_ready().unwrap();
    let log = std::fs::read_to_string(host.log_dir().join("weft.log")).unwrap();
    assert_eq!(log.matches("started a container that Docker had given up on").count(), 2, "{log}");

    // What a person stops stays stopped, whatever the agent finds when it comes back.
    host.docker(["stop", "unless"]).unwrap();
    mesh.daemons()[0].kill9();
    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(5) {
        assert_eq!(names(), ["always"]);
        std::thread::sleep(Duration::from_millis(200));
    }
}
