//! What time it is on other hosts. Each member tells its own on a stream of the session; half of the round trip is the error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::http::Method;
use axum::routing::get;
use axum::{Json, Router};
use tokio::task::JoinSet;
use tokio::time::Instant;
use weft_api::id::HostId;
use weft_api::report::{Skew, Time};
use weft_api::request::path;
use weft_client::exchange;
use weft_router_io::node::Node;

/// So many hosts are asked; a clock that is wrong differs from each of them.
const MAX_ASKED: usize = 8;

/// A host that has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(2);

/// What every member may ask of this host.
pub fn routes() -> Router {
    Router::new().route(path::TIME, get(async || Json(Time { unix_ms: now() })))
}

/// The clocks of some of these hosts, by name.
pub async fn compare(node: &Node, hosts: Vec<(HostId, String)>) -> Vec<Skew> {
    let mut asked = JoinSet::new();
    for (id, host) in hosts.into_iter().take(MAX_ASKED) {
        let node = node.clone();
        asked.spawn(async move {
            let skew = tokio::time::timeout(PATIENCE, ask(&node, id)).await.ok()??;
            Some(Skew { host, ..skew })
        });
    }
    let mut skews: Vec<Skew> = asked.join_all().await.into_iter().flatten().collect();
    skews.sort_by(|a, b| a.host.cmp(&b.host));
    skews
}

async fn ask(node: &Node, host: HostId) -> Option<Skew> {
    let stream = node.open_stream(host).await.ok()?;
    let (before, asked) = (now(), Instant::now());
    let (status, body) = exchange(stream, Method::GET, path::TIME, Bytes::new()).await.ok()?;
    let took = u64::try_from(asked.elapsed().as_millis()).ok()?;
    let told: Time = serde_json::from_slice(&body).ok().filter(|_| status.is_success())?;
    let (ahead_ms, within_ms) = skew(before, took, told.unix_ms);
    Some(Skew { host: String::new(), ahead_ms, within_ms })
}

/// Asked at `before` by our clock and answered `took` later with `told`, milliseconds: by how much the other is ahead, and how
/// wrong that may be.
fn skew(before: u64, took: u64, told: u64) -> (i64, u64) {
    let middle = before.saturating_add(took / 2);
    let ahead = i128::from(told) - i128::from(middle);
    let ahead = i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX });
    (ahead, took.div_ceil(2))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_true_skew_is_within_what_is_said(there in 0u64..1 << 50, back in 0u64..1 << 20, way in 0u64..1 << 20, here in 0u64..1 << 50) {
            let told = there.saturating_add(way);
            let (ahead, within) = skew(here, way + back, told);
            let truth = there as i64 - here as i64;
            // Halves of a millisecond are rounded.
            prop_assert!(ahead.abs_diff(truth) <= within + 1, "{ahead} +- {within}, not {truth}");
        }

        #[test]
        fn any_answer_is_read_without_panic(before: u64, took: u64, told: u64) {
            let _ = skew(before, took, told);
        }
    }
}
