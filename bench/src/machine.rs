//! What the numbers were measured on, and whether it had something else to do.

use std::{fmt, fs, thread::sleep, time::Duration};

use serde::Serialize;

use crate::measure::Busy;

/// The machine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Instructions that decide what an AEAD costs, those it has.
    pub instructions: Vec<&'static str>,
    /// The kernel's version.
    pub kernel: String,
    /// The largest part of it that was busy with something else before a round, 0 to 1.
    pub busy_before: f64,
}

/// Above this part somebody else's work shows in the numbers.
const DISTURBED: f64 = 0.1;

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field =
            |name: &str| info.lines().find(|l| l.starts_with(name))?.split_once(':').map(|(_, v)| v.trim());
        let flags: Vec<&str> = field("flags").unwrap_or_default().split_whitespace().collect();
        Machine {
            processor: field("model name").unwrap_or("unknown").to_owned(),
            processors: info.lines().filter(|l| l.starts_with("processor")).count(),
            instructions: ["aes", "vaes", "avx512f"].into_iter().filter(|i| flags.contains(i)).collect(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            busy_before: 0.0,
        }
    }

    /// Looks for a moment whether it is busy with something else, and says so.
    pub fn look(&mut self) -> anyhow::Result<()> {
        let before = Busy::now()?;
        sleep(Duration::from_millis(500));
        let part = Busy::now()?.part_since(&before);
        if part > DISTURBED {
            eprintln!(
                "  the machine is {:.0} % busy with something else: the next numbers are worth less",
                part * 100.0
            );
        }
        self.busy_before = self.busy_before.max(part);
        Ok(())
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, processors, instructions, kernel, busy_before } = self;
        let has =
            if instructions.is_empty() { "no AES instructions".to_owned() } else { instructions.join(" ") };
        write!(f, "{processors} x {processor} ({has}), Linux {kernel}.")?;
        if *busy_before > DISTURBED {
            write!(f, " Up to {:.0} % of it was busy with something else.", busy_before * 100.0)?;
        }
        Ok(())
    }
}
