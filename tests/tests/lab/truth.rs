//! What weft believes, what Docker believes and what the kernel has: three lists of the same containers, which must be equal.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_api::id::NetworkId;
use weft_lab::{Host, Lab, Output};

/// A container on a network of the mesh: who, where, with what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    pub host: String,
    pub container: String,
    pub network: String,
    pub addresses: BTreeSet<String>,
    pub mac: String,
}

/// The first thing in which the three differ, on any host; none if they are equal.
pub fn difference(lab: &Lab) -> Option<String> {
    lab.hosts().iter().find_map(|host| differs(lab, host).err())
}

fn differs(lab: &Lab, host: &Host) -> Result<(), String> {
    let name = host.name();
    let networks = json(&host.exec(["weft", "network", "ls", "--json"]))?;
    let networks: Vec<(String, String)> =
        array(&networks).iter().map(|n| (text(&n["name"]), text(&n["id"]))).collect();
    equal(
        &format!("{name}: Docker's networks and the mesh's"),
        &lines(&host.exec(["docker", "network", "ls", "--filter", "driver=weft", "--format", "{{.Name}}"]))?,
        &networks.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
    )?;
    let (docker, endpoints) = docker_says(host, &networks)?;
    let believed = weft_says(host)?;
    let here: Vec<Row> = believed.iter().filter(|row| row.host == name).cloned().collect();
    equal(&format!("{name}: weft ps and docker inspect"), &here, &docker)?;
    for other in lab.hosts() {
        equal(&format!("weft ps on {name} and on {}", other.name()), &believed, &weft_says(other)?)?;
    }
    if let Some(twin) = believed.iter().find(|a| {
        believed.iter().any(|b| {
            *a != b && a.network == b.network && (a.mac == b.mac || !a.addresses.is_disjoint(&b.addresses))
        })
    }) {
        return Err(format!("given twice: {twin:?}"));
    }
    let ids = networks.iter().map(|(_, id)| id.as_str());
    equal(&format!("{name}: Docker and the kernel"), &kernel_has(host)?, &wanted_links(ids, &endpoints)?)
}

/// `weft ps`, of all hosts.
pub fn weft_says(host: &Host) -> Result<Vec<Row>, String> {
    let all = json(&host.exec(["weft", "ps", "--json"]))?;
    let mut rows: Vec<Row> = array(&all)
        .iter()
        .map(|e| Row {
            host: text(&e["host"]),
            container: text(&e["container"]),
            network: text(&e["network"]),
            addresses: array(&e["addresses"]).iter().map(text).collect(),
            mac: text(&e["mac"]),
        })
        .collect();
    rows.sort();
    Ok(rows)
}

/// An endpoint: its id, its MAC, its network's id.
type Endpoint = (String, String, String);

fn docker_says(host: &Host, networks: &[(String, String)]) -> Result<(Vec<Row>, Vec<Endpoint>), String> {
    let running = lines(&host.exec(["docker", "ps", "-q"]))?;
    let (mut rows, mut endpoints) = (Vec::new(), Vec::new());
    if running.is_empty() {
        return Ok((rows, endpoints));
    }
    let inspect = ["docker", "inspect"].into_iter().chain(running.iter().map(String::as_str));
    let inspected = json(&host.exec(inspect))?;
    for container in array(&inspected) {
        let at = container["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
        for (network, at) in at {
            let Some((_, id)) = networks.iter().find(|(name, _)| name == network) else { continue };
            let addresses = [&at["IPAddress"], &at["GlobalIPv6Address"]].map(text);
            rows.push(Row {
                host: host.name().to_owned(),
                container: text(&container["Name"]).trim_start_matches('/').to_owned(),
                network: network.clone(),
                addresses: addresses.into_iter().filter(|a| !a.is_empty()).collect(),
                mac: text(&at["MacAddress"]),
            });
            endpoints.push((text(&at["EndpointID"]), text(&at["MacAddress"]), id.clone()));
        }
    }
    rows.sort();
    Ok((rows, endpoints))
}

/// Bridges, taps, and each veth with its bridge and its static entry, in words that can be compared.
fn wanted_links<'a>(
    networks: impl Iterator<Item = &'a str>,
    endpoints: &[Endpoint],
) -> Result<Vec<String>, String> {
    let read = |id: &str| id.parse::<NetworkId>().map_err(|e| format!("network id {id}: {e}"));
    let mut wanted = Vec::new();
    for id in networks {
        let id = read(id)?;
        wanted.push(format!("{} -", id.bridge_name()));
        wanted.push(format!("{} {}", id.tap_name(), id.bridge_name()));
    }
    for (endpoint, mac, network) in endpoints {
        let veth = format!("wve{:.12}", endpoint);
        wanted.push(format!("{veth} {}", read(network)?.bridge_name()));
        wanted.push(format!("{veth} knows {mac}"));
    }
    wanted.sort();
    Ok(wanted)
}

fn kernel_has(host: &Host) -> Result<Vec<String>, String> {
    let ours = |name: &str| ["wft-", "wtp-", "wve", "wvc"].iter().any(|begin| name.starts_with(begin));
    let links = json(&host.exec(["ip", "-j", "link"]))?;
    let mut has: Vec<String> = array(&links)
        .iter()
        .map(|link| (text(&link["ifname"]), link["master"].as_str().unwrap_or("-")))
        .filter(|(name, _)| ours(name))
        .map(|(name, master)| format!("{name} {master}"))
        .collect();
    let entries = json(&host.exec(["bridge", "-j", "fdb", "show"]))?;
    for entry in array(&entries) {
        let (port, state) = (text(&entry["ifname"]), text(&entry["state"]));
        if port.starts_with("wve") && state == "static" && entry["master"].is_string() {
            has.push(format!("{port} knows {}", text(&entry["mac"])));
        }
    }
    has.sort();
    Ok(has)
}

fn equal<T: Ord + Clone + std::fmt::Debug>(what: &str, left: &[T], right: &[T]) -> Result<(), String> {
    let sorted = |list: &[T]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let (left, right) = (sorted(left), sorted(right));
    if left == right {
        return Ok(());
    }
    let only = |a: &[T], b: &[T]| a.iter().filter(|x| !b.contains(x)).cloned().collect::<Vec<_>>();
    Err(format!(
        "{what}: only the first has {:?}, only the second {:?} (of {} and {})",
        only(&left, &right),
        only(&right, &left),
        left.len(),
        right.len()
    ))
}

fn json(out: &Output) -> Result<Value, String> {
    if !out.ok() {
        return Err(out.to_string());
    }
    serde_json::from_str(&out.stdout).map_err(|e| format!("{e}: {}", out.stdout))
}

fn lines(out: &Output) -> Result<Vec<String>, String> {
    if !out.ok() {
        return Err(out.to_string());
    }
    Ok(out.stdout.lines().map(str::to_owned).collect())
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
