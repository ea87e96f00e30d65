//! What is: the verdict, the hosts, the links, the containers.

use std::process::ExitCode;

use serde::Serialize;
use weft_api::report::{Endpoint, Host, Link, LinkState, Status, Step, Trace};
use weft_client::Admin;

use crate::Done;
use crate::table::{Columns, bytes, counts, span};

pub async fn status(admin: &Admin, as_json: bool) -> Done {
    let status = admin.status().await?;
    if as_json {
        print_json(&status)?;
    } else {
        print!("{}", verdict(&status));
    }
    Ok(if status.degraded() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub async fn hosts(admin: &Admin, as_json: bool) -> Done {
    let hosts = admin.hosts().await?;
    print(as_json, &hosts, host_table)
}

pub async fn links(admin: &Admin, as_json: bool) -> Done {
    let links = admin.links().await?;
    print(as_json, &links, link_table)
}

pub async fn endpoints(admin: &Admin, as_json: bool) -> Done {
    let endpoints = admin.endpoints().await?;
    print(as_json, &endpoints, endpoint_table)
}

pub async fn trace(admin: &Admin, to: &str, as_json: bool) -> Done {
    let trace = admin.trace(to).await?;
    print(as_json, &trace, way)?;
    Ok(if trace.arrives { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a noun as JSON or as text.
pub fn print<T: Serialize + ?Sized>(as_json: bool, noun: &T, text: impl FnOnce(&T) -> String) -> Done {
    if as_json {
        print_json(noun)?;
    } else {
        print!("{}", text(noun));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json<T: Serialize + ?Sized>(noun: &T) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(noun)?);
    Ok(())
}

/// The first line is the verdict; under it a sentence for everything that is wrong.
pub fn verdict(status: &Status) -> String {
    let word = |part: &weft_api::report::Part| if part.ok { "ok" } else { "not ok" };
    let hosts = if status.hosts == 1 { "host" } else { "hosts" };
    let mut text = format!(
        "{}: {} {hosts}, {} reachable.  Docker {}.  Firewall {}.  Offloads: {}.\n",
        status.mesh,
        status.hosts,
        status.reachable,
        word(&status.docker),
        word(&status.firewall),
        status.offloads.text
    );
    if !status.unreachable.is_empty() {
        text.push_str(&format!(
            "  Unreachable: {}. See weft links; containers there may run on.\n",
            status.unreachable.join(", ")
        ));
    }
    for part in [&status.docker, &status.firewall, &status.controller].into_iter().filter(|part| !part.ok) {
        text.push_str(&format!("  {}.\n", part.text));
    }
    for problem in &status.problems {
        text.push_str(&format!("  {problem}.\n"));
    }
    text
}

fn host_table(hosts: &Vec<Host>) -> String {
    let mut table = Columns::new(["NAME", "ID", "STATE", "ROLE", "CONTAINERS", "VERSION", "ADDRESSES"]);
    for host in hosts {
        let state = match (host.this, host.reachable, &host.through) {
            (true, ..) => "this host".to_owned(),
            (false, true, None) => "reachable".to_owned(),
            (false, true, Some(through)) => format!("through {through}"),
            (false, false, _) => "unreachable".to_owned(),
        };
        let role = match host {
            Host { founder: true, .. } => "founder",
            Host { controller: true, .. } => "controller",
            Host { signer: true, .. } => "signer",
            _ => "member",
        };
        table.row([
            host.name.clone(),
            host.id.to_string(),
            state,
            role.into(),
            host.endpoints.to_string(),
            host.version.clone().unwrap_or_default(),
            join(&host.addresses),
        ]);
    }
    table.text()
}

fn link_table(links: &Vec<Link>) -> String {
    let mut table = Columns::new([
        "HOST", "STATE", "ADDRESS", "VIA", "RTT", "LOSS", "MTU", "CIPHER", "KEY AGE", "SENT", "RECEIVED",
        "DROPS",
    ]);
    for link in links {
        let state = match link.state {
            LinkState::Up => "up",
            LinkState::Connecting => "connecting",
            LinkState::Down => "down",
        };
        table.row([
            link.host.clone(),
            state.into(),
            link.address.map(|a| a.to_string()).unwrap_or_default(),
            link.transport.clone(),
            link.rtt_ms.map(milliseconds).unwrap_or_default(),
            format!("{:.0} %", link.loss * 100.0),
            link.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            link.cipher.map(|cipher| cipher.to_string()).unwrap_or_default(),
            link.key_age.map(span).unwrap_or_default(),
            bytes(link.sent_bytes),
            bytes(link.received_bytes),
            counts(&link.drops),
        ]);
    }
    table.text()
}

/// A step a line, and what it follows from under it.
fn way(trace: &Trace) -> String {
    let step = |(n, step): (usize, &Step)| format!("{}. {}\n   ({})\n", n + 1, step.says, step.because);
    let mut text: String = trace.steps.iter().enumerate().map(step).collect();
    if !trace.arrives {
        text.push_str("It does not arrive.\n");
    }
    text
}

fn endpoint_table(endpoints: &Vec<Endpoint>) -> String {
    let mut table = Columns::new(["CONTAINER", "NETWORK", "IP", "PINNED", "MAC", "HOST"]);
    for endpoint in endpoints {
        let host = if endpoint.reachable {
            endpoint.host.clone()
        } else {
            format!("{} (unreachable)", endpoint.host)
        };
        table.row([
            endpoint.container.clone(),
            endpoint.network.clone(),
            join(&endpoint.addresses),
            if endpoint.pinned { "yes" } else { "no" }.into(),
            endpoint.mac.to_string(),
            host,
        ]);
    }
    table.text()
}

/// Two digits that mean something.
pub fn milliseconds(rtt: f64) -> String {
    if rtt < 10.0 { format!("{rtt:.1} ms") } else { format!("{rtt:.0} ms") }
}

/// Values in one cell.
pub fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weft_api::id::{HostId, Mac};
    use weft_api::report::Part;
    use weft_api::roster::Cipher;

    use super::*;

    fn good() -> Part {
        Part { ok: true, text: "ok".into() }
    }

    fn well() -> Status {
        Status {
            mesh: "quiet-fox".into(),
            host: "h1".into(),
            id: HostId([1; 8]),
            founder: true,
            version: "0.1.0".into(),
            hosts: 2,
            reachable: 2,
            unreachable: Vec::new(),
            docker: good(),
            firewall: good(),
            offloads: Part { ok: true, text: "all".into() },
            controller: good(),
            problems: Vec::new(),
            drops: BTreeMap::new(),
            uptime: 5,
        }
    }

    #[test]
    fn the_verdict_is_the_first_line() {
        assert_eq!(
            verdict(&well()),
            "quiet-fox: 2 hosts, 2 reachable.  Docker ok.  Firewall ok.  Offloads: all.\n"
        );
    }

    #[test]
    fn everything_wrong_is_a_line() {
        let mut status = well();
        status.reachable = 1;
        status.unreachable = vec!["h2".into()];
        status.docker =
            Part { ok: false, text: "Docker does not answer: start it, weft waits for it".into() };
        status.offloads = Part { ok: false, text: "without USO4, USO6".into() };
        status.problems = vec!["network app: the name is taken".into()];
        assert!(status.degraded());
        assert_eq!(
            verdict(&status),
            "quiet-fox: 2 hosts, 1 reachable.  Docker not ok.  Firewall ok.  Offloads: without USO4, USO6.\n\
             \x20 Unreachable: h2. See weft links; containers there may run on.\n\
             \x20 Docker does not answer: start it, weft waits for it.\n\
             \x20 network app: the name is taken.\n"
        );
    }

    #[test]
    fn lists_are_tables() {
        let host = |name: &str, this| Host {
            name: name.into(),
            id: HostId([0x1f; 8]),
            this,
            founder: this,
            controller: this,
            signer: this,
            reachable: this,
            through: None,
            addresses: vec!["192.0.2.1:6783".parse().unwrap()],
            endpoints: 3,
            version: this.then(|| "0.1.0".into()),
        };
        assert_eq!(
            host_table(&vec![host("h1", true), host("h2", false)]),
            "NAME   ID                 STATE         ROLE      CONTAINERS   VERSION   ADDRESSES\n\
             h1     1f1f1f1f1f1f1f1f   this host     founder   3            0.1.0     192.0.2.1:6783\n\
             h2     1f1f1f1f1f1f1f1f   unreachable   member    3            -         192.0.2.1:6783\n"
        );
        let link = Link {
            host: "h2".into(),
            id: HostId([2; 8]),
            state: LinkState::Up,
            transport: "UDP".into(),
            address: Some("192.0.2.2:6783".parse().unwrap()),
            rtt_ms: Some(0.42),
            loss: 0.0,
            mtu: Some(1472),
            cipher: Some(Cipher::Aegis128L),
            key_age: Some(75),
            sent_bytes: 1_200_000,
            received_bytes: 800,
            drops: BTreeMap::from([("replayed".into(), 2)]),
        };
        assert_eq!(
            link_table(&vec![link]),
            "HOST   STATE   ADDRESS          VIA   RTT      LOSS   MTU    CIPHER       KEY AGE   SENT     RECEIVED   DROPS\n\
             h2     up      192.0.2.2:6783   UDP   0.4 ms   0 %    1472   aegis-128l   1 min     1.2 MB   800 B      replayed 2\n"
        );
        let endpoint = Endpoint {
            container: "web".into(),
            network: "app".into(),
            addresses: vec!["10.32.0.2".parse().unwrap()],
            mac: Mac([2, 0x42, 10, 32, 0, 2]),
            host: "h1".into(),
            reachable: false,
            pinned: true,
        };
        assert_eq!(
            endpoint_table(&vec![endpoint]),
            "CONTAINER   NETWORK   IP          PINNED   MAC                 HOST\n\
             web         app       10.32.0.2   yes      02:42:0a:20:00:02   h1 (unreachable)\n"
        );
    }
}
