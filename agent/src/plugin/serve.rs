//! The plugin's connections: one call each. Clients that hang are closed after a while and are bounded in number, so that they
//! cost Docker nothing; a call that is too long is read to its end and answered, so that its sender sees the sentence.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use weft_docker_plugin::{self as protocol, MAX_BODY, Refusal};

use super::{Plugin, Wires, answer};

/// A connection lives no longer: Docker's own calls take milliseconds, and are answered within the plugin's deadlines.
pub(super) const LIFETIME: Duration = Duration::from_secs(10);

/// Connections whose call has not been read yet; the oldest of them makes room for a further one.
pub(super) const MAX_WAITING: usize = 256;

/// Calls that are being answered; a further one is refused.
const MAX_CALLS: usize = 256;

/// After accept has failed, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves until the runtime ends.
pub(super) async fn serve<W: Wires>(listener: UnixListener, plugin: Plugin<W>) {
    let desk = Arc::new(Desk {
        plugin: Arc::new(plugin),
        waiting: Mutex::default(),
        calls: Arc::new(Semaphore::new(MAX_CALLS)),
    });
    for number in 0.. {
        match listener.accept().await {
            Ok((stream, _)) => desk.take(number, stream),
            Err(error) => {
                tracing::warn!(%error, "Docker's plugin socket takes no connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Desk<W> {
    plugin: Arc<Plugin<W>>,
    /// By their order of coming.
    waiting: Mutex<BTreeMap<u64, AbortHandle>>,
    calls: Arc<Semaphore>,
}

impl<W: Wires> Desk<W> {
    fn take(self: &Arc<Self>, number: u64, stream: UnixStream) {
        let desk = Arc::clone(self);
        let mut waiting = self.waiting();
        let served = tokio::spawn(desk.serve(number, stream));
        waiting.insert(number, served.abort_handle());
        if waiting.len() > MAX_WAITING
            && let Some((_, oldest)) = waiting.pop_first()
        {
            tracing::warn!(
                max = MAX_WAITING,
                "too many clients of Docker's plugin socket say nothing: closed one"
            );
            oldest.abort();
        }
    }

    /// Docker dials anew for each call: over a connection that it keeps, it would send a call without its body to the next life
    /// of this process.
    async fn serve(self: Arc<Self>, number: u64, stream: UnixStream) {
        let desk = &self;
        let service = hyper::service::service_fn(move |request| async move {
            Ok::<_, Infallible>(desk.call(number, request).await)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(LIFETIME, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a call of Docker broke off"),
            Err(_) => tracing::debug!("a client of Docker's plugin socket hung: closed"),
        }
        self.waiting().remove(&number);
    }

    async fn call(&self, number: u64, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let method = head.uri.path().trim_start_matches('/');
        let body = read(method, body).await;
        self.waiting().remove(&number);
        let answered = match (body, self.calls.try_acquire()) {
            (Ok(body), Ok(_until_answered)) => answer(&self.plugin, method, &body).await,
            (Ok(_), Err(_)) => {
                Err(Refusal::new(format!("weft is answering {MAX_CALLS} calls of Docker already: try again")))
            }
            (Err(refusal), _) => Err(refusal),
        };
        let body = answered.map_or_else(
            |refusal| {
                tracing::info!(method = format!("{method:.80}"), %refusal, "refused Docker");
                refusal.to_body()
            },
            |response| response.to_body(),
        );
        let mut response = Response::new(Full::from(body));
        let kind = hyper::header::HeaderValue::from_static(protocol::CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of a body, unless it is longer than [`MAX_BODY`]; then none of it is kept.
async fn read(method: &str, mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|e| Refusal::new(format!("Docker's call {method:.80} broke off: {e}; try again")))?;
        let Some(data) = frame.data_ref() else { continue };
        length += data.len();
        if length <= MAX_BODY {
            kept.extend_from_slice(data);
        } else {
            kept = Vec::new();
        }
    }
    if length <= MAX_BODY { Ok(kept) } else { Err(Refusal::too_long(method, length)) }
}
