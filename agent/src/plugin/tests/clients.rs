//! Clients of the plugin's socket that no Docker is: too long, too many, too slow.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::super::serve::{MAX_WAITING, serve};
use super::{Bench, Bridges, Plugin, hold};

struct Socket {
    dir: tempfile::TempDir,
    _bench: Bench,
}

impl Socket {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("weft.sock")).unwrap();
        let bench = Bench::new(&[(0, 1)]);
        let plugin = Plugin::new(Arc::clone(&bench.book), Bridges::default(), Arc::new(hold));
        tokio::spawn(serve(listener, plugin));
        Self { dir, _bench: bench }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.dir.path().join("weft.sock")).await.unwrap()
    }

    /// Head and body of the answer.
    async fn call(&self, method: &str, body: &[u8]) -> (String, Value) {
        let mut stream = self.connect().await;
        let head = format!("POST /{method} HTTP/1.1\r\nHost: weft\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), serde_json::from_str(body).unwrap())
    }
}

#[tokio::test]
async fn each_call_has_a_connection_of_its_own() {
    let (head, body) = Socket::new().call("Plugin.Activate", b"").await;
    assert!(head.contains(" 200 ") && head.contains("connection: close"), "{head}");
    assert!(body["Implements"].is_array(), "{body}");
}

#[tokio::test]
async fn a_call_that_is_too_long_is_answered_by_a_sentence() {
    let socket = Socket::new();
    let body = format!(r#"{{"Pool":"{}"}}"#, "x".repeat(10_000_000));
    let (head, answer) = socket.call("IpamDriver.RequestPool", body.as_bytes()).await;
    assert!(head.contains(" 200 "), "{head}");
    let sentence = answer["Err"].as_str().unwrap();
    assert!(sentence.contains("IpamDriver.RequestPool") && sentence.contains("10000011 bytes"), "{sentence}");
}

#[tokio::test]
async fn the_oldest_of_too_many_silent_clients_makes_room() {
    let socket = Socket::new();
    let mut silent = Vec::new();
    for n in 0..MAX_WAITING + 8 {
        let mut client = socket.connect().await;
        let half = b"POST /NetworkDriver.Join HTTP/1.1\r\nContent-Length: 9\r\n\r\n{";
        client.write_all(&half[..half.len().min(n)]).await.unwrap();
        silent.push(client);
    }
    let (_, body) = socket.call("Plugin.Activate", b"").await;
    assert!(body["Implements"].is_array(), "{body}");
    assert!(closed(&mut silent[0], Duration::from_secs(5)).await, "the oldest");
    assert!(!closed(&mut silent[MAX_WAITING], Duration::from_millis(50)).await, "a younger one");
}

async fn closed(client: &mut UnixStream, limit: Duration) -> bool {
    let mut byte = [0];
    matches!(tokio::time::timeout(limit, client.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}
