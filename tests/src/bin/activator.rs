//! Plays systemd for one service: opens a socket, starts the command with it as LISTEN_FDS says, and again when it ends.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The listener comes in as standard input: the shell moves it to descriptor 3 and knows its own pid.
const HAND_OVER: &str =
    r#"export LISTEN_PID=$$ LISTEN_FDS=1; echo $$ >/run/activated.pid; exec "$@" 3<&0 </dev/null"#;

/// RestartSec= of the unit.
const PAUSE: Duration = Duration::from_secs(1);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().expect("usage: activator SOCKET COMMAND...");
    let command: Vec<String> = arguments.collect();
    let dir = std::path::Path::new(&socket).parent().expect("a path with a directory");
    std::fs::create_dir_all(dir).expect("the socket's directory");
    let listener = UnixListener::bind(&socket).expect("the socket");
    std::fs::write("/run/activator.pid", std::process::id().to_string()).expect("/run is writable");
    loop {
        let listener = OwnedFd::from(listener.try_clone().expect("a copy of the socket"));
        let mut shell = Command::new("sh");
        shell.args(["-c", HAND_OVER, "sh"]).args(&command).stdin(Stdio::from(listener));
        let ended = shell.status().expect("the command starts");
        eprintln!("the command ended: {ended}");
        std::thread::sleep(PAUSE);
    }
}
