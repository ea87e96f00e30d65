//! The small programs that the bench runs at the two ends, the same for every peer: a paced sender and a counting receiver of
//! UDP packets, an echo and the one who asks it. Hidden subcommands of this binary; each prints one line of JSON.

use std::{
    io::{self, Write},
    net::{SocketAddr, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Subcommand;
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

/// Bytes of UDP payload in every packet sent here.
pub const PAYLOAD: usize = 64;
/// What a receiver prints once it can be sent to.
pub const READY: &str = "ready";

/// A packet is due again after this; what fell due since the last look goes out in one burst.
const TICK: Duration = Duration::from_micros(200);
/// Room for bursts, so that what is measured is the path and not how soon the receiver is scheduled.
const RECEIVE_BUFFER: usize = 4 << 20;
/// An end that hears nothing for so long gives up.
const SILENCE: Duration = Duration::from_secs(5);

/// What an end can be told to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Probe {
    /// Sends packets at a rate.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Packets per second; 0: as many as can be.
        rate: u64,
        /// For how long.
        millis: u64,
    },
    /// Counts the packets that come within a window.
    Receive {
        /// Where to listen.
        at: SocketAddr,
        /// From the first packet to the beginning of the window.
        lead_millis: u64,
        /// Length of the window.
        millis: u64,
    },
    /// Sends back whatever comes, until killed.
    Echo {
        /// Where to listen.
        at: SocketAddr,
    },
    /// Asks an echo again and again.
    Ask {
        /// Where the echo is.
        to: SocketAddr,
        /// How often to ask.
        count: usize,
        /// Rest between two questions.
        pause_micros: u64,
    },
}

/// What a sender did.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Packets that the socket took.
    pub packets: u64,
    /// In how many seconds.
    pub seconds: f64,
}

/// What a receiver saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Received {
    /// Packets within the window.
    pub packets: u64,
    /// Length of the window in seconds.
    pub seconds: f64,
}

/// What somebody who asked an echo saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// Answers that came.
    pub answers: usize,
    /// Questions that stayed unanswered for a second.
    pub lost: usize,
    /// Median round trip in microseconds.
    pub p50: f64,
    /// 99th percentile in microseconds.
    pub p99: f64,
}

/// Runs one of them and prints its result.
pub fn run(probe: Probe) -> anyhow::Result<()> {
    match probe {
        Probe::Send { to, rate, millis } => print(&send(to, rate, Duration::from_millis(millis))?),
        Probe::Receive { at, lead_millis, millis } => {
            print(&receive(at, Duration::from_millis(lead_millis), Duration::from_millis(millis))?)
        }
        Probe::Echo { at } => echo(at),
        Probe::Ask { to, count, pause_micros } => {
            print(&ask(to, count, Duration::from_micros(pause_micros))?)
        }
    }
}

fn send(to: SocketAddr, rate: u64, length: Duration) -> anyhow::Result<Sent> {
    let socket = connected(to)?;
    let (start, payload) = (Instant::now(), [0x5a; PAYLOAD]);
    let (mut tried, mut packets) = (0, 0);
    loop {
        let passed = start.elapsed();
        if passed >= length {
            return Ok(Sent { packets, seconds: passed.as_secs_f64() });
        }
        let due = if rate == 0 { tried + 64 } else { (passed.as_secs_f64() * rate as f64) as u64 };
        while tried < due {
            tried += 1;
            // A full queue or an unreachable answer is a packet lost, not the end of the measurement.
            packets += u64::from(socket.send(&payload).is_ok());
            if tried % 64 == 0 && start.elapsed() >= length {
                break;
            }
        }
        if rate != 0 {
            sleep(TICK);
        }
    }
}

fn receive(at: SocketAddr, lead: Duration, length: Duration) -> anyhow::Result<Received> {
    let socket = listening(at)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut buffer = [0; 2048];
    socket.recv(&mut buffer)?;
    let open = Instant::now() + lead;
    socket.set_read_timeout(Some(lead + length))?;
    let (mut packets, close) = (0, open + length);
    loop {
        let came = match socket.recv(&mut buffer) {
            Ok(_) => 1,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e.into()),
        };
        let now = Instant::now();
        if now >= close {
            return Ok(Received { packets, seconds: length.as_secs_f64() });
        }
        packets += if now >= open { came } else { 0 };
    }
}

fn echo(at: SocketAddr) -> anyhow::Result<()> {
    let socket = listening(at)?;
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

fn ask(to: SocketAddr, count: usize, pause: Duration) -> anyhow::Result<Asked> {
    let socket = connected(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (mut trips, mut lost, mut buffer) = (Vec::with_capacity(count), 0, [0; 2048]);
    for number in 0..count as u64 {
        let mut question = [0x5a; PAYLOAD];
        question[..8].copy_from_slice(&number.to_be_bytes());
        let start = Instant::now();
        socket.send(&question)?;
        loop {
            match socket.recv(&mut buffer) {
                Ok(_) if buffer[..8] == question[..8] => break trips.push(start.elapsed()),
                Ok(_) => {} // a late answer to an earlier one
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break lost += 1,
                Err(e) => return Err(e.into()),
            }
        }
        std::thread::sleep(pause);
    }
    anyhow::ensure!(lost * 10 <= count, "{lost} of {count} questions had no answer within a second");
    trips.sort();
    let at = |part: f64| trips[((trips.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Ok(Asked { answers: trips.len(), lost, p50: at(0.5), p99: at(0.99) })
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

fn listening(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    println!("{READY}");
    io::stdout().flush()?;
    Ok(socket)
}

fn print(result: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(result)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_over_loopback_is_counted() {
        let at: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let counter = std::thread::spawn(move || receive(at, Duration::ZERO, Duration::from_millis(200)));
        sleep(Duration::from_millis(100));
        let sent = send(at, 2000, Duration::from_millis(300)).unwrap();
        let received = counter.join().unwrap().unwrap();
        assert!(sent.packets >= received.packets, "{sent:?} {received:?}");
        assert!(received.packets > 100, "{sent:?} {received:?}");
    }

    #[test]
    fn an_echo_is_asked_and_answers() {
        let at: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        std::thread::spawn(move || echo(at));
        sleep(Duration::from_millis(100));
        let asked = ask(at, 50, Duration::from_micros(10)).unwrap();
        assert_eq!((asked.answers, asked.lost), (50, 0));
        assert!(asked.p50 > 0.0 && asked.p50 <= asked.p99);
    }

    fn free_port() -> u16 {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }
}
