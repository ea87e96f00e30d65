//! Containers that should run by their restart policy, and do not because Docker could not connect them: it waits 15 s for a
//! plugin that is away, and then starts the container never again.

use std::collections::HashMap;

use bollard::errors::Error as BollardError;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, RestartPolicyNameEnum};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, StartContainerOptions,
};

use crate::Engine;
use crate::error::EngineError;

/// Ended containers that one look inspects, the youngest; the rest waits until these run or are gone.
const MAX_LOOKED_AT: usize = 256;

/// What Docker writes down when the driver of a network, or of its addresses, was away or said no.
const OF_THE_DRIVER: [&str; 5] =
    ["plugin \"weft\"", "weft.sock", "remote: ", "NetworkDriver.", "IpamDriver."];

/// A container that Docker has given up on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stranded {
    /// Docker's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Docker's ids of all its networks.
    pub networks: Vec<String>,
    /// Why Docker could not start it, in Docker's words.
    pub why: String,
}

impl Engine {
    /// The containers of these networks (Docker's ids) that are stranded.
    pub async fn stranded(&self, networks: &[String]) -> Result<Vec<Stranded>, EngineError> {
        if networks.is_empty() {
            return Ok(Vec::new());
        }
        let networks = networks.iter().map(String::as_str).collect();
        let filters = HashMap::from([("network", networks), ("status", vec!["exited"])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let ended =
            self.docker.list_containers(Some(options)).await.map_err(self.wrong("list containers"))?;
        let mut stranded = Vec::new();
        for id in ended.into_iter().filter_map(|c| c.id).take(MAX_LOOKED_AT) {
            match self.docker.inspect_container(&id, None::<InspectContainerOptions>).await {
                Ok(found) => stranded.extend(read(found)),
                Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(e) => return Err(self.wrong("show a container")(e)),
            }
        }
        Ok(stranded)
    }

    /// Starts a container; one that runs already, or is gone, is no error.
    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        match self.docker.start_container(id, None::<StartContainerOptions>).await {
            Ok(()) | Err(BollardError::DockerResponseServerError { status_code: 304 | 404, .. }) => Ok(()),
            Err(e) => Err(self.wrong("start a container")(e)),
        }
    }
}

/// Docker keeps to itself that a person has stopped a container, but it tells the error of the last attempt to start it: a stop
/// comes after a start that went well and leaves none, and at boot Docker tries those only that its own rules let run.
pub(crate) fn read(found: ContainerInspectResponse) -> Option<Stranded> {
    let state = found.state?;
    let why = state.error?;
    let policy = found.host_config?.restart_policy?.name?;
    let should_run = matches!(
        policy,
        RestartPolicyNameEnum::ALWAYS
            | RestartPolicyNameEnum::UNLESS_STOPPED
            | RestartPolicyNameEnum::ON_FAILURE
    );
    // As at boot: what never ran is for who made it to start.
    let has_run = state.started_at.is_some_and(|at| !at.starts_with("0001-"));
    let ended = state.status == Some(ContainerStateStatusEnum::EXITED);
    let by_the_driver = OF_THE_DRIVER.iter().any(|words| why.contains(words));
    if !(should_run && has_run && ended && by_the_driver) {
        return None;
    }
    let networks = found.network_settings?.networks.unwrap_or_default().into_values();
    Some(Stranded {
        id: found.id?,
        name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        networks: networks.filter_map(|at| at.network_id).filter(|id| !id.is_empty()).collect(),
        why,
    })
}
