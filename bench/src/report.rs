//! What the bench says: medians, ratios, a JSON file and a Markdown table.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use crate::{
    aead,
    bar::{Bar, LIMIT, bars},
    machine::Machine,
    measure::Round,
    peer::Peer,
};

/// Everything that one run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When it was written, UTC.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// What happened to each peer.
    pub peers: Vec<Row>,
    /// CPU seconds per GB that the AEAD alone costs, by suite.
    pub aead: Vec<aead::Cost>,
    /// The CPU seconds per GB that no sealed overlay gets under: VXLAN's and the AEAD's.
    pub limit: Option<f64>,
    /// weft beside the others.
    pub ratios: Vec<Ratio>,
    /// What the numbers should be.
    pub bars: Vec<Bar>,
}

/// One peer.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub peer: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Medians, by metric.
    pub median: BTreeMap<&'static str, f64>,
    /// What they are the medians of.
    pub rounds: Vec<Round>,
}

/// weft's value divided by a peer's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Of what.
    pub metric: &'static str,
    /// Of whom.
    pub peer: &'static str,
    /// More is better except for the round trips and the CPU.
    pub value: f64,
}

/// The metrics in the order of the table, with their headings and digits behind the point.
const METRICS: [(&str, &str, usize); 6] = [
    ("tcp1", "TCP 1 stream, Gbit/s", 2),
    ("tcp4", "TCP 4 streams, Gbit/s", 2),
    ("pps64", "64 B UDP, packets/s", 0),
    ("rtt_p50", "RTT p50, us", 0),
    ("rtt_p99", "RTT p99, us", 0),
    ("cpu_per_gb", "CPU s/GB", 2),
];

impl Report {
    /// Puts the rounds together.
    pub fn new(
        date: String,
        machine: Machine,
        rounds: &[(Peer, Vec<Round>)],
        aead: Vec<aead::Cost>,
    ) -> Report {
        let peers: Vec<Row> = rounds
            .iter()
            .filter(|(_, rounds)| !rounds.is_empty())
            .map(|(peer, rounds)| Row {
                peer: peer.name(),
                about: peer.about(),
                median: medians(rounds),
                rounds: rounds.clone(),
            })
            .collect();
        let vxlan = value(&peers, Peer::Vxlan.name(), "cpu_per_gb");
        let default = aead.first().map(|cost| cost.cpu_per_gb);
        let limit = vxlan.zip(default).map(|(vxlan, aead)| vxlan + aead);
        let ratios = ratios(&peers, limit);
        let bars = bars(|peer, metric| match (peer, metric) {
            (LIMIT, "cpu_per_gb") => limit,
            _ => value(&peers, peer, metric),
        });
        Report { date, machine, peers, aead, limit, ratios, bars }
    }

    /// The table for people.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n\n", self.date, self.machine);
        let headings = METRICS.map(|(_, heading, _)| heading).join(" | ");
        let _ = writeln!(text, "| | {headings} | |\n|---|{}---|", "---:|".repeat(METRICS.len()));
        for row in &self.peers {
            let cells =
                METRICS.map(|(metric, _, digits)| cell(row.median.get(metric).copied(), digits)).join(" | ");
            let _ = writeln!(text, "| {} | {cells} | {} |", row.peer, row.about);
        }
        if let Some(limit) = self.limit {
            let empty = " |".repeat(METRICS.len() - 1);
            let _ = writeln!(text, "| limit |{empty} {limit:.2} | VXLAN's and the AEAD's own |");
        }
        let rounds = self.peers.iter().map(|row| row.rounds.len()).max().unwrap_or_default();
        let _ = write!(
            text,
            "\nMedians of {rounds} rounds, peers in turn, each on fresh hosts: container - veth - bridge - peer - underlay of \
             MTU 1500. All hosts, both ends and all daemons share the machine's processors. TCP by iperf3. Packets: 64 bytes of \
             payload, at the sending rate at which most arrive. RTT: 64 bytes of UDP, a question every millisecond. CPU s/GB: how long the \
             machine's processors were busy with anything during the one stream, per 10^9 bytes received."
        );
        for cost in &self.aead {
            let _ = write!(text, " {} seals and opens 1 GB in {:.2} s.", cost.suite, cost.cpu_per_gb);
        }
        text.push('\n');
        if !self.bars.is_empty() {
            text.push('\n');
            self.bars.iter().for_each(|bar| {
                let _ = writeln!(text, "- {bar}");
            });
        }
        text
    }

    /// The closing lines for programs.
    pub fn ratio_lines(&self) -> String {
        self.ratios.iter().map(|r| format!("ratio {} weft/{} {:.3}\n", r.metric, r.peer, r.value)).collect()
    }
}

fn medians(rounds: &[Round]) -> BTreeMap<&'static str, f64> {
    let metrics = METRICS.iter().filter_map(|(metric, _, _)| {
        let values: Vec<f64> = rounds.iter().filter_map(|round| round.get(metric)).collect();
        Some((*metric, median(values)?))
    });
    metrics.collect()
}

/// The middle; of an even number the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

fn value(rows: &[Row], peer: &str, metric: &str) -> Option<f64> {
    rows.iter().find(|row| row.peer == peer)?.median.get(metric).copied()
}

fn ratios(rows: &[Row], limit: Option<f64>) -> Vec<Ratio> {
    let weft = Peer::Weft.name();
    let mut ratios = Vec::new();
    for (metric, _, _) in METRICS {
        let Some(ours) = value(rows, weft, metric) else { continue };
        let others = rows.iter().filter(|row| row.peer != weft);
        let theirs = others.filter_map(|row| Some((row.peer, *row.median.get(metric)?)));
        let limit = limit.filter(|_| metric == "cpu_per_gb").map(|limit| (LIMIT, limit));
        ratios.extend(theirs.chain(limit).map(|(peer, value)| Ratio { metric, peer, value: ours / value }));
    }
    ratios
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(tcp1: f64, cpu_per_gb: f64) -> Round {
        Round {
            tcp1,
            tcp1_retransmits: 0,
            cpu_per_gb,
            tcp4: None,
            pps64: None,
            pps64_sent: None,
            rtt_p50: None,
            rtt_p99: None,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn ratios_are_ours_by_theirs_and_the_limit_is_vxlan_and_the_aead() {
        let rounds = [
            (Peer::Vxlan, vec![round(20.0, 0.5), round(10.0, 0.7), round(15.0, 0.6)]),
            (Peer::Weft, vec![round(6.0, 1.6)]),
        ];
        let aead = vec![aead::Cost { suite: "x".into(), cpu_per_gb: 0.2, nanos_per_piece: 1.0 }];
        let report = Report::new("d".into(), Machine::default(), &rounds, aead);
        assert_eq!(
            report.ratio_lines(),
            "ratio tcp1 weft/vxlan 0.400\nratio cpu_per_gb weft/vxlan 2.667\nratio cpu_per_gb weft/limit 2.000\n"
        );
        let text = report.markdown();
        assert!(text.contains("| vxlan | 15.00 | - |"), "{text}");
        assert!(text.ends_with("\n- tcp1 weft/vxlan 0.400, at least 0.3: met\n- cpu_per_gb weft/limit 2.000, at most 2.2: met\n"), "{text}");
    }
}
