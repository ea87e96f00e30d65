//! What nftables does with a packet, as far as `nft -j list ruleset` tells (libnftables-json(5)). Every table may drop what others
//! accept, so each base chain is walked. What a rule asks that is not known here leaves its verdict open.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A chain that leads to another one, and so on: deeper is not looked.
const MAX_DEPTH: usize = 16;

/// Rules that are looked at for one packet, jumps included.
const MAX_RULES: usize = 20_000;

/// A packet, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// A frame between two ports of this bridge.
    Bridged(&'a str),
    /// What another host sends first to this port of `udp` or `tcp`, on any interface but the loopback.
    Arriving(&'a str, u16),
}

/// A base chain that drops the packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropper {
    /// `inet`, `ip`, `ip6` or `bridge`.
    pub family: String,
    /// The table.
    pub table: String,
    /// The base chain.
    pub chain: String,
}

/// All tables.
#[derive(Debug, Default)]
pub struct Ruleset {
    base: Vec<(Dropper, String, bool)>,
    /// Expressions of each rule, in order, by family, table and chain.
    rules: BTreeMap<(String, String, String), Vec<Vec<Value>>>,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

/// What a chain does with the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Accepted,
    Dropped,
    /// It comes to the chain's end.
    Ended,
}

impl Ruleset {
    /// Reads what nft printed.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut ruleset = Self::default();
        for object in serde_json::from_slice::<Listing>(json)?.nftables {
            if let Some(chain) = object.get("chain").and_then(|c| Chain::deserialize(c).ok()) {
                let Some(hook) = chain.hook else { continue };
                let drops = chain.policy.as_deref() == Some("drop");
                let base = Dropper { family: chain.family, table: chain.table, chain: chain.name };
                ruleset.base.push((base, hook, drops));
            } else if let Some(rule) = object.get("rule").and_then(|r| Rule::deserialize(r).ok()) {
                ruleset.rules.entry((rule.family, rule.table, rule.chain)).or_default().push(rule.expr);
            }
        }
        Ok(ruleset)
    }

    /// The base chains that surely drop the packet.
    pub fn droppers(&self, packet: Packet<'_>) -> Vec<Dropper> {
        let hook = match packet {
            Packet::Bridged(_) => "forward",
            Packet::Arriving(..) => "input",
        };
        let at_hook = self.base.iter().filter(|(_, at, _)| at == hook);
        let drops = at_hook.filter(|(base, _, policy_drops)| {
            let mut walk = Walk { ruleset: self, base, packet, left: MAX_RULES, open: false };
            match walk.chain(&base.chain, 0) {
                Fate::Accepted => false,
                Fate::Dropped => !walk.open,
                Fate::Ended => *policy_drops && !walk.open,
            }
        });
        drops.map(|(base, ..)| base.clone()).collect()
    }
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    base: &'a Dropper,
    packet: Packet<'a>,
    /// Rules that may still be looked at.
    left: usize,
    /// Some rule may have accepted it.
    open: bool,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &str, depth: usize) -> Fate {
        let Dropper { family, table, .. } = self.base;
        let ruleset = self.ruleset;
        let Some(rules) = ruleset.rules.get(&(family.clone(), table.clone(), name.to_owned())) else {
            return Fate::Ended;
        };
        for rule in rules {
            if self.left == 0 || depth > MAX_DEPTH {
                self.open = true;
                return Fate::Ended;
            }
            self.left -= 1;
            if let Some(fate) = self.rule(rule, depth) {
                return fate;
            }
        }
        Fate::Ended
    }

    /// What the rule does with the packet; `None`: the next one is looked at.
    fn rule(&mut self, expressions: &[Value], depth: usize) -> Option<Fate> {
        let mut holds = Some(true);
        for (statement, value) in expressions.iter().filter_map(Value::as_object).flatten() {
            let target = || value.get("target").and_then(Value::as_str).unwrap_or_default();
            match statement.as_str() {
                "match" => holds = both(holds, self.matches(value)),
                "counter" | "log" | "comment" | "notrack" => {}
                "xt" if value.get("name").and_then(Value::as_str) == Some("comment") => {}
                _ if holds == Some(false) => return None,
                "drop" | "reject" => return holds.map(|_| Fate::Dropped),
                "accept" if holds == Some(true) => return Some(Fate::Accepted),
                "return" if holds == Some(true) => return Some(Fate::Ended),
                "jump" if holds == Some(true) => {
                    let fate = self.chain(target(), depth + 1);
                    return Some(fate).filter(|fate| *fate != Fate::Ended);
                }
                "goto" if holds == Some(true) => return Some(self.chain(target(), depth + 1)),
                // A rate, a set, a map of verdicts, a match of iptables: it may be accepted here.
                "limit" | "xt" => holds = both(holds, None),
                _ => self.open = true,
            }
        }
        None
    }

    /// Whether a match holds for the packet; `None` if that is not known.
    fn matches(&self, value: &Value) -> Option<bool> {
        let (left, right) = (value.get("left")?, value.get("right")?);
        let known = self.known(left)?;
        let holds = match known {
            Known::Text(text) => contains(right, &|value| is_text(value, text)),
            Known::Number(number) => contains(right, &|value| is_number(value, number)),
            Known::NotLoopback if right.as_str() == Some("lo") => Some(false),
            Known::NotLoopback => None,
            Known::OtherProtocol => return Some(false),
        }?;
        match value.get("op").and_then(Value::as_str)? {
            "==" | "in" => Some(holds),
            "!=" => Some(!holds),
            _ => None,
        }
    }

    fn known(&self, left: &Value) -> Option<Known<'a>> {
        let field = |kind: &str, key: &str| left.get(kind)?.get(key)?.as_str();
        if field("ct", "key") == Some("state") {
            return Some(Known::Text("new"));
        }
        let bridges_see_ports = self.base.family == "bridge";
        match (self.packet, field("meta", "key")) {
            (Packet::Bridged(bridge), Some("ibrname" | "obrname")) => Some(Known::Text(bridge)),
            (Packet::Bridged(bridge), Some("iif" | "iifname" | "oif" | "oifname")) if !bridges_see_ports => {
                Some(Known::Text(bridge))
            }
            (Packet::Arriving(..), Some("iif" | "iifname")) => Some(Known::NotLoopback),
            (Packet::Arriving(transport, _), Some("l4proto")) => Some(Known::Text(transport)),
            (Packet::Arriving(transport, port), None) => {
                match (field("payload", "protocol")?, field("payload", "field")) {
                    (protocol, Some("dport")) if protocol == transport || protocol == "th" => {
                        Some(Known::Number(u64::from(port)))
                    }
                    (protocol @ ("udp" | "tcp"), _) if protocol != transport => Some(Known::OtherProtocol),
                    ("icmp" | "icmpv6" | "sctp" | "dccp", _) => Some(Known::OtherProtocol),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// What is known of one field of the packet.
enum Known<'a> {
    Text(&'a str),
    Number(u64),
    NotLoopback,
    /// The packet has no such field.
    OtherProtocol,
}

fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// Whether the right side of a match, a value or several, has what is wanted.
fn contains(right: &Value, is: &dyn Fn(&Value) -> Option<bool>) -> Option<bool> {
    let several = right.get("set").unwrap_or(right);
    let Some(several) = several.as_array() else { return is(right) };
    let mut found = Some(false);
    for value in several {
        match is(value) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => found = None,
        }
    }
    found
}

/// A name, or the beginning of one; `@name` is a set that is not read.
fn is_text(value: &Value, text: &str) -> Option<bool> {
    let wanted = value.as_str().filter(|wanted| !wanted.starts_with('@'))?;
    Some(wanted.strip_suffix('*').map_or(wanted == text, |start| text.starts_with(start)))
}

fn is_number(value: &Value, number: u64) -> Option<bool> {
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([low, high]) => Some((low.as_u64()?..=high.as_u64()?).contains(&number)),
        _ => value.as_u64().map(|wanted| wanted == number),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BRIDGE: &str = "wft-00000001";

    fn of(hook: &str, policy: &str, rules: &[Value]) -> Ruleset {
        let chain = |name: &str| json!({"rule": {"family": "inet", "table": "filter", "chain": name}});
        let mut all = vec![json!({"metainfo": {}}), json!({"table": {"family": "inet", "name": "filter"}})];
        all.push(json!({"chain": {"family": "inet", "table": "filter", "name": "base", "hook": hook, "policy": policy}}));
        for rule in rules {
            let (name, rule) = match rule.get("in") {
                Some(name) => (name.as_str().unwrap(), &rule["expr"]),
                None => ("base", rule),
            };
            let mut object = chain(name);
            object["rule"]["expr"] = rule.clone();
            all.push(object);
        }
        Ruleset::read(json!({"nftables": all}).to_string().as_bytes()).unwrap()
    }

    fn matching(left: Value, op: &str, right: Value) -> Value {
        json!({"match": {"op": op, "left": left, "right": right}})
    }

    fn meta(key: &str, right: Value) -> Value {
        matching(json!({"meta": {"key": key}}), "==", right)
    }

    fn accept() -> Value {
        json!({"accept": null})
    }

    fn drops_frames(policy: &str, rules: &[Value]) -> bool {
        !of("forward", policy, rules).droppers(Packet::Bridged(BRIDGE)).is_empty()
    }

    fn drops_streams(rules: &[Value]) -> bool {
        !of("input", "drop", rules).droppers(Packet::Arriving("tcp", 6783)).is_empty()
    }

    fn drops_datagrams(rules: &[Value]) -> bool {
        !of("input", "drop", rules).droppers(Packet::Arriving("udp", 6783)).is_empty()
    }

    #[test]
    fn a_policy_drops_what_no_rule_accepts() {
        assert!(drops_frames("drop", &[]) && !drops_frames("accept", &[]));
        let base = Dropper { family: "inet".into(), table: "filter".into(), chain: "base".into() };
        assert_eq!(of("forward", "drop", &[]).droppers(Packet::Bridged(BRIDGE)), [base]);
        assert!(of("input", "drop", &[]).droppers(Packet::Bridged(BRIDGE)).is_empty(), "another hook");
        let ours = json!([meta("iifname", json!("wft-*")), meta("oifname", json!("wft-*")), accept()]);
        assert!(!drops_frames("drop", &[ours]));
        assert!(drops_frames("drop", &[json!([meta("iifname", json!("docker0")), accept()])]));
        let state = matching(json!({"ct": {"key": "state"}}), "in", json!(["established", "related"]));
        assert!(drops_frames("drop", &[json!([state, accept()])]), "the first frame of a connection");
    }

    #[test]
    fn a_rule_may_drop_what_the_policy_accepts() {
        assert!(drops_frames(
            "accept",
            &[json!([{"counter": {"packets": 0, "bytes": 0}}, {"reject": null}])]
        ));
        assert!(!drops_frames("accept", &[json!([meta("iifname", json!("eth0")), {"drop": null}])]));
        let to = json!([meta("oifname", json!({"set": ["a", BRIDGE]})), {"jump": {"target": "sub"}}]);
        assert!(drops_frames("accept", &[to.clone(), json!({"in": "sub", "expr": [{"drop": null}]})]));
        assert!(!drops_frames("drop", &[to, json!({"in": "sub", "expr": [accept()]})]));
    }

    #[test]
    fn what_is_not_known_leaves_it_open() {
        let source =
            matching(json!({"payload": {"protocol": "ip", "field": "saddr"}}), "==", json!("10.0.0.1"));
        assert!(!drops_frames("drop", &[json!([source.clone(), accept()])]));
        assert!(!drops_frames("accept", &[json!([source, {"drop": null}])]));
        assert!(!drops_frames("drop", &[json!([{"xt": {"type": "match", "name": "set"}}, accept()])]));
        assert!(!drops_frames(
            "drop",
            &[json!([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@zones"}}])]
        ));
        assert!(!drops_frames("drop", &[json!([meta("iifname", json!("@mine")), accept()])]));
        let circle = json!([{"jump": {"target": "base"}}]);
        assert!(!drops_frames("drop", &[circle]), "it ends");
    }

    #[test]
    fn the_port_is_open_or_not() {
        let port =
            |right: Value| matching(json!({"payload": {"protocol": "udp", "field": "dport"}}), "==", right);
        let ssh = matching(json!({"payload": {"protocol": "tcp", "field": "dport"}}), "==", json!(22));
        assert!(drops_datagrams(&[json!([ssh, accept()]), json!([meta("iifname", json!("lo")), accept()])]));
        assert!(drops_datagrams(&[json!([port(json!(53)), accept()])]));
        assert!(!drops_datagrams(&[json!([port(json!(6783)), accept()])]));
        assert!(!drops_datagrams(&[json!([port(json!({"set": [53, {"range": [6000, 7000]}]})), accept()])]));
        assert!(!drops_datagrams(&[json!([meta("l4proto", json!({"set": ["tcp", "udp"]})), accept()])]));
        assert!(!drops_datagrams(&[json!([meta("iifname", json!("eth0")), accept()])]), "it may come there");
        assert!(drops_streams(&[json!([port(json!(6783)), accept()])]), "UDP alone");
        let tcp =
            |right: Value| matching(json!({"payload": {"protocol": "tcp", "field": "dport"}}), "==", right);
        assert!(!drops_streams(&[json!([tcp(json!(6783)), accept()])]));
        assert!(drops_datagrams(&[json!([tcp(json!(6783)), accept()])]), "TCP alone");
        let flags = matching(json!({"payload": {"protocol": "tcp", "field": "flags"}}), "==", json!("syn"));
        assert!(!drops_streams(&[json!([flags, accept()])]), "it may be so");
        let either = matching(json!({"payload": {"protocol": "th", "field": "dport"}}), "==", json!(6783));
        let both = json!([meta("l4proto", json!({"set": ["tcp", "udp"]})), either, accept()]);
        let rules = [both];
        assert!(!drops_streams(&rules) && !drops_datagrams(&rules));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Ruleset::read(&bytes);
        }

        #[test]
        fn any_rules_are_walked_without_panic(rules in prop::collection::vec(statement(), 0..12)) {
            for hook in ["forward", "input"] {
                let ruleset = of(hook, "drop", &rules.chunks(3).map(|rule| json!(rule)).collect::<Vec<_>>());
                let _ = ruleset.droppers(Packet::Bridged(BRIDGE));
                let _ = ruleset.droppers(Packet::Arriving("tcp", 6783));
            }
        }
    }

    fn statement() -> impl Strategy<Value = Value> {
        let key = prop::sample::select(vec!["iifname", "oif", "ibrname", "l4proto", "mark"]);
        let right = prop_oneof![
            Just(json!("lo")),
            Just(json!(6783)),
            Just(json!({"set": ["a", null, {"range": [1]}]})),
            Just(Value::Null),
        ];
        let matching = (key, right).prop_map(|(key, right)| meta(key, right));
        let plain = prop::sample::select(vec![
            accept(),
            json!({"drop": null}),
            json!({"jump": {"target": "base"}}),
            json!({"goto": 5}),
            json!({"return": null}),
            json!({"vmap": {}}),
            json!({"match": {}}),
            json!(7),
        ]);
        prop_oneof![matching, plain]
    }
}
