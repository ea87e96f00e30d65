//! `weft join`: the token says which mesh, the member that is asked proves that it belongs to it.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use weft_agent::setup::{self, Choices};
use weft_agent::state::{StateDir, StateError};
use weft_api::token::Token;
use weft_client::Admin;

use crate::Done;
use crate::args::Join;
use crate::compose::{docker_line, start};
use crate::show::{milliseconds, verdict};

/// Standard input may hold this much around a token.
const MAX_INPUT: u64 = 4096;

pub async fn join(state: &StateDir, admin: &Admin, args: Join) -> Done {
    setup::check_machine()?;
    let token = Token::parse(&text_of(args.token)?)?;
    if let Some(identity) = setup::place_in(state, token.mesh)? {
        println!("  This host is in \"{}\" already, as {}.", identity.mesh.name, identity.host);
        if let Ok(status) = admin.status().await {
            print!("{}", verdict(&status));
        } else {
            println!("{}", start(state, admin, args.no_start).await);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let docker = setup::docker_version().await?;
    let lock = match state.lock() {
        Err(StateError::InUse(dir)) => {
            anyhow::bail!("{} is in use by another weft: is weft join running already?", dir.display())
        }
        lock => lock?,
    };
    let choices = Choices { name: args.name, port: args.port, advertise: args.advertise };
    let joined = setup::join(state, args.address, &token, choices).await?;
    drop(lock);
    println!(
        "  Mesh key matches the token. Joined \"{}\" as {}.  Link to {}: {}, {}.",
        joined.identity.mesh.name,
        joined.identity.host,
        joined.member,
        joined.transport,
        milliseconds(joined.rtt.as_secs_f64() * 1000.0)
    );
    println!("{}", docker_line(&docker));
    println!("{}", start(state, admin, args.no_start).await);
    Ok(ExitCode::SUCCESS)
}

fn text_of(token: String) -> anyhow::Result<String> {
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_INPUT)
        .read_to_string(&mut text)
        .context("the token cannot be read from standard input")?;
    Ok(text)
}
