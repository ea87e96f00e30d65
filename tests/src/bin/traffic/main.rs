//! Traffic for lab tests, run in a container's network namespace: echo and transfer with a checksum, short connections, raw frames.
//! Every subcommand ends by itself; what it found is on standard output, and its exit code tells whether it was right.

mod frames;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

const USAGE: &str = "usage: traffic SUBCOMMAND
  udp-serve ADDR PORT                 echoes datagrams until killed
  udp-sizes ADDR PORT MTU             every size 1..=3000, fragment boundaries of MTU, 500 others; all must come back
  udp-pattern ADDR PORT TEXT COUNT    sends datagrams full of TEXT and wants each back
  udp-listen GROUP|ADDR PORT SECONDS  prints the datagrams that come (joins a multicast group)
  udp-send ADDR PORT TEXT             one datagram, broadcast allowed
  tcp-sink ADDR PORT                  takes one connection, prints bytes and SHA-256
  tcp-gauge ADDR PORT                 takes one connection, prints bytes and the longest pause between them
  tcp-source ADDR PORT BYTES          sends that much, prints bytes and SHA-256
  tcp-load ADDR PORT SECONDS          sends as fast as it goes for so long; prints bytes
  tcp-flow ADDR PORT FILE TEXT        sends TEXT over and over until FILE exists; prints bytes and SHA-256
  tcp-drain ADDR PORT                 takes one connection, prints pauses of more than 200 ms, then bytes and SHA-256
  tcp-serve ADDR PORT                 echoes one byte of each connection until killed
  tcp-short ADDR PORT COUNT           that many connections, one after the other on 8 threads
  tcp-beat ADDR PORT SECONDS          one byte each 50 ms over one connection, reconnecting; prints the longest gap
  frame-send IFACE HEX                one Ethernet frame as it is
  frame-storm IFACE HEX SECONDS       the same frame over and over, as fast as the kernel takes it
  frame-wait IFACE HEX SECONDS        waits for a frame that holds these bytes";

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("traffic {}: {e}", args.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Outcome {
    match args {
        ["udp-serve", addr, port] => udp::serve(at(addr, port)?),
        ["udp-sizes", addr, port, mtu] => udp::sizes(at(addr, port)?, mtu.parse()?),
        ["udp-pattern", addr, port, text, count] => udp::pattern(at(addr, port)?, text, count.parse()?),
        ["udp-listen", addr, port, seconds] => udp::listen(at(addr, port)?, seconds.parse()?),
        ["udp-send", addr, port, text] => udp::send(at(addr, port)?, text),
        ["tcp-sink", addr, port] => tcp::sink(at(addr, port)?),
        ["tcp-gauge", addr, port] => tcp::gauge(at(addr, port)?),
        ["tcp-source", addr, port, bytes] => tcp::source(at(addr, port)?, bytes.parse()?),
        ["tcp-load", addr, port, seconds] => tcp::load(at(addr, port)?, seconds.parse()?),
        ["tcp-flow", addr, port, file, text] => tcp::flow(at(addr, port)?, file, text),
        ["tcp-drain", addr, port] => tcp::drain(at(addr, port)?),
        ["tcp-serve", addr, port] => tcp::serve(at(addr, port)?),
        ["tcp-short", addr, port, count] => tcp::short(at(addr, port)?, count.parse()?),
        ["tcp-beat", addr, port, seconds] => tcp::beat(at(addr, port)?, seconds.parse()?),
        ["frame-send", iface, hex] => frames::send(iface, &bytes(hex)?),
        ["frame-storm", iface, hex, seconds] => frames::storm(iface, &bytes(hex)?, seconds.parse()?),
        ["frame-wait", iface, hex, seconds] => frames::wait(iface, &bytes(hex)?, seconds.parse()?),
        _ => Err(USAGE.into()),
    }
}

fn at(addr: &str, port: &str) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    Ok(SocketAddr::new(addr.parse::<IpAddr>()?, port.parse()?))
}

fn bytes(hex: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    (0..hex.len())
        .step_by(2)
        .map(|i| Ok(u8::from_str_radix(hex.get(i..i + 2).ok_or("odd number of digits")?, 16)?))
        .collect()
}
