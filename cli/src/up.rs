//! `weft up`: the daemon in the foreground. Its log says when something changes, never what passes, and never a secret.

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use weft_agent::state::{StateDir, StateError};
use weft_agent::{Config, run, setup};
use weft_client::Admin;

use crate::args::Up;
use crate::show::verdict;
use crate::{Done, compose};

/// The variable that says how much is logged, such as `debug` or `weft_router_io=debug`.
const LOG: &str = "WEFT_LOG";

pub async fn up(state: StateDir, admin: &Admin, args: Up) -> Done {
    setup::check_machine()?;
    let mut identity = state.member()?;
    let lock = match state.lock() {
        Ok(lock) => lock,
        Err(StateError::InUse(_)) if admin.answers().await => {
            print!("{}", verdict(&admin.status().await?));
            return Ok(ExitCode::SUCCESS);
        }
        Err(e) => return Err(e.into()),
    };
    if args.port.is_some() || !args.advertise.is_empty() {
        identity.port = args.port.unwrap_or(identity.port);
        if !args.advertise.is_empty() {
            identity.advertise = args.advertise;
        }
        state.enrol(&identity)?;
    }
    start_log();
    let controller = compose::controller(&state, &identity)?;
    let mut config = Config::new(state);
    config.lanes = args.lanes.map_or(config.lanes, usize::from);
    run(config, identity, lock, controller).await?;
    Ok(ExitCode::SUCCESS)
}

fn start_log() {
    let quiet = "info,quinn=warn,quinn_proto=warn,rustls=warn,hyper=warn,bollard=warn,netlink_proto=error";
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new(quiet));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
