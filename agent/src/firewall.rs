//! The machine's packet filter: where br_netfilter is on, frames between two ports of a bridge pass the FORWARD chain,
//! and Docker's policy there is DROP. Each network gets one rule, from its bridge to the same bridge, so that nothing
//! is opened between networks. Rules go through the `iptables` and `ip6tables` on PATH: the backend that Docker uses.

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::process::Output;

use thiserror::Error;
use weft_api::id::NetworkId;

use crate::program::{first_line, run};

/// Our chain, in the filter table of both families.
const CHAIN: &str = "WEFT";

/// Where Docker wants rules of others; it never touches them.
const DOCKER_CHAIN: &str = "DOCKER-USER";

/// How long somebody else may hold the lock of iptables, seconds.
const LOCK: &str = "5";

/// How the rules are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// As they must be, and were so.
    InPlace,
    /// Something was missing or too much: put right.
    Mended,
    /// There is no iptables, and no need: bridged frames do not meet it.
    NotNeeded,
}

/// The rules are not as they must be; the sentence is for `weft status`.
#[derive(Debug, Error)]
pub enum FirewallError {
    /// The kernel filters bridged frames and we cannot say which may pass.
    #[error(
        "{program} is not installed, but this kernel filters bridged frames: install it, or write 0 to {switch}"
    )]
    Absent {
        /// What is missing.
        program: &'static str,
        /// The switch.
        switch: &'static str,
    },
    /// It was asked and refused.
    #[error("{program} failed, so frames between containers may be dropped: {said}")]
    Refused {
        /// Who.
        program: String,
        /// Its words.
        said: String,
    },
}

/// Makes the rules accept exactly these networks. Asks first and changes only what is wrong, in one transaction per
/// family; call it when networks change, and again and again, since firewalls are reloaded.
pub async fn ensure(networks: &BTreeSet<NetworkId>) -> Result<State, FirewallError> {
    let mut states = Vec::new();
    for family in FAMILIES {
        states.push(family.ensure(networks).await?);
    }
    Ok(if states.contains(&State::Mended) {
        State::Mended
    } else if states.contains(&State::InPlace) {
        State::InPlace
    } else {
        State::NotNeeded
    })
}

/// Whether the rules accept exactly these networks already; nothing is changed.
pub async fn in_place(networks: &BTreeSet<NetworkId>) -> Result<bool, FirewallError> {
    for family in FAMILIES {
        let right = match family.list().await? {
            // Without a network there need be no chain of ours.
            Some(rules) if networks.is_empty() => {
                !Rules(&rules).has_chain(CHAIN) || correction(&rules, networks).is_none()
            }
            Some(rules) => correction(&rules, networks).is_none(),
            None if family.filters_bridges() && !networks.is_empty() => {
                return Err(FirewallError::Absent { program: family.program, switch: family.switch });
            }
            None => true,
        };
        if !right {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether frames between two ports of a bridge meet the filters of IP at all.
#[must_use]
pub fn bridged_frames_are_filtered() -> bool {
    FAMILIES.into_iter().any(Family::filters_bridges)
}

/// Removes every trace of ours; nothing there is no error.
pub async fn remove() -> Result<(), FirewallError> {
    for family in FAMILIES {
        if let Some(rules) = family.list().await?
            && let Some(script) = removal(&rules)
        {
            family.restore(&script).await?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Family {
    program: &'static str,
    restore: &'static str,
    switch: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        program: "iptables",
        restore: "iptables-restore",
        switch: "/proc/sys/net/bridge/bridge-nf-call-iptables",
    },
    Family {
        program: "ip6tables",
        restore: "ip6tables-restore",
        switch: "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
    },
];

impl Family {
    async fn ensure(self, networks: &BTreeSet<NetworkId>) -> Result<State, FirewallError> {
        let Some(rules) = self.list().await? else {
            return if self.filters_bridges() {
                Err(FirewallError::Absent { program: self.program, switch: self.switch })
            } else {
                Ok(State::NotNeeded)
            };
        };
        match correction(&rules, networks) {
            None => Ok(State::InPlace),
            Some(script) => self.restore(&script).await.map(|()| State::Mended),
        }
    }

    /// All rules of the filter table as `-S` prints them; `None` if the program is not installed, or cannot work
    /// and need not.
    async fn list(self) -> Result<Option<String>, FirewallError> {
        match run(self.program, &["-w", LOCK, "-S"], "").await {
            Ok(output) if output.status.success() => {
                Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
            }
            // Such as ip6tables on a kernel without IPv6.
            Ok(_) if !self.filters_bridges() => Ok(None),
            Ok(output) => Err(self.refused(self.program, &output)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(FirewallError::Refused { program: self.program.into(), said: e.to_string() }),
        }
    }

    async fn restore(self, script: &str) -> Result<(), FirewallError> {
        match run(self.restore, &["-w", LOCK, "--noflush"], script).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(self.refused(self.restore, &output)),
            Err(e) => Err(FirewallError::Refused { program: self.restore.into(), said: e.to_string() }),
        }
    }

    fn refused(self, program: &str, output: &Output) -> FirewallError {
        let said = first_line(&output.stderr);
        FirewallError::Refused { program: program.to_owned(), said }
    }

    /// Whether bridged frames meet the filter; absent, br_netfilter is not loaded.
    fn filters_bridges(self) -> bool {
        std::fs::read_to_string(self.switch).is_ok_and(|text| text.trim() != "0")
    }
}

/// The script that makes `rules` right; `None` if they are.
fn correction(rules: &str, networks: &BTreeSet<NetworkId>) -> Option<String> {
    let rules = Rules(rules);
    let hook = rules.hook();
    let wanted: Vec<String> = networks.iter().map(|network| accept(*network)).collect();
    let chain_right = rules.has_chain(CHAIN) && rules.of(CHAIN).eq(wanted.iter().map(String::as_str));
    let jump_right = rules.reaches(hook, CHAIN);
    if chain_right && jump_right && rules.stray_jumps(hook).is_empty() {
        return None;
    }
    let mut script = format!("*filter\n:{CHAIN} - [0:0]\n");
    for rule in wanted {
        script += &format!("{rule}\n");
    }
    for jump in rules.jumps() {
        script += &format!("{}\n", jump.replacen("-A ", "-D ", 1));
    }
    script += &format!("-I {hook} 1 -j {CHAIN}\nCOMMIT\n");
    Some(script)
}

/// The script that removes what is ours from `rules`; `None` if nothing is.
fn removal(rules: &str) -> Option<String> {
    let rules = Rules(rules);
    if !rules.has_chain(CHAIN) {
        return None;
    }
    let mut script = format!("*filter\n:{CHAIN} - [0:0]\n");
    for jump in rules.jumps() {
        script += &format!("{}\n", jump.replacen("-A ", "-D ", 1));
    }
    script += &format!("-X {CHAIN}\nCOMMIT\n");
    Some(script)
}

fn accept(network: NetworkId) -> String {
    let bridge = network.bridge_name();
    format!("-A {CHAIN} -i {bridge} -o {bridge} -j ACCEPT")
}

/// What `iptables -S` prints.
struct Rules<'a>(&'a str);

impl<'a> Rules<'a> {
    /// The chain that must jump to ours: Docker's for others while FORWARD leads to it, else FORWARD itself.
    fn hook(&self) -> &'static str {
        if self.has_chain(DOCKER_CHAIN) && self.reaches("FORWARD", DOCKER_CHAIN) {
            DOCKER_CHAIN
        } else {
            "FORWARD"
        }
    }

    fn has_chain(&self, chain: &str) -> bool {
        self.0.lines().any(|line| line.strip_prefix("-N ").is_some_and(|name| name.trim() == chain))
    }

    fn of(&self, chain: &str) -> impl Iterator<Item = &'a str> {
        let head = format!("-A {chain} ");
        self.0.lines().map(str::trim_end).filter(move |line| line.starts_with(&head))
    }

    /// Whether `from` jumps to `to` unconditionally, and nothing unconditional comes before.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let (jump, head) = (format!("-A {from} -j {to}"), format!("-A {from} -j "));
        for rule in self.of(from) {
            if rule == jump {
                return true;
            }
            let target = rule.strip_prefix(&head).unwrap_or_default();
            if ["RETURN", "DROP", "REJECT"].contains(&target.split(' ').next().unwrap_or_default()) {
                return false;
            }
        }
        false
    }

    /// All jumps to our chain.
    fn jumps(&self) -> Vec<&'a str> {
        let tail = format!(" -j {CHAIN}");
        self.0.lines().map(str::trim_end).filter(|l| l.starts_with("-A ") && l.ends_with(&tail)).collect()
    }

    /// Jumps to our chain from elsewhere than `hook`, or a second one from there.
    fn stray_jumps(&self, hook: &str) -> Vec<&'a str> {
        let right = format!("-A {hook} -j {CHAIN}");
        let mut seen = false;
        let mut jumps = self.jumps();
        jumps.retain(|jump| *jump != right || std::mem::replace(&mut seen, true));
        jumps
    }
}
