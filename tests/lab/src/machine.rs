//! A machine without hardware: one process that holds namespaces, and the mounts that make it look real.
//!
//! The holder is pid 1 of a pid namespace: it reaps what is orphaned there, and when it dies the kernel kills
//! everything else in the machine. It dies by itself when the owner of the lab closes its standard input, however
//! that comes about.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use crate::{
    command::Door,
    error::{Context, Error},
    process::{self, Process},
};

/// `wait` reaps the machine's orphans as a side effect; the inner shell watches for the owner's end.
const HOLD: &str = r#"
exec 3<&0 </dev/null
( read -r word <&3; [ "$word" = keep ] && exec sleep infinity ) &
wait $!
"#;

/// Runs inside, once per boot. $1 the disk, $2 the host's name, $3 the binary under test or nothing.
const BOOT: &str = r#"
set -e
disk=$1 name=$2 weft=$3
echo "$name" >/proc/sys/kernel/hostname

# What this host writes stays on its own disk; the machine's files are the lower layer.
own() {
    mkdir -p "$disk/over$1" "$disk/work$1"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$disk/over$1,workdir=$disk/work$1" "$1"
}
own /usr/local
own /etc
own /var/lib
for dir in /var/lib/docker /var/lib/weft /etc/docker /etc/systemd/system; do
    mkdir -p "$disk$dir" "$dir"
    mount --bind "$disk$dir" "$dir"
done
if [ -n "$weft" ]; then
    mkdir -p /usr/local/bin
    [ -e /usr/local/bin/weft ] || : >/usr/local/bin/weft
    mount --bind "$weft" /usr/local/bin/weft
fi

if [ ! -e "$disk/installed" ]; then
    mkdir -p /var/lib/home
    tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    rm -f /etc/resolv.conf /etc/hostname
    echo "$name" >/etc/hostname
    cp "$disk/../resolv.conf" /etc/resolv.conf
    cp "$disk/../hosts" /etc/hosts
    cp "$disk/daemon.json" /etc/docker/daemon.json
    mkdir -p /usr/local/bin
    for tool in ping traceroute nc wget; do
        command -v $tool >/dev/null || ln -s "$(command -v busybox)" /usr/local/bin/$tool
    done
    : >"$disk/installed"
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock

# /sys must show this network namespace, and keep the cgroups (a fresh sysfs has none).
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
rmdir /run/cgroup
ip link set lo up
"#;

/// A running holder of namespaces.
#[derive(Debug)]
pub(crate) struct Machine {
    pub holder: Process,
    /// Present in the process that started it; `unshare` and the pipe that keeps the holder alive.
    started: Option<(Child, Option<ChildStdin>)>,
}

impl Machine {
    /// New namespaces (mount, uts, network, pid) with a holder in them.
    pub fn start() -> Result<Machine, Error> {
        let mut child = Command::new("unshare")
            .args([
                "--mount",
                "--uts",
                "--net",
                "--pid",
                "--fork",
                "--mount-proc",
                "--propagation",
                "private",
            ])
            .args(["sh", "-c", HOLD])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C on the terminal is not for the machines
            .spawn()
            .context(|| "cannot start unshare".to_owned())?;
        let stdin = child.stdin.take();
        let parent = child.id().cast_signed();
        let mut holder = None;
        // Once the child has become the shell, the namespaces and /proc are ready.
        let limit = Duration::from_secs(30);
        process::wait_until(limit, || {
            let pid = process::children(parent).first().copied();
            holder = pid.filter(|&p| process::name(p).as_deref() == Some("sh")).and_then(Process::of);
            holder.is_some() || child.try_wait().ok().flatten().is_some()
        });
        let Some(holder) = holder else {
            let _ended = child.kill().and_then(|()| child.wait());
            let hint =
                "the kernel refused a namespace: try `unshare -m -u -n -p -f --mount-proc true`".to_owned();
            return Err(Error::Late {
                what: "the start of a machine".to_owned(),
                seconds: limit.as_secs(),
                hint,
            });
        };
        Ok(Machine { holder, started: Some((child, stdin)) })
    }

    /// One that another process started.
    pub fn attach(holder: Process) -> Machine {
        Machine { holder, started: None }
    }

    /// Mounts what makes it a host. `disk` holds what survives a reboot.
    pub fn boot(&self, name: &str, disk: &Path, weft: Option<&Path>) -> Result<(), Error> {
        let weft = weft.unwrap_or(Path::new(""));
        let door = self.door(name);
        door.run([c("sh"), c("-c"), c(BOOT), c("boot"), disk.as_os_str(), c(name), weft.as_os_str()])
            .map(drop)
    }

    /// The way in.
    pub fn door(&self, whom: &str) -> Door {
        Door { holder: self.holder.pid, network_of: None, whom: whom.to_owned() }
    }

    /// Lets it live on after this process.
    pub fn keep(&mut self) -> Result<(), Error> {
        if let Some((_, pipe)) = &mut self.started
            && let Some(mut pipe) = pipe.take()
        {
            pipe.write_all(b"keep\n").context(|| "a machine died while it was started".to_owned())?;
        }
        Ok(())
    }

    /// Switches it off: every process in it is dead when this returns.
    pub fn kill(&mut self) {
        self.holder.kill();
        if let Some((mut child, pipe)) = self.started.take() {
            drop(pipe);
            let _ended = child.wait();
        }
        // A zombie pid 1 has already seen the rest of its namespace die.
        process::wait_until(Duration::from_secs(10), || !self.holder.alive());
    }
}

fn c(text: &str) -> &std::ffi::OsStr {
    text.as_ref()
}
