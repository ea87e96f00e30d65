//! `weft leave`: out of the mesh, and off this machine.

use std::process::ExitCode;

use weft_agent::state::{StateDir, StateError};
use weft_agent::{Config, leave as agent_leave, service, setup};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::request::Leave;
use weft_client::Admin;

use crate::Done;

pub async fn leave(state: &StateDir, admin: &Admin, force: bool) -> Done {
    setup::check_machine()?;
    if state.is_empty() {
        return Err(StateError::NoMesh(state.path().to_owned()).into());
    }
    let mut remarks = match state.lock() {
        Err(StateError::InUse(_)) => admin.leave(&Leave { force }).await?,
        lock => {
            let lock = lock?;
            let remarks = offline(state, force).await?;
            drop(lock);
            remarks
        }
    };
    if service::installed()
        && let Err(e) = service::remove().await
    {
        remarks.push(e.to_string());
    }
    println!("  This host has left its mesh.");
    for remark in remarks {
        println!("  {remark}.");
    }
    Ok(ExitCode::SUCCESS)
}

async fn offline(state: &StateDir, force: bool) -> Result<Vec<String>, ApiError> {
    let plugin = Config::new(state.clone()).plugin;
    if !service::installed() {
        return agent_leave::offline(state, plugin, force).await;
    }
    // Docker would wait for a socket of systemd's behind which nobody is.
    let stopped = service::stop().await;
    stopped.map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))?;
    let left = agent_leave::offline(state, plugin, force).await;
    if left.is_err() {
        let _the_refusal_says_more = service::listen().await;
    }
    left
}
