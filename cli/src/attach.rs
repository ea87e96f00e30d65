//! `weft attach`, `detach`, `expose` and `hide`.

use std::process::ExitCode;

use weft_api::request::{Attach, Detach, Whom};
use weft_client::Admin;

use crate::show::join;
use crate::{Done, args};

pub async fn attach(admin: &Admin, args: args::Attach) -> Done {
    put(admin, whom(args.what.container, args.what.pid)?, args.network, args.ip).await
}

pub async fn expose(admin: &Admin, args: args::Expose) -> Done {
    put(admin, Whom::Host, args.network, args.ip).await
}

pub async fn detach(admin: &Admin, args: args::Detach) -> Done {
    let whom = whom(args.what.container, args.what.pid)?;
    admin.detach(&Detach { whom, network: args.network.clone() }).await?;
    println!("{}", args.network);
    Ok(ExitCode::SUCCESS)
}

pub async fn hide(admin: &Admin, network: String) -> Done {
    admin.detach(&Detach { whom: Whom::Host, network: network.clone() }).await?;
    println!("{network}");
    Ok(ExitCode::SUCCESS)
}

async fn put(admin: &Admin, whom: Whom, network: String, addresses: Vec<std::net::IpAddr>) -> Done {
    let made = admin.attach(&Attach { whom, network, addresses }).await?;
    println!("  {}  {}  {}", made.network, join(&made.addresses), made.container);
    Ok(ExitCode::SUCCESS)
}

fn whom(container: Option<String>, pid: Option<u32>) -> anyhow::Result<Whom> {
    let named = container.map(Whom::Container).or(pid.map(Whom::Pid));
    named.ok_or_else(|| {
        anyhow::anyhow!("say what to attach: a container, or --pid and the number of a process")
    })
}
