//! The product on a lab, started as a person starts it: `weft init` on h1, `weft join` on the others, `weft up` on each.

use std::time::Duration;

use crate::{command::Daemon, error::Error, host::Host, lab::Lab, process};

/// How long a mesh, a network or a host may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions: each starts a program.
const PAUSE: Duration = Duration::from_millis(100);
/// What every token begins with.
const TOKEN: &str = "weft1-";

/// A running mesh of all hosts of a lab.
#[derive(Debug)]
pub struct Mesh<'a> {
    lab: &'a Lab,
    token: String,
    /// What is said to each `weft up`.
    up: Vec<String>,
    daemons: Vec<Daemon>,
}

impl Mesh<'_> {
    /// Makes the mesh with `weft init ARGS` on h1, joins all others to it and waits until `weft status` is content
    /// on every host. The engines must run, and get the busybox image.
    pub fn up<'a>(lab: &'a Lab, init: &[&str]) -> Result<Mesh<'a>, Error> {
        Self::up_with(lab, init, &[])
    }

    /// The same with `weft up UP` on every host.
    pub fn up_with<'a>(lab: &'a Lab, init: &[&str], up: &[&str]) -> Result<Mesh<'a>, Error> {
        lab.image()?;
        let [founder, others @ ..] = lab.hosts() else {
            return Err(Error::HostCount { asked: 0, max: lab.hosts().len() });
        };
        let said = founder.run(["weft", "init"].iter().chain(init))?;
        let token =
            said.split_whitespace().find(|word| word.starts_with(TOKEN)).map(str::to_owned).ok_or_else(
                || Error::Command {
                    whom: "h1".into(),
                    command: "weft init".into(),
                    status: 0,
                    said: format!("no token: {said}"),
                },
            )?;
        let up = up.iter().copied().map(str::to_owned).collect();
        let mut mesh = Mesh { lab, token, up, daemons: Vec::new() };
        mesh.start(founder)?;
        mesh.content(founder)?;
        let at = address(founder);
        for host in others {
            host.run(["weft", "join", &at, "--token", &mesh.token])?;
            mesh.start(host)?;
        }
        mesh.wait_ready()?;
        Ok(mesh)
    }

    /// The token that `weft init` printed.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The `weft up` of each host, h1 first.
    pub fn daemons(&mut self) -> &mut [Daemon] {
        &mut self.daemons
    }

    /// Starts `weft up` anew on a host whose daemon has ended, or that was switched off.
    pub fn restart(&mut self, host: &str) -> Result<(), Error> {
        let host = self.lab.find(host)?;
        let daemon = self.daemon(host)?;
        if let Some(at) = self.lab.hosts().iter().position(|h| h.name() == host.name()) {
            self.daemons[at] = daemon;
        }
        Ok(())
    }

    /// `weft network create ARGS` on h1; waits until Docker has the network on every host.
    pub fn network(&self, args: &[&str]) -> Result<(), Error> {
        let Some(founder) = self.lab.hosts().first() else { return Ok(()) };
        founder.run(["weft", "network", "create"].iter().chain(args))?;
        let name = args.first().copied().unwrap_or_default();
        self.lab.on_all_hosts(|host| {
            let known = || host.exec(["docker", "network", "inspect", name]).ok();
            wait(host, &format!("network {name} in Docker"), known)
        })
    }

    /// Waits until `weft status` finds nothing wrong on any host.
    pub fn wait_ready(&self) -> Result<(), Error> {
        self.lab.on_all_hosts(|host| self.content(host))
    }

    fn start(&mut self, host: &Host) -> Result<(), Error> {
        let daemon = self.daemon(host)?;
        self.daemons.push(daemon);
        Ok(())
    }

    fn daemon(&self, host: &Host) -> Result<Daemon, Error> {
        host.spawn(["weft", "up"].into_iter().chain(self.up.iter().map(String::as_str)), "weft.log")
    }

    fn content(&self, host: &Host) -> Result<(), Error> {
        wait(host, "a content `weft status`", || host.exec(["weft", "status"]).ok())
    }
}

impl Drop for Mesh<'_> {
    /// After a panic: what each host made of the others, while the daemons still answer.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in self.lab.hosts() {
                let said = ["hosts", "links"].map(|noun| host.exec(["weft", noun]).stdout);
                eprintln!("--- {}\n{}", host.name(), said.concat());
            }
        }
    }
}

/// Where it is joined: its IPv4 address, or the other if a test has taken that away.
fn address(host: &Host) -> String {
    let v4 = host.addr().to_string();
    let has = host.exec(["ip", "-4", "-br", "addr", "show", "eth0"]).stdout.contains(&v4);
    if has { v4 } else { host.addr6().to_string() }
}

fn wait(host: &Host, what: &str, mut done: impl FnMut() -> bool) -> Result<(), Error> {
    let asked = || {
        let yes = done();
        if !yes {
            std::thread::sleep(PAUSE);
        }
        yes
    };
    if process::wait_until(PATIENCE, asked) {
        return Ok(());
    }
    let status = host.exec(["weft", "status"]);
    Err(Error::Late {
        what: format!("{what} on {}", host.name()),
        seconds: PATIENCE.as_secs(),
        hint: format!("`weft status` says: {}{}", status.stdout.trim(), status.stderr.trim()),
    })
}
