//! What Docker did not start on a network: other containers, namespaces of any process, and this host itself. One task does
//! one thing after the other: what people ask for, and putting right what is no longer as the book says.

mod keeper;
mod place;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use weft_api::error::{ApiError, ErrorKind};
use weft_api::request::{Attach, Detach};
use weft_router_io::bridge::Bridges;

use crate::book::Book;
use crate::docker::Docker;
use crate::state::ledger::Endpoint;

pub use place::Place;

/// So many wishes of people wait; a further one is refused.
const QUEUE: usize = 16;

/// Asks the task. Cheap to clone.
#[derive(Clone)]
pub struct Attachments(mpsc::Sender<Order>);

/// One wish, and where its answer goes.
enum Order {
    Attach(Attach, oneshot::Sender<Result<Endpoint, ApiError>>),
    Detach(Detach, oneshot::Sender<Result<(), ApiError>>),
}

impl Attachments {
    /// Starts the task; it ends with the last handle.
    pub fn start(book: Arc<Book>, bridges: Bridges, docker: watch::Receiver<Docker>) -> Self {
        let (orders, taken) = mpsc::channel(QUEUE);
        tokio::spawn(keeper::Keeper { book, bridges, docker }.run(taken));
        Self(orders)
    }

    /// Puts something on a network.
    pub async fn attach(&self, wish: Attach) -> Result<Endpoint, ApiError> {
        let (tell, told) = oneshot::channel();
        self.0.try_send(Order::Attach(wish, tell)).map_err(|_| busy())?;
        told.await.unwrap_or_else(|_| Err(busy()))
    }

    /// Takes it off again.
    pub async fn detach(&self, wish: Detach) -> Result<(), ApiError> {
        let (tell, told) = oneshot::channel();
        self.0.try_send(Order::Detach(wish, tell)).map_err(|_| busy())?;
        told.await.unwrap_or_else(|_| Err(busy()))
    }
}

/// An address of each family at most, as a sentence if not.
fn check_wanted(wanted: &[IpAddr]) -> Result<(), ApiError> {
    let of = |v4: bool| wanted.iter().filter(|ip| ip.is_ipv4() == v4).count();
    if of(true) > 1 || of(false) > 1 {
        let sentence = "one --ip of each family is enough: an IPv4 address and an IPv6 address";
        return Err(ApiError::new(ErrorKind::Invalid, sentence));
    }
    Ok(())
}

fn busy() -> ApiError {
    ApiError::new(ErrorKind::Unavailable, "weft up is busy attaching, or ending: try again")
}
