//! Real bridges in network namespaces of the test's own, which end with the processes that hold them. Needs root.

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};
use weft_api::id::{Mac, NetworkId};
use weft_api::network::{Network, Origin, Subnet};

use super::{BridgeError, Bridges, Ours, container_ifname, host_ifname};

const A: &str = "aaaaaaaaaaaa0000000000000000000000000000000000000000000000000000";
const B: &str = "bbbbbbbbbbbb0000000000000000000000000000000000000000000000000000";
const MAC_A: Mac = Mac([2, 0x42, 10, 32, 0, 2]);
const MAC_B: Mac = Mac([2, 0x42, 10, 32, 0, 3]);
const ID: NetworkId = NetworkId(0xabcd);
const BRIDGE: &str = "wft-0000abcd";
const TAP: &str = "wtp-0000abcd";

fn app() -> Network {
    let subnet = |range: &str, gateway: &str| Subnet {
        range: range.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
    };
    Network {
        id: ID,
        name: "app".into(),
        subnets: vec![subnet("10.32.0.0/16", "10.32.0.1"), subnet("fd77::/64", "fd77::1")],
        mtu: 1340,
        internal: false,
        origin: Origin::Weft,
    }
}

#[test]
fn a_bridge_is_made_once_and_put_right() {
    in_namespace(async |host, bridges| {
        bridges.ensure_bridge(&app()).await.unwrap();
        let show = || host.run(&format!("ip -d link show {BRIDGE} | sed 's/gc_timer *[0-9.]*//'"));
        let before = show();
        for expected in [
            "mtu 1340",
            "02:77:65:66:74:01",
            "stp_state 0",
            "mcast_snooping 0",
            "ageing_time 3000",
            "forward_delay 0",
        ] {
            assert!(before.contains(expected), "no {expected}: {before}");
        }
        host.run(&format!("ip addr add 10.99.0.1/16 dev {BRIDGE}; ip addr del 10.32.0.1/16 dev {BRIDGE}"));
        host.run(&format!("ip link set {BRIDGE} down mtu 1500 address 02:00:00:00:00:01"));
        bridges.ensure_bridge(&app()).await.unwrap();
        bridges.ensure_bridge(&app()).await.unwrap();
        assert_eq!(show(), before);
        assert!(format!("{:?}", bridges.find(BRIDGE).await).contains("FdbMaxLearned(4096)"));
        let addresses = host.run(&format!("ip -o addr show dev {BRIDGE}"));
        assert!(addresses.contains("10.32.0.1/16") && addresses.contains("fd77::1/64"), "{addresses}");
        assert!(!addresses.contains("10.99.0.1") && !addresses.contains("tentative"), "{addresses}");
        assert_eq!(host.run(&format!("cat /proc/sys/net/ipv6/conf/{BRIDGE}/accept_ra")).trim(), "0");
        let mut plain = app();
        plain.subnets.truncate(1);
        bridges.ensure_bridge(&plain).await.unwrap();
        assert!(!host.run(&format!("ip -o addr show dev {BRIDGE}")).contains("inet6"));
        bridges.remove_bridge(ID).await.unwrap();
        bridges.remove_bridge(ID).await.unwrap();
        assert_eq!(bridges.list_ours().await.unwrap(), []);
    });
}

#[test]
fn frames_go_where_they_belong() {
    in_namespace(async |host, bridges| {
        let lan = Lan::new(host, &bridges).await;
        let Lan { mesh, a, b } = &lan;
        assert!(a.run("ip link show eth0").contains(&format!("{MAC_A}")), "the container's side has the MAC");
        assert!(a.run("ip link show eth0").contains("mtu 1340"));

        host.run("busybox ping -c 1 -W 1 10.32.0.3");
        bridges.ensure_bridge(&app()).await.unwrap();
        assert!(host.run("ip neigh").contains("10.32.0.3"), "nothing is forgotten when all is right");

        let mut seen = Capture::of(mesh);
        a.run("busybox ping -c 2 -W 1 10.32.0.3");
        a.run("busybox ping -c 1 -W 1 10.32.0.1");
        a.run("busybox ping -c 1 -W 1 fd77::1");
        let frames = seen.frames();
        assert!(
            frames.iter().any(|f| f.to == Mac::BROADCAST && f.from == MAC_A),
            "the ARP request is flooded"
        );
        let strayed: Vec<_> = frames.iter().filter(|f| !f.to.is_group()).collect();
        assert!(strayed.is_empty(), "unicast between local addresses met the tap: {strayed:?}");

        let unknown = Mac([2, 0x42, 10, 32, 9, 9]);
        a.run(&format!("ip neigh replace 10.32.9.9 lladdr {unknown} dev eth0"));
        let mut other = Capture::of(b);
        a.ignore("busybox ping -c 1 -W 1 10.32.9.9");
        assert!(seen.frames().iter().any(|f| f.to == unknown), "unknown unicast goes to the tap");
        assert!(!other.frames().iter().any(|f| f.to == unknown), "and to no container");
    });
}

#[test]
fn nobody_takes_a_containers_address() {
    in_namespace(async |host, bridges| {
        let lan = Lan::new(host, &bridges).await;
        let port_of_b = || host.run(&format!("bridge fdb show br {BRIDGE}"));
        let entry = format!("{MAC_B} dev {} sticky master {BRIDGE} static", host_ifname(B).unwrap());
        assert!(port_of_b().contains(&entry), "{}", port_of_b());
        lan.a.run(&format!(
            "ip link set eth0 down && ip link set eth0 address {MAC_B} && ip link set eth0 up"
        ));
        lan.a.ignore("busybox ping -c 1 -W 1 10.32.0.9");
        assert!(port_of_b().contains(&entry), "{}", port_of_b());
        // From the mesh neither: the tap teaches the bridge nothing.
        lan.mesh.run("ip link set mesh address 02:42:0a:20:07:07 up && ip addr add 10.32.7.7/16 dev mesh");
        lan.mesh.run("busybox ping -c 1 -W 1 10.32.0.3");
        assert!(!port_of_b().contains("02:42:0a:20:07:07"), "{}", port_of_b());
    });
}

#[test]
fn leftovers_are_found_and_removed() {
    in_namespace(async |host, bridges| {
        let lan = Lan::new(host, &bridges).await;
        let veth = |id| Ours::Veth { name: host_ifname(id).unwrap(), network: Some(ID) };
        let all = vec![Ours::Bridge(ID), Ours::Tap(ID), veth(A), veth(B)];
        assert_eq!(bridges.list_ours().await.unwrap(), all);
        assert!(bridges.delete_veth(A).await.unwrap());
        assert!(!bridges.delete_veth(A).await.unwrap());
        assert!(!lan.a.run("ip -o link").contains("eth0"), "both sides are gone");
        bridges.remove_bridge(ID).await.unwrap();
        let orphan = Ours::Veth { name: host_ifname(B).unwrap(), network: None };
        assert_eq!(bridges.list_ours().await.unwrap(), [Ours::Tap(ID), orphan.clone()]);
        bridges.remove_leftover(&orphan).await.unwrap();
        bridges.remove_leftover(&Ours::Tap(ID)).await.unwrap();
        assert_eq!(bridges.list_ours().await.unwrap(), []);
    });
}

#[test]
fn routes_of_the_machine_without_our_own() {
    in_namespace(async |host, bridges| {
        host.run("ip link add u0 type veth peer name u1 && ip link set u0 up && ip link set u1 up");
        host.run("ip addr add 192.0.2.9/24 dev u0 && ip addr add 2001:db8::9/64 dev u0 nodad");
        host.run("ip route add default via 192.0.2.1 && ip route add 172.30.0.0/16 via 192.0.2.2");
        host.run("ip route add 10.1.2.0/24 dev u0 table 77 && ip route add 169.254.0.0/16 dev u0");
        bridges.ensure_bridge(&app()).await.unwrap();
        let routes: Vec<String> =
            bridges.host_routes().await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["192.0.2.0/24", "172.30.0.0/16", "2001:db8::/64"]);
    });
}

#[test]
fn what_cannot_be_done_is_said() {
    in_namespace(async |host, bridges| {
        let error = bridges.add_tap_port(ID).await.unwrap_err();
        assert_eq!(error.to_string(), format!("there is no interface {TAP}"));
        host.run(&format!("ip link add {BRIDGE} type veth peer name x1"));
        assert!(matches!(bridges.ensure_bridge(&app()).await, Err(BridgeError::NotABridge { .. })));
        assert!(matches!(
            bridges.create_veth(ID, "short", MAC_A, 1340).await,
            Err(BridgeError::EndpointId(_))
        ));
    });
}

#[test]
fn veth_names_fit() {
    assert_eq!(host_ifname(A).unwrap(), "wveaaaaaaaaaaaa");
    assert_eq!(container_ifname(A).unwrap().len(), 15);
    assert!(host_ifname("aaaa/../aaaaaaaaaa").is_err());
    assert!(host_ifname("aaaaaaaaaaaé").is_err());
}

/// A bridge with two containers; the "tap" is a veth whose other end, `mesh`, shows what would go to other hosts.
struct Lan {
    mesh: Namespace,
    a: Namespace,
    b: Namespace,
}

impl Lan {
    async fn new(host: &Namespace, bridges: &Bridges) -> Self {
        bridges.ensure_bridge(&app()).await.unwrap();
        let lan = Self { mesh: Namespace::new(), a: Namespace::new(), b: Namespace::new() };
        let mesh = lan.mesh.holder.id();
        host.run(&format!("ip link add {TAP} type veth peer name mesh netns {mesh}"));
        lan.mesh.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1; ip link set mesh up");
        bridges.add_tap_port(ID).await.unwrap();
        for (container, id, mac, ip) in [(&lan.a, A, MAC_A, "2"), (&lan.b, B, MAC_B, "3")] {
            // Twice: a call that Docker repeats finds no obstacle.
            bridges.create_veth(ID, id, mac, 1340).await.unwrap();
            let name = bridges.create_veth(ID, id, mac, 1340).await.unwrap();
            host.run(&format!("ip link set {name} netns {} name eth0", container.holder.id()));
            container.run(&format!(
                "ip link set eth0 up; ip addr add 10.32.0.{ip}/16 dev eth0; ip addr add fd77::{ip}/64 dev eth0 nodad"
            ));
        }
        lan
    }
}

/// A network namespace that lives as long as a process of ours.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Self {
        // It says when it is there.
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; exec sleep 300"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        holder.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Self { holder }
    }

    /// Moves the calling thread in, for good.
    fn enter(&self) {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        let file = std::fs::File::open(path).unwrap();
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
    }

    fn shell(&self, script: &str) -> std::process::Output {
        let pid = self.holder.id().to_string();
        Command::new("nsenter").args(["-n", "-t", &pid, "sh", "-c", script]).output().unwrap()
    }

    fn run(&self, script: &str) -> String {
        let output = self.shell(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what may fail.
    fn ignore(&self, script: &str) {
        self.shell(script);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _already_gone = self.holder.kill();
        let _already_gone = self.holder.wait();
    }
}

/// Runs a test on a thread of its own in a namespace of its own.
fn in_namespace(test: impl AsyncFnOnce(&Namespace, Bridges) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: bridges need root");
        return;
    }
    let thread = std::thread::spawn(|| {
        let host = Namespace::new();
        host.enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(&host, Bridges::open().unwrap()).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Every frame that a namespace's interfaces see.
struct Capture(Socket);

#[derive(Debug)]
struct Seen {
    to: Mac,
    from: Mac,
}

impl Capture {
    fn of(namespace: &Namespace) -> Self {
        std::thread::scope(|scope| {
            let open = || {
                namespace.enter();
                let all = i32::from((libc::ETH_P_ALL as u16).to_be());
                Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(all))).unwrap()
            };
            let socket = scope.spawn(open).join().unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            Self(socket)
        })
    }

    /// What has come until now.
    fn frames(&mut self) -> Vec<Seen> {
        let (mut seen, start) = (Vec::new(), Instant::now());
        let mut frame = [0; 2048];
        while start.elapsed() < Duration::from_secs(5) {
            match self.0.read(&mut frame) {
                Ok(n) if n >= 12 => seen.push(Seen {
                    to: Mac(frame[..6].try_into().unwrap()),
                    from: Mac(frame[6..12].try_into().unwrap()),
                }),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) => panic!("{e}"),
            }
        }
        seen
    }
}
