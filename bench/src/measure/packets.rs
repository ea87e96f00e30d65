//! The search for the sending rate at which most packets arrive: too little is not enough, too much makes a busy machine drop.

/// What came of sending at one rate, packets per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// What the sender managed to send.
    pub sent: f64,
    /// What arrived.
    pub received: f64,
}

/// Where the search starts, packets per second.
const LOWEST: f64 = 30_000.0;
/// No path on a machine that runs both ends goes beyond.
const HIGHEST: f64 = 3_000_000.0;
/// From one rate to the next.
const LADDER: f64 = 1.3;
/// Around the best of the ladder.
const AROUND: [f64; 4] = [0.88, 0.94, 1.06, 1.13];

/// Climbs a ladder of rates until two in a row bring clearly less than the best so far or the sender cannot send more; tries as fast
/// as can be; then looks around the best. Returns the step that brought most.
pub fn best<E>(mut step: impl FnMut(u64) -> Result<Step, E>) -> Result<Step, E> {
    let mut best = step(LOWEST as u64)?;
    let (mut at, mut rate, mut worse) = (LOWEST, LOWEST * LADDER, 0);
    while rate < HIGHEST && worse < 2 {
        let now = step(rate as u64)?;
        if now.received > best.received {
            (best, at) = (now, rate);
        }
        let tired = now.received < best.received * 0.9 || now.sent < rate * 0.85;
        worse = if tired { worse + 1 } else { 0 };
        rate *= LADDER;
    }
    let rates = std::iter::once(0).chain(AROUND.iter().map(|f| (at * f) as u64));
    for rate in rates {
        let now = step(rate)?;
        if now.received > best.received {
            best = now;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn finds_the_top_of_a_path_that_collapses_when_flooded() {
        let path = |rate: u64| {
            let sent = if rate == 0 { 900_000.0 } else { (rate as f64).min(900_000.0) };
            let received = if sent < 200_000.0 { sent } else { 200_000.0 - (sent - 200_000.0) * 0.2 };
            Ok::<_, Infallible>(Step { sent, received })
        };
        let Ok(found) = best(path);
        assert!(found.received > 185_000.0, "{found:?}");
    }

    #[test]
    fn ends_when_the_sender_is_the_limit() {
        let mut steps = 0;
        let Ok(found) = best(|rate| {
            steps += 1;
            let sent = if rate == 0 { 150_000.0 } else { (rate as f64).min(150_000.0) };
            Ok::<_, Infallible>(Step { sent, received: sent })
        });
        assert_eq!(found.received, 150_000.0);
        assert!(steps < 20, "{steps} steps");
    }
}
