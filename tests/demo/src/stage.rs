//! What the person sees: one line for each step, a spinner on a terminal meanwhile, and the closing table.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows steps and keeps what came of them.
pub struct Stage {
    terminal: bool,
    start: Instant,
    rows: Vec<Row>,
}

struct Row {
    what: &'static str,
    result: String,
    ok: bool,
}

impl Stage {
    /// An empty one; the clock runs.
    pub fn new() -> Stage {
        Stage { terminal: stderr().is_terminal(), start: Instant::now(), rows: Vec::new() }
    }

    /// A step that prepares what follows: its error ends the demo.
    pub fn prepare<T>(&self, what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let (result, seconds) = self.watch(what, work);
        let failed = if result.is_ok() { "" } else { "  FAILED" };
        println!("  {what}{failed}  ({seconds:.1} s)");
        result
    }

    /// A step that shows something: a row of the table, whatever comes of it.
    pub fn show(&mut self, what: &'static str, work: impl FnOnce() -> anyhow::Result<String>) {
        let (result, seconds) = self.watch(what, work);
        let row = match result {
            Ok(result) => Row { what, result, ok: true },
            Err(e) => Row { what, result: format!("{e:#}"), ok: false },
        };
        println!("  {what}: {}{}  ({seconds:.1} s)", if row.ok { "" } else { "FAILED: " }, row.result);
        self.rows.push(row);
    }

    /// The table; true if every step succeeded.
    pub fn close(self) -> bool {
        let ok = self.rows.iter().all(|row| row.ok);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for row in self.rows {
            table.add_row([row.what, &row.result, if row.ok { "ok" } else { "FAILED" }]);
        }
        let verdict =
            if ok { "Everything was as it should be" } else { "Not everything was as it should be" };
        println!("\n{table}\n{verdict}; {:.0} s.", self.start.elapsed().as_secs_f64());
        ok
    }

    fn watch<T>(&self, what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> (anyhow::Result<T>, f64) {
        let start = Instant::now();
        let spinner = self.terminal.then(|| spinner(what));
        let result = work();
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        (result, start.elapsed().as_secs_f64())
    }
}

fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
