//! `weft up`: the daemon in the foreground. Its log says when something changes, never what passes, and never a secret.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use weft_agent::state::{Lock, StateDir, StateError};
use weft_agent::{Config, run, setup};
use weft_api::report::Status;
use weft_client::Admin;

use crate::args::Up;
use crate::show::verdict;
use crate::{Done, compose};

/// The variable that says how much is logged, such as `debug` or `weft_router_io=debug`.
const LOG: &str = "WEFT_LOG";

/// Another daemon that neither answers nor ends is waited for so long.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks at it.
const AGAIN: Duration = Duration::from_millis(50);

pub async fn up(state: StateDir, admin: &Admin, args: Up) -> Done {
    setup::check_machine()?;
    let mut identity = state.member()?;
    let lock = match first(&state, admin).await? {
        First::Us(lock) => lock,
        First::Another(status) => {
            print!("{}", verdict(&status));
            return Ok(ExitCode::SUCCESS);
        }
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
    config.full_mesh = args.full_mesh;
    run(config, identity, lock, controller).await?;
    Ok(ExitCode::SUCCESS)
}

/// Who runs here.
enum First {
    Us(Lock),
    Another(Box<Status>),
}

/// A daemon that has just died can hold its lock, and even its sockets, a moment longer: by a program that it was starting, and
/// that has not closed what it inherited.
async fn first(state: &StateDir, admin: &Admin) -> Result<First, StateError> {
    let limit = Instant::now() + PATIENCE;
    loop {
        let in_use = match state.lock() {
            Ok(lock) => return Ok(First::Us(lock)),
            Err(e @ StateError::InUse(_)) => e,
            Err(e) => return Err(e),
        };
        if let Ok(status) = admin.status().await {
            return Ok(First::Another(Box::new(status)));
        }
        if Instant::now() >= limit {
            return Err(in_use);
        }
        tokio::time::sleep(AGAIN).await;
    }
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
