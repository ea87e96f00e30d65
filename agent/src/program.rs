//! Programs of this machine that are run to their end, in bounded time.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a program may take in all.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs a program with this on standard input. One that is not installed is [`io::ErrorKind::NotFound`].
pub async fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends early says why in its exit code.
            let _ended = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end within {} s", PATIENCE.as_secs())))
    })
}

/// What a program that failed says of it.
#[must_use]
pub fn first_line(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(stderr);
    said.lines().find(|l| !l.trim().is_empty()).unwrap_or("it does not say why").trim().to_owned()
}
