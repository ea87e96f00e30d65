//! 200 random docker commands from three hosts at once, while agents and engines are killed: afterwards what weft believes,
//! what Docker believes and what the kernel has must be equal.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weft_lab::{Daemon, Host, Lab};

use crate::fixture::{deadline, with_app};
use crate::truth;

/// Of each of the three hosts.
const COMMANDS: usize = 67;
/// One command in so many has the agent killed under it, or the engine.
const AGENT_DIES: u64 = 12;
const ENGINE_DIES: u64 = 30;
const NETWORKS: [&str; 2] = ["app", "db"];
const NAMES: [&str; 4] = ["aa", "bb", "cc", "dd"];
/// What was given in vain is free after a minute and a half at the latest.
const AGREE: f64 = 110.0;

/// Marsaglia's xorshift: the same seed, the same commands.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let limit = u64::try_from(all.len()).unwrap_or(1);
        all[usize::try_from(self.below(limit)).unwrap_or(0)]
    }
}

#[test]
fn afterwards_all_three_say_the_same() {
    if weft_lab::skip() {
        return;
    }
    let given = std::env::var("WEFT_SEED").ok().and_then(|s| s.parse().ok());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_secs());
    let seed: u64 = given.unwrap_or_else(clock);
    println!("seed {seed} (WEFT_SEED={seed} plays it again)");
    let lab = Lab::builder().hosts(3).up().unwrap();
    let mut mesh = with_app(&lab);
    mesh.network(&["db", "--subnet", "10.77.0.0/24", "--ipv6"]).unwrap();

    let start = Instant::now();
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let all = (1..).zip(lab.hosts().iter().zip(mesh.daemons()));
        let threads: Vec<_> = all
            .map(|(n, (host, daemon))| {
                let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n) | 1);
                scope.spawn(move || play(host, daemon, dice))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    });
    let total = |of: fn(&Counts) -> usize| counts.iter().map(of).sum::<usize>();
    println!(
        "{} commands in {:.1} s, {} refused, agents killed {} times, engines {}",
        COMMANDS * counts.len(),
        start.elapsed().as_secs_f64(),
        total(|c| c.refused),
        total(|c| c.agents),
        total(|c| c.engines),
    );

    let start = Instant::now();
    let mut last = String::new();
    while let Some(now) = truth::difference(&lab) {
        if now != last {
            println!("{:5.1} s: {now}", start.elapsed().as_secs_f64());
        }
        assert!(start.elapsed() < deadline(AGREE), "they do not agree after {AGREE} s (seed {seed}): {now}");
        last = now;
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("all agree {:.1} s after the last command", start.elapsed().as_secs_f64());
    mesh.wait_ready().unwrap();
    for (host, name) in lab.hosts().iter().zip(["last1", "last2", "last3"]) {
        host.run([
            "timeout",
            "60",
            "docker",
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "app",
            "busybox",
            "sleep",
            "100000",
        ])
        .unwrap();
    }
}

#[derive(Default)]
struct Counts {
    refused: usize,
    agents: usize,
    engines: usize,
}

fn play(host: &Host, daemon: &mut Daemon, mut dice: Dice) -> Counts {
    let mut counts = Counts::default();
    for _ in 0..COMMANDS {
        let argv = command(&mut dice);
        let (agent, engine) = (dice.below(AGENT_DIES) == 0, dice.below(ENGINE_DIES) == 0);
        let wait = Duration::from_millis(dice.below(600));
        let out = std::thread::scope(|scope| {
            let running = scope.spawn(|| host.exec(&argv));
            std::thread::sleep(if agent || engine { wait } else { Duration::ZERO });
            if engine {
                host.engine_kill9().unwrap();
                host.engine_start().unwrap();
                counts.engines += 1;
            }
            if agent {
                daemon.kill9();
                *daemon = host.spawn(["weft", "up"], "weft.log").unwrap();
                counts.agents += 1;
            }
            running.join().unwrap_or_else(|e| std::panic::resume_unwind(e))
        });
        if !out.ok() {
            counts.refused += 1;
            let line = out.stderr.lines().next().unwrap_or_default();
            if !expected(line) {
                println!("{}: {}: {line}", host.name(), argv.join(" "));
            }
        }
    }
    counts
}

/// Refusals of Docker itself: random commands meet names that are taken, gone, paused.
fn expected(line: &str) -> bool {
    let own = [
        "already in use",
        "No such container",
        "is not paused",
        "is already paused",
        "is not running",
        "a paused container",
        "already exists in network",
        "is not connected to",
        "same name as its current name",
    ];
    own.iter().any(|text| line.contains(text))
}

fn command(dice: &mut Dice) -> Vec<String> {
    let (name, network) = (dice.of(&NAMES), dice.of(&NETWORKS));
    let argv: Vec<&str> = match dice.below(14) {
        0..=4 => {
            let policy = dice.of(&["no", "always"]);
            let argv = ["docker", "run", "-d", "--restart", policy, "--name", name, "--network", network];
            argv.into_iter().chain(["busybox", "sleep", "100000"]).collect()
        }
        5 => vec!["docker", "rm", "-f", name],
        6 => vec!["docker", "stop", "-t0", name],
        7 => vec!["docker", "start", name],
        8 => vec!["docker", "restart", "-t0", name],
        9 => vec!["docker", "network", "connect", network, name],
        10 => vec!["docker", "network", "disconnect", network, name],
        11 => vec!["docker", "rename", name, dice.of(&NAMES)],
        12 => vec!["docker", dice.of(&["pause", "unpause"]), name],
        _ => vec!["docker", "kill", name],
    };
    argv.into_iter().map(str::to_owned).collect()
}
