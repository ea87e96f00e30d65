//! The corrections as text, and real traffic through real rules in network namespaces of the test's own.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use weft_api::id::NetworkId;

use super::{State, correction, ensure, removal, remove};

const DOCKER: &str = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-USER\n\
    -A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n-A DOCKER-USER -j RETURN\n";

fn networks(ids: &[u32]) -> BTreeSet<NetworkId> {
    ids.iter().map(|id| NetworkId(*id)).collect()
}

#[test]
fn rules_go_where_docker_wants_them() {
    let script = correction(DOCKER, &networks(&[1, 2])).unwrap();
    assert_eq!(
        script,
        "*filter\n:WEFT - [0:0]\n\
         -A WEFT -i wft-00000001 -o wft-00000001 -j ACCEPT\n\
         -A WEFT -i wft-00000002 -o wft-00000002 -j ACCEPT\n\
         -I DOCKER-USER 1 -j WEFT\nCOMMIT\n"
    );
}

#[test]
fn what_is_right_is_let_be() {
    let rules = "-P FORWARD DROP\n-N DOCKER-USER\n-N WEFT\n-A FORWARD -j DOCKER-USER\n\
        -A DOCKER-USER -i eth0 -j DROP\n-A DOCKER-USER -j WEFT\n-A DOCKER-USER -j RETURN\n\
        -A WEFT -i wft-00000001 -o wft-00000001 -j ACCEPT\n";
    assert_eq!(correction(rules, &networks(&[1])), None);
    assert!(correction(rules, &networks(&[1, 2])).is_some(), "a network is missing");
    assert!(correction(rules, &networks(&[])).is_some(), "a network is too much");
    let late = rules.replace("-i eth0 -j DROP", "-j RETURN");
    assert!(correction(&late, &networks(&[1])).is_some(), "the jump is never reached");
    let loose = rules.replace("-A FORWARD -j DOCKER-USER\n", "");
    let script = correction(&loose, &networks(&[1])).unwrap();
    assert!(script.contains("-I FORWARD 1 -j WEFT") && script.contains("-D DOCKER-USER -j WEFT"), "{script}");
    let twice = format!("{rules}-A FORWARD -j WEFT\n");
    assert!(correction(&twice, &networks(&[1])).unwrap().contains("-D FORWARD -j WEFT"));
}

#[test]
fn nothing_stays() {
    assert_eq!(removal(DOCKER), None);
    let rules = format!(
        "{DOCKER}-N WEFT\n-A DOCKER-USER -j WEFT\n-A WEFT -i wft-00000001 -o wft-00000001 -j ACCEPT\n"
    );
    assert_eq!(removal(&rules).unwrap(), "*filter\n:WEFT - [0:0]\n-D DOCKER-USER -j WEFT\n-X WEFT\nCOMMIT\n");
}

#[test]
fn bridged_frames_pass_a_closed_firewall() {
    in_namespace(async |host| {
        let (a, b, other) = (Namespace::new(), Namespace::new(), Namespace::new());
        // Two networks on one host; `other` takes an address of the first, and the host would route to it.
        host.run("ip link add wft-00000001 type bridge && ip link set wft-00000001 up");
        host.run("ip link add wft-00000002 type bridge && ip link set wft-00000002 up");
        host.run("ip addr add 10.32.0.1/16 dev wft-00000001 && ip addr add 10.33.0.1/16 dev wft-00000002");
        for (container, network, ip) in [(&a, 1, "10.32.0.2"), (&b, 1, "10.32.0.3"), (&other, 2, "10.33.0.2")]
        {
            let pid = container.0.id();
            host.run(&format!("ip link add v{pid} type veth peer name eth0 netns {pid}"));
            host.run(&format!("ip link set v{pid} master wft-0000000{network} up"));
            container.run(&format!("ip link set eth0 up && ip addr add {ip}/16 dev eth0"));
            let gateway = ip.rsplit_once('.').unwrap().0;
            container.run(&format!("ip route add default via {gateway}.1"));
        }
        host.run("sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1");
        host.run("sysctl -qw net.bridge.bridge-nf-call-ip6tables=1");
        assert!(a.reaches("10.32.0.3") && a.reaches("10.33.0.2"), "open");

        host.run("iptables -P FORWARD DROP && ip6tables -P FORWARD DROP");
        assert!(!a.reaches("10.32.0.3"), "this kernel filters bridged frames");
        assert_eq!(ensure(&networks(&[1, 2])).await.unwrap(), State::Mended);
        assert!(a.reaches("10.32.0.3"), "within a network");
        assert!(!a.reaches("10.33.0.2"), "not between networks");
        assert_eq!(ensure(&networks(&[1, 2])).await.unwrap(), State::InPlace);

        // Docker comes, and brings its chain.
        host.run("iptables -N DOCKER-USER && iptables -A DOCKER-USER -j RETURN");
        host.run("iptables -I FORWARD -j DOCKER-USER");
        assert_eq!(ensure(&networks(&[1, 2])).await.unwrap(), State::Mended);
        assert_eq!(ensure(&networks(&[1, 2])).await.unwrap(), State::InPlace);
        assert!(!host.run("iptables -S FORWARD").contains("WEFT"));
        assert!(a.reaches("10.32.0.3"));

        // A firewall is reloaded.
        host.run("iptables -F FORWARD && iptables -F WEFT");
        assert!(!a.reaches("10.32.0.3"));
        assert_eq!(ensure(&networks(&[1, 2])).await.unwrap(), State::Mended);
        assert!(a.reaches("10.32.0.3"));
        assert_eq!(ensure(&networks(&[2])).await.unwrap(), State::Mended);
        assert!(!a.reaches("10.32.0.3"), "a network that is gone");

        remove().await.unwrap();
        remove().await.unwrap();
        assert!(!host.run("iptables -S && ip6tables -S").contains("WEFT"));
    });
}

/// A network namespace that lives as long as a process of ours.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        // It says when it is there.
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; exec sleep 300"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(holder)
    }

    fn shell(&self, script: &str) -> std::process::Output {
        let pid = self.0.id().to_string();
        Command::new("nsenter").args(["-n", "-t", &pid, "sh", "-c", script]).output().unwrap()
    }

    fn run(&self, script: &str) -> String {
        let output = self.shell(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn reaches(&self, ip: &str) -> bool {
        self.shell(&format!("busybox ping -c 1 -W 1 {ip}")).status.success()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_gone = self.0.wait();
    }
}

/// Runs a test on a thread of its own in a namespace of its own: what it starts is in there too.
fn in_namespace(test: impl AsyncFnOnce(&Namespace) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: firewall rules need root");
        return;
    }
    let thread = std::thread::spawn(|| {
        let host = Namespace::new();
        let file = std::fs::File::open(format!("/proc/{}/ns/net", host.0.id())).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&host));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
