//! Somebody without a key, on the underlay: throws bytes at a host's port. Random ones, ones that look like the start of a QUIC
//! handshake, ones that look like envelopes. `stranger ADDR PORT COUNT [HOW]`; counts are bounded and it stops by itself. HOW is what it
//! does over TCP instead: `garbage`, `silent`, `slow`, `records`, `many`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match throw() {
        Ok(sent) => {
            println!("{sent} thrown");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("stranger: {e}");
            ExitCode::FAILURE
        }
    }
}

fn throw() -> Result<usize, Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, addr, port, count, how @ ..] = args.as_slice() else {
        return Err("usage: stranger ADDR PORT COUNT [garbage|silent|slow|records|many]".into());
    };
    let to = SocketAddr::new(addr.parse()?, port.parse()?);
    let count: usize = count.parse()?;
    if let [how] = how {
        return knock(to, count, how);
    }
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let mut random = Random(0x1234_5678_9abc_def1);
    for n in 0..count {
        let len = 1 + (random.next() as usize) % 1400;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        match n % 4 {
            // A QUIC long header, version 1, Initial (RFC 9000 17.2.2), with nonsense behind it.
            0 => {
                bytes.resize(1200, 0);
                bytes[..7].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8, random.next() as u8]);
            }
            // A QUIC short header.
            1 => bytes[0] = 0x40 | bytes[0] & 0x3f,
            // An envelope of some session: kind, lane and the zero bytes as they must be.
            2 => {
                bytes.resize(len.max(40), 0);
                bytes[..4].copy_from_slice(&[4, 0, 0, 0]);
            }
            _ => bytes[0] &= 0x3f,
        }
        socket.send_to(&bytes, to)?;
        if n % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(count)
}

/// What a TCP stream may say before it is closed; each must be, and nothing may be said to it.
fn knock(to: SocketAddr, count: usize, how: &str) -> Result<usize, Box<dyn std::error::Error>> {
    const PREFACE: &[u8] = b"weft\x01\0\0\0";
    let mut random = Random(0x1234_5678_9abc_def1);
    let garbage: Vec<u8> = (0..4000).map(|_| random.next() as u8).collect();
    let (streams, says) = match how {
        "garbage" => (1, garbage),
        "silent" => (1, Vec::new()),
        "slow" => (1, PREFACE[..7].to_vec()),
        "records" => (1, [PREFACE, &[0xff; 4000]].concat()),
        "many" => (count, Vec::new()),
        _ => return Err(format!("{how} is no way to knock").into()),
    };
    let mut open = Vec::new();
    for _ in 0..streams {
        open.push(TcpStream::connect_timeout(&to, Duration::from_secs(10))?);
    }
    let pause = Duration::from_millis(if how == "slow" { 200 } else { 0 });
    for stream in &mut open {
        for part in says.chunks(if how == "slow" { 1 } else { 4000 }) {
            let _ = stream.write_all(part); // It may be closed already.
            std::thread::sleep(pause);
        }
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        match stream.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => return Err(format!("not closed in silence: {other:?}").into()),
        }
    }
    Ok(streams)
}

/// xorshift64 (Marsaglia): the same bytes each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
