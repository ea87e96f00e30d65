//! What a real `weft up` costs that has on its disk what every host of the mesh knows, alone in a namespace but for a neighbour that
//! says something new again and again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weft_sim::big::Big;
use weft_sim::onlooker;

use crate::status;

/// It is measured after it has had so long to settle.
const SETTLES: Duration = Duration::from_secs(20);
/// How long its processor is looked at.
const WATCH: Duration = Duration::from_secs(30);
/// Facts that change in a second.
const CHANGES: u32 = 3;
const PORT: u16 = 6783;
const MIB: f64 = (1u64 << 20) as f64;
const TICKS_PER_SECOND: f64 = 100.0;

/// What was measured.
pub struct Cost {
    /// Resident bytes at rest.
    pub rest: f64,
    /// The same after facts have changed for a while.
    pub busy: f64,
    /// What the start took of a processor, seconds.
    pub start: f64,
    /// Of one processor, while facts change.
    pub percent: f64,
}

/// Ends with what it stands for.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already or killed now: both leave nothing behind.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// `endpoints`: of each host. An error is a sentence.
pub fn measure(big: &Big, endpoints: usize, weft: &Path) -> Result<Cost, String> {
    let dir = std::env::temp_dir().join(format!("weft-sim-{}", std::process::id()));
    let state = dir.join("state");
    let cost = onlooker::write(big, &state, PORT).and_then(|()| watch(&state, endpoints, weft));
    let cleared = std::fs::remove_dir_all(&dir);
    cost.and_then(|cost| cleared.map(|()| cost).map_err(|e| format!("{} stays ({e})", dir.display())))
}

fn watch(state: &Path, endpoints: usize, weft: &Path) -> Result<Cost, String> {
    let len = std::fs::metadata(state.join("agent.redb")).map_or(0, |m| m.len());
    println!("the facts on its disk: {:.1} MiB", len as f64 / MIB);
    let inside = "mount -t tmpfs tmpfs /run && ip link set lo up && exec \"$0\" --state \"$1\" up";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", inside]).arg(weft).arg(state);
    let real = Running(command.spawn().map_err(|e| format!("unshare does not start ({e})"))?);
    let pid = real.0.id().to_string();
    let resident = || status(&pid, "VmRSS").ok_or("weft up has ended: it needs root, and tun devices");
    std::thread::sleep(SETTLES);
    let (rest, start) = (resident()?, seconds(&pid)?);
    let me = std::env::current_exe().map_err(|e| format!("no file of this program ({e})"))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg(me).arg("neighbour").arg(state);
    command.args([PORT.to_string(), endpoints.to_string(), CHANGES.to_string()]).stdout(Stdio::piped());
    let mut neighbour = Running(command.spawn().map_err(|e| format!("nsenter does not start ({e})"))?);
    let mut heard = String::new();
    let said = neighbour.0.stdout.as_mut().map(|said| BufReader::new(said).read_line(&mut heard));
    if !matches!(said, Some(Ok(1..))) {
        return Err("the neighbour does not begin".into());
    }
    println!("hosts and endpoints that its neighbour has heard of: {}", heard.trim());
    let before = seconds(&pid)?;
    std::thread::sleep(WATCH);
    let percent = (seconds(&pid)? - before) / WATCH.as_secs_f64() * 100.0;
    Ok(Cost { rest, busy: resident()?, start, percent })
}

/// What the kernel has counted of a process's own work, user and system.
fn seconds(pid: &str) -> Result<f64, String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|_| "weft up has ended")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}
