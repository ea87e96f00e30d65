//! The tasks of one connection: dialling, accepting, the two control streams, streams for the API.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use weft_api::id::{HostId, HostKey};
use weft_router::drop::DropReason;
use weft_router::session::message::{MAX_HELLO_LEN, MAX_MESSAGE_LEN, MAX_PROOF_LEN, Message};
use weft_router::session::{ConnectionId, DIAL_TIMEOUT, Remote, Why};

use super::engine::{Engine, close};
use super::{ApiStream, NodeEvent};
use crate::join;
use crate::quic::endpoint::{HANDSHAKE_TIMEOUT, Place, Verdict};
use crate::quic::frames::{FrameError, STREAM_API, STREAM_CONTROL, read_message};
use crate::quic::socket::Held;
use crate::quic::tls;

/// A stream must say its kind in this time.
const KIND_TIMEOUT: Duration = Duration::from_secs(5);
/// After its end a connection can still say why.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Messages that a peer may send at once, and then each second; faster ones wait on its stream.
const BURST: u32 = 4096;
const PER_SECOND: u32 = 100;

/// Messages of the session layer that wait for the control stream; it never has more to say at a time.
pub(super) const TELL_QUEUE: usize = 8;

/// One connection with a peer that has proven its key.
#[derive(Clone)]
pub(super) struct Speaker {
    pub engine: Arc<Engine>,
    pub id: ConnectionId,
    pub key: HostKey,
    pub connection: quinn::Connection,
    pub writer: Arc<Notify>,
    /// The peer is a member, and we have greeted it: what it says after its hello counts.
    pub greeted: Arc<Notify>,
}

/// Dials; whoever answers is reported.
pub(super) async fn dial(engine: Arc<Engine>, id: ConnectionId, remote: Remote) {
    let held = engine.socket.dial(remote, id.0);
    let config = engine.dialler.clone();
    let connecting = engine.endpoint.connect_with(config, held.address(), tls::SERVER_NAME);
    let connection = match connecting {
        Ok(connecting) => timeout(DIAL_TIMEOUT, connecting).await.ok().and_then(Result::ok),
        Err(error) => {
            tracing::debug!(?remote, %error, "not dialled");
            None
        }
    };
    match connection.and_then(|c| tls::peer_key(&c).map(|key| (key, c))) {
        Some((key, connection)) => engine.reached(id, key, connection, held),
        None => engine.failed(id),
    }
}

/// Takes incoming handshakes, few at a time, until the endpoint is closed.
pub(super) async fn accept_all(engine: Arc<Engine>) {
    while let Some(incoming) = engine.endpoint.accept().await {
        let Some(remote) = engine.socket.remote(incoming.remote_address()) else {
            incoming.ignore();
            continue;
        };
        match engine.strangers.judge(remote, incoming.remote_address_validated()) {
            Verdict::Accept(place) => {
                tokio::spawn(accept(Arc::clone(&engine), incoming, remote, place));
            }
            Verdict::Retry => {
                if let Err(refused) = incoming.retry() {
                    refused.into_incoming().ignore();
                }
            }
            Verdict::Ignore(reason) => {
                engine.drops.count(reason);
                incoming.ignore();
            }
        }
    }
}

async fn accept(engine: Arc<Engine>, incoming: quinn::Incoming, remote: Remote, place: Place) {
    let Some(held) = engine.socket.hold(incoming.remote_address()) else { return incoming.ignore() };
    let connection = match incoming.accept() {
        Ok(connecting) => timeout(HANDSHAKE_TIMEOUT, connecting).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    drop(place);
    let peer = connection.and_then(|c| tls::peer_key(&c).map(|key| (key, c)));
    let Some((key, connection)) = peer else {
        engine.drops.count(DropReason::HandshakeFailed);
        tokio::time::sleep(LAST_WORDS).await;
        return drop(held);
    };
    if tls::alpn(&connection).as_deref() == Some(tls::ALPN_JOIN) {
        if let Some(doorman) = engine.doorman() {
            join::serve(&doorman, key, &connection).await;
        }
        finish(connection, held).await;
    } else {
        engine.accepted(key, connection, held, remote.path());
    }
}

/// Leaves a joiner the time to read the answer and to close.
async fn finish(connection: quinn::Connection, held: Held) {
    let _ = timeout(KIND_TIMEOUT, connection.closed()).await;
    close(&connection, Why::Goodbye);
    tokio::time::sleep(LAST_WORDS).await;
    drop(held);
}

/// Starts the connection's tasks; they end with it. `told`: what the session layer says on it, the hello first of all.
pub(super) fn start(speaker: Speaker, told: mpsc::Receiver<Message>) {
    tokio::spawn(write(speaker.clone(), told));
    tokio::spawn(read(speaker.clone()));
    tokio::spawn(async move {
        let why = match speaker.connection.closed().await {
            ConnectionError::ApplicationClosed(close) => Why::from_code(close.error_code.into_inner()),
            _ => None,
        };
        speaker.engine.lost(speaker.id, why);
    });
}

/// Our control stream: that we are a member, then whatever the session layer says and the peer needs.
async fn write(speaker: Speaker, mut told: mpsc::Receiver<Message>) {
    let Ok(mut stream) = speaker.connection.open_uni().await else { return };
    let proof = speaker.engine.store.proof().map(|proof| Message::Proof(proof).encode()).unwrap_or_default();
    if stream.write_all(&[&[STREAM_CONTROL][..], &proof].concat()).await.is_err() {
        return;
    }
    loop {
        let next =
            told.try_recv().ok().or_else(|| speaker.engine.store.next_message(speaker.key.id(), speaker.id));
        let message = match next {
            Some(message) => message,
            None => tokio::select! {
                message = told.recv() => match message {
                    Some(message) => message,
                    None => return,
                },
                () = speaker.writer.notified() => continue,
                _ = speaker.connection.closed() => return,
            },
        };
        if stream.write_all(&message.encode()).await.is_err() {
            return;
        }
    }
}

/// The peer's control stream.
async fn read(speaker: Speaker) {
    let outcome = async {
        let mut stream = speaker.connection.accept_uni().await.map_err(|_| FrameError::Ended)?;
        let mut kind = [0];
        stream.read_exact(&mut kind).await.map_err(|_| FrameError::Ended)?;
        if kind != [STREAM_CONTROL] {
            return Err(FrameError::Garbled(DropReason::StreamUnknown));
        }
        let mut first = read_message(&mut stream, MAX_PROOF_LEN).await?;
        if let Message::Proof(proof) = first {
            speaker.engine.presented(speaker.key, &proof);
            first = read_message(&mut stream, MAX_HELLO_LEN).await?;
        }
        match first {
            Message::Hello(hello) => speaker.engine.hello(speaker.id, hello),
            _ => return Err(FrameError::Garbled(DropReason::MessageGarbled)),
        }
        tokio::select! {
            () = speaker.greeted.notified() => {}
            _ = speaker.connection.closed() => return Ok(()),
        }
        tokio::spawn(serve_streams(speaker.clone()));
        read_records(&speaker, &mut stream).await
    };
    if let Err(FrameError::Garbled(reason)) = outcome.await {
        speaker.engine.drops.count(reason);
        close(&speaker.connection, Why::Garbled);
        speaker.engine.lost(speaker.id, Some(Why::Garbled));
    }
}

async fn read_records(speaker: &Speaker, stream: &mut RecvStream) -> Result<(), FrameError> {
    // A bucket of messages, written as the time at which it would be full again.
    let step = Duration::from_secs(1) / PER_SECOND;
    let mut full_at = Instant::now();
    loop {
        let message = read_message(stream, MAX_MESSAGE_LEN).await?;
        let now = Instant::now();
        full_at = full_at.max(now) + step;
        if full_at > now + step * BURST {
            sleep_until(now + step).await;
        }
        match message {
            Message::Rekey(said) => speaker.engine.rekey(speaker.id, said),
            Message::Seen(address) => speaker.engine.seen(speaker.key.id(), address),
            Message::Mesh(gossip) => {
                if speaker.engine.heard.send((speaker.key.id(), gossip)).await.is_err() {
                    return Ok(());
                }
            }
            Message::Hello(_) | Message::Proof(_) => {
                return Err(FrameError::Garbled(DropReason::MessageGarbled));
            }
        }
    }
}

/// Streams that the peer opens, until the connection ends.
async fn serve_streams(speaker: Speaker) {
    while let Ok((send, receive)) = speaker.connection.accept_bi().await {
        tokio::spawn(serve_stream(Arc::clone(&speaker.engine), speaker.key.id(), send, receive));
    }
}

async fn serve_stream(engine: Arc<Engine>, from: HostId, mut send: SendStream, mut receive: RecvStream) {
    let mut kind = [0];
    let said = timeout(KIND_TIMEOUT, receive.read_exact(&mut kind)).await;
    let refused = if !matches!(said, Ok(Ok(()))) || kind != [STREAM_API] {
        DropReason::StreamUnknown
    } else {
        match engine.events.try_send(NodeEvent::ApiStream { from, stream: ApiStream { send, receive } }) {
            Ok(()) => return,
            Err(error) => {
                let (tokio::sync::mpsc::error::TrySendError::Full(event)
                | tokio::sync::mpsc::error::TrySendError::Closed(event)) = error;
                let NodeEvent::ApiStream { stream, .. } = event else { return };
                (send, receive) = (stream.send, stream.receive);
                DropReason::AgentBusy
            }
        }
    };
    engine.drops.count(refused);
    let code = quinn::VarInt::from_u32(Why::TooMany as u32);
    let _ = (send.reset(code), receive.stop(code));
}
