//! TCP streams of the node: opened when the session layer says so, taken from whoever dials, their ends reported.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::TcpListener;
use weft_api::id::HostId;
use weft_router::session::{Event, StreamId};

use super::engine::Engine;
use crate::tcp;

/// Takes streams until it is dropped.
pub(super) fn listen(
    engine: &Arc<Engine>,
    listener: TcpListener,
) -> impl Future<Output = ()> + Send + 'static {
    tcp::listen(Arc::clone(&engine.tcp), listener, reporter(Arc::downgrade(engine)))
}

impl Engine {
    pub(super) fn open_stream(&self, host: HostId, address: SocketAddr) {
        let (opener, ended) = (Weak::clone(&self.itself), reporter(Weak::clone(&self.itself)));
        let opened = move |stream| {
            if let Some(engine) = opener.upgrade() {
                engine.event(&mut engine.lock(), Event::StreamOpened(host, address, stream));
            }
        };
        self.tcp.open(address, opened, ended);
    }
}

fn reporter(engine: Weak<Engine>) -> impl Fn(StreamId) + Clone + Send + 'static {
    move |stream| {
        if let Some(engine) = engine.upgrade() {
            engine.event(&mut engine.lock(), Event::StreamEnded(stream));
        }
    }
}
