//! Both ends of joining (ALPN `weft-join/1`, PROTOCOL 1): the joiner believes the asked member only after its roster record
//! and its handshake key fit the mesh key that the token pins; only then does it say what it wants.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectionError, Endpoint, RecvStream};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{HostKey, MeshId, MeshKey};
use weft_api::request::Admitted;
use weft_api::roster::{MeshRecord, RosterRecord};
use weft_api::sign::{Signed, SigningKey};
use weft_api::succession::{Chain, Succession};
use weft_api::token::{JoinWish, Token};
use weft_router::join::{Doubt, Introduction, check_admitted};
use weft_router::session::STREAM_AFTER;

use crate::node::NodeEvent;
use crate::quic::endpoint::{self, SettingsError};
use crate::quic::frames::{FrameError, read_frame, write_frame};
use crate::quic::tls;
use crate::tcp::alone::Alone;

/// Joining gives up after this long.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The asked member hears within this time that the connection is closed.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// The member waits so long for its signer, a little less than the joiner waits for it.
const SIGNER_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes of an introduction (with every succession there may be), of a wish, of an answer (a whole roster).
const MAX_INTRODUCTION_LEN: usize = 64 << 10;
const MAX_WISH_LEN: usize = 1024;
const MAX_ANSWER_LEN: usize = 8 << 20;

/// What a host has after it was admitted; every record is verified.
#[derive(Debug)]
pub struct Joined {
    /// To be stored: the mesh record and the roster, as signed.
    pub admitted: Admitted,
    /// The mesh, verified.
    pub mesh: MeshRecord,
    /// The key that the mesh began with.
    pub mesh_key: MeshKey,
    /// Those that have signed the roster; the last signs it now.
    pub chain: Chain,
    /// This host's own record.
    pub own: RosterRecord,
    /// The record of the member that was asked.
    pub member: RosterRecord,
    /// Where it was asked.
    pub address: SocketAddr,
    /// What it answered by: `UDP` or `TCP`.
    pub transport: &'static str,
    /// Round trip to it.
    pub rtt: Duration,
}

/// Why a host did not join. Nothing was changed here.
#[derive(Debug, Error)]
pub enum JoinError {
    /// Nobody answered, or not to the end.
    #[error("{address} does not answer, by UDP or by TCP: check the address, that `weft up` runs there, and that UDP or TCP port {} is open", address.port())]
    Unreachable {
        /// Where.
        address: SocketAddr,
    },
    /// Something answered, but it is no weft that takes joins.
    #[error("{address} answers, but not as a member of a mesh: {reason}")]
    NotAMember {
        /// Where.
        address: SocketAddr,
        /// What was wrong.
        reason: String,
    },
    /// It is in another mesh than the token.
    #[error(
        "the host at {address} belongs to mesh {theirs}, the token to {ours}: use a token of that mesh (weft token new)"
    )]
    WrongMesh {
        /// Where.
        address: SocketAddr,
        /// Its mesh.
        theirs: MeshId,
        /// The token's.
        ours: MeshId,
    },
    /// Its roster record is not signed by the mesh key, not its own, or says that it was removed.
    #[error(
        "the host {key} at {address} cannot prove that it is a member of the token's mesh: {reason}; ask another member"
    )]
    NotProven {
        /// Where.
        address: SocketAddr,
        /// Its key in the handshake.
        key: HostKey,
        /// What does not hold.
        reason: &'static str,
    },
    /// The signer (or the member, for lack of one) says no: token unknown, expired, used; name taken; signer away.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The answer does not admit this host to the token's mesh.
    #[error("the member at {address} answered, but {reason}: nothing is changed here; ask another member")]
    BadAnswer {
        /// Where.
        address: SocketAddr,
        /// What does not hold.
        reason: &'static str,
    },
    /// No socket here.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[source] std::io::Error),
    /// A library refused its settings.
    #[error("cannot set up the handshake: {0}")]
    Settings(String),
}

/// Asks the member at `address` to let the host with `host_key` into the token's mesh under `name`. On a socket of its own, by
/// UDP, and by TCP too if that stays unanswered for [`STREAM_AFTER`]; at most [`JOIN_TIMEOUT`]. Call it inside a tokio runtime.
pub async fn join(
    address: SocketAddr,
    token: &Token,
    host_key: &SigningKey,
    name: &str,
) -> Result<Joined, JoinError> {
    let config = endpoint::client(host_key, tls::ALPN_JOIN).map_err(settings)?;
    let asked = timeout(JOIN_TIMEOUT, async {
        let reached = reach(address, config).await?;
        let joined = ask(&reached, address, token, host_key, name).await;
        reached.connection.close(0u8.into(), b"");
        let _ = timeout(LAST_WORDS, reached.endpoint.wait_idle()).await;
        joined
    });
    asked.await.unwrap_or(Err(JoinError::Unreachable { address }))
}

/// A connection to the asked member.
struct Reached {
    transport: &'static str,
    endpoint: Endpoint,
    connection: quinn::Connection,
}

/// A connection by whatever answers first.
async fn reach(address: SocketAddr, config: quinn::ClientConfig) -> Result<Reached, JoinError> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(any).map_err(JoinError::Socket)?;
    let by_udp = connect("UDP", endpoint::dial_only(socket).map_err(settings)?, config.clone(), address);
    let by_tcp = async {
        sleep(STREAM_AFTER).await;
        let socket = Alone::connect(address).await.ok()?;
        let endpoint = endpoint::dial_over(socket).ok()?;
        Some(connect("TCP", endpoint, config, address).await)
    };
    tokio::select! {
        reached = by_udp => reached,
        Some(reached) = by_tcp => reached,
    }
}

async fn connect(
    transport: &'static str,
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<Reached, JoinError> {
    let connecting = endpoint
        .connect_with(config, address, tls::SERVER_NAME)
        .map_err(|e| JoinError::Settings(e.to_string()))?;
    let connection = connecting.await.map_err(|e| unanswered(address, &e))?;
    Ok(Reached { transport, endpoint, connection })
}

fn settings(error: SettingsError) -> JoinError {
    JoinError::Settings(error.to_string())
}

async fn ask(
    reached: &Reached,
    address: SocketAddr,
    token: &Token,
    host_key: &SigningKey,
    name: &str,
) -> Result<Joined, JoinError> {
    let not_a_member = |reason: &str| JoinError::NotAMember { address, reason: reason.to_owned() };
    let Reached { transport, connection, .. } = reached;
    let member_key = tls::peer_key(connection).ok_or_else(|| not_a_member("it has no Ed25519 key"))?;
    let mut introduction = connection.accept_uni().await.map_err(|e| unanswered(address, &e))?;
    let introduction: Introduction = read(&mut introduction, MAX_INTRODUCTION_LEN)
        .await
        .ok_or_else(|| not_a_member("it does not introduce itself"))?;
    let (member, introduced) = check_member(&introduction, member_key, address, token)?;

    let own_key = HostKey(host_key.public());
    let wish = JoinWish { mesh: token.mesh, token: token.id, key: own_key, name: name.to_owned() };
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| unanswered(address, &e))?;
    let wish = postcard::to_allocvec(&token.key().sign(&wish)).map_err(|e| not_a_member(&e.to_string()))?;
    write_frame(&mut send, &wish).await.map_err(|_| not_a_member("it ends the connection"))?;
    let _ = send.finish();
    let answer: Result<Admitted, ApiError> = read(&mut receive, MAX_ANSWER_LEN)
        .await
        .ok_or_else(|| not_a_member("it ends the connection without an answer"))?;
    let admitted = answer?;
    let mesh_key = introduction.mesh_key;
    let (mesh, own, chain) = check_admitted(&admitted, mesh_key, &introduced, own_key, token)
        .map_err(|reason| JoinError::BadAnswer { address, reason })?;
    let (transport, rtt) = (*transport, connection.rtt());
    Ok(Joined { admitted, mesh, mesh_key, chain, own, member, address, transport, rtt })
}

/// The asked member's roster record and the mesh keys, if it proves that it is a member of the token's mesh.
fn check_member(
    introduction: &Introduction,
    key: HostKey,
    address: SocketAddr,
    token: &Token,
) -> Result<(RosterRecord, Chain), JoinError> {
    introduction.check(key, token).map_err(|doubt| match doubt {
        Doubt::WrongMesh(theirs) => JoinError::WrongMesh { address, theirs, ours: token.mesh },
        Doubt::NotProven(reason) => JoinError::NotProven { address, key, reason },
    })
}

fn unanswered(address: SocketAddr, error: &ConnectionError) -> JoinError {
    match error {
        ConnectionError::TimedOut | ConnectionError::LocallyClosed | ConnectionError::Reset => {
            JoinError::Unreachable { address }
        }
        ConnectionError::ApplicationClosed(_) => JoinError::NotAMember {
            address,
            reason: "it takes no join at the moment, try again or ask another member".to_owned(),
        },
        other => JoinError::NotAMember { address, reason: other.to_string() },
    }
}

async fn read<T: serde::de::DeserializeOwned>(stream: &mut RecvStream, max: usize) -> Option<T> {
    let bytes = read_frame(stream, max).await.ok()?;
    postcard::from_bytes(&bytes).ok()
}

/// What a member needs to serve one joiner.
pub(crate) struct Doorman {
    pub mesh_key: MeshKey,
    pub successions: Vec<Signed<Succession>>,
    pub own: Signed<RosterRecord>,
    pub events: mpsc::Sender<NodeEvent>,
    pub _place: OwnedSemaphorePermit,
}

/// The member's end: introduces itself, passes the wish on, and hands back the answer. It learns nothing that it could use.
pub(crate) async fn serve(doorman: &Doorman, joiner: HostKey, connection: &quinn::Connection) {
    let served = timeout(JOIN_TIMEOUT, async {
        let mut stream = connection.open_uni().await.map_err(|_| FrameError::Ended)?;
        let introduction = Introduction {
            mesh_key: doorman.mesh_key,
            successions: doorman.successions.clone(),
            record: doorman.own.clone(),
        };
        write(&mut stream, &introduction).await?;
        let _ = stream.finish();
        let (mut send, mut receive) = connection.accept_bi().await.map_err(|_| FrameError::Ended)?;
        let answer = match read::<Signed<JoinWish>>(&mut receive, MAX_WISH_LEN).await {
            Some(wish) => pass_on(doorman, joiner, wish).await,
            None => Err(ApiError::new(
                ErrorKind::Invalid,
                "the wish to join cannot be read: use the same version of weft",
            )),
        };
        write(&mut send, &answer).await?;
        let _ = send.finish();
        // Until the joiner has it all.
        let _ = send.stopped().await;
        Ok::<(), FrameError>(())
    });
    if let Ok(Err(error)) = served.await {
        tracing::debug!(%joiner, %error, "a host did not finish joining");
    }
}

async fn pass_on(doorman: &Doorman, joiner: HostKey, wish: Signed<JoinWish>) -> Result<Admitted, ApiError> {
    let claimed =
        wish.peek().map_err(|e| ApiError::new(ErrorKind::Invalid, format!("the wish to join: {e}")))?;
    if claimed.mesh != doorman.mesh_key.id() {
        return Err(ApiError::new(ErrorKind::Invalid, "the wish to join is for another mesh"));
    }
    if claimed.key != joiner {
        return Err(ApiError::new(ErrorKind::Forbidden, "the wish to join names another host's key"));
    }
    let away = || {
        ApiError::new(
            ErrorKind::Unavailable,
            "no signer can be reached at the moment, so nobody can join: try again when the founder is up",
        )
    };
    let (reply, answer) = oneshot::channel();
    doorman.events.try_send(NodeEvent::Join { wish, reply }).map_err(|_| away())?;
    match timeout(SIGNER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        _ => Err(away()),
    }
}

async fn write<T: Serialize>(stream: &mut quinn::SendStream, value: &T) -> Result<(), FrameError> {
    let bytes = postcard::to_allocvec(value)
        .map_err(|_| FrameError::Garbled(weft_router::drop::DropReason::MessageGarbled))?;
    write_frame(stream, &bytes).await
}
