//! Docker's plugin: HTTP on /run/docker/plugins/weft.sock. Bound before anything else is up, and answered from the book alone:
//! it never asks Docker, and other hosts only for the range of a network that Docker is making and for an address in another
//! host's block, so it can never wedge the engine that waits for it.

mod answer;
mod serve;
#[cfg(test)]
mod tests;
mod wires;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weft_docker_plugin::{self as protocol, Incoming, Refusal, Request, RequestAddress, Response};

use crate::book::Book;
use crate::socket::{self, Place};

pub use answer::{Hold, Plugin};
pub use wires::Wires;

/// No call waits longer; Docker itself would wait for ever.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// RequestPool of a network without a name, and RequestAddress of an address in another host's block, wait for other hosts, and
/// Docker waits for them.
const DEADLINE_ASKING: Duration = Duration::from_millis(3500);

/// Listens, and answers in a task of its own until the runtime ends. `hold` asks who decides.
pub fn serve<W: Wires>(path: &Path, book: Arc<Book>, wires: W, hold: Hold) -> io::Result<Place> {
    let (listener, place) = socket::inherit_or_bind(path)?;
    tokio::spawn(serve::serve(listener, Plugin::new(book, wires, hold)));
    Ok(place)
}

async fn answer<W: Wires>(plugin: &Arc<Plugin<W>>, method: &str, body: &[u8]) -> Result<Response, Refusal> {
    let request = match protocol::receive(method, body)? {
        Incoming::Answered(response) => return Ok(response),
        Incoming::Asked(request) => request,
    };
    let deadline = match &request {
        Request::RequestPool(_) | Request::RequestAddress(RequestAddress { address: Some(_), .. }) => {
            DEADLINE_ASKING
        }
        _ => DEADLINE,
    };
    let plugin = Arc::clone(plugin);
    // A task of its own: what has begun is finished, even if Docker hangs up or the deadline passes.
    let answered = tokio::spawn(async move { plugin.answer(request).await });
    match tokio::time::timeout(deadline, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_panic)) => {
            Err(Refusal::new(format!("weft failed at {method}: the log of weft up says where")))
        }
        Err(_late) => {
            let seconds = deadline.as_secs();
            Err(Refusal::new(format!(
                "weft could not do {method} within {seconds} s: the log of weft up may say why; try again"
            )))
        }
    }
}
