//! Where systemd runs the machine: the units are written and sound, Docker's socket outlives the daemon, leaving removes all.
//! The lab has no systemd; `systemctl` is a script that records what it is asked, and starts and stops as the unit says.

use std::time::{Duration, Instant};

use weft_lab::Host;

use crate::fixture::{Container, eventually, hosts};

const ACTIVATOR: &str = env!("CARGO_BIN_EXE_activator");
const PLUGIN: &str = "/run/docker/plugins/weft.sock";
const UNITS: [&str; 2] = ["/etc/systemd/system/weft.service", "/etc/systemd/system/weft-plugin.socket"];

/// $ACTIVATOR is put in.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/run/systemctl.log
start() {
    command=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/weft.service)
    setsid $ACTIVATOR /run/docker/plugins/weft.sock setpriv --no-new-privs $command \
        </dev/null >>/run/service.log 2>&1 &
}
stop() {
    kill -9 "$(cat /run/activator.pid)"
    pid=$(cat /run/activated.pid)
    kill "$pid"
    while kill -0 "$pid"; do sleep 0.05; done
    rm -f /run/docker/plugins/weft.sock
}
case "$*" in
    "enable --now"*|"start weft-plugin.socket weft.service") start ;;
    restart*) stop; start ;;
    stop*|"disable --now"*) stop ;;
esac
exit 0
"#;

/// As on a machine that systemd runs.
fn with_systemd(host: &Host) {
    let script = SYSTEMCTL.replace("$ACTIVATOR", ACTIVATOR);
    host.feed(["sh", "-c", "cat >/usr/local/bin/systemctl"], script.as_bytes()).unwrap();
    host.sh("chmod 755 /usr/local/bin/systemctl && mkdir -p /run/systemd/system").unwrap();
}

fn there(host: &Host, path: &str) -> bool {
    host.exec(["test", "-e", path]).ok()
}

fn doctor_starts_what_is_stopped(host: &Host) {
    host.run(["systemctl", "stop", "weft-plugin.socket", "weft.service"]).unwrap();
    let sick = host.exec(["weft", "doctor"]);
    assert!(sick.status == 1 && sick.stdout.contains("weft doctor --fix"), "{sick}");
    let mended = host.exec(["weft", "doctor", "--fix"]);
    println!("{}", mended.stdout);
    assert!(mended.stdout.contains("mended    daemon"), "{mended}");
    eventually("status is content", Duration::from_secs(20), || host.exec(["weft", "status"]).ok());

    // Somebody emptied /run/docker/plugins.
    host.run(["rm", PLUGIN]).unwrap();
    let sick = host.exec(["weft", "doctor"]);
    assert!(sick.status == 1 && sick.stdout.contains("cannot reach weft"), "{sick}");
    let mended = host.exec(["weft", "doctor", "--fix"]);
    assert!(mended.stdout.contains("mended    plugin") && there(host, PLUGIN), "{mended}");
    eventually("status is content", Duration::from_secs(20), || host.exec(["weft", "status"]).ok());
}

#[test]
fn the_units_keep_docker_connected_and_go_with_the_mesh() {
    let Some(lab) = hosts(2) else { return };
    lab.image().unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    with_systemd(h1);
    with_systemd(h2);

    let said = h1.run(["weft", "init"]).unwrap();
    println!("{said}");
    assert!(said.contains("weft.service runs"), "{said}");
    assert!(!said.contains("Start it"), "{said}");
    let token = said.split_whitespace().find(|w| w.starts_with("weft1-")).expect("a token").to_owned();
    let address = h1.addr().to_string();
    let join = ["weft", "join", &address, "--token", &token];
    let said = h2.run(join).unwrap();
    assert!(said.contains("weft.service runs"), "{said}");
    for host in [h1, h2] {
        let asked = host.run(["cat", "/run/systemctl.log"]).unwrap();
        assert_eq!(asked, "daemon-reload\nenable --now weft-plugin.socket weft.service\n");
        let verdict = host.exec(["systemd-analyze", "verify", UNITS[0], UNITS[1]]);
        println!("systemd-analyze verify: {verdict}");
        assert!(verdict.ok() && !verdict.stderr.contains("weft"), "{verdict}");
    }

    h1.run(["weft", "network", "create", "app"]).unwrap();
    eventually("the network in Docker", Duration::from_secs(10), || {
        h2.exec(["docker", "network", "inspect", "app"]).ok()
    });
    let a = Container::run(h1, "alpha", "app", &[]);
    let inode = || h2.run(["stat", "-c", "%i", PLUGIN]).unwrap();
    let before = inode();
    h2.sh("kill -9 $(cat /run/activated.pid)").unwrap();
    let start = Instant::now();
    let b = Container::run(h2, "beta", "app", &[]);
    println!("docker run while the daemon restarts: {:.1} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < Duration::from_secs(10), "Docker fell into its waiting of 15 s");
    eventually("ping", Duration::from_secs(10), || b.pings(&a.v4));
    assert_eq!(inode(), before, "the socket is the same");
    h2.sh("kill $(cat /run/activated.pid)").unwrap();
    eventually("the daemon ends", Duration::from_secs(5), || !there(h2, "/run/weft/weft.sock"));
    assert!(there(h2, PLUGIN), "a daemon that ends leaves systemd's socket");
    eventually("the daemon is back", Duration::from_secs(10), || h2.exec(["weft", "status"]).ok());

    doctor_starts_what_is_stopped(h2);

    h2.docker(["rm", "-f", "beta"]).unwrap();
    h2.run(["weft", "leave"]).unwrap();
    let asked = h2.run(["cat", "/run/systemctl.log"]).unwrap();
    assert!(asked.contains("disable --now weft-plugin.socket weft.service\n"), "{asked}");
    for path in UNITS.iter().chain([&PLUGIN]) {
        assert!(!there(h2, path), "{path} is left over");
    }

    // A person who starts it himself.
    h2.run(["rm", "-f", "/run/systemctl.log"]).unwrap();
    let said = h2.run(join.iter().chain(&["--no-start"])).unwrap();
    assert!(said.contains("Start it: weft up"), "{said}");
    assert!(!there(h2, UNITS[0]) && !there(h2, "/run/systemctl.log"), "--no-start");

    // Leaving while the daemon is stopped and the units are there: Docker is answered by the one who leaves.
    h1.docker(["rm", "-f", "alpha"]).unwrap();
    h1.run(["systemctl", "stop", "weft-plugin.socket", "weft.service"]).unwrap();
    let start = Instant::now();
    h1.run(["weft", "leave", "--force"]).unwrap();
    println!("left while the daemon was stopped: {:.1} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < Duration::from_secs(10));
    for path in UNITS.iter().chain([&PLUGIN]) {
        assert!(!there(h1, path), "{path} is left over");
    }
    assert_eq!(h1.docker(["network", "ls", "-q", "--filter", "driver=weft"]).unwrap(), "");
}
