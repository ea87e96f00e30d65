//! The test's side of an attacker: its orders, what the victim counted meanwhile, and whether anything of the victim has grown.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use weft_lab::Host;

use crate::separation::drops;

/// The victim's counters follow what it was sent within this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// A victim may grow by so much under all attacks of a test together: caches, and pages that it touches for the first time.
const GROWTH_KIB: u64 = 16 * 1024;

/// A running attacker that takes orders.
pub struct Attacker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Attacker {
    /// Starts a command that was made for a host or for the switch.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers) }
    }

    /// Gives an order; returns what the attacker says when it is done.
    pub fn obey(&mut self, order: &str) -> String {
        let mut answer = String::new();
        writeln!(self.orders, "{order}").unwrap();
        self.answers.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("ok"), "{}: {answer}", shortened(order));
        answer.trim().to_owned()
    }

    /// Gives the order and waits until the victim has counted `count` more under this name. Prints all that it counted.
    pub fn is_counted(&mut self, victim: &Host, what: &str, order: &str, label: &str, count: u64) {
        let before = drops(victim);
        self.obey(order);
        let start = Instant::now();
        loop {
            let grown = growth(&before, &drops(victim));
            if grown.get(label).is_some_and(|n| *n >= count) {
                println!("{what:<44} {count:>4} x {label:<24} counted: {grown:?}");
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {count} x {label} expected, counted: {grown:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// What must not grow while a host is attacked.
pub struct Size {
    memory: u64,
    pid: i32,
    lists: Vec<String>,
}

impl Size {
    /// Of the victim, whose `weft up` has this pid.
    pub fn of(victim: &Host, pid: i32) -> Self {
        let lists = ["hosts", "network", "ps"].map(|noun| match noun {
            "network" => victim.exec(["weft", "network", "ls"]).stdout,
            _ => victim.exec(["weft", noun]).stdout,
        });
        Self { memory: memory(pid), pid, lists: lists.to_vec() }
    }

    /// Panics if more memory is in use than attacks may cost, or hosts, networks or containers are others.
    pub fn assert_same(&self, victim: &Host) {
        let now = Self::of(victim, self.pid);
        println!("memory of the victim: {} KiB -> {} KiB", self.memory, now.memory);
        assert!(now.memory < self.memory + GROWTH_KIB, "{} KiB -> {} KiB", self.memory, now.memory);
        assert_eq!(now.lists, self.lists, "hosts, networks and containers");
    }
}

fn growth(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = after.iter().map(|(label, n)| (label.clone(), n - before.get(label).unwrap_or(&0).min(n)));
    grown.filter(|(_, n)| *n > 0).collect()
}

fn memory(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn shortened(order: &str) -> String {
    order.chars().take(60).collect()
}
