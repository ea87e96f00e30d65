//! The HTTP API of decisions, and who may ask what. A member may ask for whatever an administrator may, since the CLI works on
//! every host and whoever is root there speaks through it; but only for itself where it matters: a block is its own.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_api::decision::DecisionBody;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::HostId;
use weft_api::request::{
    BlockGranted, Caller, CreateNetwork, GiveUp, HoldRange, Join, Lend, NewToken, WantBlock, path,
};
use weft_controller_state::{Command, Event, Refusal};

use crate::controller::Controller;

/// No request is nearly as long; a longer one is refused with 413.
const MAX_BODY: usize = 64 << 10;

type Answer = Result<Response, ApiError>;
type Asked = (State<Controller>, Option<Extension<Caller>>);

pub(crate) fn routes(controller: Controller) -> Router {
    let named = |path: &str, what: &str| format!("{path}/{{{what}}}");
    let decisions = Router::new()
        .route(path::NETWORKS, post(create_network))
        .route(&named(path::NETWORKS, "name"), delete(remove_network))
        .route(path::RANGES, post(hold_range))
        .route(path::BLOCKS, post(grant_block))
        .route(path::LEASES, post(lend))
        .route(path::GIVEN_UP, post(give_up));
    let decisions = if controller.decides() { decisions } else { Router::new() };
    decisions
        .route(path::TOKENS, get(list_tokens).post(new_token))
        .route(&named(path::TOKENS, "id"), delete(remove_token))
        .route(&named(path::HOSTS, "name"), delete(remove_host))
        .route(path::JOIN, post(join))
        .route(path::GOODBYE, post(goodbye))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(controller)
}

async fn create_network(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, _| {
        let wish = read_network(&body)?;
        let held = wish.held;
        let made = controller.run(Command::CreateNetwork(wish), |state, events| {
            let made = events.iter().find_map(|event| match event {
                Event::Decided { body: Some(DecisionBody::Network(network)), .. } => Some(network.clone()),
                _ => None,
            });
            made.or_else(|| state.network(held?).cloned())
        })?;
        json(&made)
    })
    .await
}

async fn hold_range(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, caller| {
        let wish: HoldRange = read(&body)?;
        let host =
            host(caller, "ranges are held for hosts, not for people: weft network create makes a network")?;
        json(&controller.hold(host, &wish)?)
    })
    .await
}

async fn remove_network(asked: Asked, Path(name): Path<String>) -> Response {
    answer(asked, move |controller, _| done(controller, Command::RemoveNetwork { name })).await
}

async fn list_tokens(asked: Asked) -> Response {
    answer(asked, |controller, _| json(&controller.read(|state| state.tokens().collect::<Vec<_>>()))).await
}

async fn new_token(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, _| json(&controller.new_token(read::<NewToken>(&body)?)?)).await
}

async fn remove_token(asked: Asked, Path(id): Path<String>) -> Response {
    answer(asked, move |controller, _| done(controller, Command::RemoveToken { id })).await
}

async fn remove_host(asked: Asked, Path(name): Path<String>) -> Response {
    answer(asked, move |controller, _| done(controller, Command::RemoveHost { name })).await
}

async fn grant_block(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, caller| {
        let want: WantBlock = read(&body)?;
        let host =
            host(caller, "blocks are given to hosts, not to people: start a container, and its host asks")?;
        let (network, range) = (want.network, want.range);
        let blocks = controller.run(Command::GrantBlock { host, want }, |state, _| {
            state.blocks_of(network, range, host).collect()
        })?;
        json(&BlockGranted { blocks })
    })
    .await
}

async fn lend(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, caller| {
        let loan: Lend = read(&body)?;
        let host = host(caller, "addresses are lent by hosts, not by people: docker run --ip asks for one")?;
        done(controller, Command::Lend { host, loan })
    })
    .await
}

async fn give_up(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, caller| {
        let what: GiveUp = read(&body)?;
        let host = host(caller, "blocks are given back by hosts, not by people: each does it by itself")?;
        done(controller, Command::GiveUp { host, what })
    })
    .await
}

/// The host that asks; people get the sentence.
fn host(caller: Caller, sentence: &str) -> Result<HostId, ApiError> {
    match caller {
        Caller::Member(host) => Ok(host),
        Caller::Admin => Err(ApiError::new(ErrorKind::Forbidden, sentence)),
    }
}

async fn join(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, _| {
        let Join { wish } = read(&body)?;
        controller.run(Command::Join { wish }, |_, _| ())?;
        json(&controller.admitted())
    })
    .await
}

async fn goodbye(asked: Asked, body: Bytes) -> Response {
    answer(asked, move |controller, _| done(controller, Command::Goodbye { goodbye: read(&body)? })).await
}

/// Runs what blocks (a write to the disk) outside the runtime's threads, for those who may ask.
async fn answer(
    (State(controller), caller): Asked,
    work: impl FnOnce(&Controller, Caller) -> Answer + Send + 'static,
) -> Response {
    let caller = caller.map(|Extension(caller)| caller);
    let worked = tokio::task::spawn_blocking(move || work(&controller, admitted(&controller, caller)?)).await;
    let answer = worked.unwrap_or_else(|e| {
        tracing::warn!(error = %e, "a request to the controller died");
        Err(ApiError::new(ErrorKind::Internal, "the controller failed at this request: its log says where"))
    });
    answer.unwrap_or_else(|e| (status(e.kind), Json(e)).into_response())
}

fn admitted(controller: &Controller, caller: Option<Caller>) -> Result<Caller, ApiError> {
    let unknown =
        || ApiError::new(ErrorKind::Internal, "the server did not say who asks: report this as a bug");
    let caller = caller.ok_or_else(unknown)?;
    match caller {
        Caller::Member(host) if controller.read(|state| state.member(host).is_none()) => {
            Err(Refusal::NotAMember.into())
        }
        _ => Ok(caller),
    }
}

fn done(controller: &Controller, command: Command) -> Answer {
    controller.run(command, |_, _| ())?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn json(noun: &impl Serialize) -> Answer {
    Ok(Json(noun).into_response())
}

/// Ranges are read one by one, so that a malformed one is named in a sentence of its own.
fn read_network(body: &[u8]) -> Result<CreateNetwork, ApiError> {
    let value: serde_json::Value = read(body)?;
    let ranges = value.get("subnets").and_then(|subnets| subnets.as_array());
    for range in ranges.into_iter().flatten().filter_map(|range| range.as_str()) {
        weft_ipam::range::parse(range).map_err(|e| ApiError::from(Refusal::from(e)))?;
    }
    serde_json::from_value(value).map_err(|e| misread(&e))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| misread(&e))
}

fn misread(e: &serde_json::Error) -> ApiError {
    let sentence = format!("the request cannot be read ({e}): use the same version of weft on both ends");
    ApiError::new(ErrorKind::Invalid, sentence)
}

fn status(kind: ErrorKind) -> StatusCode {
    StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
