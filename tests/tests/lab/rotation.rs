//! Rotation of the mesh key under traffic: a host that was off meanwhile, another signer, a new host with an old token, a host
//! that was removed; nobody else is thrown out, and an old key signs nothing. A signer that is killed meanwhile has one key or the other.

use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{Host, Mesh, Signal};

use crate::fixture::{Container, eventually, hosts, with_app};

const PASSPHRASE: &str = "/run/passphrase";
const KEY: &str = "/run/mesh.key";

#[test]
fn the_mesh_key_is_rotated_under_traffic() {
    let Some(lab) = hosts(4) else { return };
    let mut mesh = with_app(&lab);
    let [h1, h2, h3, h4] = ["h1", "h2", "h3", "h4"].map(|name| lab.host(name));
    let (a, b) = (Container::run(h1, "alpha", "app", &[]), Container::run(h2, "beta", "app", &[]));
    eventually("ping", Duration::from_secs(10), || a.pings(&b.v4));
    let token = h1.run(["weft", "token", "new", "--quiet"]).unwrap();
    sign_too(&mut mesh, h1, h2);
    stop(&mut mesh, 3);
    h1.run(["weft", "host", "rm", "h4"]).unwrap();
    stop(&mut mesh, 2);
    let of_h1 = |file: &str| h1.run(["cat", &format!("/var/lib/weft/{file}")]).unwrap();
    let old = of_h1("mesh.key");

    let refused =
        h2.exec(["weft", "mesh", "key", "export", "/run/other", "--passphrase-file", "/run/nothing"]);
    assert!(refused.stderr.contains("/run/nothing"), "{refused}");
    let start = Instant::now();
    let rotated: Value =
        serde_json::from_str(&h1.run(["weft", "mesh", "key", "rotate", "--json"]).unwrap()).unwrap();
    assert_eq!((&rotated["number"], &rotated["signers"]), (&Value::from(1), &serde_json::json!(["h2"])));
    eventually("h2 has the new key, and is no signer", Duration::from_secs(5), || {
        hosts_by(h2).iter().any(|h| h["this"] == true && h["signer"] == false)
    });
    println!("known on the other host after {:?}", start.elapsed());
    assert!(a.pings(&b.v4) && reachable(h1, "h2") && reachable(h2, "h1"), "nobody is thrown out");
    assert_ne!(of_h1("mesh.key"), old);
    assert!(!h1.exec(["test", "-e", "/var/lib/weft/mesh.next"]).ok());

    let said = |host: &Host, argv: &[&str]| {
        let out = host.exec(argv.iter().copied());
        assert!(!out.ok(), "{argv:?}: {out}");
        out.stderr
    };
    let status = h2.exec(["weft", "status"]);
    assert!(status.stdout.contains("old mesh key"), "{status}");
    assert!(said(h2, &["weft", "mesh", "key", "rotate"]).contains("old mesh key"));
    assert!(said(h2, &["weft", "mesh", "key", "export", "/run/x"]).contains("old mesh key"));

    mesh.restart("h3").unwrap();
    eventually("h3, which was off, has heard", Duration::from_secs(15), || {
        names(h3) == ["h1", "h2", "h3"] && reachable(h3, "h1") && !signs(h3, "h2") && signs(h3, "h1")
    });

    // A new host, which asks the old signer, with a token of before.
    h4.run(["weft", "leave", "--force"]).unwrap();
    let at = h2.addr().to_string();
    h4.run(["weft", "join", &at, "--token", token.trim(), "--name", "h5"]).unwrap();
    mesh.restart("h4").unwrap();
    for host in [h1, h2, h3] {
        eventually("h5 is a member, and h4 none", Duration::from_secs(15), || {
            names(host) == ["h1", "h2", "h3", "h5"] && reachable(host, "h5")
        });
    }

    // The old signer is one again once it has the new key; an old file is not taken.
    stop(&mut mesh, 1);
    let import = ["weft", "mesh", "key", "import", KEY, "--passphrase-file", PASSPHRASE];
    assert!(said(h2, &import).contains("an old key"));
    carry_the_key(h1, h2);
    h2.run(import).unwrap();
    mesh.restart("h2").unwrap();
    eventually("h2 signs again", Duration::from_secs(15), || signs(h1, "h2") && signs(h3, "h2"));
    h2.run(["weft", "token", "new", "--quiet"]).unwrap();

    // The founder too begins anew with what it has on the disk.
    mesh.daemons()[0].kill9();
    mesh.restart("h1").unwrap();
    eventually("everybody is there", Duration::from_secs(15), || {
        [h1, h2, h3].iter().all(|host| hosts_by(host).iter().all(|h| h["reachable"] == true))
    });
    eventually("ping", Duration::from_secs(10), || a.pings(&b.v4));
    h1.run(["weft", "mesh", "key", "rotate"]).unwrap();
    eventually("and once more", Duration::from_secs(10), || {
        [h2, h3, h4].iter().all(|host| !signs(host, "h2") && names(host) == ["h1", "h2", "h3", "h5"])
    });
}

#[test]
fn a_signer_killed_while_it_rotates_has_one_key_or_the_other() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    let [h1, h2] = ["h1", "h2"].map(|name| lab.host(name));
    let (mut answered, tries) = (0, 24);
    for kill_after in (1..=tries).map(|n| n * Duration::from_micros(300)) {
        let said = std::thread::scope(|scope| {
            let rotate = scope.spawn(|| h1.exec(["weft", "mesh", "key", "rotate"]));
            std::thread::sleep(kill_after);
            mesh.daemons()[0].kill9();
            rotate.join().unwrap()
        });
        answered += u32::from(said.ok());
        assert!(said.ok() || !said.stderr.trim().is_empty(), "{said}");
        mesh.restart("h1").unwrap();
        mesh.wait_ready().unwrap();
        eventually("it signs, and both say so", Duration::from_secs(10), || {
            [h1, h2].iter().all(|host| signs(host, "h1") && reachable(host, "h1") && reachable(host, "h2"))
        });
        h1.run(["weft", "token", "new", "--quiet"]).unwrap();
        assert!(!h1.exec(["test", "-e", "/var/lib/weft/mesh.next"]).ok(), "nothing half-done is left");
    }
    let rotated: Value =
        serde_json::from_str(&h1.run(["weft", "mesh", "key", "rotate", "--json"]).unwrap()).unwrap();
    let before = rotated["number"].as_u64().unwrap() - 1;
    println!("of {tries} rotations {before} had come about, {answered} were answered");
    assert!(before >= u64::from(answered), "what was answered lasts");
    eventually("h2 has the last key too", Duration::from_secs(10), || signs(h2, "h1"));
}

fn sign_too(mesh: &mut Mesh<'_>, h1: &Host, h2: &Host) {
    carry_the_key(h1, h2);
    stop(mesh, 1);
    h2.run(["weft", "mesh", "key", "import", KEY, "--passphrase-file", PASSPHRASE]).unwrap();
    mesh.restart("h2").unwrap();
    eventually("h1 knows that h2 signs", Duration::from_secs(10), || signs(h1, "h2") && reachable(h1, "h2"));
}

/// The file and its passphrase, as a person would carry them.
fn carry_the_key(from: &Host, to: &Host) {
    for host in [from, to] {
        host.feed(["sh", "-c", "cat > /run/passphrase"], b"correct horse battery\n").unwrap();
    }
    from.run(["rm", "-f", KEY]).unwrap();
    from.run(["weft", "mesh", "key", "export", KEY, "--passphrase-file", PASSPHRASE]).unwrap();
    let sealed = from.run(["cat", KEY]).unwrap();
    to.feed(["sh", "-c", "umask 077; cat > /run/mesh.key"], format!("{sealed}\n").as_bytes()).unwrap();
}

fn stop(mesh: &mut Mesh<'_>, n: usize) {
    mesh.daemons()[n].signal(Signal::TERM);
    assert!(mesh.daemons()[n].wait(Duration::from_secs(10)).is_some());
}

fn names(host: &Host) -> Vec<String> {
    let mut names: Vec<String> =
        hosts_by(host).iter().map(|h| h["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn reachable(host: &Host, name: &str) -> bool {
    hosts_by(host).iter().any(|h| h["name"] == name && h["reachable"] == true)
}

fn signs(host: &Host, name: &str) -> bool {
    hosts_by(host).iter().any(|h| h["name"] == name && h["signer"] == true)
}

fn hosts_by(host: &Host) -> Vec<Value> {
    let list = host.exec(["weft", "hosts", "--json"]);
    serde_json::from_str(&list.stdout).unwrap_or_default()
}
