//! Docker's plugin: HTTP on /run/docker/plugins/weft.sock. Bound before anything else is up, and answered from the book alone:
//! it never asks Docker, and who decides only for the range of a network that Docker is making, so it can never wedge the engine
//! that waits for it.

mod answer;
mod serve;
#[cfg(test)]
mod tests;
mod wires;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weft_docker_plugin::{self as protocol, Incoming, Refusal, Response};

use crate::book::Book;
use crate::socket::{self, Place};

pub use answer::{Hold, Plugin};
pub use wires::Wires;

/// No call waits longer; Docker itself would wait for ever.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// RequestPool of a network without a name asks the deciding host, and Docker waits for it.
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
    let plugin = Arc::clone(plugin);
    // A task of its own: what has begun is finished, even if Docker hangs up or the deadline passes.
    let answered = tokio::spawn(async move { plugin.answer(request).await });
    let deadline = if method == "IpamDriver.RequestPool" { DEADLINE_ASKING } else { DEADLINE };
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
