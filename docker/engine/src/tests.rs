//! A made-up engine on a socket that says what Engine 20.10.24 said (`golden/`), and worse.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use weft_api::id::{Mac, NetworkId};
use weft_api::network::{Network, Origin, Subnet};

use super::{EVENT_QUEUE, Engine, EngineError, EnsureError, Event, RemoveError, Stranded, socket};

const VERSION: &str = include_str!("../golden/version.json");
const NETWORKS: &str = include_str!("../golden/networks.json");
const NETWORK: &str = include_str!("../golden/network.json");
const CONTAINERS: &str = include_str!("../golden/containers.json");
const EVENTS: &str = include_str!("../golden/events.jsonl");
const NET1: &str = "432bc72ce0da9d534e85114f2ef7876aa705f208c3a9049927cd602a5e5f8190";

fn net1() -> Network {
    let subnet = |range: &str, gateway: &str| Subnet {
        range: range.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
    };
    Network {
        id: NetworkId(0xbeef),
        name: "net1".into(),
        subnets: vec![subnet("10.50.0.0/16", "10.50.0.1"), subnet("fd77::/64", "fd77::1")],
        mtu: 1340,
        internal: false,
        origin: Origin::Weft,
    }
}

fn usual(request: &str) -> (u16, String) {
    let body = match request.split(['?', ' ']).nth(1).unwrap() {
        "/version" => VERSION,
        "/_ping" => "OK",
        "/networks" => NETWORKS,
        "/containers/json" => CONTAINERS,
        "/events" => EVENTS,
        path if request.starts_with("GET") && path.starts_with("/networks/") => NETWORK,
        _ => return (403, r#"{"message":"error while removing network: it has active endpoints"}"#.into()),
    };
    (200, body.into())
}

#[tokio::test]
async fn networks_and_containers_as_docker_tells_them() {
    let fake = Fake::start(usual);
    let engine = fake.connect().await.unwrap();
    assert_eq!(engine.version().engine, "20.10.24+dfsg1");
    let networks = engine.networks().await.unwrap();
    assert_eq!(networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["net1", "app", "aux"]);
    assert_eq!(networks[2].network, None);
    let found = engine.ensure_network(&net1(), &[]).await.unwrap();
    assert_eq!((found.id.as_str(), found.created), (NET1, false));
    let containers = engine.containers(NET1, "net1").await.unwrap();
    assert_eq!((containers[0].name.as_str(), containers[0].running), ("old", false));
    assert_eq!((containers[0].endpoint.as_str(), containers[0].mac), ("", None));
    let web = &containers[1];
    assert_eq!((web.name.as_str(), web.running), ("web2", true));
    assert_eq!(web.addresses, ["10.50.0.2".parse::<std::net::IpAddr>().unwrap(), "fd77::4".parse().unwrap()]);
    assert_eq!(web.mac, Some(Mac([2, 0x42, 10, 50, 0, 2])));
}

#[tokio::test]
async fn a_network_in_use_names_its_users() {
    let fake = Fake::start(usual);
    let engine = fake.connect().await.unwrap();
    let users = vec!["web2".to_owned()];
    assert_eq!(
        engine.remove_network(NET1).await,
        Err(RemoveError::InUse { name: "net1".into(), containers: users.clone() })
    );
    let other = Network { mtu: 1300, ..net1() };
    assert_eq!(
        engine.ensure_network(&other, &[]).await,
        Err(EnsureError::Differs { name: "net1".into(), containers: users })
    );
}

#[tokio::test]
async fn a_taken_name_is_said_and_nothing_is_made() {
    let fake = Fake::start(usual);
    let engine = fake.connect().await.unwrap();
    let other = Network { id: NetworkId(1), ..net1() };
    let error = engine.ensure_network(&other, &[]).await.unwrap_err();
    assert!(matches!(&error, EnsureError::NameTaken { network: Some(NetworkId(0xbeef)), .. }), "{error}");
    assert!(error.to_string().contains("432bc72ce0da"), "{error}");
    let bridge = Network { name: "bridge".into(), ..other };
    let error = engine.ensure_network(&bridge, &[]).await.unwrap_err();
    assert!(matches!(&error, EnsureError::NameTaken { driver, .. } if driver == "bridge"), "{error}");
    assert!(!fake.asked().iter().any(|request| request.starts_with("POST")));
}

#[tokio::test]
async fn who_comes_second_gives_way() {
    // The name is free when we look, and taken when we have made ours.
    let fake = Fake::start(|request| match request {
        r if r.starts_with("POST /networks/create") => (201, r#"{"Id":"mine","Warning":""}"#.into()),
        r if r.starts_with("DELETE /networks/mine") => (204, String::new()),
        _ => usual(request),
    });
    let named = |id: &str| format!(r#"[{{"Name":"late","Id":"{id}","Driver":"bridge"}}]"#);
    let lists = Mutex::new(vec![named("theirs"), "[]".to_owned(), "[]".to_owned()]);
    fake.instead("/networks?", move || lists.lock().unwrap().pop().unwrap());
    let engine = fake.connect().await.unwrap();
    let error = engine.ensure_network(&Network { name: "late".into(), ..net1() }, &[]).await.unwrap_err();
    assert!(matches!(&error, EnsureError::NameTaken { short, .. } if short == "theirs"), "{error}");
    assert!(fake.asked().iter().any(|request| request.starts_with("DELETE /networks/mine")));
}

#[tokio::test]
async fn engines_that_cannot_be_used() {
    let absent = Engine::connect_to("/nonexistent/docker.sock").await.unwrap_err();
    assert!(matches!(absent, EngineError::Absent { .. }) && absent.is_passing(), "{absent}");
    let old = Fake::start(|_| (200, r#"{"Version":"19.03.15","ApiVersion":"1.40"}"#.into()));
    let error = old.connect().await.unwrap_err();
    assert!(matches!(error, EngineError::TooOld { .. }) && !error.is_passing(), "{error}");
    let mad = Fake::start(|_| (200, "[[[".into()));
    let error = mad.connect().await.unwrap_err();
    assert!(matches!(error, EngineError::Unreadable { .. }), "{error}");
    let cross = Fake::start(|_| (500, r#"{"message":"no such thing."}"#.into()));
    let error = cross.connect().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Docker refuses to tell its version: no such thing; see its log (journalctl -u docker)"
    );
}

#[tokio::test]
async fn who_is_stranded_and_who_was_stopped() {
    let inspected = |id: &str| {
        let (policy, error, started) = match id {
            "boot" => ("always", "plugin \\\"weft\\\" not found", "2026-11-21T12:42:52.2Z"),
            "stopped" => ("unless-stopped", "", "2026-11-21T12:42:52.2Z"),
            "once" => ("no", "plugin \\\"weft\\\" not found", "2026-11-21T12:42:52.2Z"),
            "never" => ("always", "remote: network app is full on this host", "0001-01-01T00:00:00Z"),
            _ => (
                "on-failure",
                "driver failed programming: port is already allocated",
                "2026-11-21T12:42:52.2Z",
            ),
        };
        format!(
            r#"{{"Id":"{id}","Name":"/{id}","State":{{"Status":"exited","Error":"{error}","StartedAt":"{started}"}},
            "HostConfig":{{"RestartPolicy":{{"Name":"{policy}","MaximumRetryCount":0}}}},
            "NetworkSettings":{{"Networks":{{"app":{{"NetworkID":"net","EndpointID":""}},"old":{{"NetworkID":""}}}}}}}}"#
        )
    };
    let fake = Fake::start(move |request| match request.split(['?', ' ']).nth(1).unwrap() {
        "/containers/json" => {
            let ids =
                ["boot", "stopped", "once", "never", "port", "gone"].map(|id| format!(r#"{{"Id":"{id}"}}"#));
            (200, format!("[{}]", ids.join(",")))
        }
        "/containers/gone/json" | "/containers/gone/start" => {
            (404, r#"{"message":"No such container"}"#.into())
        }
        "/containers/boot/start" => (304, String::new()),
        "/containers/port/start" => (500, r#"{"message":"port is already allocated"}"#.into()),
        path if path.ends_with("/json") => (200, inspected(path.split('/').nth(2).unwrap())),
        _ => usual(request),
    });
    let engine = fake.connect().await.unwrap();
    let found = engine.stranded(&["net".to_owned()]).await.unwrap();
    let boot = Stranded {
        id: "boot".into(),
        name: "boot".into(),
        networks: vec!["net".into()],
        why: "plugin \"weft\" not found".into(),
    };
    assert_eq!(found, [boot]);
    assert_eq!(engine.stranded(&[]).await.unwrap(), []);
    assert_eq!(engine.start("boot").await, Ok(()));
    assert_eq!(engine.start("gone").await, Ok(()));
    assert!(engine.start("port").await.unwrap_err().to_string().contains("port is already"));
}

#[test]
fn docker_host() {
    assert_eq!(socket(None).unwrap(), "/run/docker.sock");
    assert_eq!(socket(Some(String::new())).unwrap(), "/run/docker.sock");
    assert_eq!(socket(Some("unix:///x/y".into())).unwrap(), "/x/y");
    assert!(socket(Some("tcp://192.0.2.1:2376".into())).unwrap_err().to_string().contains("tcp://192.0.2.1"));
}

#[tokio::test]
async fn events_are_read_and_a_gap_is_told() {
    let fake = Fake::start(usual);
    let mut events = fake.connect().await.unwrap().events();
    let mut got = Vec::new();
    loop {
        let event = next(&mut events).await;
        let end = event == Event::Away;
        got.push(event);
        if end {
            break;
        }
    }
    let (web, net) = ("acf5e87e4dd3b0ad5a91273291f3612488cb76f1d79d85ecc48e3766299b7924", NET1.to_owned());
    assert_eq!(got[0], Event::Resync);
    for expected in [
        Event::NetworkCreated { id: net.clone(), name: "net1".into() },
        Event::Connected { network: net.clone(), container: web.into() },
        Event::ContainerStarted { id: web.into(), name: "web".into() },
        Event::ContainerRenamed { id: web.into(), name: "web2".into() },
        Event::ContainerDied { id: web.into(), name: "web2".into() },
        Event::Disconnected { network: net.clone(), container: web.into() },
        Event::ContainerDestroyed { id: web.into(), name: "web2".into() },
        Event::NetworkDestroyed { id: net, name: "net1".into() },
    ] {
        assert!(got.contains(&expected), "{expected:?} is not in {got:?}");
    }
    assert_eq!(next(&mut events).await, Event::Resync, "it subscribes again");
}

#[tokio::test]
async fn a_slow_reader_is_told_to_list_again() {
    let line = EVENTS.lines().next().unwrap().to_owned() + "\n";
    let fake = Fake::start(move |request| match request {
        r if r.starts_with("GET /events") => (200, line.repeat(2 * EVENT_QUEUE)),
        _ => usual(request),
    });
    let mut events = fake.connect().await.unwrap().events();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut read = 0;
    assert_eq!(next(&mut events).await, Event::Resync);
    while next(&mut events).await != Event::Resync {
        read += 1;
    }
    assert!((1..=EVENT_QUEUE).contains(&read), "{read}");
}

proptest! {
    #[test]
    fn whatever_docker_says_is_read_without_panic(
        text in ".{0,40}",
        action in prop::sample::select(&["create", "connect", "disconnect", "rename", "die", ""][..]),
        kind in prop::sample::select(&["network", "container", "image"][..]),
        id in prop::option::of("[0-9a-z]{0,70}"),
    ) {
        let attributes = serde_json::json!({"name": text, "container": id, "type": "weft"});
        let event = serde_json::json!({"Type": kind, "Action": action, "Actor": {"ID": id, "Attributes": attributes}});
        if let Ok(message) = serde_json::from_value(event) {
            let _ = super::events::read(message);
        }
        let config = serde_json::json!([{"Subnet": text, "Gateway": text}]);
        let options = serde_json::json!({"weft.network": text, "com.docker.network.driver.mtu": text});
        let network = serde_json::json!({"Name": text, "Id": id, "Options": options, "IPAM": {"Config": config}});
        let _ = super::network::read(serde_json::from_value(network).unwrap());
        let at = serde_json::json!({"NetworkID": id, "IPAddress": text, "MacAddress": text});
        let container = serde_json::json!({"Id": id, "Names": [text], "NetworkSettings": {"Networks": {"x": at}}});
        let inspected = serde_json::json!({
            "Id": id, "Name": text, "State": {"Status": "exited", "Error": text, "StartedAt": text},
            "HostConfig": {"RestartPolicy": {"Name": "always"}}, "NetworkSettings": {"Networks": {"x": at.clone()}},
        });
        let _ = super::stranded::read(serde_json::from_value(inspected).unwrap());
        let _ = super::network::container(serde_json::from_value(container).unwrap(), &id.unwrap_or_default(), "app");
    }
}

async fn next(events: &mut tokio::sync::mpsc::Receiver<Event>) -> Event {
    tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap()
}

type Answer = dyn Fn(&str) -> (u16, String) + Send + Sync;
type Instead = Option<(&'static str, Box<dyn Fn() -> String + Send>)>;

/// Answers each connection's one request, then closes.
struct Fake {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    instead: Arc<Mutex<Instead>>,
}

impl Fake {
    fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let fake = Self { dir, asked: Arc::default(), instead: Arc::default() };
        let (asked, instead) = (fake.asked.clone(), fake.instead.clone());
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _client_gone = serve(stream.unwrap(), &answer, &asked, &instead);
            }
        });
        fake
    }

    async fn connect(&self) -> Result<Engine, EngineError> {
        Engine::connect_to(self.dir.path().join("docker.sock").to_str().unwrap()).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn instead(&self, part: &'static str, body: impl Fn() -> String + Send + 'static) {
        *self.instead.lock().unwrap() = Some((part, Box::new(body)));
    }
}

fn serve(
    stream: UnixStream,
    answer: &Arc<Answer>,
    asked: &Mutex<Vec<String>>,
    instead: &Mutex<Instead>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    asked.lock().unwrap().push(request.clone());
    let replaced =
        instead.lock().unwrap().as_ref().and_then(|(part, body)| request.contains(part).then(body));
    let (status, body) = replaced.map_or_else(|| answer(&request), |body| (200, body));
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.shutdown(std::net::Shutdown::Write)
}
