//! What is measured between two containers, and the numbers that come of it. The same for every peer.

mod packets;
mod processor;

use std::{thread::sleep, time::Duration};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use processor::Busy;

use crate::{
    ends::Ends,
    probe::{Asked, Received, Sent},
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Seconds before each TCP measurement that do not count.
    pub warm: u64,
    /// Seconds of each TCP measurement.
    pub tcp: u64,
    /// Also four streams, packets and round trips; else one stream alone.
    pub all: bool,
}

/// One round of one peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// One TCP stream, Gbit/s of payload received.
    pub tcp1: f64,
    /// Segments that the one stream sent again.
    pub tcp1_retransmits: u64,
    /// CPU seconds of the whole machine (both hosts, both ends, the kernel) per GB (10^9 bytes) of the one stream.
    pub cpu_per_gb: f64,
    /// Four TCP streams, Gbit/s of payload received.
    pub tcp4: Option<f64>,
    /// UDP packets of 64 bytes received per second, at the sending rate at which that is most.
    pub pps64: Option<f64>,
    /// That sending rate, packets per second.
    pub pps64_sent: Option<f64>,
    /// Median round trip of 64 bytes at rest, microseconds.
    pub rtt_p50: Option<f64>,
    /// Its 99th percentile.
    pub rtt_p99: Option<f64>,
}

impl Round {
    /// The value of a metric, if it was measured.
    pub fn get(&self, metric: &str) -> Option<f64> {
        match metric {
            "tcp1" => Some(self.tcp1),
            "tcp4" => self.tcp4,
            "pps64" => self.pps64,
            "rtt_p50" => self.rtt_p50,
            "rtt_p99" => self.rtt_p99,
            "cpu_per_gb" => Some(self.cpu_per_gb),
            _ => None,
        }
    }
}

const IPERF_PORT: u16 = 5201;
const PROBE_PORT: u16 = 5300;
/// Questions per round trip measurement, and the rest between two: the machine is idle then, as with ssh or a small query.
const QUESTIONS: usize = 3000;
const PAUSE_MICROS: u64 = 1000;
/// A packet step: silence at first for ARP and queues to settle, then the window that counts.
const LEAD_MILLIS: u64 = 150;
const WINDOW_MILLIS: u64 = 600;

/// Measures once.
pub fn round(ends: &Ends, effort: Effort) -> anyhow::Result<Round> {
    reach(ends)?;
    let one = tcp(ends, 1, effort).context("one TCP stream")?;
    let mut round = Round {
        tcp1: one.gbit,
        tcp1_retransmits: one.retransmits,
        cpu_per_gb: one.cpu_per_gb,
        tcp4: None,
        pps64: None,
        pps64_sent: None,
        rtt_p50: None,
        rtt_p99: None,
    };
    if effort.all {
        round.tcp4 = Some(tcp(ends, 4, effort).context("four TCP streams")?.gbit);
        let best = packets::best(|rate| step(ends, rate)).context("64-byte packets")?;
        round.pps64 = Some(best.received);
        round.pps64_sent = Some(best.sent);
        sleep(Duration::from_millis(500)); // queues that the last step filled
        let asked = trips(ends).context("round trips")?;
        round.rtt_p50 = Some(asked.p50);
        round.rtt_p99 = Some(asked.p99);
    }
    Ok(round)
}

/// Waits until the other end answers a ping.
fn reach(ends: &Ends) -> anyhow::Result<()> {
    for _ in 0..60 {
        let mut ping = ends.a.command("busybox");
        if ping.args(["ping", "-c1", "-W1", &ends.b.address.to_string()]).output()?.status.success() {
            return Ok(());
        }
        sleep(Duration::from_millis(250));
    }
    anyhow::bail!(
        "the containers do not reach each other: no ping from {} to {}",
        ends.a.address,
        ends.b.address
    )
}

struct Tcp {
    gbit: f64,
    retransmits: u64,
    cpu_per_gb: f64,
}

fn tcp(ends: &Ends, streams: u32, effort: Effort) -> anyhow::Result<Tcp> {
    let bind = ends.b.address.to_string();
    let server = ["-s", "-B", &bind, "-p", &IPERF_PORT.to_string(), "--forceflush"].map(str::to_owned);
    let _server = ends.b.start("iperf3", &server, "Server listening")?;
    let client = |seconds: u64| {
        let (port, streams, seconds) = (IPERF_PORT.to_string(), streams.to_string(), seconds.to_string());
        let args = ["-c", &bind, "-p", &port, "-P", &streams, "-t", &seconds, "-J"].map(str::to_owned);
        iperf(ends, &args)
    };
    client(effort.warm)?;
    let before = Busy::now()?;
    let report = client(effort.tcp)?;
    let busy = Busy::now()?.since(&before);
    let number = |path: &str| {
        report.pointer(path).and_then(Value::as_f64).with_context(|| format!("iperf3 says no {path}"))
    };
    let bytes = number("/end/sum_received/bytes")?;
    anyhow::ensure!(bytes > 0.0, "iperf3 moved nothing");
    Ok(Tcp {
        gbit: number("/end/sum_received/bits_per_second")? / 1e9,
        retransmits: number("/end/sum_sent/retransmits").unwrap_or_default() as u64,
        cpu_per_gb: busy / (bytes / 1e9),
    })
}

/// A client's report. The server of the run before may need a moment until it takes the next.
fn iperf(ends: &Ends, args: &[String]) -> anyhow::Result<Value> {
    let mut tries = 0;
    loop {
        tries += 1;
        let report = ends.a.json::<Value>("iperf3", args);
        let why = match &report {
            Ok(value) => value.get("error").map(Value::to_string),
            Err(e) => Some(e.to_string()),
        };
        let Some(why) = why else { return report };
        anyhow::ensure!(tries < 5, "iperf3 fails again and again: {why}");
        sleep(Duration::from_millis(300));
    }
}

fn step(ends: &Ends, rate: u64) -> anyhow::Result<packets::Step> {
    let at = ends.b.at(PROBE_PORT);
    let receiver = ends.b.start_probe(
        &["receive", &at, &LEAD_MILLIS.to_string(), &WINDOW_MILLIS.to_string()].map(str::to_owned),
    )?;
    let millis = LEAD_MILLIS + WINDOW_MILLIS + 50;
    let sent: Sent =
        ends.a.probe(&["send", &at, &rate.to_string(), &millis.to_string()].map(str::to_owned))?;
    let received: Received = receiver.json()?;
    Ok(packets::Step {
        sent: sent.packets as f64 / sent.seconds,
        received: received.packets as f64 / received.seconds,
    })
}

fn trips(ends: &Ends) -> anyhow::Result<Asked> {
    let at = ends.b.at(PROBE_PORT + 1);
    let _echo = ends.b.start_probe(&["echo".to_owned(), at.clone()])?;
    let ask = |count: usize| {
        ends.a.probe(&["ask", &at, &count.to_string(), &PAUSE_MICROS.to_string()].map(str::to_owned))
    };
    let _warm: Asked = ask(200)?;
    ask(QUESTIONS)
}
