//! What is on disk about a running lab, so that other processes can use it, and end it when its owner is gone.
//!
//! `/run/weft-lab/NAME/` holds `lab.json` (written once, and when the lab is kept) and one file for each machine
//! with the process that holds its namespaces. The hosts' disks are in `/var/tmp/weft-lab/ID/`.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Context, Error},
    nat::NatState,
    process::Process,
};

/// Where the states of running labs are.
pub(crate) const RUN: &str = "/run/weft-lab";
/// Where the hosts' disks are, unless WEFT_LAB_DIR says otherwise.
const DISKS: &str = "/var/tmp/weft-lab";

/// A lab as its state file describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabState {
    /// Its name, unique on this machine.
    pub name: String,
    /// Its name and a number: what it makes has names with this, so that no later lab of the name can meet them.
    pub id: String,
    /// The process it ends with; none for a lab that stays until `weft-lab down`.
    pub owner: Option<Process>,
    /// The directory of the hosts' disks and logs.
    pub disks: PathBuf,
    /// MTU of the underlay in bytes.
    pub mtu: u32,
    /// The binary under test, if one was found.
    pub weft: Option<PathBuf>,
    /// Its hosts.
    pub hosts: Vec<HostState>,
    /// Its NAT boxes.
    pub nats: Vec<NatState>,
}

/// A host as the state file describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostState {
    /// `h1`, `h2`, ...
    pub name: String,
    /// Its IPv4 address, on the underlay or behind its box.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, on the underlay or behind its box.
    pub v6: Ipv6Addr,
    /// The NAT box that it is behind.
    pub behind: Option<String>,
}

impl HostState {
    /// The port of the underlay's switch that leads to it.
    pub(crate) fn port(&self) -> &str {
        self.behind.as_deref().unwrap_or(&self.name)
    }
}

impl LabState {
    /// Reads the state of the lab of this name.
    pub fn read(name: &str) -> Result<LabState, Error> {
        let path = run_dir(name).join("lab.json");
        if !path.exists() {
            return Err(Error::NoLab(name.to_owned()));
        }
        let text = fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| Error::BadState { path, why: e.to_string() })
    }

    /// Claims the name: makes the directory with this state in it, or says that the name is taken.
    pub(crate) fn claim(&self) -> Result<(), Error> {
        let draft = Path::new(RUN).join(format!(".{}.{}", self.name, std::process::id()));
        make_dirs(&draft)?;
        self.write_to(&draft)?;
        // Renaming onto a directory that is not empty fails: two labs never share a name.
        let claimed = fs::rename(&draft, self.run_dir());
        if claimed.is_err() {
            let _leftover = fs::remove_dir_all(&draft);
            return Err(Error::Taken(self.name.clone()));
        }
        Ok(())
    }

    /// Writes the state anew.
    pub(crate) fn write(&self) -> Result<(), Error> {
        self.write_to(&self.run_dir())
    }

    /// The process that holds the namespaces of a host, or of the switch; none while it is off.
    pub fn holder(&self, machine: &str) -> Option<Process> {
        let text = fs::read_to_string(self.holder_file(machine)).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let holder = Process { pid: pid.parse().ok()?, started: started.parse().ok()? };
        holder.alive().then_some(holder)
    }

    pub(crate) fn set_holder(&self, machine: &str, holder: Option<Process>) -> Result<(), Error> {
        let path = self.holder_file(machine);
        match holder {
            // Plain text: the janitor, a shell script, reads it too.
            Some(Process { pid, started }) => write(&path, format!("{pid} {started}\n").as_bytes()),
            None => {
                let _absent = fs::remove_file(&path);
                Ok(())
            }
        }
    }

    /// Nobody will ever use or end this lab: its owner is dead.
    pub fn stale(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.alive())
    }

    /// The cgroup parent of a host's containers, below each cgroup mount.
    pub(crate) fn cgroup(&self, host: &str) -> String {
        format!("weft-lab-{}.{host}", self.id)
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        run_dir(&self.name)
    }

    fn holder_file(&self, machine: &str) -> PathBuf {
        self.run_dir().join(format!("{machine}.holder"))
    }

    fn write_to(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join("lab.json");
        match serde_json::to_vec_pretty(self) {
            Ok(text) => write(&path, &text),
            Err(e) => Err(Error::BadState { path, why: e.to_string() }),
        }
    }
}

/// All labs that have a state on this machine, by name.
pub fn list() -> Vec<LabState> {
    let mut labs: Vec<LabState> =
        names_in(Path::new(RUN)).iter().filter_map(|n| LabState::read(n).ok()).collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}

/// Where the disks of all labs are.
pub(crate) fn disks_root() -> PathBuf {
    std::env::var_os("WEFT_LAB_DIR").map_or_else(|| PathBuf::from(DISKS), PathBuf::from)
}

/// Makes a directory and those above it. Again if the end of another lab removes an empty parent meanwhile.
pub(crate) fn make_dirs(path: &Path) -> Result<(), Error> {
    let mut made = fs::create_dir_all(path);
    for _ in 0..4 {
        if made.is_ok() {
            break;
        }
        made = fs::create_dir_all(path);
    }
    made.context(|| format!("cannot make {}", path.display()))
}

/// Where the state of a lab is.
pub(crate) fn run_dir(name: &str) -> PathBuf {
    Path::new(RUN).join(name)
}

/// Directory entries that can be names of labs.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| good_name(n)).collect()
}

/// A name that is safe in paths and cgroups: 1 to 32 of a-z, 0-9 and `-`, not led by `-`.
pub(crate) fn good_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let draft = path.with_extension("new");
    fs::write(&draft, bytes)
        .and_then(|()| fs::rename(&draft, path))
        .context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::good_name;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", "..", "a/b", "A", "-a", "a.b", "a b", &"x".repeat(33)] {
            assert!(!good_name(bad), "{bad}");
        }
        assert!(good_name("demo-2"));
    }
}
