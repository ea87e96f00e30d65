//! Single addresses of other hosts' blocks: asked of their holders, lent to who asks, and had once that is decided
//! (docs/protocol.md 9). Who waits for an address waits for a change of the book, never for another host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::task::JoinSet;
use tokio::time::Instant;
use weft_api::error::{ApiError, ErrorKind};
use weft_api::id::{HostId, NetworkId};
use weft_api::request::{AskLoan, Caller, Lend, path};

use crate::book::{Book, Borrow, LoanError};
use crate::deciding::{Deciding, answer};

/// The holder of a block, and through it who decides, have this long.
const PATIENCE: Duration = Duration::from_millis(2500);

/// A lease comes as a decision of its own; when it has not come by then, it is asked for again.
const AFTER_LOAN: Duration = Duration::from_secs(1);

/// A loan that was not decided by then is taken back.
const UNDECIDED: Duration = Duration::from_secs(15);

/// What was lent and not decided is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Asks for addresses as long as the process runs.
pub async fn borrow(book: Arc<Book>, deciding: Deciding) {
    let mut changes = book.changes();
    let mut asking: BTreeMap<Borrow, Instant> = BTreeMap::new();
    let mut asked = JoinSet::new();
    loop {
        changes.mark_unchanged();
        let borrows: BTreeSet<Borrow> = book.borrows().into_iter().collect();
        let now = Instant::now();
        asking.retain(|borrow, again| borrows.contains(borrow) && *again > now);
        for borrow in borrows {
            if asking.contains_key(&borrow) {
                continue;
            }
            asking.insert(borrow, now + PATIENCE + AFTER_LOAN);
            let (book, deciding) = (Arc::clone(&book), deciding.clone());
            asked.spawn(async move { ask(&book, &deciding, borrow).await });
        }
        let next = asking.values().min().copied().unwrap_or_else(|| now + LOOK_EVERY);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(_) = asked.join_next() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

async fn ask(book: &Book, deciding: &Deciding, borrow: Borrow) {
    let Borrow { network, address, holder } = borrow;
    let wish = AskLoan { network, address };
    let asked = tokio::time::timeout(PATIENCE, deciding.post_to::<()>(holder, path::LOANS, &wish)).await;
    let refused = match asked {
        Ok(Ok(())) => return tracing::info!(%network, %address, %holder, "an address was lent to this host"),
        Ok(Err(e)) => e.message,
        Err(_late) => format!("no answer within {} s: try again", PATIENCE.as_secs_f32()),
    };
    tracing::info!(%network, %address, %holder, why = refused, "an address was not lent to this host");
    book.not_lent(network, address, refused);
}

/// Takes loans back that were never decided, as long as the process runs.
pub async fn settle(book: Arc<Book>, deciding: Deciding) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let asked = Arc::clone(&book);
        match tokio::task::spawn_blocking(move || asked.settle()).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "what was lent cannot be written down"),
            Err(e) => tracing::warn!(error = %e, "settling loans died"),
        }
        for loan in book.overdue(UNDECIDED) {
            if let Err(e) = deciding.post::<()>(path::LEASES, &loan).await {
                tracing::debug!(address = %loan.address, error = %e, "a loan could not be taken back");
                break;
            }
        }
    }
}

/// What every member may ask of this host.
pub fn routes(book: Arc<Book>, deciding: Deciding) -> Router {
    Router::new().route(path::LOANS, post(lend)).with_state((book, deciding))
}

async fn lend(
    State((book, deciding)): State<(Arc<Book>, Deciding)>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Response {
    let lent = async {
        let wish: AskLoan = serde_json::from_slice(&body).map_err(|e| {
            let sentence =
                format!("the request cannot be read ({e}): use the same version of weft on both ends");
            ApiError::new(ErrorKind::Invalid, sentence)
        })?;
        let Caller::Member(to) = caller else {
            let sentence = "addresses are lent to hosts, not to people: docker run --ip asks for one";
            return Err(ApiError::new(ErrorKind::Forbidden, sentence));
        };
        let loan = write_down(&book, wish.network, wish.address, to).await?;
        deciding.post::<()>(path::LEASES, &loan).await
    };
    lent.await.map_or_else(answer, |()| StatusCode::NO_CONTENT.into_response())
}

async fn write_down(
    book: &Arc<Book>,
    network: NetworkId,
    address: IpAddr,
    to: HostId,
) -> Result<Lend, ApiError> {
    let book = Arc::clone(book);
    let lent = tokio::task::spawn_blocking(move || book.lend(network, address, to)).await;
    let lent = lent.map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))?;
    lent.map_err(|e| {
        let kind = match e {
            LoanError::Ledger(_) => ErrorKind::Internal,
            LoanError::TooMany { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Conflict,
        };
        ApiError::new(kind, e.to_string())
    })
}
