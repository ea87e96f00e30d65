//! Firewalls: our own rules, which can be put right, and those of others, which only their owners can open.

use std::collections::BTreeSet;
use std::fmt;

use weft_api::id::NetworkId;

use super::Doctor;
use super::nft::{Dropper, Packet, Ruleset};
use crate::firewall;
use crate::program::{self, first_line};

/// Sockets, chains and tables of iptables, which the rules of the agent are in.
const IPTABLES: [(&str, &str, &str); 2] = [("ip", "filter", "FORWARD"), ("ip6", "filter", "FORWARD")];

/// Says whether ufw is on.
const UFW: &str = "/etc/ufw/ufw.conf";

impl Doctor {
    pub(super) async fn rules(&mut self, networks: &BTreeSet<NetworkId>, member: bool) {
        let wrong = match firewall::in_place(networks).await {
            Ok(true) => return self.ok("firewall", "frames between containers are accepted"),
            Ok(false) if member => "accept rules are missing or too many",
            Ok(false) => "rules of a mesh that this host has left are there",
            Err(e) => return self.problem("firewall", e),
        };
        if !self.fix {
            return self.problem("firewall", format!("{wrong}: weft doctor --fix"));
        }
        let mended =
            if member { firewall::ensure(networks).await.map(drop) } else { firewall::remove().await };
        self.mended("firewall", wrong, mended);
    }

    /// Tables that only nft manages: a packet passes only if every table lets it pass.
    pub(super) async fn tables(&mut self, networks: &BTreeSet<NetworkId>, port: u16, all_reached: bool) {
        let listed = match program::run("nft", &["-j", "-t", "list", "ruleset"], "").await {
            Ok(output) if output.status.success() => output.stdout,
            Ok(output) => {
                return self.warning(
                    "nftables",
                    format!("not looked at: nft failed: {}", first_line(&output.stderr)),
                );
            }
            // No nft, no tables that only it manages.
            Err(_) => return,
        };
        let ruleset = match Ruleset::read(&listed) {
            Ok(ruleset) => ruleset,
            Err(e) => {
                return self
                    .warning("nftables", format!("not looked at: what nft lists cannot be read: {e}"));
            }
        };
        let before = self.findings.len();
        for (dropper, bridges) in frame_droppers(&ruleset, networks) {
            let interface = interface(networks, &bridges);
            self.problem("nftables", closed_to_frames(&dropper, &interface));
        }
        for (dropper, closed) in port_closers(&ruleset, port) {
            let says = closed_port(&dropper, closed, port);
            // Who is dialled by this host may answer all the same; TCP is needed only where UDP does not get through.
            if all_reached || closed == Closed::Tcp {
                self.warning("nftables", says);
            } else {
                self.problem("nftables", says);
            }
        }
        if self.findings.len() == before {
            self.ok("nftables", "no table drops frames between containers, or what arrives on the port");
        }
    }

    /// Programs that write rules of their own, now and at each reload.
    pub(super) async fn managers(&mut self, port: u16) {
        let says_yes = async |program: &str, arguments: &[&str]| {
            let asked = program::run(program, arguments, "").await;
            asked.is_ok_and(|output| output.status.success())
        };
        if says_yes("firewall-cmd", &["--state"]).await {
            let lets_in = async |transport| {
                let query = format!("--query-port={port}/{transport}");
                says_yes("firewall-cmd", &[&query]).await
            };
            match Closed::of(lets_in("udp").await, lets_in("tcp").await) {
                None => self.ok("firewalld", format!("lets UDP and TCP port {port} in")),
                Some(closed) => {
                    let remedy = firewalld_opens(closed, port);
                    let says = format!("it runs and its default zone does not let {closed} port {port} in");
                    self.warning("firewalld", format!("{says}: {remedy}"));
                }
            }
        }
        let ufw = tokio::fs::read_to_string(UFW).await.unwrap_or_default();
        if ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")) {
            let rules =
                program::run("ufw", &["status"], "").await.map(|output| output.stdout).unwrap_or_default();
            let rules = String::from_utf8_lossy(&rules);
            match Closed::of(ufw_allows(&rules, "udp", port), ufw_allows(&rules, "tcp", port)) {
                None => self.ok("ufw", format!("lets UDP and TCP port {port} in")),
                Some(closed) => {
                    let says = format!("it is enabled and has no rule that lets {closed} port {port} in");
                    self.warning("ufw", format!("{says}: ufw allow {port}"));
                }
            }
        }
    }
}

/// What of the port is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closed {
    Udp,
    Tcp,
    Both,
}

impl Closed {
    fn of(udp_open: bool, tcp_open: bool) -> Option<Self> {
        match (udp_open, tcp_open) {
            (true, true) => None,
            (false, true) => Some(Self::Udp),
            (true, false) => Some(Self::Tcp),
            (false, false) => Some(Self::Both),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Both => "UDP and TCP",
        })
    }
}

/// A line such as `6783/udp   ALLOW   Anywhere`, or `6783   ALLOW IN   192.0.2.0/24`.
fn ufw_allows(status: &str, transport: &str, port: u16) -> bool {
    let (both, one) = (port.to_string(), format!("{port}/{transport}"));
    status.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|to| to == both || to == one) && words.any(|word| word == "ALLOW")
    })
}

fn firewalld_opens(closed: Closed, port: u16) -> String {
    let ports = match closed {
        Closed::Udp => format!("--add-port={port}/udp"),
        Closed::Tcp => format!("--add-port={port}/tcp"),
        Closed::Both => format!("--add-port={port}/udp --add-port={port}/tcp"),
    };
    format!("firewall-cmd --permanent {ports} && firewall-cmd --reload")
}

/// Which base chains drop what arrives on the port.
fn port_closers(ruleset: &Ruleset, port: u16) -> Vec<(Dropper, Closed)> {
    let [udp, tcp] = ["udp", "tcp"].map(|transport| ruleset.droppers(Packet::Arriving(transport, port)));
    let only_tcp = tcp.iter().filter(|dropper| !udp.contains(dropper)).map(|d| (d.clone(), Closed::Tcp));
    let both = |dropper: &Dropper| if tcp.contains(dropper) { Closed::Both } else { Closed::Udp };
    udp.iter().map(|d| (d.clone(), both(d))).chain(only_tcp).collect()
}

/// Which base chains drop frames, and of which bridges. The tables of iptables are looked at by [`firewall::in_place`].
fn frame_droppers(ruleset: &Ruleset, networks: &BTreeSet<NetworkId>) -> Vec<(Dropper, Vec<String>)> {
    let mut found: Vec<(Dropper, Vec<String>)> = Vec::new();
    for bridge in networks.iter().map(|network| network.bridge_name()) {
        for dropper in ruleset.droppers(Packet::Bridged(&bridge)) {
            let own = (dropper.family.as_str(), dropper.table.as_str(), dropper.chain.as_str());
            let asked = dropper.family == "bridge" || firewall::bridged_frames_are_filtered();
            if IPTABLES.contains(&own) || !asked {
                continue;
            }
            match found.iter_mut().find(|(known, _)| *known == dropper) {
                Some((_, bridges)) => bridges.push(bridge.clone()),
                None => found.push((dropper, vec![bridge.clone()])),
            }
        }
    }
    found
}

/// What a rule calls these bridges.
fn interface(networks: &BTreeSet<NetworkId>, bridges: &[String]) -> String {
    match bridges {
        [one] if networks.len() > 1 => one.clone(),
        _ => "wft-*".into(),
    }
}

fn closed_to_frames(at: &Dropper, interface: &str) -> String {
    let Dropper { family, table, chain } = at;
    let what = format!(
        "the chain {chain} of the nft table {family} {table} drops frames between containers, and no rule of another table can override that"
    );
    if table == "firewalld" {
        return format!(
            "{what}: firewall-cmd --permanent --zone=trusted --add-interface={} && firewall-cmd --reload, for each bridge",
            interface.replace('*', "...")
        );
    }
    let matching = match family.as_str() {
        "bridge" => format!("meta ibrname \"{interface}\""),
        _ => format!("iifname \"{interface}\" oifname \"{interface}\""),
    };
    format!(
        "{what}: nft 'insert rule {family} {table} {chain} {matching} accept', and write the same into that firewall's own file (such as /etc/nftables.conf)"
    )
}

fn closed_port(at: &Dropper, closed: Closed, port: u16) -> String {
    let Dropper { family, table, chain } = at;
    let what = format!(
        "the chain {chain} of the nft table {family} {table} drops what other hosts send to {closed} port {port}"
    );
    if table == "firewalld" {
        return format!("{what}: {}", firewalld_opens(closed, port));
    }
    let matching = match closed {
        Closed::Udp => "udp",
        Closed::Tcp => "tcp",
        Closed::Both => "meta l4proto { tcp, udp } th",
    };
    format!(
        "{what}: nft 'insert rule {family} {table} {chain} {matching} dport {port} accept', and write the same into that firewall's own file (such as /etc/nftables.conf)"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ufw_tells_its_rules() {
        let status = "Status: active\n\nTo                         Action      From\n--                         ------      ----\n\
            22/tcp                     ALLOW       Anywhere\n6783/udp                   ALLOW       Anywhere\n53 DENY Anywhere\n";
        assert!(ufw_allows(status, "udp", 6783) && !ufw_allows(status, "tcp", 6783));
        assert!(ufw_allows("6783 ALLOW IN 192.0.2.0/24", "tcp", 6783));
        let udp = |status, port| ufw_allows(status, "udp", port);
        assert!(!udp(status, 22) && !udp(status, 53) && !udp("", 6783));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = ufw_allows(&text, "udp", 6783);
        }
    }

    #[test]
    fn the_sentence_has_the_rule_to_add() {
        let at = |family: &str, table: &str| Dropper {
            family: family.into(),
            table: table.into(),
            chain: "fwd".into(),
        };
        let says = closed_to_frames(&at("inet", "mine"), "wft-*");
        assert!(
            says.contains("'insert rule inet mine fwd iifname \"wft-*\" oifname \"wft-*\" accept'"),
            "{says}"
        );
        assert!(closed_to_frames(&at("bridge", "mine"), "wft-*").contains("meta ibrname \"wft-*\" accept"));
        assert!(
            closed_to_frames(&at("inet", "firewalld"), "wft-00000001")
                .contains("--add-interface=wft-00000001")
        );
        let says = closed_port(&at("inet", "mine"), Closed::Udp, 7000);
        assert!(says.contains("to UDP port 7000") && says.contains(" udp dport 7000 accept"), "{says}");
        let says = closed_port(&at("inet", "mine"), Closed::Both, 7000);
        assert!(says.contains("UDP and TCP port") && says.contains("th dport 7000 accept"), "{says}");
        let says = closed_port(&at("inet", "firewalld"), Closed::Tcp, 7000);
        assert!(says.contains("--add-port=7000/tcp &&"), "{says}");
    }
}
