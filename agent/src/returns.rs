//! Gives back what this host needs no more: blocks in which nothing was in use for a while, and leases that no container has.
//! It is on the disk before it is told, so that nothing is given of it meanwhile; told until it is decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_api::decision::DecisionKey;
use weft_api::request::{GiveUp, path};

use crate::book::Book;
use crate::deciding::Deciding;

/// A block stays this long after its last address, so that it does not come and go with every container.
const HOLD_BLOCK: Duration = Duration::from_secs(60);

/// A lease stays this long: Compose removes a container before it makes it again.
const HOLD_LEASE: Duration = Duration::from_secs(15);

/// What is idle is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Looks, gives up and tells as long as the process runs.
pub async fn keep(book: Arc<Book>, deciding: Deciding) {
    let mut idle_since: BTreeMap<DecisionKey, (u64, Instant)> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Instant::now();
        let idle = book.idle();
        idle_since.retain(|key, (revision, _)| idle.iter().any(|i| i.key == *key && i.revision == *revision));
        for what in idle {
            let (_, since) = *idle_since.entry(what.key.clone()).or_insert((what.revision, now));
            if is_due(&book, &what.key, since, now) {
                give_up(&book, what).await;
            }
        }
        for what in book.given_up() {
            if let Err(e) = deciding.post::<()>(path::GIVEN_UP, &what).await {
                tracing::debug!(key = ?what.key, error = %e, "cannot be given back yet");
                break;
            }
        }
    }
}

/// Idle long enough, and Docker's records were read since and do not have it.
fn is_due(book: &Book, key: &DecisionKey, since: Instant, now: Instant) -> bool {
    let (network, hold) = match key {
        DecisionKey::Block(network, _) => (*network, HOLD_BLOCK),
        DecisionKey::Lease(network, _) => (*network, HOLD_LEASE),
        DecisionKey::Network(_) | DecisionKey::Controller => return false,
    };
    now.duration_since(since) >= hold && book.surveyed(network).is_some_and(|read| read > since)
}

async fn give_up(book: &Arc<Book>, what: GiveUp) {
    let book = Arc::clone(book);
    match tokio::task::spawn_blocking(move || book.give_up(&what).map(|gave_up| (gave_up, what))).await {
        Ok(Ok((true, what))) => tracing::info!(key = ?what.key, "not needed any more: given back"),
        Ok(Ok((false, _))) => {}
        Ok(Err(e)) => tracing::warn!(error = %e, "what is given back cannot be written down"),
        Err(e) => tracing::warn!(error = %e, "giving back died"),
    }
}
