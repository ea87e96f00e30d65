//! Blocks in advance: the first of each range before the first container, the next at half full, so that a container never
//! waits for another host.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use weft_api::error::ErrorKind;
use weft_api::id::NetworkId;
use weft_api::request::{BlockGranted, WantBlock, path};

use crate::book::{Book, GiveError, NoBlock};
use crate::deciding::Deciding;

/// After a refusal the deciding host is asked again this much later: a member may have left.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// After the deciding host could not be asked.
const AFTER_SILENCE: Duration = Duration::from_millis(500);

/// A granted block comes as a decision of its own; when it has not come by then, it is asked for again.
const AFTER_GRANT: Duration = Duration::from_secs(2);

/// Whoever is not Docker waits this long for the block that was asked for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Gives an address of a range, the wanted or the lowest free one; waits for the block that is on its way.
pub async fn give(
    book: &Arc<Book>,
    network: NetworkId,
    range: IpNet,
    wanted: Option<IpAddr>,
) -> Result<IpAddr, GiveError> {
    let mut changes = book.changes();
    let limit = Instant::now() + PATIENCE;
    let mut wish = None;
    loop {
        changes.mark_unchanged();
        let asked = Arc::clone(book);
        let given = tokio::task::spawn_blocking(move || asked.give(network, range, wanted)).await;
        match given.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic())) {
            Err(GiveError::Full { decided: false, .. })
                if matches!(tokio::time::timeout_at(limit, changes.changed()).await, Ok(Ok(()))) => {}
            Err(e @ (GiveError::Unheld { address, .. } | GiveError::Elsewhere { address, .. })) => {
                wish = wish.or_else(|| book.wish(network, range, address));
                if wish.is_none()
                    || !matches!(tokio::time::timeout_at(limit, changes.changed()).await, Ok(Ok(())))
                {
                    return Err(e);
                }
            }
            given => return given,
        }
    }
}

/// Asks for as long as the process runs.
pub async fn keep(book: Arc<Book>, deciding: Deciding) {
    let mut changes = book.changes();
    let mut waiting: BTreeMap<(NetworkId, IpNet, Option<IpAddr>), (Instant, WantBlock)> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let now = Instant::now();
        let wants = book.wants();
        waiting.retain(|_, (until, want)| *until > now && wants.contains(want));
        for want in wants {
            let key = (want.network, want.range, want.address);
            if let Entry::Vacant(unasked) = waiting.entry(key) {
                let again = ask(&book, &deciding, &want).await;
                unasked.insert((Instant::now() + again, want));
            }
        }
        let next = waiting.values().map(|(until, _)| *until).min();
        let wake = next.unwrap_or_else(|| Instant::now() + AFTER_REFUSAL);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

/// How long to wait before the same question is asked again.
async fn ask(book: &Book, deciding: &Deciding, want: &WantBlock) -> Duration {
    match deciding.post::<BlockGranted>(path::BLOCKS, want).await {
        Ok(granted) => {
            tracing::info!(network = %want.network, range = %want.range, blocks = granted.blocks.len(), "a block was granted");
            if want.address.is_none() {
                book.no_block(want.network, want.range, None);
            }
            AFTER_GRANT
        }
        Err(e) if want.address.is_some() => {
            tracing::info!(network = %want.network, address = ?want.address, error = %e, "its block was not granted");
            AFTER_GRANT
        }
        Err(e) => {
            let decided = !matches!(e.kind, ErrorKind::Unavailable | ErrorKind::Internal);
            if book.no_block(want.network, want.range, Some(NoBlock { why: e.message.clone(), decided })) {
                tracing::info!(network = %want.network, range = %want.range, error = %e, "no block was granted");
            }
            if decided { AFTER_REFUSAL } else { AFTER_SILENCE }
        }
    }
}
