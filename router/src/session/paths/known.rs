//! One path of a peer: how well it works, and what it costs.

use std::time::Duration;

use super::super::Path;
use super::super::mtu::Mtu;
use super::super::probe::Echo;

/// A lost probe weighs like so much more round trip.
const LOSS_COST: Duration = Duration::from_millis(500);
/// What TCP and a relay cost beside their round trip, so that UDP to the peer itself is preferred.
const TCP_COST: Duration = Duration::from_millis(10);
const RELAY_COST: Duration = Duration::from_millis(100);

/// What is known of it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) path: Path,
    /// Facts or routes name it.
    pub(super) listed: bool,
    pub(super) echo: Echo,
    /// Round trips since it came alive.
    pub(super) rounds: u32,
    /// The last one.
    pub(super) round: Option<Duration>,
    pub(super) tried: Option<Duration>,
    /// Probes since the last round trip.
    pub(super) unanswered: u32,
    /// When something last spoke for it.
    pub(super) since: Duration,
    /// Bytes that may be sent to it while only envelopes speak for it.
    pub(super) credit: usize,
    /// Until then what it lost is not forgotten.
    pub(super) grudge: Duration,
    pub(super) mtu: Mtu,
}

impl Known {
    pub(super) fn new(path: Path, now: Duration) -> Self {
        Self {
            path,
            listed: false,
            echo: Echo::default(),
            rounds: 0,
            round: None,
            tried: None,
            unanswered: 0,
            since: now,
            credit: 0,
            grudge: Duration::ZERO,
            mtu: Mtu::new(path),
        }
    }

    pub(super) fn rank(&self) -> u8 {
        match self.path {
            Path::Udp(_) => 0,
            Path::Tcp(_) => 1,
            Path::Relay(_) => 2,
        }
    }

    pub(super) fn cost(&self) -> Duration {
        self.cost_of(self.echo.rtt())
    }

    /// What it costs at least: under load round trips say more about the hosts than about the path.
    pub(super) fn least_cost(&self) -> Duration {
        self.cost_of(self.echo.shortest())
    }

    fn cost_of(&self, round_trip: Option<Duration>) -> Duration {
        let kind = match self.path {
            Path::Udp(_) => Duration::ZERO,
            Path::Tcp(_) => TCP_COST,
            Path::Relay(_) => RELAY_COST,
        };
        round_trip.unwrap_or(LOSS_COST) + LOSS_COST.mul_f32(self.echo.loss()) + kind
    }
}
