//! The end of a lab: nothing of it stays, whoever ended it and however its owner died.
//!
//! Namespaces, mounts, veths and processes go with the holders (see `machine`); cgroups and directories do not.
//! One small shell script ends the holders and removes the rest; while a lab has an owner, that script waits in a session of
//! its own for the owner's end, so that a panic, Ctrl-C and `kill -9` all clean up the same way.

use std::{
    fs,
    io::Write,
    process::{Child, Command, Stdio},
};

use crate::{
    error::{Context, Error},
    state::{self, LabState},
};

/// $1 the lab's id, $2 its disks, $3 its state. What is dying still uses its cgroups and directories: hence the
/// loop. A pid counts only with the start time written beside it. The state is moved away first, and only if it is
/// of this id: from then on the name is free, and no second remover can harm a new lab that takes it.
const REMOVE: &str = r#"
trap '' INT TERM HUP
read -r word
[ "$word" = keep ] && exit 0
state=$3.$$
grep -qs "\"id\": \"$1\"" "$3/lab.json" && mv "$3" "$state"
tries=0
while [ $tries -lt 400 ]; do
    left=no
    for file in "$state"/*.holder; do
        [ -e "$file" ] || continue
        read -r pid started <"$file"
        now=$(awk '{ sub(/.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$pid/stat" 2>/dev/null)
        [ "$now" = "$started" ] || continue
        kill -9 "$pid"
        left=yes
    done
    for mount in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/self/mounts); do
        for group in "$mount/weft-lab-$1".*; do
            [ -d "$group" ] || continue
            find "$group" -name freezer.state -exec sh -c 'echo THAWED >"$1"' - {} \; 2>/dev/null
            find "$group" -name cgroup.freeze -exec sh -c 'echo 0 >"$1"' - {} \; 2>/dev/null
            find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
            [ -d "$group" ] && left=yes
        done
    done
    rm -rf --one-file-system "$2" 2>/dev/null || left=yes
    if [ $left = no ]; then
        rm -rf "$state"
        rmdir "$(dirname "$2")" "$(dirname "$3")" 2>/dev/null
        exit 0
    fi
    sleep 0.05
    tries=$((tries + 1))
done
exit 1
"#;

/// Waits for the end of the lab's owner, then removes what is left of the lab.
#[derive(Debug)]
pub(crate) struct Janitor(Child);

impl Janitor {
    pub fn start(lab: &LabState) -> Result<Janitor, Error> {
        let child = Command::new("setsid")
            .args(["sh", "-c", REMOVE, "weft-lab-janitor", &lab.id])
            .args([&lab.disks, &lab.run_dir()])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group leader would make setsid fork, and nobody could wait for the script.
            .spawn()
            .context(|| "cannot start setsid".to_owned())?;
        Ok(Janitor(child))
    }

    /// The lab stays.
    pub fn dismiss(mut self) {
        if let Some(mut stdin) = self.0.stdin.take() {
            let _gone = stdin.write_all(b"keep\n");
        }
        let _ended = self.0.wait();
    }

    /// Removes now; true if nothing is left.
    pub fn work(mut self) -> bool {
        drop(self.0.stdin.take());
        self.0.wait().is_ok_and(|status| status.success())
    }
}

/// Ends the lab of this name, whoever started it. False if something could not be removed.
pub fn end(name: &str) -> Result<bool, Error> {
    let lab = LabState::read(name)?;
    Ok(Janitor::start(&lab)?.work())
}

/// Ends all labs whose owner is dead, and removes disks without a lab (the machine was rebooted). Their names.
pub fn end_stale() -> Vec<String> {
    let root = state::disks_root();
    // Listed before the labs are: a lab claims its name before it makes its disks.
    let disks = fs::read_dir(&root).into_iter().flatten().flatten();
    let disks: Vec<String> = disks.filter_map(|e| e.file_name().into_string().ok()).collect();
    let labs = state::list();
    let orphans = disks.into_iter().filter(|id| labs.iter().all(|lab| lab.id != *id));
    let mut ended: Vec<String> = orphans.filter(|id| fs::remove_dir_all(root.join(id)).is_ok()).collect();
    let stale = labs.into_iter().filter(LabState::stale).map(|l| l.name);
    ended.extend(stale.filter(|name| end(name).unwrap_or(false)));
    ended
}

/// Ends every lab on this machine, also those that other processes own. Their names.
pub fn end_all() -> Vec<String> {
    let mut ended = state::names_in(state::RUN.as_ref());
    ended.retain(|name| match end(name) {
        Ok(clean) => clean,
        // Not readable as a lab: no process to find, but a name to free.
        Err(_) => fs::remove_dir_all(state::run_dir(name)).is_ok(),
    });
    ended.extend(end_stale());
    ended
}
