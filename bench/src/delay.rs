//! An underlay with a round trip: in place of the switch's bridge the port of each host leads into a tap, and what comes out of one
//! goes into another a while later. Only the questions who has an address are carried at once: far hosts ask a router nearby.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use weft_lab::Lab;
use weft_router_io::tap::TapQueue;

use crate::probe::READY;

/// The virtio-net header before each frame. It goes on as it is, so a superframe stays whole.
const HEADER: usize = 10;
/// The longest superframe, and room.
const BUFFER: usize = HEADER + 70_000;
/// Frames that rest on the way to one host; a further one is lost, as on any wire.
const QUEUE: usize = 4096;

/// The underlay of a lab, every way from host to host so much longer; ends when dropped.
pub struct Delay(Child);

impl Delay {
    /// When this returns frames take so long.
    pub fn start(lab: &Lab, one_way: Duration) -> anyhow::Result<Delay> {
        let me = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = lab.switch_command([me.as_os_str()]);
        command.args(["delay", &one_way.as_millis().to_string(), &lab.hosts().len().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut delay = Delay(command.spawn().context("cannot start the delay")?);
        let mut said = String::new();
        let stdout = delay.0.stdout.as_mut().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut said).context("the delay says nothing")?;
        ensure!(said.trim() == READY, "the delay does not carry: {said}");
        Ok(delay)
    }

    /// Between these two nothing passes any more, and between all others everything.
    pub fn cut(&mut self, a: usize, b: usize) -> anyhow::Result<()> {
        let stdin = self.0.stdin.as_mut().context("no standard input")?;
        writeln!(stdin, "{a} {b}").context("the delay has ended")
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        // Ended already or killed now: both leave nothing behind.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Carries in this namespace, between hosts 1 to `hosts`, until standard input ends. A line of two numbers there is a cut.
pub fn run(one_way: Duration, hosts: u8) -> anyhow::Result<()> {
    let wires =
        Arc::new(Wires { taps: (1..=hosts).map(tap).collect::<Result<_, _>>()?, cut: AtomicU16::new(0) });
    let mut ways = Vec::new();
    for to in 1..=hosts {
        let (send, rests) = mpsc::sync_channel::<(Instant, Arc<[u8]>)>(QUEUE);
        ways.push(send);
        let wires = Arc::clone(&wires);
        thread::spawn(move || {
            for (due, frame) in rests {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                wires.write(to, &frame);
            }
        });
    }
    for from in 1..=hosts {
        let (wires, ways) = (Arc::clone(&wires), ways.clone());
        thread::spawn(move || {
            let mut buffer = [0; BUFFER];
            while let Ok(len) = wires.read(from, &mut buffer) {
                let (due, frame) = (Instant::now() + one_way, &buffer[..len]);
                let asks = is_of_neighbours(&frame[HEADER.min(len)..]);
                let frame: Arc<[u8]> = frame.into();
                for to in wires.targets(from, &frame) {
                    if asks {
                        wires.write(to, &frame);
                    } else {
                        // Full: lost.
                        let _lost = ways[usize::from(to) - 1].try_send((due, Arc::clone(&frame)));
                    }
                }
            }
        });
    }
    println!("{READY}");
    io::stdout().flush()?;
    for line in io::stdin().lines() {
        let line = line?;
        let mut pair = line.split(' ').filter_map(|n| n.parse::<u8>().ok());
        if let (Some(a), Some(b)) = (pair.next(), pair.next()) {
            wires.cut.store(u16::from_be_bytes([a.min(b), a.max(b)]), Ordering::Relaxed);
        }
    }
    Ok(())
}

struct Wires {
    taps: Vec<TapQueue>,
    /// The lower and the higher of two hosts.
    cut: AtomicU16,
}

impl Wires {
    fn read(&self, from: u8, buffer: &mut [u8]) -> io::Result<usize> {
        let tap = &self.taps[usize::from(from) - 1];
        loop {
            match rustix::io::read(tap, &mut *buffer) {
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::new(tap, PollFlags::IN)], None)?;
                }
                read => return Ok(read?),
            }
        }
    }

    fn write(&self, to: u8, frame: &[u8]) {
        // A host that is off: lost.
        let _lost = rustix::io::write(&self.taps[usize::from(to) - 1], frame);
    }

    /// Who gets a frame: the last byte of a host's MAC is its number.
    fn targets(&self, from: u8, frame: &[u8]) -> Vec<u8> {
        let hosts = 1..=u8::try_from(self.taps.len()).unwrap_or(u8::MAX);
        let Some(mac) = frame.get(HEADER..HEADER + 6) else { return Vec::new() };
        let [low, high] = self.cut.load(Ordering::Relaxed).to_be_bytes();
        let passes = |to: &u8| *to != from && (from.min(*to), from.max(*to)) != (low, high);
        hosts.filter(|to| mac[0] & 1 == 1 || mac[5] == *to).filter(passes).collect()
    }
}

/// Makes a tap, and joins it to the port of a host.
fn tap(host: u8) -> anyhow::Result<TapQueue> {
    let (bridge, tap, port) = (format!("far{host}"), format!("tap{host}"), format!("h{host}"));
    let queue = TapQueue::open(&tap)?;
    let batch = format!(
        "link add {bridge} type bridge mcast_snooping 0\nlink set {port} master {bridge}\n\
         link set {tap} master {bridge}\nlink set {tap} up\nlink set {bridge} up\n"
    );
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    ip.stdin.take().context("no standard input")?.write_all(batch.as_bytes())?;
    ensure!(ip.wait()?.success(), "{port} cannot be joined to a tap");
    Ok(queue)
}

/// ARP, and neighbour discovery (RFC 4861 4.3, 4.4).
fn is_of_neighbours(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => frame.get(20) == Some(&58) && matches!(frame.get(54), Some(135 | 136)),
        _ => false,
    }
}
