//! What dies, and what goes on: the daemon, Docker, the founder, a whole host.

use std::time::{Duration, Instant};

use crate::fixture::{Container, eventually, hosts, with_app};

/// After `weft up` is back, traffic must be within this.
const BACK: f64 = 3.0;

#[test]
fn a_killed_daemon_comes_back_with_everything() {
    let Some(lab) = hosts(2) else { return };
    let mut mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));
    let mut echo = b.traffic_daemon(&["tcp-serve", &b.v4, "7003"]);
    let mut beat = a.traffic_daemon(&["tcp-beat", &b.v4, "7003", "20"]);
    let identity = h2.exec(["weft", "status", "--json"]).stdout;
    let id = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["id"].clone();
    let links = || {
        let all = h2.exec(["ip", "-br", "link"]).stdout;
        let mut ours: Vec<String> = all
            .lines()
            .filter(|l| l.starts_with("wft-") || l.contains("@if"))
            .map(|l| l.split_whitespace().next().unwrap_or("").to_owned())
            .collect();
        ours.sort();
        ours
    };
    let before = links();

    mesh.daemons()[1].kill9();
    for _ in 0..5 {
        let start = Instant::now();
        assert!(h2.exec(["docker", "ps"]).ok(), "docker ps while the daemon is away");
        assert!(start.elapsed() < Duration::from_secs(2), "docker ps took {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(links(), before, "bridge and veths outlive the daemon");
    assert_eq!(h2.docker(["inspect", "-f", "{{.State.Running}}", "beta"]).unwrap(), "true");

    // What it was just starting can hold its lock a moment longer.
    let lock = "exec flock -x /var/lib/weft/lock sleep 1";
    let mut _holder = h2.spawn(["sh", "-c", lock], "holder.log").unwrap();
    mesh.restart("h2").unwrap();
    let took = eventually("ping after the restart", Duration::from_secs_f64(BACK), || a.pings(&b.v4));
    println!("traffic back {:.2} s after the restart of the daemon", took.as_secs_f64());
    mesh.wait_ready().unwrap();
    assert_eq!(id(&h2.exec(["weft", "status", "--json"]).stdout), id(&identity), "the same identity");
    let again = Container::of(h2, "beta", "app");
    assert_eq!((again.v4, again.mac), (b.v4.clone(), b.mac.clone()), "the same addresses");
    assert_eq!(beat.wait(Duration::from_secs(30)), Some(0));
    println!("TCP across the kill: {}", beat.log_text().trim());
    let next = Container::run(h2, "gamma", "app", &[]);
    assert_ne!(next.v4, b.v4, "no address is given twice");
    eventually("ping of a new container", Duration::from_secs(5), || a.pings(&next.v4));
    echo.kill9();
}

#[test]
fn a_killed_engine_takes_nothing_along() {
    let Some(lab) = hosts(2) else { return };
    let mesh = with_app(&lab);
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let a = Container::run(h1, "alpha", "app", &[]);
    let b = Container::run(h2, "beta", "app", &[]);
    eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));

    h2.engine_kill9().unwrap();
    for _ in 0..10 {
        assert!(a.pings(&b.v4), "traffic goes on without the engine");
    }
    let status = h2.exec(["weft", "status"]);
    eventually("status says that Docker is away", Duration::from_secs(15), || {
        let out = h2.exec(["weft", "status"]);
        out.status == 1 && out.stdout.contains("Docker")
    });
    println!("while dockerd is dead: {}", status.stdout.trim());
    let start = Instant::now();
    h2.engine_start().unwrap();
    println!("engine back in {:.1} s", start.elapsed().as_secs_f64());
    assert!(a.pings(&b.v4), "traffic goes on after the engine is back");
    let again = Container::of(h2, "beta", "app");
    assert_eq!(again.v4, b.v4);
    let next = Container::run(h2, "gamma", "app", &[]);
    assert_ne!(next.v4, b.v4, "an address in use is not given again");
    eventually("ping of a new container", Duration::from_secs(5), || a.pings(&next.v4));
    mesh.wait_ready().unwrap();
}

#[test]
fn without_the_founder_containers_start_and_talk() {
    let Some(lab) = hosts(3) else { return };
    let mut mesh = with_app(&lab);
    let (h2, h3) = (lab.host("h2"), lab.host("h3"));
    let b = Container::run(h2, "beta", "app", &[]);
    lab.host("h1").kill();

    let c = Container::run(h3, "gamma", "app", &[]);
    let d = Container::run(h2, "delta", "app", &[]);
    eventually("ping between the others", Duration::from_secs(5), || c.pings(&b.v4) && d.pings(&c.v4));

    let refused = h2.exec(["weft", "network", "create", "late"]);
    assert_eq!(refused.status, 1, "{refused}");
    assert!(refused.stderr.contains("h1"), "the sentence names the founder: {}", refused.stderr);
    println!("network create without the founder: {}", refused.stderr.trim());
    eventually("status names the missing host", Duration::from_secs(5), || {
        let out = h2.exec(["weft", "status"]);
        out.status == 1 && out.stdout.contains("h1")
    });

    // A host comes back from its own disk, and the mesh with it.
    lab.host("h1").reboot().unwrap();
    let start = Instant::now();
    mesh.restart("h1").unwrap();
    mesh.wait_ready().unwrap();
    println!("founder back after {:.1} s", start.elapsed().as_secs_f64());
    mesh.network(&["late"]).unwrap();
}
