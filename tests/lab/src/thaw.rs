//! Paused containers: a frozen process does not die of SIGKILL until it is thawed, and its pid namespace waits for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Thaws everything below this cgroup, in whichever hierarchy freezes (cgroup v1 `freezer.state`, v2 `cgroup.freeze`).
pub(crate) fn thaw(group: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup").then(|| PathBuf::from(at))
    });
    for hierarchy in hierarchies {
        thaw_below(&hierarchy.join(group));
    }
}

fn thaw_below(group: &Path) {
    for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let file = group.join(file);
        if file.exists() {
            // A group that is gone meanwhile has nothing frozen.
            let _gone = fs::write(file, word);
        }
    }
    for below in fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if below.is_dir() {
            thaw_below(&below);
        }
    }
}
