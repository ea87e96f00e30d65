//! The agent dies in the middle of each of Docker's calls. A proxy sits between Docker and the agent: it kills the agent when
//! the call has been passed on, or when it is done but Docker has not heard the answer. Docker asks again, of the agent's next life.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use weft_lab::{Daemon, Host, Lab, Process};

use crate::fixture::{Container, deadline, eventually, hosts};
use crate::truth;

/// The agent sees this directory as /run/docker/plugins; Docker sees the real one, where the proxy listens.
const AGENT: &str = "mkdir -p /run/hidden /run/docker/plugins && \
                     mount --bind /run/hidden /run/docker/plugins && exec weft up";
const PROXY: &str = "run/docker/plugins/weft.sock";
const BEHIND: &str = "run/hidden/weft.sock";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// The call has been passed on; whether it was done, who knows.
    Asked,
    /// It was done, and Docker does not know.
    Answered,
}

struct Proxy {
    root: String,
    armed: Mutex<Option<(&'static str, When)>>,
    agent: AtomicI32,
    fired: mpsc::SyncSender<()>,
}

impl Proxy {
    /// Serves until the lab's engine is gone; its threads end with the test.
    fn start(host: &Host) -> (Arc<Proxy>, mpsc::Receiver<()>) {
        let root = format!("/proc/{}/root", host.holder().unwrap());
        let listener = UnixListener::bind(format!("{root}/{PROXY}")).unwrap();
        let (fired, told) = mpsc::sync_channel(1);
        let proxy = Proxy { root, armed: Mutex::default(), agent: AtomicI32::new(0), fired };
        let proxy = Arc::new(proxy);
        let server = Arc::clone(&proxy);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                // What is not answered is dropped: Docker finds a dead connection, as if the agent had held it.
                std::thread::spawn(move || server.pass(client));
            }
        });
        (proxy, told)
    }

    fn arm(&self, call: Option<(&'static str, When)>) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }

    fn pass(&self, mut client: UnixStream) -> io::Result<()> {
        let (method, body) = read_call(&mut client)?;
        let mut agent = UnixStream::connect(format!("{}/{BEHIND}", self.root))?;
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: weft\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        agent.write_all(&[head.as_bytes(), &body].concat())?;
        let armed = {
            let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
            armed.take_if(|(call, _)| method.ends_with(*call)).map(|(_, when)| when)
        };
        let mut answer = Vec::new();
        if armed != Some(When::Asked) {
            agent.read_to_end(&mut answer)?;
        }
        if armed.is_some() {
            if let Some(process) = Process::of(self.agent.load(Ordering::Relaxed)) {
                process.kill();
            }
            let _nobody_waits = self.fired.try_send(());
            return Ok(());
        }
        if answer.is_empty() {
            return Ok(());
        }
        client.write_all(&answer)
    }
}

fn read_call(client: &mut UnixStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
            let (begin, method) =
                (head.len() + 4, head.split(['/', ' ']).nth(2).unwrap_or_default().to_owned());
            if bytes.len() >= begin + length {
                return Ok((method, bytes[begin..begin + length].to_vec()));
            }
        }
        let n = client.read(&mut chunk)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(&chunk[..n]);
    }
}

struct Bench<'a> {
    lab: &'a Lab,
    host: &'a Host,
    proxy: Arc<Proxy>,
    told: mpsc::Receiver<()>,
    daemon: Daemon,
}

impl Bench<'_> {
    fn start_agent(host: &Host, proxy: &Proxy) -> Daemon {
        let daemon = host.spawn(["unshare", "-m", "sh", "-c", AGENT], "weft.log").unwrap();
        proxy.agent.store(daemon.pid, Ordering::Relaxed);
        daemon
    }

    /// Runs a command during which the agent dies at that call, and lives again. Whether the command came through.
    fn kill_in(&mut self, call: &'static str, when: When, argv: &[&str]) -> bool {
        let start = Instant::now();
        self.proxy.arm(Some((call, when)));
        let host = self.host;
        let out = std::thread::scope(|scope| {
            let command = scope.spawn(|| host.exec(argv));
            let fired = self.told.recv_timeout(deadline(20.0));
            self.daemon.kill9();
            self.daemon = Self::start_agent(host, &self.proxy);
            assert!(fired.is_ok(), "{call} did not come within 20 s of {}", argv.join(" "));
            command.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
        });
        self.proxy.arm(None);
        let took = start.elapsed().as_secs_f64();
        println!("{call:15} {when:?}: {} -> {} after {took:.1} s", argv.join(" "), out.status);
        if !out.ok() {
            println!("  {}", out.stderr.trim());
        }
        out.ok()
    }

    fn settled(&self, when: &str) {
        let mut last = None;
        eventually(&format!("weft, Docker and the kernel agree {when}"), Duration::from_secs(15), || {
            let now = truth::difference(self.lab);
            if now.is_some() && now != last {
                println!("  {when}: {}", now.as_deref().unwrap_or_default());
            }
            last = now;
            last.is_none()
        });
    }

    /// A container starts and goes, and the agent dies once in each.
    fn container(&mut self, starting: &'static str, ending: &'static str, when: When, pinned: bool) {
        let mut run = vec!["docker", "run", "-d", "--name", "xx", "--network", "app"];
        if pinned {
            run.extend(["--ip", "10.77.0.40"]);
        }
        run.extend(["busybox", "sleep", "100000"]);
        if !self.kill_in(starting, when, &run) {
            self.host.exec(["docker", "rm", "-f", "xx"]);
            self.host.run(&run).unwrap_or_else(|e| panic!("the next try after {starting} {when:?}: {e}"));
        }
        let xx = Container::of(self.host, "xx", "app");
        assert_ne!(xx.v4, "10.77.0.2", "the address of the container that stays");
        if pinned {
            assert_eq!(xx.v4, "10.77.0.40");
        }
        self.settled(starting);
        if !self.kill_in(ending, when, &["docker", "rm", "-f", "xx"]) {
            self.host.exec(["docker", "rm", "-f", "xx"]);
        }
        self.settled(ending);
    }

    /// A network is made and removed, and the agent dies once in each.
    fn network(&mut self, making: &'static str, removing: &'static str, when: When, name: &str) {
        self.kill_in(making, when, &["weft", "network", "create", name]);
        eventually("the network is made", Duration::from_secs(20), || {
            let known = self.host.exec(["weft", "network", "inspect", name]).ok();
            known || self.host.exec(["weft", "network", "create", name]).ok()
        });
        self.settled(making);
        if !self.kill_in(removing, when, &["weft", "network", "rm", name]) {
            self.host.exec(["weft", "network", "rm", name]);
        }
        self.settled(removing);
        assert!(!self.host.exec(["docker", "network", "inspect", name]).ok(), "{name} is gone from Docker");
    }
}

impl Bench<'_> {
    /// `docker network create` during which the agent, which decides too, dies. Docker tells the name only afterwards.
    fn docker_network(&mut self, call: &'static str, when: When, name: &str) {
        let create = ["docker", "network", "create", "-d", "weft", "--ipam-driver", "weft", name];
        if !self.kill_in(call, when, &create) {
            let again =
                || self.host.exec(create).ok() || self.host.exec(["docker", "network", "inspect", name]).ok();
            eventually(&format!("the second try after {call} {when:?}"), Duration::from_secs(20), again);
        }
        eventually("it is the mesh's", Duration::from_secs(20), || {
            let listed = self.host.exec(["weft", "network", "ls", "--json"]).stdout;
            let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap_or_default();
            listed.iter().any(|network| network["name"] == name && network["state"] == "here")
        });
        self.host.docker(["run", "--rm", "--network", name, "busybox", "true"]).unwrap();
        self.settled(call);
        self.host.docker(["network", "rm", name]).unwrap();
        // If its last container is still seen, it must be seen unused for half a minute.
        eventually("it is gone", Duration::from_secs(60), || {
            !self.host.exec(["weft", "network", "inspect", name]).ok()
        });
    }
}

#[test]
fn the_agent_dies_in_each_call_and_nothing_is_lost() {
    let Some(lab) = hosts(1) else { return };
    lab.image().unwrap();
    let host = lab.host("h1");
    host.sh("mkdir -p /run/docker/plugins").unwrap();
    host.run(["weft", "init"]).unwrap();
    let (proxy, told) = Proxy::start(host);
    let daemon = Bench::start_agent(host, &proxy);
    let mut bench = Bench { lab: &lab, host, proxy, told, daemon };
    let content = || host.exec(["weft", "status"]).ok();
    eventually("weft status is content", Duration::from_secs(20), content);
    host.run(["weft", "network", "create", "app", "--subnet", "10.77.0.0/16"]).unwrap();
    bench.settled("at the start");
    let stays = Container::run(host, "stays", "app", &[]);
    assert_eq!(stays.v4, "10.77.0.2");

    for pinned in [true, false] {
        for when in [When::Answered, When::Asked] {
            bench.container("RequestAddress", "ReleaseAddress", when, pinned);
        }
    }
    for when in [When::Answered, When::Asked] {
        bench.container("CreateEndpoint", "DeleteEndpoint", when, false);
        bench.container("Join", "Leave", when, true);
    }
    for (when, names) in [(When::Answered, ["n1", "n2"]), (When::Asked, ["n3", "n4"])] {
        bench.network("RequestPool", "ReleasePool", when, names[0]);
        bench.network("CreateNetwork", "DeleteNetwork", when, names[1]);
    }

    // The founder dies between the range of a network and its name: a sentence, or a network; and the second try works.
    for (call, when, name) in [
        ("RequestPool", When::Answered, "d1"),
        ("RequestPool", When::Asked, "d2"),
        ("CreateNetwork", When::Answered, "d3"),
        ("CreateNetwork", When::Asked, "d4"),
    ] {
        bench.docker_network(call, when, name);
    }

    // The lowest free address is given first, so what is lost would be missing at the beginning.
    let lowest: Vec<String> = (3..=6).map(|n| format!("10.77.0.{n}")).collect();
    let took = eventually("the lowest addresses are free again", Duration::from_secs(100), || {
        let names = ["l3", "l4", "l5", "l6"];
        let all: Vec<String> = names.iter().map(|n| Container::run(host, n, "app", &[]).v4).collect();
        host.docker(["rm", "-f"].iter().chain(&names)).unwrap();
        let free = all == lowest;
        std::thread::sleep(if free { Duration::ZERO } else { Duration::from_secs(4) });
        free
    });
    println!("no address is lost: all free {:.0} s later", took.as_secs_f64());
    assert_eq!(Container::of(host, "stays", "app").v4, stays.v4);
    bench.settled("at the end");
    eventually("weft status is content", Duration::from_secs(20), content);
    bench.daemon.kill9();
}
