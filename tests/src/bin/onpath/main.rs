//! Somebody on the cable between two hosts, without a key: every frame between them passes through here, and envelopes towards
//! the victim are repeated, damaged, cut off, delayed or sent from elsewhere. Orders come on standard input, one a line; each is
//! answered when it is done. It ends with its input, and the cable with it.

mod cable;

use std::error::Error;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use cable::{End, VNET, is_superframe};

const USAGE: &str = "usage: onpath PEER_PORT VICTIM_PORT UDP_PORT [relayed], then on standard input
  replay COUNT           so many envelopes come twice
  flip BIT COUNT         a bit of the datagram is another; negative: counted from its end
  cut BYTES COUNT        no more than so many bytes come; negative: so many less
  grow BYTES COUNT       so many bytes more come
  elsewhere COUNT        come from another address, not from the peer's
  again-elsewhere COUNT  come, and come once more from another address
  late AFTER COUNT       come once more after AFTER others
  notice COUNT           the peer hears that the victim does not know its index";

/// Ethernet, IPv4 without options, UDP.
const IP: usize = VNET + 14;
const UDP: usize = IP + 20;
const PAYLOAD: usize = UDP + 8;
const KIND_ENVELOPE: u8 = 0x10;
const KIND_NOTICE: u8 = 0x11;
const KIND_RELAYED: u8 = 0x12;

/// What is done to an envelope.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Replay,
    Flip(i64),
    Cut(i64),
    Grow(usize),
    Elsewhere,
    AgainElsewhere,
    Late(usize),
    Notice,
}

/// A deed, how often, and whom to tell when it is done.
struct Order {
    deed: Deed,
    left: usize,
    done: Sender<()>,
    /// Of envelopes that must come late: after how many others.
    held: Vec<(usize, Vec<u8>)>,
}

struct Cable {
    peer: End,
    victim: End,
    port: u16,
    /// First byte of what something is done to.
    kind: u8,
    order: Mutex<Option<Order>>,
    elsewhere: UdpSocket,
}

fn main() -> ExitCode {
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("onpath: {e}");
            ExitCode::FAILURE
        }
    }
}

fn obey() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (peer, victim, port, kind) = match args.as_slice() {
        [peer, victim, port] => (peer, victim, port, KIND_ENVELOPE),
        [peer, victim, port, kind] if kind == "relayed" => (peer, victim, port, KIND_RELAYED),
        _ => return Err(USAGE.into()),
    };
    let cable = Arc::new(Cable {
        peer: End::open(peer)?,
        victim: End::open(victim)?,
        port: port.parse()?,
        kind,
        order: Mutex::default(),
        elsewhere: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
    });
    let (there, back) = (Arc::clone(&cable), Arc::clone(&cable));
    std::thread::spawn(move || carry(&there.peer, &there.victim, |frame| there.towards_victim(frame)));
    std::thread::spawn(move || carry(&back.victim, &back.peer, |frame| vec![frame]));
    for line in std::io::stdin().lock().lines() {
        match cable.begin(&line?) {
            Ok(done) => println!("ok {:?}", done.recv()),
            Err(e) => println!("failed: {e}"),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Carries what comes in at one end to the other, as `through` makes it; only what is not for others.
fn carry(from: &End, to: &End, through: impl Fn(Vec<u8>) -> Vec<Vec<u8>>) {
    let mut buffer = vec![0; VNET + 70_000];
    loop {
        if let Some(frame) = from.receive(&mut buffer) {
            through(frame).iter().for_each(|frame| to.send(frame));
        }
    }
}

impl Cable {
    fn begin(&self, line: &str) -> Result<Receiver<()>, Box<dyn Error>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (deed, count) = match words.as_slice() {
            ["replay", count] => (Deed::Replay, count),
            ["flip", bit, count] => (Deed::Flip(bit.parse()?), count),
            ["cut", bytes, count] => (Deed::Cut(bytes.parse()?), count),
            ["grow", bytes, count] => (Deed::Grow(bytes.parse()?), count),
            ["elsewhere", count] => (Deed::Elsewhere, count),
            ["again-elsewhere", count] => (Deed::AgainElsewhere, count),
            ["late", after, count] => (Deed::Late(after.parse()?), count),
            ["notice", count] => (Deed::Notice, count),
            _ => return Err(USAGE.into()),
        };
        let (done, waits) = channel();
        *self.lock() = Some(Order { deed, left: count.parse()?, done, held: Vec::new() });
        Ok(waits)
    }

    /// What reaches the victim in the place of this frame.
    fn towards_victim(&self, frame: Vec<u8>) -> Vec<Vec<u8>> {
        let mut order = self.lock();
        if is_superframe(&frame) || self.payload(&frame).is_none_or(|p| p.first() != Some(&self.kind)) {
            return vec![frame];
        }
        let Some(current) = order.as_mut() else { return vec![frame] };
        let mut out = Vec::new();
        if current.left > 0 {
            current.left -= 1;
            out.extend(self.act(current, frame));
        } else {
            out.push(frame);
        }
        for (after, _) in &mut current.held {
            *after = after.saturating_sub(1);
        }
        out.extend(current.held.extract_if(.., |(after, _)| *after == 0).map(|(_, frame)| frame));
        if current.left == 0 && current.held.is_empty() {
            let _ = current.done.send(());
            *order = None;
        }
        out
    }

    fn act(&self, order: &mut Order, frame: Vec<u8>) -> Vec<Vec<u8>> {
        let datagram = self.payload(&frame).unwrap_or_default().to_vec();
        match order.deed {
            Deed::Replay => vec![frame.clone(), frame],
            Deed::Flip(bit) => {
                let mut damaged = datagram;
                let bits = damaged.len() as i64 * 8;
                let bit = usize::try_from(if bit < 0 { bits + bit } else { bit }).unwrap_or_default();
                if let Some(byte) = damaged.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                vec![with_payload(&frame, &damaged)]
            }
            Deed::Cut(bytes) => {
                let len = if bytes < 0 { datagram.len() as i64 + bytes } else { bytes };
                let len = usize::try_from(len).unwrap_or_default().min(datagram.len());
                vec![with_payload(&frame, &datagram[..len])]
            }
            Deed::Grow(bytes) => vec![with_payload(&frame, &[&datagram[..], &vec![0xa5; bytes]].concat())],
            Deed::Elsewhere => {
                self.send_elsewhere(&frame, &datagram);
                Vec::new()
            }
            Deed::AgainElsewhere => {
                self.victim.send(&frame);
                self.send_elsewhere(&frame, &datagram);
                Vec::new()
            }
            Deed::Late(after) => {
                order.held.push((after, frame.clone()));
                vec![frame]
            }
            Deed::Notice => {
                if let Some(header) = datagram.first_chunk::<16>() {
                    let mut notice = *header;
                    notice[0] = KIND_NOTICE;
                    self.peer.send(&turned(&with_payload(&frame, &notice)));
                }
                vec![frame]
            }
        }
    }

    fn send_elsewhere(&self, frame: &[u8], datagram: &[u8]) {
        let to = <[u8; 4]>::try_from(&frame[IP + 16..IP + 20]).unwrap_or_default();
        let _ = self.elsewhere.send_to(datagram, SocketAddr::from((to, self.port)));
    }

    /// The UDP payload of a frame that is for the port.
    fn payload<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8]> {
        let is_udp4 = frame.get(VNET + 12..IP + 10)?.starts_with(&[8, 0, 0x45]) && frame[IP + 9] == 17;
        let to = u16::from_be_bytes(frame.get(UDP + 2..UDP + 4)?.try_into().ok()?);
        let len = usize::from(u16::from_be_bytes(frame.get(UDP + 4..PAYLOAD - 2)?.try_into().ok()?));
        if !is_udp4 || to != self.port { None } else { frame.get(PAYLOAD..UDP + len) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same frame with another payload: lengths put right, and no UDP checksum, which IPv4 allows (RFC 768).
fn with_payload(frame: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut made = [&[0; VNET], &frame[VNET..PAYLOAD], payload].concat();
    let (ip, udp) = ((made.len() - IP) as u16, (made.len() - UDP) as u16);
    made[IP + 2..IP + 4].copy_from_slice(&ip.to_be_bytes());
    made[UDP + 4..UDP + 6].copy_from_slice(&udp.to_be_bytes());
    made[UDP + 6..PAYLOAD].fill(0);
    made[IP + 10..IP + 12].fill(0);
    let words = made[IP..UDP].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    made[IP + 10..IP + 12].copy_from_slice(&(!(sum + (sum >> 16)) as u16).to_be_bytes());
    made
}

/// The same frame the other way round. Its IPv4 checksum stays right, since a sum does not know an order.
fn turned(frame: &[u8]) -> Vec<u8> {
    let mut made = frame.to_vec();
    for (one, other, len) in [(VNET, VNET + 6, 6), (IP + 12, IP + 16, 4), (UDP, UDP + 2, 2)] {
        for at in 0..len {
            made.swap(one + at, other + at);
        }
    }
    made
}
