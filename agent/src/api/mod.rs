//! The admin API on /run/weft/weft.sock, for root of this host: reads are answered from what is known here, decisions are
//! asked of who decides.

mod attachments;
mod report;
mod rotation;
mod trace;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use tokio::sync::{mpsc, watch};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::request::{Caller, Leave, Rekey, path};
use weft_router_io::node::Node;

use crate::attach::Attachments;
use crate::book::Book;
use crate::deciding::{Controller, Deciding, answer};
use crate::docker::Docker;
use crate::leave::Leaving;
use crate::networks::Present;
use crate::rekey;
use crate::state::Identity;

/// A sentence names so many containers; the others it counts.
const MOST_NAMED: usize = 5;

/// Everything that a report is made of.
pub struct Api {
    /// This host.
    pub identity: Identity,
    /// Has the mesh key, if this host is a signer.
    pub signer: Option<Arc<dyn Controller>>,
    /// What is given and known here.
    pub book: Arc<Book>,
    /// The mesh.
    pub node: Node,
    /// What Docker did not start.
    pub attachments: Attachments,
    /// Who decides.
    pub deciding: Deciding,
    /// The engine.
    pub docker: watch::Receiver<Docker>,
    /// The networks on this host.
    pub present: watch::Receiver<Present>,
    /// Containers that Docker has given up on, a sentence each.
    pub stranded: watch::Receiver<Vec<String>>,
    /// Leaves the mesh.
    pub leaving: Leaving,
    /// Tells the process to end, once it has left.
    pub left: mpsc::Sender<()>,
    /// When the process started.
    pub started: Instant,
    /// The roster says that this host was removed.
    pub removed: watch::Receiver<bool>,
}

impl Api {
    /// The routes of the admin socket.
    pub fn routes(self) -> Router {
        let named = |path: &str| format!("{path}/{{name}}");
        Router::new()
            .route(path::STATUS, get(|api: Here| async move { Json(api.status()).into_response() }))
            .route(path::LINKS, get(|api: Here| async move { Json(api.links()).into_response() }))
            .route(path::ENDPOINTS, get(|api: Here| async move { Json(api.endpoints()).into_response() }))
            .route(path::HOSTS, get(|api: Here| async move { Json(api.hosts()).into_response() }))
            .route(&named(path::HOSTS), any(decide))
            .route(
                path::NETWORKS,
                get(|api: Here| async move { Json(api.networks()).into_response() }).fallback(decide),
            )
            .route(&named(path::NETWORKS), get(network).delete(remove_network).fallback(decide))
            .route(&format!("{}/{}", named(path::NETWORKS), path::HERE), post(attach).delete(detach))
            .route(&format!("{}/{{to}}", path::TRACE), get(trace))
            .route(path::CLOCKS, get(|api: Here| async move { Json(api.clocks().await).into_response() }))
            .route(path::ATTACHMENTS, post(attachments::attach).delete(attachments::detach))
            .route(path::TOKENS, any(decide))
            .route(&named(path::TOKENS), any(decide))
            .route(path::REKEY, post(fresh_keys))
            .route(path::ROTATE, post(rotation::rotate))
            .route(path::LEAVE, post(leave))
            .fallback(
                |method: Method, request: Request| async move { unknown(&method, request.uri().path()) },
            )
            .with_state(Arc::new(self))
    }
}

type Here = State<Arc<Api>>;

async fn decide(State(api): Here, request: Request) -> Response {
    api.deciding.pass_on(request, Caller::Admin).await
}

async fn network(State(api): Here, Path(name): Path<String>) -> Response {
    let mut found = api.networks().into_iter().filter(|n| n.name == name || n.id.to_string() == name);
    match found.next() {
        Some(network) => Json(network).into_response(),
        None => {
            let sentence = format!("the mesh has no network named \"{name}\": weft network ls lists them");
            answer(ApiError::new(ErrorKind::NotFound, sentence))
        }
    }
}

async fn trace(State(api): Here, Path(to): Path<String>) -> Response {
    api.trace(&to).map_or_else(answer, |trace| Json(trace).into_response())
}

/// The controller knows how many containers use a network; here they have names.
async fn remove_network(State(api): Here, Path(name): Path<String>, request: Request) -> Response {
    let users: Vec<String> = api
        .endpoints()
        .into_iter()
        .filter(|endpoint| endpoint.network == name)
        .map(|endpoint| format!("{} on {}", endpoint.container, endpoint.host))
        .collect();
    if users.is_empty() {
        return api.deciding.pass_on(request, Caller::Admin).await;
    }
    let more = users.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named = users.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let sentence = format!(
        "network {name} is in use by {named}{more}: stop or disconnect them first (weft ps lists them)"
    );
    answer(ApiError::new(ErrorKind::Conflict, sentence))
}

async fn attach(State(api): Here, Path(name): Path<String>) -> Response {
    api.put_here(&name, true).await.map_or_else(answer, IntoResponse::into_response)
}

async fn detach(State(api): Here, Path(name): Path<String>) -> Response {
    api.put_here(&name, false).await.map_or_else(answer, IntoResponse::into_response)
}

impl Api {
    /// Whether this host has a network from now on.
    async fn put_here(&self, name: &str, here: bool) -> Result<StatusCode, ApiError> {
        let mut networks = self.book.networks().into_iter();
        let network = networks.find(|n| n.name == name || n.id.to_string() == name).ok_or_else(|| {
            let sentence = format!("the mesh has no network named \"{name}\": weft network ls lists them");
            ApiError::new(ErrorKind::NotFound, sentence)
        })?;
        let endpoints = self.book.endpoints();
        let users: Vec<&str> =
            endpoints.iter().filter(|e| e.network == network.id).map(|e| e.container.as_str()).collect();
        if !here && !users.is_empty() {
            let sentence = format!(
                "network {name} is in use on this host by {}: stop or disconnect them first (weft ps lists them)",
                users.join(", ")
            );
            return Err(ApiError::new(ErrorKind::Conflict, sentence));
        }
        let book = Arc::clone(&self.book);
        let written = tokio::task::spawn_blocking(move || {
            if here { book.bring_back(network.id) } else { book.take_away(network.id, false) }
        });
        let internal = |why: String| ApiError::new(ErrorKind::Internal, why);
        written.await.map_err(|e| internal(e.to_string()))?.map_err(|e| internal(e.to_string()))?;
        Ok(StatusCode::NO_CONTENT)
    }
}

async fn fresh_keys(State(api): Here, Json(wish): Json<Rekey>) -> Response {
    let mut hosts = vec![rekey::here(&api.node, api.identity.host.clone())];
    if wish.all {
        hosts.extend(rekey::others(&api.node, &api.node.view()).await);
    }
    Json(hosts).into_response()
}

async fn leave(State(api): Here, Json(wish): Json<Leave>) -> Response {
    match api.leaving.leave(wish.force).await {
        Ok(remarks) => {
            // The answer goes out first: the process ends when the socket has been served.
            let _already_ending = api.left.try_send(());
            Json(remarks).into_response()
        }
        Err(e) => answer(e),
    }
}

fn unknown(method: &Method, path: &str) -> Response {
    let sentence = format!("there is nothing at {method} {path}: use the same version of weft as the daemon");
    let mut response = answer(ApiError::new(ErrorKind::NotFound, sentence));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
