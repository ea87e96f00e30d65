//! Processes as /proc shows them: who is whose child, and whether a pid is still the process it was.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid in this machine's view.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Process> {
        Stat::read(pid).map(|s| Process { pid, started: s.started })
    }

    /// The calling process.
    pub fn current() -> Process {
        let pid = std::process::id().cast_signed();
        Process::of(pid).unwrap_or(Process { pid, started: 0 })
    }

    /// Runs, and is no zombie.
    pub fn alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|s| s.started == self.started && s.state != 'Z')
    }

    /// SIGKILL, unless the pid has passed to somebody else.
    pub fn kill(&self) {
        if self.alive() {
            signal(self.pid, Signal::KILL);
        }
    }
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _gone = kill_process(pid, signal);
    }
}

/// The children of a process, zombies left out.
pub fn children(parent: i32) -> Vec<i32> {
    all().filter(|(_, s)| s.parent == parent && s.state != 'Z').map(|(pid, _)| pid).collect()
}

/// A process's children, their children and so on, nearest first.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(children(parent));
        next += 1;
    }
    found
}

/// All processes of the pid namespace that `holder` is pid 1 of, and of those nested in it; zombies and the holder
/// itself left out. Parents alone would not tell: what nsenter brings in has its parent outside.
pub fn members(holder: i32) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(ours) = namespace(holder) else { return Vec::new() };
    let table: Vec<(i32, Stat)> = all().filter(|(_, s)| s.state != 'Z').collect();
    let mut found: Vec<i32> =
        table.iter().map(|(pid, _)| *pid).filter(|&pid| namespace(pid).is_some_and(|n| n == ours)).collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        for (pid, _) in table.iter().filter(|(_, s)| s.parent == parent) {
            if !found.contains(pid) {
                found.push(*pid);
            }
        }
        next += 1;
    }
    found.retain(|&pid| pid != holder);
    found
}

/// The command name of a process (15 characters at most).
pub fn name(pid: i32) -> Option<String> {
    Stat::read(pid).map(|s| s.name)
}

/// The process whose pid inside the holder's pid namespace is `inner`.
pub fn outer_pid(holder: i32, inner: i32) -> Option<i32> {
    // NSpid lists one pid for each nesting; the holder is 1 in its own, at the same depth.
    let depth = ns_pids(holder)?.len() - 1;
    members(holder).into_iter().find(|&pid| ns_pids(pid).is_some_and(|p| p.get(depth) == Some(&inner)))
}

/// Asks again and again, every 10 ms, until `done` says yes or the time is over.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ns_pids(pid: i32) -> Option<Vec<i32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|n| n.parse().ok()).collect()
}

struct Stat {
    name: String,
    state: char,
    parent: i32,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5); the name is in parentheses and may itself hold spaces and parentheses.
    fn parse(text: &str) -> Option<Stat> {
        let (head, tail) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        Some(Stat {
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn all() -> impl Iterator<Item = (i32, Stat)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, Stat::read(pid)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_no_trouble() {
        let mut text = "42 (a) b (c)) S 7".to_owned();
        for n in 0..17 {
            text += &format!(" {n}");
        }
        text += " 991 0";
        let stat = Stat::parse(&text).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent, stat.started), ("a) b (c)", 'S', 7, 991));
    }

    #[test]
    fn this_process_is_alive_and_a_stranger_with_its_pid_is_not() {
        let me = Process::current();
        assert!(me.alive());
        assert!(!Process { started: me.started + 1, ..me }.alive());
    }
}
