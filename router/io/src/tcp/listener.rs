//! Strangers: nobody hears a byte from us before the preface, and few may be silent at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use weft_router::drop::DropReason;
use weft_router::session::StreamId;
use weft_router::stream::PREFACE;
use weft_router::stream::gate::PREFACE_TIMEOUT;

use super::{Place, Tcp, prepare};

/// After an error of accept, which is mostly a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes streams until it is dropped; `ended` is told of each whose number anybody may have heard.
pub(crate) async fn listen(
    tcp: Arc<Tcp>,
    listener: TcpListener,
    ended: impl Fn(StreamId) + Clone + Send + 'static,
) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => match tcp.enter(peer.ip()) {
                Ok(place) => tcp.spawn(welcome(Arc::clone(&tcp), socket, place, ended.clone())),
                Err(reason) => tcp.drops.count(reason),
            },
            Err(error) => {
                tracing::debug!(%error, "no TCP stream accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(tcp: Arc<Tcp>, mut socket: TcpStream, place: Place, ended: impl Fn(StreamId)) {
    let mut preface = [0; PREFACE.len()];
    match timeout(PREFACE_TIMEOUT, socket.read_exact(&mut preface)).await {
        Ok(Ok(_)) if preface == PREFACE => {}
        Ok(Ok(_)) => return tcp.drops.count(DropReason::StreamForeign),
        Ok(Err(_)) | Err(_) => return tcp.drops.count(DropReason::StreamSilent),
    }
    let peer = socket.peer_addr().and_then(|peer| prepare(&socket).map(|()| peer));
    let Ok(peer) = peer else { return };
    let stream = tcp.number(peer);
    tcp.lane.streams().add(&stream);
    tcp.carry(socket, &stream, Some(place)).await;
    ended(stream.id());
}
