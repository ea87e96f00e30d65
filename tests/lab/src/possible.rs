//! Whether a lab can run on this machine, and what a test does when not.

use std::{fs, path::Path, process::Command};

use crate::{command, state};

/// Programs that a lab calls, with the Debian package of each.
const PROGRAMS: [(&str, &str); 13] = [
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("tcpdump", "tcpdump"),
    ("busybox", "busybox-static"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("awk", "mawk"),
];
/// Where programs may be, as the hosts' PATH has it.
const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What the hosts overlay: an upper layer cannot lie inside its lower one.
const LOWER: [&str; 3] = ["/etc", "/usr/local", "/var/lib"];

/// One sentence about why no lab can run here, if none can.
pub fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("a lab makes namespaces and mounts, which needs root: run it with sudo".to_owned());
    }
    let missing: Vec<(&str, &str)> =
        PROGRAMS.into_iter().filter(|(program, _)| !installed(program)).collect();
    if !missing.is_empty() {
        let (programs, mut packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
        packages.dedup();
        return Err(format!("{} not installed: apt-get install {}", programs.join(", "), packages.join(" ")));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun is missing: modprobe tun".to_owned());
    }
    if !fs::read_to_string("/proc/self/mounts").is_ok_and(|m| m.contains(" cgroup")) {
        return Err("no cgroups are mounted, and Docker needs them".to_owned());
    }
    disks_can_be(&state::disks_root())?;
    // In a container without privileges root may not do this.
    let tried =
        command::output(Command::new("unshare").args(["-m", "-u", "-n", "-p", "-f", "--mount-proc", "true"]));
    if !tried.ok() {
        return Err(format!("the kernel refuses namespaces ({})", tried.stderr.trim()));
    }
    Ok(())
}

/// For the first line of a lab test: true if it must be skipped, said loudly.
///
/// # Panics
/// Where no lab can run although CI=true is set: there a skipped test would be a lie.
pub fn skip() -> bool {
    let Err(why) = possible() else { return false };
    let ci = std::env::var("CI").is_ok_and(|v| v == "true" || v == "1");
    assert!(!ci, "no lab can run here, and CI must have one: {why}");
    eprintln!("SKIPPED, NOTHING TESTED: no lab can run here: {why}");
    true
}

/// The hosts' disks are upper layers of overlays: not everything can be one.
fn disks_can_be(root: &Path) -> Result<(), String> {
    /// OVERLAYFS_SUPER_MAGIC of linux/magic.h.
    const OVERLAY: i64 = 0x794c_7630;
    let other = "set WEFT_LAB_DIR to a directory elsewhere on a disk";
    if !root.is_absolute() || LOWER.iter().any(|lower| root.starts_with(lower)) {
        return Err(format!("disks of hosts cannot lie in {}: {other}", root.display()));
    }
    let there = root.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statfs(there) {
        Ok(fs) if fs.f_type == OVERLAY => {
            Err(format!("{} is itself an overlay (of a container?): {other}", there.display()))
        }
        _ => Ok(()),
    }
}

fn installed(program: &str) -> bool {
    PLACES.iter().any(|place| Path::new(place).join(program).exists())
}
