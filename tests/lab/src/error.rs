//! What can go wrong in a lab, each as one sentence.

use std::{io, path::PathBuf};

/// Why a lab, or something asked of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine cannot run a lab at all.
    #[error("no lab can run here: {0}")]
    Impossible(String),
    /// The name is not one that may be used in paths, cgroups and namespaces.
    #[error("`{0}` cannot name a lab: use 1 to 32 of a-z, 0-9 and `-`")]
    BadName(String),
    /// A lab of that name is up.
    #[error(
        "a lab named `{0}` is up already: end it with `weft-lab down --name {0}`, or choose another --name"
    )]
    Taken(String),
    /// No lab of that name is up.
    #[error("no lab named `{0}` is up: `weft-lab ls` lists those that are, `weft-lab up` starts one")]
    NoLab(String),
    /// The lab has no host of that name.
    #[error("no host `{name}` in this lab: it has {have}")]
    NoHost {
        /// The name asked for.
        name: String,
        /// The names there are.
        have: String,
    },
    /// The binary under test is not there.
    #[error("there is no binary under test at {}: build it, or set WEFT_BIN to where it is", .0.display())]
    NoBinary(PathBuf),
    /// The number of hosts is outside what the underlay's addresses allow.
    #[error("a lab has 1 to {max} hosts, not {asked}")]
    HostCount {
        /// How many were asked for.
        asked: usize,
        /// How many there can be.
        max: usize,
    },
    /// More NAT boxes, or more hosts behind one, than there are addresses.
    #[error("a lab has at most {boxes} NAT boxes, each with at most {behind} hosts behind it")]
    NatCount {
        /// How many boxes there can be.
        boxes: usize,
        /// How many hosts there can be behind one.
        behind: usize,
    },
    /// The host is switched off.
    #[error("{0} is switched off: boot it first")]
    Off(String),
    /// A command ended with an error.
    #[error("`{command}` on {whom} ended with {status}: {said}")]
    Command {
        /// Where it ran.
        whom: String,
        /// What was asked.
        command: String,
        /// Its exit status.
        status: i32,
        /// The end of what it printed.
        said: String,
    },
    /// The engine ended by itself.
    #[error("dockerd on {host} ended by itself; its log ends with: {last}")]
    EngineEnded {
        /// The host.
        host: String,
        /// The last line of its log.
        last: String,
    },
    /// Something did not happen in its time.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Late {
        /// What was awaited.
        what: String,
        /// How long it was awaited.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The state file of a lab cannot be understood.
    #[error("{} is not the state of a lab ({why}): `weft-lab down --all` removes it", path.display())]
    BadState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A container does not run, or not on this host.
    #[error("no running container `{container}` on {host}")]
    NoContainer {
        /// The name asked for.
        container: String,
        /// The host.
        host: String,
    },
}

/// Adds what was tried to an error of the operating system.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}
