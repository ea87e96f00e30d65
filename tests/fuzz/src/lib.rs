//! What fuzzing throws bytes at. A target is a plain function that panics where a promise is broken, so the stored corpus and
//! every crash that was ever found are replayed by an ordinary test; `make fuzz` looks for more.
//!
//! | target | bytes come from | promises beside "no panic, no overflow" |
//! |---|---|---|
//! | `envelope` | anybody on the underlay | nothing opens that was not sealed; no counter is taken twice |
//! | `chunks` | a member | bodies lie within the envelope, in order; what fragments become is bounded |
//! | `pieces` | a member | what is written to the tap keeps to PROTOCOL 8 |
//! | `relay` | a member | whatever routes are believed, no datagram travels more than the hop limit, or by a stranger |
//! | `streams` | anybody who opens a TCP stream | records are the same however they are cut; who is inside is bounded |
//! | `frames` | a container, a member | the switch names a reason or delivers; answers are frames; checksums stay inside |
//! | `superframes` | a container | pieces that fit, which the other end glues to the same payload |
//! | `control` | a member | what is decoded encodes alike; receive keys, and actions of an event, are bounded |
//! | `gossip` | a member | what we say is within bounds; what was stored is believed again |
//! | `join` | whoever is asked, whoever joins | nobody is believed without the mesh key's signature |
//! | `records` | a member, a disk | no signature passes that nobody made |
//! | `plugin` | Docker, or who found its socket | an answer, a request or a refusal of one line |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target that finds its promise broken panics")]

mod cast;
mod control;
mod datagram;
mod frames;
mod gossip;
mod input;
mod join;
mod pieces;
mod plugin;
mod records;
mod relay;
mod stream;
mod superframe;

/// Something that bytes from outside are thrown at.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of `make fuzz TARGET=name` and of its corpus.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// What our own encoders make; where fuzzing starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "envelope", run: datagram::envelope, seeds: datagram::envelopes },
    Target { name: "chunks", run: datagram::chunks, seeds: datagram::chunk_rows },
    Target { name: "pieces", run: pieces::pieces, seeds: pieces::batches },
    Target { name: "relay", run: relay::relay, seeds: relay::samples },
    Target { name: "streams", run: stream::streams, seeds: stream::samples },
    Target { name: "frames", run: frames::frames, seeds: frames::samples },
    Target { name: "superframes", run: superframe::superframes, seeds: superframe::samples },
    Target { name: "control", run: control::control, seeds: control::talks },
    Target { name: "gossip", run: gossip::gossip, seeds: gossip::talks },
    Target { name: "join", run: join::join, seeds: join::exchanges },
    Target { name: "records", run: records::records, seeds: records::samples },
    Target { name: "plugin", run: plugin::plugin, seeds: plugin::calls },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|t| t.name == name).copied()
}
