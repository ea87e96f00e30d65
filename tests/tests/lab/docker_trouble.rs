//! A Docker that hangs, answers with errors, or is another one all of a sudden: `weft status` says so soon, nothing of weft hangs
//! with it, and all heals by itself. Between the agent and the engine sits a proxy that plays each of these.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use weft_lab::Host;

use crate::fixture::{deadline, eventually, hosts};

const PROXY: &str = "run/proxy.sock";
const THROUGH_PROXY: [&str; 2] = ["env", "DOCKER_HOST=unix:///run/proxy.sock"];

/// What the proxy does with each call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Well,
    /// It takes calls and does not answer.
    Hangs,
    /// It answers everything with 500.
    Cross,
    /// It is another version of Docker.
    Upgraded,
}

#[derive(Clone)]
struct Proxy {
    root: String,
    mood: Arc<AtomicU8>,
}

impl Proxy {
    /// Serves until the test's process ends.
    fn start(host: &Host) -> Self {
        let root = format!("/proc/{}/root", host.holder().unwrap());
        let listener = UnixListener::bind(format!("{root}/{PROXY}")).unwrap();
        let proxy = Self { root, mood: Arc::default() };
        let server = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.pass(client));
            }
        });
        proxy
    }

    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    fn is(&self, mood: Mood) -> bool {
        self.mood.load(Ordering::SeqCst) == mood as u8
    }

    /// One call, then the connection ends.
    fn pass(&self, mut client: UnixStream) -> io::Result<()> {
        let (head, body) = read_call(&client)?;
        while self.is(Mood::Hangs) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.is(Mood::Cross) {
            return answer(&mut client, "500 Internal Server Error", r#"{"message":"the disk is on fire"}"#);
        }
        let mut engine = UnixStream::connect(format!("{}/run/docker.sock", self.root))?;
        engine.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
        engine.write_all(&body)?;
        if self.is(Mood::Upgraded) && head.contains("/version") {
            let mut said = String::new();
            engine.read_to_string(&mut said)?;
            return answer(&mut client, "200 OK", r#"{"Version":"99.0.1","ApiVersion":"1.99"}"#);
        }
        io::copy(&mut engine, &mut client).map(drop)
    }
}

fn read_call(client: &UnixStream) -> io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let from = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = head[from..].trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((head, body))
}

fn answer(client: &mut UnixStream, status: &str, body: &str) -> io::Result<()> {
    let head = "Content-Type: application/json\r\nConnection: close";
    write!(client, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A command ends within so many seconds; what it printed.
fn soon(host: &Host, seconds: f64, argv: &[&str]) -> weft_lab::Output {
    let start = Instant::now();
    let out = host.exec(argv);
    let took = start.elapsed();
    println!("  {:.1} s: {}: {}{}", took.as_secs_f64(), argv.join(" "), out.stdout.trim(), out.stderr.trim());
    assert!(took < deadline(seconds), "{}: took {took:?}", argv.join(" "));
    out
}

#[test]
fn trouble_of_docker_is_said_and_heals() {
    let Some(lab) = hosts(1) else { return };
    lab.image().unwrap();
    let host = lab.host("h1");
    host.run(["weft", "init"]).unwrap();
    let proxy = Proxy::start(host);
    let mut daemon = host.spawn(THROUGH_PROXY.iter().chain(&["weft", "up"]), "weft.log").unwrap();
    let content = |what: &str| {
        let took = eventually(what, Duration::from_secs(15), || host.exec(["weft", "status"]).ok());
        println!("{what}: after {:.1} s", took.as_secs_f64());
    };
    let says = |words: &[&str]| {
        let took = eventually(&format!("status says {words:?}"), Duration::from_secs(10), || {
            let out = host.exec(["weft", "status"]);
            out.status == 1 && words.iter().all(|word| out.stdout.contains(word))
        });
        println!("status says {words:?}: after {:.1} s", took.as_secs_f64());
    };
    content("well at the start");
    host.run(["weft", "network", "create", "app"]).unwrap();
    eventually("the network in Docker", Duration::from_secs(10), || {
        host.exec(["docker", "network", "inspect", "app"]).ok()
    });

    proxy.set(Mood::Hangs);
    let refused = soon(host, 8.0, &["weft", "attach", "web", "app"]);
    assert!(!refused.ok() && refused.stderr.contains("Docker"), "{refused}");
    says(&["Docker not ok", "gave no answer"]);
    // Docker itself is well, so what needs only the plugin does.
    assert!(soon(host, 8.0, &["docker", "run", "--rm", "--network", "app", "busybox", "true"]).ok());
    assert!(soon(host, 5.0, &["weft", "network", "create", "later"]).ok());
    assert!(soon(host, 2.0, &["weft", "expose", "app"]).ok());
    let doctor: Vec<&str> = THROUGH_PROXY.iter().copied().chain(["weft", "doctor"]).collect();
    let looked = soon(host, 12.0, &doctor);
    assert!(!looked.ok() && looked.stdout.contains("gave no answer"), "{looked}");
    proxy.set(Mood::Well);
    content("it answers again");
    eventually("Docker hears of what was made meanwhile", Duration::from_secs(15), || {
        host.exec(["docker", "network", "inspect", "later"]).ok()
    });

    proxy.set(Mood::Cross);
    says(&["Docker not ok", "the disk is on fire"]);
    assert!(soon(host, 5.0, &["weft", "network", "create", "third"]).ok());
    proxy.set(Mood::Well);
    content("no errors any more");

    host.engine_stop().unwrap();
    says(&["Docker not ok", "start it"]);
    proxy.set(Mood::Upgraded);
    host.engine_start().unwrap();
    content("another Docker");
    let log = std::fs::read_to_string(host.log_dir().join("weft.log")).unwrap();
    assert!(log.contains("99.0.1"), "the agent talks to the new one");
    assert!(soon(host, 8.0, &["docker", "run", "--rm", "--network", "third", "busybox", "true"]).ok());
    daemon.kill9();
}
