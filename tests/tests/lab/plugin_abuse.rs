//! The plugin's socket under calls that no sane Docker makes: one sentence each, the agent lives, Docker notices nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{Host, Mesh};

use crate::fixture::{Container, deadline, hosts};
use crate::truth;

/// Clients that connect, send half a call and then nothing.
const HUNG: usize = 600;
/// Seconds after which each of them is closed.
const HUNG_ENDS: f64 = 15.0;
const SOON: Duration = Duration::from_secs(3);

const PLUGIN: &str = "run/docker/plugins/weft.sock";

fn connect(host: &Host, socket: &str) -> UnixStream {
    let path = format!("/proc/{}/root/{socket}", host.holder().unwrap());
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// HTTP status and body of one call.
fn call(host: &Host, method: &str, body: &[u8]) -> (u16, String) {
    call_at(host, PLUGIN, method, body)
}

fn call_at(host: &Host, socket: &str, method: &str, body: &[u8]) -> (u16, String) {
    let mut stream = connect(host, socket);
    let kind = "Content-Type: application/json\r\nConnection: close";
    let head =
        format!("POST /{method} HTTP/1.1\r\nHost: weft\r\n{kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    // A server that has heard enough closes its ear; its answer is there all the same.
    let _refused = stream.write_all(body);
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned()).unwrap_or_default();
    (status, body)
}

/// One sentence, in the field that Docker shows to people, that holds this word.
fn refused(host: &Host, method: &str, body: &str, word: &str) {
    let start = Instant::now();
    let (status, answer) = call(host, method, body.as_bytes());
    let shown: String = body.chars().take(60).collect();
    assert!(start.elapsed() < SOON, "{method} {shown}: took {:?}", start.elapsed());
    let json: Value =
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {shown}: {status} {answer}: {e}"));
    let sentence = json["Err"].as_str().unwrap_or_else(|| panic!("{method} {shown}: no Err in {answer}"));
    println!("{method} {shown}: {sentence}");
    assert!(!sentence.contains('\n') && sentence.len() < 300, "{method} {shown}: one sentence: {sentence}");
    assert!(sentence.contains(word), "{method} {shown} should say {word:?}: {sentence}");
}

fn granted(host: &Host, method: &str, body: &str) {
    let (status, answer) = call(host, method, body.as_bytes());
    assert_eq!((status, answer.as_str()), (200, "{}"), "{method} {body}");
}

#[test]
fn one_sentence_each_and_docker_goes_on() {
    let Some(lab) = hosts(1) else { return };
    let mut mesh = Mesh::up(&lab, &[]).unwrap();
    mesh.network(&["app", "--subnet", "10.77.0.0/24"]).unwrap();
    let host = lab.host("h1");
    let a = Container::run(host, "alpha", "app", &[]);
    let networks: Value =
        serde_json::from_str(&host.run(["weft", "network", "ls", "--json"]).unwrap()).unwrap();
    let id = networks[0]["id"].as_str().unwrap().to_owned();
    let docker = host.docker(["network", "inspect", "-f", "{{.Id}}", "app"]).unwrap();
    let before = truth::weft_says(host).unwrap();

    unreadable(host);
    wrong_values(host, &id, &docker, &a.v4);
    unknown_ids(host, &id, &docker);
    too_long(host);
    hung_clients(host);

    assert_eq!(mesh.daemons()[0].ended(), None, "the agent lives");
    assert_eq!(truth::weft_says(host).unwrap(), before, "nothing has changed");
    assert_eq!(truth::difference(&lab), None);
    mesh.wait_ready().unwrap();
}

fn unreadable(host: &Host) {
    refused(host, "IpamDriver.RequestPool", "not json", "RequestPool");
    refused(host, "IpamDriver.RequestAddress", "[1,2", "RequestAddress");
    refused(host, "NetworkDriver.Join", "42", "Join");
    refused(host, "NetworkDriver.Join", "{\"NetworkID\": 5}", "Join");
    refused(host, "NetworkDriver.Leave", "\u{1}\u{2}", "Leave");
    refused(host, "NetworkDriver.NoSuchCall", "{}", "NoSuchCall");
    refused(host, "", "{}", "call");
    let deep = "[".repeat(100_000);
    refused(host, "NetworkDriver.CreateNetwork", &deep, "CreateNetwork");
    refused(host, "IpamDriver.RequestAddress", "{}", "");
    for method in ["CreateNetwork", "CreateEndpoint", "Join", "EndpointOperInfo"] {
        refused(host, &format!("NetworkDriver.{method}"), "{}", "");
        refused(host, &format!("NetworkDriver.{method}"), "", "");
    }
}

fn wrong_values(host: &Host, id: &str, docker: &str, taken: &str) {
    let pool = |range: &str| format!(r#"{{"Pool":"{range}","Options":{{"weft.network":"{id}"}}}}"#);
    for range in ["10.99.0.0/16", "10.77.0.1/24", "10.77.0.0/33", "::ffff:10.77.0.0/120", "x"] {
        refused(host, "IpamDriver.RequestPool", &pool(range), "");
    }
    let none = r#"{"Options":{"weft.network":"ffffffff"}}"#;
    refused(host, "IpamDriver.RequestPool", none, "ffffffff");
    let address = |pool: &str, address: &str| format!(r#"{{"PoolID":"{pool}","Address":"{address}"}}"#);
    let ours = format!("{id}/10.77.0.0/24");
    for (pool, wanted, word) in [
        (ours.as_str(), taken, "alpha"),
        (&ours, "10.77.0.0", "10.77.0.0"),
        (&ours, "10.77.0.1", "10.77.0.1"),
        (&ours, "10.77.0.255", "10.77.0.255"),
        (&ours, "10.99.0.1", "10.99.0.1"),
        (&ours, "fd00::1", "fd00::1"),
        (&ours, "elsewhere", "elsewhere"),
        ("nonsense", "10.77.0.9", "nonsense"),
        ("", "", ""),
    ] {
        refused(host, "IpamDriver.RequestAddress", &address(pool, wanted), word);
    }
    let endpoint = |at: &str, address: &str, mac: &str| {
        let interface = format!(r#"{{"Address":"{address}","MacAddress":"{mac}"}}"#);
        format!(r#"{{"NetworkID":"{docker}","EndpointID":"{at}","Interface":{interface}}}"#)
    };
    let new = "e".repeat(64);
    for (at, address, mac) in [
        (new.as_str(), "10.77.0.200/24", ""),
        (&new, "10.77.0.200", ""),
        (&new, "", ""),
        (&new, "", "ff:ff:ff:ff:ff:ff"),
        (&new, "", "zz"),
        ("../../etc/passwd", "10.77.0.200/24", ""),
        ("", "10.77.0.200/24", ""),
        ("short", "10.77.0.200/24", ""),
    ] {
        refused(host, "NetworkDriver.CreateEndpoint", &endpoint(at, address, mac), "");
    }
}

fn unknown_ids(host: &Host, id: &str, docker: &str) {
    let unknown = "f".repeat(64);
    let at = |network: &str| format!(r#"{{"NetworkID":"{network}","EndpointID":"{unknown}"}}"#);
    refused(host, "NetworkDriver.Join", &at(docker), "ffffffffffff");
    refused(host, "NetworkDriver.CreateEndpoint", &at(&unknown), "ffffffffffff");
    for network in [docker, unknown.as_str(), ""] {
        granted(host, "NetworkDriver.Leave", &at(network));
        granted(host, "NetworkDriver.DeleteEndpoint", &at(network));
    }
    granted(host, "NetworkDriver.DeleteNetwork", &format!(r#"{{"NetworkID":"{unknown}"}}"#));
    for pool in [format!("{id}/10.77.0.0/24"), "ffffffff/10.1.0.0/16".into(), "nonsense".into()] {
        granted(
            host,
            "IpamDriver.ReleaseAddress",
            &format!(r#"{{"PoolID":"{pool}","Address":"10.77.0.250"}}"#),
        );
    }
    granted(host, "IpamDriver.ReleasePool", r#"{"PoolID":"nonsense"}"#);
}

fn too_long(host: &Host) {
    let body = format!(r#"{{"Pool":"{}"}}"#, "x".repeat(10_000_000));
    let (status, answer) = call(host, "IpamDriver.RequestPool", body.as_bytes());
    println!("10 MB: {status} {answer}");
    assert!(status == 200 && answer.contains("10000011 bytes"), "10 MB: {status} {answer}");
    let json: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(json["Err"].as_str().map(|sentence| sentence.lines().count()), Some(1), "{answer}");

    // The same through Docker: the person who asked it sees the sentence.
    let wish = serde_json::json!({
        "Name": "long", "Driver": "weft", "IPAM": {"Driver": "weft"}, "Options": {"weft.mtu": "1".repeat(1_000_000)},
    });
    let (_, said) = call_at(host, "run/docker.sock", "networks/create", wish.to_string().as_bytes());
    println!("1 MB through Docker: {}", said.trim());
    assert!(said.contains("leave out the option"), "{said}");
}

fn hung_clients(host: &Host) {
    let half = b"POST /NetworkDriver.Join HTTP/1.1\r\nHost: weft\r\nContent-Length: 1000\r\n\r\n{";
    let hung: Vec<UnixStream> = (0..HUNG)
        .map(|n| {
            let mut stream = connect(host, PLUGIN);
            stream.write_all(&half[..half.len().min(n)]).unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    host.docker(["run", "--rm", "--network", "app", "busybox", "true"]).unwrap();
    println!("docker run beside {HUNG} hung clients: {:.2} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < 2 * SOON, "docker run took {:?}", start.elapsed());
    for mut client in hung {
        client.set_read_timeout(Some(deadline(HUNG_ENDS))).unwrap();
        let mut byte = [0];
        let read = client.read(&mut byte);
        let open = matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!open, "a hung client is still served after {:?}: {read:?}", start.elapsed());
    }
    println!("all {HUNG} are closed after {:.1} s", start.elapsed().as_secs_f64());
}
