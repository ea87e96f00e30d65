//! What people get wrong: each is one sentence that says what is wrong and what to do, exit code 1 (usage: 2), nothing changed.

use std::time::Duration;

use weft_lab::{Host, Lab, Mesh};

use crate::fixture::{Container, eventually, hosts};

/// Runs a command that must be refused, in one sentence that holds these words.
fn refused(host: &Host, argv: &[&str], code: i32, words: &[&str]) {
    let out = host.exec(argv);
    println!("{}: {}", argv.join(" "), out.stderr.trim());
    assert_eq!(out.status, code, "{}: {out}", argv.join(" "));
    if code == 1 && argv[0] == "weft" {
        assert_eq!(out.stderr.trim().lines().count(), 1, "{}: one sentence: {out}", argv.join(" "));
        assert!(out.stderr.starts_with("weft: "), "{out}");
    }
    for word in words {
        assert!(out.stderr.contains(word), "{} should say {word:?}: {}", argv.join(" "), out.stderr);
    }
}

#[test]
fn networks_and_addresses_that_cannot_be() {
    let Some(lab) = hosts(2) else { return };
    let mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--subnet", "10.77.0.0/24"]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let create = |name: &str, subnet: &str, words: &[&str]| {
        refused(h2, &["weft", "network", "create", name, "--subnet", subnet], 1, words);
    };
    create("app", "10.78.0.0/24", &["app", "already"]);
    create("other", "10.77.0.128/25", &["10.77.0.128/25", "app"]);
    create("other", "192.0.2.0/25", &["192.0.2.0/24"]);
    create("other", "10.79.0.1/24", &["10.79.0.0/24"]);
    create("other", "10.79.0.0/31", &["/31"]);
    create("bad/name", "10.79.0.0/24", &["bad/name"]);
    refused(h2, &["weft", "network", "create", "other", "--subnet", "10.79.0.0/33"], 2, &["10.79.0.0/33"]);
    refused(h2, &["weft", "network", "create", "other", "--mtu", "9000"], 1, &["9000"]);
    refused(h2, &["weft", "network", "rm", "nothing"], 1, &["nothing", "weft network ls"]);
    refused(h2, &["weft", "network", "inspect", "nothing"], 1, &["nothing"]);
    let listed = h1.run(["weft", "network", "ls"]).unwrap();
    assert_eq!(listed.lines().count(), 2, "a header and one network:\n{listed}");

    let a = Container::run(h1, "alpha", "app", &[]);
    let run = |host, address: &str, words: &[&str]| {
        refused(
            host,
            &["docker", "run", "--rm", "--network", "app", "--ip", address, "busybox", "true"],
            125,
            words,
        );
    };
    run(h1, &a.v4, &["alpha"]);
    run(h1, "10.99.0.1", &[]);
    run(h2, &a.v4, &["h1"]);
    refused(h1, &["weft", "network", "rm", "app"], 1, &["h1", "weft ps"]);

    // A block of a /24 has 4 addresses; a host asks for the next at half full, so many containers start one after the other.
    for n in 0..8 {
        Container::run(h2, &format!("many{n}"), "app", &[]);
    }
    mesh.network(&["tiny", "--subnet", "10.80.0.0/29"]).unwrap();
    let mut started = 0;
    let full = loop {
        let name = format!("tiny{started}");
        let out = h1.exec([
            "docker",
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            "tiny",
            "busybox",
            "sleep",
            "1000",
        ]);
        if !out.ok() {
            break out;
        }
        started += 1;
        assert!(started < 8, "a /29 has no room for 8");
    };
    println!("after {started} containers: {}", full.stderr.trim());
    for word in ["network tiny is full on this host", "10.80.0.0/29", "weft network inspect tiny", "--subnet"]
    {
        assert!(full.stderr.contains(word), "{word:?} in {full}");
    }
    docker_shows_our_sentence(h2);
}

/// What Docker prints of a network that cannot be made.
fn docker_shows_our_sentence(host: &Host) {
    let create = |args: &[&str], words: &[&str]| {
        let command = ["docker", "network", "create", "-d", "weft", "--ipam-driver", "weft"];
        let argv: Vec<&str> = command.into_iter().chain(args.iter().copied()).chain(["other"]).collect();
        refused(host, &argv, 1, words);
    };
    create(&["--subnet", "10.77.0.128/25"], &["10.77.0.128/25", "app"]);
    create(&["--subnet", "10.79.0.0/31"], &["/31"]);
    create(&["--subnet", "::ffff:10.79.0.0/112", "--ipv6"], &["::ffff:"]);
    create(&["-o", "foo=bar"], &["\"foo\"", "leave it out"]);
    create(&["--ipam-opt", "size=9"], &["\"size\"", "--ipam-opt"]);
    create(&["-o", "weft.mtu=many"], &["weft.mtu", "1340"]);
    create(&["-o", "weft.mtu=1300", "-o", "com.docker.network.driver.mtu=1300"], &["give one of them"]);
    assert!(!host.exec(["docker", "network", "inspect", "other"]).ok(), "nothing was made");
}

#[test]
fn machines_and_states_that_cannot_be() {
    if weft_lab::skip() {
        return;
    }
    let lab = Lab::builder().hosts(2).engines(false).up().unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    refused(h1, &["weft", "up"], 1, &["weft init", "weft join"]);
    refused(h1, &["weft", "status"], 1, &["weft init"]);
    refused(h1, &["weft", "no-such-command"], 2, &[]);
    refused(h1, &["weft", "init", "--cipher", "rot13"], 2, &["aegis-128l"]);
    refused(h1, &["setpriv", "--reuid=65534", "--clear-groups", "weft", "init"], 1, &["root"]);
    refused(h1, &["weft", "join", "192.0.2.2", "--token", "hello"], 1, &["token"]);

    let mut squatter =
        h1.spawn([env!("CARGO_BIN_EXE_traffic"), "udp-serve", "0.0.0.0", "6783"], "squatter.log").unwrap();
    eventually("the squatter", Duration::from_secs(5), || h1.exec(["ss", "-uln"]).stdout.contains("6783"));
    h1.run(["weft", "init"]).unwrap();
    refused(h1, &["weft", "up"], 1, &["6783", "--port"]);
    squatter.kill9();

    // No Docker is a state, not an error: it waits, and status says so.
    let mut up = h1.spawn(["weft", "up"], "weft.log").unwrap();
    eventually("status without Docker", Duration::from_secs(10), || {
        let out = h1.exec(["weft", "status"]);
        out.status == 1 && out.stdout.contains("Docker")
    });
    let again = h1.exec(["weft", "up"]);
    assert!(again.ok(), "up while it runs is a status: {again}");
    let again = h1.exec(["weft", "init"]);
    assert!(again.ok(), "init on the founder is a status: {again}");

    let token = h1.run(["weft", "token", "new"]).unwrap();
    let token = token.split_whitespace().find(|w| w.starts_with("weft1-")).unwrap();
    h2.run(["weft", "join", "192.0.2.1", "--token", token]).unwrap();
    let again = h2.exec(["weft", "join", "192.0.2.1", "--token", token]);
    assert!(again.ok(), "join to its own mesh is a status: {again}");
    refused(h2, &["weft", "init"], 1, &["weft leave"]);
    refused(h1, &["weft", "leave"], 1, &["--force"]);
    up.kill9();

    // A directory that is half written or of somebody else.
    h2.sh("rm -f /var/lib/weft/mesh.json").unwrap();
    refused(h2, &["weft", "up"], 1, &["/var/lib/weft"]);
    h2.sh("rm -rf /var/lib/weft/* && echo nonsense > /var/lib/weft/host.key").unwrap();
    refused(h2, &["weft", "init"], 1, &["host.key"]);
    h2.sh("rm -rf /var/lib/weft/*").unwrap();
    // Inside the host's own mount namespace: an empty directory hides the device.
    h2.sh("mkdir -p /run/nothing && mount --bind /run/nothing /dev/net").unwrap();
    refused(h2, &["weft", "init"], 1, &["/dev/net/tun", "modprobe tun"]);
}
