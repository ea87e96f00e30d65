//! The first process of a container: whose namespaces the container's are.

use bollard::errors::Error as BollardError;
use bollard::query_parameters::InspectContainerOptions;

use crate::error::EngineError;
use crate::{Engine, quick};

/// A container that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// The first process of it, as this machine numbers it.
    pub pid: u32,
}

impl Engine {
    /// A container by its name or id; `None` if there is none, or it does not run.
    pub async fn running(&self, container: &str) -> Result<Option<Running>, EngineError> {
        quick(self.inspected(container)).await
    }

    async fn inspected(&self, container: &str) -> Result<Option<Running>, EngineError> {
        match self.docker.inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(found) => {
                let pid = found.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
                let name = found.name.unwrap_or_default().trim_start_matches('/').to_owned();
                Ok(pid.filter(|pid| *pid != 0).map(|pid| Running { name, pid }))
            }
            Err(BollardError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(e) => Err(self.wrong("show a container")(e)),
        }
    }
}
