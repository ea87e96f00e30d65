//! `make sim`: a thousand hosts on virtual time, as a table of what was measured beside what is promised.

mod real;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use weft_sim::Traffic;
use weft_sim::big::{self, Big};
use weft_sim::onlooker;

const GIB: f64 = (1u64 << 30) as f64;

/// A mesh of a thousand hosts on virtual time, and one real weft that knows of it.
#[derive(Parser)]
struct Args {
    /// Hosts; at most 1000
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=1000))]
    hosts: u16,
    /// Endpoints of each host; at most 120
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=120))]
    endpoints: u8,
    /// What is left to chance comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the halves are apart, seconds
    #[arg(long, default_value_t = 3600)]
    apart: u64,
    /// The weft to load with the facts of the mesh; needs root
    #[arg(long)]
    weft: Option<PathBuf>,
    /// Nothing but that
    #[arg(long, requires = "weft")]
    only_weft: bool,
    #[command(subcommand)]
    command: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// The neighbour of the real weft
    #[command(hide = true)]
    Neighbour {
        /// The state directory of the weft
        dir: PathBuf,
        /// Its port
        port: u16,
        /// Endpoints of the neighbour
        endpoints: usize,
        /// How many of its facts change in a second
        per_second: u32,
    },
}

/// What was promised and what came of it.
struct Row {
    what: String,
    bar: &'static str,
    value: String,
    met: Option<bool>,
}

struct Table {
    rows: Vec<Row>,
    start: Instant,
}

impl Table {
    fn row(&mut self, what: impl Into<String>, bar: &'static str, value: String, met: Option<bool>) {
        let row = Row { what: what.into(), bar, value, met };
        println!("[{:5.0} s] {}: {}", self.start.elapsed().as_secs_f64(), row.what, row.value);
        self.rows.push(row);
    }

    fn worst(&mut self, what: &str, bar: &'static str, limit: Duration, took: &[Option<Duration>]) {
        let mut known: Vec<Duration> = took.iter().flatten().copied().collect();
        known.sort_unstable();
        let middle = known.get(known.len() / 2).copied().unwrap_or_default();
        let most = known.last().copied().unwrap_or_default();
        let lost = took.len() - known.len();
        let mut value = format!("{most:.2?}, median {middle:.2?} of {}", took.len());
        if lost > 0 {
            value += &format!(", {lost} never");
        }
        self.row(what, bar, value, Some(lost == 0 && most <= limit));
    }

    fn print(&self) -> bool {
        let wide = |of: fn(&Row) -> usize| self.rows.iter().map(of).max().unwrap_or_default();
        let (what, bar) = (wide(|r| r.what.chars().count()), wide(|r| r.bar.chars().count()));
        println!();
        for row in &self.rows {
            let met = match row.met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            println!("{:what$}  {:bar$}  {met:3}  {}", row.what, row.bar, row.value);
        }
        self.rows.iter().all(|r| r.met != Some(false))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Hidden::Neighbour { dir, port, endpoints, per_second }) = args.command {
        let Err(why) = onlooker::neighbour(&dir, port, endpoints, per_second) else {
            return ExitCode::SUCCESS;
        };
        eprintln!("weft-sim: {why}");
        return ExitCode::FAILURE;
    }
    let mut table = Table { rows: Vec::new(), start: Instant::now() };
    let mut big = Big::new(args.hosts.into(), args.endpoints.into(), args.seed);
    println!("{} hosts, {} endpoints each, seed {}", args.hosts, args.endpoints, args.seed);

    if let Some(weft) = &args.weft {
        let what = "one weft with all these facts, resident";
        match real::measure(&big, args.endpoints.into(), weft) {
            Ok(cost) => {
                let most = cost.rest.max(cost.busy);
                let value =
                    format!("{:.1} MB, {:.1} at 3 changes a second", cost.rest / 1e6, cost.busy / 1e6);
                table.row(what, "< 100 MB", value, Some(most < 100e6));
                let value = format!("{:.1} % of a core, its start {:.1} s", cost.percent, cost.start);
                table.row("  its processor, 3 changes a second", "", value, None);
            }
            Err(why) => {
                table.row(what, "< 100 MB", format!("not measured: {why}"), args.only_weft.then_some(false))
            }
        }
        if args.only_weft {
            return if table.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    }

    let settled = big.settle();
    let value = settled.map_or("never".into(), |took| format!("{took:.2?}"));
    table.row("all start at once: all known and reached after", "", value, Some(settled.is_some()));

    for loss in [0, 50] {
        big.world.underlay.weather.loss = loss;
        let sent = big.steady(Duration::from_secs(60), 3);
        let kinds: Vec<String> = Traffic::KINDS
            .iter()
            .zip(sent.kinds)
            .map(|(kind, bits)| format!("{kind} {:.1}", bits / 1000.0))
            .collect();
        let value = format!(
            "{:.1} kbit/s, the busiest host {:.1} ({})",
            sent.mean / 1000.0,
            sent.most / 1000.0,
            kinds.join(", ")
        );
        let what = format!("sent by a host, 3 changes a second, {} % loss", loss / 10);
        table.row(what, "< 20 kbit/s", value, Some(sent.mean < big::PLAIN));
    }
    let took = big.spread(20);
    table.worst("a new fact is known everywhere, 5 % loss", "2 s", big::KNOWN, &took);
    big.world.underlay.weather.loss = 0;
    let took = big.death(5);
    table.worst("a death is known everywhere", "6 s", big::DEAD, &took);
    let what = format!("halves that were apart for {} s, one change a second: all known after", args.apart);
    match big.part(Duration::from_secs(args.apart), 1) {
        None => table.row(what, "5 s", "never".into(), Some(false)),
        Some(healed) => {
            let met = healed.known.max(healed.reached) <= big::HEALED;
            let value = format!("{:.2?}, all reached after {:.2?}", healed.known, healed.reached);
            table.row(what, "5 s", value, Some(met));
            let most = healed.most / 1e6;
            table.row(
                "  the most that a host sent meanwhile",
                "10 Mbit/s",
                format!("{most:.1} Mbit/s"),
                Some(healed.most <= big::CATCH_UP),
            );
            let wrong = healed.wrong.len();
            healed.wrong.iter().take(20).for_each(|wrong| println!("{wrong}"));
            table.row("  facts lost, addresses used twice", "0", wrong.to_string(), Some(wrong == 0));
            let rests = if healed.rests { "yes" } else { "no" };
            table.row(
                "  all the same everywhere five minutes later",
                "yes",
                rests.into(),
                Some(healed.rests),
            );
        }
    }
    let broken = big.world.broken.len();
    big.world.broken.iter().take(20).for_each(|broken| println!("{broken}"));
    table.row("promises between the layers broken", "0", broken.to_string(), Some(broken == 0));
    let peak = status("self", "VmHWM").unwrap_or_default();
    table.row("memory of the whole run, peak", "8 GB", format!("{:.2} GiB", peak / GIB), Some(peak < 8e9));
    let (wall, events) = (table.start.elapsed(), big.world.events());
    let value = format!("{wall:.0?} for {:.0?}, {events} events, {} changes", big.world.now, big.changes());
    table.row("wall time for virtual time", "", value, None);
    if table.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Bytes, of a line of a process's status.
fn status(pid: &str, line: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib: f64 = text.lines().find(|l| l.starts_with(line))?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}
