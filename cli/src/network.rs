//! `weft network`: made once, known on every host.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weft_api::report::{Network, NetworkState};
use weft_api::request::CreateNetwork;
use weft_client::Admin;

use crate::show::{join, print};
use crate::table::Columns;
use crate::{Done, args};

/// A network is known on every reachable host within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

pub async fn create(admin: &Admin, args: args::CreateNetwork) -> Done {
    let wish = CreateNetwork {
        name: args.name,
        subnets: args.subnet,
        ipv6: args.ipv6,
        mtu: args.mtu,
        internal: args.internal,
        ..CreateNetwork::default()
    };
    let made = admin.create_network(&wish).await?;
    let (network, missing) = until_known(admin, &made.name).await?;
    println!("  {}  {}  {}", made.name, ranges(&network), network.hosts.join(" "));
    if !missing.is_empty() {
        println!("  Not there yet: {} (weft network inspect {})", missing.join(" "), made.name);
    }
    if let Some(problem) = &network.problem {
        println!("  Not usable on this host: {problem}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The network once every reachable host has it, or when time is up; and who does not have it then.
async fn until_known(admin: &Admin, name: &str) -> anyhow::Result<(Network, Vec<String>)> {
    let limit = Instant::now() + PATIENCE;
    loop {
        // The decision may be on its way back from the host that decided.
        match admin.network(name).await {
            Ok(network) => {
                let hosts = admin.hosts().await?;
                let missing: Vec<String> = hosts
                    .into_iter()
                    .filter(|host| host.reachable && !network.hosts.contains(&host.name))
                    .map(|host| host.name)
                    .collect();
                if missing.is_empty() || network.problem.is_some() || Instant::now() >= limit {
                    return Ok((network, missing));
                }
            }
            Err(e) if Instant::now() >= limit => return Err(e.into()),
            Err(_) => {}
        }
        sleep(LOOK).await;
    }
}

pub async fn list(admin: &Admin, as_json: bool) -> Done {
    let networks = admin.networks().await?;
    print(as_json, &networks, network_table)
}

pub async fn inspect(admin: &Admin, name: &str, as_json: bool) -> Done {
    let network = admin.network(name).await?;
    print(as_json, &network, details)
}

pub async fn attach(admin: &Admin, name: &str) -> Done {
    admin.attach_network(name).await?;
    println!("{name}");
    Ok(ExitCode::SUCCESS)
}

pub async fn detach(admin: &Admin, name: &str) -> Done {
    admin.detach_network(name).await?;
    println!("{name}");
    Ok(ExitCode::SUCCESS)
}

pub async fn remove(admin: &Admin, names: &[String]) -> Done {
    for name in names {
        admin.remove_network(name).await?;
        println!("{name}");
    }
    Ok(ExitCode::SUCCESS)
}

fn network_table(networks: &Vec<Network>) -> String {
    let mut table = Columns::new(["NAME", "ID", "SUBNET", "MTU", "CONTAINERS", "HOSTS", "STATE"]);
    for network in networks {
        table.row([
            network.name.clone(),
            network.id.to_string(),
            ranges(network),
            network.mtu.to_string(),
            network.endpoints.to_string(),
            network.hosts.join(" "),
            state(network),
        ]);
    }
    table.text()
}

/// On this host.
fn state(network: &Network) -> String {
    let word = match network.state {
        NetworkState::Here => "here",
        NetworkState::Detached => return format!("detached (weft network attach {})", network.name),
        NetworkState::Conflict => "conflict",
        NetworkState::Problem => "problem",
    };
    network.problem.as_ref().map_or_else(|| word.to_owned(), |why| format!("{word}: {why}"))
}

fn details(network: &Network) -> String {
    let mut text = format!("{}  {}\n", network.name, network.id);
    for subnet in &network.subnets {
        text.push_str(&format!(
            "  Range:       {}  (gateway {} on every host)\n",
            subnet.range, subnet.gateway
        ));
    }
    let way_out = if network.internal { "none (internal)" } else { "through each host" };
    for (label, value) in [
        ("MTU", network.mtu.to_string()),
        ("Way out", way_out.into()),
        ("Containers", network.endpoints.to_string()),
        ("Hosts", network.hosts.join(" ")),
    ] {
        text.push_str(&format!("  {:<12} {value}\n", format!("{label}:")));
    }
    if network.state == NetworkState::Detached {
        text.push_str(&format!("  Not on this host: weft network attach {}\n", network.name));
    }
    if let Some(problem) = &network.problem {
        text.push_str(&format!("  Problem:     {problem}\n"));
    }
    if !network.blocks.is_empty() {
        let mut table = Columns::new(["BLOCK", "HOST", "IN USE"]);
        for block in &network.blocks {
            table.row([block.range.to_string(), block.host.clone(), block.used.to_string()]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    if !network.leases.is_empty() {
        let mut table = Columns::new(["LEASED", "HOST", "IN USE"]);
        for lease in &network.leases {
            let used = if lease.used { "yes" } else { "no" };
            table.row([lease.address.to_string(), lease.host.clone(), used.into()]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    text
}

fn ranges(network: &Network) -> String {
    let ranges: Vec<_> = network.subnets.iter().map(|subnet| subnet.range).collect();
    join(&ranges)
}

#[cfg(test)]
mod tests {
    use weft_api::id::NetworkId;
    use weft_api::network::Subnet;
    use weft_api::report::{Block, Lease};

    use super::*;

    fn app() -> Network {
        Network {
            name: "app".into(),
            id: NetworkId(0x2a),
            subnets: vec![Subnet {
                range: "10.32.0.0/16".parse().unwrap(),
                gateway: "10.32.0.1".parse().unwrap(),
            }],
            mtu: 1340,
            internal: false,
            hosts: vec!["h1".into(), "h2".into()],
            endpoints: 2,
            blocks: vec![Block { range: "10.32.0.0/26".parse().unwrap(), host: "h1".into(), used: 2 }],
            leases: vec![Lease { address: "10.32.0.7".parse().unwrap(), host: "h2".into(), used: true }],
            state: NetworkState::Here,
            problem: None,
        }
    }

    #[test]
    fn a_list() {
        assert_eq!(
            network_table(&vec![app()]),
            "NAME   ID         SUBNET         MTU    CONTAINERS   HOSTS   STATE\n\
             app    0000002a   10.32.0.0/16   1340   2            h1 h2   here\n"
        );
    }

    #[test]
    fn one_in_full() {
        assert_eq!(
            details(&app()),
            "app  0000002a\n\
             \x20 Range:       10.32.0.0/16  (gateway 10.32.0.1 on every host)\n\
             \x20 MTU:         1340\n\
             \x20 Way out:     through each host\n\
             \x20 Containers:  2\n\
             \x20 Hosts:       h1 h2\n\
             \n\
             BLOCK          HOST   IN USE\n\
             10.32.0.0/26   h1     2\n\
             \n\
             LEASED      HOST   IN USE\n\
             10.32.0.7   h2     yes\n"
        );
    }
}
