//! docker-compose 1.29.2 on networks of the mesh: three services over two networks, with fixed and free addresses.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use weft_lab::{Host, Mesh, Output};

use crate::fixture::{Container, eventually, hosts};

/// `front` is free, `back` has a range, so that `ipv4_address` works in Docker.
const FILE: &str = r#"
version: "2.4"
services:
  web:
    image: busybox
    command: ["sleep", "100000"]
    stop_grace_period: 0s
    networks: [front]
  api:
    image: busybox
    command: ["sleep", "100000"]
    stop_grace_period: 0s
    networks:
      front: {}
      back: {aliases: [backend]}
  db:
    image: busybox
    command: ["sleep", "100000"]
    stop_grace_period: 0s
    networks:
      back: {ipv4_address: ADDRESS}
networks:
  front:
    driver: weft
    ipam: {driver: weft}
  back:
    BACK
"#;

fn file(dir: &Path, back: &str, address: &str) {
    std::fs::create_dir_all(dir).unwrap();
    let text = FILE.replace("BACK", back).replace("ADDRESS", address);
    std::fs::write(dir.join("docker-compose.yml"), text).unwrap();
}

fn compose(host: &Host, dir: &Path, args: &[&str]) -> Output {
    let file = dir.join("docker-compose.yml");
    let mut argv = vec!["docker-compose", "-p", "shop", "-f", file.to_str().unwrap()];
    argv.extend(args);
    let out = host.exec(&argv);
    assert!(out.ok(), "docker-compose {} on {}: {out}", args.join(" "), host.name());
    out
}

fn running(host: &Host) -> Vec<String> {
    let names = host.docker(["ps", "--format", "{{.Names}}"]).unwrap();
    names.lines().map(str::to_owned).collect()
}

fn talks(web: &Container, api: &Container, db: &Container, api_back: &str) {
    eventually("front", Duration::from_secs(5), || web.pings(&api.v4));
    eventually("back", Duration::from_secs(5), || db.pings(api_back));
    assert!(!web.pings(&db.v4), "front and back are two networks");
}

#[test]
fn three_services_up_scale_restart_down_twice() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = Mesh::up(&lab, &[]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let dir = std::env::temp_dir().join(format!("weft-compose-{}", std::process::id()));
    // Compose 1.29.2 dies of a network with a range that is there already (`sorted(..., key='Subnet')`), with any driver: so
    // the network with the fixed address is external, as its manual advises for several hosts.
    file(&dir, "external: true\n    name: back", "10.81.0.2");
    let made = h1.exec([
        "docker",
        "network",
        "create",
        "-d",
        "weft",
        "--ipam-driver",
        "weft",
        "--subnet",
        "10.81.0.0/16",
        "back",
    ]);
    assert!(made.ok(), "{made}");
    eventually("back on h2", Duration::from_secs(3), || {
        h2.exec(["docker", "network", "inspect", "back"]).ok()
    });
    // An address of this host's own block, but not one of those that free containers get first.
    let own = |host| {
        let lowest: Ipv4Addr = Container::run(host, "probe", "back", &[]).v4.parse().unwrap();
        host.docker(["rm", "-f", "probe"]).unwrap();
        Ipv4Addr::from_bits(lowest.to_bits() + 40).to_string()
    };

    for round in 0..2 {
        file(&dir, "external: true\n    name: back", &own(h1));
        compose(h1, &dir, &["up", "-d"]);
        let of = |name: &str, network: &str| Container::of(h1, name, network);
        let (web, api, db) =
            (of("shop_web_1", "shop_front"), of("shop_api_1", "shop_front"), of("shop_db_1", "back"));
        talks(&web, &api, &db, &of("shop_api_1", "back").v4);
        let alias = h1.docker(["exec", "shop_db_1", "ping", "-c1", "-W1", "backend"]);
        assert!(alias.is_ok(), "the alias: {alias:?}");
        compose(h1, &dir, &["up", "-d", "--scale", "web=3"]);
        assert_eq!(running(h1).len(), 5, "round {round}: {:?}", running(h1));
        compose(h1, &dir, &["restart"]);
        assert_eq!(running(h1).len(), 5, "round {round} after the restart");
        assert_eq!(Container::of(h1, "shop_db_1", "back").v4, db.v4, "what is fixed stays");
        compose(h1, &dir, &["down"]);
        assert_eq!(running(h1).len(), 0);
        eventually("front is gone everywhere", Duration::from_secs(5), || {
            lab.hosts().iter().all(|host| !host.exec(["docker", "network", "inspect", "shop_front"]).ok())
        });
    }

    // Two hosts at once: one network `shop_front`, one `back`, six containers that see each other. What is fixed on each is in
    // the other's block.
    let dirs = [dir.join("h1"), dir.join("h2")];
    let fixed = [own(h2), own(h1)];
    for (dir, address) in dirs.iter().zip(&fixed) {
        file(dir, "external: true\n    name: back", address);
    }
    for round in 0..2 {
        std::thread::scope(|scope| {
            for (host, dir) in [h1, h2].into_iter().zip(&dirs) {
                scope.spawn(move || {
                    compose(host, dir, &["up", "-d"]);
                    compose(host, dir, &["up", "-d", "--scale", "web=3"]);
                });
            }
        });
        let a = Container::of(h1, "shop_web_1", "shop_front");
        let b = Container::of(h2, "shop_api_1", "shop_front");
        eventually("front between hosts", Duration::from_secs(5), || a.pings(&b.v4));
        let (a, b) = (Container::of(h1, "shop_db_1", "back"), Container::of(h2, "shop_db_1", "back"));
        assert_eq!([&a.v4, &b.v4], [&fixed[0], &fixed[1]]);
        eventually("back between hosts", Duration::from_secs(5), || a.pings(&b.v4));
        std::thread::scope(|scope| {
            for (host, dir) in [h1, h2].into_iter().zip(&dirs) {
                scope.spawn(move || {
                    compose(host, dir, &["restart"]);
                    compose(host, dir, &["down"]);
                });
            }
        });
        println!("round {round} on two hosts: up, scaled, restarted, down");
        eventually("front is gone everywhere", Duration::from_secs(60), || {
            let listed = h1.exec(["weft", "network", "ls"]).stdout;
            !listed.contains("shop_front")
        });
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_file_with_ranges_of_its_own() {
    let Some(lab) = hosts(1) else { return };
    let _mesh = Mesh::up(&lab, &[]).unwrap();
    let h1 = lab.host("h1");
    let dir = std::env::temp_dir().join(format!("weft-compose-ranges-{}", std::process::id()));
    let back = "driver: weft\n    driver_opts: {weft.mtu: \"1300\"}\n    ipam: {driver: weft, config: [{subnet: 10.82.0.0/24}]}";
    file(&dir, back, "10.82.0.3");
    for _ in 0..2 {
        compose(h1, &dir, &["up", "-d", "--scale", "web=3"]);
        assert_eq!(running(h1).len(), 5);
        assert_eq!(Container::of(h1, "shop_db_1", "shop_back").v4, "10.82.0.3");
        compose(h1, &dir, &["restart"]);
        assert_eq!(Container::of(h1, "shop_db_1", "shop_back").v4, "10.82.0.3");
        compose(h1, &dir, &["down"]);
        eventually("all is gone", Duration::from_secs(5), || {
            !h1.exec(["weft", "network", "ls"]).stdout.contains("shop_")
        });
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Two hosts, one file, an MTU written as people write it for Docker's own drivers, or as for weft: no difference for Compose.
#[test]
fn options_are_the_same_on_every_host() {
    let Some(lab) = hosts(2) else { return };
    let _mesh = Mesh::up(&lab, &[]).unwrap();
    let (h1, h2) = (lab.host("h1"), lab.host("h2"));
    let dir = std::env::temp_dir().join(format!("weft-compose-options-{}", std::process::id()));
    for option in ["{com.docker.network.driver.mtu: \"1300\"}", "{weft.mtu: \"1340\"}", "{}"] {
        let back = format!("driver: weft\n    driver_opts: {option}\n    ipam: {{driver: weft}}");
        file(&dir, &back, "ADDRESS");
        let path = dir.join("docker-compose.yml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("{ipv4_address: ADDRESS}", "{}")).unwrap();
        compose(h1, &dir, &["up", "-d"]);
        let options =
            |host: &Host| host.docker(["network", "inspect", "-f", "{{json .Options}}", "shop_back"]);
        eventually("the network on h2", Duration::from_secs(5), || options(h2).is_ok());
        assert_eq!(options(h1).unwrap(), options(h2).unwrap(), "{option}");
        // Compose looks at what is there, and would refuse another network of this name.
        compose(h2, &dir, &["up", "-d"]);
        let (a, b) =
            (Container::of(h1, "shop_db_1", "shop_back"), Container::of(h2, "shop_db_1", "shop_back"));
        eventually("ping", Duration::from_secs(5), || a.pings(&b.v4));
        std::thread::scope(|scope| {
            for host in [h1, h2] {
                let dir = &dir;
                scope.spawn(move || compose(host, dir, &["down"]));
            }
        });
        eventually("back is gone everywhere", Duration::from_secs(60), || {
            !h1.exec(["weft", "network", "ls"]).stdout.contains("shop_")
        });
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
