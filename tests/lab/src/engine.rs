//! The Docker engine of a host: started, stopped, killed, with the pitfalls of each.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::{
    command::Signal,
    error::Error,
    host::Host,
    process::{self, Process},
};

/// How long an engine may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a started engine may take to become visible as a process.
const GRACE: Duration = Duration::from_secs(2);
/// $0 the log. Not the limit of this terminal for open files, but the one of a system service.
const LAUNCH: &str = r#"
ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -H -n)"
setsid dockerd >>"$0" 2>&1 </dev/null &
"#;

impl Host {
    /// Starts the engine and waits until it answers. Running already is no error.
    pub fn engine_start(&self) -> Result<(), Error> {
        self.engine_launch()?;
        self.engine_wait()
    }

    /// Starts the engine and does not wait.
    pub fn engine_launch(&self) -> Result<(), Error> {
        if self.engine_pid().is_some() {
            return Ok(());
        }
        let log = self.log_dir().join("dockerd.log");
        // The shell ends at once: the engine is a child of the host's pid 1, as on a machine.
        self.run(["sh", "-c", LAUNCH, &log.to_string_lossy()]).map(drop)
    }

    /// Waits until the engine answers.
    pub fn engine_wait(&self) -> Result<(), Error> {
        let holder = self.door()?.holder;
        let socket = format!("/proc/{holder}/root/run/docker.sock");
        let start = Instant::now();
        let mut answered = false;
        let over = process::wait_until(PATIENCE, || {
            answered = answers(&socket).is_ok_and(|a| a.contains("200 OK"));
            answered || (start.elapsed() > GRACE && self.engine_pid().is_none())
        });
        match (answered, over) {
            (true, _) => Ok(()),
            (false, true) => Err(Error::EngineEnded { host: self.name().to_owned(), last: self.last_word() }),
            (false, false) => Err(self.late("an answer of dockerd")),
        }
    }

    /// Ends the engine as `systemctl stop docker` would. Containers run on (live-restore).
    pub fn engine_stop(&self) -> Result<(), Error> {
        if let Some(engine) = self.engine_pid() {
            process::signal(engine.pid, Signal::TERM);
            if !process::wait_until(PATIENCE, || !engine.alive()) {
                return Err(self.late("the end of dockerd"));
            }
        }
        self.engine_gone()
    }

    /// Kills the engine with SIGKILL. Containers run on; [`Host::engine_start`] finds everything in order.
    pub fn engine_kill9(&self) -> Result<(), Error> {
        if let Some(engine) = self.engine_pid() {
            engine.kill();
            if !process::wait_until(PATIENCE, || !engine.alive()) {
                return Err(self.late("the end of dockerd"));
            }
        }
        self.engine_gone()
    }

    /// The engine's process, in this machine's view; none if it does not run.
    pub fn engine_pid(&self) -> Option<Process> {
        self.child_named("dockerd")
    }

    /// An engine that starts while the old containerd still ends connects to it, and dies with it. A pid file
    /// left behind names a pid that may by now be somebody else's.
    fn engine_gone(&self) -> Result<(), Error> {
        if let Some(containerd) = self.child_named("containerd")
            && !process::wait_until(Duration::from_secs(5), || !containerd.alive())
        {
            containerd.kill();
            if !process::wait_until(PATIENCE, || !containerd.alive()) {
                return Err(self.late("the end of containerd"));
            }
        }
        let root = format!("/proc/{}/root", self.door()?.holder);
        for file in ["run/docker.pid", "run/docker/containerd/containerd.pid"] {
            let _absent = fs::remove_file(format!("{root}/{file}"));
        }
        Ok(())
    }

    fn child_named(&self, name: &str) -> Option<Process> {
        let found = self.processes().into_iter().find(|&pid| process::name(pid).as_deref() == Some(name))?;
        Process::of(found)
    }

    fn late(&self, what: &str) -> Error {
        Error::Late {
            what: format!("{what} on {}", self.name()),
            seconds: PATIENCE.as_secs(),
            hint: format!("its log ends with: {}", self.last_word()),
        }
    }

    fn last_word(&self) -> String {
        let log = fs::read_to_string(self.log_dir().join("dockerd.log")).unwrap_or_default();
        log.lines().next_back().unwrap_or("(nothing)").to_owned()
    }
}

/// Docker's smallest question, without a client: it is asked every 10 ms.
fn answers(socket: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: lab\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
