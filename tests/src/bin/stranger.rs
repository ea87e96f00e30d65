//! Somebody without a key, on the underlay: throws bytes at a host's port. Random ones, ones that look like the start of a QUIC
//! handshake, ones that look like envelopes. `stranger ADDR PORT COUNT`; counts are bounded and it stops by itself.

use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match throw() {
        Ok(sent) => {
            println!("{sent} datagrams thrown");
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
    let [_, addr, port, count] = args.as_slice() else {
        return Err("usage: stranger ADDR PORT COUNT".into());
    };
    let to = SocketAddr::new(addr.parse()?, port.parse()?);
    let count: usize = count.parse()?;
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
