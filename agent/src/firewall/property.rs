//! The reader of `iptables -S` under whatever it may print, and its corrections carried out by a model of iptables-restore.

use std::collections::BTreeSet;

use proptest::prelude::*;
use weft_api::id::NetworkId;

use super::{Rules, correction, removal};

const TARGETS: [&str; 9] = [
    "-j DOCKER-USER",
    "-j WEFT",
    "-j RETURN",
    "-j DROP",
    "-j REJECT --reject-with icmp-port-unreachable",
    "-i eth0 -j DROP",
    "-i wft-00000001 -o wft-00000001 -j ACCEPT",
    "-m comment --comment \"-j WEFT\" -j ACCEPT",
    "-i eth0 -j WEFT",
];

/// The filter table: policies, chains of people, rules in order.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Table {
    chains: Vec<String>,
    rules: Vec<(String, String)>,
}

impl Table {
    /// As `-S` prints it.
    fn text(&self) -> String {
        let policies = ["INPUT", "FORWARD", "OUTPUT"].map(|chain| format!("-P {chain} DROP\n"));
        let chains = self.chains.iter().map(|chain| format!("-N {chain}\n"));
        let rules = self.rules.iter().map(|(chain, rule)| format!("-A {chain} {rule}\n"));
        policies.into_iter().chain(chains).chain(rules).collect()
    }

    /// What `iptables-restore --noflush` does: a chain that is declared is made, or emptied.
    fn restore(&mut self, script: &str) {
        let mut lines = script.lines();
        assert_eq!(lines.next(), Some("*filter"));
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (order, chain) = (words.next().unwrap(), words.next().unwrap_or_default().to_owned());
            let rest = words.next().unwrap_or_default().to_owned();
            let known = |table: &Self| {
                table.chains.contains(&chain) || ["INPUT", "FORWARD", "OUTPUT"].contains(&chain.as_str())
            };
            match order {
                "COMMIT" => return,
                "-A" if known(self) => self.rules.push((chain, rest)),
                "-I" if known(self) => {
                    let rule = rest.strip_prefix("1 ").unwrap().to_owned();
                    let first =
                        self.rules.iter().position(|(at, _)| *at == chain).unwrap_or(self.rules.len());
                    self.rules.insert(first, (chain, rule));
                }
                "-D" => {
                    let at = self.rules.iter().position(|(at, rule)| *at == chain && *rule == rest);
                    self.rules.remove(at.unwrap_or_else(|| panic!("no such rule: {line}")));
                }
                "-X" => {
                    assert!(
                        !self
                            .rules
                            .iter()
                            .any(|(at, rule)| *at == chain || rule.ends_with(&format!("-j {chain}")))
                    );
                    self.chains.retain(|known| *known != chain);
                }
                declared => {
                    let chain = declared.strip_prefix(':').unwrap_or_else(|| panic!("what is {line}?"));
                    self.rules.retain(|(at, _)| at != chain);
                    if !self.chains.iter().any(|known| known == chain) {
                        self.chains.push(chain.to_owned());
                    }
                }
            }
        }
        panic!("no COMMIT in {script}");
    }

    /// What is not ours.
    fn of_others(&self) -> Vec<(String, String)> {
        let ours =
            |(at, rule): &&(String, String)| at != "WEFT" && !rule.ends_with(" -j WEFT") && rule != "-j WEFT";
        self.rules.iter().filter(ours).cloned().collect()
    }
}

fn tables() -> impl Strategy<Value = Table> {
    let chains = prop::sample::subsequence(vec!["DOCKER-USER", "WEFT", "WEFTED", "MINE"], 0..=4);
    let rules =
        prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&TARGETS[..])), 0..14);
    (chains, rules).prop_map(|(chains, rules)| {
        let at: Vec<&str> = ["FORWARD", "INPUT"].into_iter().chain(chains.iter().copied()).collect();
        // iptables takes no jump to a chain that is not there, and none in a circle.
        let possible = |chain: &str, rule: &str| {
            let to = rule.rsplit(' ').next().unwrap_or_default();
            let is_chain = ["DOCKER-USER", "WEFT"].contains(&to);
            !is_chain || chains.contains(&to) && chain != to && chain != "WEFT"
        };
        let rules = rules.into_iter().map(|(chain, rule)| (*chain.get(&at), rule));
        let rules = rules.filter(|(chain, rule)| possible(chain, rule));
        Table {
            rules: rules.map(|(chain, rule)| (chain.to_owned(), rule.to_owned())).collect(),
            chains: chains.iter().map(|chain| (*chain).to_owned()).collect(),
        }
    })
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "(-[APND] ?|WEFT|DOCKER-USER|FORWARD|-j |[ \n]|.){0,60}", ids: Vec<u32>) {
        let networks: BTreeSet<NetworkId> = ids.into_iter().map(NetworkId).collect();
        let _ = correction(&text, &networks);
        let _ = removal(&text);
        let _ = Rules(&text).stray_jumps(Rules(&text).hook());
    }

    #[test]
    fn one_correction_is_enough_and_touches_nothing_of_others(mut table in tables(), ids in prop::collection::btree_set(1u32..5, 0..4)) {
        let networks: BTreeSet<NetworkId> = ids.into_iter().map(NetworkId).collect();
        let others = table.of_others();
        if let Some(script) = correction(&table.text(), &networks) {
            table.restore(&script);
        }
        prop_assert_eq!(correction(&table.text(), &networks), None, "{}", table.text());
        prop_assert_eq!(table.of_others(), others.clone());
        let ours = table.rules.iter().filter(|(at, _)| at == "WEFT").count();
        prop_assert_eq!(ours, networks.len());
        let script = removal(&table.text()).expect("the chain is there");
        table.restore(&script);
        prop_assert_eq!(removal(&table.text()), None);
        prop_assert!(!table.text().contains("-j WEFT\n"), "{}", table.text());
        prop_assert_eq!(table.of_others(), others);
    }
}
