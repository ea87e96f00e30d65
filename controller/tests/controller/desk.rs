//! A controller in a directory of its own, asked over its HTTP routes in this process, with a clock that the test turns.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use weft_api::id::{HostId, HostKey};
use weft_api::request::Caller;
use weft_api::roster::Cipher;
use weft_api::sign::SigningKey;
use weft_api::token::{JoinWish, Token};
use weft_controller::{Clock, Controller, ControllerKeys, Founding, OpenError};

pub struct Desk {
    pub dir: TempDir,
    pub controller: Controller,
    now: Arc<AtomicU64>,
}

pub fn keys(mesh: u8) -> ControllerKeys {
    ControllerKeys { mesh_key: SigningKey::from_seed([mesh; 32]), host_key: host(1) }
}

pub fn host(n: u8) -> SigningKey {
    SigningKey::from_seed([n; 32])
}

pub fn key(n: u8) -> HostKey {
    HostKey(host(n).public())
}

pub fn id(n: u8) -> HostId {
    key(n).id()
}

pub fn founding() -> Founding {
    Founding {
        mesh_name: "quiet-fox".into(),
        cipher: Cipher::Aes256Gcm,
        host_name: "h1".into(),
        addresses: vec!["192.0.2.1:6783".parse().unwrap()],
    }
}

impl Desk {
    /// Host 1 founds the mesh.
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let now = Arc::new(AtomicU64::new(1_800_000_000));
        let controller = Controller::found(dir.path(), keys(200), founding(), clock(&now)).unwrap();
        Self { dir, controller, now }
    }

    /// As after the end of the process, whatever way it ended.
    pub fn reopen(self) -> Self {
        let Self { dir, controller, now } = self;
        drop(controller);
        let controller = open(dir.path(), &now).unwrap();
        Self { dir, controller, now }
    }

    pub fn wait(&self, secs: u64) {
        self.now.fetch_add(secs, Ordering::Relaxed);
    }

    /// Status and body; `null` for an empty one.
    pub async fn ask(&self, caller: Caller, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).extension(caller).body(body).unwrap();
        let response = self.controller.routes().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
    }

    pub async fn admin(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask(Caller::Admin, method, path, body).await
    }

    /// The sentence of a refusal, which must have this status.
    pub async fn refused(
        &self,
        caller: Caller,
        method: &str,
        path: &str,
        body: Value,
        status: u16,
    ) -> String {
        let (got, answer) = self.ask(caller, method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        let sentence = answer["message"].as_str().unwrap().to_owned();
        assert!(sentence.contains(": ") && !sentence.ends_with('.'), "no advice in {sentence:?}");
        sentence
    }

    pub async fn token(&self, wish: Value) -> Token {
        let (status, made) = self.admin("POST", "/v1/tokens", wish).await;
        assert_eq!(status, 200, "{made}");
        Token::parse(made["token"].as_str().unwrap()).unwrap()
    }

    pub async fn join(&self, token: &Token, n: u8, name: &str) -> (u16, Value) {
        self.ask(Caller::Member(id(1)), "POST", "/v1/join", wish(token, n, name)).await
    }

    /// Host `n` is a member named `hN`.
    pub async fn member(&self, n: u8) {
        let token = self.token(json!({})).await;
        let (status, answer) = self.join(&token, n, &format!("h{n}")).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub async fn network(&self, wish: Value) -> Value {
        let (status, made) = self.admin("POST", "/v1/networks", wish).await;
        assert_eq!(status, 200, "{made}");
        made
    }
}

pub fn wish(token: &Token, n: u8, name: &str) -> Value {
    let wish = JoinWish { mesh: token.mesh, token: token.id, key: key(n), name: name.into() };
    json!({ "wish": token.key().sign(&wish) })
}

fn clock(now: &Arc<AtomicU64>) -> Clock {
    let now = now.clone();
    Arc::new(move || now.load(Ordering::Relaxed))
}

fn open(dir: &Path, now: &Arc<AtomicU64>) -> Result<Controller, OpenError> {
    Controller::open(dir, keys(200), clock(now))
}
