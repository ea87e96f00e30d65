//! Who decides is asked here: the controller of this host if it has one, else the deciding host, by the same requests on a
//! stream of the session. So are other hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http_body_util::{BodyExt, Limited};
use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tower::ServiceExt;
use weft_api::decision::{Decision, DecisionBody, DecisionKey};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{HostId, MeshKey, NetworkId};
use weft_api::request::{Caller, path};
use weft_api::roster::{RosterRecord, Standing};
use weft_api::sign::Signed;
use weft_api::succession::Succession;
use weft_client::{ExchangeError, MAX_ANSWER, exchange};
use weft_router_io::node::{ApiStream, MeshView, Node, StreamError};

/// No request to the deciding host waits longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A longer request is refused.
const MAX_BODY: usize = 64 << 10;

/// The controller of this host, as the agent sees it; `weft` composes the two.
pub trait Controller: Send + Sync + 'static {
    /// Its API; each request carries a [`Caller`].
    fn routes(&self) -> Router;
    /// Whether it decides, beside admitting and removing members.
    fn decides(&self) -> bool;
    /// Whether it holds the mesh key that signs now, and not one that was rotated.
    fn signs(&self) -> bool;
    /// A new mesh key, from now on.
    fn rotate(&self) -> Result<NewKey, ApiError>;
    /// The successors of the mesh key, up to its own.
    fn successions(&self) -> Vec<Signed<Succession>>;
    /// Rises when there is something new to spread.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Every decision.
    fn decisions(&self) -> Vec<Signed<Decision>>;
    /// Every roster record.
    fn roster(&self) -> Vec<Signed<RosterRecord>>;
    /// What a host's facts say.
    fn observe(&self, host: HostId, routes: Vec<IpNet>, endpoints: BTreeMap<NetworkId, usize>);
    /// What the mesh says in its name, verified; how much of it was news.
    fn hear(
        &self,
        roster: &BTreeMap<HostId, RosterRecord>,
        decisions: &BTreeMap<DecisionKey, Decision>,
    ) -> Result<usize, ApiError>;
    /// Where this host can be asked.
    fn set_addresses(&self, addresses: Vec<SocketAddr>) -> Result<(), ApiError>;
}

/// The mesh key was rotated here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewKey {
    /// The new key.
    pub key: MeshKey,
    /// So many times the key has been rotated.
    pub number: u32,
    /// Who held the old key beside this host: id and name.
    pub signers: Vec<(HostId, String)>,
}

/// Asks whoever decides, or signs. Cheap to clone.
#[derive(Clone)]
pub struct Deciding {
    me: HostId,
    node: Node,
    view: watch::Receiver<Arc<MeshView>>,
    /// The controller's routes, if it is here, and whether it decides.
    here: Option<(Router, bool)>,
    /// What other members may ask: what every host answers, and who decides beside that.
    served: Router,
}

impl Deciding {
    /// Asks `controller`, or else over `node`. `of_every_host`: what other members may ask of this one, deciding or not.
    pub fn new(me: HostId, node: Node, controller: Option<&dyn Controller>, of_every_host: Router) -> Self {
        let (view, here) = (node.view(), controller.map(|c| (c.routes(), c.decides())));
        let beside = here.clone().map_or_else(Router::new, |(routes, _)| routes);
        let beside = beside.fallback(async || answer(not_deciding()));
        Self { me, node, view, here, served: of_every_host.fallback_service(beside) }
    }

    /// Who decides, and its name; `None` if nobody is known to.
    #[must_use]
    pub fn who(&self) -> Option<(HostId, String)> {
        let host = self.decider()?;
        Some((host, self.name(host)))
    }

    /// Passes a request on and its answer back.
    pub async fn pass_on(&self, request: Request, caller: Caller) -> Response {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => {
                let sentence = format!("the request cannot be read: {e}");
                return answer(ApiError::new(ErrorKind::Invalid, sentence));
            }
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        match self.ask(parts.method, path, body, caller).await {
            Ok((status, body)) => {
                (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
            }
            Err(e) => answer(e),
        }
    }

    /// Posts a request in the name of this host and reads the answer.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(request)
            .map_err(|e| internal(&format!("a request cannot be written: {e}")))?;
        let (status, body) = self.ask(Method::POST, path, body.into(), Caller::Member(self.me)).await?;
        read(status, &body)
    }

    /// Asks for something to be removed, in the name of this host.
    pub async fn delete(&self, path: &str) -> Result<(), ApiError> {
        let (status, body) = self.ask(Method::DELETE, path, Bytes::new(), Caller::Member(self.me)).await?;
        read(status, &body)
    }

    /// Posts a request to another host, in the name of this one, and reads the answer.
    pub async fn post_to<T: DeserializeOwned>(
        &self,
        host: HostId,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(request)
            .map_err(|e| internal(&format!("a request cannot be written: {e}")))?;
        let (status, body) = self.exchange(host, Method::POST, path, body.into(), "").await?;
        read(status, &body)
    }

    /// Serves the streams of other members, to whom the session says it is: `own`, then what every host serves.
    pub async fn serve(&self, from: HostId, stream: ApiStream, own: Router) {
        let served = own.fallback_service(self.served.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let served = served.clone();
            async move {
                let response = call(served, request.map(Body::new), Caller::Member(from)).await;
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
        match tokio::time::timeout(PATIENCE * 2, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%from, %error, "an API stream broke"),
            Err(_) => tracing::debug!(%from, "an API stream took too long"),
        }
    }

    /// Members and tokens are any signer's affair; all else is who decides'.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        caller: Caller,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        if !is_signers(&method, path) {
            let who = self.decider().ok_or_else(nobody_known)?;
            return self.ask_one(who, &method, path, &body, caller).await;
        }
        // A token is known to the signer that made it only, so who does not know it is not the last that is asked.
        let (mut unknown, mut away) = (None, None);
        for signer in self.signers() {
            match self.ask_one(signer, &method, path, &body, caller).await {
                Ok(answer) if answer.0 == StatusCode::NOT_FOUND => unknown = unknown.or(Some(answer)),
                Ok(answer) => return Ok(answer),
                Err(why) => away = away.or(Some(why)),
            }
        }
        match (away, unknown) {
            (Some(why), _) => Err(why),
            (None, Some(answer)) => Ok(answer),
            (None, None) => Err(nobody_known()),
        }
    }

    /// Who decides; this host, if it does.
    fn decider(&self) -> Option<HostId> {
        self.decider_in(&self.view.borrow())
    }

    fn decider_in(&self, view: &MeshView) -> Option<HostId> {
        match self.here {
            Some((_, true)) => Some(self.me),
            _ => decider(view),
        }
    }

    /// Who may be asked to sign: who decides, this host, the others; not who holds an old mesh key, unless nobody else is known.
    fn signers(&self) -> Vec<HostId> {
        let here = self.here.as_ref().map(|_| self.me);
        let view = self.view.borrow();
        let signs = |host: &HostId| {
            view.roster.get(host).is_some_and(|r| r.roles.signer && r.standing == Standing::Member)
        };
        let others = view.roster.keys().copied();
        let first: Vec<HostId> = self.decider_in(&view).into_iter().chain(here).collect();
        let mut signers: Vec<HostId> = Vec::new();
        for host in first.iter().copied().chain(others).filter(signs) {
            if !signers.contains(&host) {
                signers.push(host);
            }
        }
        if signers.is_empty() { first } else { signers }
    }

    async fn ask_one(
        &self,
        host: HostId,
        method: &Method,
        path: &str,
        body: &Bytes,
        caller: Caller,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        if let Some((routes, _)) = self.here.as_ref().filter(|_| host == self.me) {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.clone()))
                .map_err(|e| internal(&e.to_string()))?;
            let response = call(routes.clone(), request, caller).await;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            return Ok((status, body.map_err(|e| internal(&e.to_string()))?.to_bytes()));
        }
        let does = if self.decider() == Some(host) { "decides" } else { "signs" };
        let role = format!(" {does} for this mesh and");
        self.exchange(host, method.clone(), path, body.clone(), &role).await
    }

    /// One request to another host. `role`: what it is, in a sentence that says that it cannot be asked.
    async fn exchange(
        &self,
        host: HostId,
        method: Method,
        path: &str,
        body: Bytes,
        role: &str,
    ) -> Result<(StatusCode, Bytes), ApiError> {
        let name = self.name(host);
        let away = |why: &dyn std::fmt::Display| {
            let sentence = format!("{name}{role} cannot be asked ({why}): try again when it is back");
            ApiError::new(ErrorKind::Unavailable, sentence)
        };
        let asked = async {
            let stream = self.node.open_stream(host).await.map_err(|e| match e {
                StreamError::Unreachable(_) => away(&"it is unreachable"),
                StreamError::NotAMember(_) => away(&"it is no member"),
                other => away(&other),
            })?;
            exchange(stream, method.clone(), path, body.clone()).await.map_err(|e| match e {
                ExchangeError::Broken(_) => away(&"the connection broke"),
                other => away(&other),
            })
        };
        tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(away(&format!("no answer within {} s", PATIENCE.as_secs()))))
    }

    fn name(&self, host: HostId) -> String {
        let view = self.view.borrow();
        view.roster.get(&host).map_or_else(|| host.to_string(), |record| record.name.clone())
    }
}

/// The noun that an answer is, or its error.
fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ApiError> {
    let unreadable = |e: serde_json::Error| internal(&format!("the answer cannot be read: {e}"));
    if status.is_success() {
        // 204 has no body; what is wanted then is `()`.
        let body = if body.is_empty() { &b"null"[..] } else { body };
        serde_json::from_slice(body).map_err(unreadable)
    } else {
        Err(serde_json::from_slice(body).map_err(unreadable)?)
    }
}

/// Whether a signer that does not decide can answer this.
fn is_signers(method: &Method, path: &str) -> bool {
    path.starts_with(path::TOKENS)
        || path == path::JOIN
        || path == path::GOODBYE
        || (method == Method::DELETE && path.starts_with(path::HOSTS))
}

/// The host that decides: as it says itself, else the member that may.
#[must_use]
pub fn decider(view: &MeshView) -> Option<HostId> {
    if let Some(DecisionBody::Controller { host, .. }) =
        view.decisions.get(&DecisionKey::Controller).and_then(|decision| decision.body.as_ref())
    {
        return Some(*host);
    }
    let may = |record: &&RosterRecord| record.roles.controller && record.standing == Standing::Member;
    view.roster.values().find(may).map(|record| record.key.id())
}

/// The answer that an error is.
pub fn answer(error: ApiError) -> Response {
    let status = StatusCode::from_u16(error.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(error)).into_response()
}

async fn call(routes: Router, request: Request, caller: Caller) -> Response {
    routes.layer(Extension(caller)).oneshot(request).await.unwrap_or_else(|never| match never {})
}

fn nobody_known() -> ApiError {
    let sentence = "this host does not know yet who decides for the mesh: wait until it has reached another member (weft hosts)";
    ApiError::new(ErrorKind::Unavailable, sentence)
}

fn not_deciding() -> ApiError {
    let sentence =
        "the host that was asked does not decide for this mesh: wait until its decisions have spread";
    ApiError::new(ErrorKind::Unavailable, sentence)
}

fn internal(why: &str) -> ApiError {
    ApiError::new(ErrorKind::Internal, why)
}

#[cfg(test)]
mod tests {
    use weft_api::id::{HostKey, MeshId};
    use weft_api::roster::Roles;

    use super::*;

    fn record(n: u8, controller: bool, standing: Standing) -> RosterRecord {
        let roles = Roles { controller, ..Roles::default() };
        RosterRecord {
            mesh: MeshId([0; 32]),
            key: HostKey([n; 32]),
            name: format!("h{n}"),
            roles,
            serial: 1,
            standing,
            under: weft_api::roster::Under::default(),
        }
    }

    #[test]
    fn who_decides_is_decided_or_else_in_the_roster() {
        let mut view = MeshView::default();
        assert_eq!(decider(&view), None);
        for record in [
            record(1, false, Standing::Member),
            record(2, true, Standing::Member),
            record(3, true, Standing::Removed),
        ] {
            Arc::make_mut(&mut view.roster).insert(record.key.id(), record);
        }
        assert_eq!(decider(&view), Some(HostKey([2; 32]).id()));
        let body = DecisionBody::Controller { host: HostKey([1; 32]).id(), addresses: Vec::new() };
        let decision = Decision {
            mesh: MeshId([0; 32]),
            revision: 1,
            signer: HostKey([2; 32]),
            key: DecisionKey::Controller,
            body: Some(body),
        };
        Arc::make_mut(&mut view.decisions).insert(DecisionKey::Controller, decision);
        assert_eq!(decider(&view), Some(HostKey([1; 32]).id()));
    }
}
