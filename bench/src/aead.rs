//! What sealing and opening cost by themselves: the part of an encrypted overlay's work that no design avoids.

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use weft_api::roster::Cipher;
use weft_router::{
    envelope::{Header, OVERHEAD},
    seal::{Chain, Direction},
};

/// What a suite costs on this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// Its name.
    pub suite: String,
    /// CPU seconds to seal and open 10^9 bytes.
    pub cpu_per_gb: f64,
    /// Nanoseconds to seal and open one piece.
    pub nanos_per_piece: f64,
}

/// Bytes of a piece: one full segment of a network with the default MTU, its headers copied.
const PIECE: usize = 1354;
/// How many a superframe of 64 KB is cut into.
const PIECES: usize = 48;
const PLAIN: u8 = 0x5a;
const GB: usize = 1_000_000_000;

/// The suite that `weft init` chooses on a processor with these instructions.
pub fn default_suite(instructions: &[&str]) -> Cipher {
    if instructions.contains(&"aes") { Cipher::Aegis128L } else { Cipher::ChaCha20Poly1305 }
}

/// Seals and opens one GB in pieces, train by train and in place, as the lane does; nothing is copied.
pub fn cost(suite: Cipher) -> anyhow::Result<Cost> {
    let chain = Chain::first(&[7; 32]);
    let seal = chain.seal_key(suite, Direction::FromDialler);
    let open = chain.open_key(suite, Direction::FromDialler);
    let mut train = vec![PLAIN; PIECES * (OVERHEAD + PIECE)];
    let (mut counter, trains) = (0, GB / (PIECES * PIECE));
    let start = cpu_seconds();
    for _ in 0..trains {
        for (datagram, counter) in train.chunks_exact_mut(OVERHEAD + PIECE).zip(counter..) {
            seal.seal(Header { lane: 0, index: 1, counter }, datagram);
        }
        for (datagram, counter) in train.chunks_exact_mut(OVERHEAD + PIECE).zip(counter..) {
            let opened = open.open(Header { lane: 0, index: 1, counter }, datagram);
            let chunks = opened.map_err(|reason| anyhow::anyhow!("not opened: {reason:?}"))?;
            anyhow::ensure!(chunks[0] == PLAIN, "what was opened is not what was sealed");
        }
        counter += PIECES as u64;
    }
    let spent = cpu_seconds() - start;
    let per_piece = spent / counter as f64;
    Ok(Cost {
        suite: suite.name().to_owned(),
        cpu_per_gb: per_piece / PIECE as f64 * GB as f64,
        nanos_per_piece: per_piece * 1e9,
    })
}

/// Of this thread alone, so that whoever shares the machine is not counted.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
