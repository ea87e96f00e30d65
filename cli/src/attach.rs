//! `weft attach`, `detach`, `expose` and `hide`.

use std::process::ExitCode;

use weft_api::request::{Attach, Detach, Whom};
use weft_client::Admin;

use crate::show::join;
use crate::{Done, args};

pub async fn attach(admin: &Admin, args: args::Attach) -> Done {
    let (whom, network) = named(args.what);
    put(admin, whom, network, args.ip).await
}

pub async fn expose(admin: &Admin, args: args::Expose) -> Done {
    put(admin, Whom::Host, args.network, args.ip).await
}

pub async fn detach(admin: &Admin, args: args::Detach) -> Done {
    let (whom, network) = named(args.what);
    admin.detach(&Detach { whom, network: network.clone() }).await?;
    println!("{network}");
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

/// Ends the process as clap does if the names make no sense.
fn named(what: args::What) -> (Whom, String) {
    what.read().unwrap_or_else(|e| e.exit())
}
