//! Fresh keys now: of this host's sessions, or of every host's. Each host is asked on a stream of its session.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::IntoResponse;
use axum::routing::post;
use hyper::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_api::id::HostId;
use weft_api::report::Rekeyed;
use weft_api::request::path;
use weft_api::roster::Standing;
use weft_client::exchange;
use weft_router_io::node::{MeshView, Node};

/// Another host has so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What every member may ask of this host.
pub fn routes(node: Node, name: String) -> Router {
    let here = move || async move { axum::Json(here(&node, name)).into_response() };
    Router::new().route(path::REKEY, post(here))
}

/// This host's sessions.
pub fn here(node: &Node, name: String) -> Rekeyed {
    Rekeyed { host: name, sessions: Some(node.rekey()), why: None }
}

/// Every other member's, by name.
pub async fn others(node: &Node, view: &watch::Receiver<Arc<MeshView>>) -> Vec<Rekeyed> {
    let view = Arc::clone(&view.borrow());
    let mut asked = JoinSet::new();
    for (host, record) in view.roster.iter() {
        if record.standing == Standing::Member && *host != node.id() {
            asked.spawn(ask(node.clone(), *host, record.name.clone()));
        }
    }
    let mut done = asked.join_all().await;
    done.sort_by(|a, b| a.host.cmp(&b.host));
    done
}

async fn ask(node: Node, host: HostId, name: String) -> Rekeyed {
    let asked = async {
        let stream = node.open_stream(host).await.map_err(|e| e.to_string())?;
        let answer = exchange(stream, Method::POST, path::REKEY, Bytes::new()).await;
        let (status, body) = answer.map_err(|e| e.to_string())?;
        if !status.is_success() {
            return Err(format!("it answers {status}: use the same version of weft on all hosts"));
        }
        serde_json::from_slice::<Rekeyed>(&body).map_err(|e| format!("its answer cannot be read ({e})"))
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
    match answer {
        Ok(Rekeyed { sessions, .. }) => Rekeyed { host: name, sessions, why: None },
        Err(why) => Rekeyed { host: name, sessions: None, why: Some(why) },
    }
}
