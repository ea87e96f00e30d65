//! What the numbers should be, as ratios of one run: speed is not asserted by tests, so the bench says what was missed.

use std::fmt;

use serde::Serialize;

use crate::peer::Peer;

/// One peer's value beside another's, and the bound that it should keep to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// Of what.
    pub metric: &'static str,
    /// Whose.
    pub ours: &'static str,
    /// Divided by whose.
    pub theirs: &'static str,
    /// What it was.
    pub value: f64,
    /// What it should be at least or at most.
    pub bound: Bound,
    /// Whether it is.
    pub met: bool,
}

/// Which way a bar points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

/// A pseudo-peer: VXLAN's CPU per GB and the AEAD's own.
pub const LIMIT: &str = "limit";

/// All of them. One stream on two lanes is "not slower" than on one if three rounds cannot tell.
const BARS: [(&str, Peer, &str, Bound); 7] = [
    ("tcp1", Peer::Weft, "vxlan", Bound::AtLeast(0.3)),
    ("pps64", Peer::Weft, "vxlan", Bound::AtLeast(0.8)),
    ("cpu_per_gb", Peer::Weft, LIMIT, Bound::AtMost(2.2)),
    ("tcp4", Peer::Weft, "weft-one-lane", Bound::AtLeast(1.15)),
    ("tcp1", Peer::Weft, "weft-one-lane", Bound::AtLeast(0.97)),
    ("tcp1", Peer::WeftRelay, "weft", Bound::AtLeast(0.5)),
    ("cpu_per_gb", Peer::WeftRelay, "weft", Bound::AtMost(1.8)),
];

/// Those for which both values are there. `value` gives a peer's median of a metric.
pub fn bars(value: impl Fn(&str, &str) -> Option<f64>) -> Vec<Bar> {
    let judged = BARS.iter().filter_map(|&(metric, ours, theirs, bound)| {
        let ours = ours.name();
        let ratio = value(ours, metric)? / value(theirs, metric)?;
        Some(Bar { metric, ours, theirs, value: ratio, bound, met: bound.holds(ratio) })
    });
    judged.collect()
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, "at least {least}"),
            Bound::AtMost(most) => write!(f, "at most {most}"),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { metric, ours, theirs, value, bound, met } = self;
        let met = if *met { "met" } else { "missed" };
        write!(f, "{metric} {ours}/{theirs} {value:.3}, {bound}: {met}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_needs_both_values_and_points_one_way() {
        let value = |peer: &str, metric: &str| match (peer, metric) {
            ("weft", "tcp1") => Some(8.0),
            ("weft-relay", "tcp1") => Some(4.0),
            ("weft", "cpu_per_gb") => Some(1.0),
            ("weft-relay", "cpu_per_gb") => Some(2.0),
            _ => None,
        };
        let said: Vec<String> = bars(value).iter().map(Bar::to_string).collect();
        assert_eq!(
            said,
            [
                "tcp1 weft-relay/weft 0.500, at least 0.5: met",
                "cpu_per_gb weft-relay/weft 2.000, at most 1.8: missed"
            ]
        );
    }
}
