//! Commands inside a namespace: run to the end, or started as a daemon that can be signalled by pid.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

pub use rustix::process::Signal;

use crate::{
    error::{Context, Error},
    process,
};

/// What a lab host's commands see as PATH, whoever started the lab.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// HOME inside a host: on its own disk, so that `docker context` and the like stay there.
const HOME: &str = "/var/lib/home";
/// What passes from the caller's environment into a host; nothing else does, as on another machine.
const PASSED: [&str; 6] = ["TERM", "LANG", "NO_COLOR", "RUST_LOG", "RUST_BACKTRACE", "CI"];

/// How a command ended and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 + signal if a signal ended it; -1 if it could not be started.
    pub status: i32,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
}

impl Output {
    /// Ended with 0.
    pub fn ok(&self) -> bool {
        self.status == 0
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}\n{}{}", self.status, self.stdout, self.stderr)
    }
}

/// A process that runs on inside a host until it ends or is killed; dropping this handle leaves it alone.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Its pid in this machine's view, for any tool that takes one.
    pub pid: i32,
    /// Where its standard output and error go.
    pub log: PathBuf,
}

impl Daemon {
    /// Sends a signal to the process itself (not to its children).
    pub fn signal(&self, signal: Signal) {
        if process::children(self.child.id().cast_signed()).contains(&self.pid) {
            process::signal(self.pid, signal);
        }
        if signal == Signal::CONT || signal == Signal::KILL {
            // nsenter stops itself when its child is stopped, and would never see it end.
            process::signal(self.child.id().cast_signed(), Signal::CONT);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) -> i32 {
        self.signal(Signal::KILL);
        self.child.wait().map_or(-1, code)
    }

    /// SIGKILL for the process and all it has started, and waits until it is gone.
    pub fn kill9_tree(&mut self) -> i32 {
        for pid in process::descendants(self.pid) {
            process::signal(pid, Signal::KILL);
        }
        self.kill9()
    }

    /// Its exit code if it has ended (128 + signal if a signal ended it).
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(code)
    }

    /// Waits for its end; none if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        process::wait_until(limit, || self.ended().is_some());
        self.ended()
    }

    /// What it has printed so far.
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Waits until its log holds `text`; false if it ended first or the time is over.
    pub fn wait_log(&mut self, text: &str, limit: Duration) -> bool {
        let mut over = false;
        process::wait_until(limit, || {
            // Looked at before the log is read, so that last words count.
            over = self.ended().is_some();
            self.log_text().contains(text) || over
        });
        self.log_text().contains(text)
    }
}

/// Which namespaces a command enters.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// The pid 1 of the host or switch.
    pub holder: i32,
    /// Another process whose network namespace is entered instead.
    pub network_of: Option<i32>,
    /// Who it is, for messages.
    pub whom: String,
}

impl Door {
    /// A command ready to run inside, with a clean environment.
    pub fn command<I>(&self, argv: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let Door { holder, network_of, .. } = self;
        let mut command = Command::new("nsenter");
        command
            .args(["-t".to_owned(), holder.to_string()])
            .args(["-m", "-u", "-p"])
            .arg(format!("--net=/proc/{}/ns/net", network_of.unwrap_or(*holder)))
            .arg("--")
            .args(argv)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", HOME)
            .envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }

    /// Runs to the end with nothing on standard input.
    pub fn exec<I>(&self, argv: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        output(self.command(argv).stdin(Stdio::null()))
    }

    /// Runs to the end with `input` on standard input; anything but exit code 0 is an error.
    pub fn feed<I>(&self, argv: I, input: &[u8]) -> Result<String, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let argv: Vec<OsString> = argv.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let mut command = self.command(&argv);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = match command.spawn() {
            Ok(mut child) => {
                let stdin = child.stdin.take();
                std::thread::scope(|scope| {
                    // Refused input shows in the exit code.
                    scope.spawn(|| stdin.map(|mut s| s.write_all(input)));
                    finished(child.wait_with_output())
                })
            }
            Err(e) => finished(Err(e)),
        };
        self.demand(&argv, output)
    }

    /// Runs to the end; anything but exit code 0 is an error.
    pub fn run<I>(&self, argv: I) -> Result<String, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.feed(argv, b"")
    }

    fn demand(&self, argv: &[OsString], output: Output) -> Result<String, Error> {
        if output.ok() {
            return Ok(output.stdout);
        }
        let command: Vec<_> = argv.iter().map(|a| a.to_string_lossy()).collect();
        let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
        Err(Error::Command {
            whom: self.whom.clone(),
            command: shorten(&command.join(" ")),
            status: output.status,
            said: said.trim().to_owned(),
        })
    }

    /// Starts a daemon whose output is appended to `log`.
    pub fn spawn<I>(&self, argv: I, log: &Path) -> Result<Daemon, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.context(|| format!("cannot write the log {}", log.display()))?;
        let copy = file.try_clone().context(|| "cannot share the log".to_owned())?;
        let mut child = self
            .command(argv)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .process_group(0) // Ctrl-C on the terminal is not for the host's daemons
            .spawn()
            .context(|| "cannot start nsenter".to_owned())?;
        // nsenter must fork to enter a pid namespace: the daemon is its only child.
        let parent = child.id().cast_signed();
        let start = Instant::now();
        let pid = loop {
            if let Some(&pid) = process::children(parent).first() {
                break pid;
            }
            if child.try_wait().ok().flatten().is_some() || start.elapsed() > Duration::from_secs(30) {
                break parent; // ended already: `ended` tells
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        Ok(Daemon { child, pid, log: log.to_owned() })
    }
}

/// Runs a command of this machine to the end.
pub(crate) fn output(command: &mut Command) -> Output {
    finished(command.output())
}

fn finished(result: std::io::Result<std::process::Output>) -> Output {
    match result {
        Ok(out) => Output {
            status: code(out.status),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        },
        Err(e) => Output { status: -1, stdout: String::new(), stderr: format!("cannot start: {e}") },
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(-1)
}

fn shorten(command: &str) -> String {
    let line = command.lines().next().unwrap_or_default();
    if line.len() == command.len() { line.to_owned() } else { format!("{line} ...") }
}
