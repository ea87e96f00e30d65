//! The two containers that a peer connects: how to run a program in either one's network namespace.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    net::Ipv4Addr,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use crate::probe::READY;

/// One container: a process of it, and its address on the network that is measured.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Any process of the container, in this machine's view.
    pub pid: i32,
    /// Its address.
    pub address: Ipv4Addr,
}

/// The two containers; what is measured flows from `a` to `b`.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Who sends and asks.
    pub a: End,
    /// Who receives and answers.
    pub b: End,
}

impl End {
    /// A command that will run in the container's network namespace, with this machine's programs, and die with us.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid)).args([
            "--",
            "setpriv",
            "--pdeathsig",
            "KILL",
            program,
        ]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program to its end and reads the JSON it prints.
    pub fn json<T: DeserializeOwned>(&self, program: &str, args: &[String]) -> anyhow::Result<T> {
        let out = self.command(program).args(args).output().context("cannot start nsenter")?;
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.success(), "{program} {}: {complained}{said}", args.join(" "));
        serde_json::from_str(&said).with_context(|| format!("{program} printed no JSON: {said}"))
    }

    /// Runs one of our own probes to its end.
    pub fn probe<T: DeserializeOwned>(&self, args: &[String]) -> anyhow::Result<T> {
        self.json(&this_program()?, &probe_args(args))
    }

    /// Starts one of our own probes and waits until it listens.
    pub fn start_probe(&self, args: &[String]) -> anyhow::Result<Running> {
        self.start(&this_program()?, &probe_args(args), READY)
    }

    /// Starts a program and waits until it has printed a line with `ready` in it.
    pub fn start(&self, program: &str, args: &[String], ready: &str) -> anyhow::Result<Running> {
        let child = self.command(program).args(args).stdout(Stdio::piped()).spawn();
        let mut child = child.context("cannot start nsenter")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut running = Running { child, stdout: BufReader::new(stdout) };
        let mut line = String::new();
        while running.stdout.read_line(&mut line)? > 0 {
            if line.contains(ready) {
                return Ok(running);
            }
        }
        anyhow::bail!("{program} {} ended before it was ready: {line}", args.join(" "))
    }

    /// `address:port`.
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }
}

/// A program that runs in a container; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    /// Waits for its end and reads the JSON it prints last.
    pub fn json<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text)?;
        ensure!(self.child.wait()?.success(), "a probe failed: {text}");
        serde_json::from_str(&text).with_context(|| format!("a probe printed no JSON: {text}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already or killed now: both leave nothing behind.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn this_program() -> anyhow::Result<String> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    path.into_os_string().into_string().map_err(|p: OsString| anyhow::anyhow!("{} is not text", p.display()))
}

fn probe_args(args: &[String]) -> Vec<String> {
    std::iter::once("probe".to_owned()).chain(args.iter().cloned()).collect()
}
